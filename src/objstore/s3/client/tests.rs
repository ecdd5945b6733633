use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::{config::Credentials as Keys, error::DisplayErrorContext, primitives::ByteStream};

use super::*;
use crate::objstore::{
    config::{Provider, parse},
    transfer::transport::testing::{Answer, Seen, answer, serve},
};

const KEYS: &str = "access_key: ak\nsecret_key: sk";

fn configured(bucket: &str, endpoint: &str, lines: &str) -> S3Config {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("type: S3\nconfig:\n  bucket: {bucket}\n  endpoint: '{endpoint}'\n{lines}");
    match parse(&text).unwrap().provider {
        Provider::S3(config) => *config,
        _ => panic!("S3 expected"),
    }
}

fn insecure(address: std::net::SocketAddr, lines: &str) -> S3Config {
    configured(
        "bucket",
        &address.to_string(),
        &format!("insecure: true\n{KEYS}\n{lines}"),
    )
}

/// The region that a request is signed for.
fn signed_for(seen: &Seen) -> String {
    let scope = seen.header("authorization").split_once("Credential=").unwrap().1;
    scope.split('/').nth(2).unwrap().to_owned()
}

fn key_of(seen: &Seen) -> String {
    let scope = seen.header("authorization").split_once("Credential=").unwrap().1;
    scope.split('/').next().unwrap().to_owned()
}

fn refusal(status: u16, code: &str, more: &str) -> Answer {
    answer(
        status,
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message>{more}</Error>"),
    )
}

type Answering = fn() -> Answer;

/// A server that answers the lookup of the location with `locations`, one after another (the last one for ever),
/// and everything else by `others`. Notes the path and region of each request.
struct Store {
    address: std::net::SocketAddr,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Store {
    async fn new(locations: Vec<Answering>, others: impl Fn(&Seen) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&notes);
        let locations = Arc::new(Mutex::new(VecDeque::from(locations)));
        let address = serve(None, move |seen: Seen| {
            let location = seen.head.uri.query().is_some_and(|query| query.contains("location"));
            let what = if location { "location" } else { seen.head.uri.path() };
            noted.lock().unwrap().push(format!("{what} {}", signed_for(&seen)));
            let answer = if location {
                let mut locations = locations.lock().unwrap();
                let next = locations[0];
                if locations.len() > 1 {
                    locations.pop_front();
                }
                next()
            } else {
                others(&seen)
            };
            async move { answer }
        })
        .await;
        Self { address, notes }
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

fn location(region: &str) -> Answer {
    let namespace = "http://s3.amazonaws.com/doc/2006-03-01/";
    answer(
        200,
        format!("<LocationConstraint xmlns=\"{namespace}\">{region}</LocationConstraint>"),
    )
}

async fn put(client: &Client, key: &str) -> Result<(), String> {
    let body = ByteStream::from_static(b"content");
    let sent = client.put_object().bucket("bucket").key(key).body(body).send().await;
    sent.map(|_| ())
        .map_err(|error| DisplayErrorContext(&error).to_string())
}

#[tokio::test]
async fn the_store_is_asked_for_the_region_once() {
    let forbidden: Answering = || {
        let mut answer = refusal(403, "AccessDenied", "");
        answer
            .headers_mut()
            .insert("x-amz-bucket-region", "ap-south-1".parse().unwrap());
        answer
    };
    let malformed: Answering = || refusal(400, "AuthorizationHeaderMalformed", "<Region>garage</Region>");
    let cases: [(Answering, &str); 7] = [
        (|| location("eu-central-1"), "eu-central-1"),
        (|| location("EU"), "eu-west-1"),
        (|| location(""), "us-east-1"),
        (forbidden, "ap-south-1"),
        (malformed, "garage"),
        (|| refusal(403, "AccessDenied", ""), "us-east-1"),
        (|| refusal(501, "NotImplemented", ""), "us-east-1"),
    ];
    for (answering, region) in cases {
        let store = Store::new(vec![answering], |_| answer(200, "")).await;
        let client = client(&insecure(store.address, "")).await.unwrap();
        let (first, second) = tokio::join!(put(&client, "a"), put(&client, "a"));
        first.unwrap();
        second.unwrap();
        put(&client, "a").await.unwrap();
        let put = format!("/bucket/a {region}");
        assert_eq!(store.notes(), ["location us-east-1", &put, &put, &put]);
    }
}

#[tokio::test]
async fn a_region_that_is_said_is_not_asked_for() {
    let store = Store::new(vec![|| location("eu-central-1")], |_| answer(200, "")).await;
    let client = client(&insecure(store.address, "region: eu-north-1")).await.unwrap();
    put(&client, "a").await.unwrap();
    assert_eq!(store.notes(), ["/bucket/a eu-north-1"]);
}

#[tokio::test]
async fn trouble_with_the_lookup_of_the_region_is_no_answer() {
    let broken: Answering = || refusal(503, "SlowDown", "");
    let store = Store::new(vec![broken, broken, broken, || location("eu-central-1")], |_| {
        answer(200, "")
    })
    .await;
    let client = client(&insecure(store.address, "")).await.unwrap();
    put(&client, "a").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    put(&client, "b").await.unwrap();
    let asked = "location us-east-1";
    assert_eq!(
        store.notes(),
        [
            asked,
            asked,
            asked,
            "/bucket/a us-east-1",
            asked,
            "/bucket/b eu-central-1"
        ]
    );
}

#[tokio::test]
async fn a_wrong_region_is_corrected_and_the_request_tried_again() {
    let wrong = |seen: &Seen| match signed_for(seen).as_str() {
        "garage" => answer(200, ""),
        _ => refusal(400, "AuthorizationHeaderMalformed", "<Region>garage</Region>"),
    };
    let store = Store::new(vec![|| location("")], wrong).await;
    let configured = insecure(store.address, "");
    let found = client(&configured).await.unwrap();
    // As callers do who put something around the transport.
    let found = Client::from_conf(found.config().to_builder().build());
    put(&found, "a").await.unwrap();
    put(&found, "b").await.unwrap();
    let first = ["location us-east-1", "/bucket/a us-east-1"];
    assert_eq!(
        store.notes(),
        [first[0], first[1], "/bucket/a garage", "/bucket/b garage"]
    );

    // What the operator said stands.
    let said = client(&S3Config {
        region: Some("us-east-1".into()),
        ..configured
    })
    .await
    .unwrap();
    let error = put(&said, "a").await.unwrap_err();
    assert!(error.contains("AuthorizationHeaderMalformed"), "{error}");
    assert_eq!(store.notes(), ["/bucket/a us-east-1"]);
}

#[tokio::test]
async fn a_request_is_tried_as_often_as_configured() {
    for (lines, expected) in [("max_retries: 1", 1), ("max_retries: 3", 3)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let store = Store::new(vec![|| location("")], move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            refusal(503, "SlowDown", "")
        })
        .await;
        let client = client(&insecure(store.address, lines)).await.unwrap();
        assert!(put(&client, "a").await.unwrap_err().contains("SlowDown"));
        assert_eq!(count.load(Ordering::SeqCst), expected, "{lines}");
    }
}

#[tokio::test]
async fn the_head_of_a_request_is_as_promised() {
    let store = Store::new(vec![|| location("")], |seen| {
        let agent = seen.header("user-agent");
        assert!(
            agent.starts_with(&format!("narthex/{} aws-sdk-rust/", env!("CARGO_PKG_VERSION"))),
            "{agent}"
        );
        for absent in [
            "content-encoding",
            "transfer-encoding",
            "x-amz-trailer",
            "x-amz-sdk-checksum-algorithm",
            "expect",
        ] {
            assert_eq!(seen.header(absent), "", "{absent}");
        }
        assert_eq!(seen.header("content-length"), "7");
        let checksums = seen
            .head
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-amz-checksum"))
            .count();
        answer(if checksums == 0 { 200 } else { 418 }, "")
    })
    .await;
    put(&client(&insecure(store.address, "")).await.unwrap(), "a")
        .await
        .unwrap();
}

/// Hands out keys `k0`, `k1`, ... one after another.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl ProvideCredentials for Counting {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = format!("k{}", self.0.fetch_add(1, Ordering::SeqCst));
        future::ProvideCredentials::ready(Ok(Keys::new(key, "s", None, None, "test")))
    }
}

#[tokio::test]
async fn credentials_that_ended_early_are_fetched_again() {
    let store = Store::new(vec![|| location("")], |seen| match key_of(seen).as_str() {
        "k0" => refusal(400, "ExpiredToken", ""),
        _ => answer(200, ""),
    })
    .await;
    let mut config = insecure(store.address, "region: eu-west-1");
    config.credentials = Credentials::Chain;
    let transport = Transport::new(&config.http, false, Proxies::new("", "", ""));
    let client = build(&config, transport, SharedCredentialsProvider::new(Counting::default()));
    put(&client, "a").await.unwrap();
    put(&client, "b").await.unwrap();
    assert_eq!(
        store.notes(),
        ["/bucket/a eu-west-1", "/bucket/a eu-west-1", "/bucket/b eu-west-1"]
    );
}

#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    #[derive(Debug)]
    struct Nobody;
    impl ProvideCredentials for Nobody {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let error = aws_credential_types::provider::error::CredentialsError::not_loaded("tried this and that");
            future::ProvideCredentials::ready(Err(error))
        }
    }
    let store = Store::new(vec![|| location("")], |_| answer(200, "")).await;
    let config = insecure(store.address, "max_retries: 2");
    let transport = Transport::new(&config.http, false, Proxies::new("", "", ""));
    let client = build(&config, transport, SharedCredentialsProvider::new(Nobody));
    let error = put(&client, "a").await.unwrap_err();
    assert!(error.contains("tried this and that"), "{error}");
    assert_eq!(store.notes(), Vec::<String>::new());
}

mod hosts;
mod tls;
