//! What concerns one block stops no other.

use std::io;

use super::*;
use crate::shipper::{due_block::DueBlock, upload::PANICS};

#[tokio::test(start_paused = true)]
async fn a_file_that_the_disk_does_not_give_sets_only_its_block_aside() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    world.seal(&mut shipper, &Made::new(&name(1), 0));
    let block = scan(world.data.path()).unwrap().blocks.remove(0);
    let due = DueBlock {
        quiet: None,
        was_young: false,
        request: UploadRequest::new(block),
    };
    sleep(SETTLE).await;
    let out_of_descriptors = io::Error::from_raw_os_error(24);
    let error = shipper.set_aside_for_error(&due, out_of_descriptors.into());
    assert!(matches!(error, Err(upload::Error::Local(_))), "{error:?}");
    assert!(shipper.aside().is_empty());
    let of_the_disk = io::Error::from_raw_os_error(5);
    shipper.set_aside_for_error(&due, of_the_disk.into()).unwrap();
    assert_eq!(shipper.quarantine.by_reason()["unreadable"], 1);
}

#[tokio::test(start_paused = true)]
async fn shipping_works_again_only_when_something_has_worked_in_the_bucket() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    let index = format!("{a}/index");
    for (calls, kind) in [(1..=1, ErrorKind::Server), (2..=2, ErrorKind::Refused)] {
        world.bucket.on(Op::Upload, &index, calls, Fault::Fail(kind));
    }
    world.seal(&mut shipper, &Made::new(&a, 0));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert!(shipper.last_failure.is_some(), "the only block is set aside");
    sleep(Duration::from_secs(61)).await;
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
    assert!(shipper.last_failure.is_none(), "the block is durable");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_the_store_refuses_delays_only_its_block() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.seal(&mut shipper, &Made::new(&b, 10));
    world
        .bucket
        .on(Op::Upload, &format!("{a}/chunks"), .., Fault::Fail(ErrorKind::Refused));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [b.as_str()]);
    assert_eq!(shipper.quarantine.by_reason()["refused"], 1);
    assert_eq!(world.metrics.unuploaded.get(), 1);
    // It is tried again with growing waits.
    let mut tries = Vec::new();
    for minute in 1..=16 {
        sleep(Duration::from_secs(60)).await;
        let before = world.uploads();
        shipper.pass().await;
        if world.uploads() > before {
            tries.push(minute);
        }
    }
    assert_eq!(tries, [1, 3, 7, 15]);
    world.bucket.heal();
    sleep(Duration::from_secs(16 * 60)).await;
    for _ in 0..2 {
        assert_eq!(shipper.pass().await, Outcome::Clean);
    }
    assert_eq!(world.listed(), [a, b], "in the order of their times");
}

#[tokio::test(start_paused = true)]
async fn what_concerns_the_bucket_delays_every_later_block() {
    for kind in [ErrorKind::Forbidden, ErrorKind::Server, ErrorKind::Throttled] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let (a, b) = (name(1), name(2));
        world.seal(&mut shipper, &Made::new(&a, 0));
        world.seal(&mut shipper, &Made::new(&b, 10));
        world
            .bucket
            .on(Op::Upload, &format!("{a}/index"), 1..=1, Fault::Fail(kind));
        assert_eq!(shipper.pass().await, Outcome::Failed, "{kind:?}");
        assert!(world.listed().is_empty(), "{kind:?}");
        assert_eq!(shipper.pass().await, Outcome::Clean, "{kind:?}");
        assert_eq!(world.listed(), [a, b], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_could_not_be_flushed_does_not_count_though_it_can_be_read() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    let meta = format!("{a}/meta.json");
    world
        .bucket
        .on(Op::Upload, &meta, 1..=1, Fault::FailAfter(ErrorKind::Unflushed));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    assert!(world.object(&meta).is_some() && world.listed().is_empty());
    assert_eq!(world.metrics.uploads.get(), 0);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
    assert_eq!(world.metrics.uploads.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_meta_json_that_the_store_does_not_give_stops_nothing() {
    for kind in [ErrorKind::Forbidden, ErrorKind::Refused, ErrorKind::TooLarge] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let (a, foreign) = (name(1), name(2));
        world.put_block(&Made::new(&foreign, 0), "b");
        world.bucket.on(Op::Get, &foreign, .., Fault::Fail(kind));
        world.copy_in(&Made::new(&a, 0));
        assert_eq!(shipper.pass().await, Outcome::Clean, "{kind:?}");
        assert_eq!(world.listed(), [a], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clearing_up_after_an_earlier_run_delays_nothing_and_is_done_once() {
    for fault in [Fault::Fail(ErrorKind::Server), Fault::Hang] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let a = name(1);
        world.bucket.on(Op::Delete, "", .., fault);
        world
            .bucket
            .on(Op::Upload, "index", 1..=2, Fault::Fail(ErrorKind::Server));
        world.copy_in(&Made::new(&a, 0));
        for expected in [Outcome::Failed, Outcome::Failed, Outcome::Clean] {
            assert_eq!(shipper.pass().await, expected, "{fault:?}");
        }
        assert_eq!(world.listed(), [a], "{fault:?}");
        let clearings = world.bucket.calls().into_iter().filter(|(op, _)| *op == Op::Delete);
        assert_eq!(clearings.count(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_lags_sends_nothing_twice() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.bucket.on(Op::Iter, &a, .., Fault::Lose);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
    assert_eq!(world.uploads(), 3, "two files and meta.json");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_is_contained_each_time() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(901), name(902));
    PANICS.lock().unwrap().push(id(&a));
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.seal(&mut shipper, &Made::new(&b, 10));
    for _ in 0..3 {
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.listed(), [b.as_str()]);
        assert_eq!(shipper.quarantine.by_reason()["panic"], 1);
        sleep(Duration::from_secs(20 * 60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_block_is_not_read_again_before_it_changes() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(903);
    let dir = world.copy_in(&Made::new(&a, 0));
    let good = fs_err::read(dir.join("index")).unwrap();
    fs_err::write(dir.join("index"), &good[..good.len() - 1]).unwrap();
    while matches!(shipper.pass().await, Outcome::Arriving(_)) {
        // Nobody has left it alone for long enough yet, by the clock of the files.
        std::thread::sleep(Duration::from_millis(500));
        sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(shipper.quarantine.by_reason()["index"], 1);
    PANICS.lock().unwrap().push(id(&a));
    for _ in 0..3 {
        sleep(Duration::from_secs(61)).await;
        shipper.pass().await;
        assert_eq!(shipper.quarantine.by_reason()["index"], 1, "it was not read");
    }
    PANICS.lock().unwrap().retain(|block| *block != id(&a));
    fs_err::write(dir.join("index"), good).unwrap();
    sleep(Duration::from_secs(61)).await;
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_meta_json_of_a_block_that_the_store_does_not_give_is_refused_and_no_conflict() {
    let world = World::new().await;
    let a = Made::new(&name(1), 0);
    world.copy_in(&a);
    world.put_block(&a, "a");
    world.bucket.on(
        Op::Get,
        &format!("{}/meta.json", a.name),
        ..,
        Fault::Fail(ErrorKind::Refused),
    );
    let mut shipper = world.shipper();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(
        shipper.quarantine.by_reason().into_iter().collect::<Vec<_>>(),
        [("refused", 1)]
    );
    assert!(world.listed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_may_not_read_delay_every_block_and_set_none_aside() {
    let world = World::new().await;
    let a = name(1);
    world.copy_in(&Made::new(&a, 0));
    world.bucket.on(Op::Get, &a, .., Fault::Fail(ErrorKind::Forbidden));
    let mut shipper = world.shipper();
    assert_eq!(shipper.pass().await, Outcome::Failed);
    assert!(shipper.aside().is_empty());
    assert_eq!(world.metrics.dir_sync_failures.get(), 1);
    world.bucket.heal();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
}
