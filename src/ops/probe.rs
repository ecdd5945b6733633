//! Whether the process is alive, and whether it is of use: the state behind `/-/healthy` and `/-/ready`.
//!
//! Ready means that every named [`Condition`] is good; with none named yet, the process is still starting and is not
//! ready. Both states begin as bad. [`Probe::shutdown`] makes the process not ready for good, whatever its conditions
//! say later; [`Probe::stopped`] makes it not healthy as well. Each change is logged once, with its reasons, and told
//! to whoever asked for [`Probe::readiness`].
//!
//! A probe is a handle to shared state: clones are cheap, and no lock is held while anything is awaited or written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;
use tracing::{info, warn};

/// The state of readiness and health, shared by all clones.
#[derive(Clone, Debug)]
pub struct Probe(Arc<Shared>);

/// One named thing that must be good for the process to be ready; clones set the same thing.
#[derive(Clone, Debug)]
pub struct Condition {
    probe: Probe,
    name: &'static str,
}

/// Readiness, for those who wait for its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// All conditions are good.
    Ready,
    /// Some condition is bad, or there is none yet.
    NotReady,
    /// Not ready any more, for good.
    Stopping,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    readiness: watch::Sender<Readiness>,
    ready: Gauge,
    healthy: Gauge,
}

#[derive(Debug)]
struct State {
    healthy: Result<(), String>,
    conditions: Vec<(&'static str, Result<(), String>)>,
    stopping: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Check {
    component: &'static str,
    check: &'static str,
}

impl Probe {
    /// Makes a probe that is neither ready nor healthy, and registers `thanos_status` for `component`.
    pub fn register(component: &'static str, registry: &mut Registry) -> Self {
        let status = Family::<Check, Gauge>::default();
        let gauge = |check| status.get_or_create(&Check { component, check }).clone();
        let shared = Shared {
            state: Mutex::new(State::starting()),
            readiness: watch::Sender::new(Readiness::NotReady),
            ready: gauge("ready"),
            healthy: gauge("healthy"),
        };
        registry.register("thanos_status", "1 if the check of this name passes, 0 if not", status);
        Self(Arc::new(shared))
    }

    /// The condition `name`, which is bad until it is set for the first time. Asking again gives the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.change(|state| {
            if !state.conditions.iter().any(|(known, _)| *known == name) {
                state.conditions.push((name, Err("not known yet".to_owned())));
            }
        });
        Condition {
            probe: self.clone(),
            name,
        }
    }

    /// Says whether the process is healthy, or why it is not.
    pub fn set_healthy(&self, healthy: Result<(), String>) {
        self.change(|state| state.healthy = healthy);
    }

    /// Not ready from now on: the process stops. It stays healthy until [`Probe::stopped`].
    pub fn shutdown(&self) {
        self.change(|state| state.stopping = true);
    }

    /// Neither ready nor healthy from now on: the process has stopped to serve.
    pub fn stopped(&self) {
        self.change(|state| {
            state.stopping = true;
            state.healthy = Err("shut down".to_owned());
        });
    }

    /// Whether the process is ready; if not, all reasons in one line.
    pub fn ready(&self) -> Result<(), String> {
        self.lock().ready()
    }

    /// Whether the process is healthy; if not, the reason.
    pub fn healthy(&self) -> Result<(), String> {
        self.lock().healthy.clone()
    }

    /// The readiness now and each change of it, but not each reason. It ends when the last handle is gone.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.0.readiness.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a single assignment, so that a panic elsewhere cannot leave half a state behind.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (before, after, stopping) = {
            let mut state = self.lock();
            let before = (state.ready(), state.healthy.clone());
            change(&mut state);
            let after = (state.ready(), state.healthy.clone());
            // Under the lock, or two changes at once could leave the older one in the gauges.
            let readiness = match (state.stopping, after.0.is_ok()) {
                (true, _) => Readiness::Stopping,
                (false, true) => Readiness::Ready,
                (false, false) => Readiness::NotReady,
            };
            self.0
                .readiness
                .send_if_modified(|before| std::mem::replace(before, readiness) != readiness);
            self.0.ready.set(i64::from(after.0.is_ok()));
            self.0.healthy.set(i64::from(after.1.is_ok()));
            (before, after, state.stopping)
        };
        log_change("ready", stopping, &before.0, &after.0);
        log_change("healthy", stopping, &before.1, &after.1);
    }
}

impl Condition {
    /// Says that the condition is good, or why it is not.
    pub fn set(&self, state: Result<(), String>) {
        self.probe.change(|all| {
            if let Some((_, slot)) = all.conditions.iter_mut().find(|(name, _)| *name == self.name) {
                *slot = state;
            }
        });
    }
}

impl State {
    fn starting() -> Self {
        Self {
            healthy: Err("starting".to_owned()),
            conditions: Vec::new(),
            stopping: false,
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping {
            return Err("shutting down".to_owned());
        }
        if self.conditions.is_empty() {
            return Err("starting".to_owned());
        }
        let bad: Vec<String> = self
            .conditions
            .iter()
            .filter_map(|(name, state)| state.as_ref().err().map(|reason| format!("{name}: {reason}")))
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) }
    }
}

fn log_change(check: &'static str, stopping: bool, before: &Result<(), String>, after: &Result<(), String>) {
    if before == after {
        return;
    }
    match after {
        Ok(()) => info!(check, "check passes"),
        // Only a loss that nobody asked for may need a hand.
        Err(reason) if before.is_ok() && !stopping => warn!(check, %reason, "check no longer passes"),
        Err(reason) => info!(check, %reason, "check does not pass"),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn gauges(registry: &Registry) -> (bool, bool) {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let is = |check: &str, value: u8| {
            text.contains(&format!(
                "thanos_status{{component=\"sidecar\",check=\"{check}\"}} {value}\n"
            ))
        };
        assert!(is("ready", 0) || is("ready", 1), "{text}");
        assert!(is("healthy", 0) || is("healthy", 1), "{text}");
        (is("ready", 1), is("healthy", 1))
    }

    #[test]
    fn starts_neither_ready_nor_healthy() {
        let mut registry = Registry::default();
        let probe = Probe::register("sidecar", &mut registry);
        assert_eq!(probe.ready(), Err("starting".to_owned()));
        assert_eq!(probe.healthy(), Err("starting".to_owned()));
        assert_eq!(gauges(&registry), (false, false));
    }

    #[test]
    fn is_ready_when_all_conditions_are_good_and_names_those_that_are_not() {
        let mut registry = Registry::default();
        let probe = Probe::register("sidecar", &mut registry);
        let prometheus = probe.condition("prometheus");
        let reloader = probe.condition("reloader");
        assert_eq!(
            probe.ready(),
            Err("prometheus: not known yet; reloader: not known yet".to_owned())
        );
        prometheus.set(Ok(()));
        reloader.set(Err("reload failed".to_owned()));
        assert_eq!(probe.ready(), Err("reloader: reload failed".to_owned()));
        assert_eq!(gauges(&registry), (false, false));
        probe.condition("reloader").set(Ok(()));
        probe.set_healthy(Ok(()));
        assert_eq!(probe.ready(), Ok(()));
        assert_eq!(gauges(&registry), (true, true));
        prometheus.clone().set(Err("connection refused".to_owned()));
        assert_eq!(probe.ready(), Err("prometheus: connection refused".to_owned()));
    }

    #[tokio::test]
    async fn changes_of_readiness_are_told_but_not_changes_of_the_reason() {
        let probe = Probe::register("sidecar", &mut Registry::default());
        let mut readiness = probe.readiness();
        assert_eq!(*readiness.borrow_and_update(), Readiness::NotReady);
        let prometheus = probe.condition("prometheus");
        prometheus.set(Err("refused".to_owned()));
        assert!(!readiness.has_changed().unwrap());
        prometheus.set(Ok(()));
        readiness.changed().await.unwrap();
        assert_eq!(*readiness.borrow_and_update(), Readiness::Ready);
        probe.shutdown();
        assert_eq!(*readiness.borrow_and_update(), Readiness::Stopping);
        probe.stopped();
        assert!(!readiness.has_changed().unwrap());
    }

    #[test]
    fn shutting_down_ends_readiness_first_and_for_good() {
        let mut registry = Registry::default();
        let probe = Probe::register("sidecar", &mut registry);
        let prometheus = probe.condition("prometheus");
        prometheus.set(Ok(()));
        probe.set_healthy(Ok(()));
        probe.shutdown();
        assert_eq!(gauges(&registry), (false, true));
        prometheus.set(Ok(()));
        assert_eq!(probe.ready(), Err("shutting down".to_owned()));
        probe.stopped();
        assert_eq!(gauges(&registry), (false, false));
        assert_eq!(probe.healthy(), Err("shut down".to_owned()));
    }
}
