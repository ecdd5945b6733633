//! From which time on queries are answered: `--min-time`.
//!
//! It is looked up once for each call ([`Context::view`](super::Context::view)), so that it does not move while one runs.
//! With `auto` the shipper tells it. What it told counts until the moment that it named, and from then on everything is
//! served, also when the shipper hangs or has ended.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
    registry::Registry,
};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::{sync::watch, time::Instant};

use crate::{
    model::{ServedFrom, duration::TimeOrDuration},
    prometheus::heartbeat::Snapshot,
};

/// The year 0 (ms since 1970), which is the default of `--min-time`: everything is served.
const EVERYTHING: i64 = -62_167_219_200_000;

/// From which time on queries are answered.
#[derive(Clone, Debug)]
pub enum MinTime {
    /// A time, or one that moves with the clock.
    Fixed(TimeOrDuration),
    /// What the bucket does not prove to have, by the last proof.
    Auto(watch::Receiver<Option<ServedFrom>>),
}

impl MinTime {
    /// Everything is served.
    pub const EVERYTHING: Self = Self::Fixed(TimeOrDuration::At(EVERYTHING));

    /// The oldest time that is let through now, in ms since 1970.
    pub fn limit_ms(&self) -> i64 {
        match self {
            Self::Fixed(time) => time.resolve(now_ms()),
            Self::Auto(proven) => {
                let proven = *proven.borrow();
                let from = proven.and_then(|proven| proven.at(Instant::now()));
                from.map_or(EVERYTHING, |from| from.max(EVERYTHING))
            }
        }
    }

    /// Registers the metric that shows it.
    pub fn register(&self, snapshots: &watch::Receiver<Snapshot>, registry: &mut Registry) {
        registry.register_collector(Box::new(Gauge {
            min_time: self.clone(),
            snapshots: snapshots.clone(),
        }));
    }
}

/// Shows from which time on queries are answered, computed when it is asked for.
#[derive(Debug)]
struct Gauge {
    min_time: MinTime,
    snapshots: watch::Receiver<Snapshot>,
}

impl Collector for Gauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let from = self.min_time.limit_ms().max(self.snapshots.borrow().lowest_time_ms);
        let gauge = ConstGauge::new(from as f64 / 1000.0);
        let help = "From which time on queries are answered: what --min-time lets through, and Prometheus has";
        let name = "narthex_store_min_time_seconds";
        let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(encoder)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_proven_counts_until_it_ends_and_then_everything_is_served() {
        let (sender, receiver) = watch::channel(None);
        let min_time = MinTime::Auto(receiver);
        assert_eq!(min_time.limit_ms(), -62_167_219_200_000);
        let prove = |time_ms| {
            sender.send_replace(Some(ServedFrom {
                time_ms,
                known_until: Instant::now() + Duration::from_secs(10),
            }));
        };
        prove(1_700_000_000_000);
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(min_time.limit_ms(), 1_700_000_000_000);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(min_time.limit_ms(), -62_167_219_200_000, "nobody has proven it again");
        prove(i64::MIN);
        assert_eq!(min_time.limit_ms(), -62_167_219_200_000, "no time is before that one");
        prove(7);
        drop(sender);
        assert_eq!(min_time.limit_ms(), 7, "it counts for as long as was said");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(min_time.limit_ms(), -62_167_219_200_000);
    }
}
