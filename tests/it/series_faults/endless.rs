//! Answers and clients without an end: memory stays what it was, and whoever goes away is let go.

use std::time::Duration;

use narthex::pb::thanos::SeriesResponse;
use tokio::time::timeout;
use tonic::Streaming;

use super::{
    fake::{Fake, Step},
    frames::{self, STREAM, chunked_head, frame, http_chunk, with_data},
    scene::{Client, LONG, Scene},
};

/// The kernel counts in batches, so that a peak may look smaller later.
///
/// What an answer of any size may take beyond a small one, in bytes: buffers of a connection, and of the allocator.
const SLACK: u64 = 12 << 20;

/// Bytes of chunk data in each series.
const DATA: usize = 16 << 10;

/// Sorted series without an end.
fn endless() -> Vec<Step> {
    let mut number = 0;
    let next = move || {
        number += 1;
        http_chunk(&frame(STREAM, &[with_data(number, 1, vec![7; DATA])]))
    };
    vec![Step::Send(chunked_head()), Step::Endless(Box::new(next))]
}

/// Reads so many messages.
async fn take(stream: &mut Streaming<SeriesResponse>, count: usize) {
    for _ in 0..count {
        let message = timeout(LONG, stream.message()).await.expect("it goes on").unwrap();
        assert!(message.is_some(), "it has no end");
    }
}

/// One that reads little ahead, and whose Prometheus waits for clients as long as this test takes.
async fn patient(limit: usize) -> Scene {
    let args = ["--store.read-ahead=1MiB", "--store.max-client-lag=1h"];
    Scene::start_with_args(limit, &args).await
}

/// Waits until nothing more is sent.
async fn wait_until_still(scene: &Scene, fake: &Fake) -> u64 {
    let (mut before, mut looks) = (fake.sent(), 0);
    let probe = async || {
        let now = fake.sent();
        looks = if now == before { looks + 1 } else { 0 };
        before = now;
        (looks >= 25).then_some(now)
    };
    scene.sidecar.wait_until(LONG, "back-pressure", probe).await
}

#[tokio::test]
async fn an_endless_answer_takes_no_memory_and_ends_with_its_client() {
    // On a busy machine this client may lag, and what is read ahead for it is not what is measured.
    let scene = patient(10).await;
    scene.fake.answer("endless", |_| endless());
    let mut stream = scene.client().await.start("endless").await.unwrap();
    take(&mut stream, 500).await;
    let before = scene.sidecar.peak_memory();
    take(&mut stream, 5000).await;
    let after = scene.sidecar.peak_memory();
    assert!(
        after.saturating_sub(before) < SLACK,
        "{before} bytes, and {after} after 80 MB more"
    );
    assert_eq!(scene.fake.busy(), 1);
    drop(stream);
    scene.wait_for_busy(0).await;
    scene.wait_for_pending(0).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_stops_prometheus_and_may_go_on() {
    let scene = patient(10).await;
    scene.fake.answer("endless", |_| endless());
    let client = Client::narrow(&scene.sidecar).await;
    let mut stream = client.start("endless").await.unwrap();
    take(&mut stream, 10).await;
    let before = scene.sidecar.peak_memory();
    let sent = wait_until_still(&scene, &scene.fake).await;
    // What two sockets hold by default, and then some.
    assert!(
        sent < 32 << 20,
        "{sent} bytes were taken of an answer that nobody reads"
    );
    let after = scene.sidecar.peak_memory();
    assert!(
        after.saturating_sub(before) < SLACK,
        "{before} bytes, and {after} while nobody reads"
    );
    // As far as what is under way, and beyond.
    take(&mut stream, 2 * sent as usize / DATA).await;
    assert!(scene.fake.sent() > sent);
    drop(stream);
    scene.wait_for_busy(0).await;
    scene.wait_for_pending(0).await;
}

#[tokio::test]
async fn many_clients_that_do_not_read_take_little_memory_and_are_let_go() {
    let scene = patient(50).await;
    scene.fake.answer("endless", |_| endless());
    let client = Client::narrow(&scene.sidecar).await;
    let before = scene.sidecar.peak_memory();
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(client.start("endless").await.unwrap());
    }
    scene.wait_for_busy(40).await;
    wait_until_still(&scene, &scene.fake).await;
    let after = scene.sidecar.peak_memory();
    assert!(
        after.saturating_sub(before) < 40 * (1 << 20) + SLACK,
        "{before} bytes, and {after} with 40 calls"
    );
    drop(streams);
    scene.wait_for_busy(0).await;
    scene.wait_for_pending(0).await;
}

#[tokio::test]
async fn a_frame_that_claims_much_and_hangs_takes_no_memory_and_goes_with_its_client() {
    let scene = Scene::start(50).await;
    let claim = frames::head(49_000_000, 1);
    scene.fake.answer("claim", move |_| {
        let start = [chunked_head(), http_chunk(&claim), http_chunk(&[7; 1000])].concat();
        vec![Step::Send(start), Step::Hang]
    });
    // Neither does one who says nothing at all.
    scene.fake.answer("silence", |_| vec![Step::Hang]);
    let client = scene.client().await;
    let before = scene.sidecar.peak_memory();
    let calls = (0..40).map(|at| {
        let client = client.clone();
        tokio::spawn(async move { client.ask(if at % 2 == 0 { "claim" } else { "silence" }).await })
    });
    let calls: Vec<_> = calls.collect();
    scene.wait_for_busy(40).await;
    scene.wait_for_pending(40).await;
    let after = scene.sidecar.peak_memory();
    assert!(
        after.saturating_sub(before) < SLACK,
        "{before} bytes, and {after} when 1 GB was claimed"
    );
    for call in &calls {
        call.abort();
    }
    scene.wait_for_busy(0).await;
    scene.wait_for_pending(0).await;
}

#[tokio::test]
async fn a_deadline_of_the_client_ends_the_request_too() {
    let scene = Scene::start(10).await;
    scene.fake.answer("silence", |_| vec![Step::Hang]);
    let client = scene.client().await;
    let mut request = tonic::Request::new(super::scene::request("silence"));
    request.set_timeout(Duration::from_millis(300));
    let status = client.raw().series(request).await.expect_err("nobody answers");
    assert!(
        matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled),
        "{status}"
    );
    scene.wait_for_busy(0).await;
    scene.wait_for_pending(0).await;
}
