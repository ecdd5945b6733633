//! Commits wait until Prometheus has kept a block.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::*;
use crate::{
    shipper::{
        Heartbeat,
        due_block::DueBlock,
        gate::{GateResult, SETTLE_WHILE_FAILING},
        upload::UploadRequest,
    },
    tsdb::{Pinned, scan},
};

/// The gate for the only block of the data directory, once `then` has happened to it.
async fn passage(
    world: &World,
    shipper: &mut crate::shipper::Shipper,
    then: impl FnOnce(&mut crate::shipper::Shipper),
) -> GateResult {
    let block = scan(world.data.path()).unwrap().blocks.remove(0);
    let pinned = Pinned::open(&block).unwrap();
    let due = DueBlock {
        quiet: None,
        was_young: shipper.events.is_young(block.id),
        request: UploadRequest::new(block),
    };
    then(shipper);
    shipper.wait_at_gate(&due, &pinned).await
}

#[tokio::test(start_paused = true)]
async fn a_sealed_block_is_sent_at_once_and_committed_when_prometheus_has_kept_it() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    let begun = Instant::now();
    let (outcome, ()) = tokio::join!(shipper.pass(), async {
        while world.object(&format!("{a}/index")).is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(begun.elapsed() < SETTLE);
        assert_eq!(world.stamped(&a), None);
    });
    assert_eq!(outcome, Outcome::Clean);
    assert!(begun.elapsed() >= SETTLE - Duration::from_secs(1));
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_prometheus_withdraws_is_neither_committed_nor_lost_nor_broken() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world.seal(&mut shipper, &Made::new(&a, 0));
    let (outcome, ()) = tokio::join!(shipper.pass(), async {
        sleep(Duration::from_secs(2)).await;
        world.withdraw_unseen(&a);
    });
    assert_eq!(outcome, Outcome::Clean);
    // The same range again.
    world.seal(&mut shipper, &Made::new(&b, 0));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.stamped(&a), None);
    assert_eq!(world.listed(), [b]);
    assert_eq!(world.metrics.withdrawn(), 1);
    assert_eq!(world.metrics.vanished.get(), 0);
    assert_eq!(world.metrics.corrupted_blocks.get(), 0);
    assert_eq!(world.metrics.unuploaded.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_gone_before_it_was_opened_was_withdrawn_too() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.bucket.on(Op::Upload, &a, .., Fault::Fail(ErrorKind::Server));
    world.seal(&mut shipper, &Made::new(&a, 0));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    world.withdraw(&mut shipper, &a);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!((world.metrics.withdrawn(), world.metrics.vanished.get()), (1, 0));
    // Retention renames: what it takes is lost.
    let b = name(2);
    world.bucket.on(Op::Upload, &b, .., Fault::Fail(ErrorKind::Server));
    world.seal(&mut shipper, &Made::new(&b, 0));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    world.retire(&mut shipper, &b);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!((world.metrics.withdrawn(), world.metrics.vanished.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_block_in_the_middle_of_its_deletion_is_not_broken() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    let dir = world.seal(&mut shipper, &Made::new(&a, 0));
    fs_err::remove_file(dir.join("index")).unwrap();
    assert!(matches!(shipper.pass().await, Outcome::Arriving(_)));
    fs_err::remove_file(dir.join("meta.json")).unwrap();
    assert!(matches!(shipper.pass().await, Outcome::Arriving(_)));
    assert_eq!(world.metrics.corrupted_blocks.get(), 0);
    world.withdraw(&mut shipper, &a);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.metrics.vanished.get(), 0);
    assert!(shipper.quarantine.by_reason().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_retention_deletes_while_it_waits_is_committed_and_what_is_withdrawn_is_not() {
    for (retention, expected) in [(true, "open"), (false, "withdrawn")] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let a = name(1);
        world.seal(&mut shipper, &Made::new(&a, 0));
        let passage = passage(&world, &mut shipper, |shipper| match retention {
            true => world.retire(shipper, &a),
            false => world.withdraw(shipper, &a),
        });
        let got = match passage.await {
            GateResult::Open(_) => "open",
            GateResult::Later(_) => "later",
            GateResult::Gone { withdrawn: true } => "withdrawn",
            GateResult::Gone { withdrawn: false } => "gone",
        };
        assert_eq!(got, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_removed_before_it_was_left_alone_is_not_committed() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let old = "01J4ABCDEFGHJKMNPQRSTVWXYZ";
    world.copy_in(&Made::new(old, 0));
    let (outcome, ()) = tokio::join!(shipper.pass(), async {
        sleep(Duration::from_secs(5)).await;
        world.withdraw_unseen(old);
    });
    assert_eq!(outcome, Outcome::Clean);
    assert_eq!(world.stamped(old), None);
    assert_eq!(world.metrics.withdrawn(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_reloads_fail_a_block_waits_longer_and_others_are_uploaded() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world
        .prometheus
        .send_modify(|prometheus| prometheus.reload_failed_at = Some(Instant::now()));
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.seal(&mut shipper, &Made::new(&b, 10));
    let begun = Instant::now();
    // They may go again at once: nothing is sent before they have stood for a moment.
    let Outcome::Waiting(rest) = shipper.pass().await else {
        panic!("it did not wait");
    };
    assert!(rest <= SETTLE && world.uploads() == 0, "{rest:?}");
    sleep(rest).await;
    let Outcome::Waiting(rest) = shipper.pass().await else {
        panic!("it did not wait");
    };
    assert!(
        begun.elapsed() + rest >= SETTLE_WHILE_FAILING - Duration::from_secs(1),
        "{rest:?}"
    );
    assert!(world.listed().is_empty());
    assert!(world.object(&format!("{a}/index")).is_some() && world.object(&format!("{b}/index")).is_some());
    assert_eq!(world.waiting(), ["reload_failing"]);
    assert!(
        shipper.pending[&id(&a)]
            .why
            .contains("prometheus_tsdb_reloads_failures_total")
    );
    sleep(rest).await;
    let uploads = world.uploads();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.uploads() - uploads, 2, "nothing but meta.json is sent again");
    assert_eq!(world.listed(), [a, b]);
    assert!(world.waiting().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_sealed_while_a_commit_waits_is_uploaded_at_once() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    world.seal(&mut shipper, &Made::new(&a, 0));
    let hints = world.hints();
    let begun = Instant::now();
    let (outcome, ()) = tokio::join!(shipper.pass(), async {
        sleep(Duration::from_secs(1)).await;
        world.seal_unseen(&Made::new(&b, 10));
        let (id, change, at) = (id(&b), crate::shipper::watcher::Change::Sealed, SystemTime::now());
        hints
            .send(crate::shipper::watcher::Hint { id, change, at })
            .await
            .unwrap();
    });
    assert!(
        matches!(outcome, Outcome::Waiting(_)) && shipper.has_news,
        "{outcome:?}"
    );
    let (outcome, ()) = tokio::join!(shipper.pass(), async {
        while world.object(&format!("{b}/index")).is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(begun.elapsed() < SETTLE);
    });
    assert_eq!(outcome, Outcome::Clean);
    assert_eq!(world.listed(), [a, b]);
}

#[tokio::test(start_paused = true)]
async fn prometheus_is_asked_whether_its_reload_failed_before_a_block_is_committed() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    let (ask, (answers, answered)) = (Arc::new(Notify::new()), watch::channel(None));
    shipper.settings.heartbeat = Some(Heartbeat::new(Arc::clone(&ask), answered));
    world.seal(&mut shipper, &Made::new(&a, 0));
    let prometheus = async {
        ask.notified().await;
        let now = Instant::now();
        world
            .prometheus
            .send_modify(|prometheus| prometheus.reload_failed_at = Some(now));
        answers.send_replace(Some(now));
    };
    let (outcome, ()) = tokio::join!(shipper.pass(), prometheus);
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
    assert_eq!(world.stamped(&a), None);
}

#[tokio::test(start_paused = true)]
async fn a_block_waits_until_the_head_is_emptied_of_it_but_not_for_ever() {
    for (emptied_after, expected) in [(0, 5), (8, 8), (3600, 60)] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let a = name(1);
        let (ask, (answers, answered)) = (Arc::new(Notify::new()), watch::channel(None));
        shipper.settings.heartbeat = Some(Heartbeat::new(Arc::clone(&ask), answered));
        world.seal(&mut shipper, &Made::new(&a, 1000));
        let begun = Instant::now();
        let prometheus = async {
            loop {
                ask.notified().await;
                let emptied = begun.elapsed() >= Duration::from_secs(emptied_after);
                let min = if emptied { 1010 } else { 1000 };
                world
                    .prometheus
                    .send_modify(|prometheus| prometheus.head_min_time_ms = Some(min));
                answers.send_replace(Some(Instant::now()));
            }
        };
        let passes = async {
            while let Outcome::Waiting(rest) = shipper.pass().await {
                sleep(rest).await;
            }
        };
        tokio::select! {
            () = passes => {}
            () = prometheus => {}
        }
        assert_eq!(world.listed(), [a]);
        let took = begun.elapsed().as_secs_f64();
        let expected = f64::from(expected);
        assert!(
            (expected - 1.0..expected + 4.0).contains(&took),
            "{emptied_after}: {took}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_withdrawn_after_its_commit_is_counted_once() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    world.withdraw(&mut shipper, &a);
    for _ in 0..2 {
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.metrics.withdrawn(), 1);
    }
    assert_eq!(world.metrics.vanished.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_prometheus_that_does_not_answer_has_not_decided_and_one_that_is_gone_has() {
    for (liveness, expected) in [(Liveness::Stopping, 60), (Liveness::Gone, 5)] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let a = name(1);
        let (_answers, answered) = watch::channel(None);
        shipper.settings.heartbeat = Some(Heartbeat::new(Arc::default(), answered));
        world.prometheus.send_modify(|prometheus| {
            prometheus.liveness = liveness;
            prometheus.head_min_time_ms = Some(1000);
        });
        world.seal(&mut shipper, &Made::new(&a, 1000));
        let begun = Instant::now();
        while let Outcome::Waiting(rest) = shipper.pass().await {
            sleep(rest).await;
        }
        assert_eq!(world.listed(), [a]);
        let took = begun.elapsed().as_secs_f64();
        let expected = f64::from(expected);
        assert!(
            (expected - 1.0..expected + 20.0).contains(&took),
            "{liveness:?}: {took}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_no_scan_has_shown_was_withdrawn_too() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.withdraw(&mut shipper, &a);
    for _ in 0..2 {
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.metrics.withdrawn(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_waits_at_the_gate_is_waited_for() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.prometheus.send_modify(|prometheus| {
        prometheus.liveness = Liveness::Gone;
        prometheus.reload_failed_at = Some(Instant::now());
    });
    world.seal(&mut shipper, &Made::new(&a, 0));
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    let report = shipper.run(stop, Duration::from_secs(240)).await;
    assert!(report.in_time && report.not_durable.is_empty(), "{report:?}");
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_turns_out_to_be_none_for_the_bucket_is_not_waited_for() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let mut made = Made::new(&name(1), 0);
    made.level = 2;
    fs_err::create_dir(world.data.path().join(&made.name)).unwrap();
    assert!(matches!(shipper.pass().await, Outcome::Arriving(_)));
    world.copy_in(&made);
    assert_eq!(shipper.pass().await, Outcome::Clean);
}
