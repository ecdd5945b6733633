//! What every service needs, and what is fixed for one call.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{budget::Budget, min_time::MinTime, patterns::Patterns};
use crate::{
    model::Labels,
    ops::{grpc::Caller, probe::Probe},
    prometheus::{api::RequestOptions, client::Client, heartbeat::Snapshot, stored_names::StoredNames},
    sealed::Sealed,
    threads::BlockingPool,
};

/// How long a client may read nothing of its answer: it would keep memory from other calls.
pub(super) const CLIENT_STALL: Duration = Duration::from_secs(120);

/// What every service needs; a clone shares it.
#[derive(Clone, Debug)]
pub struct Context {
    /// The Prometheus that is asked.
    pub client: Client,
    /// What the heartbeat knows of it.
    pub snapshots: watch::Receiver<Snapshot>,
    /// Whether the process is ready.
    pub probe: Probe,
    /// `--min-time`: nothing older is served.
    pub min_time: MinTime,
    /// Which labels Prometheus stores.
    pub stored_names: StoredNames,
    /// The memory of all calls.
    pub budget: Budget,
    /// What is known of the patterns of matchers.
    pub patterns: Patterns,
    /// What is answered from sealed blocks on disk; `None`: nothing is.
    pub sealed: Option<Sealed>,
    /// For work that uses the CPU for more than a moment.
    pub pool: BlockingPool,
    /// How long a call without a deadline waits in queues and for Prometheus.
    pub timeout: Duration,
}

/// What holds for one call.
#[derive(Clone, Debug)]
pub struct View {
    /// The external labels; some may have an empty value.
    pub labels: Labels,
    /// The oldest time that is served, in ms since 1970.
    pub min_time_ms: i64,
    /// The oldest time that `--min-time` lets through, in ms since 1970, whatever Prometheus has.
    pub limit_ms: i64,
    /// Prometheus' version; `0` if it does not report one.
    pub version: String,
    /// Whether Prometheus was read at least once, so that all this is its own.
    pub seen: bool,
    /// Prometheus answers with what other servers have, too (`remote_read`).
    pub reads_elsewhere: bool,
}

impl Context {
    /// What holds now.
    pub fn view(&self) -> View {
        let limit_ms = self.min_time.limit_ms();
        let snapshot = self.snapshots.borrow();
        View {
            labels: snapshot.labels.clone(),
            min_time_ms: limit_ms.max(snapshot.lowest_time_ms),
            limit_ms,
            version: snapshot.version.clone(),
            seen: snapshot.seen,
            reads_elsewhere: snapshot.settings.reads_elsewhere,
        }
    }

    /// How long a call may wait; `None` for one with a deadline, which ends it.
    pub(super) fn patience(&self, caller: &Caller) -> Option<Duration> {
        caller.deadline().is_none().then_some(self.timeout)
    }

    /// What holds now, for an answer that carries the external labels.
    ///
    /// # Errors
    /// `Unavailable`: there are none now, and without them the answer would pass for that of another Prometheus.
    pub fn labelled_view(&self) -> Result<View, Status> {
        let view = self.view();
        match view.seen && !view.labels.is_empty() {
            true => Ok(view),
            false => Err(Status::unavailable(
                "Prometheus has no external labels now: without them its answers cannot be told from those of others; set \
                 global.external_labels in its configuration, or --label here",
            )),
        }
    }

    /// How `caller` may ask Prometheus: until its own deadline, or for the time that calls without one have.
    pub(super) fn request_options(&self, caller: &Caller) -> RequestOptions {
        let now = Instant::now();
        let deadline = caller.deadline().or_else(|| now.checked_add(self.timeout));
        let caller = caller.clone();
        RequestOptions::until(deadline.unwrap_or(now))
            .on_pool(self.pool.clone())
            .reporting(move |stage| caller.set_stage(stage))
    }
}
