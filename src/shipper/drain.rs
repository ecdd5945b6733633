//! The drain after a signal to stop: a block that is sealed while Prometheus stops is shipped, too, and what is not durable is
//! reported.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{
    shipper::{Liveness, Shipper, durability_metrics::View, pass::Outcome},
    tsdb::BlockId,
};

/// How long a Prometheus that answers as before is watched after we were told to stop: if it was told so, too, it needs a
/// moment to show it.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// How long after Prometheus is gone a block may still be renamed into place.
const SETTLED: Duration = Duration::from_secs(1);
/// How often the data directory is scanned meanwhile.
const POLL: Duration = Duration::from_millis(250);
/// How long aborting what was dropped may take.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// What is not durable at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// The blocks that are not durable, and why.
    pub not_durable: BTreeMap<BlockId, String>,
    /// Whether the grace period was enough.
    pub in_time: bool,
}

impl Shipper {
    /// Ships until everything sealed is durable and no more can come. Ends by itself; the caller bounds it.
    pub(super) async fn drain(&mut self) {
        tracing::info!("stopping: uploading the blocks that are already sealed");
        // There is no time left to spread.
        self.settings.jitter = Duration::ZERO;
        let stopped = Instant::now();
        let mut gone_since = None;
        loop {
            let started = Instant::now();
            let outcome = self.pass().await;
            if outcome == Outcome::Failed {
                let wait = self.backoff.next();
                tokio::time::sleep(wait).await;
                continue;
            }
            self.backoff.reset();
            let liveness = self.prometheus.borrow_and_update().liveness;
            if liveness == Liveness::Gone {
                gone_since.get_or_insert_with(Instant::now);
            } else {
                gone_since = None;
            }
            // Counted to the beginning of the pass: what is sealed during a long one is only in the next scan.
            let lingered = started.saturating_duration_since(stopped) >= LINGER;
            let settled = match liveness {
                Liveness::Up => lingered,
                Liveness::Stopping => lingered && outcome == Outcome::Unlabelled,
                Liveness::Gone => gone_since.is_some_and(|since| started.saturating_duration_since(since) >= SETTLED),
            };
            let open = matches!(outcome, Outcome::Arriving(_) | Outcome::Waiting(_));
            if settled && !open && !self.has_news && self.hints.is_empty() {
                return;
            }
            // While a commit waits nothing is to be found out by looking often.
            let rest = match outcome {
                Outcome::Waiting(rest) if !self.has_news => rest.clamp(POLL, LINGER),
                _ => POLL,
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                hint = self.hints.recv() => self.record_hints(hint),
            }
        }
    }

    /// Cleans up and reports what is not durable.
    pub(super) async fn close(mut self, in_time: bool) -> DrainReport {
        if tokio::time::timeout(CLEAN_UP, self.uploader.bucket.settle())
            .await
            .is_err()
        {
            tracing::warn!(
                "open multipart uploads could not be aborted in time; a lifecycle rule of the bucket should remove them"
            );
        }
        self.save_ledger();
        if !in_time {
            // The pass was dropped, so what it knew is old: scan once more, without the bucket.
            self.record_hints(None);
            if let Ok(mut scan) = self.scan().await {
                self.wait_for_removal_hints(&scan).await;
                self.add_held(&mut scan);
                let decisions = self.decide(&scan);
                self.record_pending(View {
                    decisions: &decisions,
                    scan: &scan,
                });
            }
        }
        let not_durable: BTreeMap<BlockId, String> = self
            .pending
            .into_iter()
            .map(|(block, pending)| (block, pending.why))
            .collect();
        for (block, why) in &not_durable {
            if self.held.is_deleted(*block) {
                self.metrics.vanished.inc();
                tracing::error!(%block, why, "not durable, and lost: Prometheus has deleted this block, and only the files that narthex held open still had it (--shipper.hold-unshipped)");
            } else {
                tracing::error!(%block, why, "not durable: this block is only on the local disk");
            }
        }
        if not_durable.is_empty() {
            tracing::info!("every sealed block is durable");
        } else if let Some(failure) = &self.last_failure {
            tracing::error!(error = failure.message, "uploads failed until the end");
        }
        DrainReport { not_durable, in_time }
    }
}
