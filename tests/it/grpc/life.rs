//! Connections: when they are taken, how long they live, how they end.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use narthex::{
    ops::grpc::{self, Limits},
    pb::thanos::info::InfoRequest,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::Code;

use super::{
    INFO, METADATA, Raw, Rig, SOON, Start, ask,
    client::{body, framed},
    ended,
};
use crate::rig::wait_until;

#[tokio::test]
async fn the_port_is_held_and_refuses_until_it_is_served() {
    let bound = grpc::bind("127.0.0.1:0", "--grpc-address").await.unwrap();
    let address = bound.local_address();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let taken = grpc::bind(&address.to_string(), "--grpc-address").await.unwrap_err();
    assert!(taken.to_string().contains("another process holds this port"), "{taken}");
    drop(bound);

    let rig = Rig::plain().await;
    let info = rig.info().await.info(InfoRequest {}).await.unwrap();
    assert_eq!(info.get_ref().component_type, "sidecar");
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_lets_running_calls_finish_and_takes_no_new_ones() {
    let rig = Rig::plain().await;
    let mut client = rig.metadata().await;
    let mut stream = client.metric_metadata(ask("until", 0)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    rig.token.cancel();
    let closed = async || TcpStream::connect(rig.address).await.is_err().then_some(());
    wait_until(SOON, "the port closes", closed).await;
    assert!(!rig.served.is_finished());
    let refused = async || client.metric_metadata(ask("count", 1)).await.err();
    let error = wait_until(SOON, "a new call is refused", refused).await;
    // What tonic makes of a connection that goes away, before and after it knows.
    assert!(matches!(error.code(), Code::Unavailable | Code::Cancelled), "{error:?}");
    rig.fake.finish.cancel();
    assert!(stream.message().await.unwrap().is_some());
    assert!(stream.message().await.unwrap().is_none());
    ended(rig.served).await;
}

#[tokio::test]
async fn the_end_of_the_grace_period_cuts_what_still_runs() {
    for grace in [Duration::ZERO, Duration::from_millis(200)] {
        let rig = Rig::start(Start {
            grace,
            ..Start::default()
        })
        .await;
        let mut client = rig.metadata().await;
        let mut stream = client.metric_metadata(ask("hang", 0)).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        let begun = Instant::now();
        rig.token.cancel();
        assert!(stream.message().await.is_err());
        assert!(begun.elapsed() >= grace);
        rig.until_dropped().await;
        rig.until_handled("Canceled", 1.0).await;
        ended(rig.served).await;
    }
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_away_and_its_calls_finish() {
    // So long that a busy machine has begun the call by then.
    let age = Duration::from_secs(2);
    let rig = Rig::start(Start {
        age,
        ..Start::default()
    })
    .await;
    let begun = Instant::now();
    let mut busy = rig.raw().await;
    let idle = rig.raw().await;
    let running = busy.begin(METADATA, &[], body(&ask("until", 0))).await.unwrap();
    idle.connection.await.unwrap().unwrap();
    assert!(begun.elapsed() >= age.mul_f64(0.9), "{:?}", begun.elapsed());
    let refuses = async || busy.begin(INFO, &[], framed(0, &[])).await.err();
    wait_until(SOON, "the old connection takes no more calls", refuses).await;
    assert_eq!(rig.fake.running(), 1);
    rig.fake.finish.cancel();
    let all = http_body_util::BodyExt::collect(running.into_body()).await.unwrap();
    assert_eq!(all.trailers().unwrap()["grpc-status"], "0");
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_open_is_dropped() {
    let rig = Rig::start(Start {
        limits: Limits {
            handshake: Duration::from_secs(2),
            ..Limits::default()
        },
        ..Start::default()
    })
    .await;
    let mut good = rig.raw().await;
    // Before the connection is there: from then on the server counts.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut came = Vec::new();
    // The server's own settings may come before the end.
    let _ = timeout(SOON, silent.read_to_end(&mut came)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(
        good.call(INFO, &[], framed(0, &[])).await.code(),
        0,
        "one that opened is left alone"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_dead_client_is_found_by_a_ping() {
    let limits = Limits {
        ping_after: Duration::from_millis(100),
        // The one that lives must answer by then, also on a busy machine.
        ping_timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    let rig = Rig::start(Start {
        limits,
        ..Start::default()
    })
    .await;
    let mut alive = rig.raw().await;
    let hanging = alive.begin(METADATA, &[], body(&ask("hang", 0))).await.unwrap();
    // It opens, and then never says a word, not even to a ping.
    let mut dead = TcpStream::connect(rig.address).await.unwrap();
    let opening = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    dead.write_all(&opening).await.unwrap();
    let mut came = Vec::new();
    let _ = timeout(SOON, dead.read_to_end(&mut came)).await.unwrap();
    assert_eq!(rig.fake.running(), 1, "one that answers pings lives on");
    drop(hanging);
    rig.until_dropped().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_pings_without_pause_is_answered() {
    let rig = Rig::plain().await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    // It gives up when one ping in a row of hundreds is not answered, or when it is told to go away for them.
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(10))
        .keep_alive_timeout(SOON)
        .keep_alive_while_idle(true)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    let mut connection = pin!(connection);
    let ended = timeout(Duration::from_secs(2), &mut connection).await;
    assert!(ended.is_err(), "{ended:?}");
    sender.ready().await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let rig = Rig::start(Start {
        limits: Limits {
            connections: 2,
            ..Limits::default()
        },
        ..Start::default()
    })
    .await;
    let mut first = rig.raw().await;
    let first_call = first.begin(METADATA, &[], body(&ask("hang", 0))).await.unwrap();
    let idle = rig.raw().await;
    let mut second = rig.raw().await;
    let second_call = second.begin(METADATA, &[], body(&ask("hang", 0))).await.unwrap();
    let _ = idle.connection.await.unwrap();
    let mut third = TcpStream::connect(rig.address).await.unwrap();
    let mut came = Vec::new();
    let _ = timeout(SOON, third.read_to_end(&mut came)).await.unwrap();
    assert!(came.is_empty());
    assert_eq!(rig.fake.running(), 2);
    for (name, wanted) in [("open", 2.0), ("evicted_total", 1.0), ("refused_total", 1.0)] {
        let value = rig
            .metrics()
            .value(&format!("narthex_connections_{name}"), &[("server", "grpc")]);
        assert_eq!(value, Some(wanted), "{name}");
    }
    drop((first_call, second_call));
    rig.until_dropped().await;
    let mut fourth = Raw::connect(rig.address).await;
    assert_eq!(fourth.call(INFO, &[], framed(0, &[])).await.code(), 0);
    rig.stop().await;
}
