//! The metrics of the heartbeat.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::prometheus::stored_names::Counts;

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) up: Gauge,
    pub(super) configuration_errors: Gauge,
    pub(super) last_heartbeat: Gauge<f64, AtomicU64>,
    label_names: Family<Known, Gauge>,
}

/// What is known of a name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Known {
    stored: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            up: Gauge::default(),
            configuration_errors: Gauge::default(),
            last_heartbeat: Gauge::default(),
            label_names: Family::default(),
        };
        metrics.count_names(Counts::default());
        registry.register(
            "thanos_sidecar_prometheus_up",
            "1 if Prometheus answered the last heartbeat, else 0; the log says why",
            metrics.up.clone(),
        );
        registry.register(
            "narthex_configuration_errors",
            "Errors in Prometheus' external labels and flags that must be fixed before every block is safe; the log \
             names them",
            metrics.configuration_errors.clone(),
        );
        registry.register(
            "narthex_prometheus_last_heartbeat_timestamp_seconds",
            "When Prometheus last answered a heartbeat; 0 if it never did",
            metrics.last_heartbeat.clone(),
        );
        registry.register(
            "narthex_looked_up_label_names",
            "External and replica labels of queries, by whether Prometheus stores series with them; unknown counts as \
             stored, and each stored one adds a query to every remote read",
            metrics.label_names.clone(),
        );
        metrics
    }

    pub(super) fn count_names(&self, counts: Counts) {
        for (stored, count) in [
            ("yes", counts.stored),
            ("no", counts.absent),
            ("unknown", counts.unknown),
        ] {
            // At most 64.
            self.label_names.get_or_create(&Known { stored }).set(count as i64);
        }
    }
}
