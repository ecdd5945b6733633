//! Whom we trust, and who we are.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::objstore::config::ClientCert;

async fn https(http: HttpConfig, address: SocketAddr) -> Result<(u16, String), ConnectorError> {
    get(&plain(&http), format!("https://localhost:{}/", address.port())).await
}

#[tokio::test]
async fn only_the_named_authority_is_trusted() {
    let dir = tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let address = serve(Some(ours.sign("localhost").server(None)), |seen: Seen| async move {
        answer(200, seen.peer.asked_for.unwrap())
    })
    .await;
    let trusting = |ca: &Authority| HttpConfig {
        ca_file: Some(file(dir.path(), "ca.pem", &ca.pem)),
        ..HttpConfig::default()
    };
    assert_eq!(
        https(trusting(&ours), address).await.unwrap(),
        (200, "localhost".to_owned())
    );
    let error = https(trusting(&theirs), address).await.unwrap_err();
    assert!(
        error.is_other() && error.as_other().is_none(),
        "must not be retried: {error:?}"
    );
    assert!(chain(&error).contains("ca_file"), "{}", chain(&error));
    let blind = HttpConfig {
        insecure_skip_verify: true,
        ..trusting(&theirs)
    };
    assert_eq!(https(blind, address).await.unwrap().0, 200);
    let by_address = plain(&trusting(&ours));
    let error = get(&by_address, format!("https://{address}/")).await.unwrap_err();
    assert!(error.is_other(), "a certificate for another name: {error:?}");
}

#[tokio::test]
async fn another_name_can_be_asked_for_and_expected() {
    let dir = tempdir().unwrap();
    let ours = Authority::new("ours");
    let address = serve(
        Some(ours.sign("store.internal").server(None)),
        |seen: Seen| async move {
            assert!(
                seen.header("host").starts_with("localhost"),
                "the name in the URL stays"
            );
            answer(200, seen.peer.asked_for.unwrap())
        },
    )
    .await;
    let http = HttpConfig {
        ca_file: Some(file(dir.path(), "ca.pem", &ours.pem)),
        ..HttpConfig::default()
    };
    assert!(https(http.clone(), address).await.is_err());
    let named = HttpConfig {
        server_name: Some("store.internal".into()),
        ..http
    };
    assert_eq!(https(named, address).await.unwrap(), (200, "store.internal".to_owned()));
}

#[tokio::test]
async fn a_certificate_that_vouches_for_itself_is_trusted_when_named_and_for_its_name_only() {
    let dir = tempdir().unwrap();
    let (own, other) = (self_signed("localhost"), self_signed("localhost"));
    let address = serve(Some(own.server(None)), |_| async { answer(200, "") }).await;
    let trusting = |pair: &Pair| HttpConfig {
        ca_file: Some(file(dir.path(), "ca.pem", &pair.cert)),
        ..HttpConfig::default()
    };
    assert_eq!(https(trusting(&own), address).await.unwrap().0, 200);
    let named = HttpConfig {
        server_name: Some("other.name".into()),
        ..trusting(&own)
    };
    assert!(https(named, address).await.is_err());
    assert!(https(trusting(&other), address).await.is_err());
}

#[tokio::test]
async fn our_own_certificate_is_read_again_for_each_handshake() {
    let dir = tempdir().unwrap();
    let ours = Authority::new("ours");
    let address = serve(
        Some(ours.sign("localhost").server(Some(&ours))),
        |seen: Seen| async move { answer(200, seen.peer.certificate.unwrap()) },
    )
    .await;
    let http = HttpConfig {
        ca_file: Some(file(dir.path(), "ca.pem", &ours.pem)),
        max_idle_per_host: 0,
        ..HttpConfig::default()
    };
    let error = https(http.clone(), address).await.unwrap_err();
    assert!(error.is_other(), "without a certificate: {error:?}");

    let write = |pair: &Pair| ClientCert {
        cert_file: file(dir.path(), "cert.pem", &pair.cert),
        key_file: file(dir.path(), "key.pem", &pair.key),
    };
    let (first, second) = (ours.sign("client-1"), ours.sign("client-2"));
    let transport = plain(&HttpConfig {
        client_cert: Some(write(&first)),
        ..http
    });
    let presented = async || {
        let url = format!("https://localhost:{}/", address.port());
        let answer = send(&transport, Request::get(url).body(SdkBody::empty()).unwrap())
            .await
            .unwrap();
        http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap()
            .to_bytes()
    };
    assert_eq!(presented().await, first.der.as_ref());
    write(&second);
    assert_eq!(presented().await, second.der.as_ref());
    // Half-way through a renewal the last good pair serves on.
    file(dir.path(), "cert.pem", "");
    assert_eq!(presented().await, second.der.as_ref());
    write(&first);
    assert_eq!(presented().await, first.der.as_ref());
}

#[tokio::test]
async fn unusable_tls_files_are_named() {
    let dir = tempdir().unwrap();
    let missing = dir.path().join("missing.pem");
    let empty = file(dir.path(), "empty.pem", "no pem here");
    let authority = Authority::new("ours");
    let good = authority.sign("client");
    let cert = file(dir.path(), "cert.pem", &good.cert);
    let key = file(dir.path(), "key.pem", &good.key);
    let other_key = file(dir.path(), "other.pem", &authority.sign("client").key);
    let ca = |path: &PathBuf| HttpConfig {
        ca_file: Some(path.clone()),
        ..HttpConfig::default()
    };
    let own = |cert: &PathBuf, key: &PathBuf| HttpConfig {
        client_cert: Some(ClientCert {
            cert_file: cert.clone(),
            key_file: key.clone(),
        }),
        insecure_skip_verify: true,
        ..HttpConfig::default()
    };
    for (http, key, named) in [
        (ca(&missing), "ca_file", "missing.pem"),
        (ca(&empty), "ca_file", "empty.pem"),
        (own(&missing, &key), "cert_file", "missing.pem"),
        (own(&empty, &key), "cert_file", "empty.pem"),
        (own(&cert, &missing), "key_file", "missing.pem"),
        (own(&cert, &empty), "key_file", "empty.pem"),
        (own(&cert, &other_key), "cert_file", ""),
    ] {
        let error = plain(&http).check_tls().await.unwrap_err();
        assert!(
            error.key().ends_with(key) && error.to_string().contains(named),
            "{error}"
        );
    }
    plain(&own(&cert, &key)).check_tls().await.unwrap();
}

fn blind() -> HttpConfig {
    HttpConfig {
        insecure_skip_verify: true,
        ..HttpConfig::default()
    }
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tls").join(name)
}

/// The certificate of version 1 and its key, as openssl makes them.
fn version_1() -> Arc<rustls::sign::CertifiedKey> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = vec![CertificateDer::from_pem_file(testdata("client-v1.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(testdata("client-v1.key")).unwrap();
    crate::trust::shown(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).unwrap()
}

#[tokio::test]
async fn a_certificate_of_version_1_can_be_shown_to_the_store() {
    let dir = tempdir().unwrap();
    let ours = Authority::new("ours");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = fs_err::read(testdata("ca.pem")).unwrap();
    let (clients, _) = crate::trust::Trusted::read(&clients).unwrap();
    let server = ours.sign("localhost");
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(rcgen::KeyPair::from_pem(&server.key).unwrap().serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.of_clients(&provider))
        .with_single_cert(vec![server.der.clone()], key.unwrap())
        .unwrap();
    let address = serve(Some(server), |seen: Seen| async move {
        let shown = seen.peer.certificate.unwrap();
        answer(
            if shown == version_1().cert[0].as_ref() {
                200
            } else {
                418
            },
            "",
        )
    })
    .await;
    let http = HttpConfig {
        ca_file: Some(file(dir.path(), "ca.pem", &ours.pem)),
        client_cert: Some(ClientCert {
            cert_file: testdata("client-v1.pem"),
            key_file: testdata("client-v1.key"),
        }),
        ..HttpConfig::default()
    };
    assert_eq!(https(http, address).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_store_with_a_certificate_of_version_1_is_good_where_nothing_is_verified_and_else_told_what_it_lacks() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(version_1())));
        let address = serve(Some(server), |_| async { answer(200, "") }).await;
        let http = HttpConfig {
            ca_file: Some(testdata("ca.pem")),
            ..HttpConfig::default()
        };
        let error = https(http.clone(), address).await.unwrap_err();
        assert!(error.is_other(), "must not be retried: {error:?}");
        assert!(chain(&error).contains("names no host"), "{}", chain(&error));
        let blind = HttpConfig {
            insecure_skip_verify: true,
            ..http
        };
        assert_eq!(https(blind, address).await.unwrap().0, 200);
    }
}

/// A server that answers the first words of a handshake with an alert, as one does that allows none of our cipher suites.
async fn alerting(alert: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut some = [0; 64];
            let _ = socket.read(&mut some).await;
            let _ = socket.write_all(&[0x15, 3, 3, 0, 2, 2, alert]).await;
            // Closed with bytes unread it would be a reset.
            while socket.read(&mut some).await.is_ok_and(|read| read > 0) {}
        }
    });
    address
}

#[tokio::test]
async fn a_store_that_allows_no_cipher_suite_or_version_of_ours_is_told_with_what_is_offered() {
    for (alert, words) in [
        (40, ["none with CBC", "the server must allow TLS 1.3"]),
        (71, ["ECDHE with AES-GCM", "or it demands a client certificate"]),
        (70, ["1.2 and 1.3", "versions of TLS"]),
        (112, ["for the name", "server_name"]),
        (116, ["client certificate", "cert_file"]),
    ] {
        let error = https(blind(), alerting(alert).await).await.unwrap_err();
        assert!(error.is_other(), "must not be retried: {error:?}");
        for words in words {
            assert!(chain(&error).contains(words), "{}", chain(&error));
        }
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let http = HttpConfig {
        tls_handshake_timeout: Duration::from_millis(100),
        insecure_skip_verify: true,
        ..HttpConfig::default()
    };
    let error = https(http, address).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(chain(&error).contains("TLS handshake"), "{}", chain(&error));
}

#[tokio::test]
async fn plain_text_where_tls_is_expected_is_final_and_so_is_the_reverse() {
    let spoken = async |words: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut some = [0; 64];
                let _ = socket.read(&mut some).await;
                let _ = socket.write_all(words).await;
            }
        });
        address
    };
    let http = HttpConfig {
        insecure_skip_verify: true,
        ..HttpConfig::default()
    };
    let error = https(http.clone(), spoken(b"HTTP/1.1 400 Bad Request\r\n\r\n").await)
        .await
        .unwrap_err();
    assert!(error.is_other() && error.as_other().is_none(), "{error:?}");
    assert!(chain(&error).contains("does not speak TLS"), "{}", chain(&error));
    let address = spoken(b"\x15\x03\x01\x00\x02\x02\x46").await;
    let error = get(&plain(&http), format!("http://{address}/")).await.unwrap_err();
    assert!(error.is_other() && error.as_other().is_none(), "{error:?}");
}

/// The system's authorities are found through the environment of the process: this runs in a child with another one.
#[tokio::test]
#[ignore = "runs in a child process"]
async fn child_with_authorities() {
    let port: u16 = std::env::var("TEST_PORT").unwrap().parse().unwrap();
    let answer = https(HttpConfig::default(), SocketAddr::from(([127, 0, 0, 1], port))).await;
    println!("got {answer:?}");
    println!("checked {:?}", plain(&HttpConfig::default()).check_tls().await);
}

#[tokio::test]
async fn the_system_s_authorities_come_from_where_the_environment_says() {
    let dir = tempdir().unwrap();
    let ours = Authority::new("ours");
    let address = serve(Some(ours.sign("localhost").server(None)), |_| async {
        answer(200, "hello")
    })
    .await;
    for (name, pem, expected) in [
        ("good.pem", ours.pem.as_str(), "got Ok((200, \"hello\"))"),
        ("none.pem", "", "SSL_CERT_FILE"),
    ] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "--exact",
                "objstore::transfer::transport::tests::tls::child_with_authorities",
                "--ignored",
                "--nocapture",
            ])
            .env_clear()
            .env("SSL_CERT_FILE", file(dir.path(), name, pem))
            .env("TEST_PORT", address.port().to_string());
        let output = tokio::task::spawn_blocking(move || child.output())
            .await
            .unwrap()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains(expected), "{name}: {told}");
    }
}
