//! Two queriers that merge the answers of two sidecars, and read none of one before the other has begun, as Thanos Query
//! does with `--grpc.proxy-strategy=lazy`.

use futures_util::future::try_join;
use narthex::pb::thanos::SeriesResponse;
use tonic::{Status, Streaming};

use super::scene::{Client, SERIES, Scene, everything, parted, take, whole};
use crate::rig::Tools;

type Answer = Streaming<SeriesResponse>;

/// Both queriers' answers: each has asked one sidecar first, and the other when that had begun, and has then read one
/// message from the second.
///
/// Each sidecar has one place at its Prometheus.
async fn crossed(flags: &[&str]) -> (Vec<Scene>, [Answer; 4]) {
    let leg = Tools::oldest();
    let (left, right) = (Scene::start(&leg, flags).await, Scene::start(&leg, flags).await);
    let narrow = async |scene: &Scene| Client::narrow(&scene.sidecar).await;
    let (one, other) = (
        [narrow(&left).await, narrow(&right).await],
        [narrow(&right).await, narrow(&left).await],
    );
    // Both have begun, so that both places are taken.
    let first = one[0].request(everything()).await.unwrap();
    let second = other[0].request(everything()).await.unwrap();
    let turn = async |client: &Client| {
        let mut answer = client.request(everything()).await?;
        take(&mut answer).await;
        Ok::<_, Status>(answer)
    };
    let (third, fourth) = try_join(turn(&one[1]), turn(&other[1])).await.unwrap();
    (vec![left, right], [first, second, third, fourth])
}

#[tokio::test]
async fn two_queriers_that_wait_for_each_other_both_get_all() {
    // Room for two answers.
    let (_scenes, [first, second, third, fourth]) = crossed(&["--store.read-ahead=128MiB"]).await;
    for (answer, taken) in [(third, 1), (fourth, 1), (first, 0), (second, 0)] {
        assert_eq!(parted(&whole(answer).await).0.len(), SERIES - taken);
    }
}

#[tokio::test]
async fn without_room_to_read_ahead_neither_of_two_queriers_keeps_the_other_out() {
    crossed(&["--store.read-ahead=1MiB", "--store.max-client-lag=2s"]).await;
}
