//! How Prometheus is asked for the series of a call, and what is done when they come out of order.
//!
//! Series that carry a label which is set or removed may be anywhere in the order ([`super::query`]). Which of these
//! labels are stored at all is looked up with each heartbeat ([`StoredNames`]): only those are queried separately,
//! mostly none. That may be out of date; then the check of the order finds it, and the request is sent again, with all
//! names queried separately, as long as nothing was sent to the client. A server whose series are out of order even
//! then, again and again while its labels stay the same, is remembered: its answers are collected and sorted from then
//! on, within the memory that there is.
//!
//! [`StoredNames`]: crate::prometheus::stored_names::StoredNames

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tonic::Status;

use super::{
    answer::{Answer, Failed, Plan},
    call::SeriesCall,
    convert::Convert,
    limits::Limits,
    metrics::{self, Metrics},
    read_ahead::Retry,
    sampled,
    sealed_part::{Part, SealedReads},
    skip_chunks,
    source::{self, PrometheusFrames, Source},
    unsorted_server::UnsortedServer,
};
use crate::{
    ops::grpc::Caller,
    prometheus::remote_read::{
        self, ReadError,
        gate::{ClientKey, Gate, Permit, Shed, slots},
        samples::Sampled,
    },
    sealed::Reason,
    storeapi::{
        budget::Reservation,
        context::{Context, View},
        errors,
    },
};

/// Prometheus' flag for the number of remote reads at once.
const READ_LIMIT: &str = "storage.remote.read-concurrent-limit";
/// A client gives up at its deadline, too, and its reset may come before that has passed here: by as much as its request took.
const RESET_BEFORE: Duration = Duration::from_millis(100);

/// How Prometheus is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Series with one of these labels are queried separately, the others streamed.
    Apart(Vec<String>),
    /// All with one query, to be collected and sorted.
    Collected,
}

/// Asks Prometheus for the series of calls; clones share it.
#[derive(Clone, Debug)]
pub(super) struct RemoteReads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    limits: Limits,
    gate: Gate,
    unsorted_server: UnsortedServer,
    sealed: SealedReads,
    metrics: Metrics,
}

impl RemoteReads {
    /// Asks within `limits`.
    pub(super) fn new(context: Context, limits: Limits, registry: &mut Registry) -> Self {
        let gate = Gate::new(slots(None));
        metrics::register_gate(&gate, registry);
        let sources = source::metrics::Metrics::register(registry);
        let inner = Inner {
            gate,
            sealed: SealedReads::new(&context, sources),
            context,
            limits,
            unsorted_server: UnsortedServer::register(registry),
            metrics: Metrics::register(registry),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The queue before Prometheus.
    pub(super) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// What each call may ask for.
    pub(super) fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Where calls are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Sends the request for the first time.
    pub(super) async fn ask(&self, call: &SeriesCall) -> Result<(Answer, Strategy), Status> {
        if call.query.skip_chunks {
            let mut plan = self.plan(call, None);
            let part = self.part(call).await;
            let sets = skip_chunks::read(&self.inner.context, call, part, &mut plan).await?;
            return Ok((Answer::sorted(plan, sets)?, Strategy::Collected));
        }
        let strategy = self.first_strategy(call);
        Ok((self.read(call, &strategy).await?, strategy))
    }

    /// Sends the request again, with another strategy each time.
    pub(super) fn retry(
        &self,
        call: Arc<SeriesCall>,
        mut strategy: Strategy,
    ) -> Box<dyn FnMut() -> Option<Retry> + Send> {
        let remote_reads = self.clone();
        Box::new(move || {
            remote_reads.inner.metrics.disorder();
            let next = remote_reads.next_strategy(&call, &strategy)?;
            strategy.clone_from(&next);
            let (remote_reads, call) = (remote_reads.clone(), Arc::clone(&call));
            Some(Box::pin(async move { remote_reads.read(&call, &next).await }))
        })
    }

    fn first_strategy(&self, call: &SeriesCall) -> Strategy {
        let query = &call.query;
        if self.gives_no_order(&call.view) {
            return Strategy::Collected;
        }
        let names = &self.inner.context.stored_names;
        let touched = query.relabel.touched().iter();
        let apart: Vec<String> = touched.filter(|name| names.may_be_stored(name)).cloned().collect();
        match query.can_split_by(&apart) {
            true => Strategy::Apart(apart),
            false => Strategy::Collected,
        }
    }

    /// After disorder.
    fn next_strategy(&self, call: &SeriesCall, strategy: &Strategy) -> Option<Strategy> {
        let touched = call.query.relabel.touched();
        match strategy {
            Strategy::Collected => None,
            Strategy::Apart(names) if names.len() < touched.len() => {
                let stored = &self.inner.context.stored_names;
                stored.seen(touched.iter().map(String::as_str));
                match call.query.can_split_by(touched) {
                    true => Some(Strategy::Apart(touched.to_vec())),
                    false => Some(Strategy::Collected),
                }
            }
            Strategy::Apart(_) => {
                self.inner.unsorted_server.record(&call.view);
                Some(Strategy::Collected)
            }
        }
    }

    async fn read(&self, call: &SeriesCall, strategy: &Strategy) -> Result<Answer, Status> {
        let (names, streamed): (&[String], _) = match strategy {
            Strategy::Apart(names) => (names, Some(names.len() as i64)),
            Strategy::Collected => (&[], None),
        };
        // What waits for a slot holds no files.
        let permit = match self.needs_prometheus(call) {
            true => Some(self.acquire_permit(&call.caller).await?),
            false => None,
        };
        let part = self.part(call).await;
        match self.request_once(call, names, streamed, (part, permit)).await? {
            Ok(answer) => Ok(answer),
            // It knows one query only.
            Err(_) if !names.is_empty() => {
                let all = self.inner.sealed.nothing(&call.query, Reason::Server);
                let answer = self.request_once(call, &[], None, (all, None)).await?;
                answer.map_err(unexpected)
            }
            Err(results) => Err(unexpected(results)),
        }
    }

    /// Whether the server must be asked for everything: what it sends is not what its blocks say.
    fn is_odd(&self, call: &SeriesCall) -> bool {
        self.gives_no_order(&call.view) || call.view.reads_elsewhere
    }

    /// Whether the server returns series in no order, as far as is known.
    fn gives_no_order(&self, view: &View) -> bool {
        self.inner.unsorted_server.is_known(view) || !is_prometheus(&view.version)
    }

    fn needs_prometheus(&self, call: &SeriesCall) -> bool {
        self.is_odd(call) || self.inner.sealed.needs_prometheus(&call.query)
    }

    /// What comes from sealed blocks.
    async fn part(&self, call: &SeriesCall) -> Part {
        let sealed = &self.inner.sealed;
        let part = match self.is_odd(call) {
            true => sealed.nothing(&call.query, Reason::Server),
            false => sealed.part(&call.query).await,
        };
        tracing::debug!(source = part.origin().as_str(), "where series come from");
        part
    }

    /// Sends the request; returns the number of results if it is not that of the queries.
    async fn request_once(
        &self,
        call: &SeriesCall,
        names: &[String],
        streamed: Option<i64>,
        (part, permit): (Part, Option<Permit>),
    ) -> Result<Result<Answer, usize>, Status> {
        let Some(range) = part.prometheus.clone() else {
            if let Some(permit) = permit {
                permit.finish();
            }
            let source = part.source(None, call, names, streamed);
            return self.answer(call, streamed, source).map(Ok);
        };
        let permit = match permit {
            Some(permit) => permit,
            None => self.acquire_permit(&call.caller).await?,
        };
        call.caller.set_stage("waiting for Prometheus");
        let mut reservation = self.inner.context.budget.reservation();
        let samples = match self.remote_read(call, names, &range, &mut reservation).await {
            Ok(remote_read::Answer::Frames(frames)) => {
                let (metrics, sources) = (self.inner.metrics.clone(), self.inner.sealed.metrics().clone());
                let frames = PrometheusFrames::new(frames, permit, metrics, sources);
                let source = part.source(Some(frames), call, names, streamed);
                return self.answer(call, streamed, source).map(Ok);
            }
            // It does not stream, as no Prometheus of today: it has its own idea of what lies where.
            Ok(remote_read::Answer::Samples(_)) if part.has_blocks() => {
                permit.finish();
                let all = self.inner.sealed.nothing(&call.query, Reason::Server);
                return Box::pin(self.request_once(call, names, streamed, (all, None))).await;
            }
            Ok(remote_read::Answer::Samples(samples)) => samples,
            Err(error) => {
                if error.is_over {
                    permit.finish();
                }
                return Err(errors::read_status(&error));
            }
        };
        // The response is complete.
        permit.finish();
        let (results, answer) = self.sampled(call, samples, reservation).await?;
        Ok(if results == names.len() + 1 {
            Ok(answer)
        } else {
            Err(results)
        })
    }

    /// The answer of what comes from `source`; an empty one without.
    fn answer(&self, call: &SeriesCall, streamed: Option<i64>, source: Option<Source>) -> Result<Answer, Status> {
        let plan = self.plan(call, streamed);
        match source {
            Some(source) => Ok(Answer::streaming(plan, source)),
            None => Answer::sorted(plan, Vec::new()),
        }
    }

    async fn remote_read(
        &self,
        call: &SeriesCall,
        names: &[String],
        range: &RangeInclusive<i64>,
        reservation: &mut Reservation,
    ) -> Result<remote_read::Answer, ReadError> {
        let Self { inner } = self;
        let request = call.query.split_by(names, range);
        let stall = inner.context.patience(&call.caller);
        let client = &inner.context.client;
        client
            .remote_read(&request.bytes, stall, &mut |bytes| reservation.reserve(bytes))
            .await
    }

    /// An answer made of samples, on the pool, and how many results there were.
    async fn sampled(
        &self,
        call: &SeriesCall,
        samples: Sampled,
        reservation: Reservation,
    ) -> Result<(usize, Answer), Status> {
        let plan = self.plan(call, None);
        let pool = &self.inner.context.pool;
        let made = pool.run(move || sampled::answer(samples, plan, reservation)).await;
        let made = made.map_err(|lost| Status::internal(lost.to_string()))?;
        made.map_err(|failed: Failed| failed.into())
    }

    fn plan(&self, call: &SeriesCall, streamed: Option<i64>) -> Plan {
        let (inner, query) = (&self.inner, &call.query);
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
            limits: inner.limits,
            wanted: query.limit,
            reservation: inner.context.budget.reservation(),
            pool: inner.context.pool.clone(),
            metrics: inner.metrics.clone(),
        }
    }

    /// Waits for a permit to read from Prometheus: until the caller's deadline, which ends the call, or for as long as calls without
    /// one may wait.
    async fn acquire_permit(&self, caller: &Caller) -> Result<Permit, Status> {
        let inner = &self.inner;
        let limit = slots(
            inner
                .context
                .snapshots
                .borrow()
                .flags
                .get(READ_LIMIT)
                .map(String::as_str),
        );
        inner.gate.set_slots(limit);
        caller.set_stage("waiting for a slot at Prometheus");
        let patience = inner.context.patience(caller);
        let waiting = Waiting::new(&inner.metrics, caller.deadline());
        let permit = inner.gate.acquire(ClientKey::from(caller.peer()), patience).await;
        waiting.end(permit)
    }
}

/// A call that waits for a slot, so that it is counted however that ends. One with a deadline is dropped when that has
/// passed, and then it has waited too long.
struct Waiting<'a> {
    metrics: &'a Metrics,
    since: Instant,
    /// When the client gives up; `None` also once the wait is over.
    deadline: Option<Instant>,
}

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics, deadline: Option<Instant>) -> Self {
        let since = Instant::now();
        Self {
            metrics,
            since,
            deadline,
        }
    }

    /// The wait is over.
    fn end(mut self, permit: Result<Permit, Shed>) -> Result<Permit, Status> {
        self.deadline = None;
        if !matches!(permit, Err(Shed::Full { .. })) {
            self.metrics.waited(self.since.elapsed().as_secs_f64());
        }
        permit.map_err(|shed| {
            self.metrics.shed();
            Status::resource_exhausted(shed.to_string())
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.deadline.is_some_and(|at| Instant::now() + RESET_BEFORE >= at) {
            self.metrics.waited(self.since.elapsed().as_secs_f64());
            self.metrics.shed();
        }
    }
}

fn unexpected(results: usize) -> Status {
    Status::unknown(format!("unexpected result size {results}"))
}

/// Whether this is a Prometheus that answers all queries of one request. Each that reports its build does, also
/// when that holds no version, as in one built by hand; `0` stands for a server that has no such page.
fn is_prometheus(version: &str) -> bool {
    version != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of calls that waited: how many got no slot, how many waited, and for how many seconds.
    fn waited(registry: &Registry) -> [String; 3] {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
        [
            "remote_reads_shed_total",
            "remote_read_wait_seconds_count",
            "remote_read_wait_seconds_sum",
        ]
        .map(|name| {
            let start = format!("narthex_{name} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&start));
            value.unwrap().to_owned()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_until_its_deadline_is_counted_as_refused_and_one_that_is_cancelled_is_not() {
        let mut registry = Registry::default();
        let (metrics, gate) = (Metrics::register(&mut registry), Gate::new(1));
        let held = gate.acquire(ClientKey::default(), None).await.unwrap();
        let second = Duration::from_secs(1);
        for (deadline, dropped, want) in [
            (None, 9, ["0", "0", "0.0"]),
            (Some(5), 3, ["0", "0", "0.0"]),
            (Some(5), 5, ["1", "1", "5.0"]),
        ] {
            let deadline = deadline.map(|after| Instant::now() + after * second);
            let wait = async {
                let waiting = Waiting::new(&metrics, deadline);
                waiting.end(gate.acquire(ClientKey::default(), None).await)
            };
            tokio::time::timeout(dropped * second, wait).await.unwrap_err();
            assert_eq!(waited(&registry), want, "{deadline:?}, dropped after {dropped} s");
        }
        // Without a deadline the queue ends the wait.
        let waiting = Waiting::new(&metrics, None);
        let late = gate.acquire(ClientKey::default(), Some(2 * second)).await;
        assert_eq!(waiting.end(late).unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert_eq!(waited(&registry), ["2", "2", "7.0"]);
        held.finish();
        let waiting = Waiting::new(&metrics, Some(Instant::now()));
        let permit = gate.acquire(ClientKey::default(), None).await;
        waiting.end(permit).unwrap().finish();
        assert_eq!(waited(&registry), ["2", "3", "7.0"]);
    }
}
