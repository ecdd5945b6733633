//! The client against servers that answer well, wrongly, too much, too late or not at all.

use std::time::{Duration, Instant};

use narthex::{
    model::Labels,
    prometheus::{Alive, Client, Error, ErrorKind, HttpClientConfig, SetupError},
    trust::FileError,
};
use proptest::prelude::*;
use url::Url;

use super::fake::{Answer, Fake, http, prometheus};

const LONG: Duration = Duration::from_secs(60);

const YAML: &str = "global:\n  external_labels:\n    cluster: eu\n    replica: \"0\"\nrule_files:\n- hunter2\n";

pub(super) fn well(path: &str) -> Answer {
    prometheus(path, YAML, "2h", "2h")
}

pub(super) fn client(url: &Url, yaml: &str, timeout: Duration) -> Client {
    Client::new(url, &HttpClientConfig::parse(yaml).unwrap(), timeout).unwrap()
}

pub(super) fn plain(fake: &Fake) -> Client {
    client(&fake.url(), "", LONG)
}

#[tokio::test]
async fn reads_flags_version_and_labels_over_one_connection() {
    let fake = Fake::start(well);
    let client = plain(&fake);
    for _ in 0..3 {
        let flags = client.flags().await.unwrap().unwrap();
        assert_eq!(flags["storage.tsdb.min-block-duration"], "2h");
        assert_eq!(client.build_version().await.unwrap(), "2.42.0+ds");
        let labels = client.configuration().await.unwrap().labels;
        assert_eq!(labels, Labels::from_pairs([("cluster", "eu"), ("replica", "0")]));
    }
    assert_eq!(client.alive().await, Alive::Ready);
    assert_eq!(fake.connections(), 1);
    let head = fake.last_head().to_lowercase();
    assert!(
        head.contains("user-agent: narthex/") && !head.contains("authorization"),
        "{head}"
    );
}

#[tokio::test]
async fn keeps_the_prefix_and_the_credentials_of_the_url() {
    let fake = Fake::start(|_| Answer::Http(404, Vec::new()));
    let url = format!("http://us%20er:hunter2@{}/a/prefix//?x=y#z", fake.address);
    let client = client(&url.parse().unwrap(), "bearer_token: other", LONG);
    assert_eq!(client.flags().await.unwrap(), None);
    let head = fake.last_head();
    assert!(
        head.starts_with("GET /a/prefix/api/v1/status/flags?x=y HTTP/1.1\r\n"),
        "{head}"
    );
    // Basic, of "us er:hunter2".
    assert!(head.contains("Basic dXMgZXI6aHVudGVyMg=="), "{head}");
    let error = client.configuration().await.unwrap_err().to_string();
    let want = format!(
        "GET http://{}/a/prefix/api/v1/status/config: status 404: not found;",
        fake.address
    );
    assert!(error.starts_with(&want), "{error}");
    assert!(!format!("{client:?}{error}").contains("hunter2"));
    assert_eq!(client.url(), format!("http://{}/a/prefix", fake.address));
}

#[tokio::test]
async fn refused_credentials_are_blamed_on_where_they_come_from() {
    let fake = Fake::start(|_| Answer::Http(401, b"Unauthorized".to_vec()));
    let with: url::Url = format!("http://user:hunter2@{}", fake.address).parse().unwrap();
    for (url, part) in [
        (
            &with,
            "it refuses the credentials of --prometheus.url, which come before those of --prometheus.http-client",
        ),
        (
            &fake.url(),
            "it wants other credentials; check --prometheus.http-client",
        ),
    ] {
        super::tls::both_fail(url, "bearer_token: other", part).await;
    }
    let proxy = Fake::start(|_| Answer::Http(407, Vec::new()));
    let keys = format!("proxy_url: {}", proxy.url());
    super::tls::both_fail(&with, &keys, "the proxy wants other credentials; check proxy_url").await;
}

#[test]
fn a_fragment_in_the_url_is_warned_of_and_a_query_is_sent() {
    let warnings = |url: &str| Client::warnings(&url.parse().unwrap(), &HttpClientConfig::default());
    assert!(matches!(&warnings("http://localhost:9090/#x")[..], [one] if one.contains("fragment")));
    assert!(warnings("http://localhost:9090/?x=%23").is_empty());
}

#[tokio::test]
async fn does_without_what_other_servers_do_not_have() {
    let fake = Fake::start(|_| Answer::Http(404, Vec::new()));
    assert_eq!(plain(&fake).flags().await.unwrap(), None);
    assert_eq!(plain(&fake).build_version().await.unwrap(), "0");
    fake.answer(|_| Answer::Http(405, Vec::new()));
    assert_eq!(plain(&fake).build_version().await.unwrap(), "0");
    assert!(plain(&fake).flags().await.is_err());
}

/// All three requests, each of which must fail alike.
async fn failures(client: &Client) -> Vec<Error> {
    let errors = vec![
        client.flags().await.unwrap_err(),
        client.build_version().await.unwrap_err(),
        client.configuration().await.unwrap_err(),
    ];
    for error in &errors {
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("GET {}api/v1/status/", client.url())),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
    errors
}

#[tokio::test]
async fn tells_the_kinds_of_failure_apart() {
    let fake = Fake::start(|_| Answer::Stall);
    let raw = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        move |_: &str| Answer::Raw(bytes.clone())
    };
    for (bytes, is_http) in [
        (&b""[..], true),
        (b"hunter2\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Le", true),
        (b"\x16\x03\x01\x00hunter2", false),
    ] {
        fake.answer(raw(bytes));
        for error in failures(&plain(&fake)).await {
            let right = match is_http {
                true => matches!(error.kind, ErrorKind::Unreachable(_)),
                false => matches!(error.kind, ErrorKind::NotHttp(_)),
            };
            assert!(right && !error.to_string().contains("hunter2"), "{error}");
        }
    }
    for body in [
        "",
        "<html>hunter2</html>",
        "{\"data\":",
        "{\"data\":{}}hunter2",
        "\u{feff}{}",
    ] {
        fake.answer(|_| Answer::Http(200, body.into()));
        for error in failures(&plain(&fake)).await {
            let no_json = matches!(error.kind, ErrorKind::NotJson { .. } | ErrorKind::NotUnderstood(_));
            assert!(no_json, "{error}");
        }
    }
    for body in [
        "null",
        "[]",
        "\"hunter2\"",
        "{\"data\":\"hunter2\"}",
        "{\"data\":{\"version\":1,\"yaml\":2}}",
    ] {
        fake.answer(|_| Answer::Http(200, body.into()));
        for error in failures(&plain(&fake)).await {
            assert!(matches!(error.kind, ErrorKind::NotUnderstood(_)), "{error}");
        }
    }
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"da",
    ] {
        fake.answer(raw(cut.as_bytes()));
        for error in failures(&plain(&fake)).await {
            assert!(matches!(error.kind, ErrorKind::Cut(_)), "{error}");
        }
    }
    fake.answer(|_| Answer::Http(503, b"Service Unavailable\n".to_vec()));
    for error in failures(&plain(&fake)).await {
        assert!(
            error
                .to_string()
                .contains("503 (Service Unavailable): Prometheus is starting"),
            "{error}"
        );
    }
    assert_eq!(plain(&fake).alive().await, Alive::NotReady);
    let client = plain(&fake);
    drop(fake);
    // The listener is gone when its thread has noticed.
    super::super::rig::wait_until(LONG, "connections are refused", async || {
        (client.alive().await == Alive::Gone).then_some(())
    })
    .await;
    for error in failures(&client).await {
        assert!(error.is_refused(), "{error}");
    }
}

#[tokio::test]
async fn ends_after_its_deadline_whatever_is_slow() {
    let fake = Fake::start(|_| Answer::Stall);
    let limit = Duration::from_millis(300);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{\"data\":{\"yaml\":\"".to_vec();
    for answer in [
        Answer::Stall,
        Answer::Endless(b"HTTP/1.1 200 OK\r\nX-Endless: ".to_vec(), Duration::from_millis(20)),
        Answer::Endless(head, Duration::from_millis(20)),
        Answer::Endless(
            b"HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n".to_vec(),
            Duration::from_millis(20),
        ),
    ] {
        fake.answer(move |_| answer.clone());
        let start = Instant::now();
        for error in failures(&client(&fake.url(), "", limit)).await {
            assert!(
                matches!(error.kind, ErrorKind::Timeout(time) if time == limit),
                "{error}"
            );
        }
        assert!(start.elapsed() < LONG);
    }
    fake.answer(|_| Answer::Stall);
    assert_eq!(client(&fake.url(), "", limit).alive().await, Alive::NotReady);
    let yaml = "transport_config: {response_header_timeout: 100000000}";
    let error = client(&fake.url(), yaml, LONG).flags().await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Timeout(time) if time == Duration::from_millis(100)),
        "{error}"
    );
}

#[tokio::test]
async fn reads_no_more_than_is_plausible() {
    let chunked = "HTTP/1.1 200 OK\r\n\r\n";
    let fake = Fake::start(move |_| Answer::Endless(format!("{chunked}{{\"data\":\"").into_bytes(), Duration::ZERO));
    for error in failures(&plain(&fake)).await {
        assert!(
            matches!(error.kind, ErrorKind::TooLarge { limit: 1_048_576 }),
            "{error}"
        );
    }
    let head = format!("{chunked}{{\"data\":{{\"yaml\":\"global:\\n  a: b\\nx: ");
    fake.answer(move |_| Answer::Endless(head.clone().into_bytes(), Duration::ZERO));
    let error = plain(&fake).configuration().await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::TooLarge { limit: 67_108_864 }),
        "{error}"
    );
}

#[tokio::test]
async fn follows_a_redirect() {
    let fake = Fake::start(|path| match path.strip_prefix("/new") {
        Some(path) => well(path),
        None => Answer::Raw(
            format!("HTTP/1.1 302 Found\r\nLocation: /new{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .into(),
        ),
    });
    assert_eq!(plain(&fake).build_version().await.unwrap(), "2.42.0+ds");
}

#[tokio::test]
async fn sends_the_secrets_that_the_files_hold_now() {
    let fake = Fake::start(well);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let bearer = client(&fake.url(), &format!("bearer_token_file: {}", file.display()), LONG);
    let yaml = format!("basic_auth: {{username: me, password_file: {}}}", file.display());
    let basic = client(&fake.url(), &yaml, LONG);
    for (secret, encoded) in [("one", "bWU6b25l"), ("two", "bWU6dHdv")] {
        fs_err::write(&file, format!("{secret}\n")).unwrap();
        bearer.build_version().await.unwrap();
        assert!(fake.last_head().contains(&format!("Bearer {secret}\r\n")));
        basic.build_version().await.unwrap();
        assert!(fake.last_head().contains(&format!("Basic {encoded}\r\n")));
    }
    fs_err::write(&file, "hun\nter2").unwrap();
    let error = bearer.build_version().await.unwrap_err();
    assert!(
        matches!(
            error.kind,
            ErrorKind::Setup(SetupError::File(FileError::Content {
                key: "bearer_token_file",
                ..
            }))
        ),
        "{error}"
    );
    fs_err::remove_file(&file).unwrap();
    let error = basic.build_version().await.unwrap_err().to_string();
    assert!(
        error.contains("basic_auth.password_file") && error.contains("secret"),
        "{error}"
    );
    let count = fake.heads().len();
    assert_eq!(count, 4, "no request goes out without its secret");
}

#[tokio::test]
async fn goes_through_the_proxy_that_is_named() {
    let fake = Fake::start(|path| {
        well(
            path.strip_prefix("http://prometheus.invalid:9090")
                .unwrap_or("/-/ready"),
        )
    });
    let yaml = format!("proxy_url: http://{}", fake.address);
    let client = client(&"http://prometheus.invalid:9090".parse().unwrap(), &yaml, LONG);
    assert_eq!(client.build_version().await.unwrap(), "2.42.0+ds");
}

#[tokio::test]
async fn uses_no_more_connections_than_it_may() {
    let fake = Fake::start(|path| Answer::Later(Duration::from_millis(50), Box::new(well(path))));
    let client = client(&fake.url(), "transport_config: {max_conns_per_host: 1}", LONG);
    let (a, b, c) = tokio::join!(client.build_version(), client.flags(), client.configuration());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(fake.connections(), 1);
}

#[test]
fn refuses_an_address_that_is_none() {
    for url in ["localhost:9090", "ftp://x/", "unix:/x", "file:///x"] {
        let error = Client::new(&url.parse().unwrap(), &HttpClientConfig::default(), LONG).unwrap_err();
        assert!(
            error.to_string().starts_with("--prometheus.url: expected an address"),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_as_an_answer_give_a_value_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        body in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bytes = if body { http(200, &bytes) } else { bytes };
        let fake = Fake::start(move |_| Answer::Raw(bytes.clone()));
        let client = client(&fake.url(), "", Duration::from_secs(5));
        runtime.block_on(async {
            let _ = tokio::join!(client.flags(), client.build_version(), client.configuration(), client.alive());
        });
    }
}
