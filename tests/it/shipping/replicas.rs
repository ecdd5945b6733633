//! Two replicas of one Prometheus, each with its narthex, into one bucket.

use std::{collections::BTreeSet, path::Path};

use super::scene::{LEDGER, PATIENCE, all_listed, json, listed};
use crate::rig::{
    BucketView, Keeper, Prometheus, Sidecar, Tools, Weed, assert_whole, prometheus::Options, tools::temp_dir,
    wait_until,
};

#[tokio::test]
async fn two_replicas_share_a_bucket() {
    let bucket = Weed::shared().await.bucket("replicas").await;
    let (a, b) = tokio::join!(replica("a", &bucket), replica("b", &bucket));
    let mut expected: Vec<String> = Vec::new();
    for (prometheus, _, sidecar) in [&a, &b] {
        prometheus.wait_for_blocks(2, PATIENCE).await;
        assert!(prometheus.stop().await.success());
        all_listed(sidecar, prometheus.data()).await;
        assert!(sidecar.stop().await.success());
        expected.extend(prometheus.blocks());
    }
    expected.sort();
    assert_eq!(bucket.visible().await, expected);
    // One place for the blocks of both, to compare the bucket with.
    let together = temp_dir("replicas");
    for (name, (prometheus, keeper, _)) in [("a", &a), ("b", &b)] {
        let kept = async || (keeper.blocks() == prometheus.blocks()).then_some(());
        wait_until(PATIENCE, "copies of all blocks", kept).await;
        for id in prometheus.blocks() {
            let meta = bucket.read_json(&format!("{id}/meta.json")).await;
            assert_eq!(
                meta["thanos"]["labels"],
                serde_json::json!({"cluster": "eu", "replica": name})
            );
            crate::rig::keeper::link_tree(&keeper.block(&id).unwrap(), &together.path().join(&id)).unwrap();
        }
    }
    let both = Keeper::watch(together.path());
    let kept = async || (both.blocks() == expected).then_some(());
    wait_until(PATIENCE, "copies of all blocks", kept).await;
    assert_whole(&bucket, &both).await;
    ledgers_tell_the_same_bucket_and_different_blocks(a.0.data(), b.0.data(), &bucket);
}

async fn replica(name: &str, bucket: &BucketView) -> (Prometheus, Keeper, Sidecar) {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = Options {
        external_labels: vec![label("cluster", "eu"), label("replica", name)],
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let keeper = Keeper::watch(prometheus.data());
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &bucket.config()));
    (prometheus, keeper, sidecar)
}

fn ledgers_tell_the_same_bucket_and_different_blocks(a: &Path, b: &Path, bucket: &BucketView) {
    let (of_a, of_b): (BTreeSet<_>, BTreeSet<_>) = (listed(a).into_iter().collect(), listed(b).into_iter().collect());
    assert!(
        !of_a.is_empty() && !of_b.is_empty() && of_a.is_disjoint(&of_b),
        "{of_a:?} {of_b:?}"
    );
    let identity = |data: &Path| {
        json(&data.join(LEDGER))["narthex"]["bucket"]
            .as_str()
            .map(str::to_owned)
    };
    let identity_of_a = identity(a).expect("the ledger names its bucket");
    assert_eq!(Some(&identity_of_a), identity(b).as_ref());
    let config = bucket.config();
    for key in ["bucket: ", "endpoint: "] {
        let value = config.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
        assert!(identity_of_a.contains(value), "{identity_of_a} does not name {value}");
    }
}
