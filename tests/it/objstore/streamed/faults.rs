//! Stores that misbehave, or want requests in another form, while an object is made.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use narthex::objstore::{ErrorKind, Limits};
use sha2::{Digest as _, Sha256};

use super::{LONG, MIB, PART, endless, is, pieces, works};
use crate::objstore::{
    conformance::ALL,
    content, limits,
    multipart::{Step, comes, step, steps},
    open, s3_yaml,
    scripted::{Act, Request, Server, ok, refusal},
};

/// What was sent of each part at last, in the order of the parts.
fn parts(server: &Server) -> Vec<Request> {
    let mut parts = std::collections::BTreeMap::new();
    for request in server.seen() {
        if let Step::Part(number) = step(&request) {
            parts.insert(number, request);
        }
    }
    parts.into_values().collect()
}

fn bytes(parts: &[Request]) -> Vec<u8> {
    let bodies: Vec<&[u8]> = parts.iter().map(|part| &part.body[..]).collect();
    bodies.concat()
}

#[tokio::test]
async fn a_part_that_failed_is_sent_again_with_the_same_bytes() {
    for (fails, fault) in [(1, "500"), (2, "500"), (2, "503"), (1, "cut"), (3, "cut")] {
        let failed = AtomicBool::new(false);
        let server = Server::start(move |request, _| match step(request) {
            Step::Part(part) if part == fails && !failed.swap(true, Ordering::SeqCst) => match fault {
                "cut" => Act::Cut(MIB / 2),
                "503" => refusal("503 Slow Down", "SlowDown", "not now"),
                _ => refusal("500 Internal Server Error", "InternalError", "We failed"),
            },
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &["max_retries: 2"]), limits()).await;
        let content = content(2 * PART + 12_345);
        let put = bucket.put_stream("x", pieces(&content, &[70_001, 3]), ALL).await;
        assert_eq!(put.unwrap(), content.len() as u64);
        let tries = steps(&server).into_iter().filter(|step| *step == Step::Part(fails));
        assert_eq!(tries.count(), 2, "{fault}");
        let parts = parts(&server);
        assert!(bytes(&parts) == content, "{fault}");
        for (part, len) in parts.iter().zip([PART, PART, 12_345]) {
            assert_eq!(part.body.len(), len);
            let crc = STANDARD.encode(crc32c::crc32c(&part.body).to_be_bytes());
            assert_eq!(part.header("x-amz-checksum-crc32c"), crc);
            assert_eq!(part.header("x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
        }
        let all = server.seen();
        let last = all.last().unwrap();
        assert_eq!(step(last), Step::Complete);
        let body = String::from_utf8(last.body.clone()).unwrap();
        let crcs = parts.iter().map(|part| part.header("x-amz-checksum-crc32c"));
        let at: Vec<_> = crcs.map(|crc| body.find(crc).unwrap()).collect();
        assert!(at.is_sorted(), "{body}");
        assert!(!steps(&server).contains(&Step::Abort));
    }
}

#[tokio::test]
async fn a_part_that_stalled_is_sent_once_more() {
    let stalled = AtomicBool::new(false);
    let server = Server::start(move |request, _| match step(request) {
        Step::Part(2) if !stalled.swap(true, Ordering::SeqCst) => Act::Stall(MIB),
        _ => works(request),
    })
    .await;
    let limits = Limits {
        stall: Duration::from_secs(3),
        ..limits()
    };
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits).await;
    // Parts are larger than what buffers on the way may swallow.
    let part = 12 * MIB;
    let content = content(part + part);
    let put = bucket
        .put_stream("x", pieces(&content, &[MIB]), 10_000 * part as u64)
        .await;
    assert_eq!(put.unwrap(), content.len() as u64);
    let parts = parts(&server);
    assert_eq!(parts.len(), 2);
    assert!(bytes(&parts) == content);
    let tries = steps(&server).into_iter().filter(|step| *step == Step::Part(2));
    assert!(tries.count() > 1);
}

#[tokio::test]
async fn a_small_object_is_one_request_that_is_tried_again() {
    let server = Server::start(|request, number| match number {
        1 => Act::Cut(100_000),
        2 => refusal("500 Internal Server Error", "InternalError", "We failed"),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let content = content(PART);
    bucket.put_stream("x", pieces(&content, &[MIB]), ALL).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|request| request.method == "PUT" && !request.target.contains("partNumber"))
    );
    assert!(seen[2].body == content);
    assert_eq!(seen[2].header("content-length"), content.len().to_string());
}

#[tokio::test]
async fn what_fails_or_is_dropped_is_aborted() {
    let content = content(2 * PART + 1);
    for fails in [Step::Create, Step::Part(1), Step::Part(2), Step::Complete] {
        let server = Server::start(move |request, _| match step(request) {
            step if step == fails => refusal("403 Forbidden", "AccessDenied", "no"),
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        // It is told at once, although the producer may never come to its end.
        let put = match fails {
            Step::Complete => bucket.put_stream("x", pieces(&content, &[MIB]), ALL).await,
            _ => bucket.put_stream("x", endless(&content), ALL).await,
        };
        is(&put.unwrap_err(), ErrorKind::Forbidden, "AccessDenied");
        tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
        assert_eq!(
            steps(&server).contains(&Step::Abort),
            fails != Step::Create,
            "{fails:?}"
        );
    }
    for stalls in [Step::Part(1), Step::Part(2), Step::Complete] {
        let server = Server::start(move |request, _| match step(request) {
            step if step == stalls => Act::Stall(0),
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        let put = bucket.put_stream("x", pieces(&content, &[MIB]), ALL);
        super::dropped_when(put, comes(&server, stalls)).await;
        tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
        assert!(steps(&server).contains(&Step::Abort), "{stalls:?}");
    }
}

/// As when the process is stopped: `settle` is called before the runtime has dropped what the task holds.
#[tokio::test]
async fn the_upload_of_a_task_that_was_aborted_is_aborted_before_all_is_settled() {
    let server = Server::start(|request, _| works(request)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let task = tokio::spawn({
        let bucket = std::sync::Arc::clone(&bucket);
        async move { bucket.put_stream("x", endless(&content(PART + 1)), ALL).await }
    });
    comes(&server, Step::Part(1)).await;
    task.abort();
    tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
    assert!(steps(&server).contains(&Step::Abort), "{:?}", steps(&server));
}

#[tokio::test]
async fn without_multipart_uploads_an_object_of_several_parts_is_refused_in_words_that_help() {
    let server = Server::start(|request, _| works(request)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &["disable_multipart: true"]), limits()).await;
    let content = content(PART + 1);
    let put = bucket.put_stream("x", pieces(&content[..PART], &[MIB]), ALL).await;
    assert_eq!(put.unwrap(), PART as u64, "one request does");
    let error = bucket.put_stream("x", endless(&content), ALL).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    for words in [
        "needs a multipart upload",
        "its length is not known before it is sent",
        "disable_multipart: false",
        "--shipper.newer-encodings=hold",
        "--shipper.newer-encodings=ship",
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(server.seen().len(), 1, "nothing was begun");
}

#[tokio::test]
async fn a_store_that_acknowledges_no_part_gets_the_whole_upload_with_md5() {
    let server = Server::start(|request, _| match step(request) {
        Step::Part(_) => ok("etag: \"e\"\r\n", ""),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let content = content(2 * PART + 1);
    bucket.put_stream("x", pieces(&content, &[MIB]), ALL).await.unwrap();
    bucket.settle().await;
    let creates: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|request| step(request) == Step::Create)
        .collect();
    let algorithms = creates.iter().map(|create| create.header("x-amz-checksum-algorithm"));
    assert_eq!(algorithms.collect::<Vec<_>>(), ["CRC32C", ""]);
    let parts = parts(&server);
    assert!(bytes(&parts) == content);
    for part in &parts {
        let md5 = STANDARD.encode(md5::Md5::digest(&part.body));
        assert_eq!(part.header("content-md5"), md5);
    }
    assert!(steps(&server).contains(&Step::Abort), "the first upload is given up");
}

#[tokio::test]
async fn a_store_that_takes_no_further_part_with_crc32c_gets_md5_with_the_next_try() {
    let server = Server::start(|request, _| match step(request) {
        Step::Part(2) if request.header("content-md5").is_empty() => ok("etag: \"e\"\r\n", ""),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
    let content = content(2 * PART + 1);
    let error = bucket.put_stream("x", pieces(&content, &[MIB]), ALL).await.unwrap_err();
    is(&error, ErrorKind::Server, "the next try is made with Content-MD5");
    bucket.settle().await;
    assert!(steps(&server).contains(&Step::Abort));
    bucket.put_stream("x", pieces(&content, &[MIB]), ALL).await.unwrap();
    assert!(bytes(&parts(&server)) == content);
}

/// From whichever part on a store refuses bodies that are not signed, no part must be made anew.
#[tokio::test]
async fn a_store_that_refuses_unsigned_bodies_gets_the_hash_of_each_from_then_on() {
    for from in [1, 2, 3] {
        let server = Server::start(move |request, _| match step(request) {
            Step::Part(part) if part >= from && request.header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD" => {
                refusal("400 Bad Request", "XAmzContentSHA256Mismatch", "no match")
            }
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", &[]), limits()).await;
        let content = content(2 * PART + 1);
        bucket.put_stream("x", pieces(&content, &[MIB]), ALL).await.unwrap();
        let parts = parts(&server);
        assert!(bytes(&parts) == content);
        for (part, number) in parts.iter().zip(1..) {
            let expected = match number < from {
                true => "UNSIGNED-PAYLOAD".to_owned(),
                false => Sha256::digest(&part.body)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            };
            assert_eq!(part.header("x-amz-content-sha256"), expected, "{number} of {from}");
        }
        let tries = steps(&server).into_iter().filter(|step| matches!(step, Step::Part(_)));
        assert_eq!(tries.count(), 4, "one refusal, and it is known");
    }
}

#[tokio::test]
async fn configured_headers_go_out_with_what_they_belong_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs_err::write(&file, [7_u8; 32]).unwrap();
    let more = [
        "put_user_metadata: {owner: me, X-Amz-Storage-Class: STANDARD_IA}",
        &format!("sse_config: {{type: SSE-C, encryption_key: {}}}", file.display()),
    ];
    let server = Server::start(|request, _| works(request)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", &more), limits()).await;
    bucket
        .put_stream("x", pieces(&content(PART), &[MIB]), ALL)
        .await
        .unwrap();
    bucket
        .put_stream("x", pieces(&content(PART + 1), &[MIB]), ALL)
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 5);
    for request in &seen {
        let key = request.header("x-amz-server-side-encryption-customer-key");
        assert_eq!(key, STANDARD.encode([7_u8; 32]), "{}", request.target);
        let creates = step(request) == Step::Create || !request.target.contains("uploadId=");
        assert_eq!(request.header("x-amz-meta-owner"), if creates { "me" } else { "" });
        assert_eq!(
            request.header("x-amz-storage-class"),
            if creates { "STANDARD_IA" } else { "" }
        );
    }
}
