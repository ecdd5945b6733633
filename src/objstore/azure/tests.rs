use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tempfile::tempdir;

use super::*;
use crate::objstore::{
    config::{HttpConfig, Provider, parse},
    transfer::transport::testing::{Seen, answer, serve},
};

fn configured(lines: &str) -> AzureConfig {
    let text = format!("type: AZURE\nconfig:\n  container: c\n  storage_account: acc\n{lines}");
    match parse(&text).unwrap().provider {
        Provider::Azure(config) => *config,
        other => panic!("AZURE expected, not {other:?}"),
    }
}

fn env(pairs: &[(&'static str, &str)]) -> Env {
    let pairs: HashMap<_, _> = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Arc::new(move |name| pairs.get(name).cloned())
}

/// The token or key that is used, in words.
async fn used(lines: &str, env: Env) -> String {
    found(lines, env).await.unwrap()
}

async fn found(lines: &str, env: Env) -> Result<String, Failed> {
    let http = HttpConfig::default();
    // What gives out tokens over plain HTTP is asked without a proxy.
    let transport = Transport::new(
        &http,
        false,
        Proxies::new("http://127.0.0.1:1", "http://127.0.0.1:1", ""),
    );
    let credentials = credentials(&configured(lines), Tokens::new(&transport, &http), env);
    Ok(match &*credentials.get().await? {
        AzureCredential::AccessKey(_) => "key".to_owned(),
        AzureCredential::SASToken(pairs) => format!("{pairs:?}"),
        AzureCredential::BearerToken(token) => token.clone(),
    })
}

#[tokio::test]
async fn what_the_environment_says_wrongly_is_named_and_ends_nothing() {
    let workload = [
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/none/token"),
    ];
    for (pairs, said) in [
        (
            &[("AZURE_AUTHORITY_HOST", "login.microsoftonline.us")][..],
            "AZURE_AUTHORITY_HOST is no address",
        ),
        (
            &[("IDENTITY_ENDPOINT", "localhost:1")],
            "IDENTITY_ENDPOINT is no address",
        ),
        (&[("IDENTITY_HEADER", "a\nb")], "IDENTITY_HEADER cannot be sent"),
        (&workload, "/none/token"),
        (
            &[
                ("AZURE_CLIENT_ID", "c"),
                ("AZURE_TENANT_ID", "t"),
                ("AZURE_CLIENT_CERTIFICATE_PATH", "x"),
            ],
            "AZURE_CLIENT_CERTIFICATE_PATH is set",
        ),
    ] {
        let failed = found("", env(pairs)).await.unwrap_err();
        assert_eq!(failed.kind, ErrorKind::Credentials, "{failed:?}");
        assert!(failed.detail.contains(said), "{failed:?}");
    }
    // What the library does not expect ends nothing either.
    let odd = [
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_CLIENT_SECRET", "s"),
        ("AZURE_TENANT_ID", "a\u{7f}b"),
    ];
    let odd = [&odd[..], &[("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1")]].concat();
    assert_eq!(found("", env(&odd)).await.unwrap_err().kind, ErrorKind::Credentials);
}

#[tokio::test]
async fn credentials_come_from_where_azure_has_them() {
    let dir = tempdir().unwrap();
    let token = dir.path().join("token");
    fs_err::write(&token, "of-the-workload").unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&seen);
    // The token names which of the sources has asked for it, by the path and the body of the request.
    let authority = serve(None, move |request: Seen| {
        let asked = format!("{} {}", request.head.uri, String::from_utf8_lossy(&request.body));
        told.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        async move {
            let who = ["of-the-workload", "hunter2", "identity"].into_iter().find(|who| asked.contains(who));
            let token = who.unwrap_or("nobody");
            answer(200, format!(r#"{{"token_type": "Bearer", "access_token": "{token}", "expires_in": 3600, "expires_on": "4102444800"}}"#))
        }
    })
    .await;
    let url = format!("http://{authority}/");
    let (file, identity) = (token.display().to_string(), format!("{url}identity"));
    let of_client = [
        ("AZURE_AUTHORITY_HOST", url.as_str()),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
    ];

    assert_eq!(used("  storage_account_key: a2V5\n", env(&[])).await, "key");
    let sas = "  storage_connection_string: 'AccountName=acc;SharedAccessSignature=sv=2022&sig=x%3D'\n";
    assert_eq!(used(sas, env(&[])).await, r#"[("sv", "2022"), ("sig", "x=")]"#);
    let secret = [
        &of_client[..],
        &[
            ("AZURE_CLIENT_SECRET", "hunter2"),
            ("AZURE_FEDERATED_TOKEN_FILE", &file),
        ],
    ]
    .concat();
    assert_eq!(used("", env(&secret)).await, "hunter2");
    let workload = [&of_client[..], &[("AZURE_FEDERATED_TOKEN_FILE", &file)]].concat();
    assert_eq!(used("", env(&workload)).await, "of-the-workload");
    assert_eq!(used("", env(&[("IDENTITY_ENDPOINT", &identity)])).await, "identity");
    let client = "  az_tenant_id: t\n  client_id: c\n  client_secret: hunter2\n";
    assert_eq!(used(client, env(&of_client[..1])).await, "hunter2");
    let identity = [("IDENTITY_ENDPOINT", identity.as_str())];
    assert_eq!(used("  user_assigned_id: me\n", env(&identity)).await, "identity");
    let asked = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(
        asked[0].starts_with("/t/oauth2/v2.0/token ") && asked[0].contains("client_id=c"),
        "{asked:?}"
    );
    assert!(asked[2].contains("storage.azure.com"), "{asked:?}");
}

#[tokio::test]
async fn requests_are_signed() {
    let config = configured("  storage_account_key: a2V5\n");
    let bucket = AzureBucket::open(&config, "p", &Limits::default()).await.unwrap();
    assert_eq!(bucket.identity(), "azure://acc.blob.core.windows.net/c/p");
    let mut head = Request::new(());
    *head.uri_mut() = bucket
        .0
        .rest
        .dialect
        .address("p/01/a b", "comp=block&blockid=x")
        .unwrap();
    bucket.0.rest.dialect.authorize(&mut head).await.unwrap();
    let header = head.headers()[header::AUTHORIZATION].to_str().unwrap();
    assert!(header.starts_with("SharedKey acc:"), "{header}");
    assert!(head.headers().contains_key("x-ms-version"));
    assert_eq!(head.uri().path(), "/c/p/01/a%20b");
}
