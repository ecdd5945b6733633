//! How signatures cover bodies: not at all, unless the store wants it.

use bytes::Bytes;
use narthex::objstore::{Bucket, ErrorKind};
use sha2::{Digest as _, Sha256};

use super::{
    content, limits, open, s3_yaml,
    scripted::{Act, Request, Server, answer, ok, refusal, take},
    unlinked,
};

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const PARTS: &[&str] = &["part_size: 5242880"];

fn signed(request: &Request) -> &str {
    request.header("x-amz-content-sha256")
}

fn sha256(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a store answers that works, and lets uploads come in parts.
fn works(request: &Request) -> Act {
    match (request.method.as_str(), request.target.contains("uploadId=")) {
        ("PUT", _) => take(request),
        ("POST", false) => ok(
            "",
            "<InitiateMultipartUploadResult><UploadId>the-id</UploadId></InitiateMultipartUploadResult>",
        ),
        _ => ok(
            "",
            "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
        ),
    }
}

/// A small object, one that is to be new, a file in one request and one in parts.
async fn put_all(bucket: &dyn Bucket) {
    let small = Bytes::from_static(b"{}");
    bucket.put_bytes("x/thanos.json", small.clone()).await.unwrap();
    bucket.put_new("x/meta.json", small).await.unwrap();
    bucket.put_file("x/index", &unlinked(&content(300_000))).await.unwrap();
    let large = unlinked(&content((11 << 20) + 5));
    bucket.put_file("x/chunks/000001", &large).await.unwrap();
}

fn puts(server: &Server) -> Vec<Request> {
    let seen = server.seen();
    seen.into_iter().filter(|request| request.method == "PUT").collect()
}

#[tokio::test]
async fn all_bodies_are_signed_in_one_way() {
    let server = Server::start(|request, _| works(request)).await;
    put_all(&*open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await).await;
    let puts = puts(&server);
    assert_eq!(puts.len(), 6);
    for put in &puts {
        assert_eq!(signed(put), UNSIGNED, "{}", put.target);
    }
}

#[tokio::test]
async fn a_store_that_refuses_unsigned_bodies_gets_the_hash_of_each_from_then_on() {
    let header = "<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is not \
                  implemented</Message><Header>x-amz-content-sha256</Header></Error>";
    let mismatch = "<Error><Code>XAmzContentSHA256Mismatch</Code><Message>The provided header does not match what was \
                    computed.</Message></Error>";
    let policy = "<Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/u is not authorized to perform: \
                  s3:PutObject on resource: \"arn:aws:s3:::thanos/x\" with an explicit deny in a resource-based \
                  policy</Message></Error>";
    for (status, body) in [
        ("400 Bad Request", mismatch),
        ("501 Not Implemented", header),
        ("403 Forbidden", policy),
    ] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "PUT" if signed(request) == UNSIGNED => answer(status, "", body),
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
        put_all(&*bucket).await;
        let puts = puts(&server);
        assert_eq!(signed(&puts[0]), UNSIGNED);
        assert_eq!(puts.len(), 7, "one refusal, and it is known");
        for put in &puts[1..] {
            assert_eq!(signed(put), sha256(&put.body), "{}", put.target);
            assert_ne!(put.header("x-amz-checksum-crc32c"), "", "the checksum stays");
        }
        // A part may be the first to be refused.
        let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
        let large = unlinked(&content((11 << 20) + 5));
        bucket.put_file("x/chunks/000001", &large).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_signs_and_is_given_up_changes_nothing_for_others() {
    let message = "not authorized to perform: s3:PutObject with an explicit deny in a resource-based policy";
    let server = Server::start(
        move |request, _| match (request.target.contains("/given-up"), signed(request)) {
            (true, UNSIGNED) => refusal("403 Forbidden", "AccessDenied", message),
            (true, _) => Act::Stall(0),
            (false, _) => works(request),
        },
    )
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
    let given_up = bucket.put_bytes("given-up", Bytes::from_static(b"x"));
    let tried = async {
        while puts(&server).len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = given_up => panic!("the store does not answer"),
        () = tried => {}
    }
    put_all(&*bucket).await;
    let puts = puts(&server);
    assert_ne!(signed(&puts[1]), UNSIGNED, "it was tried");
    for put in &puts[2..] {
        assert_eq!(signed(put), UNSIGNED, "{}", put.target);
    }
}

#[tokio::test]
async fn a_policy_that_denies_for_another_reason_is_the_error_and_nothing_is_learnt() {
    let message = "not authorized to perform: s3:PutObject with an explicit deny in a resource-based policy";
    let server = Server::start(move |_, _| refusal("403 Forbidden", "AccessDenied", message)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    for _ in 0..2 {
        let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
        assert!(error.to_string().contains("explicit deny"), "{error}");
    }
    let unsigned: Vec<bool> = server
        .seen()
        .iter()
        .map(|request| signed(request) == UNSIGNED)
        .collect();
    assert_eq!(unsigned, [true, false, true, false]);
}

#[tokio::test]
async fn a_body_that_was_signed_and_does_not_match_was_damaged() {
    let server = Server::start(|_, _| refusal("400 Bad Request", "XAmzContentSHA256Mismatch", "no match")).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let error = bucket.put_bytes("x", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    assert!(error.to_string().contains("damaged on the way"), "{error}");
}
