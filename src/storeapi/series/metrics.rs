//! The metrics of Series calls: those of Thanos, with its names and labels, and narthex' own.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use super::limits::Exceeded;
use crate::prometheus::remote_read::gate::Gate;

/// The metrics of the Series service; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dropped: Family<Reason, Counter>,
    series: Histogram,
    chunks: Histogram,
    pending: Gauge,
    frames: Histogram,
    wait: Histogram,
    shed: Counter,
    stalled: Counter,
    lagged: Counter,
    disorder: Counter,
    sent_series: Counter,
    sent_bytes: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counts a call as pending until it is dropped.
#[derive(Debug)]
pub struct Pending(Metrics);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.0.pending.dec();
    }
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let inner = Inner {
            dropped: Family::default(),
            series: Histogram::new([1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]),
            chunks: Histogram::new([1.0, 100.0, 1e3, 1e4, 1e5, 1e7, 1e8, 1e9]),
            pending: Gauge::default(),
            frames: Histogram::new([10.0, 100.0, 1e3, 1e4, 1e5]),
            wait: Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0]),
            shed: Counter::default(),
            stalled: Counter::default(),
            lagged: Counter::default(),
            disorder: Counter::default(),
            sent_series: Counter::default(),
            sent_bytes: Counter::default(),
        };
        inner.register_own(registry);
        for reason in ["series", "chunks"] {
            // As in Thanos, the reasons are there from the start.
            let _ = inner.dropped.get_or_create(&Reason { reason });
        }
        registry.register(
            "thanos_store_selects_dropped",
            "Series calls that exceeded a limit",
            inner.dropped.clone(),
        );
        registry.register(
            "thanos_store_server_series_requested",
            "Series in a complete answer; each part of a split series counts",
            inner.series.clone(),
        );
        registry.register(
            "thanos_store_server_chunks_requested",
            "Chunks in a complete answer",
            inner.chunks.clone(),
        );
        registry.register(
            "thanos_store_server_pending_series_requests",
            "Series calls that are running or waiting",
            inner.pending.clone(),
        );
        registry.register(
            "prometheus_store_received_frames",
            "Frames in a response of Prometheus' remote read",
            inner.frames.clone(),
        );
        Self(Arc::new(inner))
    }

    /// A call has come; it is pending until the value is dropped.
    pub fn pending(&self) -> Pending {
        self.0.pending.inc();
        Pending(self.clone())
    }

    /// A whole answer was given.
    pub fn answered(&self, series: u64, chunks: u64) {
        self.0.series.observe(series as f64);
        self.0.chunks.observe(chunks as f64);
    }

    /// A call ran into a limit.
    pub fn dropped(&self, exceeded: &Exceeded) {
        let reason = match exceeded {
            Exceeded::Series { .. } => "series",
            Exceeded::Samples { .. } => "chunks",
        };
        self.0.dropped.get_or_create(&Reason { reason }).inc();
    }

    /// An answer of Prometheus has ended after so many frames.
    pub fn frames(&self, frames: u64) {
        self.0.frames.observe(frames as f64);
    }

    /// A call waited so many seconds for a slot.
    pub fn waited(&self, seconds: f64) {
        self.0.wait.observe(seconds);
    }

    /// A call got no slot.
    pub fn shed(&self) {
        self.0.shed.inc();
    }

    /// How many calls got no slot, read nothing for too long, and read too slowly so far.
    pub(super) fn ended(&self) -> (u64, u64, u64) {
        (self.0.shed.get(), self.0.stalled.get(), self.0.lagged.get())
    }

    /// A client read nothing for too long.
    pub fn stalled(&self) {
        self.0.stalled.inc();
    }

    /// A client read too slowly: Prometheus has waited for it for too long, or too many others are slow, too.
    pub fn lagged(&self) {
        self.0.lagged.inc();
    }

    /// Series arrived in an order that cannot be restored.
    pub fn disorder(&self) {
        self.0.disorder.inc();
    }

    /// A piece of an answer was given to a client: so many series that are whole with it, and its bytes.
    pub fn sent(&self, series: u64, bytes: usize) {
        self.0.sent_series.inc_by(series);
        self.0.sent_bytes.inc_by(bytes as u64);
    }
}

impl Inner {
    /// Those that Thanos does not have.
    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "narthex_remote_read_wait_seconds",
            "How long a Series call waited for a remote-read slot",
            self.wait.clone(),
        );
        registry.register(
            "narthex_remote_reads_shed",
            "Series calls that were refused because too many waited, or that waited too long",
            self.shed.clone(),
        );
        registry.register(
            "narthex_series_clients_stalled",
            "Series calls that were ended because their client read nothing for too long",
            self.stalled.clone(),
        );
        registry.register(
            "narthex_series_clients_lagged",
            "Series calls that were ended because their client read too slowly",
            self.lagged.clone(),
        );
        registry.register(
            "narthex_prometheus_unsorted_responses",
            "Responses of Prometheus whose series were out of order, so that they were requested again, or failed",
            self.disorder.clone(),
        );
        registry.register(
            "narthex_series_sent",
            "Series sent to clients; each part of a split series counts",
            self.sent_series.clone(),
        );
        registry.register(
            "narthex_series_sent_bytes",
            "Bytes of series sent to clients, before compression",
            self.sent_bytes.clone(),
        );
    }
}

/// Metrics of the queue before Prometheus, read at each scrape.
#[derive(Debug)]
struct Queue(Gate);

/// Registers what there is to see of the queue before Prometheus.
pub fn register_gate(gate: &Gate, registry: &mut Registry) {
    registry.register_collector(Box::new(Queue(gate.clone())));
}

impl Collector for Queue {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Self(gate) = self;
        let oldest = gate.oldest().unwrap_or_default();
        for (name, help, value) in [
            (
                "narthex_remote_reads_waiting",
                "Series calls that wait for a remote-read slot",
                gate.waiting() as f64,
            ),
            (
                "narthex_remote_reads_running",
                "Remote reads in progress, and for a moment those that were dropped before their end",
                gate.in_flight() as f64,
            ),
            (
                "narthex_oldest_remote_read_seconds",
                "Age of the oldest remote read in progress; 0 if there is none",
                oldest.as_secs_f64(),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
