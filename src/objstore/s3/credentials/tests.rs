use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::{TempDir, tempdir};
use tokio::net::TcpListener;

use super::*;
use crate::objstore::{
    config::{Provider, parse},
    transfer::transport::testing::{Answer, Seen, answer, file, serve},
};

fn configured(lines: &str) -> S3Config {
    let text = format!("type: S3\nconfig:\n  bucket: b\n  endpoint: localhost:1\n{lines}");
    match parse(&text).unwrap().provider {
        Provider::S3(config) => *config,
        other => panic!("S3 expected, not {other:?}"),
    }
}

fn env<const N: usize>(pairs: [(&'static str, &str); N]) -> Env {
    let pairs: HashMap<_, _> = pairs
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    Arc::new(move |name| pairs.get(name).cloned())
}

/// Asks again where a busy machine has not answered for the metadata service within the SDK's second.
async fn keys(config: &S3Config, env: Env) -> Result<(String, String, Option<String>), String> {
    loop {
        let error = match provider(config, Arc::clone(&env)).provide_credentials().await {
            Ok(found) => {
                let token = found.session_token().map(str::to_owned);
                return Ok((found.access_key_id().into(), found.secret_access_key().into(), token));
            }
            Err(error) => chain(&error),
        };
        if !error.ends_with("waited 1s for an answer") {
            return Err(error);
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn found(key: &str, secret: &str, token: Option<&str>) -> Result<(String, String, Option<String>), String> {
    Ok((key.to_owned(), secret.to_owned(), token.map(str::to_owned)))
}

/// Nobody listens there.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("  sts_endpoint: http://{}\n", listener.local_addr().unwrap())
}

#[tokio::test]
async fn keys_of_the_configuration_are_taken_as_they_are() {
    let config = configured("  access_key: a\n  secret_key: b\n  session_token: c\n");
    let other = env([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")]);
    assert_eq!(keys(&config, other).await, found("a", "b", Some("c")));
}

#[tokio::test]
async fn the_environment_is_read_in_both_spellings() {
    let config = configured("");
    for (variables, expected) in [
        (
            env([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]),
            found("a", "b", None),
        ),
        (
            env([
                ("AWS_ACCESS_KEY", "a"),
                ("AWS_SECRET_KEY", "b"),
                ("AWS_SESSION_TOKEN", "c"),
            ]),
            found("a", "b", Some("c")),
        ),
    ] {
        assert_eq!(keys(&config, variables).await, expected);
    }
    let error = keys(&config, env([("AWS_ACCESS_KEY_ID", "a")])).await.unwrap_err();
    assert!(
        error.contains("environment failed") && error.contains("not AWS_SECRET_ACCESS_KEY"),
        "{error}"
    );
    let error = keys(&config, env([("AWS_SECRET_KEY", "hunter2")])).await.unwrap_err();
    assert!(
        error.contains("not AWS_ACCESS_KEY_ID") && !error.contains("hunter2"),
        "{error}"
    );
}

#[tokio::test]
async fn the_credentials_file_is_read_again_each_time() {
    let dir = tempdir().unwrap();
    let config = configured(&nowhere().await);
    let text = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n\n[other]\naws_access_key_id = c\n\
                aws_secret_access_key = d\naws_session_token = e\n";
    let path = file(dir.path(), "credentials", text);
    let path = path.to_str().unwrap();
    let provider = provider(&config, env([("AWS_SHARED_CREDENTIALS_FILE", path)]));
    assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "a");
    file(
        dir.path(),
        "credentials",
        "[default]\naws_access_key_id = a2\naws_secret_access_key = b2\n",
    );
    assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "a2");

    file(dir.path(), "credentials", text);
    let other = env([("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "other")]);
    assert_eq!(keys(&config, other).await, found("c", "d", Some("e")));
    let home = tempdir().unwrap();
    fs_err::create_dir_all(home.path().join(".aws")).unwrap();
    file(&home.path().join(".aws"), "credentials", text);
    assert_eq!(
        keys(&config, env([("HOME", home.path().to_str().unwrap())])).await,
        found("a", "b", None)
    );
}

#[tokio::test]
async fn a_home_that_cannot_be_looked_at_does_not_end_the_chain_and_a_named_file_does() {
    let config = configured(&nowhere().await);
    let token = |home: &str| {
        env([
            ("HOME", home),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token-of-the-next-link"),
        ])
    };
    let dir = tempdir().unwrap();
    // A file where a directory should be, at either place; one that leads round in circles; a directory in the file's place.
    let [no_home, no_dir, circle, no_file] = ["a", "b", "c", "d"].map(|name| dir.path().join(name));
    fs_err::write(&no_home, "").unwrap();
    for home in [&no_dir, &circle, &no_file] {
        fs_err::create_dir(home).unwrap();
    }
    fs_err::write(no_dir.join(".aws"), "").unwrap();
    std::os::unix::fs::symlink(".aws", circle.join(".aws")).unwrap();
    fs_err::create_dir_all(no_file.join(".aws/credentials")).unwrap();
    for home in [&no_home, &no_dir, &circle, &no_file] {
        let error = keys(&config, token(home.to_str().unwrap())).await.unwrap_err();
        assert!(error.contains("token-of-the-next-link"), "{error}");
        assert!(
            error.contains(home.to_str().unwrap()),
            "it says what was passed over: {error}"
        );

        let named = home.join(".aws/credentials");
        let variables = env([
            ("AWS_SHARED_CREDENTIALS_FILE", named.to_str().unwrap()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token-of-the-next-link"),
        ]);
        let error = keys(&config, variables).await.unwrap_err();
        assert!(error.contains("credentials file failed"), "{error}");
        assert!(!error.contains("token-of-the-next-link"), "{error}");
    }
}

#[tokio::test]
async fn a_program_named_in_the_credentials_file_is_run() {
    let dir = tempdir().unwrap();
    let json = r#"{"Version":1,"AccessKeyId":"pa","SecretAccessKey":"pb","SessionToken":"pc"}"#;
    let answer = file(dir.path(), "answer.json", json);
    let text = format!("[default]\ncredential_process = cat {}\n", answer.display());
    let path = file(dir.path(), "credentials", &text);
    let config = configured(&nowhere().await);
    let variables = || env([("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())]);
    assert_eq!(keys(&config, variables()).await, found("pa", "pb", Some("pc")));
    // One that fails is an error, not a reason to take another identity.
    file(
        dir.path(),
        "credentials",
        "[default]\ncredential_process = cat /does/not/exist\n",
    );
    let error = keys(&config, variables()).await.unwrap_err();
    assert!(error.contains("credentials file failed"), "{error}");
}

const STS: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
    <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>wa</AccessKeyId><SecretAccessKey>wb</SecretAccessKey>\
    <SessionToken>wc</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>\
    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

fn form(seen: &Seen) -> HashMap<String, String> {
    url::form_urlencoded::parse(&seen.body).into_owned().collect()
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_keys() {
    let dir = tempdir().unwrap();
    let token = file(dir.path(), "token", "first\n");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let address = serve(None, move |request: Seen| {
        assert_eq!(request.header("authorization"), "", "such a request is not signed");
        noted.lock().unwrap().push(form(&request));
        async { answer(200, STS) }
    })
    .await;
    let config = configured(&format!("  sts_endpoint: http://{address}\n"));
    let provider = provider(
        &config,
        env([
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
            ("AWS_ROLE_SESSION_NAME", "me"),
        ]),
    );
    let keys = provider.provide_credentials().await.unwrap();
    assert_eq!(
        (keys.access_key_id(), keys.secret_access_key(), keys.session_token()),
        ("wa", "wb", Some("wc"))
    );
    assert!(keys.expiry().unwrap() > SystemTime::now());
    file(dir.path(), "token", "second");
    provider.provide_credentials().await.unwrap();
    let seen = seen.lock().unwrap();
    for (form, token) in seen.iter().zip(["first", "second"]) {
        assert_eq!(form["Action"], "AssumeRoleWithWebIdentity");
        assert_eq!(form["RoleArn"], "arn:aws:iam::1:role/r");
        assert_eq!(form["RoleSessionName"], "me");
        assert_eq!(form["WebIdentityToken"], token);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_refused_web_identity_is_reported_and_nothing_else_is_tried() {
    let dir = tempdir().unwrap();
    let token = file(dir.path(), "token", "t");
    let address = serve(None, |_| async {
        let text = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message>\
                    </Error></ErrorResponse>";
        answer(403, text)
    })
    .await;
    let config = configured(&format!("  sts_endpoint: http://{address}\n"));
    let path = token.to_str().unwrap();
    let error = keys(&config, env([("AWS_WEB_IDENTITY_TOKEN_FILE", path)]))
        .await
        .unwrap_err();
    for part in ["web identity failed", &address.to_string(), "not you"] {
        assert!(error.contains(part), "{error}");
    }
    let error = keys(&config, env([("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/token")]))
        .await
        .unwrap_err();
    assert!(error.contains("/no/token"), "{error}");
}

#[test]
fn the_token_service_is_the_region_s() {
    assert_eq!(sts_url(None), "https://sts.amazonaws.com");
    assert_eq!(sts_url(Some("eu-west-1")), "https://sts.eu-west-1.amazonaws.com");
    assert_eq!(sts_url(Some("cn-north-1")), "https://sts.cn-north-1.amazonaws.com.cn");
}

async fn metadata(seen: Seen) -> Answer {
    match seen.head.uri.path() {
        "/latest/api/token" => {
            let mut token = answer(200, "session");
            token
                .headers_mut()
                .insert("x-aws-ec2-metadata-token-ttl-seconds", "21600".parse().unwrap());
            token
        }
        _ if seen.header("x-aws-ec2-metadata-token") != "session" => answer(401, ""),
        "/latest/meta-data/iam/security-credentials/" => answer(200, "role"),
        "/latest/meta-data/iam/security-credentials/role" => answer(
            200,
            r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ia","SecretAccessKey":"ib","Token":"ic",
                "LastUpdated":"2020-01-01T00:00:00Z","Expiration":"2999-01-01T00:00:00Z"}"#,
        ),
        _ => answer(404, ""),
    }
}

#[tokio::test]
async fn the_instance_s_metadata_come_last() {
    let address = serve(None, metadata).await;
    let config = configured(&format!("  sts_endpoint: http://{address}\n"));
    assert_eq!(keys(&config, env([])).await, found("ia", "ib", Some("ic")));
}

/// What a metadata service without tokens does with a PUT.
#[derive(Clone, Copy)]
enum Put {
    Refuse(u16),
    /// As with a hop limit of 1: the answer does not arrive.
    Swallow,
}

/// A metadata service that gives no tokens, and answers without one if `version_1`.
async fn without_tokens(put: Put, version_1: bool) -> String {
    let address = serve(None, move |mut seen: Seen| async move {
        match (seen.head.method.as_str(), put) {
            ("PUT", Put::Refuse(status)) => return answer(status, ""),
            ("PUT", Put::Swallow) => std::future::pending().await,
            _ => {}
        }
        assert_eq!(seen.header("x-aws-ec2-metadata-token"), "", "nothing is made up");
        if !version_1 {
            return answer(401, "");
        }
        let token = "session".parse().unwrap();
        seen.head.headers.insert("x-aws-ec2-metadata-token", token);
        metadata(seen).await
    })
    .await;
    format!("  sts_endpoint: http://{address}\n")
}

#[tokio::test]
async fn a_metadata_service_without_tokens_is_asked_without_one() {
    for put in [403, 404, 405, 501].map(Put::Refuse).into_iter().chain([Put::Swallow]) {
        let config = configured(&without_tokens(put, true).await);
        assert_eq!(keys(&config, env([])).await, found("ia", "ib", Some("ic")));
    }
}

#[tokio::test]
async fn a_metadata_service_that_wants_tokens_and_gives_none_is_told_with_the_cause() {
    for (put, cause) in [
        (Put::Swallow, "HttpPutResponseHopLimit to 2"),
        (Put::Refuse(404), "answers 404 to the request for a token"),
    ] {
        let config = configured(&without_tokens(put, false).await);
        let error = keys(&config, env([])).await.unwrap_err();
        assert!(
            error.contains("instance metadata failed")
                && error.contains("without a token it answers 401")
                && error.contains(cause),
            "{error}"
        );
    }
    let config = configured(&without_tokens(Put::Swallow, true).await);
    let error = keys(&config, env([("AWS_EC2_METADATA_V1_DISABLED", "true")]))
        .await
        .unwrap_err();
    assert!(
        error.contains("HttpPutResponseHopLimit to 2") && error.contains("AWS_EC2_METADATA_V1_DISABLED"),
        "{error}"
    );
}

#[tokio::test]
async fn where_nothing_is_found_the_error_lists_what_was_tried() {
    let config = configured(&nowhere().await);
    let error = keys(&config, env([("HOME", "/nonexistent")])).await.unwrap_err();
    for part in [
        "neither access_key nor aws_sdk_auth",
        "environment: AWS_ACCESS_KEY_ID is not set",
        "credentials file: /nonexistent/.aws/credentials does not exist",
        "web identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "container: ",
        "instance metadata: ",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// What the SDK itself reads is the process' own environment: such tests run in a child with another one.
fn in_child(test: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("objstore::s3::credentials::tests::{test}"),
            "--ignored",
            "--nocapture",
        ])
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[tokio::test]
#[ignore = "runs in a child process, see in_child"]
async fn child_of_the_chain() {
    println!("found {:?}", keys(&configured(""), real_env()).await);
}

#[tokio::test]
#[ignore = "runs in a child process, see in_child"]
async fn child_of_the_sdk() {
    println!(
        "found {:?}",
        keys(&configured("  aws_sdk_auth: true\n"), real_env()).await
    );
}

async fn container(dir: &TempDir) -> (String, std::path::PathBuf, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let address = serve(None, move |seen: Seen| {
        counted.fetch_add(1, Ordering::SeqCst);
        let allowed = seen.header("authorization") == "pod-token";
        async move {
            let keys = r#"{"AccessKeyId":"ca","SecretAccessKey":"cb","Token":"cc",
                           "Expiration":"2999-01-01T00:00:00Z"}"#;
            if allowed { answer(200, keys) } else { answer(403, "") }
        }
    })
    .await;
    let token = file(dir.path(), "pod", "pod-token");
    (format!("http://{address}/v1/credentials"), token, asked)
}

#[tokio::test]
async fn a_container_s_identity_is_found_by_either_chain() {
    let dir = tempdir().unwrap();
    let (url, token, asked) = container(&dir).await;
    let home = dir.path().to_str().unwrap().to_owned();
    let token = token.to_str().unwrap().to_owned();
    for (child, expected) in [("child_of_the_chain", 1), ("child_of_the_sdk", 2)] {
        let (url, token, home) = (url.clone(), token.clone(), home.clone());
        let told = tokio::task::spawn_blocking(move || {
            let variables = [
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
                ("AWS_EC2_METADATA_DISABLED", "true"),
                ("HOME", &home),
            ];
            in_child(child, &variables)
        });
        let told = told.await.unwrap();
        assert!(
            told.contains(r#"found Ok(("ca", "cb", Some("cc")))"#),
            "{child}: {told}"
        );
        assert_eq!(asked.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_metadata_service_without_tokens_will_do_for_either_chain() {
    let dir = tempdir().unwrap();
    for child in ["child_of_the_chain", "child_of_the_sdk"] {
        let line = without_tokens(Put::Refuse(405), true).await;
        let url = line.trim().strip_prefix("sts_endpoint: ").unwrap().to_owned();
        let home = dir.path().to_str().unwrap().to_owned();
        let told = tokio::task::spawn_blocking(move || {
            let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), ("HOME", &home)];
            in_child(child, &variables)
        });
        let told = told.await.unwrap();
        assert!(
            told.contains(r#"found Ok(("ia", "ib", Some("ic")))"#),
            "{child}: {told}"
        );
    }
}

#[test]
fn the_sdk_s_chain_says_when_it_finds_nothing() {
    let told = in_child(
        "child_of_the_sdk",
        &[("HOME", "/nonexistent"), ("AWS_EC2_METADATA_DISABLED", "true")],
    );
    assert!(told.contains("aws_sdk_auth is set, but none"), "{told}");
    let keys = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let told = in_child("child_of_the_sdk", &keys);
    assert!(told.contains(r#"found Ok(("a", "b", None))"#), "{told}");
}

#[test]
fn nothing_shows_in_debug() {
    let config = configured("  access_key: hunter2\n  secret_key: hunter2\n");
    let shown = format!("{:?}", provider(&config, real_env()));
    assert!(!shown.contains("hunter2"), "{shown}");
}
