//! Whole passes over a real directory and a directory as the bucket. The clock is tokio's, and jumps when all wait.

mod bucket_lookup;
mod compaction;
mod content;
mod gate;
mod held;
mod jitter;
mod labels;
mod min_time;
mod other_writers;
mod overview;
mod removed_blocks;
mod retention;
mod rewritten;
mod scope;

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Liveness,
    gate::SETTLE,
    pass::Outcome,
    testing::{Made, World, id, name},
    upload::{self, UploadRequest},
};
use crate::{
    objstore::{ErrorKind, Op, layers::Fault},
    tsdb::{Meta, scan, testing::Shape},
};

const CHUNKS: &str = "chunks/000001";

/// Changes a byte of the second chunk of three; the file stays as long as it was, and what is checked stays sound.
fn overwrite(dir: &std::path::Path) {
    let path = dir.join(CHUNKS);
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[19] ^= 0xff;
    fs_err::write(&path, bytes).unwrap();
    let file = fs_err::File::options().write(true).open(&path).unwrap();
    file.file()
        .set_modified(SystemTime::now() - Duration::from_secs(5))
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_of_files_that_changed_since_is_sent_again() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    let dir = world.copy_in(&Made::new(&a, 0));
    world
        .bucket
        .on(Op::Upload, "meta.json", 1..=1, Fault::Fail(ErrorKind::Server));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    overwrite(&dir);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    let sent = world.object(&format!("{a}/{CHUNKS}"));
    assert_eq!(sent, fs_err::read(dir.join(CHUNKS)).ok());
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_meta_json_that_changed_since_the_scan_is_not_sent_as_it_was() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let mut made = Made::new(&name(1), 0);
    let dir = world.seal(&mut shipper, &made);
    let block = scan(world.data.path()).unwrap().blocks.remove(0);
    made.range.1 = 20;
    fs_err::write(dir.join("meta.json"), made.meta()).unwrap();
    match shipper.uploader.upload(&UploadRequest::new(block)).await {
        Err(upload::Error::Changed(file)) => assert!(file.ends_with("meta.json"), "{file}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.uploads(), 0);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    let sent = world.object(&format!("{}/meta.json", made.name)).unwrap();
    assert_eq!(Meta::parse(&sent).unwrap().max_time, 20);
}

#[tokio::test(start_paused = true)]
async fn a_change_after_a_block_was_read_stops_its_commit() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world.copy_in(&Made::new(&a, 0));
    let dir = world.copy_in(&Made::new(&b, 10));
    let meddler = {
        let dir = dir.clone();
        tokio::spawn(async move {
            // Both are sent by now and the first is held.
            sleep(Duration::from_secs(5)).await;
            overwrite(&dir);
        })
    };
    assert!(matches!(shipper.pass().await, Outcome::Arriving(_)));
    meddler.await.unwrap();
    assert_eq!(world.listed(), [a.as_str()]);
    assert_eq!(world.stamped(&b), None);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(shipper.pass().await, Outcome::Clean);
    let sent = world.object(&format!("{b}/{CHUNKS}"));
    assert_eq!(sent, fs_err::read(dir.join(CHUNKS)).ok());
    assert_eq!(world.listed(), [a, b]);
}

#[tokio::test(start_paused = true)]
async fn other_files_among_the_chunks_do_not_delay_a_block() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    let dir = world.seal(&mut shipper, &Made::new(&a, 0));
    fs_err::write(dir.join("chunks/.nfs000000000001"), "x").unwrap();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_waits_is_noted_before_the_pass_decides() {
    let world = World::new().await;
    let mut shipper = world.watching_shipper();
    shipper.watcher.ensure();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    shipper.events = Default::default();
    let begun = std::time::Instant::now();
    while shipper.hints.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no hint");
        std::thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
    assert!(begun.elapsed() <= SETTLE, "it was held as if it were copied");
}

#[tokio::test(start_paused = true)]
async fn a_durable_block_that_cannot_be_read_stays_listed_and_is_not_missed() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = Made::new(&name(1), 0);
    let dir = world.seal(&mut shipper, &a);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    fs_err::remove_file(dir.join("meta.json")).unwrap();
    shipper.pass().await;
    assert_eq!(world.listed(), [a.name.as_str()]);
    assert_eq!(world.metrics.unuploaded.get(), 0);
    fs_err::remove_dir_all(dir).unwrap();
    shipper.pass().await;
    assert!(world.listed().is_empty());
    assert_eq!(world.metrics.vanished.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_that_an_unreadable_block_may_disprove() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    world.seal(&mut shipper, &Made::new(&name(1), 1000));
    shipper.pass().await;
    assert_eq!(world.metrics.durable_until.get(), 1.01);
    let bad = world.data.path().join(name(2));
    fs_err::create_dir(&bad).unwrap();
    fs_err::write(bad.join("meta.json"), "{").unwrap();
    world.seal(&mut shipper, &Made::new(&name(3), 2000));
    shipper.pass().await;
    assert_eq!(world.listed(), [name(1), name(3)]);
    assert_eq!(world.metrics.durable_until.get(), 1.01);
    assert_eq!(world.metrics.unuploaded.get(), 1);
    let mut next = world.shipper();
    next.pass().await;
    assert_eq!(
        world.metrics.durable_until.get(),
        0.0,
        "a new run knows of nothing that was told"
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_prometheus_does_not_serve_disproves_nothing() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    // As old as can be by its name.
    fs_err::create_dir(world.data.path().join("00000000010000000000000000")).unwrap();
    let (a, b) = (name(1), name(2));
    world.seal(&mut shipper, &Made::new(&a, 1000));
    shipper.pass().await;
    assert_eq!(world.listed(), [a.as_str()]);
    assert_eq!(
        (world.metrics.durable_until.get(), world.metrics.unuploaded.get()),
        (1.01, 0)
    );
    // One that waits is a block, also while it is being deleted.
    world.bucket.on(Op::Upload, &b, .., Fault::Fail(ErrorKind::Server));
    let dir = world.seal(&mut shipper, &Made::new(&b, 2000));
    shipper.pass().await;
    fs_err::remove_file(dir.join("meta.json")).unwrap();
    for _ in 0..2 {
        shipper.pass().await;
        assert_eq!(world.metrics.unuploaded.get(), 1);
    }
    world.withdraw(&mut shipper, &b);
    shipper.pass().await;
    assert_eq!((world.metrics.withdrawn(), world.metrics.unuploaded.get()), (1, 0));
}

/// A block that Prometheus made of others, which it then deleted.
fn compacted(n: u32, min: i64, sources: &[&str]) -> Made {
    let mut merged = Made::new(&name(n), min);
    (merged.level, merged.sources) = (2, sources.iter().map(ToString::to_string).collect());
    merged
}

#[tokio::test(start_paused = true)]
async fn a_compacted_block_is_not_durable_when_one_of_its_sources_never_was() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    let gone = world.seal(&mut shipper, &Made::new(&a, 1000));
    world.bucket.on(Op::Upload, &a, .., Fault::Fail(ErrorKind::Server));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    let merged = compacted(3, 1000, &[&a]);
    world.seal(&mut shipper, &merged);
    fs_err::remove_dir_all(gone).unwrap();
    world.seal(&mut shipper, &Made::new(&b, 2000));
    // A new run knows no more than this one.
    for _ in 0..2 {
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.listed(), [b.as_str()]);
        assert_eq!(world.metrics.vanished.get(), 0, "its samples are in the larger block");
        assert_eq!(world.metrics.unuploaded.get(), 1);
        assert_eq!(world.metrics.durable_until.get(), 1.0);
        let told = &shipper.pending[&id(&merged.name)].why;
        assert!(told.contains(&a) && told.contains("--shipper.upload-compacted") && told.contains("narthex backfill"));
        shipper = world.shipper();
    }
    // Prometheus compacts it once more.
    shipper.pass().await;
    let mut larger = compacted(4, 1000, &[&a, &b]);
    larger.level = 3;
    world.seal(&mut shipper, &larger);
    world.retire(&mut shipper, &merged.name);
    shipper.pass().await;
    assert_eq!(world.metrics.vanished.get(), 0);
    assert_eq!(shipper.pending.keys().collect::<Vec<_>>(), [&id(&larger.name)]);
    // Retention takes the larger block: now they are lost.
    world.retire(&mut shipper, &larger.name);
    shipper.pass().await;
    assert_eq!(world.metrics.vanished.get(), 1);
    assert_eq!(world.metrics.unuploaded.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_compacted_while_nobody_looked_is_durable_as_far_as_it_was_shipped() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    let gone = world.seal(&mut shipper, &Made::new(&a, 1000));
    shipper.pass().await;
    drop(shipper);
    fs_err::remove_dir_all(gone).unwrap();
    world.copy_in(&compacted(3, 1000, &[&a]));
    let missed = compacted(4, 1020, &[&b]);
    world.copy_in(&missed);
    for _ in 0..2 {
        let mut next = world.shipper();
        assert_eq!(next.pass().await, Outcome::Clean);
        assert_eq!(next.pending.keys().collect::<Vec<_>>(), [&id(&missed.name)]);
        assert_eq!(world.metrics.unuploaded.get(), 1);
        assert_eq!(world.metrics.durable_until.get(), 1.01);
    }
}

#[tokio::test(start_paused = true)]
async fn what_thanos_wrote_is_replaced_by_the_first_pass_that_could_ask_the_bucket() {
    let world = World::new().await;
    let path = world.data.path().join("thanos.shipper.json");
    let (a, b) = (name(1), name(2));
    let thanos = format!("{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{a}\",\n\t\t\"{b}\"\n\t]\n}}\n");
    fs_err::write(&path, &thanos).unwrap();
    world.copy_in(&Made::new(&a, 0));
    let mut shipper = world.shipper();
    world.bucket.on(Op::Iter, "", .., Fault::Fail(ErrorKind::Network));
    for _ in 0..3 {
        assert_eq!(shipper.pass().await, Outcome::Failed);
        assert_eq!(fs_err::read_to_string(&path).unwrap(), thanos);
    }
    world.bucket.heal();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a.as_str()]);
    assert!(world.stamped(&a).is_some(), "its word alone proves nothing");
    let kept = world.data.path().join("thanos.shipper.json.before-narthex");
    assert_eq!(fs_err::read_to_string(kept).unwrap(), thanos);
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_what_is_missing_while_the_first_pass_runs() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    world.seal(&mut shipper, &Made::new(&name(1), 1000));
    world.seal(&mut shipper, &Made::new(&name(2), 2000));
    world
        .bucket
        .on(Op::Upload, &format!("{}/index", name(2)), .., Fault::Hang);
    timeout(Duration::from_secs(60), shipper.pass()).await.unwrap_err();
    assert_eq!(world.metrics.unuploaded.get(), 1);
    assert_eq!(world.metrics.durable_until.get(), 1.01);
}

/// What the compactor leaves of blocks that it merged.
fn merge(world: &World, into: &str, sources: &[&str]) {
    let mut merged = Made::new(into, 0);
    merged.level = 2;
    merged.sources = sources.iter().map(ToString::to_string).collect();
    world.merge(&merged, "a");
}

#[tokio::test(start_paused = true)]
async fn an_old_block_that_is_moved_back_in_is_looked_up_first() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let old = "01J4ABCDEFGHJKMNPQRSTVWXYZ";
    merge(&world, &name(1), &[old]);
    world.seal(&mut shipper, &Made::new(old, 0));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{old}/index")), None);
    assert_eq!(world.listed(), [old]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_not_settled_is_looked_up_first() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    world
        .bucket
        .on(Op::Upload, "meta.json", 1..=1, Fault::FailAfter(ErrorKind::Network));
    world
        .bucket
        .on(Op::Get, "meta.json", 1..=1, Fault::Fail(ErrorKind::Network));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    assert!(world.listed().is_empty());
    merge(&world, &name(2), &[&a]);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{a}/index")), None);
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_settled_later_counts_as_ours_and_is_not_sent_again() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    // The listing after the commit.
    world.bucket.on(Op::Iter, &a, 2..=2, Fault::Fail(ErrorKind::Throttled));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    let committed = world.object(&format!("{a}/meta.json"));
    assert!(committed.is_some());
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{a}/meta.json")), committed);
    assert_eq!(world.metrics.uploads.get(), 1);
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_the_store_loses_or_cuts_does_not_count() {
    for fault in [Fault::Lose, Fault::Truncate] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let a = name(1);
        world.seal(&mut shipper, &Made::new(&a, 0));
        world.bucket.on(Op::Upload, "meta.json", 1..=1, fault);
        assert_eq!(shipper.pass().await, Outcome::Failed, "{fault:?}");
        assert!(world.listed().is_empty(), "{fault:?}");
        assert_eq!(shipper.pass().await, Outcome::Clean, "{fault:?}");
        assert_eq!(world.listed(), [a.as_str()], "{fault:?}");
        assert!(world.stamped(&a).is_some(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_block_costs_no_look_into_the_bucket_when_it_is_looked_at_again() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let dir = world.seal(&mut shipper, &Made::new(&name(1), 0));
    shipper.events = Default::default();
    fs_err::remove_file(dir.join("index")).unwrap();
    sleep(Duration::from_secs(20)).await;
    shipper.pass().await;
    let before = world.bucket.calls().len();
    for _ in 0..3 {
        sleep(Duration::from_secs(61)).await;
        shipper.pass().await;
    }
    assert_eq!(world.bucket.calls().len(), before);
    assert_eq!(world.metrics.unuploaded.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_block_delays_no_other() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.seal(&mut shipper, &Made::new(&b, 10));
    world.bucket.on(Op::Upload, &format!("{a}/index"), 1..=1, Fault::Panic);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [b.as_str()]);
    assert_eq!(shipper.quarantine.by_reason()["panic"], 1);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a, b], "in the order of their times");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_during_the_last_pass_is_shipped_too() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    world
        .prometheus
        .send_modify(|prometheus| prometheus.liveness = Liveness::Gone);
    let ((), ()) = tokio::join!(shipper.drain(), async {
        // The first pass has seen that Prometheus is gone; the next is held for ten seconds.
        sleep(Duration::from_millis(100)).await;
        world.copy_in(&Made::new(&name(1), 0));
        sleep(Duration::from_secs(5)).await;
        world.copy_in(&Made::new(&name(2), 10));
    });
    assert_eq!(world.listed(), [name(1), name(2)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_at_the_deadline_is_reported_and_found_by_the_next_run() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world.seal(&mut shipper, &Made::new(&a, 0));
    let mut large = Made::new(&b, 10);
    large.shape = Shape {
        segments: 3,
        ..Shape::default()
    };
    world.seal(&mut shipper, &large);
    world.bucket.on(Op::Upload, "meta.json", 2..=2, Fault::Hang);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    let report = shipper.run(stop, Duration::from_secs(60)).await;
    assert!(!report.in_time);
    assert_eq!(report.not_durable.into_keys().collect::<Vec<_>>(), [id(&b)]);
    assert_eq!(world.listed(), [a.as_str()]);
    let mut next = world.shipper();
    assert_eq!(next.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a, b]);
}
