//! The reloader's metrics, by Thanos' names.

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::trigger::Method;

/// The metrics of one reloader; all are there also when there is nothing to follow.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) reloads: Counter,
    pub(super) reloads_failed: Counter,
    successful: Gauge,
    successful_at: Gauge<f64, AtomicU64>,
    pub(super) applied: Counter,
    pub(super) apply_failed: Counter,
    pub(super) unset_variables: Gauge,
    info: Family<[(&'static str, &'static str); 1], Gauge>,
    pub(super) watches: Gauge,
    pub(super) watch_events: Counter,
    pub(super) watch_errors: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reloads: Counter::default(),
            reloads_failed: Counter::default(),
            successful: Gauge::default(),
            successful_at: Gauge::default(),
            applied: Counter::default(),
            apply_failed: Counter::default(),
            unset_variables: Gauge::default(),
            info: Family::default(),
            watches: Gauge::default(),
            watch_events: Counter::default(),
            watch_errors: Counter::default(),
        };
        metrics.register_reloads(registry);
        metrics.register_looks(registry);
        metrics
    }

    fn register_reloads(&self, registry: &mut Registry) {
        registry.register(
            "thanos_sidecar_reloader_reloads",
            "Attempts to have Prometheus load its configuration",
            self.reloads.clone(),
        );
        registry.register(
            "thanos_sidecar_reloader_reloads_failed",
            "Those that failed; the log says why",
            self.reloads_failed.clone(),
        );
        registry.register(
            "thanos_sidecar_reloader_last_reload_successful",
            "Whether the last attempt to have Prometheus load its configuration was successful; 0 before the first one",
            self.successful.clone(),
        );
        registry.register(
            "thanos_sidecar_reloader_last_reload_success_timestamp_seconds",
            "When the last one was successful; 0 if none was",
            self.successful_at.clone(),
        );
        registry.register(
            "thanos_sidecar_reloader_info",
            "1, with how Prometheus is asked to reload",
            self.info.clone(),
        );
    }

    fn register_looks(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help, metric: &Counter| {
            registry.register(format!("thanos_sidecar_reloader_{name}"), help, metric.clone());
        };
        counter(
            "config_apply_operations",
            "Looks at the files that Prometheus loads, with what followed; the first one is not counted",
            &self.applied,
        );
        counter(
            "config_apply_operations_failed",
            "Those that ended with an error; the log says which",
            &self.apply_failed,
        );
        counter(
            "watch_events",
            "Events of the file system that made a look come at once",
            &self.watch_events,
        );
        counter(
            "watch_errors",
            "Watches that could not be set, and errors that they reported",
            &self.watch_errors,
        );
        let mut gauge = |name: &str, help, metric: &Gauge| {
            registry.register(format!("thanos_sidecar_reloader_{name}"), help, metric.clone());
        };
        gauge(
            "config_environment_variable_expansion_errors",
            "Variables that the configuration refers to and that are not set, as of the last look",
            &self.unset_variables,
        );
        gauge("watches", "Directories and files that are watched", &self.watches);
    }

    /// Shows how Prometheus is asked to reload.
    pub(super) fn is_told_by(&self, method: &Method) {
        self.info.get_or_create(&[("method", method.name())]).set(1);
    }

    /// Counts an attempt to reload.
    pub(super) fn count(&self, successful: bool) {
        self.reloads.inc();
        self.successful.set(i64::from(successful));
        if successful {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.successful_at.set(now.as_secs_f64());
        } else {
            self.reloads_failed.inc();
        }
    }
}
