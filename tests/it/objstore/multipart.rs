//! Uploads in parts: in the right order, proven, and never left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use narthex::objstore::{ErrorKind, Limits};

use super::{
    content, limits, open, s3_yaml,
    scripted::{Act, Request, Server, ok, refusal, take},
    unlinked,
};
use crate::rig::wait_until;

const PARTS: &[&str] = &["part_size: 5242880", "max_retries: 2"];
const MIB: usize = 1 << 20;
/// How long anything may take; the rest is for busy machines.
const LONG: Duration = Duration::from_secs(60);

/// What the request is in the life of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Part(u32),
    Complete,
    Abort,
    List,
}

pub(super) fn step(request: &Request) -> Step {
    let part = request.target.split("partNumber=").nth(1);
    let part = part.and_then(|rest| rest.split('&').next()?.parse().ok());
    match (request.method.as_str(), part) {
        ("PUT", Some(part)) => Step::Part(part),
        ("POST", _) if request.target.contains("uploadId=") => Step::Complete,
        ("POST", _) => Step::Create,
        ("DELETE", _) => Step::Abort,
        _ => Step::List,
    }
}

/// What a store that works answers.
pub(super) fn works(request: &Request) -> Act {
    match step(request) {
        Step::Create => ok(
            "",
            "<InitiateMultipartUploadResult><UploadId>the-id</UploadId></InitiateMultipartUploadResult>",
        ),
        Step::Part(_) => take(request),
        Step::Complete => ok(
            "",
            "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
        ),
        Step::Abort => ok("", ""),
        Step::List => ok("", "<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
    }
}

pub(super) fn steps(server: &Server) -> Vec<Step> {
    server.seen().iter().map(step).collect()
}

/// Waits for the abort, which goes on in the background.
async fn is_aborted(server: &Server) {
    comes(server, Step::Abort).await;
}

/// Waits for such a request.
pub(super) async fn comes(server: &Server, wanted: Step) {
    let there = async || steps(server).contains(&wanted).then_some(());
    wait_until(LONG, format!("{wanted:?}"), there).await;
}

#[tokio::test]
async fn parts_carry_their_checksums_and_are_put_together_in_order() {
    let server = Server::start(|request, _| works(request)).await;
    let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
    let content = content(12 * MIB + 5);
    bucket.put_file("x", &unlinked(&content)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].header("x-amz-checksum-algorithm"), "CRC32C");
    let mut sent = vec![Vec::new(); 3];
    for request in &seen {
        if let Step::Part(number) = step(request) {
            let crc = STANDARD.encode(crc32c::crc32c(&request.body).to_be_bytes());
            assert_eq!(request.header("x-amz-checksum-crc32c"), crc);
            assert_eq!(request.header("x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
            assert_eq!(
                request.header("x-amz-sdk-checksum-algorithm"),
                "",
                "the value says it all"
            );
            sent[number as usize - 1] = request.body.clone();
        }
    }
    assert!(sent.concat() == content);
    let last = seen.last().unwrap();
    assert_eq!(step(last), Step::Complete);
    let body = String::from_utf8(last.body.clone()).unwrap();
    let crcs: Vec<_> = sent
        .iter()
        .map(|part| STANDARD.encode(crc32c::crc32c(part).to_be_bytes()))
        .collect();
    let at: Vec<_> = crcs.iter().map(|crc| body.find(&**crc).unwrap()).collect();
    assert!(at.is_sorted(), "{body}");
    assert_eq!(steps(&server).len(), 5);
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
        stall: Duration::from_secs(1),
        requests_at_once: 4,
        ..Limits::default()
    };
    // Larger than what buffers on the way may swallow.
    let bucket = open(&s3_yaml(&server.host, "thanos", &["part_size: 12582912"]), limits).await;
    bucket.put_file("x", &unlinked(&content(24 * MIB))).await.unwrap();
    let steps = steps(&server);
    assert_eq!(steps.iter().filter(|step| **step == Step::Part(2)).count(), 2);
    assert_eq!(
        steps.iter().filter(|step| matches!(step, Step::Part(_))).count(),
        3,
        "the other one once"
    );
}

#[tokio::test]
async fn a_failed_upload_is_aborted() {
    for (fails, kind) in [
        (Step::Part(2), ErrorKind::Forbidden),
        (Step::Complete, ErrorKind::Forbidden),
    ] {
        let server = Server::start(move |request, _| match step(request) {
            step if step == fails => refusal("403 Forbidden", "AccessDenied", "no"),
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
        let error = bucket.put_file("x", &unlinked(&content(11 * MIB))).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        bucket.settle().await;
        is_aborted(&server).await;
    }
}

#[tokio::test]
async fn an_error_in_an_answer_of_200_is_an_error() {
    let server = Server::start(|request, _| match step(request) {
        Step::Complete => ok(
            "",
            "<Error><Code>InternalError</Code><Message>We failed</Message></Error>",
        ),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
    let error = bucket.put_file("x", &unlinked(&content(6 * MIB))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Server, "{error}");
}

#[tokio::test]
async fn a_wrong_checksum_of_the_whole_is_an_error_of_integrity() {
    let server = Server::start(|request, _| match step(request) {
        Step::Complete => ok(
            "",
            "<CompleteMultipartUploadResult><ETag>x</ETag><ChecksumCRC32C>AAAAAA==-2</ChecksumCRC32C>\
             </CompleteMultipartUploadResult>",
        ),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
    let error = bucket.put_file("x", &unlinked(&content(6 * MIB))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test]
async fn a_dropped_upload_is_aborted_wherever_it_was() {
    for stalls in [Step::Create, Step::Part(1), Step::Complete] {
        let server = Server::start(move |request, _| match step(request) {
            Step::Create if stalls == Step::Create => {
                let Act::Answer(answer) = works(request) else {
                    unreachable!()
                };
                Act::Slowly(1, Duration::ZERO, answer)
            }
            step if step == stalls => Act::Stall(0),
            _ => works(request),
        })
        .await;
        let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
        let source = unlinked(&content(6 * MIB));
        let put = bucket.put_file("x", &source);
        tokio::select! {
            biased;
            put = put => panic!("{stalls:?} stalls: {put:?}"),
            // The first one is to be dropped before the answer can be read.
            () = async {}, if stalls == Step::Create => {}
            () = comes(&server, stalls) => {}
        }
        tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
        assert!(
            steps(&server).contains(&Step::Abort),
            "{stalls:?}: {:?}",
            steps(&server)
        );
    }
}

/// As when the sidecar is stopped: `settle` is called before the runtime has dropped what the task holds.
#[tokio::test]
async fn the_upload_of_a_task_that_was_aborted_is_aborted_before_all_is_settled() {
    let server = Server::start(|request, _| match step(request) {
        Step::Part(_) => Act::Stall(0),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
    let task = tokio::spawn({
        let (bucket, source) = (Arc::clone(&bucket), unlinked(&content(6 * MIB)));
        async move { bucket.put_file("x", &source).await }
    });
    comes(&server, Step::Part(1)).await;
    task.abort();
    tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
    assert!(steps(&server).contains(&Step::Abort), "{:?}", steps(&server));
}

fn open_upload(id: &str, initiated: &str) -> String {
    format!("<Upload><Key>p/01X/index</Key><UploadId>{id}</UploadId>{initiated}</Upload>")
}

fn days_ago(days: i64) -> String {
    let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
    format!("<Initiated>{then:.3}</Initiated>")
}

#[tokio::test]
async fn uploads_that_were_given_up_are_aborted_after_a_day_and_others_are_not() {
    let server = Server::start(|request, _| match step(request) {
        Step::List => {
            assert!(request.target.contains("prefix=p%2F01X%2F"), "{}", request.target);
            ok(
                "",
                &format!(
                    "<ListMultipartUploadsResult>{}{}{}{}</ListMultipartUploadsResult>",
                    open_upload("old", &days_ago(2)),
                    open_upload("young", &days_ago(0)),
                    open_upload("undated", ""),
                    open_upload("the-id", &days_ago(2)),
                ),
            )
        }
        Step::Part(_) => Act::Stall(0),
        _ => works(request),
    })
    .await;
    let bucket = open(&(s3_yaml(&server.host, "thanos", PARTS) + "prefix: p\n"), limits()).await;
    let source = unlinked(&content(6 * MIB));
    let put = bucket.put_file("01X/index", &source);
    let aborts = async {
        comes(&server, Step::Part(1)).await;
        bucket.abort_stale("01X").await.unwrap();
    };
    tokio::select! {
        _ = put => panic!("the part stalls"),
        () = aborts => {}
    }
    let aborted: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|request| step(request) == Step::Abort)
        .collect();
    assert!(
        aborted.len() == 1 && aborted[0].target.contains("uploadId=old"),
        "{aborted:?}"
    );
}

#[tokio::test]
async fn a_store_that_cannot_list_uploads_says_so() {
    for (status, code) in [
        ("501 Not Implemented", "NotImplemented"),
        ("403 Forbidden", "AccessDenied"),
        ("500 Internal Server Error", "InternalError"),
    ] {
        let server = Server::start(move |_, _| refusal(status, code, "no")).await;
        let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
        let error = bucket.abort_stale("01X").await.unwrap_err();
        assert!(error.to_string().contains(code), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_acknowledges_no_part_gets_the_whole_upload_with_md5() {
    let server = Server::start(|request, _| match step(request) {
        Step::Part(_) => ok("etag: \"e\"\r\n", ""),
        _ => works(request),
    })
    .await;
    let bucket = open(&s3_yaml(&server.host, "thanos", PARTS), limits()).await;
    bucket.put_file("x", &unlinked(&content(11 * MIB))).await.unwrap();
    bucket.settle().await;
    let seen = server.seen();
    let creates: Vec<_> = seen.iter().filter(|request| step(request) == Step::Create).collect();
    assert_eq!(creates.len(), 2);
    assert_eq!(creates[1].header("x-amz-checksum-algorithm"), "");
    let with_md5 = seen
        .iter()
        .filter(|request| !request.header("content-md5").is_empty())
        .count();
    assert_eq!(with_md5, 3);
    assert!(steps(&server).contains(&Step::Abort), "the first upload is given up");
}
