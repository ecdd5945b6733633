//! Reading from stores that break off, stall, or answer something else than was asked for; and holding objects against
//! files where the store tells little.

use std::time::Duration;

use futures_util::TryStreamExt;
use narthex::objstore::{Comparison, Error, ErrorKind, Limits, Proof, RateLimit};

use super::{
    limits, open, s3_yaml,
    scripted::{Act, Request, Server, answer, ok, refusal, take},
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
fn broken_rest(from: usize, bytes: &str) -> Act {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {from}-9/10\r\netag: \"e1\"\r\n\r\n{bytes}",
        10 - from
    );
    Act::Drip(vec![head], Duration::ZERO)
}

fn rest(from: usize) -> Act {
    let headers = format!("content-range: bytes {from}-9/10\r\netag: \"e1\"\r\n");
    answer("206 Partial Content", &headers, &OBJECT[from..])
}

async fn read(server: &Server, limits: Limits, offset: u64) -> Result<String, Error> {
    let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 2"]), limits).await;
    let mut reading = bucket.read("x", offset).await?;
    let (len, mut text) = (reading.len, String::new());
    while let Some(piece) = reading.pieces.try_next().await? {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert_eq!(text.len() as u64, len);
    Ok(text)
}

/// What was asked for: `Range` and `If-Match`.
fn asked(server: &Server) -> Vec<(String, String)> {
    let asked = |request: Request| {
        (
            request.header("range").to_owned(),
            request.header("if-match").to_owned(),
        )
    };
    server.seen().into_iter().map(asked).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(range, e_tag)| (range.into(), e_tag.into())).into()
}

#[tokio::test]
async fn what_breaks_off_is_read_on_from_there() {
    let server = Server::start(|_, number| match number {
        1 => broken("etag: \"e1\"\r\n", ""),
        2 => broken("etag: \"e1\"\r\n", "012"),
        3 => refusal("503 Slow Down", "SlowDown", "not now"),
        4 => broken_rest(3, "3456"),
        5 => broken_rest(7, ""),
        _ => rest(7),
    })
    .await;
    assert_eq!(read(&server, limits(), 0).await.unwrap(), OBJECT);
    let e_tag = "\"e1\"";
    let expected = [
        ("", ""),
        ("", e_tag),
        ("bytes=3-", e_tag),
        ("bytes=3-", e_tag),
        ("bytes=7-", e_tag),
        ("bytes=7-", e_tag),
    ];
    assert_eq!(asked(&server), pairs(expected));
}

#[tokio::test]
async fn a_reading_from_an_offset_is_read_on_too() {
    let server = Server::start(|_, number| match number {
        1 => broken_rest(2, "23"),
        _ => rest(4),
    })
    .await;
    assert_eq!(read(&server, limits(), 2).await.unwrap(), OBJECT[2..]);
    assert_eq!(asked(&server), pairs([("bytes=2-", ""), ("bytes=4-", "\"e1\"")]));
}

#[tokio::test]
async fn breaking_off_without_end_is_an_error() {
    let server = Server::start(|_, number| match number {
        1 => broken("etag: \"e1\"\r\n", "01"),
        _ => broken_rest(2, ""),
    })
    .await;
    let error = read(&server, limits(), 0).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{error}");
    assert!(error.to_string().contains("after 2 of 10 bytes"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_stall_in_the_middle_is_tried_again_and_then_an_error() {
    let server = Server::start(|_, number| match number {
        1 => Act::Drip(
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"e1\"\r\n\r\n01".into()],
            Duration::from_secs(3600),
        ),
        _ => Act::Stall(0),
    })
    .await;
    let error = read(&server, impatient(), 0).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Stalled, "{error}");
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(|_, _| Act::Stall(0)).await;
    let error = read(&server, impatient(), 0).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Stalled, "{error}");
    assert_eq!(server.seen().len(), 2, "as often as anything else that never began");
}

#[tokio::test]
async fn another_range_than_the_one_asked_for_is_refused() {
    let other = |range: &'static str| answer("206 Partial Content", &format!("content-range: {range}\r\n"), "56789");
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
            let error = read(&server, limits(), offset).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{range}: {error}");
            assert_eq!(server.seen().len(), 1);
        }
    }
    let server = Server::start(|_, _| ok("etag: \"e1\"\r\n", OBJECT)).await;
    let error = read(&server, limits(), 5).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("ignores Range"), "{error}");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let server = Server::start(move |_, _| Act::Answer(chunked.into())).await;
    let error = read(&server, limits(), 0).await.unwrap_err();
    assert!(error.to_string().contains("does not tell how many"), "{error}");
}

#[tokio::test]
async fn an_object_that_was_replaced_is_never_read_on() {
    type Second = fn() -> Act;
    let seconds: [(Second, ErrorKind); 6] = [
        (
            || refusal("412 Precondition Failed", "PreconditionFailed", "no"),
            ErrorKind::Integrity,
        ),
        (
            || refusal("416 Range Not Satisfiable", "InvalidRange", "no"),
            ErrorKind::Integrity,
        ),
        (
            || {
                answer(
                    "206 Partial Content",
                    "etag: \"e2\"\r\ncontent-range: bytes 4-9/10\r\n",
                    "456789",
                )
            },
            ErrorKind::Integrity,
        ),
        (
            || {
                answer(
                    "206 Partial Content",
                    "etag: \"e1\"\r\ncontent-range: bytes 4-10/11\r\n",
                    "456789a",
                )
            },
            ErrorKind::Integrity,
        ),
        (|| ok("etag: \"e1\"\r\n", OBJECT), ErrorKind::Refused),
        (|| refusal("404 Not Found", "NoSuchKey", "gone"), ErrorKind::NotFound),
    ];
    for (nth, (second, kind)) in seconds.into_iter().enumerate() {
        let server = Server::start(move |_, number| match number {
            1 => broken("etag: \"e1\"\r\n", "0123"),
            _ => second(),
        })
        .await;
        let error = read(&server, limits(), 0).await.unwrap_err();
        assert_eq!(error.kind, kind, "{nth}: {error}");
        assert_eq!(server.seen().len(), 2, "{nth}");
    }
    let server = Server::start(|_, _| broken("", "0123")).await;
    let error = read(&server, limits(), 0).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{error}");
    assert_eq!(
        server.seen().len(),
        1,
        "without an ETag nobody knows whether it is the same"
    );
}

#[tokio::test]
async fn an_offset_at_the_end_gives_nothing_and_one_beyond_is_an_error() {
    let server = Server::start(|request, _| match &*request.method {
        "HEAD" => Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".into()),
        _ => refusal("416 Range Not Satisfiable", "InvalidRange", "no"),
    })
    .await;
    assert_eq!(read(&server, limits(), 10).await.unwrap(), "");
    let error = read(&server, limits(), 11).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("has 10 bytes"), "{error}");
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
    assert_eq!(read(&server, limits.clone(), 0).await.unwrap().len(), 3000);
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
    let server = Server::start(move |_, nth| match nth {
        1 => whole(),
        2 => endless(),
        3 => cut(),
        4 => refusal("416 Requested Range Not Satisfiable", "InvalidRange", "no such range"),
        _ => whole(),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 2"]), impatient()).await;
    assert_eq!(bucket.read_start("x", 4).await.unwrap(), "0123");
    assert_eq!(bucket.read_start("x", 4).await.unwrap(), "0123");
    let refused = {
        // What breaks off is asked for again; an empty object has no first byte.
        bucket.read_start("x", 4).await.unwrap_err()
    };
    assert_eq!(refused.kind, ErrorKind::Refused, "{refused}");
    assert_eq!(bucket.read_start("x", 100).await.unwrap(), OBJECT);
    let ranges: Vec<String> = asked(&server).into_iter().map(|(range, _)| range).collect();
    assert_eq!(
        ranges,
        ["bytes=0-3", "bytes=0-3", "bytes=0-3", "bytes=0-3", "bytes=0-99"]
    );
}
