//! What was read ahead for a client goes with its call, however that ends.

use tonic::Code;

use super::scene::{Scene, Spill, rest};
use crate::rig::Tools;

#[tokio::test]
async fn what_was_read_ahead_goes_with_its_client() {
    let spill = Spill::new();
    let scene = Scene::start(&Tools::oldest(), &["--store.read-ahead=4MiB", &spill.flag()]).await;
    let stream = scene.slow().await;
    scene.wait_until_read().await;
    scene
        .wait_for_metric("narthex_query_memory_bytes", |bytes| bytes > 0.0)
        .await;
    assert!(spill.nameless(&scene) > 0, "no file is open");
    drop(stream);
    scene.wait_until_nothing_is_held().await;
    spill.wait_until_closed(&scene).await;
    assert_eq!(spill.names(), 0);
}

#[tokio::test]
async fn a_killed_narthex_leaves_no_file() {
    let spill = Spill::new();
    let scene = Scene::start(&Tools::oldest(), &["--store.read-ahead=1MiB", &spill.flag()]).await;
    let _stream = scene.slow().await;
    scene.wait_until_read().await;
    assert!(spill.nameless(&scene) > 0, "no file is open");
    scene.sidecar.kill9();
    assert_eq!(spill.names(), 0);
}

#[tokio::test]
async fn when_the_file_may_not_grow_any_more_a_client_that_lags_loses_its_call() {
    let spill = Spill::new();
    let flags = [
        "--store.read-ahead=1MiB",
        &spill.flag(),
        "--store.spill-limit=1MiB",
        "--store.max-client-lag=2s",
    ];
    let scene = Scene::start(&Tools::oldest(), &flags).await;
    let stream = scene.slow().await;
    scene
        .wait_for_metric("narthex_series_clients_lagged_total", |calls| calls == 1.0)
        .await;
    scene.wait_until_read().await;
    let status = rest(stream).await.end.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("--store.spill-limit"), "{status}");
    scene.wait_until_nothing_is_held().await;
    spill.wait_until_closed(&scene).await;
    assert_eq!(spill.names(), 0);
}
