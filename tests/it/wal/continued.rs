//! A narthex that starts again goes on with the generation that it has sent; the log of another data directory begins a new one.

use std::collections::BTreeMap;

use fs_err as fs;

use super::{
    exporter::now_ms,
    scene::{
        ALL_IN_THE_LOG, PATIENCE, Scene, assert_there, count, durable_since, generations, objects, pieces, samples,
    },
};
use crate::rig::{Leg, Tools};

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_oldest_version_is_continued_and_that_of_another_life_is_not() {
    continued(&Tools::oldest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_newest_version_is_continued_and_that_of_another_life_is_not() {
    continued(&Tools::newest()).await;
}

/// How many generations this process has begun.
async fn begun(scene: &Scene) -> Option<f64> {
    scene.sidecar.metric("narthex_wal_generations_total").await
}

async fn continued(leg: &Leg) {
    let mut scene = Scene::local(leg, ALL_IN_THE_LOG).await;
    scene.wait_for_scrapes(4).await;
    drop(scene.durable().await);
    assert_eq!(begun(&scene).await, Some(1.0));
    for is_killed in [false, true, true] {
        match is_killed {
            true => drop(scene.sidecar.kill9()),
            // Prometheus lives on, and narthex watches that for a moment.
            false => assert!(scene.sidecar.stop().await.success()),
        }
        scene.wait_for_scrapes(2).await;
        scene.sidecar.start_again();
        durable_since(&scene.sidecar, now_ms()).await;
        assert_eq!(begun(&scene).await, Some(0.0), "another generation was begun");
    }
    assert_eq!(generations(&scene.bucket).await.len(), 1);
    let (first, first_ms) = (samples(&scene.prometheus).await, now_ms());
    durable_since(&scene.sidecar, first_ms).await;
    scene.prometheus.kill();
    assert_sent_once(&scene).await;

    let sent = objects(&scene.bucket).await;
    fs::remove_dir_all(scene.prometheus.data()).unwrap();
    scene.prometheus.start_again().await;
    let two = async || (generations(&scene.bucket).await.len() == 2).then_some(());
    scene.sidecar.wait_until(PATIENCE, "a second generation", two).await;
    scene.wait_for_scrapes(4).await;
    let second = scene.durable().await;
    assert_eq!(begun(&scene).await, Some(1.0));
    let now = objects(&scene.bucket).await;
    for (key, bytes) in &sent {
        assert!(now.get(key) == Some(bytes), "{key} is not what it was");
    }
    scene.lose(true);
    let newest = scene.other("newest");
    scene.restore(&newest, &[]).assert(0, &[]);
    let found = scene.replayed(&newest).await;
    assert_there(&second, &found, &scene.exporter, "the second life");
    let until = jiff::Timestamp::from_millisecond(first_ms).unwrap();
    let older = scene.other("older");
    scene.restore(&older, &[&format!("--until={until}")]).assert(0, &[]);
    let found = scene.replayed(&older).await;
    assert_there(&first, &found, &scene.exporter, "the first life");
    assert!(count(&second) > 0 && count(&first) > 0);
}

/// The pieces, put together by hand, are the beginning of each segment that Prometheus wrote, and no byte is in two of them.
async fn assert_sent_once(scene: &Scene) {
    let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for piece in pieces(&scene.bucket, "wal").await {
        let segment = segments.entry(piece.segment).or_default();
        assert_eq!(piece.offset, segment.len() as u64, "a gap, or twice: {piece:?}");
        let bytes = scene.bucket.read(&piece.key).await.unwrap();
        assert_eq!(bytes.len() as u64, piece.len, "{piece:?}");
        segment.extend(bytes);
    }
    assert!(!segments.is_empty());
    for (number, sent) in segments {
        let written = fs::read(scene.prometheus.data().join(format!("wal/{number:08}"))).unwrap();
        assert!(
            written.starts_with(&sent),
            "segment {number} is not what Prometheus wrote"
        );
    }
}
