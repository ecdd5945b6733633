//! The heartbeat beside a real Prometheus, and beside servers that fail in ways that a real one does not show on demand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

pub(crate) mod agent;
mod client;
pub(crate) mod fake;
mod names;
mod own_metrics;
mod reloads;
mod tls;

use std::{sync::Arc, time::Duration};

use narthex::{
    model::Labels,
    prometheus::{
        Heartbeat, Snapshot,
        heartbeat::{Settings, Validation},
        stored_names::StoredNames,
    },
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::{
    client::{client, well},
    fake::{Answer, Fake, prometheus},
};
use crate::rig::{Prometheus, Tools, prometheus::Options};

const LONG: Duration = Duration::from_secs(60);

/// A heartbeat that runs; cancelled when dropped.
struct Running {
    snapshots: watch::Receiver<Snapshot>,
    answered: watch::Receiver<Option<Instant>>,
    trigger: Arc<Notify>,
    names: StoredNames,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(url: &Url, interval: Duration, limit: Duration) -> Running {
        let validation = Validation {
            tsdb_path: "/prometheus".into(),
            ledger_name: "thanos.shipper.json".to_owned(),
            ignore_unequal: false,
        };
        let settings = Settings {
            interval,
            extra_labels: Labels::default(),
            validation: Some(validation),
        };
        let peer = Heartbeat::new(client(url, "", limit), settings, &mut Registry::default());
        let (snapshots, answered, trigger) = (peer.snapshots(), peer.answered(), peer.trigger());
        let names = peer.stored_names();
        let token = CancellationToken::new();
        let task = tokio::spawn(peer.run(token.clone()));
        Running {
            snapshots,
            answered,
            trigger,
            names,
            token,
            task,
        }
    }

    /// Waits for a snapshot that fits.
    async fn until(&mut self, what: &str, fits: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        if let Ok(snapshot) = timeout(LONG, self.snapshots.wait_for(fits)).await {
            return snapshot.expect("the heartbeat goes on").clone();
        }
        panic!("did not come: {what}; {:?}", self.snapshots.borrow())
    }

    async fn until_ready(&mut self) -> Snapshot {
        self.until("ready", |snapshot| snapshot.problem.is_none()).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

#[tokio::test]
async fn follows_a_real_prometheus_through_its_life() {
    for leg in Tools::find().legs {
        let mut server = Prometheus::start(
            &leg,
            Options {
                scrape: false,
                ..Options::default()
            },
        )
        .await;
        let url: Url = server.url().parse().unwrap();
        let mut running = Running::start(&url, Duration::from_millis(200), LONG);
        let up = running.until_ready().await;
        let labels = Labels::from_pairs([("cluster", "rig"), ("replica", "0")]);
        assert!(up.up && up.seen && !up.gone && up.labels == labels, "{up:?}");
        assert!(up.version.starts_with(&leg.version), "{up:?}");
        assert_eq!(up.flags["storage.tsdb.max-block-duration"], "5s");
        assert_eq!(up.lowest_time_ms, i64::MIN, "it holds nothing");
        assert_eq!(client(&url, "", LONG).alive().await, narthex::prometheus::Alive::Ready);

        let mut secure = url.clone();
        secure.set_scheme("https").unwrap();
        tls::both_fail(&secure, "", "write http:// instead of https:// in --prometheus.url").await;

        server
            .set_external_labels(&[
                ("cluster", "new"),
                ("n", "0.50"),
                ("q", "a\"b\\c\nd: é # x"),
                ("y", "on"),
            ])
            .await;
        let labels = Labels::from_pairs([
            ("cluster", "new"),
            ("n", "0.50"),
            ("q", "a\"b\\c\nd: é # x"),
            ("y", "on"),
        ]);
        running.until("new labels", |snapshot| snapshot.labels == labels).await;
        server.set_external_labels(&[]).await;
        let none = running.until("no labels", |snapshot| snapshot.labels.is_empty()).await;
        let problem = none.problem.expect("without labels there is a problem");
        assert!(none.up && problem.contains("global.external_labels"), "{problem}");
        server.set_external_labels(&[("a", "b")]).await;
        let up = running.until_ready().await;

        server.stop().await;
        let down = running.until("gone", |snapshot| snapshot.gone).await;
        assert!(
            !down.up && down.seen && down.labels == up.labels && down.flags == up.flags,
            "{down:?}"
        );
        assert_eq!(client(&url, "", LONG).alive().await, narthex::prometheus::Alive::Gone);
        server.start_again().await;
        let again = running.until_ready().await;
        let asked_at = again.storage_asked_at;
        assert!(asked_at > up.storage_asked_at);
        assert_eq!(
            again,
            Snapshot {
                storage_asked_at: asked_at,
                ..up
            }
        );
    }
}

#[tokio::test]
async fn tells_of_a_real_prometheus_that_merges_blocks() {
    let args = vec![
        "--storage.tsdb.min-block-duration=2h".to_owned(),
        "--storage.tsdb.max-block-duration=36h".to_owned(),
    ];
    let options = Options {
        scrape: false,
        args,
        ..Options::default()
    };
    let server = Prometheus::start(&Tools::oldest(), options).await;
    let mut running = Running::start(&server.url().parse().unwrap(), Duration::from_secs(5), LONG);
    let snapshot = running.until("an answer", |snapshot| snapshot.up).await;
    let problem = snapshot.problem.expect("the durations are not equal");
    // 36h comes back as 1d12h.
    assert!(problem.contains("--storage.tsdb.max-block-duration=1d12h"), "{problem}");
    assert!(problem.contains("--storage.tsdb.max-block-duration=2h"), "{problem}");
    assert!(
        !snapshot.labels.is_empty(),
        "labels are there all the same, so that shipping goes on"
    );
}

#[tokio::test]
async fn one_failed_heartbeat_is_not_believed() {
    let fake = Fake::start(well);
    // One that hangs is tried once more after half of the time.
    let mut running = Running::start(&fake.url(), Duration::from_millis(50), Duration::from_secs(10));
    running.until_ready().await;
    for fault in [Answer::Http(503, Vec::new()), Answer::Stall, Answer::Raw(Vec::new())] {
        let mut faults = vec![fault];
        let seen = fake.heads().len();
        // Names of labels are looked up after the heartbeat.
        fake.answer(move |path| match path.starts_with("/api/v1/label/") {
            true => well(path),
            false => faults.pop().unwrap_or_else(|| well(path)),
        });
        crate::rig::wait_until(LONG, "two more heartbeats", async || {
            (fake.heads().len() > seen + 9).then_some(())
        })
        .await;
        assert!(
            !running.snapshots.has_changed().unwrap(),
            "{:?}",
            running.snapshots.borrow()
        );
    }
    fake.answer(|_| Answer::Http(503, b"Service Unavailable".to_vec()));
    let down = running.until("down", |snapshot| !snapshot.up).await;
    let problem = down.problem.clone().expect("it is down");
    assert!(
        problem.contains("replaying its write-ahead log") && !down.gone && down.seen,
        "{down:?}"
    );
    running.snapshots.borrow_and_update();
    let seen = fake.heads().len();
    crate::rig::wait_until(LONG, "more heartbeats", async || {
        (fake.heads().len() > seen + 4).then_some(())
    })
    .await;
    assert!(
        !running.snapshots.has_changed().unwrap(),
        "nothing new, nothing published"
    );
    fake.answer(well);
    running.until_ready().await;
}

#[tokio::test]
async fn sees_flags_that_a_restart_has_changed() {
    let yaml = "global:\n  external_labels:\n    a: b\n";
    let fake = Fake::start(|path| prometheus(path, yaml, "2h", "2h"));
    let mut running = Running::start(&fake.url(), Duration::from_millis(50), LONG);
    running.until_ready().await;
    fake.answer(|path| prometheus(path, yaml, "2h", "1d12h"));
    let bad = running.until("a problem", |snapshot| snapshot.problem.is_some()).await;
    assert!(bad.up && bad.seen, "{bad:?}");
    fake.answer(|path| prometheus(path, yaml, "2h", "2h"));
    running.until_ready().await;
}

#[tokio::test]
async fn is_ready_soon_after_prometheus_is_however_long_the_interval() {
    let fake = Fake::start(|_| Answer::Http(503, Vec::new()));
    let mut running = Running::start(&fake.url(), Duration::from_secs(3600), LONG);
    running
        .until("a first answer", |snapshot| {
            snapshot.problem.as_deref().is_some_and(|text| text.contains("503"))
        })
        .await;
    fake.answer(well);
    running.until_ready().await;
}

#[tokio::test]
async fn cancelling_drops_the_request_under_way() {
    let fake = Fake::start(|_| Answer::Stall);
    let mut running = Running::start(&fake.url(), Duration::from_secs(3600), Duration::from_secs(3600));
    crate::rig::wait_until(LONG, "a request", async || (!fake.heads().is_empty()).then_some(())).await;
    running.token.cancel();
    timeout(LONG, &mut running.task).await.expect("it ends").unwrap();
    crate::rig::wait_until(LONG, "the connection is closed", async || {
        (fake.closed() == 1).then_some(())
    })
    .await;
    assert!(!running.snapshots.borrow().seen);
}
