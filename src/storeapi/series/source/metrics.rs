//! Where series come from, and why Prometheus was asked, in numbers.

use std::{collections::BTreeSet, sync::Arc};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::size;
use crate::{model::ReadSeries, sealed::Reason};

/// Where series come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Prometheus.
    Prometheus,
    /// Sealed blocks on disk.
    Blocks,
    /// Both.
    Both,
}

/// The metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    prometheus: Read,
    blocks: Read,
    calls: [Counter; Origin::ALL.len()],
    asked: Arc<Family<Why, Counter>>,
}

/// What was read from one of them.
#[derive(Clone, Debug, Default)]
struct Read {
    series: Counter,
    bytes: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Prometheus, Self::Blocks, Self::Both];

    /// Its name as the label of a metric and in spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Blocks => "disk",
            Self::Both => "both",
        }
    }
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let (series, bytes, calls) = (
            Family::default(),
            Family::default(),
            Family::<Source, Counter>::default(),
        );
        let counter = |family: &Family<Source, Counter>, origin: Origin| {
            let source = origin.as_str();
            family.get_or_create_owned(&Source { source })
        };
        let read = |origin| Read {
            series: counter(&series, origin),
            bytes: counter(&bytes, origin),
        };
        let metrics = Self {
            prometheus: read(Origin::Prometheus),
            blocks: read(Origin::Blocks),
            calls: Origin::ALL.map(|origin| counter(&calls, origin)),
            asked: Arc::default(),
        };
        for reason in Reason::ALL {
            let reason = reason.as_str();
            let _ = metrics.asked.get_or_create(&Why { reason });
        }
        registry.register(
            "narthex_series_read",
            "Series read for Series calls, by source; each part of a split series counts",
            series,
        );
        registry.register(
            "narthex_series_read_bytes",
            "Bytes of labels and chunks read for Series calls, by source",
            bytes,
        );
        registry.register(
            "narthex_series_calls",
            "Series calls by where their series come from",
            calls,
        );
        registry.register(
            "narthex_series_calls_to_prometheus",
            "Series calls for which Prometheus was asked while sealed blocks are read from disk, once for each reason",
            Family::clone(&metrics.asked),
        );
        metrics
    }

    /// Series were read.
    pub fn read(&self, origin: Origin, series: &[ReadSeries]) {
        let read = match origin {
            Origin::Blocks => &self.blocks,
            Origin::Prometheus | Origin::Both => &self.prometheus,
        };
        let bytes: usize = series.iter().map(size).sum();
        read.series.inc_by(series.len() as u64);
        read.bytes.inc_by(bytes as u64);
    }

    /// A call gets its series from there.
    pub fn called(&self, origin: Origin) {
        self.calls[origin as usize].inc();
    }

    /// Prometheus is asked for these reasons.
    pub fn asked(&self, reasons: &BTreeSet<Reason>) {
        for reason in reasons {
            let reason = reason.as_str();
            self.asked.get_or_create(&Why { reason }).inc();
        }
    }
}
