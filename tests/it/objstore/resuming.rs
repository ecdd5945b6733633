//! Reading from stores that break off, stall, or answer something else than was asked for; and holding objects against
//! files where the store tells little.

use std::time::Duration;

use futures_util::TryStreamExt;
use narthex::objstore::{Comparison, Error, ErrorKind, Limits, Proof, RateLimit};

use super::{
    limits, open, s3_yaml,
    scripted::{Act, Request, Server, answer, ok, refusal, take},
    stores::Store,
    unlinked,
};

const OBJECT: &str = "0123456789";

/// A stall time that a test can wait for.
fn impatient() -> Limits {
    Limits {
        stall: Duration::from_secs(1),
        ..limits()
    }
}

/// The head of an answer with the whole object, and the first bytes of it; then the connection is closed.
fn broken(headers: &str, bytes: &str) -> Act {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n{headers}\r\n{bytes}");
    Act::Drip(vec![head], Duration::ZERO)
}

/// The same with the rest of the object.
fn broken_rest(store: Store, from: usize, bytes: &str) -> Act {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {from}-9/10\r\n{}\r\n{bytes}",
        10 - from,
        store.tag()
    );
    Act::Drip(vec![head], Duration::ZERO)
}

fn rest(store: Store, from: usize) -> Act {
    let headers = format!("content-range: bytes {from}-9/10\r\n{}", store.tag());
    answer("206 Partial Content", &headers, &OBJECT[from..])
}

async fn read(store: Store, server: &Server, limits: Limits, offset: u64) -> Result<String, Error> {
    let bucket = open(&store.yaml(&server.host, &["max_retries: 2"]), limits).await;
    let mut reading = bucket.read("x", offset).await?;
    let (len, mut text) = (reading.len, String::new());
    while let Some(piece) = reading.pieces.try_next().await? {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert_eq!(text.len() as u64, len);
    Ok(text)
}

/// What was asked for: `Range`, and the version of the object.
fn asked(store: Store, server: &Server) -> Vec<(String, String)> {
    let asked = |request: Request| (request.header("range").to_owned(), store.wants(&request));
    server.seen().into_iter().map(asked).collect()
}

/// Ranges, and whether the version is that of the first answer.
fn pairs<const N: usize>(store: Store, pairs: [(&str, bool); N]) -> Vec<(String, String)> {
    let version = match store {
        Store::S3 | Store::Azure => "\"e1\"",
        Store::Google => "17",
    };
    let pair = |(range, same): (&str, bool)| (range.into(), if same { version.into() } else { String::new() });
    pairs.map(pair).into()
}

#[tokio::test]
async fn what_breaks_off_is_read_on_from_there() {
    for store in Store::ALL {
        let server = Server::start(move |_, number| match number {
            1 => broken(store.tag(), ""),
            2 => broken(store.tag(), "012"),
            3 => store.refusal("503 Slow Down", store.busy(), "not now"),
            4 => broken_rest(store, 3, "3456"),
            5 => broken_rest(store, 7, ""),
            _ => rest(store, 7),
        })
        .await;
        assert_eq!(read(store, &server, limits(), 0).await.unwrap(), OBJECT);
        let expected = [
            ("", false),
            ("", true),
            ("bytes=3-", true),
            ("bytes=3-", true),
            ("bytes=7-", true),
            ("bytes=7-", true),
        ];
        assert_eq!(asked(store, &server), pairs(store, expected));
    }
}

#[tokio::test]
async fn a_reading_from_an_offset_is_read_on_too() {
    for store in Store::ALL {
        let server = Server::start(move |_, number| match number {
            1 => broken_rest(store, 2, "23"),
            _ => rest(store, 4),
        })
        .await;
        assert_eq!(read(store, &server, limits(), 2).await.unwrap(), OBJECT[2..]);
        assert_eq!(
            asked(store, &server),
            pairs(store, [("bytes=2-", false), ("bytes=4-", true)])
        );
    }
}

#[tokio::test]
async fn breaking_off_without_end_is_an_error() {
    for store in Store::ALL {
        let server = Server::start(move |_, number| match number {
            1 => broken(store.tag(), "01"),
            _ => broken_rest(store, 2, ""),
        })
        .await;
        let error = read(store, &server, limits(), 0).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Network, "{store:?}: {error}");
        assert!(error.to_string().contains("after 2 of 10 bytes"), "{store:?}: {error}");
        assert_eq!(server.seen().len(), 3, "{store:?}");
    }
}

#[tokio::test]
async fn a_stall_in_the_middle_is_tried_again_and_then_an_error() {
    let each = Store::ALL.map(async |store| {
        let server = Server::start(move |_, number| match number {
            1 => Act::Drip(
                vec![format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n{}\r\n01",
                    store.tag()
                )],
                Duration::from_secs(3600),
            ),
            _ => Act::Stall(0),
        })
        .await;
        let error = read(store, &server, impatient(), 0).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Stalled, "{store:?}: {error}");
        assert_eq!(server.seen().len(), 3, "{store:?}");

        let server = Server::start(|_, _| Act::Stall(0)).await;
        let error = read(store, &server, impatient(), 0).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Stalled, "{store:?}: {error}");
        assert_eq!(
            server.seen().len(),
            2,
            "{store:?}: as often as anything else that never began"
        );
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn another_range_than_the_one_asked_for_is_refused() {
    let other = |range: &'static str| answer("206 Partial Content", &format!("content-range: {range}\r\n"), "56789");
    for store in Store::ALL {
        for offset in [5, 4] {
            for range in [
                "bytes 0-4/10",
                "bytes 4-8/10",
                "bytes 5-9/*",
                "bytes 6-10/11",
                "bytes=5-9/10",
                "",
            ] {
                let server = Server::start(move |_, _| other(range)).await;
                let error = read(store, &server, limits(), offset).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Refused, "{store:?} {range}: {error}");
                assert_eq!(server.seen().len(), 1);
            }
        }
        let server = Server::start(move |_, _| ok(store.tag(), OBJECT)).await;
        let error = read(store, &server, limits(), 5).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{store:?}: {error}");
        assert!(error.to_string().contains("ignores Range"), "{store:?}: {error}");
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let server = Server::start(move |_, _| Act::Answer(chunked.into())).await;
        let error = read(store, &server, limits(), 0).await.unwrap_err();
        assert!(
            error.to_string().contains("does not tell how many"),
            "{store:?}: {error}"
        );
    }
}

#[tokio::test]
async fn an_object_that_was_replaced_is_never_read_on() {
    type Second = fn(Store) -> Act;
    let seconds: [(Second, ErrorKind); 6] = [
        (
            |store| store.refusal("412 Precondition Failed", "PreconditionFailed", "no"),
            ErrorKind::Integrity,
        ),
        (
            |store| store.refusal("416 Range Not Satisfiable", "InvalidRange", "no"),
            ErrorKind::Integrity,
        ),
        (
            |_| {
                answer(
                    "206 Partial Content",
                    "etag: \"e2\"\r\nx-goog-generation: 18\r\ncontent-range: bytes 4-9/10\r\n",
                    "456789",
                )
            },
            ErrorKind::Integrity,
        ),
        (
            |store| {
                let headers = format!("{}content-range: bytes 4-10/11\r\n", store.tag());
                answer("206 Partial Content", &headers, "456789a")
            },
            ErrorKind::Integrity,
        ),
        (|store| ok(store.tag(), OBJECT), ErrorKind::Refused),
        (
            |store| store.refusal("404 Not Found", "NoSuchKey", "gone"),
            ErrorKind::NotFound,
        ),
    ];
    for store in Store::ALL {
        for (nth, (second, kind)) in seconds.into_iter().enumerate() {
            let server = Server::start(move |_, number| match number {
                1 => broken(store.tag(), "0123"),
                _ => second(store),
            })
            .await;
            let error = read(store, &server, limits(), 0).await.unwrap_err();
            assert_eq!(error.kind, kind, "{store:?} {nth}: {error}");
            assert_eq!(server.seen().len(), 2, "{store:?} {nth}");
        }
        let server = Server::start(|_, _| broken("", "0123")).await;
        let error = read(store, &server, limits(), 0).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Network, "{store:?}: {error}");
        assert_eq!(
            server.seen().len(),
            1,
            "{store:?}: without a version nobody knows whether it is the same"
        );
    }
}

#[tokio::test]
async fn an_offset_at_the_end_gives_nothing_and_one_beyond_is_an_error() {
    for store in Store::ALL {
        let server = Server::start(move |request, _| match &*request.method {
            "HEAD" => Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".into()),
            _ if request.target.contains("fields=") => ok("", r#"{"name": "x", "size": "10"}"#),
            _ => store.refusal("416 Range Not Satisfiable", "InvalidRange", "no"),
        })
        .await;
        assert_eq!(read(store, &server, limits(), 10).await.unwrap(), "", "{store:?}");
        let error = read(store, &server, limits(), 11).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{store:?}: {error}");
        assert!(error.to_string().contains("has 10 bytes"), "{store:?}: {error}");
    }
}

#[tokio::test]
async fn waiting_for_the_pace_is_no_stall() {
    let server = Server::start(|request, _| match &*request.method {
        "PUT" => take(request),
        _ => ok("etag: \"e1\"\r\n", &"x".repeat(3000)),
    })
    .await;
    // Each step waits for half a second.
    let limits = Limits {
        rate_limit: RateLimit::at_most(2048),
        ..impatient()
    };
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits.clone()).await;
    bucket.put_file("x", &unlinked(&[b'x'; 3000])).await.unwrap();
    assert_eq!(read(Store::S3, &server, limits.clone(), 0).await.unwrap().len(), 3000);
    assert_eq!(server.seen().len(), 2);
    assert_eq!((limits.rate_limit.sent(), limits.rate_limit.received()), (3000, 3000));
}

#[tokio::test]
async fn the_size_of_one_object_is_what_the_store_says_or_an_error() {
    for (head, expected) in [
        ("200 OK\r\ncontent-length: 10", Ok(Some(10))),
        ("200 OK\r\ncontent-length: 0", Ok(Some(0))),
        ("404 Not Found\r\ncontent-length: 0", Ok(None)),
        ("403 Forbidden\r\ncontent-length: 0", Err(ErrorKind::Forbidden)),
        ("405 Method Not Allowed\r\ncontent-length: 0", Err(ErrorKind::Refused)),
        ("200 OK\r\ntransfer-encoding: chunked", Err(ErrorKind::Refused)),
    ] {
        let server = Server::start(move |_, _| Act::Answer(format!("HTTP/1.1 {head}\r\n\r\n"))).await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        assert_eq!(bucket.stat("x").await.map_err(|error| error.kind), expected, "{head}");
        let seen = server.seen();
        assert_eq!((seen.len(), &*seen[0].method), (1, "HEAD"));
    }
}

/// An answer to HEAD, and after it what GET gets.
async fn compare(
    head: &str,
    headers: &'static str,
    get: Option<&'static str>,
    part: Option<&str>,
) -> (Comparison, usize) {
    let head = format!("HTTP/1.1 {head}\r\n{headers}\r\n");
    let part = part.map(|part| format!("HTTP/1.1 {part}\r\n\r\n"));
    let server = Server::start(move |request, _| match &*request.method {
        "HEAD" => {
            assert_eq!(request.header("x-amz-checksum-mode"), "ENABLED");
            match (&part, request.target.contains("partNumber=1")) {
                (Some(part), true) => Act::Answer(part.clone()),
                _ => Act::Answer(head.clone()),
            }
        }
        _ => get.map_or_else(|| refusal("404 Not Found", "NoSuchKey", "no"), |get| ok("", get)),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 1"]), limits()).await;
    let found = bucket.compare("x", &unlinked(OBJECT.as_bytes())).await.unwrap();
    (found, server.seen().len())
}

#[tokio::test]
async fn where_the_store_tells_no_checksum_the_object_is_read_back() {
    let same = Comparison::Same(Proof::ReadBack);
    let differs = |at: u32| Comparison::Different(format!("byte {at} differs (counted from 0)"));
    let found = "200 OK\r\ncontent-length: 10";
    for (head, headers, get, expected, requests) in [
        (found, "", Some(OBJECT), same.clone(), 2),
        (found, "", Some("0123456780"), differs(9), 2),
        (found, "etag: \"0\"\r\n", Some("x123456780"), differs(0), 2),
        (found, "x-amz-checksum-sha256: AAAA\r\n", Some(OBJECT), same.clone(), 2),
        (found, "x-amz-checksum-crc32c: what?\r\n", Some(OBJECT), same.clone(), 2),
        ("403 Forbidden\r\ncontent-length: 0", "", Some(OBJECT), same.clone(), 2),
        ("405 Method Not Allowed\r\ncontent-length: 0", "", Some(OBJECT), same, 2),
        (
            "403 Forbidden\r\ncontent-length: 0",
            "",
            Some("012345678"),
            Comparison::Different("the object has 9 bytes, the file 10".into()),
            2,
        ),
        ("403 Forbidden\r\ncontent-length: 0", "", None, Comparison::Absent, 2),
        (
            "404 Not Found\r\ncontent-length: 0",
            "",
            Some(OBJECT),
            Comparison::Absent,
            1,
        ),
        (
            "200 OK\r\ncontent-length: 11",
            "",
            Some(OBJECT),
            Comparison::Different("the object has 11 bytes, the file 10".into()),
            1,
        ),
    ] {
        let got = compare(head, headers, get, None).await;
        assert_eq!(got, (expected, requests), "{head} {headers}");
    }
}

#[tokio::test]
async fn a_checksum_counts_as_far_as_it_says_something() {
    let found = "200 OK\r\ncontent-length: 10";
    let part = Some("206 Partial Content\r\ncontent-length: 6");
    let (same, read) = (Comparison::Same(Proof::Checksum), Comparison::Same(Proof::ReadBack));
    let differs = "the store holds bytes with CRC32C AAAAAA==, the file's is KAwGng==";
    let differs = Comparison::Different(differs.into());
    // CRC32C of the digits, and of the checksums of "012345" and "6789".
    for (headers, part, expected, requests) in [
        ("x-amz-checksum-crc32c: KAwGng==\r\n", None, same.clone(), 1),
        (
            "x-amz-checksum-crc32c: AAAAAA==\r\netag: \"e\"\r\n",
            None,
            differs.clone(),
            1,
        ),
        (
            "x-amz-checksum-crc32c: AAAAAA==\r\nx-amz-checksum-type: FULL_OBJECT\r\netag: \"e-2\"\r\n",
            None,
            differs,
            1,
        ),
        // Not of all bytes, or perhaps not.
        (
            "x-amz-checksum-crc32c: AAAAAA==\r\netag: \"e-2\"\r\n",
            None,
            read.clone(),
            2,
        ),
        (
            "x-amz-checksum-crc32c: KAwGng==\r\nx-amz-checksum-type: COMPOSITE\r\n",
            None,
            read.clone(),
            2,
        ),
        ("x-amz-checksum-crc32c: uI8KoA==-2\r\n", part, same, 2),
        // Parts of other lengths, or of lengths that nobody knows.
        ("x-amz-checksum-crc32c: AAAAAA==-2\r\n", part, read.clone(), 3),
        ("x-amz-checksum-crc32c: AAAAAA==-3\r\n", part, read.clone(), 3),
        (
            "x-amz-checksum-crc32c: AAAAAA==-2\r\n",
            Some("501 Not Implemented\r\ncontent-length: 0"),
            read,
            3,
        ),
    ] {
        let got = compare(found, headers, Some(OBJECT), part).await;
        assert_eq!(got, (expected, requests), "{headers} {part:?}");
    }
}

#[tokio::test]
async fn of_a_store_that_knows_no_ranges_the_start_of_an_object_is_taken_and_no_more() {
    let whole = || ok("etag: \"e1\"\r\n", OBJECT);
    // One byte more than is read of it never comes.
    let endless = || {
        Act::Drip(
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n0123".into()],
            Duration::ZERO,
        )
    };
    let cut = || {
        Act::Drip(
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n012".into()],
            Duration::ZERO,
        )
    };
    for store in Store::ALL {
        let server = Server::start(move |_, nth| match nth {
            1 => whole(),
            2 => endless(),
            3 => cut(),
            4 => store.refusal("416 Requested Range Not Satisfiable", "InvalidRange", "no such range"),
            _ => whole(),
        })
        .await;
        let bucket = open(&store.yaml(&server.host, &["max_retries: 2"]), impatient()).await;
        assert_eq!(bucket.read_start("x", 4).await.unwrap(), "0123", "{store:?}");
        assert_eq!(bucket.read_start("x", 4).await.unwrap(), "0123", "{store:?}");
        let refused = {
            // What breaks off is asked for again; an empty object has no first byte.
            bucket.read_start("x", 4).await.unwrap_err()
        };
        assert_eq!(refused.kind, ErrorKind::Refused, "{store:?}: {refused}");
        assert_eq!(bucket.read_start("x", 100).await.unwrap(), OBJECT, "{store:?}");
        let ranges: Vec<String> = asked(store, &server).into_iter().map(|(range, _)| range).collect();
        assert_eq!(
            ranges,
            ["bytes=0-3", "bytes=0-3", "bytes=0-3", "bytes=0-3", "bytes=0-99"],
            "{store:?}"
        );
    }
}
