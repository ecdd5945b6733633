//! Failing reloads of Prometheus' blocks, and a heartbeat sooner than the next one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fs_err as fs;

use super::{
    LONG, Running,
    client::well,
    fake::{Answer, Fake},
};
use crate::rig::{
    Prometheus, Tools,
    blocks::{Spec, copy_without_index, generate},
    prometheus::Options,
    wait_until,
};

/// So long that no heartbeat but the first comes by itself.
const NEVER: Duration = Duration::from_secs(3600);

/// Answers well, and with so many failures.
fn failing(failures: &Arc<AtomicU64>) -> impl FnMut(&str) -> Answer + Send + 'static {
    let failures = Arc::clone(failures);
    move |path| match path {
        "/metrics" => {
            let failures = failures.load(Ordering::SeqCst);
            Answer::Http(
                200,
                format!("prometheus_tsdb_reloads_failures_total {failures}\n").into(),
            )
        }
        _ => well(path),
    }
}

#[tokio::test]
async fn a_failed_reload_is_seen_soon_however_long_the_interval() {
    let failures = Arc::new(AtomicU64::new(4));
    let fake = Fake::start(failing(&failures));
    let mut running = Running::start(&fake.url(), NEVER, LONG);
    let ready = running.until_ready().await;
    assert_eq!(
        (ready.reload_failures, ready.reload_failed_at),
        (Some(4), None),
        "those may be old"
    );

    failures.store(5, Ordering::SeqCst);
    running.trigger.notify_one();
    let first = running
        .until("a failure", |snapshot| snapshot.reload_failed_at.is_some())
        .await;
    assert_eq!((first.reload_failures, first.problem), (Some(5), None));
    // From here on nobody has to ask.
    failures.store(6, Ordering::SeqCst);
    let second = running
        .until("another", |snapshot| snapshot.reload_failed_at > first.reload_failed_at)
        .await;

    failures.store(0, Ordering::SeqCst);
    running.trigger.notify_one();
    let anew = running
        .until("a restart", |snapshot| snapshot.reload_failures == Some(0))
        .await;
    assert_eq!(anew.reload_failed_at, second.reload_failed_at);
    failures.store(2, Ordering::SeqCst);
    running.trigger.notify_one();
    let third = running
        .until("one after the restart", |snapshot| snapshot.reload_failures == Some(2))
        .await;
    assert!(third.reload_failed_at > anew.reload_failed_at, "{third:?}");
}

#[tokio::test]
async fn each_heartbeat_that_is_answered_counts_also_when_it_tells_nothing_new() {
    let fake = Fake::start(|_| Answer::Http(503, Vec::new()));
    let mut running = Running::start(&fake.url(), NEVER, LONG);
    running.until("asked", |snapshot| snapshot.asked).await;
    assert_eq!(*running.answered.borrow_and_update(), None);
    fake.answer(well);
    running.until_ready().await;
    for _ in 0..2 {
        let last = *running.answered.borrow_and_update();
        running.trigger.notify_one();
        let answered = running.answered.wait_for(|answered| *answered > last);
        tokio::time::timeout(LONG, answered)
            .await
            .expect("it comes soon")
            .unwrap();
    }
}

#[tokio::test]
async fn a_real_prometheus_that_cannot_reload_its_blocks_is_noticed() {
    for leg in Tools::find().legs {
        let server = Prometheus::start(&leg, Options::default()).await;
        let mut running = Running::start(&server.url().parse().unwrap(), Duration::from_millis(200), LONG);
        let ready = running.until_ready().await;
        assert_eq!(
            (ready.reload_failures, ready.reload_failed_at),
            (Some(0), None),
            "{}",
            leg.version
        );
        let broken = copy_without_index(&generate(Spec::small(0)), server.data());
        let failed = running
            .until("a failed reload", |snapshot| snapshot.reload_failed_at.is_some())
            .await;
        assert!(failed.up && failed.reload_failures > Some(0), "{failed:?}");
        assert_eq!(failed.problem, None, "it can be shipped from all the same");
        let full = failed.head_min_time_ms.expect("it tells");
        fs::remove_dir_all(server.data().join(broken)).unwrap();
        // One that it has written may go again, if its reload had begun while the broken one was there.
        let sealed = async || {
            let meta = fs::read(server.data().join(server.blocks().first()?).join("meta.json")).ok()?;
            serde_json::from_slice::<serde_json::Value>(&meta).ok()?["maxTime"].as_i64()
        };
        // The head holds nothing any more of a block that stays.
        let end = wait_until(LONG, "a sealed block", sealed).await;
        assert!(full < end, "{full} {end}");
        running
            .until("an emptied head", |snapshot| snapshot.head_min_time_ms >= Some(end))
            .await;
    }
}
