//! Against a simulated S3 behind TLS.

use std::path::Path;

use aws_sdk_s3::error::SdkError;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::objstore::transfer::transport::testing::{Authority, Peer, file, serve_with};

/// A simulated S3 on a directory with a bucket `bucket`, behind TLS; it checks signatures and asks for a certificate.
async fn simulator(dir: &Path, authority: &Authority) -> std::net::SocketAddr {
    fs_err::create_dir_all(dir.join("bucket")).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single("ak", "sk"));
    let service = builder.build();
    serve_with(
        Some(authority.sign("localhost").server(Some(authority))),
        move |_: Peer| service.clone(),
    )
    .await
}

fn with_tls(dir: &TempDir, authority: &Authority, port: u16, lines: &str) -> S3Config {
    let own = authority.sign("client");
    let tls = format!(
        "http_config:\n  tls_config:\n    ca_file: {}\n    cert_file: {}\n    key_file: {}\n",
        file(dir.path(), "ca.pem", &authority.pem).display(),
        file(dir.path(), "cert.pem", &own.cert).display(),
        file(dir.path(), "key.pem", &own.key).display(),
    );
    configured("bucket", &format!("localhost:{port}"), &format!("{lines}\n{tls}"))
}

#[tokio::test]
async fn objects_go_there_and_back_over_mutual_tls() {
    let (dir, files) = (tempdir().unwrap(), tempdir().unwrap());
    let authority = Authority::new("ours");
    let port = simulator(dir.path(), &authority).await.port();
    let client = client(&with_tls(&files, &authority, port, KEYS)).await.unwrap();
    let big = vec![42; 3 << 20];
    let path = files.path().join("big");
    fs_err::write(&path, &big).unwrap();
    let body = ByteStream::read_from().path(&path).build().await.unwrap();
    let checksum = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        crc32c::crc32c(&big).to_be_bytes(),
    );
    client
        .put_object()
        .bucket("bucket")
        .key("a/b")
        .checksum_crc32_c(checksum)
        .body(body)
        .send()
        .await
        .unwrap();
    let got = client.get_object().bucket("bucket").key("a/b").send().await.unwrap();
    assert_eq!(got.body.collect().await.unwrap().into_bytes(), big);
    let missing = client.head_object().bucket("bucket").key("c").send().await.unwrap_err();
    assert!(
        matches!(&missing, SdkError::ServiceError(refused) if refused.err().is_not_found()),
        "{missing:?}"
    );
}

#[tokio::test]
async fn wrong_keys_are_refused_without_a_second_try() {
    let (dir, files) = (tempdir().unwrap(), tempdir().unwrap());
    let authority = Authority::new("ours");
    let port = simulator(dir.path(), &authority).await.port();
    let wrong = "region: us-east-1\naccess_key: ak\nsecret_key: other";
    let client = client(&with_tls(&files, &authority, port, wrong)).await.unwrap();
    let error = put(&client, "a").await.unwrap_err();
    assert!(error.contains("SignatureDoesNotMatch"), "{error}");
}

#[tokio::test]
async fn tls_files_are_looked_at_when_the_client_is_built() {
    let lines = format!("{KEYS}\nhttp_config: {{tls_config: {{ca_file: /no/such/ca.pem}}}}");
    let error = client(&configured("bucket", "localhost:1", &lines)).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
    // They are of no matter without TLS.
    client(&configured(
        "bucket",
        "localhost:1",
        &format!("{lines}\ninsecure: true"),
    ))
    .await
    .unwrap();
}
