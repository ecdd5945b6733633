//! Info: all of it or nothing.

use narthex::{
    pb::thanos::info::{InfoRequest, InfoResponse, info_client::InfoClient, info_server::Info},
    storeapi::{Context, info::InfoService, min_time::MinTime},
};
use prost::Message;
use tokio::sync::watch;
use tonic::{Code, Request, Status};

use super::stage::{EXTERNAL, Scene, labels, stages};

async fn info(scene: &Scene) -> Result<InfoResponse, Status> {
    let answer = InfoClient::new(scene.channel.clone()).info(InfoRequest {}).await;
    Ok(answer?.into_inner())
}

#[tokio::test]
async fn tells_the_labels_and_the_oldest_time_of_a_real_prometheus() {
    for stage in stages().await {
        let scene = stage.scene().await;
        let info = info(&scene).await.unwrap();
        let external = labels(&serde_json::json!({}), &EXTERNAL).unwrap();
        assert_eq!(info.label_sets, std::slice::from_ref(&external));
        let store = info.store.unwrap();
        // Since its start, in whole seconds.
        let head = stage.data("/api/v1/status/tsdb").await["headStats"]["minTime"]
            .as_i64()
            .unwrap();
        assert_eq!(store.min_time, head / 1000 * 1000);
        assert_eq!((store.max_time, store.tsdb_infos.len()), (i64::MAX, 1));
        assert_eq!(store.tsdb_infos[0].labels, Some(external));
    }
}

/// The services for a Prometheus of which this is known.
async fn service(scene: &Scene, change: impl FnOnce(&mut narthex::prometheus::Snapshot)) -> InfoService {
    let mut snapshot = scene.context.snapshots.borrow().clone();
    change(&mut snapshot);
    InfoService::new(Context {
        snapshots: watch::Sender::new(snapshot).subscribe(),
        min_time: MinTime::EVERYTHING,
        ..scene.context.clone()
    })
}

#[tokio::test]
async fn has_the_bytes_of_the_wire() {
    let scene = stages().await[0].scene().await;
    let service = service(&scene, |snapshot| {
        snapshot.labels = narthex::model::Labels::from_pairs([("region", "eu"), ("replica", "a")]);
        snapshot.lowest_time_ms = 1_700_000_000_000;
    })
    .await;
    let answer = service.info(Request::new(InfoRequest {})).await.unwrap().into_inner();
    let hex: String = answer
        .encode_to_vec()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "0a1c0a0c0a06726567696f6e120265750a0c0a077265706c6963611201611207736964656361721a460880d095ffbc3110ffffffffffff\
         ffff7f18012801322f0a1c0a0c0a06726567696f6e120265750a0c0a077265706c6963611201611080d095ffbc3118ffffffffffffffff\
         7f22002a0032003a004a00"
    );
}

#[tokio::test]
async fn without_labels_it_fails_and_without_samples_it_has_the_smallest_time() {
    let scene = stages().await[0].scene().await;
    let empty = service(&scene, |snapshot| snapshot.lowest_time_ms = i64::MIN).await;
    let answer = empty.info(Request::new(InfoRequest {})).await.unwrap().into_inner();
    assert_eq!(answer.store.unwrap().min_time, -62_167_219_200_000);
    // An answer without labels would be asked for everything, also in the moment before the probe hears of it.
    let bare = service(&scene, |snapshot| snapshot.labels = narthex::model::Labels::default()).await;
    let error = bare.info(Request::new(InfoRequest {})).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "Not ready"));
}

#[tokio::test]
async fn fails_as_a_whole_while_we_are_not_ready() {
    let scene = stages().await[0].scene().await;
    scene.ready.set(Err("for a test".to_owned()));
    let error = info(&scene).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "Not ready"));
    scene.ready.set(Ok(()));
    info(&scene).await.unwrap();
    let unseen = service(&scene, |snapshot| snapshot.seen = false).await;
    let error = unseen.info(Request::new(InfoRequest {})).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "Not ready"));
}
