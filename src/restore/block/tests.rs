//! Blocks that are on disk already, and what the disk does not give back.

use prometheus_client::registry::Registry;

use super::*;
use crate::{objstore::Limits, restore::target::SYNCED, tsdb::testing::real_block};

fn broken(reason: Reason) -> Wrong {
    let detail = "index: input/output error".to_owned();
    Wrong::of_check(PinError::Broken { reason, detail }).unwrap_or_else(|_| panic!("it says something of the block"))
}

#[test]
fn a_disk_that_does_not_give_back_what_was_written_is_no_fault_of_the_block() {
    let Err(Failed::Disk(error)) = broken(Reason::Unreadable).of_fetched() else {
        panic!("it would be fetched again, and be called damaged in the bucket")
    };
    assert!(error.to_string().contains("index: input/output error"), "{error}");
    let wrong = broken(Reason::Index).of_fetched();
    assert!(wrong.is_ok_and(|wrong| wrong.why.contains("index: input/output error")));
}

#[test]
fn a_check_that_cannot_read_a_finished_block_does_not_call_it_another_one() {
    let told = |reason| broken(reason).of_present(Path::new("data/A"));
    let unreadable = told(Reason::Unreadable);
    assert!(
        unreadable.starts_with("data/A is there already, and cannot be read: index: input/output error"),
        "{unreadable}"
    );
    assert!(told(Reason::Index).contains("and is not the block of the bucket"));
}

/// A bucket that has the real block, and an empty directory to restore it to.
async fn scene() -> (tempfile::TempDir, tempfile::TempDir, Run, BlockId) {
    let (store, block) = real_block();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {:?}\n", store.path());
    let config = objstore::config::parse(&yaml).unwrap();
    let bucket = objstore::open(&config, &Limits::default(), &mut Registry::default()).await;
    let data = tempfile::tempdir().unwrap();
    let run = Run {
        bucket: bucket.unwrap(),
        target: Target::open(data.path()).unwrap(),
        at_once: 1,
        permits: Semaphore::new(1),
        checks: Semaphore::new(1),
        stop: Arc::default(),
    };
    (store, data, run, block.id)
}

#[tokio::test]
async fn the_name_of_a_block_that_is_there_is_flushed_again() {
    let (_store, data, run, id) = scene().await;
    let flushes = || {
        let synced = SYNCED.lock().unwrap();
        synced.iter().filter(|dir| *dir == data.path()).count()
    };
    assert_eq!(run.restore(id).await.unwrap(), Outcome::Restored);
    let before = flushes();
    assert_eq!(run.restore(id).await.unwrap(), Outcome::Present);
    assert_eq!(flushes() - before, 1);
}

#[tokio::test]
async fn a_finished_block_that_the_disk_does_not_give_is_told_to_be_unreadable() {
    let (_store, data, run, id) = scene().await;
    assert_eq!(run.restore(id).await.unwrap(), Outcome::Restored);
    let meta = data.path().join(id.to_string()).join("meta.json");
    fs_err::remove_file(&meta).unwrap();
    // The first page of an address space is never mapped, and the kernel answers with EIO.
    fs_err::os::unix::fs::symlink("/proc/self/mem", &meta).unwrap();
    let Outcome::Refused(why) = run.restore(id).await.unwrap() else {
        panic!("it is not refused")
    };
    assert!(why.contains("cannot be read") && why.contains("os error 5"), "{why}");
    assert!(why.contains(&meta.display().to_string()), "{why}");
    // A file that is missing says what the block is not.
    fs_err::remove_file(&meta).unwrap();
    let Outcome::Refused(why) = run.restore(id).await.unwrap() else {
        panic!("it is not refused")
    };
    assert!(why.contains("is not the block of the bucket"), "{why}");
}
