//! Runs of the program, and what they have found.

use std::{collections::BTreeMap, path::Path};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{
    BucketView,
    one_shot::{Ran, narthex},
    tools::temp_dir,
};

/// Something that is to be found: the check, its verdict, and a part of the text.
pub(super) type Wanted<'a> = (&'a str, &'a str, &'a str);

/// An empty data directory and an empty bucket beside it.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) data: TempDir,
    pub(super) store: TempDir,
}

impl Scene {
    pub(super) fn new() -> Scene {
        Scene {
            data: temp_dir("data"),
            store: temp_dir("bucket"),
        }
    }

    /// The flags of both.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = on_data(self.data.path());
        flags.push(format!(
            "--objstore.config={}",
            BucketView::dir(self.store.path()).config()
        ));
        flags
    }
}

/// The flag of a data directory.
pub(super) fn on_data(data: &Path) -> Vec<String> {
    vec![format!("--tsdb.path={}", data.display())]
}

/// Runs a check with these flags, on ports that are free.
#[track_caller]
pub(super) fn run(flags: &[String], more: &[&str]) -> Ran {
    let mut words = vec!["check", "--output=json"];
    for flag in ["--http-address", "--grpc-address"] {
        if !more.iter().any(|word| word.starts_with(flag)) {
            words.push(match flag {
                "--http-address" => "--http-address=127.0.0.1:0",
                _ => "--grpc-address=127.0.0.1:0",
            });
        }
    }
    words.extend(flags.iter().map(String::as_str));
    words.extend(more);
    narthex(&words)
}

/// What a run has found.
#[derive(Debug)]
pub(super) struct Found {
    /// What is not ok: verdict and text by check.
    pub(super) bad: BTreeMap<String, (String, String)>,
    /// What is: checks and texts.
    pub(super) good: Vec<(String, String)>,
}

/// What was printed, which must be in itself consistent.
#[track_caller]
pub(super) fn found(ran: &Ran) -> Found {
    let json = ran.json();
    assert_eq!(json["version"], 1);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let (mut bad, mut good, mut worst) = (BTreeMap::new(), Vec::new(), "ok");
    for finding in json["findings"].as_array().unwrap() {
        let (check, verdict, said) = (text(finding, "check"), text(finding, "verdict"), text(finding, "text"));
        if verdict == "ok" {
            assert!(finding.get("fix").is_none(), "{finding}");
            good.push((check, said));
            continue;
        }
        assert!(!text(finding, "fix").is_empty(), "{finding}");
        if verdict == "fail" || worst == "ok" {
            worst = if verdict == "fail" { "fail" } else { "warn" };
        }
        assert_eq!(bad.insert(check, (verdict, said)), None, "twice: {finding}");
    }
    assert_eq!(json["verdict"], worst);
    assert_eq!(ran.code, Some(if worst == "fail" { 3 } else { 0 }), "{ran:?}");
    Found { bad, good }
}

/// Panics unless a run with these flags finds exactly this.
#[track_caller]
pub(super) fn finds(flags: &[String], more: &[&str], wanted: &[Wanted<'_>]) -> Ran {
    let ran = run(flags, more);
    let bad = found(&ran).bad;
    let names: Vec<&str> = bad.keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = wanted.iter().map(|(check, ..)| *check).collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "{more:?}: {bad:#?}");
    for (check, verdict, part) in wanted {
        let (is, text) = &bad[*check];
        assert_eq!(is, verdict, "{check}: {text}");
        assert!(text.contains(part), "{check}: {part:?} is not in {text:?}");
    }
    ran
}

/// A file with this text in a directory.
pub(super) fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}
