//! In which way Prometheus is asked for the series of a call, and what is done when they come in no order.
//!
//! Series that carry a label which is set or removed may stand anywhere in the order ([`super::query`]). Which of these labels
//! are stored at all is learned with each heartbeat ([`StoredNames`]): only those are asked for apart, mostly none. What was learned
//! may be old; then the last look at the order finds it, and the question is put once more, with all names apart, as long as
//! nothing was given to the client. A server whose series come in no order even then, again and again while its labels stay the same,
//! is remembered: all of its answer is collected and sorted from then on, within the memory that there is.
//!
//! [`StoredNames`]: crate::prometheus::stored_names::StoredNames

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time::Instant;
use tonic::Status;

use super::{
    ahead::Again,
    answer::{Answer, Failed, Plan},
    call::Asked,
    convert::Convert,
    limits::Limits,
    metrics::{self, Metrics},
    sampled, skip_chunks,
};
use crate::{
    model::Labels,
    ops::grpc::Caller,
    prometheus::remote_read::{
        self,
        gate::{ClientKey, Gate, Pass, places},
        samples::Sampled,
    },
    storeapi::{
        budget::Held,
        context::{Context, View},
        errors,
    },
};

/// Prometheus' flag that says how many remote reads it answers at once.
const READ_LIMIT: &str = "storage.remote.read-concurrent-limit";
/// External labels that have just changed bring disorder, too, for as long as a heartbeat takes: what comes after this time
/// has another cause.
const JUST_CHANGED: Duration = Duration::from_secs(60);

/// How the question is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Series with one of these labels apart, the others streamed.
    Apart(Vec<String>),
    /// All at once, to be collected and sorted.
    Collected,
}

/// Whether the series of a Prometheus come in no order, however it is asked.
#[derive(Debug)]
pub(super) struct Disorderly {
    state: Mutex<Option<State>>,
    shown: Gauge,
}

#[derive(Debug)]
struct State {
    /// Of whom this is known.
    of: (Labels, String),
    /// When it was first seen.
    first: Instant,
    remembered: bool,
}

impl Disorderly {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let shown = Gauge::default();
        registry.register(
            "narthex_prometheus_disorderly",
            "1 if the series of Prometheus come in no order, so that all of each answer is sorted in memory",
            shown.clone(),
        );
        let state = Mutex::default();
        Self { state, shown }
    }

    /// Whether it is remembered of this one.
    fn is(&self, view: &View) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .as_ref()
            .is_some_and(|state| state.remembered && state.of.0 == view.labels && state.of.1 == view.version)
    }

    /// Series came in no order though all was asked apart that could cause it.
    fn seen(&self, view: &View) {
        let of = (view.labels.clone(), view.version.clone());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Some(state) if state.of == of => {
                let lasts = state.first.elapsed() >= JUST_CHANGED;
                if lasts && !state.remembered {
                    state.remembered = true;
                    self.shown.set(1);
                    tracing::warn!(
                        "the series of Prometheus' remote read come in no order, as from a proxy that merges several servers: from now on all of each answer is sorted in memory (at most --store.memory-limit), until its labels or its version change"
                    );
                }
            }
            other => {
                *other = Some(State {
                    of,
                    first: Instant::now(),
                    remembered: false,
                });
                self.shown.set(0);
            }
        }
    }
}

/// Asks Prometheus for the series of calls; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    limits: Limits,
    gate: Gate,
    disorderly: Disorderly,
    metrics: Metrics,
}

impl Asking {
    /// Asks within `limits`.
    pub(super) fn new(context: Context, limits: Limits, registry: &mut Registry) -> Self {
        let gate = Gate::new(places(None));
        metrics::register_gate(&gate, registry);
        let inner = Inner {
            gate,
            context,
            limits,
            disorderly: Disorderly::register(registry),
            metrics: Metrics::register(registry),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where calls are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Asks for the first time.
    pub(super) async fn ask(&self, asked: &Asked) -> Result<(Answer, Way), Status> {
        if asked.query.skip_chunks {
            let mut plan = self.plan(asked, None);
            let sets = skip_chunks::read(&self.inner.context, asked, &mut plan.convert, &mut plan.held).await?;
            return Ok((Answer::sorted(plan, sets)?, Way::Collected));
        }
        let way = self.first_way(asked);
        Ok((self.read(asked, &way).await?, way))
    }

    /// Asks once more, in another way each time.
    pub(super) fn again(&self, asked: Arc<Asked>, mut way: Way) -> Box<dyn FnMut() -> Option<Again> + Send> {
        let asking = self.clone();
        Box::new(move || {
            asking.inner.metrics.disorder();
            let next = asking.next_way(&asked, &way)?;
            way.clone_from(&next);
            let (asking, asked) = (asking.clone(), Arc::clone(&asked));
            Some(Box::pin(async move { asking.read(&asked, &next).await }))
        })
    }

    fn first_way(&self, asked: &Asked) -> Way {
        let Asked { query, view, .. } = asked;
        if !is_prometheus(&view.version) || self.inner.disorderly.is(view) {
            return Way::Collected;
        }
        let names = &self.inner.context.stored_names;
        let touched = query.relabel.touched().iter();
        let apart: Vec<String> = touched.filter(|name| names.may_be_stored(name)).cloned().collect();
        match query.can_split_by(&apart) {
            true => Way::Apart(apart),
            false => Way::Collected,
        }
    }

    /// After disorder.
    fn next_way(&self, asked: &Asked, way: &Way) -> Option<Way> {
        let touched = asked.query.relabel.touched();
        match way {
            Way::Collected => None,
            Way::Apart(names) if names.len() < touched.len() => {
                let stored = &self.inner.context.stored_names;
                stored.seen(touched.iter().map(String::as_str));
                match asked.query.can_split_by(touched) {
                    true => Some(Way::Apart(touched.to_vec())),
                    false => Some(Way::Collected),
                }
            }
            Way::Apart(_) => {
                self.inner.disorderly.seen(&asked.view);
                Some(Way::Collected)
            }
        }
    }

    async fn read(&self, asked: &Asked, way: &Way) -> Result<Answer, Status> {
        let (names, streamed): (&[String], _) = match way {
            Way::Apart(names) => (names, Some(names.len() as i64)),
            Way::Collected => (&[], None),
        };
        match self.put(asked, names, streamed).await? {
            Ok(answer) => Ok(answer),
            // It knows one query only.
            Err(_) if !names.is_empty() => self.put(asked, &[], None).await?.map_err(unexpected),
            Err(results) => Err(unexpected(results)),
        }
    }

    /// Puts the question; gives the number of results if it is not that of the queries.
    async fn put(
        &self,
        asked: &Asked,
        names: &[String],
        streamed: Option<i64>,
    ) -> Result<Result<Answer, usize>, Status> {
        let pass = self.turn(&asked.caller).await?;
        asked.caller.is_at("waiting for Prometheus");
        let mut held = self.inner.context.budget.hold();
        let samples = match self.remote_read(asked, names, &mut held).await? {
            remote_read::Answer::Frames(frames) => {
                return Ok(Ok(Answer::streaming(self.plan(asked, streamed), frames, pass)));
            }
            remote_read::Answer::Samples(samples) => samples,
        };
        // It has said everything.
        pass.finish();
        let (results, answer) = self.sampled(asked, samples, held).await?;
        Ok(if results == names.len() + 1 {
            Ok(answer)
        } else {
            Err(results)
        })
    }

    async fn remote_read(
        &self,
        asked: &Asked,
        names: &[String],
        held: &mut Held,
    ) -> Result<remote_read::Answer, Status> {
        let Self { inner } = self;
        let request = asked.query.split_by(names);
        let stall = inner.context.patience(&asked.caller);
        let read = inner
            .context
            .client
            .remote_read(&request.bytes, stall, &mut |bytes| held.take(bytes))
            .await;
        read.map_err(|error| errors::read_status(&error))
    }

    /// An answer of samples, made where it holds nobody up, and how many results it had.
    async fn sampled(&self, asked: &Asked, samples: Sampled, held: Held) -> Result<(usize, Answer), Status> {
        let plan = self.plan(asked, None);
        let lane = &self.inner.context.lane;
        let made = lane.run(move || sampled::answer(samples, plan, held)).await;
        let made = made.map_err(|lost| Status::internal(lost.to_string()))?;
        made.map_err(|failed: Failed| failed.into())
    }

    fn plan(&self, asked: &Asked, streamed: Option<i64>) -> Plan {
        let (inner, query) = (&self.inner, &asked.query);
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
            held: inner.context.budget.hold(),
            lane: inner.context.lane.clone(),
            metrics: inner.metrics.clone(),
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
        let patience = inner.context.patience(caller);
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
}

fn unexpected(results: usize) -> Status {
    Status::unknown(format!("unexpected result size {results}"))
}

/// Whether this is a Prometheus that answers all queries of one request. Each that tells what it is built from does, also
/// when that holds no version, as in one built by hand; `0` stands for a server that has no such page.
fn is_prometheus(version: &str) -> bool {
    version != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(labels: &[(&str, &str)]) -> View {
        View {
            labels: Labels::from_pairs(labels.iter().copied()),
            min_time_ms: 0,
            version: "3.14.0".to_owned(),
            seen: true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn disorder_is_remembered_when_it_lasts_and_until_the_labels_change() {
        let disorderly = Disorderly::register(&mut Registry::default());
        let (one, other) = (view(&[("cluster", "eu")]), view(&[("cluster", "us")]));
        disorderly.seen(&one);
        tokio::time::advance(JUST_CHANGED / 2).await;
        disorderly.seen(&one);
        assert!(!disorderly.is(&one));
        tokio::time::advance(JUST_CHANGED / 2).await;
        disorderly.seen(&one);
        assert!(disorderly.is(&one) && !disorderly.is(&other));
        assert_eq!(disorderly.shown.get(), 1);
        disorderly.seen(&other);
        assert!(!disorderly.is(&one) && !disorderly.is(&other));
        assert_eq!(disorderly.shown.get(), 0);
    }
}
