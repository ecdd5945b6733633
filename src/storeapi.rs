//! The StoreAPI: the gRPC services that Thanos Query asks, answered by the Prometheus next door.
//!
//! A call uses the labels, the min time and the address of the moment it starts ([`Context::view`]). No service keeps
//! anything of its own: a crash costs the calls that run. A call that is dropped drops its request to Prometheus.

pub mod selection;
pub mod series;

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tonic::service::Routes;

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

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// All services of the StoreAPI.
pub fn routes(_context: &Context, series: series::Series) -> Routes {
    let store = series::StoreService::new(series, Rest);
    Routes::new(store)
}

/// Temporary.
#[derive(Clone, Debug)]
struct Rest;
impl tonic::server::NamedService for Rest {
    const NAME: &'static str = "thanos.Store";
}
impl tower_service::Service<http::Request<tonic::body::Body>> for Rest {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        std::future::ready(Ok(tonic::Status::unimplemented("later").into_http()))
    }
}
