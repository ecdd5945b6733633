//! A Prometheus that deletes again what it has sealed. While a reload of its blocks fails, here for a block without an index
//! that somebody has copied in, it removes each new block in place, milliseconds after the rename, and seals the same range
//! again under another name.

use std::collections::BTreeSet;

use fs_err as fs;
use futures_util::future::join_all;

use super::scene::{PATIENCE, all_listed, watches};
use crate::rig::{
    BucketView, Keeper, Leg, Prometheus, Sidecar, Tools, Weed, assert_all_shipped,
    blocks::{Spec, copy_without_index, generate},
    prometheus::{Options, sealed},
    wait_until,
};

/// So many times Prometheus withdraws a block. It waits 1, 2, 4, ... s before it tries again.
const TIMES: f64 = 5.0;

#[tokio::test]
async fn blocks_that_prometheus_withdraws_are_not_committed() {
    let mut legs = Tools::find().legs;
    // The oldest and the newest.
    let inner = 1..legs.len().max(2) - 1;
    legs.drain(inner);
    join_all(legs.iter().map(ships_what_is_kept)).await;
}

async fn ships_what_is_kept(leg: &Leg) {
    let prometheus = Prometheus::start(leg, Options::default()).await;
    let data = prometheus.data();
    let bucket = Weed::shared().await.bucket("withdrawn").await;
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &bucket.config()));
    watches(&sidecar).await;
    prometheus.wait_for_blocks(1, PATIENCE).await;

    let broken = copy_without_index(&generate(Spec::small(0)), data);
    let before = prometheus.blocks().len();
    let quarantined = fails_for_a_while(&prometheus, &sidecar).await;
    // One of those before may have been sealed just then, and was taken back since.
    let after = prometheus.blocks().len();
    assert!(
        after <= before,
        "Prometheus {} has kept a block: {before} and {after}",
        leg.version
    );
    assert_eq!(
        sidecar.metric("narthex_vanished_blocks_total").await,
        Some(0.0),
        "{}",
        sidecar.log()
    );
    fs::remove_dir_all(data.join(&broken)).unwrap();
    // The range that was taken back, and one that never was.
    prometheus.wait_for_blocks(before + 1, PATIENCE).await;
    assert!(prometheus.stop().await.success());
    let kept = sealed(data);
    let keeper = Keeper::watch(data);
    wait_until(PATIENCE, "copies of all blocks", async || {
        (keeper.blocks() == kept).then_some(())
    })
    .await;

    all_listed(&sidecar, data).await;
    let metrics = sidecar.metrics().await.expect("it answers");
    let told = |name: &str| metrics.value(name, &[]);
    assert!(sidecar.stop().await.success(), "{}", sidecar.log());
    no_two_overlap(&bucket).await;
    assert_all_shipped(&bucket, &keeper).await;
    assert!(told("narthex_withdrawn_blocks_total") > Some(0.0), "{}", sidecar.log());
    // The broken one was deleted by hand before it was durable; whether that counts is not asked here.
    assert!(told("narthex_vanished_blocks_total") <= Some(1.0), "{}", sidecar.log());
    assert_eq!(quarantined, BTreeSet::from([0, 1]), "{}", sidecar.log());
    assert_eq!(
        told("narthex_quarantined_blocks").unwrap_or(0.0),
        0.0,
        "{}",
        sidecar.log()
    );
}

/// Waits until Prometheus has failed often enough and the broken block is known to be broken; how many blocks narthex
/// called so at any time.
async fn fails_for_a_while(prometheus: &Prometheus, sidecar: &Sidecar) -> BTreeSet<u64> {
    let mut quarantined = BTreeSet::new();
    let look = async || {
        // None at all is told by no reason.
        let count = sidecar.metric("narthex_quarantined_blocks").await.unwrap_or(0.0) as u64;
        quarantined.insert(count);
        let failures = prometheus.metric("prometheus_tsdb_reloads_failures_total").await?;
        (failures >= TIMES && count > 0).then_some(())
    };
    sidecar.wait_until(PATIENCE, "failed reloads", look).await;
    quarantined
}

/// No sample is in two blocks of the bucket, all of which have the same labels.
async fn no_two_overlap(bucket: &BucketView) {
    let mut ranges = Vec::new();
    for id in bucket.visible().await {
        let meta = bucket.read_json(&format!("{id}/meta.json")).await;
        let time = |key: &str| meta[key].as_i64().expect("a time is a number");
        ranges.push((time("minTime"), time("maxTime"), id));
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        assert!(
            pair[0].1 <= pair[1].0,
            "the first two of these overlap: {pair:?}, of {} blocks: {ranges:?}",
            ranges.len()
        );
    }
}
