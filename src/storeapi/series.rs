//! Store.Series: what Prometheus holds, exact, in order and in constant memory.
//!
//! ```text
//! request -> query (matchers settled) -> gate -> remote read -> frames -> convert (labels, shard, chunks) -> limits
//!         -> order (a stack, and what conflicts merged in) -> batches -> body
//! ```
//! Each step is pulled by the next; nothing is buffered beyond a piece of the body. An answer is whole or ends with an
//! error; dropped by the client, it drops the request to Prometheus.

pub mod answer;
pub mod body;
pub mod budget;
pub mod convert;
pub mod encode;
pub mod limits;
pub mod metrics;
pub mod order;
pub mod query;
pub mod relabel;
pub mod shard;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Instant,
};

use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use prometheus_client::registry::Registry;
use tonic::{
    Status,
    body::Body,
    codec::{BufferSettings, Streaming},
    server::NamedService,
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use self::{
    answer::{Answer, Plan},
    body::SeriesBody,
    budget::Budget,
    convert::Convert,
    limits::Limits,
    metrics::Metrics,
    query::Query,
};
use super::{Context, View, errors};
use crate::{
    pb::thanos::SeriesRequest,
    prometheus::remote_read::{
        self, Frames, STALL,
        gate::{Gate, Pass, places},
    },
};

/// Bytes that all calls together may collect for sorting.
const COLLECTED_MAX: usize = 256 << 20;
/// Longest request, in bytes.
const REQUEST_MAX: usize = 64 << 20;
const PATH: &str = "/thanos.Store/Series";
const READ_LIMIT: &str = "storage.remote.read-concurrent-limit";

/// Answers Series calls; clones share it.
#[derive(Clone, Debug)]
pub struct Series {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    limits: Limits,
    gate: Gate,
    budget: Budget,
    metrics: Metrics,
}

impl Series {
    /// A service that keeps to `limits`.
    pub fn new(context: Context, limits: Limits, registry: &mut Registry) -> Self {
        let inner = Inner {
            context,
            limits,
            gate: Gate::new(places(None), STALL),
            budget: Budget::new(COLLECTED_MAX),
            metrics: Metrics::register(registry),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// What is wrong with the request; that Prometheus cannot be asked, or refuses.
    pub async fn call(&self, request: &SeriesRequest) -> Result<SeriesBody, Status> {
        let inner = &self.inner;
        let pending = inner.metrics.pending();
        let view = inner.context.view();
        let Some(query) = Query::new(request, &view)? else {
            return Ok(SeriesBody::new(None, 1, inner.metrics.clone(), pending));
        };
        let answer = self.read(&query, &view).await?;
        Ok(SeriesBody::new(
            Some(answer),
            query.batch,
            inner.metrics.clone(),
            pending,
        ))
    }

    async fn read(&self, query: &Query, view: &View) -> Result<Answer, Status> {
        let pass = self.turn().await?;
        let splits = is_prometheus(&view.version);
        let request = if splits { query.split() } else { query.plain() };
        let streamed = splits.then(|| request.queries.len() as i64 - 1);
        match self.ask(&request).await? {
            remote_read::Answer::Frames(frames) => Ok(self.stream(query, streamed, frames, pass)),
            remote_read::Answer::Samples(_) => Err(Status::unimplemented("sampled answers")),
        }
    }

    async fn ask(&self, request: &crate::pb::prometheus::ReadRequest) -> Result<remote_read::Answer, Status> {
        let read = self.inner.context.client.remote_read(request).await;
        read.map_err(|error| errors::read_status(&error))
    }

    fn stream(&self, query: &Query, streamed: Option<i64>, frames: Box<Frames>, pass: Pass) -> Answer {
        Answer::streaming(self.plan(query, streamed), frames, pass)
    }

    fn plan(&self, query: &Query, streamed: Option<i64>) -> Plan {
        let why = match streamed {
            Some(_) => format!("series that carry one of the labels {}", query.relabel.touched().join(", ")),
            None => "all series of the answer".to_owned(),
        };
        Plan {
            convert: Convert::new(query.relabel.clone(), query.shard.clone()),
            streamed,
            why,
            limits: self.inner.limits,
            wanted: query.limit,
            held: self.inner.budget.hold(),
            metrics: self.inner.metrics.clone(),
        }
    }

    /// Waits for leave to ask Prometheus.
    async fn turn(&self) -> Result<Pass, Status> {
        let inner = &self.inner;
        let limit = places(inner.context.snapshots.borrow().flags.get(READ_LIMIT).map(String::as_str));
        inner.gate.set_places(limit);
        let since = Instant::now();
        let pass = inner.gate.enter().await.map_err(|shed| {
            inner.metrics.shed();
            Status::resource_exhausted(shed.to_string())
        })?;
        inner.metrics.waited(since.elapsed().as_secs_f64());
        Ok(pass)
    }

    async fn respond(self, request: Request<Body>) -> Response<Body> {
        let settings = BufferSettings::default();
        let decoder = ProstCodec::<(), SeriesRequest>::raw_decoder(settings);
        let mut messages = Streaming::new_request(decoder, request.into_body(), None, Some(REQUEST_MAX));
        let answered = async {
            let message = messages.message().await?;
            let message = message.ok_or_else(|| Status::internal("the call holds no request"))?;
            self.call(&message).await
        };
        match answered.await {
            Ok(body) => {
                let mut response = Response::new(Body::new(body));
                let grpc = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(CONTENT_TYPE, grpc);
                response
            }
            Err(status) => status.into_http(),
        }
    }
}

/// Whether this is a Prometheus that answers all queries of one request, as each that tells a version does.
fn is_prometheus(version: &str) -> bool {
    version.starts_with(|char: char| char.is_ascii_digit()) && version.contains('.')
}

/// The service `thanos.Store`: Series by us, the rest by the generated server `S`.
#[derive(Clone, Debug)]
pub struct StoreService<S> {
    series: Series,
    rest: S,
}

impl<S> StoreService<S> {
    /// Answers Series with `series` and everything else with `rest`.
    pub fn new(series: Series, rest: S) -> Self {
        Self { series, rest }
    }
}

impl<S: NamedService> NamedService for StoreService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for StoreService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.rest.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == PATH {
            let series = self.series.clone();
            return Box::pin(async move { Ok(series.respond(request).await) });
        }
        Box::pin(self.rest.call(request))
    }
}
