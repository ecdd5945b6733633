//! Requests that would cost much more than they are: they are refused with the numbers, and harm nobody.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use narthex::pb::thanos::{LabelMatcher, LabelNamesRequest, SeriesRequest, label_matcher::Type};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::Code;

use super::{
    fake::Step,
    frames::{frames, whole},
    scene::{LONG, Scene, always, request},
};
use crate::rig::Sidecar;

/// What refused requests may take at once: each as it came and decompressed.
const MEMORY: u64 = 48 << 20;

/// The message with gzip, as it is sent.
fn zipped(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).unwrap();
    let zipped = encoder.finish().unwrap();
    [&[1][..], &(zipped.len() as u32).to_be_bytes(), &zipped]
        .concat()
        .into()
}

/// Calls a method with a body in gzip, and gives the headers of an answer that has no more.
async fn call_zipped(sidecar: &Sidecar, path: &str, body: Bytes) -> HeaderMap {
    let address = sidecar.grpc_url().replace("http://", "");
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://narthex{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", "gzip")
        .body(Full::new(body))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    assert!(body.collect().await.unwrap().to_bytes().is_empty());
    connection.abort();
    parts.headers
}

#[tokio::test]
async fn millions_of_empty_matchers_are_refused_before_they_take_memory() {
    let scene = Scene::start(10).await;
    let client = scene.client().await;
    scene.fake.answer("small", always(whole(&frames(3).concat())));
    assert_eq!(client.ask("small").await.series.len(), 3);
    let before = scene.sidecar.peak_memory();
    let zipped = zipped(&[0x1a, 0].repeat(6_000_000));
    assert!(zipped.len() < 64 << 10, "{} bytes", zipped.len());
    // Matchers have another number there.
    let names = self::zipped(&[0x32, 0].repeat(6_000_000));
    for (path, body) in [
        ("/thanos.Store/Series", &zipped),
        ("/thanos.Store/LabelNames", &names),
        ("/thanos.Store/Series", &zipped),
    ] {
        let told = call_zipped(&scene.sidecar, path, body.clone()).await;
        assert_eq!(
            told["grpc-status"],
            (Code::InvalidArgument as i32).to_string(),
            "{path}"
        );
        let text = told["grpc-message"].to_str().unwrap().replace("%20", " ");
        let wanted = "the request has 6000000 matchers, and 1000 are allowed";
        assert!(text.starts_with(wanted), "{path}: {text}");
    }
    let peak = scene.sidecar.peak_memory();
    assert!(peak - before < MEMORY, "{before} bytes before, {peak} after");
    assert_eq!(client.ask("small").await.series.len(), 3);
}

#[tokio::test]
async fn what_is_refused_is_refused_for_every_call_that_takes_matchers() {
    let scene = super::scene::shared().await;
    let client = scene.client().await;
    let matcher = LabelMatcher {
        r#type: Type::Re.into(),
        name: "job".to_owned(),
        value: "x".to_owned(),
    };
    let names = LabelNamesRequest {
        matchers: vec![matcher.clone(); 1001],
        ..LabelNamesRequest::default()
    };
    let status = client.raw().label_names(names).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("the request has 1001 matchers"),
        "{status}"
    );
    let long = SeriesRequest {
        matchers: vec![
            LabelMatcher {
                value: "x".repeat(600_000),
                ..matcher
            };
            2
        ],
        ..request("none")
    };
    let status = client.request(long).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .starts_with("the request has 1200000 bytes of patterns"),
        "{status}"
    );
    let long = SeriesRequest {
        without_replica_labels: vec!["x".repeat(17 << 20)],
        ..request("none")
    };
    let status = client.request(long).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

/// Calls that wait with a MiB of patterns each, until there is no memory for more; the small ones go on.
#[tokio::test]
async fn requests_that_wait_cannot_fill_the_memory() {
    let scene = Scene::start_with_args(2, &["--store.memory-limit=4608KiB"]).await;
    let client = scene.client().await;
    scene.fake.answer("first", |_| vec![Step::Hang]);
    let caller = client.clone();
    let first = tokio::spawn(async move { caller.ask("first").await });
    scene.wait_for_busy(1).await;
    let large = SeriesRequest {
        matchers: vec![LabelMatcher {
            name: "pod".to_owned(),
            value: "pod-1|".repeat(170_000),
            r#type: Type::Re.into(),
        }],
        ..request("large")
    };
    assert!(large.encoded_len() > 1 << 19);
    let mut waiting = Vec::new();
    for at in 0..4 {
        let (client, large) = (client.clone(), large.clone());
        waiting.push(tokio::spawn(async move { client.request(large).await.map(|_| ()) }));
        if at < 3 {
            scene.wait_for_pending(2 + at).await;
        }
    }
    let refused = waiting.pop().expect("there are four");
    let status = tokio::time::timeout(LONG, refused)
        .await
        .expect("it need not wait")
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("no memory for a request of"), "{status}");
    // A small one waits as those before it do.
    scene.fake.answer("small", always(whole(&frames(1).concat())));
    let caller = client.clone();
    let small = tokio::spawn(async move { caller.ask("small").await });
    scene.wait_for_pending(5).await;
    for call in waiting {
        call.abort();
    }
    scene.wait_for_pending(2).await;
    first.abort();
    let outcome = tokio::time::timeout(LONG, small)
        .await
        .expect("its turn comes")
        .unwrap();
    assert_eq!(outcome.series.len(), 1);
    scene.wait_for_pending(0).await;
}
