//! Objects whose bytes are made while they are sent.

mod faults;
mod turns;

use std::{fmt::Debug, future::pending, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use narthex::objstore::{Bucket, Comparison, Error, ErrorKind, Limits, PieceError, Pieces, Proof, RateLimit};

use super::{
    conformance::ALL,
    content, limits, multipart, open, s3_yaml,
    scripted::{Act, Request, Server, take},
    unlinked,
};
use crate::rig::{Weed, wait_until};

const MIB: usize = 1 << 20;
/// What a part has when there are no more than ten thousand of them, as S3 wants no smaller ones.
const PART: usize = 5 * MIB;
/// How long anything may take; the rest is for busy machines.
const LONG: Duration = Duration::from_secs(60);

/// The same bytes, in pieces of these lengths in turn; not all of them may be 0.
fn cut(content: &[u8], lens: &[usize]) -> Vec<Bytes> {
    let (mut rest, mut pieces) = (Bytes::copy_from_slice(content), Vec::new());
    for len in lens.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(rest.split_to(rest.len().min(*len)));
    }
    pieces
}

fn pieces(content: &[u8], lens: &[usize]) -> Pieces<'static> {
    stream::iter(cut(content, lens).into_iter().map(Ok)).boxed()
}

/// The same, and then an error.
fn broken(content: &[u8]) -> Pieces<'static> {
    let error = stream::once(async { Err(PieceError::from("series 7 has a damaged chunk")) });
    pieces(content, &[MIB]).chain(error).boxed()
}

/// The same, and then neither more nor the end.
fn endless(content: &[u8]) -> Pieces<'static> {
    pieces(content, &[MIB]).chain(stream::once(pending())).boxed()
}

/// What a store that works answers, also to an object in one request.
fn works(request: &Request) -> Act {
    match request.method.as_str() {
        "PUT" => take(request),
        _ => multipart::works(request),
    }
}

fn is(error: &Error, kind: ErrorKind, words: &str) {
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// What comes of `put` before `until` does.
async fn dropped_when<T: Debug>(put: impl Future<Output = T>, until: impl Future<Output = ()>) {
    tokio::select! {
        done = put => panic!("it is not over: {done:?}"),
        () = until => {}
    }
}

/// The part of the suite that is about such objects.
pub(super) async fn conforms(bucket: &dyn Bucket) {
    all_bytes_arrive(bucket).await;
    fails_without_a_trace(bucket).await;
    shows_nothing_of_a_dropped_put(bucket).await;
}

async fn all_bytes_arrive(bucket: &dyn Bucket) {
    for (len, lens) in [
        (0, &[1][..]),
        (1, &[1]),
        (PART - 1, &[MIB]),
        (PART, &[0, 4_095, 70_001, 4_096]),
        (PART + 1, &[PART + 1]),
        (3 * PART, &[PART]),
        (17_000_001, &[1, 0, 131_073, 5_000, 17, MIB]),
    ] {
        let content = content(len);
        let at_most = len as u64;
        let put = bucket.put_stream("v/object", pieces(&content, lens), at_most).await;
        assert_eq!(put.unwrap(), len as u64);
        assert_eq!(bucket.stat("v/object").await.unwrap(), Some(len as u64));
        assert!(
            bucket.get("v/object", ALL).await.unwrap() == content,
            "{len} bytes came back otherwise"
        );
    }
    bucket.put_stream("v/empty", stream::empty().boxed(), 0).await.unwrap();
    assert_eq!(bucket.get("v/empty", 0).await.unwrap(), "");
}

async fn fails_without_a_trace(bucket: &dyn Bucket) {
    for len in [0, 1_000, PART, 3 * PART] {
        let content = content(len);
        let failed = bucket.put_stream("w/failed", broken(&content), ALL).await;
        is(&failed.unwrap_err(), ErrorKind::Local, "series 7 has a damaged chunk");
        let failed = bucket.put_stream("w/failed", endless(&content), len.saturating_sub(1) as u64);
        if len > 0 {
            let words = format!("more than the {} bytes", len - 1);
            is(&failed.await.unwrap_err(), ErrorKind::TooLarge, &words);
        }
    }
    bucket.settle().await;
    assert_eq!(bucket.list("w").await.unwrap(), []);
    bucket
        .put_bytes("w/there", Bytes::from_static(b"before"))
        .await
        .unwrap();
    let failed = bucket.put_stream("w/there", broken(&content(3 * PART)), ALL).await;
    failed.unwrap_err();
    bucket.settle().await;
    assert_eq!(bucket.get("w/there", ALL).await.unwrap(), "before");
}

async fn shows_nothing_of_a_dropped_put(bucket: &dyn Bucket) {
    for len in [0, 1_000, 3 * PART] {
        let content = content(len);
        // Dropped when it has taken all that there is.
        let (told, taken) = tokio::sync::oneshot::channel();
        let last = stream::once(async move {
            let _ = told.send(());
            pending().await
        });
        let pieces = pieces(&content, &[MIB]).chain(last).boxed();
        let put = bucket.put_stream("w/dropped", pieces, ALL);
        dropped_when(put, async { taken.await.unwrap() }).await;
        tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
        assert_eq!(bucket.stat("w/dropped").await.unwrap(), None, "{len}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_is_left_with_no_open_upload() {
    let view = Weed::shared().await.bucket("streamed").await;
    let bucket = open(&view.config(), limits()).await;
    let content = content(2 * PART + 1);
    let put = bucket.put_stream("a/index", endless(&content), ALL);
    let begun = async || (view.open_uploads().await.len() == 1).then_some(());
    dropped_when(put, wait_until(LONG, "the upload is open", begun)).await;
    let failed = bucket.put_stream("a/index", broken(&content), ALL).await;
    is(&failed.unwrap_err(), ErrorKind::Local, "series 7 has a damaged chunk");
    let failed = bucket
        .put_stream("a/index", pieces(&content, &[MIB]), 2 * PART as u64)
        .await;
    is(
        &failed.unwrap_err(),
        ErrorKind::TooLarge,
        "more than the 10485760 bytes",
    );
    tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
    assert_eq!(view.open_uploads().await, [""; 0]);
    assert_eq!(bucket.list("").await.unwrap(), []);
}

/// Whoever has the same bytes in a file can hold the object against them, although a file would go in other parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_tells_the_checksum_of_what_came_in_parts() {
    let view = Weed::shared().await.bucket("streamed").await;
    let bucket = open(&view.config(), limits()).await;
    let mut content = content(4 * PART + 7);
    bucket
        .put_stream("a/index", pieces(&content, &[70_001]), ALL)
        .await
        .unwrap();
    let found = bucket.compare("a/index", &unlinked(&content)).await.unwrap();
    assert_eq!(found, Comparison::Same(Proof::Checksum));
    content[PART] ^= 1;
    let found = bucket.compare("a/index", &unlinked(&content)).await.unwrap();
    assert!(matches!(found, Comparison::Different(_)), "{found:?}");
}

#[tokio::test]
async fn a_directory_is_left_with_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    let bucket = open(&yaml, limits()).await;
    let files = || {
        let entries = fs_err::read_dir(dir.path().join("a")).into_iter().flatten();
        entries.map(|entry| entry.unwrap()).collect::<Vec<_>>()
    };
    let content = content(3 * MIB + 5);
    for content in [&content[..], b"", b"x"] {
        let put = bucket.put_stream("a/index", endless(content), ALL);
        let begun = async || (files().len() == 1).then_some(());
        dropped_when(put, wait_until(LONG, "there is a temporary file", begun)).await;
        tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
        assert_eq!(files().len(), 0);
        bucket.put_stream("a/index", broken(content), ALL).await.unwrap_err();
        tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
        assert_eq!(files().len(), 0);
    }
}

#[tokio::test]
async fn all_that_is_sent_is_counted_by_the_rate_limit() {
    let dir = tempfile::tempdir().unwrap();
    let directory = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    let server = Server::start(|request, _| works(request)).await;
    for yaml in [directory, s3_yaml(&server.host, "thanos", &[])] {
        for len in [1_000, 6_000_000] {
            let rate_limit = RateLimit::at_most(1 << 30);
            let limits = Limits {
                rate_limit: rate_limit.clone(),
                ..limits()
            };
            let bucket = open(&yaml, limits).await;
            let put = bucket.put_stream("x", pieces(&content(len), &[70_001]), ALL).await;
            assert_eq!(put.unwrap(), len as u64);
            assert_eq!((rate_limit.sent(), rate_limit.received()), (len as u64, 0), "{yaml}");
        }
    }
}

/// As when the process is stopped: `settle` is called before the runtime has dropped what the task holds.
#[tokio::test]
async fn the_temporary_file_of_a_task_that_was_aborted_is_gone_before_all_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    let bucket = open(&yaml, limits()).await;
    let task = tokio::spawn({
        let bucket = std::sync::Arc::clone(&bucket);
        async move { bucket.put_stream("index", endless(&content(2 * MIB)), ALL).await }
    });
    let files = || fs_err::read_dir(dir.path()).unwrap().count();
    wait_until(LONG, "there is a temporary file", async || (files() == 1).then_some(())).await;
    task.abort();
    tokio::time::timeout(LONG, bucket.settle()).await.unwrap();
    assert_eq!(files(), 0);
}
