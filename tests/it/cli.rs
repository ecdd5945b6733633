//! The command line from outside: argv in, [`Outcome`] out.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::Path};

use narthex::cli::{Command, LogFormat, LogLevel, Outcome, Sidecar, command_names, flag_table, parse};
use proptest::prelude::*;

mod blocks;
mod completion;
pub(crate) mod docs;
mod nested;
mod values;

fn run(words: &[&str]) -> Outcome {
    parse(
        std::iter::once("narthex")
            .chain(words.iter().copied())
            .map(OsString::from),
    )
}

#[track_caller]
fn sidecar(words: &[&str]) -> Sidecar {
    match run(words) {
        Outcome::Run(Command::Sidecar(sidecar)) => *sidecar,
        other => panic!("{words:?} does not run: {other:?}"),
    }
}

/// What is printed, after a look at where and with which exit code.
#[track_caller]
fn printed(words: &[&str], stdout: bool, code: u8) -> String {
    match run(words) {
        Outcome::Print { to_stdout, text, exit } => {
            assert_eq!((to_stdout, exit), (stdout, code), "{words:?}: {text}");
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{words:?}: {text:?}");
            text
        }
        Outcome::Run(command) => panic!("{words:?} runs: {command:?}"),
    }
}

/// One line on stderr, exit 1.
#[track_caller]
fn refused(words: &[&str]) -> String {
    let text = printed(words, false, 1);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("narthex: error: "), "{text}");
    text
}

/// Usage and one line on stderr, exit 2.
#[track_caller]
fn bad_value(words: &[&str]) -> String {
    bad_value_of("sidecar", words)
}

/// The same, with the usage of `command`.
#[track_caller]
fn bad_value_of(command: &str, words: &[&str]) -> String {
    let text = printed(words, false, 2);
    let lines: Vec<&str> = text.lines().collect();
    let usage = format!("usage: narthex {command} [flags], see narthex {command} --help");
    assert!(lines.len() == 2 && lines[0] == usage, "{text}");
    assert!(lines[1].starts_with("narthex: error: "), "{text}");
    text
}

#[test]
fn a_value_may_be_tied_or_follow_and_flags_may_stand_anywhere() {
    for words in [
        &["sidecar", "--tsdb.path=/p", "--log.level=warn"][..],
        &["sidecar", "--tsdb.path", "/p", "--log.level", "warn"],
        &["--log.level=warn", "sidecar", "--tsdb.path", "/p"],
        &["--log.level", "warn", "--tsdb.path", "/p", "sidecar"],
        &["sidecar", "--tsdb.path", "/p", "--log.level=warn", "--"],
    ] {
        let flags = sidecar(words);
        assert_eq!(
            (flags.tsdb.path.as_path(), flags.common.log_level),
            (Path::new("/p"), LogLevel::Warn),
            "{words:?}"
        );
    }
}

#[test]
fn a_tied_value_is_taken_as_it_is() {
    let name = |words| sidecar(words).common.debug_name;
    assert_eq!(name(&["sidecar", "--debug.name="]), "");
    assert_eq!(name(&["sidecar", "--debug.name=a=b"]), "a=b");
    assert_eq!(name(&["sidecar", "--debug.name=--log.level"]), "--log.level");
    assert_eq!(name(&["sidecar", "--debug.name=@file"]), "@file");
    assert_eq!(name(&["sidecar", "--debug.name", ""]), "");
    assert_eq!(name(&["sidecar", "--debug.name", "-"]), "-");
    assert_eq!(name(&["sidecar", "--debug.name", "--", "-x"]), "-x");
}

#[test]
fn switches_are_turned_on_and_off_by_their_names() {
    let compacted = |words| sidecar(words).shipper.upload_compacted;
    assert!(compacted(&["sidecar", "--shipper.upload-compacted"]));
    assert!(!compacted(&["sidecar", "--no-shipper.upload-compacted"]));
    let words = [
        "--shipper.ignore-unequal-block-size",
        "--shipper.allow-out-of-order-uploads",
    ];
    let shipper = sidecar(&["sidecar", words[0], words[1], "--shipper.skip-corrupted-blocks"]).shipper;
    assert!(shipper.ignore_unequal_block_size && shipper.allow_out_of_order_uploads && shipper.skip_corrupted_blocks);
    assert!(
        sidecar(&["--enable-auto-gomemlimit", "sidecar"])
            .common
            .enable_auto_gomemlimit
    );
    assert!(
        !sidecar(&["sidecar", "--no-enable-auto-gomemlimit"])
            .common
            .enable_auto_gomemlimit
    );
}

#[test]
fn mistakes_of_form_are_one_line_and_exit_1() {
    for (words, part) in [
        (&["sidecar", "--nope"][..], "unknown flag --nope"),
        (&["--nope=x", "sidecar"], "unknown flag --nope"),
        (&["sidecar", "-x"], "unknown flag -x"),
        (&["sidecar", "-hx"], "unknown flag -x"),
        (&["sidecar", "--tsdb.pat=/p"], "unknown flag --tsdb.pat"),
        (&["sidecar", "--no-tsdb.path"], "unknown flag --no-tsdb.path"),
        (&["sidecar", "--=x"], "unknown flag --"),
        (&["sidecar", "--shipper.upload-compacted=true"], "takes no value"),
        (&["sidecar", "--no-shipper.upload-compacted=false"], "takes no value"),
        (
            &["sidecar", "--shipper.upload-compacted", "true"],
            "unexpected \"true\" after sidecar",
        ),
        (&["sidecar", "--help=true"], "takes no value"),
        (&["sidecar", "stray"], "unexpected \"stray\""),
        (&["sidecar", "sidecar"], "unexpected \"sidecar\""),
        (&["sidecar", "help"], "unexpected \"help\""),
        (
            &["sidecar", "--", "--log.level=info"],
            "unexpected \"--log.level=info\"",
        ),
        (&["sidecar", "two\nlines"], "unexpected \"two\\nlines\""),
        (
            &["store"],
            "expected a command (sidecar, check, status, backfill, bucket, restore, tools), got \"store\"",
        ),
        (&["-"], "expected a command"),
        (&["sidecar", "--tsdb.path"], "--tsdb.path needs a value"),
        (
            &["sidecar", "--tsdb.path", "--log.level=info"],
            "--tsdb.path needs a value",
        ),
        (&["sidecar", "--min-time", "-1d"], "--min-time needs a value"),
        (&["--tsdb.path=/p"], "--tsdb.path needs a command"),
        (&["help", "store"], "unknown command"),
        (&["sidecar", "@"], "@ needs the name of a file"),
        (&["sidecar", "@/nonexistent/args"], "/nonexistent/args"),
        (&["sidecar", "--nope", "--log.level=loud"], "unknown flag --nope"),
        (&["sidecar", "--nope", "--help"], "unknown flag --nope"),
    ] {
        let text = refused(words);
        assert!(text.contains(part), "{words:?}: {text}");
    }
}

#[test]
fn a_value_that_is_not_utf_8_is_a_path_or_an_error() {
    let odd = |start: &str| OsString::from_vec([start.as_bytes(), b"\xff"].concat());
    let outcome = |word| parse(["narthex".into(), "sidecar".into(), word]);
    let Outcome::Run(Command::Sidecar(flags)) = outcome(odd("--tsdb.path=/p")) else {
        panic!("does not run")
    };
    assert_eq!(flags.tsdb.path.into_os_string(), odd("/p"));
    for (start, code) in [
        ("--debug.name=x", 2),
        ("--log.level=x", 2),
        ("--x", 1),
        ("-", 1),
        ("x", 1),
        ("@/x", 1),
    ] {
        let text = outcome(odd(start));
        assert!(
            matches!(&text, Outcome::Print { exit, .. } if *exit == code),
            "{start}: {text:?}"
        );
    }
}

#[test]
fn lists_may_be_repeated() {
    let flags = sidecar(&[
        "sidecar",
        "--label=cluster=eu",
        "--label",
        "replica=\"a b\"",
        "--grpc-server-tls-ciphers=A",
        "--grpc-server-tls-ciphers=B",
        "--grpc-server-tls-curves=X25519",
        "--grpc-server-tls-curves=CurveP256",
    ]);
    assert_eq!(
        flags.prometheus.labels().to_string(),
        r#"{cluster="eu", replica="a b"}"#
    );
    assert_eq!(flags.grpc.tls_ciphers, ["A", "B"]);
    assert_eq!(flags.grpc.tls_curves, ["X25519", "CurveP256"]);
}

#[test]
fn an_argument_file_stands_for_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        format!("@{}", path.display())
    };
    let inner = file("inner", "--log.format=json\n");
    let outer = file(
        "outer",
        &format!("# first\n\n  \t\n--tsdb.path\n/with space\r\n{inner}\n--label=a=# b"),
    );
    let flags = sidecar(&["sidecar", &outer, "--log.level=debug"]);
    assert_eq!(flags.tsdb.path, Path::new("/with space"));
    assert_eq!(
        (flags.common.log_format, flags.common.log_level),
        (LogFormat::Json, LogLevel::Debug)
    );
    assert_eq!(flags.prometheus.labels().get("a"), Some("# b"));

    // The command too may come from a file, and a flag may take its value from one.
    let whole = file("whole", "sidecar\n--no-shipper.upload-compacted\n");
    sidecar(&[&whole]);
    let value = file("value", "/p\n");
    assert_eq!(sidecar(&["sidecar", "--tsdb.path", &value]).tsdb.path, Path::new("/p"));
    sidecar(&["sidecar", &file("empty", "")]);

    let spaced = file("spaced", " --log.level=info\n");
    assert!(refused(&["sidecar", &spaced]).contains("unexpected \" --log.level=info\""));
    let path = dir.path().join("loop");
    fs_err::write(&path, format!("@{}\n", path.display())).unwrap();
    assert!(refused(&["sidecar", &format!("@{}", path.display())]).contains("does one name itself?"));
}

#[test]
fn what_is_asked_for_is_printed() {
    let root = printed(&[], false, 0);
    assert!(root.starts_with("Ship Prometheus' blocks to object storage"), "{root}");
    assert!(root.contains("sidecar") && root.contains("--log.level"), "{root}");
    for words in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["--log.level=debug"],
        &["--log.level=loud", "--help"],
    ] {
        assert_eq!(printed(words, false, 0), root, "{words:?}");
    }
    let help = printed(&["sidecar", "--help"], false, 0);
    for words in [
        &["--help", "sidecar"][..],
        &["sidecar", "-h"],
        &["help", "sidecar"],
        &["sidecar", "-h", "--tsdb.path="],
    ] {
        assert_eq!(printed(words, false, 0), help, "{words:?}");
    }
    for words in [
        &["--version"][..],
        &["sidecar", "--version"],
        &["sidecar", "--version", "--nope"],
    ] {
        let text = printed(words, false, 0);
        let start = format!("narthex, version {} (branch: ", env!("CARGO_PKG_VERSION"));
        assert!(
            text.starts_with(&start) && text.lines().next().unwrap().ends_with(')'),
            "{text}"
        );
    }
    let long = printed(&["--help-long"], true, 0);
    assert!(
        long.contains("--shipper.ignore-unequal-block-size") && long.contains("Must be above 0"),
        "{long}"
    );
    let man = printed(&["sidecar", "--help-man"], true, 0);
    assert!(
        man.starts_with(".TH NARTHEX 1") && man.contains("\\-\\-tsdb.path=<dir>"),
        "{man}"
    );
}

#[test]
fn scripts_for_shells_are_printed() {
    for shell in ["bash", "zsh"] {
        let script = printed(&[&format!("--completion-script-{shell}")], true, 0);
        assert!(script.contains("--completion-bash"), "{script}");
    }
}

proptest! {
    #[test]
    fn no_command_line_panics(words in prop::collection::vec(word(), 0..8)) {
        parse(std::iter::once("narthex".into()).chain(words));
    }
}

fn word() -> impl Strategy<Value = OsString> {
    let tables: String = command_names().iter().map(|command| flag_table(command)).collect();
    let flags: Vec<String> = tables
        .lines()
        .filter_map(|row| {
            Some(
                row.split('`')
                    .nth(1)?
                    .rsplit(", ")
                    .next()?
                    .split('=')
                    .next()?
                    .replace("[no-]", ""),
            )
        })
        .collect();
    let name = prop::sample::select(flags);
    let bytes =
        prop::collection::vec(any::<u8>(), 0..12).prop_filter("opens files", |bytes| bytes.first() != Some(&b'@'));
    let value = prop_oneof![
        "[-+]?[0-9.]{1,6}(ns|ms|s|m|h|d|w|y|e9)?",
        "[a-z:/$()=\"\\\\]{0,12}",
        ":[0-9]{1,6}",
        "\\PC{0,8}",
    ];
    prop_oneof![
        prop::sample::select(vec![
            "sidecar",
            "backfill",
            "bucket",
            "ls",
            "inspect",
            "verify",
            "gaps",
            "restore",
            "tools",
            "upload-blocks",
            "help",
            "--",
            "-o",
            "-owide",
            "-l",
            "-la=b",
            "-h",
        ])
        .prop_map(OsString::from),
        name.clone().prop_map(OsString::from),
        name.clone().prop_map(|flag| flag.replacen("--", "--no-", 1).into()),
        (name, value).prop_map(|(flag, value)| format!("{flag}={value}").into()),
        bytes.prop_map(OsString::from_vec),
    ]
}
