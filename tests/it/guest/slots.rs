//! The remote-read slot of a call is free once Prometheus is done, whatever the client does.

use super::scene::{Scene, assert_same, little, whole};
use crate::rig::Tools;

#[tokio::test]
async fn a_client_that_does_not_read_keeps_nobody_from_the_only_place() {
    let scene = Scene::start(&Tools::oldest(), &[]).await;
    let earlier = scene.fast().await;
    let stream = scene.slow().await;
    let client = scene.client().await;
    for _ in 0..3 {
        let other = client.request(little()).await.unwrap();
        assert!(!whole(other).await.is_empty());
    }
    assert_same(&whole(stream).await, 1, &earlier);
}
