//! A block was sealed and did not reach the bucket: its samples are taken from the log, from an older beginning of it.

use std::ops::Range;

use super::scene::{Kind, PATIENCE, Scene, assert_there, blocks_end, manifests};
use crate::rig::{BucketView, Fault, Leg, Rule, S3Server, Tools, tools::temp_dir};

/// Objects of blocks are refused: their names begin with the time. All else is well.
fn refuse_blocks(server: &S3Server) {
    for method in ["PUT", "POST"] {
        server.fault(Rule::on(method, "01*", Fault::Answer(503, "SlowDown")));
    }
}

/// Waits until so many more checkpoints are in the bucket.
async fn checkpoints(scene: &Scene, more: f64) {
    let sent = async || scene.sidecar.metric("narthex_wal_checkpoints_total").await;
    let goal = sent().await.unwrap_or_default() + more;
    let look = async || sent().await.filter(|sent| *sent >= goal);
    scene.sidecar.wait_until(PATIENCE, "further checkpoints", look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_block_reached_the_bucket_all_comes_from_the_log_of_the_oldest_version() {
    never(&Tools::oldest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_block_reached_the_bucket_all_comes_from_the_log_of_the_newest_version() {
    never(&Tools::newest()).await;
}

async fn never(leg: &Leg) {
    let server = S3Server::start();
    refuse_blocks(&server);
    let scene = Scene::start(leg, Kind::default(), temp_dir("wal"), server.bucket("wal")).await;
    checkpoints(&scene, 2.0).await;
    assert!(scene.prometheus.blocks().len() > 2);
    let expected = scene.durable().await;
    scene.lose(true);
    assert!(scene.bucket.visible().await.is_empty());

    let to = scene.other("restored");
    let report = scene.restore(&to, &["--output=json"]).ended(0).json();
    assert_eq!(
        (&report["checkpoint"], &report["first_segment"]),
        (&().into(), &0.into()),
        "{report}"
    );
    let found = scene.replayed(&to).await;
    assert_there(&expected, &found, &scene.exporter, &leg.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_newest_checkpoint_lacks_comes_from_an_older_one_of_the_oldest_version() {
    no_longer(&Tools::oldest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_newest_checkpoint_lacks_comes_from_an_older_one_of_the_newest_version() {
    no_longer(&Tools::newest()).await;
}

async fn no_longer(leg: &Leg) {
    let server = S3Server::start();
    let scene = Scene::start(leg, Kind::default(), temp_dir("wal"), server.bucket("wal")).await;
    scene.wait_for_shipped(2).await;
    checkpoints(&scene, 1.0).await;
    refuse_blocks(&server);
    let sealed = scene.prometheus.blocks().len();
    checkpoints(&scene, 2.0).await;
    assert!(scene.prometheus.blocks().len() > sealed);
    let expected = scene.durable().await;
    scene.lose(false);

    let to = scene.other("restored");
    // What there is of the log alone.
    let report = scene.restore(&to, &["--output=json", "--dry-run"]).ended(0).json();
    let manifest = manifests(&scene.bucket).await.pop().unwrap();
    let manifest = scene.bucket.read_json(&manifest).await;
    let newest = manifest["checkpoints"].as_array().unwrap().last().unwrap();
    assert!(
        newest["number"].as_u64() > report["checkpoint"].as_u64(),
        "{report}\n{manifest}"
    );
    assert_eq!(report["blocks_end_ms"], blocks_end(&scene.bucket).await, "{report}");
    assert_eq!(report["missing_ms"], serde_json::Value::Null);
    scene.restore(&to, &["--min-time=-1d"]).assert(0, &[]);
    let found = scene.replayed(&to).await;
    assert_there(&expected, &found, &scene.exporter, &leg.version);
}

/// A block was refused, and the next one was sent: what comes back is all there, or it is said what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_did_not_come_while_a_later_one_did_is_no_silent_loss() {
    let (server, leg) = (S3Server::start(), Tools::newest());
    let kind = Kind {
        flags: &["--shipper.allow-out-of-order-uploads"],
        ..Kind::default()
    };
    let scene = Scene::start(&leg, kind, temp_dir("wal"), server.bucket("wal")).await;
    scene.wait_for_shipped(2).await;
    refuse_blocks(&server);
    let known = scene.prometheus.blocks();
    let sealed = scene.prometheus.wait_for_blocks(known.len() + 1, PATIENCE).await;
    let gap = sealed.iter().find(|id| !known.contains(id)).unwrap();
    server.heal();
    server.fault(Rule::on("PUT", &format!("{gap}/*"), Fault::Answer(403, "AccessDenied")));
    let later = async || {
        let visible = scene.bucket.visible().await;
        visible.last().filter(|last| *last > gap).map(drop)
    };
    scene.sidecar.wait_until(PATIENCE, "a later block", later).await;
    checkpoints(&scene, 1.0).await;
    let expected = scene.durable().await;
    scene.lose(true);
    assert!(!scene.bucket.visible().await.contains(gap));

    for (name, more) in [("with", &["--min-time=-1d"][..]), ("without", &[])] {
        let to = scene.other(name);
        let ran = scene.restore(&to, more);
        match ran.code {
            Some(0) => {
                let mut due = expected.clone();
                if more.is_empty() {
                    let times = ranges(&scene.bucket).await;
                    let in_blocks = |time: &i64| times.iter().any(|range| range.contains(time));
                    due.values_mut()
                        .for_each(|list| list.retain(|(time, _)| !in_blocks(time)));
                }
                let found = scene.replayed(&to).await;
                assert_there(&due, &found, &scene.exporter, name);
            }
            _ => ran.assert(3, &["missing: samples from"]),
        }
    }
}

/// The times that the blocks of the bucket are of.
async fn ranges(bucket: &BucketView) -> Vec<Range<i64>> {
    let mut ranges = Vec::new();
    for id in bucket.visible().await {
        let meta = bucket.read_json(&format!("{id}/meta.json")).await;
        let time = |name: &str| meta[name].as_i64().expect("a time");
        ranges.push(time("minTime")..time("maxTime"));
    }
    ranges
}
