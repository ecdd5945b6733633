//! A Prometheus goes on with what was restored: what it seals joins what is in the bucket, without a gap and without a sample that
//! is there twice.

use std::{collections::BTreeMap, path::Path};

use fs_err as fs;
use serde_json::Value;

use super::{
    exporter::now_ms,
    scene::{
        Kind, PATIENCE, Samples, Scene, assert_content, assert_there, beside, blocks_end, durable_since, objects,
        restore, samples,
    },
};
use crate::{
    rig::{BucketView, Leg, Prometheus, Sidecar, Tools, prometheus::sealed},
    series::stage::api,
};

/// Blocks that the first life ships, and the second one.
const BLOCKS: [usize; 2] = [2, 3];

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_version_goes_on_with_its_log_and_its_blocks() {
    lives_on(&Tools::oldest(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_goes_on_with_its_log_and_its_blocks() {
    lives_on(&Tools::newest(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_version_goes_on_with_its_log_alone() {
    lives_on(&Tools::oldest(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_goes_on_with_its_log_alone() {
    lives_on(&Tools::newest(), false).await;
}

/// With the blocks of the bucket in the new directory, or without.
async fn lives_on(leg: &Leg, with_blocks: bool) {
    let scene = Scene::local(leg, Kind::default()).await;
    scene.wait_for_shipped(BLOCKS[0]).await;
    let mut expected = scene.durable().await;
    scene.lose(true);
    let (visible, sent) = (scene.bucket.visible().await, objects(&scene.bucket).await);

    let to = scene.other("second");
    let more: &[&str] = if with_blocks { &["--min-time=-1d"] } else { &[] };
    scene.restore(&to, more).assert(0, &["reaches to"]);
    let empty: Vec<String> = sealed(&to).into_iter().filter(|id| !visible.contains(id)).collect();
    let (prometheus, sidecar) = second_life(&scene, &to, visible.len() + BLOCKS[1]).await;
    add(&mut expected, samples(&prometheus).await);
    durable_since(&sidecar, now_ms()).await;
    sidecar.kill9();
    prometheus.kill();
    assert_content(&prometheus);
    fs::remove_dir_all(&to).unwrap();

    assert_empty_never_shipped(&empty, with_blocks, &scene.bucket).await;
    assert_without_overlaps(&scene.bucket).await;
    assert_union(&scene, &expected).await;
    assert_untouched(&scene.bucket, &sent).await;
    let third = scene.other("third");
    restore(&scene.bucket, &third, &["--min-time=-1d"]).assert(0, &["reaches to"]);
    let found = scene.replayed(&third).await;
    assert_there(&expected, &found, &scene.exporter, "in the third life");
}

/// Lets both run on a directory until so many blocks are in the bucket.
async fn second_life(scene: &Scene, to: &Path, blocks: usize) -> (Prometheus, Sidecar) {
    let options = scene.kind.options(&scene.leg, to, Some(&scene.exporter));
    let prometheus = Prometheus::start(&scene.leg, options).await;
    let sidecar = beside(&prometheus, &scene.bucket);
    let shipped = async || (scene.bucket.visible().await.len() >= blocks).then_some(());
    sidecar
        .wait_until(PATIENCE, "further blocks in the bucket", shipped)
        .await;
    (prometheus, sidecar)
}

/// Adds what is not there yet.
fn add(all: &mut Samples, more: Samples) {
    for (series, list) in more {
        let there = all.entry(series).or_default();
        there.extend(list);
        there.sort();
        there.dedup();
    }
}

/// The `meta.json` files of the blocks of the bucket.
async fn metas(bucket: &BucketView) -> BTreeMap<String, Value> {
    let mut metas = BTreeMap::new();
    for id in bucket.visible().await {
        let meta = bucket.read_json(&format!("{id}/meta.json")).await;
        metas.insert(id, meta);
    }
    metas
}

/// A block without samples was laid down if none with samples ends there, and is no block of the bucket.
async fn assert_empty_never_shipped(empty: &[String], with_blocks: bool, bucket: &BucketView) {
    assert_eq!(empty.len(), usize::from(!with_blocks), "{empty:?}");
    let metas = metas(bucket).await;
    for id in empty {
        assert!(bucket.list_below(id).await.is_empty(), "{id} is in the bucket");
        assert!(metas.values().all(|meta| !meta.to_string().contains(id.as_str())));
    }
    for (id, meta) in metas {
        assert!(meta["stats"]["numSamples"].as_u64() > Some(0), "{id}: {meta}");
    }
}

async fn assert_without_overlaps(bucket: &BucketView) {
    let mut ranges: Vec<(i64, i64, String)> = Vec::new();
    let metas = metas(bucket).await;
    for (id, meta) in &metas {
        let labels = &meta["thanos"]["labels"];
        assert_eq!(*labels, serde_json::json!({"cluster": "rig", "replica": "0"}), "{id}");
        let time = |name: &str| meta[name].as_i64().unwrap();
        ranges.push((time("minTime"), time("maxTime"), id.clone()));
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "blocks overlap: {pair:?}");
    }
}

/// A Prometheus on copies of all blocks of the bucket has what was expected up to their end, and as many samples as the blocks say
/// together.
async fn assert_union(scene: &Scene, expected: &Samples) {
    let union = scene.other("union");
    for id in scene.bucket.visible().await {
        for key in scene.bucket.list_below(&format!("{id}/")).await.into_keys() {
            let path = union.join(&key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, scene.bucket.read(&key).await.unwrap()).unwrap();
        }
    }
    let options = scene.kind.options(&scene.leg, &union, None);
    let prometheus = Prometheus::start(&scene.leg, options).await;
    let end = blocks_end(&scene.bucket).await;
    let mut due = expected.clone();
    for list in due.values_mut() {
        list.retain(|(time, _)| *time < end);
    }
    let found = samples(&prometheus).await;
    assert_there(&due, &found, &scene.exporter, "in the blocks");

    // Those that Prometheus adds to each scrape as well.
    let now = (now_ms() / 1000 + 60).to_string();
    let answer = api(
        &prometheus,
        "query",
        &[("query", "{__name__=~\".+\"}[1h]"), ("time", &now)],
    )
    .await;
    let series = answer["result"].as_array().unwrap().iter();
    let counted = series
        .map(|series| series["values"].as_array().unwrap().len() as u64)
        .sum::<u64>();
    let metas = metas(&scene.bucket).await;
    let said = metas.values().map(|meta| meta["stats"]["numSamples"].as_u64().unwrap());
    assert_eq!(counted, said.sum::<u64>(), "some samples are in two blocks");
}

/// What the first life had sent of the log is as it was.
async fn assert_untouched(bucket: &BucketView, sent: &BTreeMap<String, Vec<u8>>) {
    let now = objects(bucket).await;
    assert!(now.len() > sent.len(), "the log did not go on");
    for (key, bytes) in sent {
        assert!(now.get(key) == Some(bytes), "{key} is not what it was");
    }
}
