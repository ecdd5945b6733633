//! What a log is not restored to, and what cannot be restored of it.

use std::path::Path;

use fs_err as fs;

use super::{
    exporter::now_ms,
    scene::{
        ALL_IN_THE_LOG, Piece, Samples, Scene, assert_there, count, durable_since, manifests, pieces, restore, samples,
    },
};
use crate::rig::{BucketView, Leg, Tools};

/// A log in a bucket whose Prometheus still runs.
struct Logged {
    scene: Scene,
    /// What had been taken at `half_ms`, and then at the end.
    half: Samples,
    half_ms: i64,
    all: Samples,
}

async fn logged(leg: &Leg) -> Logged {
    let scene = Scene::local(leg, ALL_IN_THE_LOG).await;
    scene.wait_for_scrapes(4).await;
    let half = samples(&scene.prometheus).await;
    let half_ms = now_ms();
    durable_since(&scene.sidecar, half_ms).await;
    let mut all = Samples::new();
    for _ in 0..2 {
        scene.wait_for_scrapes(4).await;
        all = scene.durable().await;
    }
    assert!(count(&half) > 0 && count(&half) < count(&all));
    Logged {
        scene,
        half,
        half_ms,
        all,
    }
}

/// Nothing of a log was laid down.
fn assert_nothing_at(to: &Path) {
    assert!(
        fs::metadata(to.join("wal")).is_err(),
        "there is a log in {}",
        to.display()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_in_use_or_has_a_log_is_refused() {
    let Logged { scene, .. } = logged(&Tools::newest()).await;
    let data = scene.prometheus.data().to_owned();
    scene.restore(&data, &[]).assert(1, &["a Prometheus uses"]);
    scene.sidecar.kill9();
    scene.prometheus.kill();
    // It leaves its lock behind.
    scene
        .restore(&data, &["--if-lost"])
        .assert(0, &["there is a log already"]);
    fs::remove_file(data.join("lock")).unwrap();
    let before = super::scene::files(&data);
    let refused = ["wal is there already", "restore to another directory"];
    scene.restore(&data, &[]).assert(1, &refused);
    scene
        .restore(&data, &["--if-lost"])
        .assert(0, &["there is a log already"]);
    assert!(super::scene::files(&data) == before, "something was changed");

    let head = scene.other("head");
    fs::create_dir_all(head.join("chunks_head")).unwrap();
    scene.restore(&head, &["--dry-run"]).assert(0, &["dry run"]);
    fs::write(head.join("chunks_head/000001"), "x").unwrap();
    scene.restore(&head, &[]).assert(1, &["chunks_head is there already"]);
    scene
        .restore(&head, &["--if-lost"])
        .assert(0, &["there is a log already"]);
    assert_nothing_at(&head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_a_log_or_with_several_restores_nothing() {
    let Logged {
        scene, half_ms, all, ..
    } = logged(&Tools::oldest()).await;
    scene.lose(true);
    let to = scene.other("restored");
    fs::create_dir(scene.other("empty")).unwrap();
    let empty = BucketView::dir(&scene.other("empty"));
    restore(&empty, &to, &[]).assert(3, &["the bucket has no write-ahead log"]);
    restore(&empty, &to, &["--if-lost"]).assert(0, &["the bucket has no write-ahead log"]);
    scene
        .restore(&to, &["--selector={cluster=\"other\"}"])
        .assert(3, &["no log has labels that are selected", "cluster=\"rig\""]);
    scene
        .restore(&to, &["--until=2020-01-01T00:00:00Z"])
        .assert(3, &["it begins after --until"]);
    assert_nothing_at(&to);

    // Another replica: the same manifest under other labels.
    let key = manifests(&scene.bucket).await.pop().unwrap();
    let mut manifest = scene.bucket.read_json(&key).await;
    manifest["labels"]["replica"] = "1".into();
    let name = key.rsplit('/').next().unwrap();
    let other = format!("narthex-wal/v1/manifests/0123456789abcdef/{name}");
    scene.bucket.put(&other, serde_json::to_vec(&manifest).unwrap()).await;
    let several = ["several sets of external labels", "replica=\"0\"", "replica=\"1\""];
    scene.restore(&to, &[]).assert(3, &several);
    // A log was lost, and which one is to be brought back is not known: that is no success.
    scene.restore(&to, &["--if-lost"]).assert(3, &several);
    assert_nothing_at(&to);
    let mine = "--selector={replica=\"0\"}";
    scene.restore(&to, &["--if-lost", mine]).assert(0, &["reaches to"]);
    let found = scene.replayed(&to).await;
    assert_there(&all, &found, &scene.exporter, "of one of two logs");
    assert!(half_ms > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_a_time_the_log_is_what_it_was_then() {
    let Logged {
        scene,
        half,
        half_ms,
        all,
    } = logged(&Tools::oldest()).await;
    scene.lose(true);
    let (to, until) = (scene.other("restored"), format!("--until={}", at(half_ms)));
    scene.restore(&to, &[&until]).assert(0, &["reaches to"]);
    let found = scene.replayed(&to).await;
    assert_there(&half, &found, &scene.exporter, "up to a time");
    assert!(count(&found) < count(&all), "all of it was restored");
}

fn at(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms).expect("a time").to_string()
}

/// The first piece that is not needed for what was there at this time.
fn first_behind(pieces: &[Piece], time_ms: i64) -> usize {
    let times = pieces.iter().map(|piece| piece.read_ms);
    let enough = times.filter(|at| *at >= time_ms).min();
    let behind = pieces.iter().position(|piece| Some(piece.read_ms) > enough);
    behind.expect("the log goes on after this time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_piece_is_named_and_what_is_before_it_can_be_restored() {
    let Logged {
        scene,
        half,
        half_ms,
        all,
    } = logged(&Tools::newest()).await;
    scene.lose(false);
    let pieces = pieces(&scene.bucket, "wal").await;
    let damaged = &pieces[first_behind(&pieces, half_ms)];
    let good = scene.bucket.read(&damaged.key).await.unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    scene.bucket.put(&damaged.key, bad).await;

    let to = scene.other("restored");
    scene.restore(&to, &[]).assert(1, &[&damaged.key, "--until"]);
    assert_nothing_at(&to);
    let (before, until) = (scene.other("before"), format!("--until={}", at(half_ms)));
    scene.restore(&before, &[&until]).assert(0, &[]);
    let found = scene.replayed(&before).await;
    assert_there(&half, &found, &scene.exporter, "before the damage");

    // The same run once the bucket is well.
    scene.bucket.put(&damaged.key, good).await;
    scene.restore(&to, &[]).assert(0, &[]);
    let found = scene.replayed(&to).await;
    assert_there(&all, &found, &scene.exporter, "without the damage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_is_missing_is_told_and_what_is_before_it_is_restored() {
    let Logged {
        scene,
        half,
        half_ms,
        all,
    } = logged(&Tools::oldest()).await;
    scene.lose(false);
    let pieces = pieces(&scene.bucket, "wal").await;
    let missing = first_behind(&pieces, half_ms);
    assert!(missing + 1 < pieces.len(), "nothing follows: {pieces:?}");
    scene.bucket.delete(&pieces[missing].key).await;
    let to = scene.other("restored");
    scene.restore(&to, &[]).assert(3, &["missing", "which cannot be used"]);
    let found = scene.replayed(&to).await;
    assert_there(&half, &found, &scene.exporter, "before what is missing");
    assert!(count(&found) < count(&all));
}
