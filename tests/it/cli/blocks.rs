//! The values of the flags of backfill, restore and what looks at a bucket: defaults, forms, and what is refused.

use std::{path::Path, time::Duration};

use narthex::{
    cli::{
        Backfill, Bucket, Command, Gaps, HashFunc, Inspect, InspectColumn, InspectOutput, LogLevel, Ls, LsOutput,
        Outcome, Output, Proof, Restore, Selection, Tools, ToolsBucket, UploadBlocks, Verify,
    },
    model::{Labels, duration::TimeOrDuration, selector::Selector},
};

use super::{bad_value_of, printed, refused, run};

const YEAR_0: TimeOrDuration = TimeOrDuration::At(-62_167_219_200_000);
const END_OF_9999: TimeOrDuration = TimeOrDuration::At(253_402_300_799_000);

/// Runs a command line and takes the flags of the command out.
macro_rules! flags_of {
    ($name:ident, $flags:ty, $pattern:pat => $out:expr, $first:expr) => {
        #[track_caller]
        fn $name(words: &[&str]) -> $flags {
            match run(&[&$first[..], words].concat()) {
                Outcome::Run($pattern) => *$out,
                other => panic!("{words:?}: {other:?}"),
            }
        }
    };
}

flags_of!(backfill, Backfill, Command::Backfill(flags) => flags, ["backfill"]);
flags_of!(restore, Restore, Command::Restore(flags) => flags, ["restore", "--to=/r"]);
flags_of!(ls, Ls, Command::Bucket(Bucket::Ls(flags)) => flags, ["bucket", "ls"]);
flags_of!(inspect, Inspect, Command::Bucket(Bucket::Inspect(flags)) => flags, ["bucket", "inspect"]);
flags_of!(verify, Verify, Command::Bucket(Bucket::Verify(flags)) => flags, ["bucket", "verify"]);
flags_of!(gaps, Gaps, Command::Bucket(Bucket::Gaps(flags)) => flags, ["bucket", "gaps"]);
flags_of!(
    upload_blocks, UploadBlocks, Command::Tools(Tools::Bucket(ToolsBucket::UploadBlocks(flags))) => flags,
    ["tools", "bucket", "upload-blocks"]
);

#[test]
fn without_flags_a_backfill_takes_all_blocks_and_has_no_limit() {
    let flags = backfill(&[]);
    let source = &flags.source;
    assert_eq!(
        (source.path.as_path(), source.hash_func),
        (Path::new("./data"), HashFunc::Sha256)
    );
    assert!(source.labels().is_empty() && source.prometheus_url.is_none());
    assert_eq!(source.client.yaml().unwrap(), "");
    assert_eq!((source.times.min_time, source.times.max_time), (YEAR_0, END_OF_9999));
    assert!(source.upload_compacted && !source.accept_label_change && !source.allow_overlaps);
    assert!(!source.allow_index_issues);
    assert_eq!((flags.transfer.concurrency, flags.transfer.max_rate), (4, 0));
    assert_eq!((flags.verify, flags.result.output), (Proof::Checksums, Output::Text));
    assert!(!flags.dry_run);
    assert_eq!(flags.objstore.content(&|_| None).unwrap(), "");
    assert_eq!(flags.common.log_level, LogLevel::Info);
}

#[test]
fn without_flags_upload_blocks_has_the_defaults_of_thanos() {
    let flags = upload_blocks(&[]);
    assert_eq!(
        (flags.path.as_path(), flags.upload_concurrency),
        (Path::new("./data"), 5)
    );
    assert!(!flags.upload_compacted && flags.labels().is_empty());
    let flags = upload_blocks(&[
        "--path=/var/lib/prometheus/blocks",
        r#"--label=cluster="eu""#,
        "--label=replica=`a`",
        "--objstore.config-file=/b.yml",
        "--shipper.upload-compacted",
        "--shipper.upload-concurrency=0",
        "--log.format=json",
        "--enable-auto-gomemlimit",
    ]);
    assert_eq!(
        flags.labels(),
        Labels::from_pairs([("cluster", "eu"), ("replica", "a")])
    );
    assert!(flags.upload_compacted && flags.upload_concurrency == 0);
    assert_eq!(flags.objstore.config_file.as_deref(), Some(Path::new("/b.yml")));
}

#[test]
fn without_flags_the_bucket_is_looked_at_whole() {
    let all = |selection: &Selection| {
        assert!(selection.selector.is_empty());
        assert_eq!(
            (selection.times.min_time, selection.times.max_time),
            (YEAR_0, END_OF_9999)
        );
    };
    let (minutes, hours) = (
        |n: u64| Duration::from_secs(60 * n),
        |n: u64| Duration::from_secs(3600 * n),
    );
    let flags = ls(&[]);
    all(&flags.blocks.selection);
    assert_eq!(
        (flags.output, flags.limit.timeout, flags.exclude_delete),
        (LsOutput::Ids, minutes(5), false)
    );
    let flags = inspect(&[]);
    all(&flags.blocks.selection);
    assert_eq!((flags.output, flags.limit.timeout), (InspectOutput::Table, minutes(5)));
    assert!(flags.sort_by.is_empty());
    let flags = verify(&[]);
    all(&flags.blocks.selection);
    assert_eq!((flags.full, flags.result.output), (false, Output::Text));
    assert_eq!((flags.transfer.concurrency, flags.transfer.max_rate), (4, 0));
    let flags = gaps(&[]);
    all(&flags.blocks.selection);
    assert_eq!(
        (flags.slot, flags.tolerance, flags.seal_delay),
        (hours(2), minutes(5), hours(3))
    );
    assert_eq!(flags.until, None);
    assert_eq!(flags.result.output, Output::Text);
    let flags = restore(&[]);
    all(&flags.blocks.selection);
    assert_eq!(
        (flags.to.as_path(), flags.skip_downsampled, flags.dry_run),
        (Path::new("/r"), false, false)
    );
    assert_eq!((flags.result.output, flags.transfer.concurrency), (Output::Text, 4));
}

#[test]
fn a_switch_that_is_on_is_turned_off_by_its_name() {
    let compacted = |words: &[&str]| backfill(words).source.upload_compacted;
    assert!(compacted(&["--upload-compacted"]));
    assert!(!compacted(&["--no-upload-compacted"]));
    let Outcome::Run(Command::Backfill(flags)) = run(&["--no-upload-compacted", "backfill", "--dry-run"]) else {
        panic!("does not run")
    };
    assert!(!flags.source.upload_compacted && flags.dry_run);
    assert!(!backfill(&["--no-dry-run"]).dry_run);
}

#[test]
fn external_labels_are_taken_with_and_without_quotes() {
    let labels = |label: &str| backfill(&["--label", label]).source.labels().to_string();
    for label in [
        "cluster=eu",
        r#"cluster="eu""#,
        "cluster=`eu`",
        r#"cluster="\x65\u0075""#,
    ] {
        assert_eq!(labels(label), r#"{cluster="eu"}"#, "{label}");
    }
    assert_eq!(labels("größe=x=y"), r#"{größe="x=y"}"#);
    assert_eq!(
        backfill(&["--label=b=1", "--label=a=2"]).source.labels().to_string(),
        r#"{a="2", b="1"}"#
    );
}

#[test]
fn selectors_are_taken_in_every_form() {
    let want = Selector::parse(r#"{cluster="eu"}"#).unwrap();
    for words in [
        &["-l", r#"{cluster="eu"}"#][..],
        &["-l", r#"cluster="eu""#],
        &["-l", "cluster=eu"],
        &["-lcluster=eu"],
        &["-l{cluster=\"eu\"}"],
        &["--selector={cluster='eu',}"],
        &["--selector", "{cluster=`eu`}"],
    ] {
        assert_eq!(
            ls(words).blocks.selection.selector,
            std::slice::from_ref(&want),
            "{words:?}"
        );
    }
    let selectors = restore(&["-l", "a=b", "--selector={c!=\"d\", e=~\"x|y\"}"])
        .blocks
        .selection
        .selector;
    assert_eq!(selectors.len(), 2);
    let labels = Labels::from_pairs([("a", "b"), ("e", "y")]);
    assert!(selectors.iter().all(|selector| selector.matches(&labels).unwrap()));
}

#[test]
fn short_flags_take_values() {
    assert_eq!(ls(&["-owide"]).output, LsOutput::Wide);
    assert_eq!(ls(&["-o", "json"]).output, LsOutput::Json);
    assert_eq!(inspect(&["-o", "tsv", "-la=b"]).output, InspectOutput::Tsv);
    assert_eq!(gaps(&["-ojson"]).result.output, Output::Json);
    assert_eq!(backfill(&["-o", "json"]).result.output, Output::Json);
}

#[test]
fn what_is_said_with_flags_is_understood() {
    let flags = backfill(&[
        "--path=/p",
        "--prometheus.url=http://localhost:9090/x",
        "--prometheus.http-client=bearer_token: x",
        "--accept-label-change",
        "--allow-overlaps",
        "--allow-index-issues",
        "--min-time=-30d",
        "--max-time=2999-01-01T00:00:00Z",
        "--hash-func=",
        "--concurrency=1024",
        "--max-rate=1.5MiB/s",
        "--verify=full",
    ]);
    let source = &flags.source;
    assert_eq!(source.prometheus_url.as_ref().unwrap().path(), "/x");
    assert_eq!(source.client.yaml().unwrap(), "bearer_token: x");
    assert!(
        source.allow_index_issues && source.accept_label_change && source.allow_overlaps && flags.verify == Proof::Full
    );
    assert_eq!(source.times.min_time, TimeOrDuration::FromNow(-30 * 86_400_000));
    assert_eq!(source.times.max_time, TimeOrDuration::At(32_472_144_000_000));
    assert_eq!(source.hash_func, HashFunc::Off);
    assert_eq!((flags.transfer.concurrency, flags.transfer.max_rate), (1024, 1_572_864));
    let flags = inspect(&["--sort-by=#SERIES", "--sort-by", "UNTIL-DOWN", "--timeout=0"]);
    assert_eq!(flags.sort_by, [InspectColumn::Series, InspectColumn::UntilDown]);
    assert!(flags.limit.timeout.is_zero());
    let flags = gaps(&["--slot=1d", "--tolerance=0", "--seal-delay=90m"]);
    let seconds = [flags.slot, flags.tolerance, flags.seal_delay].map(|time| time.as_secs());
    assert_eq!(seconds, [86_400, 0, 5400]);
    for (word, until) in [
        ("--until=now", TimeOrDuration::FromNow(0)),
        ("--until=-1d", TimeOrDuration::FromNow(-86_400_000)),
        ("--until=1970-01-01T00:00:01Z", TimeOrDuration::At(1000)),
    ] {
        assert_eq!(gaps(&[word]).until, Some(until), "{word}");
    }
    assert!(ls(&["--exclude-delete"]).exclude_delete && verify(&["--full"]).full);
    assert!(restore(&["--skip-downsampled"]).skip_downsampled && restore(&["--dry-run"]).dry_run);
}

#[test]
fn bad_values_of_a_backfill_show_the_usage_and_exit_2() {
    for (word, part) in [
        ("--path=", "--path: expected a directory"),
        ("--label=cluster", "--label: \"cluster\" has no =, expected name=value"),
        ("--label==eu", "--label: \"=eu\" has no name before the ="),
        ("--label=cluster=", "--label: label cluster has an empty value"),
        ("--label=cluster=\"\"", "--label: label cluster has an empty value"),
        (
            "--label=cluster=\"eu",
            "--label: the value \"eu of label cluster: the \" that it begins with is not closed",
        ),
        (
            "--label=cluster='eu'",
            "--label: the value 'eu' of label cluster: in Go's quoting single quotes hold exactly one character",
        ),
        ("--label=cluster=\"eu\"x", "goes on after its closing"),
        ("--label=cluster=\"\\q\"", "\\q is no escape"),
        ("--label=__name__=up", "--label: __name__ cannot be an external label"),
        ("--label=", "--label: \"\" has no ="),
        (
            "--prometheus.url=localhost:9090",
            "--prometheus.url: expected a URL such as",
        ),
        ("--min-time=", "--min-time"),
        (
            "--min-time=yesterday",
            "--min-time: \"yesterday\" is neither a time nor a duration",
        ),
        (
            "--max-time=2026-13-01T00:00:00Z",
            "--max-time: \"2026-13-01T00:00:00Z\" is neither",
        ),
        ("--max-time=1.5h", "--max-time"),
        ("--hash-func=MD5", "--hash-func: expected SHA256 or nothing"),
        (
            "--concurrency=0",
            "--concurrency: expected a number from 1 to 1024, got \"0\"",
        ),
        ("--concurrency=1025", "--concurrency: expected a number from 1 to 1024"),
        ("--concurrency=-1", "--concurrency: expected a number from 1 to 1024"),
        ("--concurrency=4.5", "--concurrency: expected a number from 1 to 1024"),
        ("--concurrency=four", "--concurrency: expected a number from 1 to 1024"),
        ("--max-rate=fast", "--max-rate: expected a number of bytes such as"),
        ("--max-rate=", "--max-rate: expected a number of bytes"),
        ("--max-rate=-1MiB", "--max-rate: expected a number of bytes"),
        (
            "--max-rate=50M",
            "--max-rate: \"M\" in \"50M\" is no unit: there are B, KiB",
        ),
        (
            "--max-rate=99999999999TiB",
            "--max-rate: \"99999999999TiB\" is more than",
        ),
        ("--max-rate=0.1B", "--max-rate: \"0.1B\" is less than a byte"),
        (
            "--verify=some",
            "--verify: expected one of checksums, full, got \"some\"",
        ),
        ("--output=yaml", "--output: expected one of text, json, got \"yaml\""),
        ("--log.level=loud", "--log.level: expected one of error"),
    ] {
        let text = bad_value_of("backfill", &["backfill", word]);
        assert!(text.contains(part), "{word}: {text}");
    }
    for words in [
        &["backfill", "--path=a", "--path=a"][..],
        &["--dry-run", "backfill", "--no-dry-run"],
        &["backfill", "--upload-compacted", "--no-upload-compacted"],
        &["-otext", "backfill", "--output=json"],
    ] {
        let text = bad_value_of("backfill", words);
        assert!(text.contains("is given more than once"), "{words:?}: {text}");
    }
    for words in [&["backfill"][..], &["tools", "bucket", "upload-blocks"]] {
        let twice = [words, &["--label=a=1", "--label=b=1", "--label=a=\"2\""]].concat();
        let text = bad_value_of(&words.join(" "), &twice);
        assert!(text.contains("--label: a is given more than once"), "{text}");
    }
    let secret = bad_value_of("backfill", &["backfill", "--prometheus.url=hunter2://hunter2"]);
    assert!(!secret.contains("hunter2"), "{secret}");
}

#[test]
fn bad_values_of_what_looks_at_a_bucket_show_the_usage_and_exit_2() {
    for (command, word, part) in [
        (
            "bucket ls",
            "--selector=",
            "--selector: no selector such as '{cluster=\"eu\"}': it is empty",
        ),
        (
            "bucket ls",
            "--selector={cluster=\"eu\"",
            "expected a closing brace, got the end",
        ),
        (
            "bucket ls",
            "--selector=cluster",
            "expected =, !=, =~ or !~ after the label cluster",
        ),
        (
            "bucket ls",
            "--selector={cluster=~\"(\"}",
            "--selector: no selector such as '{cluster=\"eu\"}': cluster: error parsing regexp: missing closing ): `(`",
        ),
        ("bucket ls", "-l{cluster=eu", "expected a closing brace"),
        ("bucket ls", "-lcluster='eu", "is not closed"),
        ("bucket ls", "--timeout=5", "--timeout"),
        ("bucket ls", "--timeout=soon", "--timeout"),
        (
            "bucket ls",
            "--output={{.ULID}}",
            "--output: expected one of ids, wide, json",
        ),
        (
            "bucket ls",
            "--min-time=now",
            "--min-time: \"now\" is neither a time nor a duration",
        ),
        (
            "bucket inspect",
            "--sort-by=SERIES",
            "--sort-by: expected one of ULID, FROM, UNTIL",
        ),
        (
            "bucket inspect",
            "--output=xml",
            "--output: expected one of table, csv, tsv, json",
        ),
        ("bucket inspect", "-l\"a\"", "after the label a, got the end"),
        ("bucket verify", "--concurrency=", "--concurrency: expected a number"),
        (
            "bucket verify",
            "--max-rate=1 PiB",
            "--max-rate: \"PiB\" in \"1 PiB\" is no unit",
        ),
        ("bucket gaps", "--slot=2", "--slot"),
        ("bucket gaps", "--slot=1y", "--slot"),
        ("bucket gaps", "--until=", "--until"),
        ("bucket gaps", "--until=last", "--until"),
        ("bucket gaps", "--tolerance=", "--tolerance"),
        ("bucket gaps", "--seal-delay=x", "--seal-delay"),
        ("restore", "--max-time=2026-01-01", "--max-time"),
        ("restore", "--output=csv", "--output: expected one of text, json"),
        (
            "tools bucket upload-blocks",
            "--shipper.upload-concurrency=many",
            "--shipper.upload-concurrency",
        ),
        (
            "tools bucket upload-blocks",
            "--label=cluster='eu'",
            "single quotes hold exactly one character",
        ),
    ] {
        let words: Vec<&str> = command
            .split(' ')
            .chain(["--to=/r"].into_iter().filter(|_| command == "restore"))
            .chain([word])
            .collect();
        let text = bad_value_of(command, &words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
}

#[test]
fn flags_that_cannot_go_together_are_told() {
    for (words, part) in [
        (
            &[
                "backfill",
                "--min-time=2026-02-01T00:00:00Z",
                "--max-time=2026-01-01T00:00:00Z",
            ][..],
            "--min-time is after --max-time",
        ),
        (
            &["backfill", "--min-time=-1d", "--max-time=-2d"],
            "--min-time is after --max-time",
        ),
        (
            &["backfill", "--min-time=-1d", "--max-time=2020-01-01T00:00:00Z"],
            "--min-time is after --max-time",
        ),
        (
            &["bucket", "ls", "--max-time=1969-12-31T00:00:00Z", "--min-time=0"],
            "--min-time is after --max-time",
        ),
        (
            &["bucket", "inspect", "--min-time=1h", "--max-time=-1h"],
            "--min-time is after --max-time",
        ),
        (
            &["bucket", "verify", "--min-time=1h", "--max-time=-1h"],
            "--min-time is after --max-time",
        ),
        (
            &["bucket", "gaps", "--min-time=1h", "--max-time=-1h"],
            "--min-time is after --max-time",
        ),
        (
            &["restore", "--to=/r", "--min-time=1h", "--max-time=-1h"],
            "--min-time is after --max-time",
        ),
        (
            &["bucket", "gaps", "--min-time=-1h", "--until=-2h"],
            "--until is not after --min-time",
        ),
        (&["bucket", "gaps", "--slot=0"], "--slot must be at least 1s"),
        (&["bucket", "gaps", "--slot=-2h"], "--slot must be at least 1s"),
        (&["bucket", "gaps", "--slot=2ms"], "--slot must be at least 1s"),
        (
            &["backfill", "--prometheus.http-client=x: y"],
            "give --prometheus.url, too",
        ),
        (
            &["backfill", "--prometheus.http-client-file=/x"],
            "give --prometheus.url, too",
        ),
        (
            &["backfill", "--accept-label-change"],
            "--accept-label-change needs labels to change to",
        ),
        (
            &["tools", "bucket", "upload-blocks", "--auto-gomemlimit.ratio=2"],
            "--auto-gomemlimit.ratio",
        ),
    ] {
        let text = refused(words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
    let all = printed(
        &[
            "backfill",
            "--accept-label-change",
            "--prometheus.http-client=x",
            "--min-time=1d",
            "--max-time=-1d",
        ],
        false,
        1,
    );
    assert_eq!(all.lines().count(), 3, "{all}");
    // These may.
    backfill(&["--min-time=2026-01-01T00:00:00Z", "--max-time=2026-01-01T00:00:00Z"]);
    backfill(&["--accept-label-change", "--label=a=b"]);
    backfill(&["--prometheus.http-client=", "--prometheus.http-client-file="]);
    gaps(&["--slot=1s"]);
    gaps(&["--until=now", "--max-time=-1d"]);
}
