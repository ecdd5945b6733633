//! What goes out on the wire.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use narthex::objstore::Placed;

use super::{
    content, limits, open, s3_yaml,
    scripted::{Act, Request, Server, ok, refusal, take},
    unlinked,
};

fn crc32c(data: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(data).to_be_bytes())
}

fn is_plain(request: &Request, body: &[u8]) {
    assert_eq!(request.header("content-length"), body.len().to_string());
    assert!(request.body == body, "the body is changed");
    for absent in [
        "transfer-encoding",
        "content-encoding",
        "x-amz-trailer",
        "x-amz-decoded-content-length",
        "expect",
    ] {
        assert_eq!(request.header(absent), "", "{absent}");
    }
}

#[tokio::test]
async fn a_file_goes_out_plain_with_its_checksum() {
    let server = Server::start(|request, _| take(request)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let content = content(300_000);
    bucket.put_file("01X/chunks/000001", &unlinked(&content)).await.unwrap();
    bucket
        .put_bytes("01X/meta.json", Bytes::from_static(b"{}"))
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen[0].target.starts_with("/thanos/01X/chunks/000001"),
        "{}",
        seen[0].target
    );
    is_plain(&seen[0], &content);
    is_plain(&seen[1], b"{}");
    assert_eq!(seen[0].header("x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
    for (request, body) in [(&seen[0], &content[..]), (&seen[1], b"{}")] {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.header("content-type"), "application/octet-stream");
        assert_eq!(request.header("x-amz-checksum-crc32c"), crc32c(body));
        assert_eq!(request.header("content-md5"), "");
        assert!(
            request.header("authorization").contains("x-amz-checksum-crc32c"),
            "the checksum is not signed"
        );
        assert_eq!(
            request
                .headers
                .keys()
                .filter(|name| name.starts_with("x-amz-checksum"))
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn md5_is_sent_where_the_configuration_asks_for_it() {
    let server = Server::start(|_, _| ok("etag: \"e\"\r\n", "")).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &["send_content_md5: true"]), limits()).await;
    bucket.put_file("x", &unlinked(b"abc")).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    is_plain(&seen[0], b"abc");
    assert_eq!(seen[0].header("content-md5"), "kAFQmDzST7DWlj99KOF/cg==");
    assert_eq!(seen[0].header("x-amz-checksum-crc32c"), "");
}

#[tokio::test]
async fn a_store_that_does_not_acknowledge_crc32c_gets_md5_from_then_on() {
    let server = Server::start(|_, _| ok("etag: \"e\"\r\n", "")).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    bucket.put_file("x", &unlinked(b"abc")).await.unwrap();
    bucket.put_file("y", &unlinked(b"abc")).await.unwrap();
    let md5 = server
        .seen()
        .iter()
        .map(|request| !request.header("content-md5").is_empty())
        .collect::<Vec<_>>();
    assert_eq!(md5, [false, true, true]);

    let bucket = open(&s3_yaml(&server.host, "thanos", &["send_content_md5: false"]), limits()).await;
    bucket.put_file("z", &unlinked(b"abc")).await.unwrap();
    assert_eq!(server.seen().len(), 4, "CRC32C is all that was asked for");
}

#[tokio::test]
async fn a_store_that_asks_for_md5_gets_it() {
    let server = Server::start(|request, _| match request.header("content-md5") {
        "" => refusal(
            "400 Bad Request",
            "InvalidRequest",
            "Content-MD5 HTTP header is required for Put Object requests with Object Lock parameters",
        ),
        _ => ok("etag: \"e\"\r\n", ""),
    })
    .await;
    for more in [&[][..], &["send_content_md5: false"]] {
        let before = server.seen().len();
        let bucket = open(&s3_yaml(&server.host, "thanos", more), limits()).await;
        bucket.put_bytes("x", Bytes::from_static(b"abc")).await.unwrap();
        bucket.put_bytes("y", Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(server.seen().len() - before, 3, "refused once, then known");
    }
}

#[tokio::test]
async fn what_is_to_be_new_goes_out_on_that_condition() {
    let server = Server::start(|request, number| match (request.header("if-none-match"), number) {
        ("*", 2) => refusal("412 Precondition Failed", "PreconditionFailed", "it is there"),
        ("*", 3) => refusal("409 Conflict", "ConditionalRequestConflict", "somebody else"),
        _ => take(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let body = Bytes::from_static(b"{}");
    assert_eq!(bucket.put_new("x", body.clone()).await.unwrap(), Placed::Created);
    assert_eq!(bucket.put_new("x", body.clone()).await.unwrap(), Placed::Exists);
    assert_eq!(bucket.put_new("y", body.clone()).await.unwrap(), Placed::Created);
    bucket.put_bytes("x", body).await.unwrap();
    let seen = server.seen();
    let conditions: Vec<_> = seen.iter().map(|request| request.header("if-none-match")).collect();
    assert_eq!(
        conditions,
        ["*", "*", "*", "*", ""],
        "412 is an answer, 409 is tried again"
    );
    assert!(
        seen[0].header("authorization").contains("if-none-match"),
        "the condition is not signed"
    );
    for request in &seen {
        is_plain(request, b"{}");
        assert_eq!(request.header("x-amz-checksum-crc32c"), crc32c(b"{}"));
    }
}

#[tokio::test]
async fn a_store_that_knows_no_condition_gets_plain_requests_from_then_on() {
    for (status, code, message) in [
        (
            "501 Not Implemented",
            "NotImplemented",
            "A header you provided is not implemented",
        ),
        (
            "400 Bad Request",
            "InvalidArgument",
            "unsupported header: If-None-Match",
        ),
    ] {
        for (more, takes_crc) in [("max_retries: 1", true), ("max_retries: 1", false)] {
            let server = Server::start(move |request, _| match request.header("if-none-match") {
                "" if takes_crc => take(request),
                "" => ok("etag: \"e\"\r\n", ""),
                _ => refusal(status, code, message),
            })
            .await;
            let bucket = open(&s3_yaml(&server.host, "thanos", &[more]), limits()).await;
            for key in ["x", "y"] {
                let placed = bucket.put_new(key, Bytes::from_static(b"{}")).await.unwrap();
                assert_eq!(placed, Placed::Created);
            }
            let seen = server.seen();
            let conditions = seen
                .iter()
                .filter(|request| !request.header("if-none-match").is_empty());
            assert_eq!(conditions.count(), 1, "{status}: refused once, then known");
            assert_eq!(
                seen.len(),
                if takes_crc { 3 } else { 4 },
                "{status}: and MD5 where that is wanted, too"
            );
        }
    }
}

#[tokio::test]
async fn configured_headers_go_out_with_every_object() {
    let server = Server::start(|request, _| take(request)).await;
    let more = [
        "put_user_metadata: {owner: me, X-Amz-Acl: private, X-Amz-Storage-Class: STANDARD_IA}",
        "sse_config: {type: SSE-KMS, kms_key_id: the-key, kms_encryption_context: {a: b}}",
    ];
    let bucket = open(&s3_yaml(&server.host, "thanos", &more), limits()).await;
    bucket.put_bytes("x", Bytes::from_static(b"abc")).await.unwrap();
    let seen = &server.seen()[0];
    for (name, value) in [
        ("x-amz-meta-owner", "me"),
        ("x-amz-acl", "private"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "the-key"),
        (
            "x-amz-server-side-encryption-context",
            &*STANDARD.encode(r#"{"a":"b"}"#),
        ),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
        assert!(seen.header("authorization").contains(name), "{name} is not signed");
    }
}

#[tokio::test]
async fn a_customers_key_goes_out_with_objects_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs_err::write(&file, [7_u8; 32]).unwrap();
    let sse = format!("sse_config: {{type: SSE-C, encryption_key: {}}}", file.display());
    let server = Server::start(|request, _| match request.method.as_str() {
        "GET" => ok("", "abc"),
        "HEAD" => Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n".into()),
        _ => take(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[&sse]), limits()).await;
    bucket.put_bytes("x", Bytes::from_static(b"abc")).await.unwrap();
    bucket.get("x", 10).await.unwrap();
    drop(bucket.read("x", 0).await.unwrap());
    bucket.compare("x", &unlinked(b"abc")).await.unwrap();
    assert_eq!(server.seen().len(), 5, "a comparison asks, and reads");
    for request in server.seen() {
        assert_eq!(
            request.header("x-amz-server-side-encryption-customer-algorithm"),
            "AES256"
        );
        assert_eq!(
            request.header("x-amz-server-side-encryption-customer-key"),
            STANDARD.encode([7_u8; 32])
        );
        assert_ne!(request.header("x-amz-server-side-encryption-customer-key-md5"), "");
    }
}

#[tokio::test]
async fn at_most_so_many_requests_run_at_once() {
    let server = Server::start(|request, _| {
        let Act::Answer(answer) = take(request) else {
            unreachable!()
        };
        Act::Late(std::time::Duration::from_millis(50), answer)
    })
    .await;
    let limits = narthex::objstore::Limits {
        requests_at_once: 3,
        ..limits()
    };
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits).await;
    let source = unlinked(&content(1000));
    let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    let puts = keys.iter().map(|key| bucket.put_file(key, &source));
    futures_util::future::try_join_all(puts).await.unwrap();
    assert_eq!(server.most_at_once(), 3);
}
