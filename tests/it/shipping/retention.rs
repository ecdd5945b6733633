//! What Prometheus' retention does with blocks that are not shipped, and what is said of it.

use fs_err as fs;

use super::scene::{PATIENCE, by_time, flags, json, watches};
use crate::rig::{
    BucketView, Keeper, Prometheus, Sidecar, Tools, assert_all_shipped,
    blocks::{self, Spec},
    prometheus::Options,
    tools::temp_dir,
};

/// Between the ends of the two blocks, in ms.
const APART: i64 = 3 * 7_200_000;

/// What is said of a block: how long after its end (ms) retention deletes it, and by which limit.
type Said = (i64, &'static str);

/// Puts two blocks before a Prometheus of each version that keeps them by these flags, and says what is told of those that
/// it leaves, the oldest first. Nothing becomes durable, since there is no bucket.
async fn told(args: &[String]) -> Vec<Vec<Said>> {
    let mut told = Vec::new();
    for leg in &Tools::find().legs {
        let data = temp_dir("retention");
        for slot in [0, 3] {
            blocks::place(&blocks::generate(Spec::small(slot)), data.path());
        }
        let end = |id: &String| {
            json(&data.path().join(id).join("meta.json"))["maxTime"]
                .as_i64()
                .unwrap()
        };
        let ends: Vec<i64> = by_time(data.path()).iter().map(end).collect();
        assert_eq!(ends[1] - ends[0], APART);
        let options = Options {
            block: "2h",
            data: Some(data.path().to_owned()),
            args: args.to_vec(),
            scrape: false,
            ..Options::default()
        };
        // It deletes when it opens its data directory.
        let prometheus = Prometheus::start(leg, options).await;
        let kept = by_time(data.path());
        let none = data.path().join("none");
        let bucket = format!("{{type: FILESYSTEM, config: {{directory: {}}}}}", none.display());
        let sidecar = Sidecar::start(flags(&prometheus, data.path(), &bucket));
        let look = async || {
            let metrics = sidecar.metrics().await?;
            let of = |id: &String| {
                let at = |limit| {
                    let labels = [("block", &**id), ("limit", limit)];
                    let at = metrics.value("narthex_unuploaded_block_deletion_timestamp_seconds", &labels)?;
                    Some(((at * 1000.0).round() as i64 - end(id), limit))
                };
                at("time").or_else(|| at("size"))
            };
            kept.iter().map(of).collect::<Option<Vec<Said>>>()
        };
        let what = "it is said when each block is deleted";
        told.push(sidecar.wait_until(PATIENCE, what, look).await);
    }
    told
}

#[tokio::test]
async fn by_time_prometheus_deletes_at_the_moment_that_is_told() {
    let keep = |ms: i64| [format!("--storage.tsdb.retention.time={ms}ms")];
    // Of a block that ends just so long before the newest, versions think differently.
    let kept = APART - 1;
    for told in told(&keep(kept)).await {
        assert_eq!(told, [(kept, "time")], "the older one is gone");
    }
    let kept = APART + 1;
    for told in told(&keep(kept)).await {
        assert_eq!(told, [(kept, "time"), (kept, "time")]);
    }
    // Without a limit by size there is one of fifteen days.
    let days = 15 * 86_400_000;
    for told in told(&["--storage.tsdb.retention.time=0s".to_owned()]).await {
        assert_eq!(told, [(days, "time"), (days, "time")]);
    }
}

#[tokio::test]
async fn by_size_prometheus_deletes_what_does_not_fit() {
    let block = blocks::generate(Spec::small(0));
    let files = ["index", "meta.json", "chunks/000001"].map(|file| block.join(file));
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let keep = |bytes: u64| [format!("--storage.tsdb.retention.size={bytes}B")];
    let limits = |told: Vec<Said>| told.into_iter().map(|(_, limit)| limit).collect::<Vec<_>>();
    for told in told(&keep(bytes * 3 / 2)).await {
        assert_eq!(limits(told), ["size"], "the older one is gone");
    }
    for told in told(&keep(bytes * 5)).await {
        assert_eq!(limits(told), ["size", "size"]);
    }
}

#[tokio::test]
async fn what_retention_deletes_meanwhile_arrives_all_the_same() {
    let options = Options {
        args: vec!["--storage.tsdb.retention.time=15s".to_owned()],
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let keeper = Keeper::watch(prometheus.data());
    let store = temp_dir("store");
    // The directory is not there yet, and is never made.
    let local = store.path().join("bucket");
    let bucket = BucketView::dir(&local);
    let mut args = flags(&prometheus, prometheus.data(), &bucket.config());
    args.push("--shipper.hold-unshipped=1GiB".to_owned());
    let sidecar = Sidecar::start(args);
    sidecar.wait_ready(PATIENCE).await;
    let deleted = async || {
        let held = sidecar.metric("narthex_held_bytes").await?;
        (held > 0.0 && keeper.blocks().len() > prometheus.blocks().len()).then_some(())
    };
    sidecar
        .wait_until(PATIENCE, "a block that waits is deleted", deleted)
        .await;
    fs::create_dir(&local).unwrap();
    watches(&sidecar).await;
    assert!(prometheus.stop().await.success());
    let none = async || (sidecar.metric("narthex_unuploaded_blocks").await? == 0.0).then_some(());
    sidecar.wait_until(PATIENCE, "all blocks are shipped", none).await;
    let let_go = async || (sidecar.metric("narthex_held_bytes").await? == 0.0).then_some(());
    sidecar.wait_until(PATIENCE, "nothing is held any more", let_go).await;
    assert_all_shipped(&bucket, &keeper).await;
    assert_eq!(sidecar.metric("narthex_vanished_blocks_total").await, Some(0.0));
    assert!(keeper.blocks().len() > prometheus.blocks().len());
}
