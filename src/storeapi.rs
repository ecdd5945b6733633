//! The StoreAPI: the gRPC services that Thanos Query asks, answered by the Prometheus next door.
//!
//! A call uses the labels, the min time and the address of the moment it starts ([`Context::view`]). No service keeps
//! anything of its own: a crash costs the calls that run. A call that is dropped drops its request to Prometheus.

pub mod budget;
pub mod errors;
pub mod exemplars;
pub mod guard;
pub mod info;
pub mod label_calls;
pub mod metadata;
pub mod patterns;
pub mod rules;
pub mod selection;
pub mod series;
pub mod status;
pub mod store;
pub mod targets;

mod label_sets;
mod respond;
mod rope;
mod times;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{sync::watch, time::Instant};
use tonic::{Status, service::Routes};

use self::{
    budget::Budget,
    exemplars::ExemplarsService,
    guard::{Guard, Guarded},
    info::InfoService,
    label_calls::LabelCalls,
    metadata::MetadataService,
    patterns::Patterns,
    respond::Answering,
    rules::RulesService,
    series::Series,
    status::StatusService,
    store::StoreService,
    targets::TargetsService,
};
use crate::{
    model::{Labels, duration::TimeOrDuration},
    ops::{grpc::Caller, probe::Probe},
    pb::thanos::info::info_server::InfoServer,
    prometheus::{api::Ask, client::Client, peer::Snapshot, stored_names::StoredNames},
    threads::Lane,
};

/// How long a client may take nothing of its answer: it would keep memory from the calls of others.
const SILENCE: Duration = Duration::from_secs(120);

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
    pub min_time: TimeOrDuration,
    /// Which labels Prometheus stores.
    pub stored_names: StoredNames,
    /// The memory of all calls.
    pub budget: Budget,
    /// What is known of the patterns of matchers.
    pub patterns: Patterns,
    /// For work that takes the processor for more than a moment.
    pub lane: Lane,
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
    /// Prometheus' version; `0` if it does not tell.
    pub version: String,
    /// Whether Prometheus was read at least once, so that all this is its own.
    pub seen: bool,
}

impl Context {
    /// What holds now.
    pub fn view(&self) -> View {
        let limit_ms = self.limit_ms();
        let snapshot = self.snapshots.borrow();
        View {
            labels: snapshot.labels.clone(),
            min_time_ms: limit_ms.max(snapshot.lowest_time_ms),
            version: snapshot.version.clone(),
            seen: snapshot.seen,
        }
    }

    /// How long a call may wait; `None` for one with a deadline, which ends it.
    fn patience(&self, caller: &Caller) -> Option<Duration> {
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

    /// The oldest time that `--min-time` lets through now, in ms since 1970.
    pub fn limit_ms(&self) -> i64 {
        match self.min_time {
            TimeOrDuration::At(ms) => ms,
            TimeOrDuration::FromNow(ms) => now_ms().saturating_add(ms),
        }
    }

    /// How `caller` may ask Prometheus: until its own deadline, or for the time that calls without one have.
    pub(super) fn ask(&self, caller: &Caller) -> Ask {
        let now = Instant::now();
        let by = caller.deadline().or_else(|| now.checked_add(self.timeout));
        let caller = caller.clone();
        Ask::until(by.unwrap_or(now))
            .on(self.lane.clone())
            .telling(move |place| caller.is_at(place))
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// All services of the StoreAPI; a request has at most `message_max` bytes, and is counted before it is decoded.
pub fn routes(context: &Context, series: Series, message_max: usize) -> Routes {
    let guard = Guard::new(context.budget.clone(), message_max);
    let store = StoreService::new(series, LabelCalls::new(context.clone()), guard.clone());
    let info = InfoServer::new(InfoService::new(context.clone())).max_decoding_message_size(message_max);
    Routes::new(store)
        .add_service(Guarded::new(info, guard.clone()))
        .add_service(Answering::new(RulesService::new(context.clone()), guard.clone()))
        .add_service(Answering::new(TargetsService::new(context.clone()), guard.clone()))
        .add_service(Answering::new(MetadataService::new(context.clone()), guard.clone()))
        .add_service(Answering::new(ExemplarsService::new(context.clone()), guard.clone()))
        .add_service(Answering::new(StatusService::new(context.clone()), guard))
}
