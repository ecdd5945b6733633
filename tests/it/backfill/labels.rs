//! Whose blocks they are: labels from flags, from the blocks themselves, from a Prometheus.

use fs_err as fs;
use serde_json::json;

use super::scene::{backfill, blocks_of, edit_meta, row, words};
use crate::rig::{
    BucketView, Prometheus,
    one_shot::narthex,
    prometheus::{Options, sealed},
    tools::{Tools, temp_dir},
};

/// The labels of the only block in a bucket.
async fn labels(bucket: &BucketView) -> serde_json::Value {
    let [id] = &bucket.visible().await[..] else {
        panic!("not one block")
    };
    bucket.read_json(&format!("{id}/meta.json")).await["thanos"]["labels"].clone()
}

#[tokio::test]
async fn values_may_stand_in_quotes_or_not() {
    let dir = blocks_of(1);
    for flag in ["--label=cluster=eu", "--label=cluster=\"eu\"", "--label=cluster=`eu`"] {
        let store = temp_dir("bucket");
        let bucket = BucketView::dir(store.path());
        narthex(&words(dir.path(), &bucket.config(), &[flag])).ended(0);
        assert_eq!(labels(&bucket).await, json!({"cluster": "eu"}), "{flag}");
    }
}

#[test]
fn labels_that_are_none_are_refused_before_anything_is_read() {
    let store = temp_dir("bucket");
    let config = BucketView::dir(store.path()).config();
    for flag in [
        "--label=cluster",
        "--label==x",
        "--label=cluster=",
        "--label=cluster=\"eu",
        "--label=__name__=x",
    ] {
        let ran = narthex(&words("nowhere".as_ref(), &config, &[flag])).ended(2);
        assert!(ran.stderr.contains("--label"), "{ran:?}");
    }
}

#[test]
fn without_labels_nothing_is_sent() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let config = BucketView::dir(store.path()).config();
    let report = narthex(&words(dir.path(), &config, &[])).ended(3).json();
    let row = row(&report, &sealed(dir.path())[0]);
    assert!(
        row["why"].as_str().unwrap().contains("give --label name=value"),
        "{report:#}"
    );
    assert!(fs::read_dir(store.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn labels_that_a_block_carries_stay_and_a_clash_is_refused() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let id = sealed(dir.path()).remove(0);
    edit_meta(&dir.path().join(&id), |meta| {
        meta["thanos"] = json!({"labels": {"cluster": "us", "replica": "a"}, "downsample": {"resolution": 0}});
    });
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let why = row(&report, &id)["why"].as_str().unwrap();
    assert!(
        why.contains("cluster=\"us\"") && why.contains("--accept-label-change"),
        "{why}"
    );
    assert!(fs::read_dir(store.path()).unwrap().next().is_none());
    let report = backfill(dir.path(), &bucket, &["--accept-label-change"])
        .ended(0)
        .json();
    assert_eq!(row(&report, &id)["labels"], json!({"cluster": "eu", "replica": "a"}));
    assert_eq!(labels(&bucket).await, json!({"cluster": "eu", "replica": "a"}));
    // Under its own name, but as somebody else's, it is another block.
    let report = narthex(&words(dir.path(), &bucket.config(), &[])).ended(3).json();
    assert!(
        row(&report, &id)["why"].as_str().unwrap().contains("has the labels"),
        "{report:#}"
    );
}

#[tokio::test]
async fn labels_can_be_read_from_a_prometheus() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let prometheus = Prometheus::start(&Tools::oldest(), Options::default()).await;
    let url = format!("--prometheus.url={}", prometheus.url());
    narthex(&words(dir.path(), &bucket.config(), &[&url, "--label=replica=9"])).ended(0);
    assert_eq!(labels(&bucket).await, json!({"cluster": "rig", "replica": "9"}));
    drop(prometheus);
    let ran = narthex(&words(dir.path(), &bucket.config(), &[&url])).ended(1);
    assert!(ran.stderr.contains("--prometheus.url"), "{ran:?}");
}
