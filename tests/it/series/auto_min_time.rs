//! `--min-time=auto` beside a Prometheus whose head was sealed into five blocks, and a directory as the bucket.

use std::{path::Path, time::Duration};

use fs_err as fs;
use futures_util::future::join_all;
use narthex::pb::thanos::{
    LabelNamesRequest, SeriesRequest,
    info::{InfoRequest, info_client::InfoClient},
    label_matcher::Type,
    store_client::StoreClient,
};

use super::{
    ask::{Floats, matcher},
    stage::{Stage, Written, labels, prometheus, start_ms, write},
};
use crate::rig::{BucketView, Leg, Prometheus, Tools, tools::temp_dir};

const MINUTE: i64 = 60_000;
/// As long as a block.
const SLOT: i64 = 120 * MINUTE;
const PATIENCE: Duration = Duration::from_secs(120);

/// A Prometheus with a sample for each minute of six slots, of which it seals five: it keeps one and a half of them in the
/// head. Also the end of the last slot (ms since 1970).
async fn scene(leg: &Leg) -> (Prometheus, i64) {
    let prometheus = prometheus(leg, &[("cluster", "eu")], &[]).await;
    let end = start_ms() / SLOT * SLOT;
    let written = Written {
        labels: labels(&[("__name__", "m")]),
        floats: samples(end - 6 * SLOT, end),
        ..Default::default()
    };
    write(&prometheus, &[written]).await;
    prometheus.wait_for_blocks(5, PATIENCE).await;
    (prometheus, end)
}

/// A sample for each minute of a time, whose value is the minute.
fn samples(from: i64, until: i64) -> Vec<(i64, f64)> {
    let minutes = from / MINUTE..until / MINUTE;
    minutes.map(|minute| (minute * MINUTE, minute as f64)).collect()
}

/// The samples that narthex serves, whatever time is asked for.
async fn served(stage: &Stage) -> Floats {
    let request = SeriesRequest {
        min_time: 0,
        max_time: i64::MAX,
        matchers: vec![matcher(Type::Eq, "__name__", "m")],
        ..Default::default()
    };
    let mut series = stage.series(request).await.floats().into_values();
    let floats = series.next().expect("the head is always served");
    assert!(series.next().is_none());
    floats
}

/// Waits until nothing before `from` (ms since 1970) is served, and holds what is said and served against it.
async fn serves_from(stage: &Stage, from: i64, end: i64) {
    let moved = async || {
        let metric = stage.sidecar.metric("narthex_store_min_time_seconds").await?;
        (metric == from as f64 / 1000.0).then_some(())
    };
    let what = format!("what is served begins at {from}");
    stage.sidecar.wait_until(PATIENCE, &what, moved).await;
    let mut info = InfoClient::connect(stage.sidecar.grpc_url()).await.unwrap();
    let store = info.info(InfoRequest {}).await.unwrap().into_inner().store.unwrap();
    assert_eq!((store.min_time, store.tsdb_infos[0].min_time), (from, from));
    let wanted = samples(from + MINUTE - 1, end);
    let wanted: Floats = wanted
        .into_iter()
        .map(|(time, value)| (time, value.to_bits()))
        .collect();
    assert_eq!(served(stage).await, wanted);
    let mut labels = StoreClient::connect(stage.sidecar.grpc_url()).await.unwrap();
    let mut names = async |start, end| {
        let request = LabelNamesRequest {
            start,
            end,
            ..Default::default()
        };
        labels.label_names(request).await.unwrap().into_inner().names
    };
    assert_eq!(names(0, from - 1).await, Vec::<String>::new());
    assert_eq!(names(0, from + 2 * MINUTE).await, ["__name__", "cluster"]);
}

/// The block of the bucket that begins at this time (ms since 1970).
fn block_from(bucket: &Path, time: i64) -> std::path::PathBuf {
    let begins = |dir: &Path| {
        let meta: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("meta.json")).ok()?).unwrap();
        meta["minTime"].as_i64()
    };
    let dirs = fs::read_dir(bucket).unwrap().map(|entry| entry.unwrap().path());
    let mut found = dirs.filter(|dir| begins(dir) == Some(time));
    found.next().expect("the block is in the bucket")
}

#[tokio::test]
async fn what_the_bucket_has_is_left_to_it_and_what_it_loses_is_served() {
    let legs = Tools::find().legs;
    join_all(legs.iter().map(|leg| async move {
        let (prometheus, end) = scene(leg).await;
        let store = temp_dir("bucket");
        let objstore = format!("--objstore.config={}", BucketView::dir(store.path()).config());
        let flags = [objstore.as_str(), "--min-time=auto", "--min-time-margin=1s"];
        let mut stage = Stage::start(&prometheus, &flags).await;
        // The head, and what a margin before it has.
        serves_from(&stage, end - SLOT - 1000, end).await;

        // Said once, not whenever it moves.
        let log = stage.sidecar.log();
        assert_eq!(log.matches("--min-time=auto: queries are answered").count(), 1, "{log}");
        stage.sidecar.stop().await;
        fs::remove_dir_all(block_from(store.path(), end - 4 * SLOT)).unwrap();
        drop(stage);
        stage = Stage::start(&prometheus, &flags).await;
        serves_from(&stage, end - 4 * SLOT - 1000, end).await;
    }))
    .await;
}
