//! What every bucket does, whatever stands behind it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use narthex::objstore::{Bucket, CANARY_DIR, Canary, ErrorKind, Object, Placed, Source};

use super::{content, limits, open, reading::reads, s3, s3_yaml, streamed, unlinked};
use crate::rig::{Emulator, Kind, Weed};

pub(super) const ALL: u64 = 64 << 20;

/// The suite. Objects above 5 MiB travel in parts where there are parts.
pub(super) async fn conforms(bucket: Arc<dyn Bucket>) {
    conforms_but_for_conditions(Arc::clone(&bucket)).await;
    places_only_what_is_new(&*bucket).await;
}

/// The suite for a store that knows no condition.
async fn conforms_but_for_conditions(bucket: Arc<dyn Bucket>) {
    starts_empty(&*bucket).await;
    puts_and_gets(&*bucket).await;
    lists(&*bucket).await;
    lists_the_top(&*bucket).await;
    reads(&*bucket).await;
    reads_the_start(&*bucket).await;
    sends_large_files(&*bucket).await;
    sends_a_range_of_a_file(&*bucket).await;
    stores_nothing_of_a_file_that_became_shorter(&*bucket).await;
    tells_sizes(&*bucket).await;
    works_side_by_side(&*bucket).await;
    shows_nothing_of_a_dropped_put(&*bucket).await;
    streamed::conforms(&*bucket).await;
    removes_what_a_check_wrote_and_nothing_beside_it(&*bucket).await;
    // Not every store can list what is to be cleared away; it leaves alone what it should either way.
    let before = bucket.list("").await.unwrap();
    drop(bucket.abort_stale("b").await);
    assert_eq!(bucket.list("").await.unwrap(), before);
    bucket.settle().await;
}

async fn starts_empty(bucket: &dyn Bucket) {
    assert_eq!(bucket.list("b").await.unwrap(), []);
    assert_eq!(bucket.list_top("", |_| true).await.unwrap(), Vec::<String>::new());
    let error = bucket.get("b/missing", ALL).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert!(
        error.to_string().contains("/b/missing") && error.to_string().contains(bucket.identity()),
        "{error}"
    );
}

async fn puts_and_gets(bucket: &dyn Bucket) {
    let text = Bytes::from_static(b"some bytes");
    for key in ["b/plain", "b/ünï cödé +&=%?#'\"(~)*.txt", "b/deep/er/still"] {
        bucket.put_bytes(key, text.clone()).await.unwrap();
        assert_eq!(bucket.get(key, ALL).await.unwrap(), text, "{key}");
    }
    bucket.put_bytes("b/plain", Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(bucket.get("b/plain", 5).await.unwrap(), "other", "the last put counts");
    let error = bucket.get("b/plain", 4).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");

    for (key, len) in [("b/empty", 0), ("b/small", 70_001)] {
        let content = content(len);
        bucket.put_file(key, &unlinked(&content)).await.unwrap();
        assert_eq!(bucket.get(key, ALL).await.unwrap(), content);
    }
    bucket.put_bytes("b/nothing", Bytes::new()).await.unwrap();
    assert_eq!(bucket.get("b/nothing", 0).await.unwrap(), "");
}

async fn reads_the_start(bucket: &dyn Bucket) {
    bucket.put_bytes("start/object", "0123456789".into()).await.unwrap();
    for (len, expected) in [
        (0, ""),
        (1, "0"),
        (9, "012345678"),
        (10, "0123456789"),
        (1 << 20, "0123456789"),
    ] {
        assert_eq!(bucket.read_start("start/object", len).await.unwrap(), expected, "{len}");
    }
    let absent = bucket.read_start("start/nothing", 5).await.unwrap_err();
    assert_eq!(absent.kind, ErrorKind::NotFound);
}

async fn removes_what_a_check_wrote_and_nothing_beside_it(bucket: &dyn Bucket) {
    let (canary, other) = (Canary::new(), Canary::new());
    for key in [canary.whole(), canary.parts(), other.whole()] {
        bucket.put_bytes(key.as_str(), Bytes::from_static(b"x")).await.unwrap();
    }
    let keys = async || -> Vec<String> {
        let listed = bucket.list(CANARY_DIR).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    };
    bucket.remove(&canary.whole()).await.unwrap();
    let mut left = [canary.parts(), other.whole()].map(|key| key.as_str().to_owned());
    left.sort_unstable();
    assert_eq!(keys().await, left);
    // Twice is no error; nor is one that was never there.
    for key in [canary.whole(), canary.parts(), other.parts(), other.whole()] {
        bucket.remove(&key).await.unwrap();
    }
    assert_eq!(keys().await, Vec::<String>::new());
}

async fn lists(bucket: &dyn Bucket) {
    for key in ["l/b/2", "l/a", "l/b/10", "l/b.x", "lx/no"] {
        bucket.put_bytes(key, key.into()).await.unwrap();
    }
    let object = |key: &str| Object {
        key: key.into(),
        size: key.len() as u64,
    };
    let expected = ["l/a", "l/b.x", "l/b/10", "l/b/2"].map(object);
    assert_eq!(bucket.list("l").await.unwrap(), expected);
    assert_eq!(bucket.list("l/b").await.unwrap(), expected[2..]);
    assert_eq!(bucket.list("l/a").await.unwrap(), [], "an object is no directory");
}

async fn lists_the_top(bucket: &dyn Bucket) {
    for key in ["t/1", "t-x/1", "t.y/deep/1", "t0/1", "top-object"] {
        bucket.put_bytes(key, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(
        bucket.list_top("", |_| true).await.unwrap(),
        ["b", "l", "lx", "t", "t-x", "t.y", "t0"]
    );
    assert_eq!(
        bucket.list_top("lx", |_| true).await.unwrap(),
        ["t", "t-x", "t.y", "t0"]
    );
    assert_eq!(bucket.list_top("t", |_| true).await.unwrap(), ["t-x", "t.y", "t0"]);
    assert_eq!(bucket.list_top("t.", |_| true).await.unwrap(), ["t.y", "t0"]);
    assert_eq!(bucket.list_top("zz", |_| true).await.unwrap(), Vec::<String>::new());
}

async fn sends_large_files(bucket: &dyn Bucket) {
    for len in [5 << 20, (5 << 20) + 1, 17_000_001] {
        let content = content(len);
        bucket.put_file("b/large", &unlinked(&content)).await.unwrap();
        assert!(
            bucket.get("b/large", ALL).await.unwrap() == content,
            "{len} bytes came back otherwise"
        );
        assert_eq!(bucket.list("b/large").await.unwrap(), []);
        let all = bucket.list("b").await.unwrap();
        assert!(
            all.contains(&Object {
                key: "b/large".into(),
                size: len as u64
            }),
            "{all:?}"
        );
    }
}

async fn sends_a_range_of_a_file(bucket: &dyn Bucket) {
    let content = content(12 << 20);
    // Whole and in parts; what follows upon the range is as what was appended since.
    for (start, len) in [(7, 0), (7, 1000), (32 << 10, (5 << 20) + 1), ((12 << 20) - 1, 1)] {
        let all = unlinked(&content);
        let source = Source::range(all.file, all.path, start as u64, len as u64);
        bucket.put_file("r/range", &source).await.unwrap();
        let sent = &content[start..start + len];
        assert!(
            bucket.get("r/range", ALL).await.unwrap() == sent,
            "{len} bytes from {start} on"
        );
    }
    let all = unlinked(&content);
    let beyond = Source::range(all.file, all.path, (12 << 20) - 10, 11);
    let error = bucket.put_file("r/beyond", &beyond).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Local, "{error}");
    assert_eq!(bucket.stat("r/beyond").await.unwrap(), None);
}

async fn stores_nothing_of_a_file_that_became_shorter(bucket: &dyn Bucket) {
    for len in [1000, 12 << 20] {
        let source = Source {
            len: len + 1,
            ..unlinked(&content(len as usize))
        };
        let error = bucket.put_file("s/short", &source).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Local, "{error}");
        assert!(error.to_string().contains(&*source.path.to_string_lossy()), "{error}");
        assert!(error.to_string().contains("shorter"), "{error}");
    }
    assert_eq!(bucket.list("s").await.unwrap(), []);
}

async fn places_only_what_is_new(bucket: &dyn Bucket) {
    let [first, second] = ["the first", "the second one"].map(|text: &'static str| Bytes::from_static(text.as_bytes()));
    assert_eq!(
        bucket.put_new("n/meta.json", first.clone()).await.unwrap(),
        Placed::Created
    );
    assert_eq!(
        bucket.put_new("n/meta.json", second.clone()).await.unwrap(),
        Placed::Exists
    );
    assert_eq!(
        bucket.get("n/meta.json", ALL).await.unwrap(),
        first,
        "it was not replaced"
    );
    bucket.put_bytes("n/meta.json", second.clone()).await.unwrap();
    assert_eq!(bucket.get("n/meta.json", ALL).await.unwrap(), second);
}

/// What a simulator need not: of many writers at once one is the first, and names of directories are no objects.
pub(super) async fn is_strict(bucket: &dyn Bucket) {
    let writers = (0..8).map(|i| async move {
        let body = Bytes::from(format!("writer {i}"));
        (bucket.put_new("n/race", body.clone()).await.unwrap(), body)
    });
    let placed = join_all(writers).await;
    let created: Vec<_> = placed.iter().filter(|(placed, _)| *placed == Placed::Created).collect();
    assert_eq!(created.len(), 1, "{placed:?}");
    assert_eq!(bucket.get("n/race", ALL).await.unwrap(), created[0].1);
    bucket.put_bytes("y/dir/object", Bytes::new()).await.unwrap();
    assert_eq!(bucket.stat("y/dir").await.unwrap(), None);
}

async fn tells_sizes(bucket: &dyn Bucket) {
    for (key, body) in [("z/a", "12345"), ("z/b/empty", "")] {
        bucket.put_bytes(key, body.into()).await.unwrap();
        assert_eq!(bucket.stat(key).await.unwrap(), Some(body.len() as u64), "{key}");
    }
    for key in ["z/c", "none/at/all"] {
        assert_eq!(bucket.stat(key).await.unwrap(), None, "{key}");
    }
}

async fn works_side_by_side(bucket: &dyn Bucket) {
    let content = content(6_000_000);
    let source = unlinked(&content);
    let puts = (0..12).map(|i| {
        let (source, content) = (source.clone(), content.clone());
        async move {
            let key = format!("c/{i}");
            bucket.put_file(&key, &source).await.unwrap();
            assert!(bucket.get(&key, ALL).await.unwrap() == content, "{key}");
        }
    });
    join_all(puts).await;
    assert_eq!(bucket.list("c").await.unwrap().len(), 12);
}

async fn shows_nothing_of_a_dropped_put(bucket: &dyn Bucket) {
    let len = 60_000_000;
    let source = unlinked(&content(len));
    for millis in [0, 2, 10, 40] {
        let put = bucket.put_file("d/dropped", &source);
        let _ = tokio::time::timeout(Duration::from_millis(millis), put).await;
        bucket.settle().await;
        for object in bucket.list("d").await.unwrap() {
            assert_eq!(object.size, len as u64, "half an object is visible");
        }
    }
    bucket.put_file("d/dropped", &source).await.unwrap();
    assert_eq!(
        bucket.list("d").await.unwrap(),
        [Object {
            key: "d/dropped".into(),
            size: len as u64
        }]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    let (_dir, host) = s3().await;
    let bucket = open(&s3_yaml(&host, "thanos", &["part_size: 5242880"]), limits()).await;
    assert_eq!(
        (bucket.name(), bucket.identity()),
        ("thanos", &*format!("s3://{host}/thanos"))
    );
    conforms(bucket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms_with_the_older_listing_a_prefix_and_md5() {
    let (dir, host) = s3().await;
    let more = [
        "part_size: 5242880",
        "list_objects_version: v1",
        "send_content_md5: true",
    ];
    let yaml = s3_yaml(&host, "thanos", &more) + "prefix: a/b\n";
    let bucket = open(&yaml, limits()).await;
    assert_eq!(
        (bucket.name(), bucket.identity()),
        ("thanos", &*format!("s3://{host}/thanos/a/b"))
    );
    conforms(bucket).await;
    assert_eq!(fs_err::read(dir.path().join("thanos/a/b/l/a")).unwrap(), b"l/a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms() {
    let view = Weed::shared().await.bucket("conforms").await;
    let bucket = open(&view.config_with("part_size: 5242880\n"), limits()).await;
    conforms(Arc::clone(&bucket)).await;
    is_strict(&*bucket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azures_store_conforms() {
    let view = Emulator::shared(Kind::Azure).await.bucket("conforms").await;
    let bucket = open(&view.config(), limits()).await;
    conforms(Arc::clone(&bucket)).await;
    is_strict(&*bucket).await;
    let below = open(&view.below("a/b").config(), limits()).await;
    assert!(
        below.identity().ends_with("/a/b") && below.identity().starts_with("azure://"),
        "{}",
        below.identity()
    );
    conforms(below).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_store_conforms() {
    let view = Emulator::shared(Kind::Gcs).await.bucket("conforms").await;
    let bucket = open(&view.config(), limits()).await;
    assert!(bucket.identity().starts_with("gs://conforms-"), "{}", bucket.identity());
    conforms_but_for_conditions(bucket).await;
    conforms_but_for_conditions(open(&view.below("a/b").config(), limits()).await).await;
}

#[tokio::test]
async fn a_container_that_is_missing_is_made_unless_that_is_forbidden() {
    let view = Emulator::shared(Kind::Azure).await.bucket("made").await;
    let yaml = view.config().replace("container: made", "container: missing");
    let forbidden = open(
        &yaml.replace("config:\n", "config:\n  storage_create_container: false\n"),
        limits(),
    )
    .await;
    let error = forbidden.put_bytes("b/a", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoBucket, "{error}");
    assert_eq!(forbidden.list("b").await.unwrap_err().kind, ErrorKind::NoBucket);
    let bucket = open(&yaml, limits()).await;
    assert_eq!(bucket.list("b").await.unwrap(), [], "a backfill looks before it writes");
    assert_eq!(bucket.list_top("", |_| true).await.unwrap(), Vec::<String>::new());
    assert_eq!(bucket.stat("b/a").await.unwrap(), None);
    assert_eq!(bucket.get("b/a", ALL).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(
        forbidden.list("b").await.unwrap_err().kind,
        ErrorKind::NoBucket,
        "reading makes none"
    );
    bucket.put_bytes("b/a", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(forbidden.get("b/a", ALL).await.unwrap(), "x");
}

#[tokio::test]
async fn listings_of_many_objects_come_in_pages() {
    let (dir, host) = s3().await;
    let mut keys: Vec<String> = (0..1100).map(|i| format!("m{:04}/{i}", i * 7 % 1100)).collect();
    for key in &keys {
        let file = dir.path().join("thanos/p/x").join(key);
        fs_err::create_dir_all(file.parent().unwrap()).unwrap();
        fs_err::write(file, "x").unwrap();
    }
    keys.sort();
    for version in ["v1", "v2"] {
        let more = format!("list_objects_version: {version}");
        let bucket = open(&(s3_yaml(&host, "thanos", &[&more]) + "prefix: p\n"), limits()).await;
        let listed = bucket.list("x").await.unwrap().into_iter().map(|object| object.key);
        assert!(listed.eq(keys.iter().map(|key| format!("x/{key}"))), "{version}");
        let bucket = open(&(s3_yaml(&host, "thanos", &[&more]) + "prefix: p/x\n"), limits()).await;
        let dirs = bucket.list_top("m0010", |_| true).await.unwrap();
        assert_eq!(dirs.len(), 1089, "{version}");
        assert_eq!((&*dirs[0], &*dirs[1088]), ("m0011", "m1099"), "{version}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_told_from_an_empty_one() {
    let (_dir, host) = s3().await;
    let bucket = open(&s3_yaml(&host, "nowhere", &[]), limits()).await;
    // (This server makes a bucket on the first put.)
    for error in [
        bucket.list("b").await.unwrap_err(),
        bucket.list_top("", |_| true).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NoBucket, "{error}");
    }
}
