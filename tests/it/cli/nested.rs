//! Commands below commands: which flags they have, how they are refused, and what their help says.

use std::path::Path;

use narthex::cli::{Bucket, Command, LsOutput, Outcome, Output, Tools, ToolsBucket, command_names};

use super::{bad_value_of, printed, refused, run};

#[track_caller]
fn command(words: &[&str]) -> Command {
    match run(words) {
        Outcome::Run(command) => command,
        other => panic!("{words:?} does not run: {other:?}"),
    }
}

#[test]
fn commands_are_reached_to_any_depth_and_flags_may_stand_anywhere() {
    for words in [
        &["bucket", "ls", "--output=wide", "--objstore.config=x"][..],
        &["--output=wide", "bucket", "ls", "--objstore.config=x"],
        &["bucket", "--output", "wide", "--objstore.config=x", "ls"],
        &["--output", "wide", "bucket", "--objstore.config", "x", "ls"],
        &["--objstore.config=x", "bucket", "ls", "-o", "wide"],
        &["-owide", "bucket", "ls", "--objstore.config=x"],
        &["bucket", "-o", "wide", "ls", "--objstore.config=x", "--"],
    ] {
        let Command::Bucket(Bucket::Ls(flags)) = command(words) else {
            panic!("{words:?}")
        };
        assert_eq!(flags.output, LsOutput::Wide, "{words:?}");
        assert_eq!(flags.blocks.objstore.content(&|_| None).unwrap(), "x", "{words:?}");
    }
    let words = [
        "tools",
        "--path=/p",
        "bucket",
        "--log.level=warn",
        "upload-blocks",
        "--label=a=b",
    ];
    let Command::Tools(Tools::Bucket(ToolsBucket::UploadBlocks(flags))) = command(&words) else {
        panic!("{words:?}")
    };
    assert_eq!((flags.path.as_path(), flags.label.len()), (Path::new("/p"), 1));
}

#[test]
fn a_flag_belongs_to_the_commands_that_have_it() {
    for (words, part) in [
        (
            &["sidecar", "--path=x"][..],
            "unknown flag --path for sidecar: it is one of backfill, tools bucket upload-blocks; see narthex sidecar --help",
        ),
        (&["--path=x", "sidecar"], "unknown flag --path for sidecar"),
        (&["sidecar", "-o", "text"], "unknown flag --output for sidecar"),
        (
            &["sidecar", "--no-dry-run"],
            "unknown flag --dry-run for sidecar: it is one of backfill, restore",
        ),
        (
            &["backfill", "--tsdb.path=x"],
            "unknown flag --tsdb.path for backfill: it is one of sidecar, check;",
        ),
        (&["backfill", "--selector=x"], "unknown flag --selector for backfill"),
        (
            &["backfill", "--shipper.upload-compacted"],
            "unknown flag --shipper.upload-compacted for backfill",
        ),
        (&["restore", "--label=a=b"], "unknown flag --label for restore"),
        (&["bucket", "--label=a=b", "ls"], "unknown flag --label for bucket ls"),
        (
            &["bucket", "ls", "--full"],
            "unknown flag --full for bucket ls: it is one of bucket verify; see narthex bucket ls --help",
        ),
        (
            &["--max-rate=1", "bucket", "gaps"],
            "unknown flag --max-rate for bucket gaps",
        ),
        (
            &["bucket", "inspect", "--exclude-delete"],
            "unknown flag --exclude-delete for bucket inspect",
        ),
        (
            &["tools", "bucket", "upload-blocks", "--hash-func=SHA256"],
            "unknown flag --hash-func for tools bucket upload-blocks",
        ),
        (
            &["tools", "bucket", "upload-blocks", "--nope"],
            "unknown flag --nope; see narthex tools bucket upload-blocks --help",
        ),
        (
            &["bucket", "--nope", "ls"],
            "unknown flag --nope; see narthex bucket --help",
        ),
        (&["bucket", "ls", "-x"], "unknown flag -x"),
        (&["bucket", "ls", "-xl"], "unknown flag -x"),
        (&["bucket", "ls", "-o"], "--output needs a value"),
        (&["bucket", "ls", "-o", "--full"], "--output needs a value"),
        (&["bucket", "ls", "-l"], "--selector needs a value"),
        (
            &["bucket", "ls", "wide"],
            "unexpected \"wide\" after bucket ls; see narthex bucket ls --help",
        ),
        (&["bucket", "ls", "ls"], "unexpected \"ls\" after bucket ls"),
        (
            &["bucket", "web"],
            "expected a command after bucket (ls, inspect, verify, gaps), got \"web\"; see narthex bucket --help",
        ),
        (&["tools", "ls"], "expected a command after tools (bucket), got \"ls\""),
        (
            &["tools", "bucket", "ls"],
            "expected a command after tools bucket (upload-blocks), got \"ls\"",
        ),
        (
            &["ls"],
            "expected a command (sidecar, check, status, backfill, bucket, restore, tools), got \"ls\"",
        ),
        (&["--to=x"], "--to needs a command: narthex restore --to ..."),
        (
            &["--slot=1h", "--log.level=info"],
            "--slot needs a command: narthex bucket gaps --slot ...",
        ),
        (&["help", "bucket", "web"], "unknown command"),
        (&["help", "bucket", "ls", "x"], "unknown command"),
        (
            &["backfill", "--dry-run=true"],
            "--dry-run takes no value: write --dry-run or --no-dry-run",
        ),
        (
            &["backfill", "--upload-compacted=true"],
            "--upload-compacted takes no value: write --upload-compacted or --no-upload-compacted",
        ),
        (
            &["backfill", "--upload-compacted=false"],
            "--upload-compacted takes no value",
        ),
        (
            &["backfill", "--no-upload-compacted=true"],
            "--upload-compacted takes no value",
        ),
        (
            &["backfill", "--upload-compacted", "true"],
            "unexpected \"true\" after backfill",
        ),
    ] {
        let text = refused(words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
}

#[test]
fn a_group_of_commands_alone_shows_which_there_are() {
    for (words, group, names) in [
        (&["bucket"][..], "bucket", "ls, inspect, verify, gaps"),
        (&["bucket", "--output=wide"], "bucket", "ls, inspect, verify, gaps"),
        (&["tools"], "tools", "bucket"),
        (&["tools", "bucket"], "tools bucket", "upload-blocks"),
        (
            &["--log.level=info", "tools", "bucket"],
            "tools bucket",
            "upload-blocks",
        ),
    ] {
        let text = printed(words, false, 2);
        let help = printed(&[words, &["--help"]].concat(), false, 0);
        let message = format!("narthex: error: {group} needs a command: {names}\n");
        assert_eq!(text, format!("{help}{message}"), "{words:?}");
        assert!(
            help.contains(&format!("Usage: narthex {group} <command> [flags]")),
            "{help}"
        );
    }
}

#[test]
fn every_command_has_a_help_that_is_reached_in_every_way() {
    for name in command_names() {
        let words: Vec<&str> = name.split(' ').collect();
        let help = printed(&[&words[..], &["--help"]].concat(), false, 0);
        assert!(help.contains(&format!("\nUsage: narthex {name} [flags]\n")), "{help}");
        assert!(
            help.contains("\nExamples:\n  # ") && help.contains(&format!("\n  narthex {name} ")),
            "{help}"
        );
        for other in [
            [&["help"], &words[..]].concat(),
            [&["--help"], &words[..]].concat(),
            [&words[..], &["-h"]].concat(),
            [&["-h"], &words[..], &["--log.level=loud"]].concat(),
        ] {
            assert_eq!(printed(&other, false, 0), help, "{other:?}");
        }
        if name != "sidecar" {
            let codes = help.split("\nExit codes:\n").nth(1).expect("exit codes");
            let codes: Vec<&str> = codes
                .lines()
                .take_while(|line| !line.is_empty())
                .map(|line| line.trim_start().split(' ').next().unwrap())
                .collect();
            // Only those that work on a bucket can be interrupted and go on.
            let expected: &[&str] = match &*name {
                "status" => &["0", "1", "2", "3"],
                _ => &["0", "1", "2", "3", "4"],
            };
            assert_eq!(codes, expected, "{name}");
        }
        let long = printed(&["--help-long"], true, 0);
        assert!(long.contains(&format!("\nnarthex {name}\n\n")), "{name}");
        let man = printed(&["--help-man"], true, 0);
        let section = format!("\n.SH narthex {}\n", name.replace('-', "\\-"));
        assert!(man.contains(&section), "{name}");
    }
    // Only the sidecar, and what checks it, do without a bucket.
    let long = printed(&["--help-long"], true, 0);
    let (_, others) = long.split_once("\nnarthex backfill\n").unwrap();
    assert!(
        others.contains("The bucket, as YAML\n") && !others.contains("nothing is shipped"),
        "{others}"
    );
    let group = printed(&["help", "tools", "bucket"], false, 0);
    assert_eq!(group, printed(&["tools", "bucket", "-h"], false, 0));
    assert!(group.contains("upload-blocks"), "{group}");
    let root = printed(&["--help"], false, 0);
    for name in ["sidecar", "check", "status", "backfill", "bucket", "restore", "tools"] {
        assert!(root.contains(&format!("\n  {name} ")), "{root}");
    }
}

#[test]
fn the_long_help_tells_what_is_guaranteed() {
    let long = printed(&["--help-long"], true, 0);
    let long = long.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Nothing is written into --path, and nothing is ever deleted.",
        "is never overwritten",
        "needs vertical compaction",
        "Whatever ends the command, run it again",
        "--storage.tsdb.retention.time longer than the age of the data",
        "(ULID.tmp-for-creation)",
        "Where Thanos' verify ends with 0 although it found something, this ends with 3.",
        "4 interrupted by a signal; run it again to continue",
    ] {
        assert!(long.contains(part), "{part}");
    }
}

/// The command lines of the examples in a help, with what was broken into several lines put together.
fn examples(help: &str) -> Vec<String> {
    let (_, below) = help.split_once("\nExamples:\n").expect("examples");
    let below = below.replace("\\\n", " ");
    let lines = below.lines().filter_map(|line| line.strip_prefix("  narthex "));
    lines.map(str::to_owned).collect()
}

#[test]
fn examples_run() {
    for name in command_names() {
        let words: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let examples = examples(&printed(&words, false, 0));
        assert!((2..=5).contains(&examples.len()), "{name}: {examples:?}");
        for line in examples {
            // Nothing in them needs more of a shell than its single quotes, which are every second piece.
            let mut words: Vec<String> = vec![String::new()];
            for (at, piece) in line.split('\'').enumerate() {
                if at % 2 == 1 {
                    words.last_mut().unwrap().push_str(piece);
                    continue;
                }
                for char in piece.chars() {
                    match char {
                        ' ' => words.push(String::new()),
                        char => words.last_mut().unwrap().push(char),
                    }
                }
            }
            let words: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .filter(|word| !word.is_empty())
                .collect();
            assert!(line.starts_with(&name), "{line}");
            command(&words);
        }
    }
}

#[test]
fn usage_and_line_name_the_whole_command() {
    for (command, words, part) in [
        (
            "bucket ls",
            &["bucket", "ls", "--output=tall"][..],
            "--output: expected one of ids, wide, json, got \"tall\"",
        ),
        (
            "bucket ls",
            &["bucket", "ls", "-o=wide"],
            "--output: expected one of ids, wide, json, got \"=wide\"",
        ),
        (
            "tools bucket upload-blocks",
            &["tools", "bucket", "upload-blocks", "--path="],
            "--path: expected a directory, got nothing",
        ),
        ("restore", &["restore"], "--to: this flag must be given"),
        (
            "restore",
            &["restore", "--selector={}"],
            "--to: this flag must be given",
        ),
        ("restore", &["restore", "--to="], "--to: expected a directory"),
    ] {
        let text = bad_value_of(command, words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
}

#[test]
fn what_checks_a_sidecar_takes_its_flags() {
    let words = [
        "--tsdb.path=/p",
        "--shipper.ignore-unequal-block-size",
        "--no-write",
        "--timeout=5s",
        "-o",
        "json",
    ];
    let words: Vec<&str> = ["check"].into_iter().chain(words).collect();
    let Command::Check(check) = command(&words) else {
        panic!("no check: {words:?}")
    };
    assert_eq!(check.sidecar.tsdb.path, Path::new("/p"));
    assert!(check.sidecar.shipper.ignore_unequal_block_size && check.check.prometheus && !check.check.write);
    assert_eq!(check.check.timeout, std::time::Duration::from_secs(5));
    assert_eq!(check.check.result.output, Output::Json);
    for (words, part) in [
        (&["check", "--timeout=0s"][..], "--timeout must be above 0"),
        (
            &["check", "--store.memory-limit=1"],
            "--store.memory-limit must be at least 1MiB",
        ),
    ] {
        assert!(refused(words).contains(part), "{words:?}");
    }
    assert!(bad_value_of("check", &["check", "--output=csv"]).contains("--output"));
}
