//! TLS with certificates of our own: versions, clients' certificates, and files that change.

use std::{path::Path, sync::Arc};

use narthex::ops::grpc::{Tls, TlsFlags, TlsVersion};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{INFO, Raw, Rig, SOON, Start, client::framed};
use crate::{rig::wait_until, trust::version_1};

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes a new pair for localhost.
    fn write_pair(&self, dir: &Path) {
        let (certificate, key) = self.sign("localhost");
        fs_err::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs_err::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    }
}

fn flags(dir: &Path) -> TlsFlags {
    TlsFlags {
        cert: Some(dir.join("tls.crt")),
        key: Some(dir.join("tls.key")),
        ..TlsFlags::default()
    }
}

async fn serve(flags: TlsFlags) -> Rig {
    let tls = Tls::load(flags).unwrap();
    assert!(tls.is_some());
    Rig::start(Start {
        tls,
        ..Start::default()
    })
    .await
}

/// A client that trusts `ca`, speaks these versions and shows a certificate from `own`.
struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    fn new(ca: &Ca, own: Option<&Ca>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (certificate, key) = own.sign("query");
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate.der().clone()], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            config: Arc::new(config),
        }
    }

    /// A client that shows this certificate, whatever rustls makes of it.
    fn showing(
        ca: &Ca,
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let client = Self::new(ca, None, &[version]);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let mut config = ClientConfig::clone(&client.config);
        let shown = CertifiedKey::new(vec![certificate], key);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
        Self {
            config: Arc::new(config),
        }
    }

    async fn connect(&self, rig: &Rig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    /// Whether a call goes through.
    async fn works(&self, rig: &Rig) -> bool {
        let Ok(stream) = self.connect(rig).await else {
            return false;
        };
        // A server of TLS 1.3 refuses a client's certificate only after the client is done.
        let Ok(mut raw) = Raw::over(stream).await else {
            return false;
        };
        match raw.begin(INFO, &[], framed(0, &[])).await {
            Ok(answer) => answer.status() == 200,
            Err(_) => false,
        }
    }
}

#[tokio::test]
async fn calls_go_through_tls_of_the_versions_that_are_allowed() {
    let (dir, ca) = (TempDir::new().unwrap(), Ca::new());
    ca.write_pair(dir.path());
    for (lowest, old_works) in [
        (TlsVersion::V1_3, false),
        (TlsVersion::V1_2, true),
        (TlsVersion::V1_0, true),
    ] {
        let rig = serve(TlsFlags {
            min_version: lowest,
            ciphers: vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()],
            curves: vec!["CurveP256".to_owned()],
            ..flags(dir.path())
        })
        .await;
        assert!(Client::new(&ca, None, &[&TLS13]).works(&rig).await);
        assert_eq!(
            Client::new(&ca, None, &[&TLS12]).works(&rig).await,
            old_works,
            "{lowest:?}"
        );
        let stream = Client::new(&ca, None, &[&TLS12, &TLS13]).connect(&rig).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        let group = session.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::secp256r1);
        drop(stream);
        rig.stop().await;
    }
}

#[tokio::test]
async fn plain_text_on_a_tls_port_gets_nothing() {
    let (dir, ca) = (TempDir::new().unwrap(), Ca::new());
    ca.write_pair(dir.path());
    let rig = serve(flags(dir.path())).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, opening).await.unwrap();
    let mut came = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut came)).await.unwrap();
    assert!(came.len() < 10, "an alert at most: {came:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let (dir, old, new) = (TempDir::new().unwrap(), Ca::new(), Ca::new());
    old.write_pair(dir.path());
    let rig = serve(flags(dir.path())).await;
    let (trusts_old, trusts_new) = (Client::new(&old, None, &[&TLS13]), Client::new(&new, None, &[&TLS13]));
    let mut kept = Raw::over(trusts_old.connect(&rig).await.unwrap()).await.unwrap();
    assert!(!trusts_new.works(&rig).await);
    new.write_pair(dir.path());
    let renewed = async || trusts_new.works(&rig).await.then_some(());
    wait_until(SOON, "the new certificate is shown", renewed).await;
    assert!(!trusts_old.works(&rig).await);
    assert_eq!(
        kept.call(INFO, &[], framed(0, &[])).await.code(),
        0,
        "an old connection lives on"
    );
    rig.stop().await;
}

#[tokio::test]
async fn clients_must_show_a_certificate_of_the_ca_also_of_a_renewed_one() {
    let (dir, ca) = (TempDir::new().unwrap(), Ca::new());
    ca.write_pair(dir.path());
    let (clients, others) = (Ca::new(), Ca::new());
    let client_ca = dir.path().join("clients.pem");
    fs_err::write(&client_ca, clients.0.pem()).unwrap();
    let rig = serve(TlsFlags {
        client_ca: Some(client_ca.clone()),
        min_version: TlsVersion::V1_2,
        ..flags(dir.path())
    })
    .await;
    let client = |own| Client::new(&ca, own, &[&TLS12, &TLS13]);
    let (mine, strange) = (client(Some(&clients)), client(Some(&others)));
    assert!(mine.works(&rig).await);
    assert!(!client(None).works(&rig).await);
    assert!(!strange.works(&rig).await);

    fs_err::write(&client_ca, others.0.pem()).unwrap();
    let renewed = async || strange.works(&rig).await.then_some(());
    wait_until(SOON, "the new CA is asked for", renewed).await;
    assert!(!mine.works(&rig).await);
    rig.stop().await;
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_what_the_client_did_wrong() {
    let (dir, ca, clients) = (TempDir::new().unwrap(), Ca::new(), Ca::new());
    ca.write_pair(dir.path());
    let client_ca = dir.path().join("clients.pem");
    fs_err::write(&client_ca, clients.0.pem()).unwrap();
    let rig = serve(TlsFlags {
        client_ca: Some(client_ca),
        ..flags(dir.path())
    })
    .await;
    let counted = async |reason: &str| {
        let there = async || {
            let value = rig
                .metrics()
                .value("narthex_tls_handshake_failures_total", &[("reason", reason)]);
            (value.unwrap() == 1.0).then_some(())
        };
        wait_until(SOON, format!("a failure is counted: {reason}"), there).await;
    };
    let own = Some(&clients);
    assert!(!Client::new(&ca, None, &[&TLS13]).works(&rig).await);
    counted("no_certificate").await;
    assert!(!Client::new(&ca, Some(&ca), &[&TLS13]).works(&rig).await);
    counted("certificate").await;
    assert!(!Client::new(&ca, own, &[&TLS12]).works(&rig).await);
    counted("version").await;
    assert!(!Client::new(&clients, own, &[&TLS13]).works(&rig).await);
    counted("refused_ours").await;
    let mut plain = TcpStream::connect(rig.address).await.unwrap();
    let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut plain, opening).await.unwrap();
    counted("not_tls").await;
    drop(TcpStream::connect(rig.address).await.unwrap());
    counted("left").await;
    assert!(Client::new(&ca, own, &[&TLS13]).works(&rig).await);
    let all = rig.metrics().value("narthex_tls_handshake_failures_total", &[]);
    assert_eq!(all, Some(6.0), "and nothing else");
    rig.stop().await;
}

#[tokio::test]
async fn clients_certificates_are_good_where_they_are_good_in_go() {
    let (dir, ca, clients) = (TempDir::new().unwrap(), Ca::new(), Ca::new());
    ca.write_pair(dir.path());
    let own_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["query".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&own_key).unwrap();
    let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let client_ca = dir.path().join("clients.pem");
    fs_err::write(&client_ca, [torn, &own.pem(), &clients.0.pem()].concat()).unwrap();
    let rig = serve(TlsFlags {
        client_ca: Some(client_ca),
        min_version: TlsVersion::V1_2,
        ..flags(dir.path())
    })
    .await;
    let (from_ca, key) = clients.sign("query");
    let old = version_1(from_ca.der(), clients.0.key());
    for version in [&TLS12, &TLS13] {
        let works = async |certificate: &CertificateDer<'static>, key: &KeyPair| {
            let client = Client::showing(&ca, certificate.clone(), key, version);
            client.works(&rig).await
        };
        assert!(works(own.der(), &own_key).await, "it is in the file");
        assert!(works(&old, &key).await, "version 1");
        let strange = KeyPair::generate().unwrap();
        assert!(!works(own.der(), &strange).await, "the key of somebody else");
        assert!(!works(&old, &strange).await, "the key of somebody else");
        assert!(
            !works(&version_1(from_ca.der(), &strange), &key).await,
            "signed by somebody else"
        );
    }
    rig.stop().await;
}
