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
mod times;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Response, Status, service::Routes};

use self::{
    budget::Budget,
    exemplars::ExemplarsService,
    guard::{Guard, Guarded},
    info::InfoService,
    label_calls::LabelCalls,
    metadata::MetadataService,
    rules::RulesService,
    series::Series,
    status::StatusService,
    store::StoreService,
    targets::TargetsService,
};
use crate::{
    model::{Labels, duration::TimeOrDuration},
    ops::probe::Probe,
    pb::thanos::{
        exemplars_server::ExemplarsServer, info::info_server::InfoServer, metadata_server::MetadataServer,
        rules_server::RulesServer, status_server::StatusServer, targets_server::TargetsServer,
    },
    prometheus::{client::Client, peer::Snapshot, stored_names::StoredNames},
    threads::Lane,
};

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
        let snapshot = self.snapshots.borrow();
        let limit = match self.min_time {
            TimeOrDuration::At(ms) => ms,
            TimeOrDuration::FromNow(ms) => now_ms().saturating_add(ms),
        };
        View {
            labels: snapshot.labels.clone(),
            min_time_ms: limit.max(snapshot.lowest_time_ms),
            version: snapshot.version.clone(),
            seen: snapshot.seen,
        }
    }
}

/// The messages of an answer.
type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// An answer of one message.
fn one<T: Send + 'static>(message: T) -> Response<Messages<T>> {
    Response::new(stream::iter([Ok(message)]).boxed())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// All services of the StoreAPI; a request has at most `message_max` bytes, and is counted before it is decoded.
pub fn routes(context: &Context, series: Series, message_max: usize) -> Routes {
    let guard = Guard::new(context.budget.clone(), message_max);
    let store = StoreService::new(series, LabelCalls::new(context.clone()), guard.clone(), message_max);
    let info = InfoServer::new(InfoService::new(context.clone())).max_decoding_message_size(message_max);
    let rules = RulesServer::new(RulesService::new(context.clone())).max_decoding_message_size(message_max);
    let targets = TargetsServer::new(TargetsService::new(context.clone())).max_decoding_message_size(message_max);
    let metadata = MetadataServer::new(MetadataService::new(context.clone())).max_decoding_message_size(message_max);
    let exemplars = ExemplarsServer::new(ExemplarsService::new(context.clone())).max_decoding_message_size(message_max);
    let status = StatusServer::new(StatusService::new(context.clone())).max_decoding_message_size(message_max);
    Routes::new(store)
        .add_service(Guarded::new(info, guard.clone()))
        .add_service(Guarded::new(rules, guard.clone()))
        .add_service(Guarded::new(targets, guard.clone()))
        .add_service(Guarded::new(metadata, guard.clone()))
        .add_service(Guarded::new(exemplars, guard.clone()))
        .add_service(Guarded::new(status, guard))
}
