//! Passes what the heartbeat learns of Prometheus on to the probe and the shipper, which do not know each other.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    model::Labels,
    ops::probe::Condition,
    prometheus::{
        client::{Alive, Client},
        heartbeat::Snapshot,
    },
    shipper::{Liveness, PrometheusStatus},
};

/// How often Prometheus is polled during shutdown.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Passes what the heartbeat learns on to the probe and the shipper; during shutdown, watches whether Prometheus stops, too.
pub(super) struct StatusRelay {
    pub(super) snapshots: watch::Receiver<Snapshot>,
    /// When the last heartbeat began that was answered.
    pub(super) answered: watch::Receiver<Option<Instant>>,
    pub(super) status: watch::Sender<PrometheusStatus>,
    /// The same, once `status` holds its result.
    pub(super) passed_on: watch::Sender<Option<Instant>>,
    pub(super) ready: Condition,
    pub(super) client: Client,
    /// After so long without labels an error is logged.
    pub(super) ready_timeout: Duration,
}

impl StatusRelay {
    /// Runs until the shipper has ended.
    pub(super) async fn run(mut self, token: CancellationToken) {
        let mut ready_timeout = std::pin::pin!(tokio::time::sleep(self.ready_timeout));
        let mut reported = false;
        while !token.is_cancelled() {
            let labelled = self.publish();
            tokio::select! {
                () = token.cancelled() => break,
                () = &mut ready_timeout, if !reported && !labelled => {
                    reported = true;
                    tracing::error!(after = ?self.ready_timeout, "still no external labels after --prometheus.ready_timeout; uploads begin once there are some");
                }
                () = changed(&mut self.snapshots) => {}
                () = changed(&mut self.answered) => {}
            }
        }
        self.watch_shutdown().await;
    }

    /// Passes the newest snapshot on; whether there are labels.
    fn publish(&mut self) -> bool {
        // Read first: the snapshot is not older than this heartbeat then.
        let answered = *self.answered.borrow_and_update();
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.ready.set(snapshot.problem.clone().map_or(Ok(()), Err));
        let mut old_labels = None;
        update(&self.status, |status| {
            old_labels = std::mem::replace(&mut status.labels, snapshot.seen.then(|| snapshot.labels.clone()));
            status.liveness = liveness(&snapshot);
            status.reload_failed_at = snapshot.reload_failed_at;
            status.head_min_time_ms = snapshot.head_min_time_ms;
            status.out_of_order_window_ms = snapshot.settings.out_of_order_window_ms;
            status.delays_compaction = snapshot.delays_compaction();
            status.retention = snapshot.retention();
            // A block may hold what was written before the setting was changed.
            status.newer_encodings |= snapshot.writes_newer_encodings();
        });
        self.passed_on.send_replace(answered);
        // Not before: the shipper stamps blocks with the new ones by now.
        if let Some(old) = old_labels.filter(|old| *old != snapshot.labels) {
            log_changed_labels(&old, &snapshot.labels, self.client.url());
        }
        !snapshot.labels.is_empty()
    }

    /// Polls whether Prometheus still runs, until the shipper has ended.
    async fn watch_shutdown(self) {
        while !self.status.is_closed() {
            let alive = self.client.alive().await;
            let answered = *self.answered.borrow();
            let snapshot = self.snapshots.borrow().clone();
            update(&self.status, |status| {
                status.liveness = match alive {
                    Alive::Ready => Liveness::Up,
                    Alive::NotReady => Liveness::Stopping,
                    Alive::Gone => Liveness::Gone,
                };
                status.reload_failed_at = snapshot.reload_failed_at;
                status.head_min_time_ms = snapshot.head_min_time_ms;
            });
            self.passed_on.send_replace(answered);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn log_changed_labels(old: &Labels, new: &Labels, url: &str) {
    let then = match new.is_empty() {
        true => "there are none now: no block is uploaded and queries are refused until there are some",
        false => "blocks that are sealed from now on carry the new ones",
    };
    tracing::warn!(prometheus = url, %old, %new, "external labels have changed; {then}");
}

/// Waits for a change; for ever when there will be none.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn liveness(snapshot: &Snapshot) -> Liveness {
    match (snapshot.up, snapshot.gone) {
        (true, _) => Liveness::Up,
        (false, true) => Liveness::Gone,
        // Not asked yet is no reason to take old labels.
        (false, false) if !snapshot.asked => Liveness::Up,
        (false, false) => Liveness::Stopping,
    }
}

fn update(status: &watch::Sender<PrometheusStatus>, change: impl FnOnce(&mut PrometheusStatus)) {
    let mut next = status.borrow().clone();
    change(&mut next);
    status.send_if_modified(|now| {
        let is_new = *now != next;
        *now = next;
        is_new
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{ops::probe::Probe, prometheus::client::HttpClientConfig, shipper::Heartbeat};

    fn unasked() -> Snapshot {
        Snapshot {
            labels: Labels::default(),
            version: String::new(),
            flags: Default::default(),
            settings: Default::default(),
            lowest_time_ms: 0,
            head_min_time_ms: None,
            head_max_time_ms: None,
            blocks_loaded: None,
            blocks_bytes: None,
            storage_asked_at: None,
            reload_failures: None,
            reload_failed_at: None,
            up: false,
            problem: Some("it was not asked yet".into()),
            asked: false,
            seen: false,
            gone: false,
        }
    }

    #[test]
    fn old_labels_count_only_once_prometheus_was_asked_and_does_not_answer() {
        let unasked = unasked();
        assert_eq!(liveness(&unasked), Liveness::Up);
        let asked = Snapshot { asked: true, ..unasked };
        assert_eq!(liveness(&asked), Liveness::Stopping);
        let gone = Snapshot { gone: true, ..asked };
        assert_eq!(liveness(&gone), Liveness::Gone);
        assert_eq!(liveness(&Snapshot { up: true, ..gone }), Liveness::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_heartbeat_tells_of_reloads_reaches_the_shipper_with_it_also_while_we_stop() {
        let (snapshots, answered) = (watch::Sender::new(unasked()), watch::Sender::new(None));
        let (status, mut statuses) = watch::channel(PrometheusStatus::default());
        let passed_on = watch::Sender::new(None);
        let mut heartbeat = Heartbeat::new(Arc::default(), passed_on.subscribe());
        // Nothing listens there, and the port is none that anybody is given.
        let url = "http://127.0.0.1:1".parse().expect("an address");
        let relay = StatusRelay {
            snapshots: snapshots.subscribe(),
            answered: answered.subscribe(),
            status,
            passed_on,
            ready: Probe::register("test", &mut Registry::default()).condition("prometheus"),
            client: Client::new(&url, &HttpClientConfig::default(), POLL_INTERVAL).expect("an address"),
            ready_timeout: Duration::from_secs(3600),
        };
        let stop = CancellationToken::new();
        let following = tokio::spawn(relay.run(stop.clone()));
        for stopping in [false, false, true] {
            if stopping {
                stop.cancel();
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            let failed = Instant::now();
            let emptied = statuses.borrow().head_min_time_ms.unwrap_or_default() + 1;
            snapshots.send_modify(|snapshot| {
                snapshot.reload_failed_at = Some(failed);
                snapshot.head_min_time_ms = Some(emptied);
            });
            answered.send_replace(Some(failed));
            assert!(heartbeat.wait_answered_since(failed, Duration::from_secs(60)).await);
            let told = statuses.borrow_and_update().clone();
            assert_eq!(
                (told.reload_failed_at, told.head_min_time_ms),
                (Some(failed), Some(emptied))
            );
            // The next one has nothing new to tell, and is an answer all the same.
            tokio::time::advance(Duration::from_secs(1)).await;
            let fine = Instant::now();
            answered.send_replace(Some(fine));
            assert!(heartbeat.wait_answered_since(fine, Duration::from_secs(60)).await);
            assert_eq!(statuses.borrow_and_update().reload_failed_at, Some(failed));
        }
        drop(statuses);
        following.await.expect("it does not panic");
    }
}
