//! `verify --full`: every byte of real blocks is read.

use std::process::Command;

use serde_json::json;

use super::stage::{Bucket, PATIENCE, real, run_on};
use crate::rig::{Sidecar, Weed, process::Process, tools::temp_dir, wait_until};

/// A bucket with one real block.
fn bucket() -> (Bucket, String) {
    let bucket = Bucket::new();
    let (id, objects) = real();
    for (key, body) in objects {
        bucket.put(&key, body);
    }
    (bucket, id)
}

fn flip(bucket: &Bucket, key: &str, at: usize) {
    let mut bytes = fs_err::read(bucket.path().join(key)).unwrap();
    bytes[at] ^= 1;
    bucket.put(key, bytes);
}

#[test]
fn a_flipped_bit_is_found_by_reading() {
    let (bucket, id) = bucket();
    for concurrency in ["1", "2", "40"] {
        let run = bucket.run(&["verify", "--full", "--concurrency", concurrency]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(
            run.stdout.starts_with("1 block, 3 objects, ") && run.stdout.ends_with(": no issues\n"),
            "{run:?}"
        );
    }
    for (name, at) in [("chunks/000001", 3000), ("index", 700)] {
        let key = format!("{id}/{name}");
        flip(&bucket, &key, at);
        assert_eq!(bucket.run(&["verify"]).code, Some(0));
        let run = bucket.run(&["verify", "--full", "-o", "json"]);
        let issues = run.json()["issues"].clone();
        assert_eq!((run.code, issues.as_array().unwrap().len()), (Some(3), 1), "{run:?}");
        assert_eq!(
            (&issues[0]["block"], &issues[0]["kind"]),
            (&json!(id), &json!("content"))
        );
        assert!(issues[0]["detail"].as_str().unwrap().contains(name), "{run:?}");
        flip(&bucket, &key, at);
    }
}

#[test]
fn another_hash_and_wrong_statistics_are_found() {
    let (bucket, id) = bucket();
    let key = format!("{id}/meta.json");
    let good: serde_json::Value = serde_json::from_slice(&fs_err::read(bucket.path().join(&key)).unwrap()).unwrap();
    let mut bad = good.clone();
    bad["thanos"]["files"][1]["hash"]["value"] = "00".repeat(32).into();
    bucket.put(&key, bad.to_string());
    let run = bucket.run(&["verify", "--full", "-o", "json"]);
    assert_eq!(run.json()["issues"][0]["kind"], "checksum", "{run:?}");
    let mut bad = good;
    bad["stats"]["numSeries"] = 99.into();
    bucket.put(&key, bad.to_string());
    let run = bucket.run(&["verify", "--full", "-o", "json"]);
    assert_eq!(
        (run.code, &run.json()["issues"][0]["kind"]),
        (Some(3), &json!("content")),
        "{run:?}"
    );
    assert_eq!(bucket.run(&["verify"]).code, Some(0));
}

#[tokio::test]
async fn a_bucket_of_s3_is_read() {
    let view = Weed::shared().await.bucket("audit").await.below("some/prefix");
    let (id, objects) = real();
    for (key, body) in &objects {
        view.put(key, body.clone()).await;
    }
    let run = |args: &[&str]| run_on(&view.config(), args);
    let full = run(&["verify", "--full"]);
    assert!(
        full.code == Some(0) && full.stdout.starts_with("1 block, 3 objects, "),
        "{full:?}"
    );
    assert_eq!(run(&["ls"]).stdout, format!("{id}\n"));
    let rows = run(&["inspect", "-o", "json", "--selector", "{cluster=\"a\"}"]).json();
    assert_eq!((&rows[0]["series"], &rows[0]["samples"]), (&json!(100), &json!(24_000)));
    let gaps = run(&["gaps", "--max-time=2026-01-01T04:00:00Z", "-o", "json"]);
    let set = gaps.json()["label_sets"][0].clone();
    assert_eq!(
        (gaps.code, &set["found"], &set["missing"]),
        (Some(3), &json!(1), &json!(1)),
        "{set}"
    );
    let (chunks, body) = &objects[0];
    let mut damaged = body.clone();
    damaged[2000] ^= 0x40;
    view.put(chunks, damaged).await;
    let full = run(&["verify", "--full", "-o", "json"]);
    assert_eq!(
        (full.code, &full.json()["issues"][0]["kind"]),
        (Some(3), &json!("content")),
        "{full:?}"
    );
    view.delete(chunks).await;
    let quick = run(&["verify", "-o", "json"]);
    assert_eq!(
        (quick.code, &quick.json()["issues"][0]["kind"]),
        (Some(3), &json!("missing")),
        "{quick:?}"
    );
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_a_failure() {
    let view = Weed::shared().await.bucket("audit").await;
    let config: Vec<String> = view.config().lines().map(str::to_owned).collect();
    let config = config
        .iter()
        .map(|line| match line.trim_start().starts_with("bucket:") {
            true => "  bucket: audit-never-made\n".to_owned(),
            false => format!("{line}\n"),
        });
    let config: String = config.collect();
    for command in ["ls", "inspect", "verify", "gaps"] {
        let run = run_on(&config, &[command]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(
            run.stderr.contains("cannot list") && run.stderr.contains("audit-never-made"),
            "{run:?}"
        );
    }
}

#[tokio::test]
async fn a_signal_cuts_it() {
    let (bucket, _) = bucket();
    let dir = temp_dir("cut");
    let mut command = Command::new(Sidecar::program());
    command
        .args(["bucket", "verify", "--full", "--max-rate=100"])
        .arg(format!("--objstore.config={}", bucket.config()));
    let process = Process::spawn("narthex", &mut command, &dir.path().join("log"), None);
    wait_until(PATIENCE, "the beginning of the work", async || {
        process
            .log()
            .contains("checking the blocks of the bucket")
            .then_some(())
    })
    .await;
    let status = process.stop(PATIENCE).await;
    assert_eq!(status.code(), Some(4), "{}", process.log());
    assert!(
        process
            .log()
            .contains("0 blocks, 0 objects, 0 B: no issues so far; not all blocks were checked\n")
    );
}
