//! The demonstration does what it says, and README.md shows what it prints.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fs_err as fs;
use serde_json::Value;

use crate::rig::{process::Process, tools::temp_dir};

/// It takes 40 s where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(240);

/// How many blocks it waits for; there may be more when it stops.
const BLOCKS: usize = 5;

/// The program that was built together with this one.
fn program() -> PathBuf {
    // target/<profile>/deps/it-... -> target/<profile>/examples/demo
    let this = std::env::current_exe().unwrap();
    let demo = this.parent().and_then(Path::parent).unwrap().join("examples/demo");
    assert!(
        demo.is_file(),
        "{} is missing: cargo test builds it, and cargo build --example demo",
        demo.display()
    );
    demo
}

#[tokio::test]
async fn every_block_arrives_and_the_pages_show_what_is_printed() {
    let dir = temp_dir("demo");
    let place = dir.path().join("demo");
    let mut command = Command::new(program());
    let demo = Process::spawn(
        "demo",
        command.arg(&place),
        &dir.path().join("demo.log"),
        Some(dir.path()),
    );
    let status = demo.wait(PATIENCE).await;
    let said = demo.log();
    assert!(status.success(), "{status}:\n{said}");
    asked(&said);
    compared(&said);
    assert!(!place.try_exists().unwrap(), "its files are removed");
    shown_in_the_readme(&said);
}

/// The line that ends so, without that end and the blanks before it.
fn line<'a>(said: &'a str, end: &str) -> &'a str {
    said.lines()
        .find_map(|line| line.trim().strip_suffix(end))
        .unwrap_or_else(|| panic!("no line ends with {end:?}:\n{said}"))
}

/// What narthex was asked for is shown, and as many series and samples were found by Prometheus.
fn asked(said: &str) {
    let (_, theirs) = said.split_once("Prometheus itself finds the same ").unwrap();
    let (theirs, _) = theirs.split_once(" samples.\n").unwrap();
    let (series, samples) = theirs.split_once(" series and ").unwrap();
    let ours = format!(" {series} series with {samples} samples, ");
    assert!(said.contains(&ours), "{ours:?} is not shown:\n{said}");
    let shown: Vec<usize> = said
        .lines()
        .filter(|line| line.trim_start().starts_with("{cluster=\"rig\", "))
        .filter_map(|line| line.split_once("}: ")?.1.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(shown.len(), series.parse::<usize>().unwrap(), "{said}");
    assert_eq!(shown.iter().sum::<usize>(), samples.parse::<usize>().unwrap(), "{said}");
    assert!(shown.len() > 1 && shown.iter().all(|count| *count > 1), "{said}");
}

fn compared(said: &str) {
    let (blocks, bytes) = line(said, " bytes: all there, all the same.")
        .split_once(" blocks, ")
        .unwrap();
    let (blocks, bytes): (usize, u64) = (blocks.parse().unwrap(), bytes.parse().unwrap());
    assert!(blocks >= BLOCKS && bytes > 10_000, "{blocks} blocks, {bytes} bytes");

    let ledger = said
        .find("\n{\n")
        .and_then(|at| said[at..].split_once("\n}\n"))
        .unwrap()
        .0;
    let ledger: Value = serde_json::from_str(&format!("{ledger}\n}}")).unwrap();
    let listed: BTreeSet<&str> = ledger["uploaded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    assert_eq!(listed.len(), blocks, "{ledger}");
    for id in &listed {
        assert!(
            said.contains(&format!("\n         {id}/\n")),
            "{id} is not shown:\n{said}"
        );
    }

    let times = line(said, &format!(", over {blocks} blocks"));
    let seconds: Vec<f64> = times.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [middle, last] = seconds[..] else {
        panic!("two times are shown: {times}")
    };
    assert!(
        times.contains("p50") && 0.0 <= middle && middle <= last && last > 0.0,
        "{times}"
    );
}

/// What changes from run to run, replaced by signs.
fn normal(line: &str) -> String {
    let sign = |word: &str| -> String {
        let id = word.trim_matches(['"', '/', ',']);
        match id.len() == 26
            && id
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        {
            true => word.replace(id, "ID"),
            false => word
                .chars()
                .map(|char| if char.is_ascii_digit() { '0' } else { char })
                .collect(),
        }
    };
    let words: Vec<String> = line.split_whitespace().map(sign).collect();
    let mut line = words.join(" ");
    for (more, less) in [("00", "0"), ("[ 0", "[0")] {
        while line.contains(more) {
            line = line.replace(more, less);
        }
    }
    line
}

fn shown_in_the_readme(said: &str) {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, shown) = readme.split_once("```text\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let mut lines = said.lines().map(normal);
    let mut seen = 0;
    for line in shown.lines().filter(|line| !line.trim().is_empty() && *line != "...") {
        let line = normal(line);
        assert!(
            lines.any(|found| found == line),
            "README.md shows {line:?}, which is not printed, or not in this order:\n{said}"
        );
        seen += 1;
    }
    assert!(seen >= 5, "README.md shows {seen} lines only");
}
