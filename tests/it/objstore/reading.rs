//! Objects read as streams, and held against files: what every bucket does alike.

use std::io::{Read, Write};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use narthex::objstore::{Bucket, Comparison, Error, ErrorKind, Limits, Proof, RateLimit, Source};
use tokio::runtime::Handle;

use super::{content, limits, open, s3, s3_yaml, unlinked};
use crate::rig::Weed;

/// All that a reading brings, which must be as much as it announced.
async fn all(bucket: &dyn Bucket, key: &str, offset: u64) -> Result<Vec<u8>, Error> {
    let mut reading = bucket.read(key, offset).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reading.pieces.try_next().await? {
        // hyper reads up to 408 KiB at once into a buffer that may have grown to twice that.
        assert!(piece.len() <= 1 << 20, "a piece of {} bytes", piece.len());
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, reading.len, "{key} from {offset} on");
    Ok(bytes)
}

/// The part of the suite that is about reading.
pub(super) async fn reads(bucket: &dyn Bucket) {
    let content = content(6_000_001);
    bucket.put_file("r/large", &unlinked(&content)).await.unwrap();
    bucket.put_bytes("r/empty", Bytes::new()).await.unwrap();
    for offset in [0, 1, 262_144, 5 << 20, 6_000_000, 6_000_001] {
        let read = all(bucket, "r/large", offset).await.unwrap();
        assert!(read == content[offset as usize..], "from {offset} on");
    }
    assert_eq!(all(bucket, "r/empty", 0).await.unwrap(), b"");
    for (key, offset, kind) in [
        ("r/large", 6_000_002, ErrorKind::Refused),
        ("r/empty", 1, ErrorKind::Refused),
        ("r/missing", 0, ErrorKind::NotFound),
        ("r/missing", 7, ErrorKind::NotFound),
    ] {
        let error = all(bucket, key, offset).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    reads_for_code_that_blocks(bucket, &content).await;
    // More at once than there are slots, each of them ended early: they are given back.
    for _ in 0..10 {
        let mut reading = bucket.read("r/large", 0).await.unwrap();
        let first = reading.pieces.next().await.unwrap().unwrap();
        assert!(content.starts_with(&first));
    }
}

async fn reads_for_code_that_blocks(bucket: &dyn Bucket, content: &[u8]) {
    let reading = bucket.read("r/large", 3).await.unwrap();
    let runtime = Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reading.into_blocking(runtime).read_to_end(&mut bytes).map(|_| bytes)
    });
    assert!(read.await.unwrap().unwrap() == content[3..]);
}

/// The part of the suite that holds objects against files; `proof` is how a bucket knows that they are the same.
pub(super) async fn compares(bucket: &dyn Bucket, proof: Proof) {
    for len in [0, 1, 70_001, (5 << 20) + 1, 17_000_001] {
        let content = content(len);
        let source = unlinked(&content);
        let key = format!("k/{len}");
        assert_eq!(bucket.compare(&key, &source).await.unwrap(), Comparison::Absent);
        bucket.put_file(&key, &source).await.unwrap();
        assert_eq!(
            bucket.compare(&key, &source).await.unwrap(),
            Comparison::Same(proof),
            "{key}"
        );
        differs(
            bucket,
            &key,
            &[&content[..], b"x"].concat(),
            &format!("the object has {len} bytes, the file {}", len + 1),
        )
        .await;
        for at in [0, len / 2, len.saturating_sub(1)] {
            let mut other = content.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= 1;
                differs(bucket, &key, &other, "").await;
            }
        }
    }
    a_file_that_changes_is_no_difference(bucket).await;
}

async fn differs(bucket: &dyn Bucket, key: &str, content: &[u8], words: &str) {
    match bucket.compare(key, &unlinked(content)).await.unwrap() {
        Comparison::Different(told) => assert!(!told.is_empty() && told.contains(words), "{told}"),
        other => panic!("{key}: {other:?}"),
    }
}

async fn a_file_that_changes_is_no_difference(bucket: &dyn Bucket) {
    let whole = unlinked(b"0123456789");
    bucket.put_file("k/changes", &whole).await.unwrap();
    for (len, told) in [(11, "shorter"), (9, "longer")] {
        let source = Source { len, ..whole.clone() };
        let error = bucket.compare("k/changes", &source).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Local, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_tells_checksums_also_of_parts() {
    let view = Weed::shared().await.bucket("reading").await;
    let bucket = open(&view.config_with("part_size: 5242880\n"), limits()).await;
    reads(&*bucket).await;
    compares(&*bucket, Proof::Checksum).await;
    let source = unlinked(&content(17_000_001));
    // 3 parts in place of 4; then 4 as well, but not the same ones; then one alone.
    for part_size in ["6291456", "5500000", "16777216", "17000001"] {
        let other = open(&view.config_with(&format!("part_size: {part_size}\n")), limits()).await;
        other.put_file("k/other", &source).await.unwrap();
        for bucket in [&bucket, &other] {
            assert_eq!(
                bucket.compare("k/other", &source).await.unwrap(),
                Comparison::Same(Proof::Checksum),
                "{part_size}"
            );
        }
    }
}

#[tokio::test]
async fn a_store_without_checksums_is_read_back() {
    let (dir, host) = s3().await;
    let more = ["part_size: 5242880", "send_content_md5: true"];
    let bucket = open(&s3_yaml(&host, "thanos", &more), limits()).await;
    compares(&*bucket, Proof::ReadBack).await;
    // What is damaged in the store itself.
    let source = unlinked(&content(70_001));
    let path = dir.path().join("thanos/k/70001");
    let mut damaged = fs_err::read(&path).unwrap();
    damaged[70_000] ^= 0x80;
    fs_err::File::create(&path).unwrap().write_all(&damaged).unwrap();
    assert_eq!(
        bucket.compare("k/70001", &source).await.unwrap(),
        Comparison::Different("byte 70000 differs (counted from 0)".into())
    );
}

#[tokio::test]
async fn all_that_moves_is_counted() {
    let (_s3, host) = s3().await;
    let dir = tempfile::tempdir().unwrap();
    let directory = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    for yaml in [
        directory,
        s3_yaml(&host, "thanos", &["part_size: 5242880", "send_content_md5: true"]),
    ] {
        for rate_limit in [RateLimit::default(), RateLimit::at_most(1 << 30)] {
            let limits = Limits {
                rate_limit: rate_limit.clone(),
                ..limits()
            };
            let bucket = open(&yaml, limits).await;
            let source = unlinked(&content(6_000_000));
            bucket.put_file("x", &source).await.unwrap();
            bucket.put_bytes("y", Bytes::from_static(b"12345")).await.unwrap();
            assert_eq!((rate_limit.sent(), rate_limit.received()), (6_000_005, 0), "{yaml}");
            all(&*bucket, "x", 1_000_000).await.unwrap();
            assert_eq!(
                (rate_limit.sent(), rate_limit.received()),
                (6_000_005, 5_000_000),
                "{yaml}"
            );
            bucket.compare("x", &source).await.unwrap();
            assert_eq!(
                (rate_limit.sent(), rate_limit.received()),
                (6_000_005, 11_000_000),
                "{yaml}"
            );
        }
    }
}

#[tokio::test]
async fn a_file_that_is_read_stays_the_same_one() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.path().display());
    let bucket = open(&yaml, limits()).await;
    let content = content(1_000_000);
    bucket.put_file("x", &unlinked(&content)).await.unwrap();
    let begun = async || {
        let mut reading = bucket.read("x", 0).await.unwrap();
        let first = reading.pieces.try_next().await.unwrap().unwrap();
        (first, reading.pieces)
    };

    let (first, rest) = begun().await;
    bucket.put_bytes("x", Bytes::from_static(b"another one")).await.unwrap();
    let rest: Vec<_> = rest.try_collect().await.unwrap();
    assert!([first, rest.concat().into()].concat() == content);

    bucket.put_file("x", &unlinked(&content)).await.unwrap();
    let (_, rest) = begun().await;
    let file = fs_err::OpenOptions::new()
        .write(true)
        .open(dir.path().join("x"))
        .unwrap();
    file.set_len(999_999).unwrap();
    let error = rest.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    assert!(error.to_string().contains("became shorter"), "{error}");
}
