//! What is done around a call: deadline, cancel, panic, metrics.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use narthex::pb::thanos::info::InfoRequest;
use tonic::Code;

use super::{
    INFO, METADATA, Rig, ask,
    client::{body, framed},
};

/// The codes that the protocol gives these numbers.
const OK: i32 = 0;
const DEADLINE_EXCEEDED: i32 = 4;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

#[tokio::test]
async fn a_deadline_ends_a_call_before_and_in_the_middle_of_its_answer() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    let answer = raw
        .call(INFO, &[("grpc-timeout", "100m"), ("do", "hang")], framed(0, &[]))
        .await;
    assert_eq!((answer.code(), answer.body.len()), (DEADLINE_EXCEEDED, 0));
    let mut calls = 1.0;
    // On a busy machine it may pass before the first message.
    for deadline in ["100m", "1S", "10S", "60S"] {
        let answer = raw
            .call(METADATA, &[("grpc-timeout", deadline)], body(&ask("hang", 0)))
            .await;
        assert_eq!(answer.code(), DEADLINE_EXCEEDED);
        calls += 1.0;
        if answer.messages().len() == 1 {
            break;
        }
        assert!(answer.body.is_empty() && deadline != "60S", "{answer:?}");
    }
    rig.until_dropped().await;
    assert_eq!(rig.handled("DeadlineExceeded"), calls);
    let answer = raw
        .call(METADATA, &[("grpc-timeout", "1H")], body(&ask("count", 3)))
        .await;
    assert_eq!((answer.code(), answer.messages().len()), (OK, 3));
    rig.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_call_whose_answer_nobody_reads() {
    let rig = Rig::plain().await;
    let mut raw = rig.raw().await;
    let (mut unread, mut calls) = (Vec::new(), 0.0);
    // On a busy machine it may pass before the call has begun.
    for deadline in ["300m", "3S", "30S"] {
        let call = raw
            .begin(METADATA, &[("grpc-timeout", deadline)], body(&ask("endless", 0)))
            .await;
        unread.push(call.unwrap());
        calls += 1.0;
        if rig.fake.begun() > 0 {
            break;
        }
    }
    assert_eq!(rig.fake.begun(), 1);
    rig.until_dropped().await;
    rig.until_handled("DeadlineExceeded", calls).await;
    assert_eq!(
        raw.call(INFO, &[], framed(0, &[])).await.code(),
        OK,
        "the connection lives on"
    );
    drop(unread);
    rig.stop().await;
}

#[tokio::test]
async fn a_bad_deadline_is_refused() {
    let rig = Rig::plain().await;
    let answer = rig
        .raw()
        .await
        .call(INFO, &[("grpc-timeout", "soon")], framed(0, &[]))
        .await;
    assert_eq!(answer.code(), INTERNAL);
    assert!(answer.message().contains("malformed grpc-timeout"), "{answer:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_call_that_the_client_leaves_is_dropped_and_counted_as_canceled() {
    let rig = Rig::plain().await;
    let mut client = rig.metadata().await;
    let mut stream = client.metric_metadata(ask("hang", 0)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(rig.fake.running(), 1);
    drop(stream);
    rig.until_handled("Canceled", 1.0).await;
    assert_eq!(rig.fake.running(), 0);

    let mut raw = rig.raw().await;
    let waiting = async {
        let answer = raw.begin(INFO, &[("do", "hang")], framed(0, &[])).await;
        panic!("an answer came: {answer:?}");
    };
    let inside = async || (rig.fake.running() == 1).then_some(());
    tokio::select! {
        () = waiting => {}
        () = crate::rig::wait_until(super::SOON, "the call is inside", inside) => {}
    }
    rig.until_handled("Canceled", 2.0).await;
    assert_eq!(rig.fake.running(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_panic_fails_its_call_and_no_other() {
    let rig = Rig::plain().await;
    let mut client = rig.metadata().await;
    let mut other = client.metric_metadata(ask("until", 0)).await.unwrap().into_inner();
    let mut stream = client.metric_metadata(ask("panic", 0)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let error = stream.message().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "no more messages"));

    let mut request = tonic::Request::new(InfoRequest {});
    request.metadata_mut().insert("do", "panic".parse().unwrap());
    let error = rig.info().await.info(request).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "no info"));
    assert_eq!(rig.metrics().value("grpc_req_panics_recovered_total", &[]), Some(2.0));
    assert_eq!(rig.handled("Internal"), 2.0);

    rig.fake.finish.cancel();
    assert!(other.message().await.unwrap().is_some());
    assert!(other.message().await.unwrap().is_some());
    assert!(other.message().await.unwrap().is_none());
    rig.until_dropped().await;
    rig.stop().await;
}

#[tokio::test]
async fn calls_are_counted_by_their_method() {
    let rig = Rig::plain().await;
    let before = rig.metrics();
    for name in ["started_total", "handled_total", "msg_received_total", "msg_sent_total"] {
        assert_eq!(before.value(&format!("grpc_server_{name}"), &[]), Some(0.0), "{name}");
    }
    let mut client = rig.metadata().await;
    let mut stream = client.metric_metadata(ask("count", 5)).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let missing = client.metric_metadata(ask("nothing", 0)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let mut stream = client.metric_metadata(ask("fail", 0)).await.unwrap().into_inner();
    stream.message().await.unwrap();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Aborted);
    rig.info().await.info(InfoRequest {}).await.unwrap();

    assert_eq!(rig.metadata_value("grpc_server_started_total"), 3.0);
    assert_eq!(rig.metadata_value("grpc_server_msg_received_total"), 3.0);
    assert_eq!(rig.metadata_value("grpc_server_msg_sent_total"), 6.0);
    // Five of a digit, one of five letters, each with two bytes of its field and the five before a message.
    assert_eq!(rig.metadata_value("narthex_grpc_sent_bytes_total"), 5.0 * 8.0 + 12.0);
    assert_eq!(rig.metadata_value("grpc_server_handling_seconds_count"), 3.0);
    for (code, times) in [("OK", 2.0), ("NotFound", 1.0), ("Aborted", 1.0), ("Unknown", 0.0)] {
        assert_eq!(rig.handled(code), times, "{code}");
    }
    assert_eq!(rig.metrics().samples.len(), before.samples.len());
    rig.stop().await;
}

#[tokio::test]
async fn what_is_not_served_makes_no_series() {
    let rig = Rig::plain().await;
    let before = rig.metrics().samples.len();
    let mut raw = rig.raw().await;
    for path in ["/thanos.Store/Info", "/thanos.Metadata/Nothing", "/x", "/"] {
        let answer = raw.call(path, &[], framed(0, &[])).await;
        assert_eq!(answer.code(), UNIMPLEMENTED, "{path}");
    }
    let health = raw.call("/grpc.health.v1.Health/Check", &[], framed(0, &[])).await;
    assert_eq!(health.code(), OK);
    assert_eq!(rig.metrics().samples.len(), before);
    assert_eq!(rig.metrics().value("grpc_server_started_total", &[]), Some(0.0));

    let plain = |method: &str| {
        let request = Request::builder().method(method).uri(format!("http://narthex{INFO}"));
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let status = raw.send(plain("GET")).await.unwrap().status();
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let status = raw.send(plain("POST")).await.unwrap().status();
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    rig.stop().await;
}
