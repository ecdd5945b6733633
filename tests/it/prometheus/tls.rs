//! TLS as `tls_config` has it: trust, names, our own certificate, rotation.

use std::{path::Path, sync::Arc, time::Duration};

use narthex::{
    prometheus::{Client, ErrorKind, HttpClientConfig, SetupError},
    trust::FileError,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    client::{client, well},
    fake::{Answer, Fake},
};
use url::Url;

use crate::trust::version_1;

const LONG: Duration = Duration::from_secs(60);

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name` and its key.
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
}

/// A server that shows a certificate, and wants one of `clients` if that is given.
fn server(certificate: CertificateDer<'static>, key: &KeyPair, clients: Option<&Ca>) -> Fake {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![certificate], key).unwrap();
    Fake::start_with(well, Some(Arc::new(config)))
}

async fn works(client: &Client) {
    assert_eq!(client.build_version().await.unwrap(), "2.42.0+ds");
}

async fn fails(client: &Client, part: &str) {
    let error = client.build_version().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unreachable(_)), "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

/// Both ways to ask, by GET and for remote read, fail with this text.
pub(super) async fn both_fail(url: &Url, keys: &str, part: &str) {
    let client = client(url, keys, LONG);
    let error = client.build_version().await.unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
    let read = client.remote_read(&[], Some(LONG), &mut |_| true).await;
    let error = read.map(drop).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

fn tls(keys: &str) -> String {
    format!("tls_config: {{{keys}}}")
}

fn ca_file(path: &Path) -> String {
    format!("ca_file: {}", path.display())
}

#[tokio::test]
async fn http_to_a_server_that_uses_tls_is_told_in_plain_words() {
    let (certificate, key) = Ca::new().sign("127.0.0.1");
    let secure = server(certificate.der().clone(), &key, None);
    let mut url = secure.url();
    url.set_scheme("http").unwrap();
    both_fail(&url, "", "if it uses TLS, write https:// in --prometheus.url").await;
    // Servers in Go, as Prometheus itself, and nginx answer in plain text.
    for text in [
        "Client sent an HTTP request to an HTTPS server.\n",
        "<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
    ] {
        let answer = format!("HTTP/1.0 400 Bad Request\r\n\r\n{text}");
        let go = Fake::start(move |_| Answer::Raw(answer.clone().into_bytes()));
        both_fail(&go.url(), "", "write https:// instead of http:// in --prometheus.url").await;
    }
}

#[tokio::test]
async fn trusts_whom_it_is_told_to_trust() {
    let ca = Ca::new();
    let (certificate, key) = ca.sign("127.0.0.1");
    let fake = server(certificate.der().clone(), &key, None);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fails(&client(&fake.url(), "", LONG), "certificate").await;
    works(&client(&fake.url(), &tls("insecure_skip_verify: true"), LONG)).await;
    fs_err::write(&file, ca.pem()).unwrap();
    let trusting = client(&fake.url(), &tls(&ca_file(&file)), LONG);
    works(&trusting).await;
    works(&trusting).await;
    let head = fake.heads().len();
    assert_eq!((head, fake.names().len()), (3, 2), "connections are kept");

    // Another CA: from the next request on it is the one that counts.
    fs_err::write(&file, Ca::new().pem()).unwrap();
    fails(&trusting, "certificate").await;
    // What cannot be used is not used.
    fs_err::write(&file, "nothing").unwrap();
    fails(&trusting, "certificate").await;
    fs_err::remove_file(&file).unwrap();
    fails(&trusting, "certificate").await;
    fs_err::write(&file, ca.pem()).unwrap();
    works(&trusting).await;
}

#[tokio::test]
async fn sends_and_verifies_the_name_it_is_given() {
    let ca = Ca::new();
    let (certificate, key) = ca.sign("prometheus.example");
    let fake = server(certificate.der().clone(), &key, None);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs_err::write(&file, ca.pem()).unwrap();
    let trust = ca_file(&file);
    fails(&client(&fake.url(), &tls(&trust), LONG), "not valid for").await;
    works(&client(
        &fake.url(),
        &tls(&format!("{trust}, server_name: Prometheus.example")),
        LONG,
    ))
    .await;
    assert_eq!(fake.names().pop().flatten().as_deref(), Some("prometheus.example"));
    let host = format!("host: {}\r\n", fake.address);
    assert!(fake.last_head().to_lowercase().contains(&host), "{}", fake.last_head());
    fails(
        &client(&fake.url(), &tls(&format!("{trust}, server_name: other.example")), LONG),
        "not valid for",
    )
    .await;
    for (keys, more) in [
        ("server_name: 127.0.0.2", ""),
        ("server_name: x", "\nproxy_url: http://x:1"),
    ] {
        let config = HttpClientConfig::parse(&format!("{}{more}", tls(keys))).unwrap();
        let error = Client::new(&fake.url(), &config, LONG).unwrap_err();
        assert!(error.to_string().contains("tls_config.server_name"), "{error}");
    }
}

#[tokio::test]
async fn trusts_a_self_signed_certificate_that_is_its_own_ca() {
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let fake = server(certificate.der().clone(), &key, None);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        fs_err::write(&file, certificate.pem()).unwrap();
        works(&client(&fake.url(), &tls(&ca_file(&file)), LONG)).await;
        let other_name = format!("{}, server_name: other", ca_file(&file));
        fails(&client(&fake.url(), &tls(&other_name), LONG), "not valid for").await;

        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let expired = params.self_signed(&key).unwrap();
        let fake = server(expired.der().clone(), &key, None);
        fs_err::write(&file, expired.pem()).unwrap();
        fails(&client(&fake.url(), &tls(&ca_file(&file)), LONG), "expired").await;
    }
}

#[tokio::test]
async fn shows_its_own_certificate() {
    let ca = Ca::new();
    let (certificate, key) = ca.sign("127.0.0.1");
    let fake = server(certificate.der().clone(), &key, Some(&ca));
    let dir = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let skip = "insecure_skip_verify: true";
    assert!(client(&fake.url(), &tls(skip), LONG).build_version().await.is_err());
    let (certificate, key) = ca.sign("me");
    fs_err::write(&cert_file, certificate.pem()).unwrap();
    fs_err::write(&key_file, key.serialize_pem()).unwrap();
    let keys = format!(
        "{skip}, cert_file: {}, key_file: {}",
        cert_file.display(),
        key_file.display()
    );
    works(&client(&fake.url(), &tls(&keys), LONG)).await;

    let start = || Client::new(&fake.url(), &HttpClientConfig::parse(&tls(&keys)).unwrap(), LONG).unwrap_err();
    fs_err::write(&key_file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = start();
    assert!(
        matches!(
            error,
            SetupError::File(FileError::Content {
                key: "tls_config.key_file",
                ..
            })
        ),
        "{error}"
    );
    fs_err::write(&key_file, "hunter2").unwrap();
    let error = start().to_string();
    assert!(
        error.contains("no private key") && !error.contains("hunter2"),
        "{error}"
    );
    fs_err::remove_file(&cert_file).unwrap();
    let shown = format!("{:#}", anyhow::Error::from(start()));
    assert_eq!(
        shown.matches("No such file").count(),
        1,
        "each cause is named once: {shown}"
    );
    let error = start();
    assert!(
        matches!(
            error,
            SetupError::File(FileError::Read {
                key: "tls_config.cert_file",
                ..
            })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_spoils_neither_the_file_nor_version_1() {
    let ca = Ca::new();
    let (certificate, key) = ca.sign("127.0.0.1");
    let fake = server(certificate.der().clone(), &key, None);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    fs_err::write(&file, format!("{torn}{}", ca.pem())).unwrap();
    works(&client(&fake.url(), &tls(&ca_file(&file)), LONG)).await;
    fs_err::write(&file, torn).unwrap();
    let config = HttpClientConfig::parse(&tls(&ca_file(&file))).unwrap();
    let error = Client::new(&fake.url(), &config, LONG).unwrap_err().to_string();
    assert!(
        error.contains("tls_config.ca_file") && error.contains("no readable certificate"),
        "{error}"
    );

    // It has no names, so that it is good only where nobody asks for one.
    let fake = server_of_version_1(&ca);
    works(&client(&fake.url(), &tls("insecure_skip_verify: true"), LONG)).await;
    fs_err::write(&file, ca.pem()).unwrap();
    fails(&client(&fake.url(), &tls(&ca_file(&file)), LONG), "not valid for").await;
}

/// A server whose certificate is of X.509 version 1.
fn server_of_version_1(ca: &Ca) -> Fake {
    let (certificate, key) = ca.sign("127.0.0.1");
    let old = version_1(certificate.der(), ca.0.key());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![old], key));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    Fake::start_with(well, Some(Arc::new(config)))
}
