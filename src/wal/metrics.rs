//! The metrics of the log that is sent.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use crate::shipper::now_ms;

/// Why a generation began.
pub(super) const REASONS: [&str; 5] = ["first", "other_log", "deleted", "labels", "age"];

/// The metrics of one sender; all of them are there also when nothing is sent.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) bytes: Counter,
    pub(super) objects: Counter,
    pub(super) failures: Counter,
    pub(super) checkpoints: Counter,
    generations: Family<[(&'static str, &'static str); 1], Counter>,
    durable: Durable,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            bytes: Counter::default(),
            objects: Counter::default(),
            failures: Counter::default(),
            checkpoints: Counter::default(),
            generations: Family::default(),
            durable: Durable::default(),
        };
        for reason in REASONS {
            drop(metrics.generations.get_or_create(&[("reason", reason)]));
        }
        let mut counter = |name: &str, help, metric: &Counter| {
            registry.register(format!("narthex_wal_{name}"), help, metric.clone());
        };
        counter(
            "sent_bytes",
            "Bytes of Prometheus' write-ahead log that are in the bucket, those of checkpoints too",
            &metrics.bytes,
        );
        counter(
            "sent_objects",
            "Objects that were put for the write-ahead log, manifests too",
            &metrics.objects,
        );
        counter(
            "failures",
            "Rounds of sending the write-ahead log that failed; the log says why",
            &metrics.failures,
        );
        counter(
            "checkpoints",
            "Checkpoints of the write-ahead log that are whole in the bucket",
            &metrics.checkpoints,
        );
        registry.register(
            "narthex_wal_generations",
            "Copies of the write-ahead log that were begun, by the reason why the last one could not be continued",
            metrics.generations.clone(),
        );
        registry.register_collector(Box::new(metrics.durable.clone()));
        metrics
    }

    /// Counts a generation that begins.
    pub(super) fn count_generation(&self, reason: &'static str) {
        self.generations.get_or_create(&[("reason", reason)]).inc();
    }

    /// Everything that Prometheus had taken at this time (ms since 1970) is in the bucket.
    pub(super) fn set_durable(&self, at_ms: i64) {
        self.durable.at_ms.store(at_ms, Ordering::Relaxed);
    }

    /// From now on the log is to be sent, so that there is a lag.
    pub(super) fn start(&self, now_ms: i64) {
        self.durable.since_ms.store(now_ms, Ordering::Relaxed);
    }
}

/// Up to when the log is durable, and how long ago that is: computed when it is asked for, so that it does not stand still while a
/// round takes long.
#[derive(Clone, Debug, Default)]
struct Durable {
    at_ms: Arc<AtomicI64>,
    since_ms: Arc<AtomicI64>,
}

impl Durable {
    fn lag_seconds(&self, now_ms: i64) -> f64 {
        match self.since_ms.load(Ordering::Relaxed) {
            0 => 0.0,
            since => (now_ms - self.at_ms.load(Ordering::Relaxed).max(since)).max(0) as f64 / 1000.0,
        }
    }
}

impl Collector for Durable {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "narthex_wal_durable_timestamp_seconds",
            "What Prometheus had taken before this time is in the bucket, in blocks or in its write-ahead log; 0 until that is known, and where the log is not sent",
            self.at_ms.load(Ordering::Relaxed) as f64 / 1000.0,
        )?;
        gauge(
            "narthex_wal_lag_seconds",
            "How long ago that is, or since when it is tried; 0 where the log is not sent",
            self.lag_seconds(now_ms()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_grows_until_something_is_durable_and_is_none_when_nothing_is_sent() {
        let durable = Durable::default();
        assert_eq!(durable.lag_seconds(5_000), 0.0);
        let metrics = Metrics::register(&mut Registry::default());
        metrics.start(1_000);
        assert_eq!(metrics.durable.lag_seconds(5_000), 4.0);
        metrics.set_durable(4_500);
        assert_eq!(metrics.durable.lag_seconds(5_000), 0.5);
        // A clock that was set back.
        assert_eq!(metrics.durable.lag_seconds(4_000), 0.0);
    }
}
