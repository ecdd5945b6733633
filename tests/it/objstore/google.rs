//! Google's store by its wire: what the emulator does not do, and what goes wrong.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use narthex::objstore::{ErrorKind, PieceError, Placed};

use super::{
    content, limits, open,
    scripted::{Act, Server, answer},
    stores::{Store, described, opened},
    unlinked,
};

fn yaml(server: &Server) -> String {
    Store::Google.yaml(&server.host, &[])
}

/// CRC32C as Google writes it.
fn crc32c(bytes: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes())
}

fn has(bytes: usize) -> Act {
    let range = match bytes {
        0 => String::new(),
        bytes => format!("range: bytes=0-{}\r\n", bytes - 1),
    };
    answer("308 Resume Incomplete", &range, "")
}

#[tokio::test]
async fn what_breaks_off_goes_on_from_the_byte_that_the_store_has() {
    const HAS: usize = 65_536;
    let all = content(400_000);
    let whole = all.clone();
    let server = Server::start(move |request, number| match number {
        1 => opened(request),
        2 => Act::Cut(100_000),
        3 => has(HAS),
        _ => described(&whole),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    bucket.put_file("x", &unlinked(&all)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(
        seen[0].target,
        "/upload/storage/v1/b/thanos/o?uploadType=resumable&name=x"
    );
    let about: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(about, serde_json::json!({"crc32c": crc32c(&all)}));
    assert_eq!(
        (seen[1].method.as_str(), seen[1].header("content-length")),
        ("PUT", "400000")
    );
    assert_eq!(
        (seen[2].header("content-range"), seen[2].header("content-length")),
        ("bytes */400000", "0")
    );
    assert_eq!(seen[3].header("content-range"), "bytes 65536-399999/400000");
    assert!(seen[3].body == all[HAS..], "the rest is sent, and nothing twice");
}

#[tokio::test]
async fn what_the_store_holds_is_compared_with_what_was_sent() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => opened(request),
        _ => described(b"something else"),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    let error = bucket
        .put_bytes("x", Bytes::from_static(b"what was sent."))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    assert!(error.to_string().contains("acknowledged CRC32C"), "{error}");
    assert_eq!(server.seen().len(), 4, "it was sent once more");
}

#[tokio::test]
async fn an_object_that_is_there_is_not_replaced_whenever_it_came() {
    for late in [false, true] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "POST" if late => opened(request),
            "DELETE" => answer("499 Client Closed Request", "", ""),
            _ => answer(
                "412 Precondition Failed",
                "",
                r#"{"error": {"code": 412, "message": "conditionNotMet"}}"#,
            ),
        })
        .await;
        let bucket = open(&yaml(&server), limits()).await;
        assert_eq!(
            bucket.put_new("x", Bytes::from_static(b"x")).await.unwrap(),
            Placed::Exists
        );
        bucket.settle().await;
        assert!(server.seen()[0].target.ends_with("&ifGenerationMatch=0"), "{late}");
    }
}

#[tokio::test]
async fn a_session_that_is_gone_is_opened_anew() {
    let server = Server::start(|request, number| match (request.method.as_str(), number) {
        ("POST", _) => opened(request),
        ("DELETE", _) => answer("404 Not Found", "", ""),
        (_, 2) => answer("410 Gone", "", ""),
        (_, 3) => answer("404 Not Found", "", ""),
        _ => described(b"x"),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap();
    let opened = server.seen().iter().filter(|request| request.method == "POST").count();
    assert_eq!(opened, 2);
}

#[tokio::test]
async fn what_is_made_while_it_is_sent_goes_out_in_chunks_and_none_of_it_is_lost() {
    const CHUNK: usize = 8 << 20;
    let all = content(CHUNK + CHUNK / 2);
    let whole = all.clone();
    let server = Server::start(move |request, number| match number {
        1 => opened(request),
        // It has taken a part of the chunk only.
        2 => has(1 << 20),
        3 => has(CHUNK),
        _ => described(&whole),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    let pieces: Vec<Result<Bytes, PieceError>> = all
        .chunks(100_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let sent = bucket
        .put_stream("x", stream::iter(pieces).boxed(), 1 << 30)
        .await
        .unwrap();
    assert_eq!(sent, all.len() as u64);
    let seen = server.seen();
    let ranges: Vec<&str> = seen[1..]
        .iter()
        .map(|request| request.header("content-range"))
        .collect();
    let (end, last) = (CHUNK - 1, all.len() - 1);
    assert_eq!(
        ranges,
        [
            format!("bytes 0-{end}/*"),
            format!("bytes 1048576-{end}/*"),
            format!("bytes {CHUNK}-{last}/{}", all.len())
        ]
    );
    assert!(seen[2].body == all[1 << 20..CHUNK] && seen[3].body == all[CHUNK..]);
}

#[tokio::test]
async fn a_stream_that_fails_leaves_no_object_and_ends_its_session() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => opened(request),
        "DELETE" => answer("499 Client Closed Request", "", ""),
        _ => has(8 << 20),
    })
    .await;
    let bucket = open(&yaml(&server), limits()).await;
    let pieces: Vec<Result<Bytes, PieceError>> =
        vec![Ok(content((8 << 20) + 1).into()), Err("the source is broken".into())];
    let error = bucket
        .put_stream("x", stream::iter(pieces).boxed(), 1 << 30)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Local, "{error}");
    bucket.settle().await;
    assert_eq!(server.seen().last().unwrap().method, "DELETE");
}

#[tokio::test]
async fn of_a_store_that_takes_nothing_no_more_is_asked_than_of_any_other() {
    let all = content(100_000);
    // It takes nothing; it fails and has nothing; it falls back; it takes a byte of it each time.
    for (kind, most) in [("nothing", 12), ("fails", 12), ("falls back", 12), ("a byte", 12)] {
        let server = Server::start(move |request, number| match (request.method.as_str(), kind) {
            ("POST", _) => opened(request),
            ("DELETE", _) => answer("499 Client Closed Request", "", ""),
            (_, "nothing") => has(0),
            (_, "fails") if request.header("content-length") != "0" => answer("503 Unavailable", "", ""),
            (_, "falls back") => has(if number % 2 == 0 { 50_000 } else { 0 }),
            (_, "a byte") => has(number),
            _ => has(0),
        })
        .await;
        let bucket = open(&Store::Google.yaml(&server.host, &["max_retries: 4"]), limits()).await;
        let error = bucket.put_file("x", &unlinked(&all)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Server, "{kind}: {error}");
        bucket.settle().await;
        let seen = server.seen();
        assert!(seen.len() <= most, "{kind}: {} requests", seen.len());
        let bodies = seen
            .iter()
            .filter(|request| request.method == "PUT" && !request.body.is_empty());
        assert!(bodies.count() <= 4, "{kind}");
    }
}
