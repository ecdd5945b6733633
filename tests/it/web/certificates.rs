//! TLS on the HTTP port, with certificates of our own.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use fs_err as fs;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use narthex::ops::http::Limits;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use reqwest::{Certificate, Identity, StatusCode, tls};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Rig, SOON, client};
use crate::rig::wait_until;

pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(super) fn new() -> Ca {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, names: Vec<SanType>) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = names;
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes a new pair for localhost.
    pub(super) fn write_pair(&self, dir: &Path) {
        let (certificate, key) = self.sign(vec![dns("localhost")]);
        fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    }

    /// A client that trusts this CA and shows a certificate of `own` with these names.
    fn client(&self, own: Option<(&Ca, Vec<SanType>)>) -> reqwest::Client {
        let trusted = Certificate::from_pem(self.pem().as_bytes()).unwrap();
        let mut builder = client().tls_certs_only([trusted]);
        if let Some((ca, names)) = own {
            let (certificate, key) = ca.sign(names);
            let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
            builder = builder.identity(Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

async fn works(client: &reqwest::Client, rig: &Rig) -> bool {
    let answer = client.get(rig.url("https", "/-/healthy")).send().await;
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

#[tokio::test]
async fn each_type_of_client_authentication_lets_in_whom_it_should() {
    let (ca, other) = (Ca::new(), Ca::new());
    // Without a certificate, with one of another CA, with one of the CA.
    for (kind, expected) in [
        ("NoClientCert", [true, true, true]),
        ("RequestClientCert", [true, true, true]),
        ("RequireAnyClientCert", [false, true, true]),
        ("RequireClientCert", [false, true, true]),
        ("VerifyClientCertIfGiven", [true, false, true]),
        ("RequireAndVerifyClientCert", [false, false, true]),
    ] {
        let mut more = format!("  client_auth_type: {kind}\n");
        if kind != "NoClientCert" {
            more += "  client_ca: |\n";
            more.extend(ca.pem().lines().map(|line| format!("    {line}\n")));
        }
        let rig = Rig::with_tls(&ca, &more).await;
        let clients = [
            ca.client(None),
            ca.client(Some((&other, vec![dns("a")]))),
            ca.client(Some((&ca, vec![dns("a")]))),
        ];
        for (client, expected) in clients.iter().zip(expected) {
            assert_eq!(works(client, &rig).await, expected, "{kind}");
        }
    }
}

#[tokio::test]
async fn only_the_names_that_are_allowed_are_let_in() {
    let ca = Ca::new();
    let dir = TempDir::new().unwrap();
    ca.write_pair(dir.path());
    fs::write(dir.path().join("ca.crt"), ca.pem()).unwrap();
    let yaml = "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: ca.crt, client_auth_type: \
                RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example, 10.0.0.7, 'spiffe://x/y', a@b.example]}\n";
    let rig = Rig::start(dir, yaml).await;
    let ip = |text: &str| SanType::IpAddress(text.parse::<IpAddr>().unwrap());
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let mail = |text: &str| SanType::Rfc822Name(text.try_into().unwrap());
    for (names, expected) in [
        (vec![dns("prometheus.example")], true),
        (vec![dns("other.example"), ip("10.0.0.7")], true),
        (vec![uri("spiffe://x/y")], true),
        (vec![mail("a@b.example")], true),
        (vec![dns("other.example"), ip("10.0.0.8")], false),
    ] {
        let client = ca.client(Some((&ca, names.clone())));
        assert_eq!(works(&client, &rig).await, expected, "{names:?}");
    }
}

#[tokio::test]
async fn versions_are_those_that_are_allowed() {
    let ca = Ca::new();
    let trusted = || Certificate::from_pem(ca.pem().as_bytes()).unwrap();
    for (more, expected) in [
        ("", [true, true]),
        ("  min_version: TLS13\n", [false, true]),
        ("  max_version: TLS12\n", [true, false]),
        ("  min_version: TLS10\n", [true, true]),
    ] {
        let rig = Rig::with_tls(&ca, more).await;
        for (version, expected) in [tls::Version::TLS_1_2, tls::Version::TLS_1_3].into_iter().zip(expected) {
            let builder = client().tls_certs_only([trusted()]);
            let client = builder
                .min_tls_version(version)
                .max_tls_version(version)
                .build()
                .unwrap();
            assert_eq!(works(&client, &rig).await, expected, "{more:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let (old, new) = (Ca::new(), Ca::new());
    let rig = Rig::with_tls(&old, "").await;
    assert!(works(&old.client(None), &rig).await && !works(&new.client(None), &rig).await);
    new.write_pair(rig.dir.path());
    let renewed = new.client(None);
    wait_until(SOON, "the new certificate", async || {
        works(&renewed, &rig).await.then_some(())
    })
    .await;
    assert!(!works(&old.client(None), &rig).await);
}

/// A connection with TLS, on which one of these protocols may be spoken.
async fn connected(ca: &Ca, rig: &Rig, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.0.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

/// What the server chooses of these protocols, and whether it answers a request of HTTP/2 then.
async fn chosen(ca: &Ca, rig: &Rig, protocols: &[&[u8]]) -> (Option<Vec<u8>>, bool) {
    let stream = connected(ca, rig, protocols).await;
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    if protocol.as_deref() != Some(b"h2") {
        return (protocol, false);
    }
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/-/healthy")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (protocol, status == StatusCode::OK && body == "OK")
}

#[tokio::test]
async fn http_2_is_spoken_unless_it_is_switched_off() {
    let ca = Ca::new();
    let rig = Rig::with_tls(&ca, "").await;
    assert_eq!(
        chosen(&ca, &rig, &[b"h2", b"http/1.1"]).await,
        (Some(b"h2".to_vec()), true)
    );
    assert_eq!(chosen(&ca, &rig, &[b"http/1.1"]).await.0, Some(b"http/1.1".to_vec()));
    let rig = Rig::with_tls(&ca, "http_server_config: {http2: false}\n").await;
    assert_eq!(
        chosen(&ca, &rig, &[b"h2", b"http/1.1"]).await.0,
        Some(b"http/1.1".to_vec())
    );
    assert!(works(&ca.client(None), &rig).await);
}

#[tokio::test]
async fn a_client_of_http_2_that_asks_nothing_or_takes_nothing_is_closed() {
    let ca = Ca::new();
    let short = Duration::from_secs(2);
    let limits = Limits {
        head: short,
        stall: short,
        ..Limits::default()
    };
    let rig = Rig::limited(&ca, limits).await;
    let mut silent = connected(&ca, &rig, &[b"h2"]).await;
    let mut received = Vec::new();
    // The server's own settings, and then the end; whether TLS is closed as well does not matter.
    let _ = timeout(SOON, silent.read_to_end(&mut received))
        .await
        .expect("it is closed");

    let stream = connected(&ca, &rig, &[b"h2"]).await;
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(0);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/-/healthy")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // Nobody reads the answer, for which there is no room.
    let _ = timeout(SOON, connection).await.expect("it is closed");
    drop(answer);
}
