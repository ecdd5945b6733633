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
pub mod convert;
pub mod encode;
pub mod limits;
pub mod metrics;
pub mod order;
pub mod query;
pub mod relabel;
pub mod shard;

mod sampled;
mod skip_chunks;

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use prometheus_client::registry::Registry;
use prost::Message as _;
use tonic::{Status, body::Body};

use self::{
    answer::{Answer, Plan},
    body::SeriesBody,
    convert::Convert,
    limits::Limits,
    metrics::Metrics,
    query::{Query, Written},
};
use super::{Context, View, budget::Held, errors, guard::Guard, patterns::Patterns};
use crate::{
    ops::grpc::Caller,
    pb::{prometheus::ReadResponse, thanos::SeriesRequest},
    prometheus::remote_read::{
        self,
        gate::{ClientKey, Gate, Pass, places},
    },
};

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
    patterns: Patterns,
    metrics: Metrics,
}

impl Series {
    /// A service that keeps to `limits`.
    pub fn new(context: Context, limits: Limits, registry: &mut Registry) -> Self {
        let gate = Gate::new(places(None));
        metrics::register_gate(&gate, registry);
        let inner = Inner {
            patterns: Patterns::new(context.lane.clone()),
            context,
            limits,
            gate,
            metrics: Metrics::register(registry),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// What is wrong with the request; that Prometheus cannot be asked, or refuses.
    pub async fn call(&self, request: SeriesRequest, caller: &Caller) -> Result<SeriesBody, Status> {
        let inner = &self.inner;
        let pending = inner.metrics.pending();
        let view = inner.context.view();
        let Some(query) = Query::new(request, &view, &inner.patterns).await? else {
            return Ok(SeriesBody::new(None, 1, inner.metrics.clone(), pending));
        };
        let answer = self.read(&query, &view, caller).await?;
        Ok(SeriesBody::new(
            Some(answer),
            query.batch,
            inner.metrics.clone(),
            pending,
        ))
    }

    async fn read(&self, query: &Query, view: &View, caller: &Caller) -> Result<Answer, Status> {
        if query.skip_chunks {
            return self.skip_chunks(query).await;
        }
        let pass = self.turn(caller).await?;
        let names = query.relabel.touched();
        let splits = is_prometheus(&view.version) && query.can_split_by(names);
        let Written { bytes, queries } = if splits { query.split_by(names) } else { query.plain() };
        let streamed = splits.then_some(queries as i64 - 1);
        let mut held = self.inner.context.budget.hold();
        let samples = match self.ask(&bytes, &mut held).await? {
            remote_read::Answer::Frames(frames) => {
                return Ok(Answer::streaming(self.plan(query, streamed), frames, pass));
            }
            // It knows one query only.
            remote_read::Answer::Samples(samples) if samples.results.len() != queries && queries > 1 => {
                drop(samples);
                held.keep(0);
                match self.ask(&query.plain().bytes, &mut held).await? {
                    remote_read::Answer::Frames(frames) => {
                        return Ok(Answer::streaming(self.plan(query, None), frames, pass));
                    }
                    remote_read::Answer::Samples(samples) if samples.results.len() == 1 => samples,
                    remote_read::Answer::Samples(samples) => return Err(unexpected(&samples)),
                }
            }
            remote_read::Answer::Samples(samples) if samples.results.len() == queries => samples,
            remote_read::Answer::Samples(samples) => return Err(unexpected(&samples)),
        };
        pass.finish();
        // What was read is there still, what it was read from is not.
        held.keep(samples.encoded_len());
        let plan = Plan {
            held,
            ..self.plan(query, None)
        };
        let mut convert = plan.convert.clone();
        let stored = samples.results.into_iter().flat_map(|result| result.timeseries);
        Answer::of(
            plan,
            stored.filter_map(|series| sampled::series(series, &mut convert).transpose()),
        )
    }

    async fn skip_chunks(&self, query: &Query) -> Result<Answer, Status> {
        let mut plan = self.plan(query, None);
        let client = &self.inner.context.client;
        let sets = skip_chunks::read(client, query, &mut plan.convert, &mut plan.held).await?;
        Answer::sorted(plan, sets)
    }

    async fn ask(&self, request: &[u8], held: &mut Held) -> Result<remote_read::Answer, Status> {
        let client = &self.inner.context.client;
        let read = client.remote_read(request, &mut |bytes| held.take(bytes)).await;
        read.map_err(|error| errors::read_status(&error))
    }

    fn plan(&self, query: &Query, streamed: Option<i64>) -> Plan {
        let why = match streamed {
            Some(_) => format!(
                "series that carry one of the labels {}",
                query.relabel.touched().join(", ")
            ),
            None => "all series of the answer".to_owned(),
        };
        Plan {
            convert: Convert::new(query.relabel.clone(), query.shard.clone()),
            streamed,
            why,
            limits: self.inner.limits,
            wanted: query.limit,
            held: self.inner.context.budget.hold(),
            metrics: self.inner.metrics.clone(),
        }
    }

    /// Waits for leave to ask Prometheus: until the caller's deadline, which ends the call, or for as long as calls without
    /// one may wait.
    async fn turn(&self, caller: &Caller) -> Result<Pass, Status> {
        let inner = &self.inner;
        let limit = places(
            inner
                .context
                .snapshots
                .borrow()
                .flags
                .get(READ_LIMIT)
                .map(String::as_str),
        );
        inner.gate.set_places(limit);
        caller.is_at("waiting for a turn at Prometheus");
        let patience = match caller.deadline() {
            Some(_) => None,
            None => Some(inner.context.timeout),
        };
        let since = Instant::now();
        let pass = inner
            .gate
            .enter(ClientKey::from(caller.peer()), patience)
            .await
            .map_err(|shed| {
                inner.metrics.shed();
                Status::resource_exhausted(shed.to_string())
            })?;
        inner.metrics.waited(since.elapsed().as_secs_f64());
        Ok(pass)
    }

    /// Answers one call as it comes over HTTP/2, if `guard` lets it through.
    pub(super) async fn respond(self, request: Request<Body>, guard: &Guard) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.unwrap_or_else(Caller::unknown);
        let answered = async {
            let admitted = guard.admit(parts.uri.path(), body).await?;
            let message = SeriesRequest::decode(admitted.message()?);
            let message = message.map_err(|error| Status::internal(error.to_string()))?;
            self.call(message, &caller).await
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

fn unexpected(samples: &ReadResponse) -> Status {
    Status::unknown(format!("unexpected result size {}", samples.results.len()))
}

/// Whether this is a Prometheus that answers all queries of one request. Each that tells what it is built from does, also
/// when that holds no version, as in one built by hand; `0` stands for a server that has no such page.
fn is_prometheus(version: &str) -> bool {
    version != "0"
}
