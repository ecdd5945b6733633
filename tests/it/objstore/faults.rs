//! Stores and networks that misbehave.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use narthex::objstore::{ErrorKind, Limits, Scope};

use super::{
    content, limits, open, s3_yaml,
    scripted::{Act, Server, answer, ok, refusal, take},
    unlinked,
};
use crate::rig::wait_until;

/// How long anything may take; the rest is for busy machines.
const LONG: Duration = Duration::from_secs(60);

/// A stall time that a test can wait for.
fn impatient() -> Limits {
    Limits {
        stall: Duration::from_secs(1),
        ..limits()
    }
}

/// One that a busy machine does not reach by itself.
fn patient() -> Limits {
    Limits {
        stall: Duration::from_secs(3),
        ..limits()
    }
}

#[tokio::test]
async fn what_heals_by_itself_is_tried_again() {
    for fault in [
        "500 Internal Server Error",
        "503 Slow Down",
        "429 Too Many Requests",
        "408 Request Timeout",
        "cut",
    ] {
        let server = Server::start(move |request, number| match (number, fault) {
            (1 | 2, "cut") => Act::Cut(100_000),
            (1 | 2, status) => refusal(status, "Odd", "not now"),
            _ => take(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        let content = content(400_000);
        bucket.put_file("x", &unlinked(&content)).await.unwrap();
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{fault}");
        assert!(seen[2].body == content, "{fault}: the body is sent from its start");
    }
}

#[tokio::test]
async fn attempts_are_as_many_as_configured() {
    for (status, code, kind) in [
        ("503 Slow Down", "SlowDown", ErrorKind::Throttled),
        ("500 Internal Server Error", "InternalError", ErrorKind::Server),
    ] {
        let server = Server::start(move |_, _| refusal(status, code, "not now")).await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 2"]), limits()).await;
        let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.kind.is_ambiguous() && error.kind.is_transient());
        assert!(
            error.to_string().contains(code) && error.to_string().contains("not now"),
            "{error}"
        );
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn refusals_are_told_apart_and_not_repeated() {
    let skewed = "<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message>\
                  <RequestTime>20260101T000000Z</RequestTime><ServerTime>2026-01-01T01:00:00Z</ServerTime></Error>";
    for (status, headers, body, kind, told) in [
        (
            "301 Moved",
            "x-amz-bucket-region: eu-west-1\r\n",
            "",
            ErrorKind::Region,
            "eu-west-1",
        ),
        ("403 Forbidden", "", skewed, ErrorKind::Clock, "2026-01-01T01:00:00Z"),
        (
            "403 Forbidden",
            "",
            "<Error><Code>AccessDenied</Code></Error>",
            ErrorKind::Forbidden,
            "s3:",
        ),
        (
            "403 Forbidden",
            "",
            "<html>a proxy says no</html>",
            ErrorKind::Forbidden,
            "403",
        ),
        (
            "403 Forbidden",
            "",
            "<Error><Code>SignatureDoesNotMatch</Code></Error>",
            ErrorKind::Credentials,
            "secret key",
        ),
        (
            "404 Not Found",
            "",
            "<Error><Code>NoSuchBucket</Code></Error>",
            ErrorKind::NoBucket,
            "create the bucket",
        ),
        (
            "400 Bad Request",
            "",
            "<Error><Code>InvalidStorageClass</Code></Error>",
            ErrorKind::Configuration,
            "StorageClass",
        ),
    ] {
        let server = Server::start(move |_, _| answer(status, headers, body)).await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        let errors = [
            bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err(),
            bucket.get("x", 10).await.unwrap_err(),
            bucket.list("x").await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.to_string().contains(told), "{error}");
            for secret in [super::SECRET_KEY, "Signature="] {
                assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
            }
        }
        assert_eq!(server.seen().len(), 3, "{status} {body}");
    }
}

#[tokio::test]
async fn what_the_store_refuses_of_one_object_concerns_no_other_and_says_what_helps() {
    let archived =
        "<Error><Code>InvalidObjectState</Code><Message>no</Message><StorageClass>GLACIER</StorageClass></Error>";
    let kms = "<Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/u is not authorized to perform: \
               kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k</Message></Error>";
    let encrypted = "<Error><Code>InvalidRequest</Code><Message>The object was stored using a form of Server Side \
                     Encryption.</Message></Error>";
    for (status, body, told) in [
        (
            "403 Forbidden",
            archived,
            "archived (storage class GLACIER): restore it",
        ),
        ("403 Forbidden", kms, "kms:Decrypt for the KMS key"),
        ("400 Bad Request", encrypted, "set sse_config to type SSE-C"),
    ] {
        let server = Server::start(move |request, _| match request.target.starts_with("/thanos/other") {
            true => ok("", "good"),
            false => answer(status, "", body),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        for error in [
            bucket.get("x", 10).await.unwrap_err(),
            bucket.read("x", 0).await.unwrap_err(),
        ] {
            assert_eq!(error.scope(), Scope::Object, "{error}");
            assert!(!error.kind.is_transient(), "{error}");
            let said = error.to_string();
            assert!(said.contains(told) && !said.contains("s3:GetObject"), "{said}");
        }
        assert_eq!(server.seen().len(), 2, "another try would end in the same way");
        assert_eq!(bucket.get("other", 10).await.unwrap(), &b"good"[..]);
    }
}

#[tokio::test]
async fn a_wrong_acknowledgement_is_an_error_of_integrity() {
    let server = Server::start(|_, _| ok("etag: \"e\"\r\nx-amz-checksum-crc32c: AAAAAA==\r\n", "")).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let error = bucket.put_file("x", &unlinked(b"abc")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    assert!(error.to_string().contains("AAAAAA=="), "{error}");
    assert_eq!(server.seen().len(), 2, "once more, in case it was damaged on the way");
}

#[tokio::test]
async fn nothing_is_waited_for_without_end() {
    let big = content(12 << 20);
    for (body, stall, name) in [
        (&b"abc"[..], 0, "no answer at all"),
        (b"abc", 3, "no answer to a body"),
        (&big, 1 << 20, "a body that is not read on"),
    ] {
        let server = Server::start(move |_, _| Act::Stall(stall)).await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), impatient()).await;
        let start = Instant::now();
        let error = bucket.put_file("x", &unlinked(body)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Stalled, "{name}: {error}");
        assert!(error.to_string().contains("no progress"), "{error}");
        assert_eq!(server.seen().len(), 2, "{name}: tried once more on another connection");
        assert!(start.elapsed() < LONG, "{name}");
    }
}

#[tokio::test]
async fn one_call_makes_no_more_requests_than_configured_whatever_goes_wrong() {
    let busy = || refusal("503 Slow Down", "SlowDown", "not now");
    let cases = [
        // Tried again by the SDK, and then once more by us, on the same account.
        (3, &[2][..], 3),
        (4, &[1, 2], 2),
        (4, &[1, 3], 3),
        (1, &[1], 1),
        (2, &[2], 2),
    ];
    // Side by side: each waits for its stalls.
    let cases = cases.map(async |(retries, stalls, expected)| {
        let server = Server::start(move |_, number| match stalls.contains(&number) {
            true => Act::Stall(0),
            false => busy(),
        })
        .await;
        let more = format!("max_retries: {retries}");
        let bucket = open(&s3_yaml(&server.host, "thanos", &[&more]), impatient()).await;
        let case = format!("{retries} {stalls:?}");
        for way in ["put", "get", "list", "stat", "read"] {
            let before = server.seen().len();
            // The script counts from the first request of each call.
            assert_eq!(before, 0);
            let error = match way {
                "put" => bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err(),
                "get" => bucket.get("x", 10).await.unwrap_err(),
                "list" => bucket.list("x").await.unwrap_err(),
                "stat" => bucket.stat("x").await.unwrap_err(),
                _ => bucket.read("x", 0).await.map(drop).unwrap_err(),
            };
            assert!(error.kind.is_transient(), "{error}");
            assert_eq!(server.seen().len(), expected, "{way} {case}");
            server.forget();
        }
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn an_answer_is_waited_for_as_long_as_the_configuration_grants() {
    let server = Server::start(|request, _| {
        let Act::Answer(answer) = take(request) else {
            unreachable!()
        };
        Act::Late(impatient().stall * 2, answer)
    })
    .await;
    let granted = "http_config: {response_header_timeout: 1m}";
    let bucket = open(&s3_yaml(&server.host, "thanos", &[granted]), impatient()).await;
    bucket.put_bytes("x", Bytes::new()).await.unwrap();
    bucket.stat("x").await.unwrap();
    assert_eq!(server.seen().len(), 2, "nothing was asked twice");
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), impatient()).await;
    let error = bucket.stat("x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Stalled, "{error}");
}

#[tokio::test]
async fn a_stalled_read_ends() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
    ] {
        let server = Server::start(move |_, _| Act::Drip(vec![answer.to_owned()], Duration::from_secs(3600))).await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), impatient()).await;
        for error in [
            bucket.get("x", 1000).await.unwrap_err(),
            bucket.list("x").await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Stalled, "{answer:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_is_a_network_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let bucket = open(&s3_yaml(&host, "thanos", &["max_retries: 2"]), limits()).await;
    let error = bucket.list("x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_slow_upload_is_not_cut_while_it_moves() {
    let server = Server::start(|request, _| {
        let Act::Answer(answer) = take(request) else {
            unreachable!()
        };
        Act::Slowly(512 << 10, Duration::from_millis(200), answer)
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), patient()).await;
    // Less than what is sent in parts.
    let content = content(12 << 20);
    let start = Instant::now();
    bucket.put_file("x", &unlinked(&content)).await.unwrap();
    assert!(start.elapsed() > patient().stall, "the test is about something slow");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_slow_answer_is_not_cut_while_it_moves() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_owned();
    let mut pieces = vec![head];
    pieces.extend((0..10).map(|i| i.to_string()));
    let server = Server::start(move |_, _| Act::Drip(pieces.clone(), Duration::from_millis(400))).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), patient()).await;
    assert_eq!(bucket.get("x", 10).await.unwrap(), "0123456789");
}

#[tokio::test]
async fn a_truncated_answer_is_never_taken_for_whole() {
    let cut = |_: &_, _| {
        Act::Drip(
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc".into()],
            Duration::ZERO,
        )
    };
    let server = Server::start(cut).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let error = bucket.get("x", 1000).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{error}");
    assert_eq!(server.seen().len(), 2, "an object is read once more");
    let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 1"]), limits()).await;
    let error = bucket.list("x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{error}");

    let server = Server::start(|_, _| ok("", "<html>this is a portal</html>")).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 1"]), limits()).await;
    assert!(bucket.list("x").await.is_err(), "another document is no empty listing");
}

#[tokio::test]
async fn an_answer_that_broke_off_once_is_read_again() {
    let server = Server::start(|_, number| match number {
        1 => Act::Drip(
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab".into()],
            Duration::ZERO,
        ),
        _ => ok("", "abcd"),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    assert_eq!(bucket.get("x", 10).await.unwrap(), "abcd");
}

#[tokio::test]
async fn a_listing_goes_through_all_pages_and_not_round_in_circles() {
    let page = |key: &str, next: &str| {
        let more = if next.is_empty() {
            "<IsTruncated>false</IsTruncated>".to_owned()
        } else {
            format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>")
        };
        let contents = format!("<Contents><Key>d/{key}</Key><Size>7</Size></Contents>");
        ok("", &format!("<ListBucketResult>{contents}{more}</ListBucketResult>"))
    };
    let server = Server::start(
        move |request, _| match request.target.split("continuation-token=").nth(1) {
            None => page("2", "one"),
            Some(token) if token.starts_with("one") => page("1", "two"),
            Some(_) => page("3", ""),
        },
    )
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let keys: Vec<_> = bucket
        .list("d")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.key)
        .collect();
    assert_eq!(keys, ["d/1", "d/2", "d/3"]);

    let server = Server::start(move |_, _| page("1", "again")).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    assert!(
        bucket
            .list("d")
            .await
            .unwrap_err()
            .to_string()
            .contains("does not advance")
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn dropping_a_put_closes_its_connection() {
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    static CLOSED: AtomicUsize = AtomicUsize::new(0);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while matches!(socket.read(&mut buffer).await, Ok(1..)) {
                    OPENED.store(1, Ordering::SeqCst);
                }
                CLOSED.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let bucket = open(&s3_yaml(&host, "thanos", &[]), limits()).await;
    let source = unlinked(&content(1000));
    let put = bucket.put_file("x", &source);
    let is = |count: &'static AtomicUsize| async || (count.load(Ordering::SeqCst) == 1).then_some(());
    tokio::select! {
        put = put => panic!("nobody answers: {put:?}"),
        () = wait_until(LONG, "the request comes", is(&OPENED)) => {}
    }
    wait_until(LONG, "the connection is closed", is(&CLOSED)).await;
}
