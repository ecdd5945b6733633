//! Blocks that are broken, not blocks, not for the bucket, or on their way in or out: none of them holds the others up,
//! and none of them is visible in the bucket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod left_out;
mod moving;
pub(crate) mod stage;

use std::{fmt::Write as _, os::unix::fs::PermissionsExt, path::Path, process::Command};

use fs_err as fs;

use self::stage::{Stage, edit, edit_meta, log_line, seal, sound, without_privileges};
use crate::rig::tools::temp_dir;

/// One way in which a block can be broken.
struct Case {
    /// What is done to it.
    damage: fn(&Path),
    /// How the metric calls it.
    reason: &'static str,
    /// What the log says of it.
    said: &'static str,
}

/// Puts all these blocks between an older and a newer good one, and looks that just these two arrive.
async fn only_good_ones_arrive(stage: Stage, cases: &[Case]) {
    let data = stage.dir();
    let older = seal(&sound(0), data, |_| {});
    let bad: Vec<String> = cases.iter().map(|case| seal(&sound(1), data, case.damage)).collect();
    let newer = seal(&sound(2), data, |_| {});
    stage.wait_for_ledger(&[&older, &newer]).await;
    stage
        .wait_for_metric("thanos_shipper_corrupted_blocks_total", &[], |count| {
            count >= cases.len() as f64
        })
        .await;
    for case in cases {
        let count = cases.iter().filter(|other| other.reason == case.reason).count() as f64;
        stage
            .wait_for_metric("narthex_quarantined_blocks", &[("reason", case.reason)], |found| {
                found == count
            })
            .await;
    }
    let mut wrong = String::new();
    for (case, id) in cases.iter().zip(&bad) {
        let reason = format!("reason={} ", case.reason);
        let line = log_line(&stage.sidecar, &["level=error", "is left out", id]).unwrap_or_default();
        if !line.contains(&reason) || !line.contains(case.said) {
            writeln!(wrong, "expected {reason}and {:?}: {line}", case.said).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    stage.assert_shipped(&[&older, &newer]).await;
    for (name, value) in [
        ("thanos_shipper_uploads_total", 2.0),
        ("thanos_shipper_upload_failures_total", 0.0),
        ("thanos_shipper_dir_sync_failures_total", 0.0),
        ("thanos_shipper_corrupted_blocks_total", cases.len() as f64),
        ("narthex_unuploaded_blocks", cases.len() as f64),
    ] {
        assert_eq!(stage.metric(name).await, value, "{name}");
    }
}

fn meta(dir: &Path, text: impl AsRef<[u8]>) {
    fs::write(dir.join("meta.json"), text).unwrap();
}

fn directory_in_place_of(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
}

fn pipe_in_place_of(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn a_bad_meta_json_delays_no_other_block() {
    let case = |said, damage| Case {
        damage,
        reason: "meta",
        said,
    };
    let cases = [
        case("meta.json is not a file", |dir| {
            directory_in_place_of(&dir.join("meta.json"))
        }),
        case("meta.json is not a file", |dir| {
            pipe_in_place_of(&dir.join("meta.json"))
        }),
        case("it is empty", |dir| meta(dir, "")),
        case("it is cut off", |dir| {
            edit(&dir.join("meta.json"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        // What a file system may leave of a file that was not flushed before the power went.
        case("it is not JSON", |dir| {
            edit(&dir.join("meta.json"), |bytes| bytes.fill(0))
        }),
        case("it is not JSON", |dir| meta(dir, "<html>404</html>")),
        case("it is not UTF-8", |dir| meta(dir, b"{\"ulid\": \"\xff\xfe\"}")),
        case("the document must be an object, and is an array", |dir| meta(dir, "[]")),
        case("version is 2, and only 1 can be read", |dir| {
            edit_meta(dir, |meta| meta["version"] = 2.into());
        }),
        case("thanos.version is 2", |dir| {
            edit_meta(dir, |meta| meta["thanos"] = serde_json::json!({"version": 2}));
        }),
        case("meta.json is that of the block 01K4ABCDEFGHJKMNPQRSTVWXYZ", |dir| {
            edit_meta(dir, |meta| meta["ulid"] = "01K4ABCDEFGHJKMNPQRSTVWXYZ".into());
        }),
        case("ulid must be a block's name", |dir| {
            edit_meta(dir, |meta| {
                meta["ulid"] = meta["ulid"].as_str().unwrap().to_lowercase().into()
            });
        }),
        case("minTime must be a whole number", |dir| {
            edit_meta(dir, |meta| meta["minTime"] = "yesterday".into());
        }),
        case("it is nested too deeply", |dir| {
            meta(dir, format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)));
        }),
        case("meta.json is larger than", |dir| {
            edit(&dir.join("meta.json"), |bytes| bytes.resize(17 << 20, b' '));
        }),
    ];
    only_good_ones_arrive(Stage::start(&[]).await, &cases).await;
}

/// Tried with Prometheus 2.42 and 3.5: it passes over such a directory, and its compaction fails while it is there.
#[tokio::test]
async fn a_directory_without_meta_json_is_reported_and_no_block() {
    let stage = Stage::start(&[]).await;
    // Of the year 2017, by its name: as the oldest block that waits it would be older than any limit.
    let none = "01BX5ZZKBKACTAV9WEVGEMMVRZ";
    fs::create_dir_all(stage.dir().join(none).join("chunks")).unwrap();
    let good = seal(&sound(0), stage.dir(), |_| {});
    stage.wait_for_ledger(&[&good]).await;
    stage
        .wait_for_metric("narthex_quarantined_blocks", &[("reason", "no_meta")], |count| {
            count == 1.0
        })
        .await;
    let line = stage.wait_for_log(&["level=error", none, "has no meta.json"]).await;
    assert!(line.contains("does not compact blocks while it is there"), "{line}");
    let end = fs::read(stage.dir().join(&good).join("meta.json")).unwrap();
    let end: serde_json::Value = serde_json::from_slice(&end).unwrap();
    let end = end["maxTime"].as_i64().unwrap() as f64 / 1000.0;
    stage
        .wait_for_metric("narthex_durable_until_timestamp_seconds", &[], |until| until == end)
        .await;
    for name in [
        "narthex_unuploaded_blocks",
        "narthex_oldest_unuploaded_block_age_seconds",
    ] {
        assert_eq!(stage.metric(name).await, 0.0, "{name}");
    }
    stage.assert_shipped(&[&good]).await;
}

#[tokio::test]
async fn a_bad_index_delays_no_other_block() {
    let case = |said, damage| Case {
        damage,
        reason: "index",
        said,
    };
    let cases = [
        case("index is missing", |dir| fs::remove_file(dir.join("index")).unwrap()),
        case("index is not a file", |dir| directory_in_place_of(&dir.join("index"))),
        case("index is not a file", |dir| pipe_in_place_of(&dir.join("index"))),
        case("index has 0 bytes", |dir| fs::write(dir.join("index"), "").unwrap()),
        case("index is cut off or damaged", |dir| {
            edit(&dir.join("index"), |bytes| bytes.truncate(bytes.len() / 2))
        }),
        case("index is cut off or damaged", |dir| {
            edit(&dir.join("index"), |bytes| bytes.truncate(bytes.len() - 1))
        }),
        // The magic number, the version, and the checksum of the table of contents.
        case("index does not begin as one", |dir| {
            edit(&dir.join("index"), |bytes| bytes[0] ^= 1)
        }),
        case("index has the format 9", |dir| {
            edit(&dir.join("index"), |bytes| bytes[4] = 9)
        }),
        case("wrong checksum of its table of contents", |dir| {
            edit(&dir.join("index"), |bytes| *bytes.last_mut().unwrap() ^= 1);
        }),
        case("index does not begin as one", |dir| {
            edit(&dir.join("index"), |bytes| bytes.fill(0))
        }),
    ];
    only_good_ones_arrive(Stage::start(&[]).await, &cases).await;
}

/// Two more segments that the index does not refer to, as they are legal.
fn add_segments(dir: &Path) {
    for name in ["000002", "000003"] {
        fs::write(dir.join("chunks").join(name), b"\x85\xbd\x40\xdd\x01\0\0\0").unwrap();
    }
}

#[tokio::test]
async fn bad_chunks_delay_no_other_block() {
    let case = |reason, said, damage| Case { damage, reason, said };
    let cases = [
        case("missing_segment", "chunks/ is missing", |dir| {
            fs::remove_dir_all(dir.join("chunks")).unwrap();
        }),
        case("missing_segment", "chunks/ is missing", |dir| {
            fs::remove_dir_all(dir.join("chunks")).unwrap();
            fs::write(dir.join("chunks"), "").unwrap();
        }),
        case("missing_segment", "chunks/ holds no segment", |dir| {
            fs::remove_file(dir.join("chunks/000001")).unwrap();
        }),
        case(
            "missing_segment",
            "chunks/000002 is missing, and chunks/000003 is there",
            |dir| {
                add_segments(dir);
                fs::remove_file(dir.join("chunks/000002")).unwrap();
            },
        ),
        case(
            "missing_segment",
            "chunks/000001 is missing, and chunks/000002 is there",
            |dir| {
                add_segments(dir);
                fs::remove_file(dir.join("chunks/000001")).unwrap();
            },
        ),
        case("missing_segment", "chunks/000001 is not a file", |dir| {
            pipe_in_place_of(&dir.join("chunks/000001"));
        }),
        case("short_segment", "chunks/000001 has ", |dir| {
            edit(&dir.join("chunks/000001"), |bytes| bytes.truncate(bytes.len() - 1));
        }),
        case("segment", "chunks/000001 does not begin as a chunk segment", |dir| {
            edit(&dir.join("chunks/000001"), |bytes| bytes[0] ^= 1);
        }),
        case("segment", "chunks/000001 has the format 2", |dir| {
            edit(&dir.join("chunks/000001"), |bytes| bytes[4] = 2)
        }),
        // The checksum of the last chunk.
        case(
            "segment",
            "chunks/000001 is damaged: wrong checksum of its chunk",
            |dir| {
                edit(&dir.join("chunks/000001"), |bytes| *bytes.last_mut().unwrap() ^= 1);
            },
        ),
        case("short_segment", "chunks/000003 has 2 bytes", |dir| {
            add_segments(dir);
            fs::write(dir.join("chunks/000003"), b"\x85\xbd").unwrap();
        }),
    ];
    only_good_ones_arrive(Stage::start(&[]).await, &cases).await;
}

fn hidden(path: &Path) {
    fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
}

#[tokio::test]
async fn what_may_not_be_read_delays_no_other_block() {
    let case = |said, damage| Case {
        damage,
        reason: "unreadable",
        said,
    };
    let cases = [
        case("meta.json", |dir| hidden(&dir.join("meta.json"))),
        case("index", |dir| hidden(&dir.join("index"))),
        case("chunks/000001", |dir| hidden(&dir.join("chunks/000001"))),
        case("chunks", |dir| hidden(&dir.join("chunks"))),
    ];
    let stage = Stage::open(temp_dir("data"), &without_privileges(), &[]).await;
    stage.wait_for_pass().await;
    only_good_ones_arrive(stage, &cases).await;
}

#[tokio::test]
async fn a_block_that_was_mended_is_shipped_after_a_restart() {
    let mut stage = Stage::start(&[]).await;
    let elsewhere = temp_dir("segment");
    let hidden = elsewhere.path().join("000002");
    let good = seal(&sound(0), stage.dir(), |_| {});
    let mended = seal(&sound(1), stage.dir(), |dir| {
        add_segments(dir);
        fs::rename(dir.join("chunks/000002"), &hidden).unwrap();
    });
    stage
        .wait_for_log(&["a block is broken", &mended, "chunks/000002 is missing"])
        .await;
    stage.wait_for_ledger(&[&good]).await;
    fs::rename(&hidden, stage.dir().join(&mended).join("chunks/000002")).unwrap();
    stage.sidecar.kill9();
    stage.sidecar.start_again();
    stage.wait_for_ledger(&[&good, &mended]).await;
    stage.wait_for_pass().await;
    stage.assert_shipped(&[&good, &mended]).await;
    let metrics = stage.metrics().await;
    assert_eq!(metrics.value("thanos_shipper_corrupted_blocks_total", &[]), Some(0.0));
    assert_eq!(
        metrics.value("narthex_quarantined_blocks", &[]).unwrap_or_default(),
        0.0
    );
    // Only one of the two was sent in this life.
    assert_eq!(metrics.value("thanos_shipper_uploads_total", &[]), Some(1.0));
}
