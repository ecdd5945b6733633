//! A block whose samples a client has not read yet is Prometheus' own: it may be rewritten and deleted.

use reqwest::StatusCode;

use super::scene::{LONG, Scene, assert_same, whole};
use crate::rig::{Prometheus, Tools, http};

/// Asks the part of the API that changes data; whether it is done. A request ends when nothing comes for 30 s.
async fn admin(prometheus: &Prometheus, path: &str) -> Option<()> {
    let url = format!("{}/api/v1/admin/tsdb/{path}", prometheus.url());
    let answer = http::client().post(url).send().await.ok()?;
    (answer.status() == StatusCode::NO_CONTENT).then_some(())
}

#[tokio::test]
async fn a_block_that_a_client_has_not_read_yet_can_be_deleted() {
    let scene = Scene::start(&Tools::oldest(), &[]).await;
    let (earlier, before) = (scene.fast().await, scene.prometheus.blocks());
    let stream = scene.slow().await;
    for path in ["delete_series?match[]=large", "clean_tombstones"] {
        let done = async || admin(&scene.prometheus, path).await;
        scene.sidecar.wait_until(LONG, path, done).await;
    }
    let gone = async || (!scene.prometheus.blocks().contains(&before[0])).then_some(());
    scene.sidecar.wait_until(LONG, "the block is gone", gone).await;
    assert_same(&whole(stream).await, 1, &earlier);
}
