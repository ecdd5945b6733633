//! The shipper's metrics: Thanos' `thanos_shipper_*`, and ours, from which an operator sees what is durable.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::tsdb::{BlockId, RewrittenFrom, content::Kind};

/// Seconds from the rename that seals a block to its commit; no commit comes before 5 s.
const SEAL_TO_DURABLE: [f64; 13] = [
    5.0, 5.5, 6.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0,
];

/// The shipper's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) dir_syncs: Counter,
    pub(crate) dir_sync_failures: Counter,
    pub(crate) uploads: Counter,
    pub(crate) upload_failures: Counter,
    pub(crate) corrupted_blocks: Counter,
    pub(crate) upload_compacted_done: Gauge,
    pub(crate) seal_to_durable: Histogram,
    pub(crate) durable_until: Gauge<f64, AtomicU64>,
    pub(crate) unuploaded: Gauge,
    quarantined: ByReason,
    waiting: ByReason,
    compaction_blocked: ByBlock,
    deletion: ByBlock,
    pub(crate) near_deletion: Gauge,
    held_bytes: Gauge,
    rewritten_chunks: Counter,
    dropped_starts: Counter,
    content: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) vanished: Counter,
    pub(crate) other_writers: Counter,
    withdrawn: Counter,
    pub(crate) ledger_failures: Counter,
    pub(crate) oldest: OldestUnuploaded,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            dir_syncs: Counter::default(),
            dir_sync_failures: Counter::default(),
            uploads: Counter::default(),
            upload_failures: Counter::default(),
            corrupted_blocks: Counter::default(),
            upload_compacted_done: Gauge::default(),
            seal_to_durable: Histogram::new(SEAL_TO_DURABLE),
            durable_until: Gauge::default(),
            unuploaded: Gauge::default(),
            quarantined: ByReason::default(),
            waiting: ByReason::default(),
            compaction_blocked: ByBlock::new("reason"),
            deletion: ByBlock::new("limit"),
            near_deletion: Gauge::default(),
            held_bytes: Gauge::default(),
            rewritten_chunks: Counter::default(),
            dropped_starts: Counter::default(),
            content: Family::default(),
            vanished: Counter::default(),
            other_writers: Counter::default(),
            withdrawn: Counter::default(),
            ledger_failures: Counter::default(),
            oldest: OldestUnuploaded::default(),
        };
        for kind in Kind::ALL {
            drop(metrics.content.get_or_create(&[("kind", kind.as_str())]));
        }
        metrics.register_thanos(registry);
        metrics.register_ours(registry);
        metrics
    }

    /// Sets how many blocks are quarantined, by reason; a reason that is not named has none.
    pub fn set_quarantined(&self, counts: BTreeMap<&'static str, i64>) {
        self.quarantined.set(counts);
    }

    /// Sets how many blocks whose data is in the bucket wait for their commit, by what holds it; a reason that is not named
    /// holds none.
    pub fn set_waiting(&self, counts: BTreeMap<&'static str, i64>) {
        self.waiting.set(counts);
    }

    /// Sets which blocks keep Prometheus from compacting, and why they are set aside; others do not.
    pub fn set_compaction_blocked(&self, blocks: Vec<(BlockId, &'static str)>) {
        let blocks = blocks.into_iter().map(|(block, reason)| (block, reason, 1.0));
        self.compaction_blocked.set(blocks.collect());
    }

    /// Sets which blocks that are not durable retention deletes, by which limit, and when (seconds since 1970).
    pub(super) fn set_deletions(&self, blocks: Vec<OfBlock>) {
        self.deletion.set(blocks);
    }

    /// Sets what is held of deleted blocks, in bytes.
    pub fn set_held_bytes(&self, bytes: u64) {
        self.held_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts what was rewritten of a block that is durable now.
    pub fn count_rewritten(&self, from: Option<&RewrittenFrom>) {
        if let Some(from) = from {
            self.rewritten_chunks.inc_by(from.chunks.values().sum());
            self.dropped_starts.inc_by(from.start_timestamps_dropped);
        }
    }

    /// Counts a block of this kind of content.
    pub fn count_content(&self, kind: Kind) {
        self.content.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// Counts a block that Prometheus withdrew: it is neither shipped nor lost, since Prometheus writes its samples again.
    pub fn count_withdrawn(&self) {
        self.withdrawn.inc();
    }

    #[cfg(test)]
    pub(super) fn content(&self, kind: Kind) -> u64 {
        self.content.get_or_create(&[("kind", kind.as_str())]).get()
    }

    #[cfg(test)]
    pub(super) fn rewritten_chunks(&self) -> u64 {
        self.rewritten_chunks.get()
    }

    #[cfg(test)]
    pub(super) fn withdrawn(&self) -> u64 {
        self.withdrawn.get()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> BTreeMap<&'static str, i64> {
        self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn register_thanos(&self, registry: &mut Registry) {
        let thanos = registry.sub_registry_with_prefix("thanos_shipper");
        thanos.register(
            "dir_syncs",
            "Passes over the data directory that were completed",
            self.dir_syncs.clone(),
        );
        thanos.register(
            "dir_sync_failures",
            "Passes over the data directory that were cut short by a failure",
            self.dir_sync_failures.clone(),
        );
        thanos.register("uploads", "Blocks made durable in the bucket", self.uploads.clone());
        thanos.register(
            "upload_failures",
            "Tries to ship a block that failed",
            self.upload_failures.clone(),
        );
        thanos.register(
            "corrupted_blocks",
            "Broken blocks met, counted once for each time they are checked",
            self.corrupted_blocks.clone(),
        );
        thanos.register(
            "upload_compacted_done",
            "1 if a clean pass shipped compacted blocks too, 0 if it was not asked to",
            self.upload_compacted_done.clone(),
        );
    }

    fn register_ours(&self, registry: &mut Registry) {
        let ours = registry.sub_registry_with_prefix("narthex");
        ours.register(
            "seal_to_durable_seconds",
            "Seconds from the rename that seals a block to its commit in the bucket",
            self.seal_to_durable.clone(),
        );
        ours.register(
            "durable_until_timestamp_seconds",
            "All samples of local blocks before this time are durable in the bucket; 0 while nothing is known to be; does not rise while a block cannot be read",
            self.durable_until.clone(),
        );
        ours.register(
            "unuploaded_blocks",
            "Local blocks whose samples are not all durable in the bucket, compacted ones included",
            self.unuploaded.clone(),
        );
        ours.register(
            "quarantined_blocks",
            "Local blocks that are left out, by reason: broken, or in conflict with what the bucket has; the log names them",
            self.quarantined.clone(),
        );
        ours.register(
            "blocks_waiting",
            "Blocks whose data is in the bucket and whose commit waits, by reason",
            self.waiting.clone(),
        );
        ours.register(
            "compaction_blocked",
            "1 for each local block that is set aside and beyond which Prometheus compacts none of its blocks, with the reason; the first 20",
            self.compaction_blocked.clone(),
        );
        ours.register(
            "unuploaded_block_deletion_timestamp_seconds",
            "When Prometheus' retention deletes a local block that is not durable in the bucket, and by which limit; the first 20",
            self.deletion.clone(),
        );
        ours.register(
            "unuploaded_blocks_near_deletion",
            "Local blocks that are not durable in the bucket, and of whose time on the disk less than a quarter is left before retention deletes them",
            self.near_deletion.clone(),
        );
        ours.register(
            "held_bytes",
            "What blocks take that were deleted before they were durable, and are held open until they are shipped",
            self.held_bytes.clone(),
        );
        ours.register(
            "shipped_block_content",
            "Blocks that were checked and sent, by kind of content; a block of several kinds counts for each",
            self.content.clone(),
        );
        ours.register(
            "rewritten_chunks",
            "Chunks in encodings that today's readers refuse, which were rewritten on their way to the bucket",
            self.rewritten_chunks.clone(),
        );
        ours.register(
            "dropped_start_timestamps",
            "Samples whose start timestamp was dropped when their chunks were rewritten",
            self.dropped_starts.clone(),
        );
        ours.register(
            "other_writer_blocks",
            "Blocks in the bucket that have the labels and times of local ones and were not made here, as far as metas were read",
            self.other_writers.clone(),
        );
        ours.register(
            "vanished_blocks",
            "Blocks that were deleted locally before they were durable",
            self.vanished.clone(),
        );
        ours.register(
            "withdrawn_blocks",
            "Blocks that Prometheus deleted soon after it had sealed them, because its reload failed; it writes their samples again",
            self.withdrawn.clone(),
        );
        ours.register(
            "ledger_write_failures",
            "Writes of the ledger that failed",
            self.ledger_failures.clone(),
        );
        registry.register_collector(Box::new(self.oldest.clone()));
    }
}

/// A gauge for each reason, short and stable. All are replaced at once, so that a scrape never sees some of them.
#[derive(Clone, Debug, Default)]
struct ByReason(Arc<Mutex<BTreeMap<&'static str, i64>>>);

impl ByReason {
    fn set(&self, counts: BTreeMap<&'static str, i64>) {
        // Nothing can panic while it is held, and a map is whole whenever it is not.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

impl EncodeMetric for ByReason {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (reason, count) in counts {
            let labels = [("reason", reason)];
            ConstGauge::new(count).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// A block, the value of one label more, and a number.
type OfBlock = (BlockId, &'static str, f64);

/// A gauge for each of some blocks, with one label more. All are replaced at once.
#[derive(Clone, Debug)]
struct ByBlock {
    label: &'static str,
    blocks: Arc<Mutex<Vec<OfBlock>>>,
}

impl ByBlock {
    fn new(label: &'static str) -> Self {
        Self {
            label,
            blocks: Arc::default(),
        }
    }

    fn set(&self, blocks: Vec<OfBlock>) {
        *self.blocks.lock().unwrap_or_else(PoisonError::into_inner) = blocks;
    }
}

impl EncodeMetric for ByBlock {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (block, value, number) in blocks {
            let labels = [("block", block.to_string()), (self.label, value.to_owned())];
            ConstGauge::new(number).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// The age of the oldest block that is not durable, computed when it is asked for: it must not stand still while a pass
/// hangs.
#[derive(Clone, Debug, Default)]
pub(crate) struct OldestUnuploaded(Arc<AtomicI64>);

impl OldestUnuploaded {
    /// Sets when the oldest block was made (ms since 1970), or that there is none.
    pub(crate) fn set(&self, created_ms: Option<i64>) {
        self.0.store(created_ms.unwrap_or(0), Ordering::Relaxed);
    }

    fn age_seconds(&self, now: SystemTime) -> f64 {
        let created = self.0.load(Ordering::Relaxed);
        if created == 0 {
            return 0.0;
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        (i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(created)).max(0) as f64 / 1000.0
    }
}

impl Collector for OldestUnuploaded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(self.age_seconds(SystemTime::now()));
        let help = "Age of the oldest local block that is not yet durable in the bucket; 0 if there is none";
        let encoder = encoder.encode_descriptor(
            "narthex_oldest_unuploaded_block_age_seconds",
            help,
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread, time::Duration};

    use prometheus_client::encoding::text::encode;

    use super::*;

    fn scrape(registry: &Registry, name: &str) -> Vec<String> {
        let mut page = String::new();
        encode(&mut page, registry).unwrap();
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_scrape_sees_every_reason_or_none_while_they_are_replaced() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let counts = BTreeMap::from([("index", 1), ("meta", 2)]);
        metrics.set_quarantined(counts.clone());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    metrics.set_quarantined(counts.clone());
                }
            });
            for _ in 0..10_000 {
                let seen = scrape(&registry, "narthex_quarantined_blocks{");
                let whole = [
                    "narthex_quarantined_blocks{reason=\"index\"} 1",
                    "narthex_quarantined_blocks{reason=\"meta\"} 2",
                ];
                if seen != whole {
                    done.store(true, Ordering::Relaxed);
                }
                assert_eq!(seen, whole);
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn what_commits_wait_for_is_shown_by_reason_and_what_was_withdrawn_is_counted() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.set_waiting(BTreeMap::from([("settling", 2)]));
        metrics.count_withdrawn();
        let waiting = || scrape(&registry, "narthex_blocks_waiting{");
        assert_eq!(waiting(), ["narthex_blocks_waiting{reason=\"settling\"} 2"]);
        assert_eq!(
            scrape(&registry, "narthex_withdrawn_blocks_total"),
            ["narthex_withdrawn_blocks_total 1"]
        );
        metrics.set_waiting(BTreeMap::new());
        assert!(waiting().is_empty());
    }

    #[test]
    fn the_age_grows_with_the_clock_and_is_zero_without_a_block() {
        let oldest = OldestUnuploaded::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(oldest.age_seconds(now), 0.0);
        oldest.set(Some(990_500));
        assert_eq!(oldest.age_seconds(now), 9.5);
        assert_eq!(oldest.age_seconds(UNIX_EPOCH), 0.0);
        oldest.set(None);
        assert_eq!(oldest.age_seconds(now), 0.0);
    }
}
