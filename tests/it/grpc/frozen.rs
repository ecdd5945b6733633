//! Clients that stop reading while the answer is under way: their connections and calls end within the limit.

use std::{sync::Arc, time::Duration};

use narthex::ops::grpc::{Limits, Tls, TlsFlags};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{INFO, METADATA, Rig, SOON, Start, ask, client::body, client::framed};
use crate::rig::{StoppedClient, wait_until};

/// What a client of HTTP/2 sends that asks at `path`, and gives the server windows that never close.
pub(super) fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    const WIDE: u32 = (1 << 31) - 1;
    // INITIAL_WINDOW_SIZE is setting 4; the window of the connection begins at 65,535.
    let settings = [&[0, 4][..], &WIDE.to_be_bytes()].concat();
    let more = (WIDE - 65_535).to_be_bytes();
    // POST and http from the static table, then names from it or written out, with values in plain.
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04][..], path),
        (&[0x01], "narthex"),
        (&[0x0f, 0x10], "application/grpc"),
        (&[0x00, 2, b't', b'e'], "trailers"),
    ] {
        headers.extend(name);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend(value.as_bytes());
    }
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &settings),
        frame(8, 0, 0, &more),
        frame(1, END_HEADERS, 1, &headers),
        frame(0, END_STREAM, 1, body),
    ]
    .concat()
}

fn endless() -> Vec<u8> {
    request(METADATA, &body(&ask("endless", 0)))
}

/// Neither pings nor the kernel find out: only the limit on writes can.
fn limits() -> Limits {
    Limits {
        stall: Duration::from_millis(500),
        unacknowledged: Duration::from_secs(3600),
        ping_after: Duration::from_secs(3600),
        ..Limits::default()
    }
}

async fn rig(tls: Option<Tls>) -> Rig {
    Rig::start(Start {
        tls,
        limits: limits(),
        ..Start::default()
    })
    .await
}

fn open(rig: &Rig) -> f64 {
    let labels = [("server", "grpc")];
    rig.metrics().value("narthex_connections_open", &labels).unwrap()
}

/// Waits until the answer is under way, then until the connection and its call have ended.
async fn until_cut(rig: &Rig) {
    let under_way = async || (rig.metadata_value("grpc_server_msg_sent_total") > 1.0).then_some(());
    wait_until(SOON, "the answer is under way", under_way).await;
    rig.until_dropped().await;
    rig.until_handled("Canceled", 1.0).await;
    wait_until(SOON, "the connection is closed", async || {
        (open(rig) == 0.0).then_some(())
    })
    .await;
    assert_eq!(rig.running.lines(10).0, 0);
}

/// Asks, and reads nothing for as long as the server cares; then what is left ends.
async fn never_reads(rig: &Rig, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    stream.write_all(&endless()).await.unwrap();
    stream.flush().await.unwrap();
    until_cut(rig).await;
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_client_with_an_endless_window_that_never_reads_is_cut() {
    let rig = rig(None).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    never_reads(&rig, stream).await;
    assert_eq!(rig.raw().await.call(INFO, &[], framed(0, &[])).await.code(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn it_is_cut_under_tls_too() {
    let dir = TempDir::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (cert, key_file) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    fs_err::write(&cert, certificate.pem()).unwrap();
    fs_err::write(&key_file, key.serialize_pem()).unwrap();
    let flags = TlsFlags {
        cert: Some(cert),
        key: Some(key_file),
        ..TlsFlags::default()
    };
    let rig = rig(Tls::load(flags).unwrap()).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate)).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    never_reads(&rig, stream).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_stopped_process_is_cut_by_us_and_by_the_kernel() {
    let kernel = Limits {
        stall: Duration::from_secs(3600),
        unacknowledged: Duration::from_millis(1500),
        ..limits()
    };
    for limits in [limits(), kernel] {
        let rig = Rig::start(Start {
            limits,
            ..Start::default()
        })
        .await;
        let client = StoppedClient::start(rig.address, &endless());
        until_cut(&rig).await;
        assert!(client.is_stopped());
        rig.stop().await;
    }
}

#[tokio::test]
async fn calls_without_progress_make_room_and_are_ended() {
    let patience = Duration::from_millis(200);
    let rig = Rig::start(Start {
        limits: Limits {
            connections: 1,
            patience,
            ..Limits::default()
        },
        ..Start::default()
    })
    .await;
    let mut first = rig.raw().await;
    let answer = first.begin(METADATA, &[], body(&ask("hang", 0))).await.unwrap();
    assert_eq!(rig.fake.running(), 1);
    let let_in = async || {
        let mut second = TcpStream::connect(rig.address).await.unwrap();
        // The server's own settings come first, when it is let in.
        second.write_all(&request(INFO, &framed(0, &[]))).await.unwrap();
        let mut came = [0];
        (second.read(&mut came).await.unwrap_or(0) > 0).then_some(second)
    };
    let second = wait_until(SOON, "the new client is let in", let_in).await;
    rig.until_handled("Canceled", 1.0).await;
    rig.until_dropped().await;
    let value = |name: &str| rig.metrics().value(name, &[("server", "grpc")]).unwrap();
    assert_eq!(value("narthex_connections_open"), 1.0);
    assert!(value("narthex_connections_evicted_total") >= 1.0);
    drop((answer, second));
    rig.stop().await;
}
