//! The queues before Prometheus, the time that a call has, and what happens without labels.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use narthex::{
    model::Labels,
    pb::thanos::{LabelNamesRequest, TargetsRequest, store_client::StoreClient, targets_client::TargetsClient},
    prometheus::HttpClientConfig,
};
use serde_json::json;
use tokio::sync::watch;
use tonic::{Code, Request, Status};

use super::{
    api::{asked, every_service, fake, names, success},
    stage::{PATIENCE, Scene, all},
};
use crate::{prometheus::fake::Answer, rig::wait_until};

fn targets(scene: &Scene) -> impl Future<Output = Result<usize, Status>> + use<> {
    let mut client = TargetsClient::new(scene.channel.clone());
    async move { Ok(all(client.targets(TargetsRequest::default()).await).await?.len()) }
}

/// Labels are answered, targets never.
fn half_dead() -> crate::prometheus::fake::Fake {
    fake("3.5.0", |path| match path.starts_with("/api/v1/labels") {
        true => success(json!(["x"])),
        false => Answer::Stall,
    })
}

#[tokio::test]
async fn requests_that_wait_hold_no_connection_and_leave_labels_their_turn() {
    let fake = half_dead();
    // One connection more than there are requests of one kind at once.
    let config = HttpClientConfig::parse("transport_config: {max_conns_per_host: 9}").unwrap();
    let scene = Scene::with(fake.url().as_str(), config).await;
    let calls: Vec<_> = (0..12).map(|_| tokio::spawn(targets(&scene))).collect();
    wait_until(PATIENCE, "the queue", async || {
        (scene.requests("others") == (4.0, 8.0, 0.0)).then_some(())
    })
    .await;
    assert_eq!(names(&scene, "up").await.unwrap(), ["cluster", "replica", "x"]);
    assert_eq!(scene.requests("labels"), (0.0, 0.0, 0.0));
    for call in calls {
        call.abort();
    }
    wait_until(PATIENCE, "the turns are given back", async || {
        (scene.requests("others") == (0.0, 0.0, 0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_ends_at_its_time_and_says_so() {
    let fake = half_dead();
    let scene = Scene::before(fake.url().as_str()).await;
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(targets(&scene))).collect();
    wait_until(PATIENCE, "the requests", async || {
        (scene.requests("others").1 == 8.0).then_some(())
    })
    .await;
    let hasty = scene.but(|context| context.timeout = Duration::from_millis(50)).await;
    let error = targets(&hasty).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error.message().contains("one of the 8 requests of this kind"),
        "{error}"
    );
    assert_eq!(scene.requests("others"), (0.0, 8.0, 1.0));
    drop(calls);
}

#[tokio::test]
async fn the_deadline_of_the_caller_counts_and_the_flag_only_where_there_is_none() {
    let count = Arc::new(AtomicUsize::new(0));
    let fake = fake("3.5.0", move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Stall,
        _ => Answer::Later(Duration::from_millis(1500), Box::new(success(json!({})))),
    });
    let scene = Scene::before(fake.url().as_str()).await;
    let hasty = scene.but(|context| context.timeout = Duration::from_secs(1)).await;
    let error = targets(&hasty).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("no complete answer within 1s"), "{error}");
    let mut request = Request::new(TargetsRequest::default());
    request.set_timeout(PATIENCE);
    let patient = TargetsClient::new(hasty.channel.clone()).targets(request).await;
    assert_eq!(all(patient).await.unwrap().len(), 1);
}

#[tokio::test]
async fn label_calls_ask_for_what_is_older_than_the_oldest_block() {
    let fake = fake("3.5.0", |_| success(json!(["x"])));
    let scene = Scene::before(fake.url().as_str()).await;
    assert!(scene.context.view().min_time_ms > 0);
    let request = LabelNamesRequest {
        end: 1,
        ..LabelNamesRequest::default()
    };
    let found = StoreClient::new(scene.channel.clone())
        .label_names(request)
        .await
        .unwrap();
    assert_eq!(found.into_inner().names, ["cluster", "replica", "x"]);
    assert_eq!(asked(&fake), "/api/v1/labels?end=0.001&start=0");
}

#[tokio::test]
async fn without_external_labels_what_would_carry_them_is_unavailable() {
    let fake = fake("3.5.0", |_| success(json!(null)));
    let scene = Scene::before(fake.url().as_str()).await;
    let bare = scene
        .but(|context| {
            let mut snapshot = context.snapshots.borrow().clone();
            snapshot.labels = Labels::default();
            context.snapshots = watch::Sender::new(snapshot).subscribe();
        })
        .await;
    for (service, found) in every_service(&bare).await {
        match service {
            "metadata" => assert_eq!(found.unwrap(), 1),
            "status" => assert_eq!(found.unwrap_err().code(), Code::Unknown),
            _ => {
                let error = found.expect_err(service);
                assert_eq!(error.code(), Code::Unavailable, "{service}");
                assert!(
                    error.message().starts_with("Prometheus has no external labels now: "),
                    "{error}"
                );
            }
        }
    }
}
