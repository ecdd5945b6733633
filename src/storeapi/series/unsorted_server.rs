//! Remembers a server whose series come out of order, whatever is asked.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time::Instant;

use crate::{model::Labels, storeapi::context::View};

/// External labels that have just changed bring disorder, too, for as long as a heartbeat takes: what comes after this time
/// has another cause.
const JUST_CHANGED: Duration = Duration::from_secs(60);

/// Remembers whether a Prometheus returns series out of order, whatever the strategy.
#[derive(Debug)]
pub(super) struct UnsortedServer {
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

impl UnsortedServer {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let shown = Gauge::default();
        registry.register(
            "narthex_prometheus_always_unsorted",
            "1 if Prometheus returns series out of order, so that every answer is sorted in memory",
            shown.clone(),
        );
        let state = Mutex::default();
        Self { state, shown }
    }

    /// Whether it is remembered for this one, which is shown.
    pub(super) fn is_known(&self, view: &View) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = state
            .as_ref()
            .is_some_and(|state| state.remembered && state.of.0 == view.labels && state.of.1 == view.version);
        self.shown.set(i64::from(is_known));
        is_known
    }

    /// Series came out of order although all names that could cause it were queried separately.
    pub(super) fn record(&self, view: &View) {
        let of = (view.labels.clone(), view.version.clone());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Some(state) if state.of == of => {
                let lasts = state.first.elapsed() >= JUST_CHANGED;
                if lasts && !state.remembered {
                    state.remembered = true;
                    self.shown.set(1);
                    tracing::warn!(
                        "Prometheus' remote read returns series out of order, as a proxy that merges several servers \
                         does: from now on every answer is collected and sorted in memory (at most \
                         --store.memory-limit), until the external labels or the version change"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn view(labels: &[(&str, &str)]) -> View {
        View {
            labels: Labels::from_pairs(labels.iter().copied()),
            min_time_ms: 0,
            limit_ms: 0,
            version: "3.14.0".to_owned(),
            seen: true,
            reads_elsewhere: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn disorder_is_remembered_when_it_lasts_and_until_the_labels_change() {
        let unsorted_server = UnsortedServer::register(&mut Registry::default());
        let (one, other) = (view(&[("cluster", "eu")]), view(&[("cluster", "us")]));
        unsorted_server.record(&one);
        tokio::time::advance(JUST_CHANGED / 2).await;
        unsorted_server.record(&one);
        assert!(!unsorted_server.is_known(&one));
        tokio::time::advance(JUST_CHANGED / 2).await;
        unsorted_server.record(&one);
        assert_eq!(unsorted_server.shown.get(), 1);
        // The first call with other labels shows that it is over, the first one with the former ones that it is not.
        for (view, known) in [(&other, false), (&one, true)] {
            assert_eq!(unsorted_server.is_known(view), known);
            assert_eq!(unsorted_server.shown.get(), i64::from(known));
        }
        unsorted_server.record(&other);
        assert!(!unsorted_server.is_known(&one) && !unsorted_server.is_known(&other));
        assert_eq!(unsorted_server.shown.get(), 0);
    }
}
