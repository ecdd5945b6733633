//! Stores and networks that misbehave.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use narthex::objstore::{ErrorKind, Limits, Scope};

use super::{
    content, limits, open, s3_yaml,
    scripted::{Act, Server, answer, ok},
    stores::Store,
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
    let faults = [
        "500 Internal Server Error",
        "503 Slow Down",
        "429 Too Many Requests",
        "408 Request Timeout",
        "cut",
    ];
    for (store, fault) in Store::ALL
        .into_iter()
        .flat_map(|store| faults.map(|fault| (store, fault)))
    {
        let content = content(400_000);
        let all = content.clone();
        let server = Server::start(move |request, number| match (number, fault) {
            (1 | 2, "cut") => Act::Cut(100_000),
            (1 | 2, status) => store.refusal(status, "Odd", "not now"),
            _ => store.take(request, &all),
        })
        .await;
        let bucket = open(&store.yaml(&server.host, &[]), limits()).await;
        bucket.put_file("x", &unlinked(&content)).await.unwrap();
        let seen = server.seen();
        assert_eq!(seen.len(), 3 + store.before_bytes(), "{store:?} {fault}");
        assert!(
            seen.last().is_some_and(|last| last.body == content),
            "{store:?} {fault}: the body is sent from its start"
        );
    }
}

#[tokio::test]
async fn attempts_are_as_many_as_configured() {
    for store in Store::ALL {
        for (status, code, kind) in [
            ("503 Slow Down", store.busy(), ErrorKind::Throttled),
            ("500 Internal Server Error", "InternalError", ErrorKind::Server),
        ] {
            let server = Server::start(move |_, _| store.refusal(status, code, "not now")).await;
            let bucket = open(&store.yaml(&server.host, &["max_retries: 2"]), limits()).await;
            let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
            assert_eq!(error.kind, kind, "{store:?} {error}");
            assert!(error.kind.is_ambiguous() && error.kind.is_transient());
            assert!(
                error.to_string().contains(code) && error.to_string().contains("not now"),
                "{store:?} {error}"
            );
            assert_eq!(server.seen().len(), 2, "{store:?}");
        }
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
    let cases = [
        (&b"abc"[..], 0, "no answer at all"),
        (b"abc", 3, "no answer to a body"),
        (&big, 1 << 20, "a body that is not read on"),
    ];
    // Side by side: each waits for its stalls.
    let cases = Store::ALL.into_iter().flat_map(|store| cases.map(|case| (store, case)));
    let cases = cases.map(async |(store, (body, stall, name))| {
        let all = body.to_vec();
        let server = Server::start(move |request, _| match request.method.as_str() {
            "POST" => store.take(request, &all),
            _ => Act::Stall(stall),
        })
        .await;
        let bucket = open(&store.yaml(&server.host, &[]), impatient()).await;
        let start = Instant::now();
        let error = bucket.put_file("x", &unlinked(body)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Stalled, "{store:?}, {name}: {error}");
        assert!(error.to_string().contains("no progress"), "{error}");
        let sent = server.seen().iter().filter(|request| request.method == "PUT").count();
        assert_eq!(sent, 2, "{store:?}, {name}: tried once more on another connection");
        assert!(start.elapsed() < LONG, "{store:?}, {name}");
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn one_call_makes_no_more_requests_than_configured_whatever_goes_wrong() {
    let cases = [
        // Tried again by the SDK, and then once more by us, on the same account.
        (3, &[2][..], 3),
        (4, &[1, 2], 2),
        (4, &[1, 3], 3),
        (1, &[1], 1),
        (2, &[2], 2),
    ];
    // Side by side: each waits for its stalls.
    let cases = Store::ALL.into_iter().flat_map(|store| cases.map(|case| (store, case)));
    let cases = cases.map(async |(store, (retries, stalls, expected))| {
        let server = Server::start(move |_, number| match stalls.contains(&number) {
            true => Act::Stall(0),
            false => store.refusal("503 Slow Down", store.busy(), "not now"),
        })
        .await;
        let more = format!("max_retries: {retries}");
        let bucket = open(&store.yaml(&server.host, &[&more]), impatient()).await;
        let case = format!("{store:?} {retries} {stalls:?}");
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
    let each = Store::ALL.map(async |store| {
        let server = Server::start(move |request, _| {
            let Act::Answer(answer) = store.take(request, b"") else {
                unreachable!()
            };
            Act::Late(impatient().stall * 2, answer)
        })
        .await;
        let granted = "http_config: {response_header_timeout: 1m}";
        let bucket = open(&store.yaml(&server.host, &[granted]), impatient()).await;
        bucket.put_bytes("x", Bytes::new()).await.unwrap();
        bucket.stat("x").await.unwrap();
        assert_eq!(server.seen().len(), 2 + store.before_bytes(), "nothing was asked twice");
        let bucket = open(&store.yaml(&server.host, &[]), impatient()).await;
        let error = bucket.stat("x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Stalled, "{store:?}: {error}");
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_stalled_read_ends() {
    let answers = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
    ];
    let cases = Store::ALL
        .into_iter()
        .flat_map(|store| answers.map(|answer| (store, answer)));
    let cases = cases.map(async |(store, answer)| {
        let server = Server::start(move |_, _| Act::Drip(vec![answer.to_owned()], Duration::from_secs(3600))).await;
        let bucket = open(&store.yaml(&server.host, &[]), impatient()).await;
        for error in [
            bucket.get("x", 1000).await.unwrap_err(),
            bucket.list("x").await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Stalled, "{store:?} {answer:?}: {error}");
        }
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn a_connection_that_is_refused_is_a_network_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    for store in Store::ALL {
        let bucket = open(&store.yaml(&host, &["max_retries: 2"]), limits()).await;
        let error = bucket.list("x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Network, "{store:?}: {error}");
        assert!(error.to_string().contains("refused"), "{store:?}: {error}");
    }
}

#[tokio::test]
async fn a_slow_upload_is_not_cut_while_it_moves() {
    // Less than what is sent in parts.
    let content = &content(12 << 20);
    let each = Store::ALL.map(async |store| {
        let all = content.clone();
        let server = Server::start(move |request, _| {
            let Act::Answer(answer) = store.take(request, &all) else {
                unreachable!()
            };
            Act::Slowly(512 << 10, Duration::from_millis(200), answer)
        })
        .await;
        let bucket = open(&store.yaml(&server.host, &[]), patient()).await;
        let start = Instant::now();
        bucket.put_file("x", &unlinked(content)).await.unwrap();
        assert!(start.elapsed() > patient().stall, "the test is about something slow");
        assert_eq!(server.seen().len(), 1 + store.before_bytes(), "{store:?}");
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_slow_answer_is_not_cut_while_it_moves() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_owned();
    let mut pieces = vec![head];
    pieces.extend((0..10).map(|i| i.to_string()));
    let server = Server::start(move |_, _| Act::Drip(pieces.clone(), Duration::from_millis(400))).await;
    let each = Store::ALL.map(async |store| {
        let bucket = open(&store.yaml(&server.host, &[]), patient()).await;
        assert_eq!(bucket.get("x", 10).await.unwrap(), "0123456789", "{store:?}");
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_truncated_answer_is_never_taken_for_whole() {
    let cut = |_: &_, _| {
        Act::Drip(
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc".into()],
            Duration::ZERO,
        )
    };
    for store in Store::ALL {
        let server = Server::start(cut).await;
        let bucket = open(&store.yaml(&server.host, &["max_retries: 2"]), limits()).await;
        let error = bucket.get("x", 1000).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Network, "{store:?}: {error}");
        assert_eq!(server.seen().len(), 2, "{store:?}: an object is read once more");
        let bucket = open(&store.yaml(&server.host, &["max_retries: 1"]), limits()).await;
        let error = bucket.list("x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Network, "{store:?}: {error}");

        let server = Server::start(|_, _| ok("", "<html>this is a portal</html>")).await;
        let bucket = open(&store.yaml(&server.host, &["max_retries: 1"]), limits()).await;
        assert!(
            bucket.list("x").await.is_err(),
            "{store:?}: another document is no empty listing"
        );
        // S3 has no words for it; a listing proves what is there before anything becomes visible.
        let put = bucket.put_bytes("x", Bytes::from_static(b"x")).await;
        assert_eq!(put.is_ok(), store == Store::S3, "{store:?}: it is no acknowledgement");
    }
}

#[tokio::test]
async fn an_answer_that_broke_off_once_is_read_again() {
    for store in Store::ALL {
        let server = Server::start(|_, number| match number {
            1 => Act::Drip(
                vec!["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab".into()],
                Duration::ZERO,
            ),
            _ => ok("", "abcd"),
        })
        .await;
        let bucket = open(&store.yaml(&server.host, &[]), limits()).await;
        assert_eq!(bucket.get("x", 10).await.unwrap(), "abcd", "{store:?}");
    }
}

#[tokio::test]
async fn a_listing_goes_through_all_pages_and_not_round_in_circles() {
    for store in Store::ALL {
        let server = Server::start(move |request, _| match store.page_asked(request).as_deref() {
            None => store.page("2", "one"),
            Some("one") => store.page("1", "two"),
            Some(_) => store.page("3", ""),
        })
        .await;
        let bucket = open(&store.yaml(&server.host, &[]), limits()).await;
        let keys: Vec<_> = bucket
            .list("d")
            .await
            .unwrap()
            .into_iter()
            .map(|object| object.key)
            .collect();
        assert_eq!(keys, ["d/1", "d/2", "d/3"], "{store:?}");

        let server = Server::start(move |_, _| store.page("1", "again")).await;
        let bucket = open(&store.yaml(&server.host, &[]), limits()).await;
        let error = bucket.list("d").await.unwrap_err();
        assert!(error.to_string().contains("does not advance"), "{store:?}: {error}");
        assert_eq!(server.seen().len(), 2, "{store:?}");

        let circle = move |request: &_, _| match store.page_asked(request).as_deref() {
            Some("one") => store.page("1", "two"),
            _ => store.page("2", "one"),
        };
        let server = Server::start(circle).await;
        let bucket = open(&store.yaml(&server.host, &[]), limits()).await;
        let error = bucket.list("d").await.unwrap_err();
        assert!(error.to_string().contains("does not advance"), "{store:?}: {error}");
        assert_eq!(server.seen().len(), 3, "{store:?}");
    }
}

#[tokio::test]
async fn dropping_a_put_closes_its_connection() {
    for store in Store::ALL {
        closes_the_connection_of_a_dropped_put(store).await;
    }
}

async fn closes_the_connection_of_a_dropped_put(store: Store) {
    let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (began, ended) = (Arc::clone(&opened), Arc::clone(&closed));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        while let Ok((mut socket, _)) = listener.accept().await {
            let (began, ended) = (Arc::clone(&began), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while matches!(socket.read(&mut buffer).await, Ok(1..)) {
                    began.store(1, Ordering::SeqCst);
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let bucket = open(&store.yaml(&host, &[]), limits()).await;
    let source = unlinked(&content(1000));
    let put = bucket.put_file("x", &source);
    tokio::select! {
        put = put => panic!("nobody answers: {put:?}"),
        () = wait_until(LONG, "the request comes", async || (opened.load(Ordering::SeqCst) == 1).then_some(())) => {}
    }
    let is_closed = async || (closed.load(Ordering::SeqCst) == 1).then_some(());
    wait_until(LONG, "the connection is closed", is_closed).await;
}
