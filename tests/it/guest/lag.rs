//! While a client does not read, Prometheus seals blocks and truncates its head as if nobody asked it.

use futures_util::future::join_all;
use narthex::pb::thanos::SeriesResponse;
use tonic::{Code, Streaming};

use super::scene::{LONG, SIZE, Scene, Spill, assert_same, little, rest, take, whole};
use crate::rig::{Leg, Tools};

/// How often the head is truncated while a client hardly reads: once may be what had begun before.
const TIMES: usize = 2;

/// How long a block is. The first is sealed after nearly three times that.
const BLOCK: &str = "5s";

/// Lets Prometheus seal blocks while the client reads one message for each of them; `look` looks each time.
async fn goes_on(scene: &Scene, stream: &mut Streaming<SeriesResponse>, look: impl Fn()) {
    let (truncations, blocks) = (scene.truncations().await, scene.prometheus.blocks().len());
    for time in 1..=TIMES {
        scene.wait_for_truncations(truncations + time as f64).await;
        take(stream).await;
        look();
    }
    // For a range without samples, as a busy machine has them, it truncates the head and seals nothing.
    scene.prometheus.wait_for_blocks(blocks + 1, LONG).await;
}

/// What a call that was read ahead held is given back, and it did not lag.
async fn assert_nothing_is_held(scene: &Scene) {
    scene.wait_until_nothing_is_held().await;
    let lagged = scene.sidecar.metric("narthex_series_clients_lagged_total").await;
    assert_eq!(lagged, Some(0.0));
}

async fn is_read_ahead_in_memory(leg: &Leg) {
    let scene = Scene::sealing(leg, BLOCK, &[]).await;
    let earlier = scene.fast().await;
    let mut stream = scene.slow().await;
    goes_on(&scene, &mut stream, || {}).await;
    scene.wait_until_read().await;
    scene
        .wait_for_metric("narthex_oldest_remote_read_seconds", |seconds| seconds == 0.0)
        .await;
    // All but what the sockets and the client hold.
    scene
        .wait_for_metric("narthex_query_memory_bytes", |bytes| bytes > (SIZE / 2) as f64)
        .await;
    assert_same(&whole(stream).await, 1 + TIMES, &earlier);
    assert_nothing_is_held(&scene).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_waits_in_memory_and_prometheus_goes_on() {
    let legs = Tools::find().legs;
    join_all(legs.iter().map(is_read_ahead_in_memory)).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_waits_in_a_file_without_a_name_and_prometheus_goes_on() {
    let spill = Spill::new();
    // What the disk needs counts as time in which Prometheus waits, and a busy machine has slow disks.
    let flags = ["--store.read-ahead=1MiB", &spill.flag()];
    let scene = Scene::sealing(&Tools::oldest(), "12s", &flags).await;
    let earlier = scene.fast().await;
    let mut stream = scene.slow().await;
    goes_on(&scene, &mut stream, || assert_eq!(spill.names(), 0)).await;
    scene.wait_until_read().await;
    assert!(spill.nameless(&scene) > 0, "no file is open");
    assert_same(&whole(stream).await, 1 + TIMES, &earlier);
    assert_nothing_is_held(&scene).await;
    spill.wait_until_closed(&scene).await;
    assert_eq!(spill.names(), 0);
}

#[tokio::test]
async fn without_room_to_read_ahead_a_client_that_lags_loses_its_call_and_prometheus_goes_on() {
    let flags = ["--store.read-ahead=1MiB", "--store.max-client-lag=2s"];
    let scene = Scene::sealing(&Tools::oldest(), BLOCK, &flags).await;
    let truncations = scene.truncations().await;
    let stream = scene.slow().await;
    scene.wait_for_truncations(truncations + TIMES as f64).await;
    scene
        .wait_for_metric("narthex_series_clients_lagged_total", |calls| calls == 1.0)
        .await;
    scene.wait_until_read().await;
    // Its place is free, though the client has not even read that its call has ended.
    let other = scene.client().await.request(little()).await.unwrap();
    assert!(!whole(other).await.is_empty());
    let status = rest(stream).await.end.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    for flag in ["--store.read-ahead", "--store.spill-dir", "--store.max-client-lag"] {
        assert!(status.message().contains(flag), "{status}");
    }
    scene.wait_until_nothing_is_held().await;
}
