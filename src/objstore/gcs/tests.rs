use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::*;
use crate::objstore::config::{Provider, parse};

fn configured(lines: &str) -> GcsConfig {
    match parse(&format!("type: GCS\nconfig:\n  bucket: b\n{lines}"))
        .unwrap()
        .provider
    {
        Provider::Gcs(config) => *config,
        other => panic!("GCS expected, not {other:?}"),
    }
}

fn env<const N: usize>(pairs: [(&'static str, &str); N]) -> Env {
    let pairs: HashMap<_, _> = pairs
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    Arc::new(move |name| pairs.get(name).cloned())
}

/// The key of a service account of this name.
fn account(name: &str) -> String {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    json!({
        "type": "service_account",
        "private_key": key.serialize_pem(),
        "private_key_id": "1",
        "client_email": format!("{name}@project.iam.gserviceaccount.com"),
    })
    .to_string()
}

async fn opened(config: &GcsConfig, env: Env) -> GcsBucket {
    GcsBucket::open_in(config, "", &Limits::default(), env).await.unwrap()
}

/// What goes into the header of a request for an object.
async fn authorization(bucket: &GcsBucket) -> Option<String> {
    let (uri, _) = bucket.0.rest.dialect.object("x", None).unwrap();
    authorization_at(bucket, uri).await
}

async fn authorization_at(bucket: &GcsBucket, uri: Uri) -> Option<String> {
    let mut head = Request::new(());
    *head.uri_mut() = uri;
    bucket.0.rest.dialect.authorize(&mut head).await.unwrap();
    Some(head.headers().get(AUTHORIZATION)?.to_str().unwrap().to_owned())
}

/// In whose name it is: the claims of a token that is signed by the key itself.
async fn issuer(bucket: &GcsBucket) -> String {
    let header = authorization(bucket).await.unwrap();
    let parts: Vec<&str> = header.strip_prefix("Bearer ").unwrap().split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["iss"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn credentials_come_from_where_google_has_them() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("key.json");
    fs_err::write(&path, account("file")).unwrap();
    let file = path.display().to_string();
    let with_file = || env([("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    let inline = configured(&format!(
        "  service_account: '{}'\n",
        account("inline").replace('\n', "\\n")
    ));
    let bucket = opened(&inline, with_file()).await;
    assert_eq!(issuer(&bucket).await, "inline@project.iam.gserviceaccount.com");
    let bucket = opened(&configured(""), with_file()).await;
    assert_eq!(issuer(&bucket).await, "file@project.iam.gserviceaccount.com");
    assert_eq!(bucket.identity(), "gs://b");

    let emulator = opened(&inline, env([(EMULATOR, "localhost:4443")])).await;
    assert_eq!(authorization(&emulator).await, None);
    let uri = emulator.0.rest.dialect.object("01/meta.json", None).unwrap().0;
    assert_eq!(
        uri.to_string(),
        "http://localhost:4443/storage/v1/b/b/o/01%2Fmeta.json?alt=media"
    );
    let by_key = r#"{"gcs_base_url": "http://localhost:1/", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}"#;
    let by_key = opened(&configured(&format!("  service_account: '{by_key}'\n")), env([])).await;
    assert_eq!(authorization(&by_key).await, None);
    let uri = by_key.0.rest.dialect.object("a b", Some("7")).unwrap().0;
    assert_eq!(
        uri.to_string(),
        "http://localhost:1/storage/v1/b/b/o/a%20b?alt=media&ifGenerationMatch=7"
    );

    for (text, said) in [
        ("{}", "has no private_key"),
        (
            r#"{"type": "authorized_user", "client_id": "c", "client_secret": 4711}"#,
            "has no client_secret",
        ),
        ("hunter2", "(GOOGLE_APPLICATION_CREDENTIALS) is no JSON"),
        (
            r#"{"type": "service_account", "private_key": "-----BEGIN hunter2", "private_key_id": "1", "client_email": "e"}"#,
            "no private key in PEM",
        ),
        (r#"{"type": "external_account"}"#, "which is not supported"),
    ] {
        fs_err::write(&path, text).unwrap();
        let broken = opened(&configured(""), with_file()).await;
        let mut head = Request::new(());
        *head.uri_mut() = broken.0.rest.dialect.object("x", None).unwrap().0;
        let failed = broken.0.rest.dialect.authorize(&mut head).await.unwrap_err();
        assert_eq!(failed.kind, ErrorKind::Credentials, "{failed:?}");
        assert!(
            failed.detail.contains(said) && !failed.detail.contains("hunter2"),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn an_upload_goes_where_the_store_says_but_the_token_does_not() {
    let inline = configured(&format!(
        "  service_account: '{}'\n",
        account("inline").replace('\n', "\\n")
    ));
    let bucket = opened(&inline, env([])).await;
    let google = &bucket.0.rest.dialect;
    for (location, expected, known) in [
        (
            "https://storage.googleapis.com/upload?upload_id=1",
            "https://storage.googleapis.com/upload?upload_id=1",
            true,
        ),
        (
            "/upload?upload_id=1",
            "https://storage.googleapis.com/upload?upload_id=1",
            true,
        ),
        (
            "https://other.example/upload?upload_id=1",
            "https://other.example/upload?upload_id=1",
            false,
        ),
        (
            "https://storage.googleapis.com.example/u",
            "https://storage.googleapis.com.example/u",
            false,
        ),
    ] {
        let uri = google.session(location).unwrap();
        assert_eq!(uri.to_string(), expected);
        assert_eq!(authorization_at(&bucket, uri).await.is_some(), known, "{location}");
    }
    for location in [
        "http://storage.googleapis.com/u?upload_id=hunter2",
        "ftp://h/u",
        "http://[hunter2",
    ] {
        let problem = google.session(location).unwrap_err();
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_is_read_again_but_not_at_once() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("key.json");
    fs_err::write(&path, account("old")).unwrap();
    let file = path.display().to_string();
    let bucket = opened(&configured(""), env([("GOOGLE_APPLICATION_CREDENTIALS", &file)])).await;
    assert_eq!(issuer(&bucket).await, "old@project.iam.gserviceaccount.com");
    fs_err::write(&path, account("new")).unwrap();
    bucket.0.rest.dialect.forget_credentials();
    assert_eq!(issuer(&bucket).await, "old@project.iam.gserviceaccount.com");
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    bucket.0.rest.dialect.forget_credentials();
    assert_eq!(issuer(&bucket).await, "new@project.iam.gserviceaccount.com");
}

#[tokio::test]
async fn gclouds_own_file_and_the_metadata_server_are_looked_at_first() {
    let home = tempdir().unwrap();
    let dir = home.path().join(".config/gcloud");
    fs_err::create_dir_all(&dir).unwrap();
    fs_err::write(
        dir.join("application_default_credentials.json"),
        r#"{"type": "impersonated"}"#,
    )
    .unwrap();
    let home = home.path().display().to_string();
    for (pairs, said) in [
        (
            [("HOME", home.as_str()), ("x", "")],
            "application_default_credentials.json (of gcloud) is of type",
        ),
        (
            [("HOME", "/none"), ("GCE_METADATA_HOST", "")],
            "GCE_METADATA_HOST is set, and names no host",
        ),
        (
            [("HOME", "/none"), ("GCE_METADATA_IP", "a\nb")],
            "GCE_METADATA_IP is set, and names no host",
        ),
    ] {
        let bucket = opened(&configured(""), env(pairs)).await;
        let mut head = Request::new(());
        *head.uri_mut() = bucket.0.rest.dialect.object("x", None).unwrap().0;
        let failed = bucket.0.rest.dialect.authorize(&mut head).await.unwrap_err();
        assert!(failed.detail.contains(said), "{failed:?}");
    }
}
