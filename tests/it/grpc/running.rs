//! Calls as they are seen while they run: by their service, and by whoever looks at all of them.

use std::time::Duration;

use narthex::{
    ops::http::{self, Pages},
    pb::thanos::metric_metadata_response::Result as Is,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{METADATA, Raw, Rig, SOON, ask, client::body, frozen::request};
use crate::rig::{self, wait_until};

#[tokio::test]
async fn a_service_sees_its_caller_and_the_deadline() {
    let rig = Rig::plain().await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let peer = stream.local_addr().unwrap();
    let mut raw = Raw::over(stream).await.unwrap();
    for (headers, left) in [(&[("grpc-timeout", "3600S")][..], "Some(3600.0)"), (&[], "None")] {
        let answer = raw.call(METADATA, headers, body(&ask("who", 0))).await;
        let message: narthex::pb::thanos::MetricMetadataResponse =
            prost::Message::decode(&answer.messages()[0].1[..]).unwrap();
        assert_eq!(message.result, Some(Is::Warning(format!("Some({peer}) {left}"))));
    }
    rig.stop().await;
}

#[tokio::test]
async fn running_calls_are_shown_until_they_end() {
    let rig = Rig::plain().await;
    let pages = Pages {
        probe: rig.probe.clone(),
        registry: Default::default(),
        connections: narthex::ops::connections::Metrics::register(&mut Default::default()),
        running: Some(rig.running.clone()),
        shipping: String::new(),
        web: None,
        more: None,
    };
    let server = http::bind("127.0.0.1:0", "--http-address").await.unwrap();
    let url = format!("http://{}/debug/calls", server.local_address());
    let token = CancellationToken::new();
    let served = tokio::spawn(server.serve(pages, http::Limits::default(), token.clone(), Duration::ZERO));
    let page = async || {
        let (status, page) = rig::http::get(&url).await.unwrap();
        assert_eq!(status, 200);
        String::from_utf8(page.to_vec()).unwrap()
    };
    assert_eq!(page().await, "0 running gRPC calls, oldest first, times in seconds\n");

    let stream = TcpStream::connect(rig.address).await.unwrap();
    let peer = stream.local_addr().unwrap();
    let mut raw = Raw::over(stream).await.unwrap();
    let older = raw
        .begin(METADATA, &[("grpc-timeout", "3600S")], body(&ask("place", 0)))
        .await
        .unwrap();
    let newer = raw.begin("/grpc.health.v1.Health/Watch", &[], body(&())).await.unwrap();
    let both = async || {
        let page = page().await;
        let lines: Vec<String> = page.lines().map(str::to_owned).collect();
        let there = lines.len() == 3 && lines[1].contains("sent_messages=1") && page.contains("in the middle");
        there.then_some(lines)
    };
    let lines = wait_until(SOON, "both calls are on their way", both).await;
    assert!(lines[0].starts_with("2 running gRPC calls"), "{lines:?}");
    for part in [
        "method=thanos.Metadata/MetricMetadata ".to_owned(),
        format!(" peer={peer} "),
        " deadline_in=35".to_owned(),
        " sent_bytes=12 ".to_owned(),
        " at=\"in the middle of the test\"".to_owned(),
    ] {
        assert!(lines[1].contains(&part), "{part} in {}", lines[1]);
    }
    assert!(
        lines[2].contains("method=grpc.health.v1.Health/Watch ") && lines[2].ends_with(" at=\"answering\""),
        "{}",
        lines[2]
    );
    assert_eq!(rig.metrics().value("narthex_grpc_calls_running", &[]), Some(2.0));

    // Each ends alone, and a third one with its connection.
    let until = async |number: usize| {
        let now = async || (rig.running.lines(9).0 == number).then_some(());
        wait_until(SOON, format!("{number} calls run"), now).await;
    };
    drop(newer);
    until(1).await;
    drop(older);
    until(0).await;
    let mut cut = TcpStream::connect(rig.address).await.unwrap();
    cut.write_all(&request(METADATA, &body(&ask("hang", 0)))).await.unwrap();
    until(1).await;
    drop(cut);
    until(0).await;
    assert_eq!(rig.metrics().value("narthex_grpc_calls_running", &[]), Some(0.0));
    token.cancel();
    timeout(SOON, served).await.unwrap().unwrap();
    rig.stop().await;
}
