//! Completion: what the program offers, and what bash makes of it.

use std::process::Command;

use narthex::cli::Outcome;

use super::run;

/// What the last of these words may be.
#[track_caller]
fn complete(words: &[&str]) -> Vec<String> {
    match run(&[&["--completion-bash"], words].concat()) {
        Outcome::Print {
            to_stdout: true,
            text,
            exit: 0,
        } => text.lines().map(str::to_owned).collect(),
        other => panic!("{other:?}"),
    }
}

/// Words, what may stand for the last of them, and what it is.
const TABLE: [(&[&str], &[&str]); 27] = [
    (
        &[""],
        &[
            "sidecar", "check", "status", "backfill", "bucket", "restore", "tools", "help",
        ],
    ),
    (&["si"], &["sidecar"]),
    (&["b"], &["backfill", "bucket"]),
    (&["bucket", ""], &["ls", "inspect", "verify", "gaps"]),
    (&["bucket", "v"], &["verify"]),
    (&["tools", ""], &["bucket"]),
    (&["tools", "bucket", "up"], &["upload-blocks"]),
    (&["tools", "bucket", "upload-blocks", "x"], &[]),
    (&["help", "b"], &["backfill", "bucket"]),
    (&["help", "bucket", "i"], &["inspect"]),
    (&["help", "bucket", "ls", ""], &[]),
    (&["sidecar", "--tsdb"], &["--tsdb.path"]),
    (&["sidecar", "--log.level", "d"], &["debug"]),
    (&["sidecar", "--shipper.ignore"], &[]),
    (&["sidecar", "x"], &[]),
    (&["sidecar", "--pat"], &[]),
    (&["backfill", "--pat"], &["--path"]),
    (&["backfill", "--upload"], &["--upload-compacted"]),
    (
        &["backfill", "--no-"],
        &[
            "--no-accept-label-change",
            "--no-allow-overlaps",
            "--no-allow-index-issues",
            "--no-upload-compacted",
            "--no-dry-run",
            "--no-enable-auto-gomemlimit",
        ],
    ),
    (&["backfill", "--verify", ""], &["checksums", "full"]),
    (&["bucket", "ls", "--output", ""], &["ids", "wide", "json"]),
    (&["bucket", "ls", "-o", "w"], &["wide"]),
    (&["bucket", "inspect", "-o", ""], &["table", "csv", "tsv", "json"]),
    (
        &["bucket", "inspect", "--sort-by", "#"],
        &["#SERIES", "#SAMPLES", "#CHUNKS"],
    ),
    (
        &["--log.format=json", "bucket", "gaps", "--se"],
        &["--selector", "--seal-delay"],
    ),
    (&["restore", "--skip"], &["--skip-downsampled"]),
    (&["restore", "--to", ""], &[]),
];

#[test]
fn words_are_completed_by_what_may_follow() {
    for (words, want) in TABLE {
        assert_eq!(complete(words), want, "{words:?}");
    }
    assert_eq!(complete(&[]), complete(&[""]));
    // zsh keeps flag and value together, bash takes them apart.
    assert_eq!(complete(&["bucket", "ls", "--output=w"]), ["--output=wide"]);
    assert_eq!(complete(&["bucket", "ls", "--output=x"]), [""; 0]);
    assert_eq!(complete(&["bucket", "ls", "--output", "=", "w"]), ["wide"]);
    assert_eq!(complete(&["bucket", "ls", "--output", "="]), ["ids", "wide", "json"]);
}

/// What bash offers for the last word, by the script that the program prints.
fn in_bash(words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_narthex");
    let script = r#"eval "$("$0" --completion-script-bash)"
        complete -p narthex > /dev/null || exit 1
        COMP_WORDS=("$0" "$@"); COMP_CWORD=$#
        _narthex_complete
        printf '%s\n' "${COMPREPLY[@]}""#;
    let done = Command::new("bash")
        .args(["--norc", "-c", script, program])
        .args(words)
        .output();
    let done = done.expect("bash is needed to try completion");
    assert!(done.status.success(), "{words:?}: {done:?}");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{words:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    said.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_offers_what_the_program_says() {
    for (words, want) in TABLE {
        assert_eq!(in_bash(words), want, "{words:?}");
    }
    assert_eq!(in_bash(&["bucket", "ls", "--output", "=", "w"]), ["wide"]);
    assert_eq!(in_bash(&["bucket", "ls", "--output", "="]), ["ids", "wide", "json"]);
}
