use std::sync::Arc;

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::{
    objstore::{
        Limits, Op, config,
        layers::{Fault, Faulty},
        open,
    },
    preflight::{Verdict, run_part},
};

const WANTED: Wanted = Wanted {
    write: true,
    parts: true,
};

async fn faulty() -> (TempDir, Arc<Faulty>) {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", dir.path().display());
    let bucket = open(
        &config::parse(&yaml).unwrap(),
        &Limits::default(),
        &mut Registry::default(),
    )
    .await;
    (dir, Faulty::new(bucket.unwrap()))
}

/// What a whole run finds that is not good: names and verdicts.
async fn run(bucket: &dyn Bucket, wanted: Wanted) -> Vec<(&'static str, Verdict)> {
    let (limit, written) = (std::time::Duration::from_secs(60), Written::new());
    let whole = async |part: &Part| {
        probe(part, bucket, &StoreClock::default(), wanted, &written).await;
        remove(part, bucket, &written).await;
    };
    let (findings, ended) = run_part(Instant::now() + limit, limit, whole).await;
    assert_eq!(ended, Some(()));
    let bad = findings.iter().filter(|finding| finding.verdict != Verdict::Ok);
    bad.map(|finding| (finding.check.name, finding.verdict)).collect()
}

#[tokio::test]
async fn each_step_fails_under_its_own_name_and_the_whole_bucket_only_once() {
    let (dir, bucket) = faulty().await;
    assert_eq!(run(&*bucket, WANTED).await, []);
    for (op, key, kind, check) in [
        (Op::Iter, "", ErrorKind::Forbidden, "bucket.list"),
        (Op::Upload, "/whole", ErrorKind::Configuration, "bucket.put"),
        (Op::Upload, "/parts", ErrorKind::Configuration, "bucket.multipart"),
        (Op::Get, "/parts", ErrorKind::Forbidden, "bucket.read"),
        (Op::Iter, "", ErrorKind::NoBucket, "bucket.exists"),
        (Op::Iter, "", ErrorKind::Credentials, "bucket.credentials"),
        (Op::Iter, "", ErrorKind::Region, "bucket.region"),
        (Op::Iter, "", ErrorKind::Clock, "bucket.clock"),
        (Op::Iter, "", ErrorKind::Network, "bucket.reachable"),
        (Op::Upload, "/whole", ErrorKind::Credentials, "bucket.credentials"),
    ] {
        bucket.on(op, key, .., Fault::Fail(kind));
        assert_eq!(run(&*bucket, WANTED).await, [(check, Verdict::Fail)], "{op} {kind:?}");
        bucket.heal();
    }
    for fault in [Fault::Flip, Fault::Truncate] {
        bucket.on(Op::Upload, "/parts", .., fault);
        assert_eq!(
            run(&*bucket, WANTED).await,
            [("bucket.read", Verdict::Fail)],
            "{fault:?}"
        );
        bucket.heal();
    }
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0, "nothing stays");
}

#[tokio::test]
async fn without_writing_the_bucket_is_only_read() {
    let (_dir, bucket) = faulty().await;
    assert_eq!(run(&*bucket, Wanted { write: false, ..WANTED }).await, []);
    assert!(
        bucket.calls().iter().all(|(op, _)| *op == Op::Iter),
        "{:?}",
        bucket.calls()
    );
    assert_eq!(run(&*bucket, Wanted { parts: false, ..WANTED }).await, []);
    assert!(
        bucket.calls().iter().all(|(_, key)| !key.ends_with("/parts")),
        "{:?}",
        bucket.calls()
    );
}

#[tokio::test]
async fn what_may_not_be_removed_is_made_empty_and_what_fails_to_be_is_a_warning() {
    let (dir, bucket) = faulty().await;
    bucket.on(Op::Delete, CANARY_DIR, .., Fault::Fail(ErrorKind::Forbidden));
    assert_eq!(run(&*bucket, WANTED).await, []);
    let left = bucket.list(CANARY_DIR).await.unwrap();
    assert_eq!(left.iter().map(|object| object.size).collect::<Vec<_>>(), [0, 0]);
    bucket.heal();
    // What was not written does not come into being by it.
    bucket.on(Op::Upload, "/whole", ..=1, Fault::Fail(ErrorKind::Forbidden));
    bucket.on(Op::Delete, CANARY_DIR, .., Fault::Fail(ErrorKind::Forbidden));
    assert_eq!(run(&*bucket, WANTED).await, [("bucket.put", Verdict::Fail)]);
    assert_eq!(bucket.list(CANARY_DIR).await.unwrap(), left);
    bucket.heal();
    bucket.on(Op::Delete, CANARY_DIR, .., Fault::Fail(ErrorKind::Server));
    assert_eq!(run(&*bucket, WANTED).await, [("bucket.delete", Verdict::Warn)]);
    drop(dir);
}

#[test]
fn clocks_that_differ_by_minutes_are_warned_of() {
    for (ahead, part) in [
        (0, None),
        (300, None),
        (-300, None),
        (301, Some("301s ahead of")),
        (-4000, Some("4000s behind")),
    ] {
        let found = skew(ahead);
        assert_eq!(found.is_some(), part.is_some(), "{ahead}");
        let text = found.map(|finding| finding.text).unwrap_or_default();
        assert!(text.contains(part.unwrap_or_default()), "{text}");
    }
}
