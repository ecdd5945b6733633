//! The StoreAPI: the gRPC services that Thanos Query asks, answered by the Prometheus next door.
//!
//! A call uses the labels, the min time and the address of the moment it starts ([`Context::view`]). No service keeps
//! anything of its own: a crash costs the calls that run. A call that is dropped drops its request to Prometheus.

pub mod errors;
pub mod exemplars;
pub mod info;
pub mod label_calls;
pub mod metadata;
pub mod rules;
pub mod selection;
pub mod status;
pub mod targets;

mod label_sets;
mod times;

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Response, Status};

use crate::{
    model::{Labels, duration::TimeOrDuration},
    ops::probe::Probe,
    prometheus::{client::Client, peer::Snapshot},
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
