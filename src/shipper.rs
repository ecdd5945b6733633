//! How a block reaches the bucket, and the ledger of those that arrived.
//!
//! **Guarantees.** If `<ULID>/meta.json` is in the bucket, every file that it lists is there, whole: each object's size
//! and checksum was acknowledged by the store and its size listed again before `meta.json` was sent. A block enters the
//! ledger only after that. Commits happen oldest first (by `minTime`), unless the operator allows otherwise. Nothing of
//! Prometheus is modified or linked; blocks are read through open descriptors, which survive deletion. Nothing in the
//! bucket is deleted.
//!
//! **Crash.** Nothing but the ledger is kept on disk. Whatever was sent of an uncommitted block is invisible to readers
//! without its `meta.json`, and is sent again. A block that was committed but not recorded is found in the bucket.
//!
//! **Retry.** A failed pass is tried again with backoff and full jitter; objects that were acknowledged in this process'
//! life, and are still listed with their size, are not sent twice. A broken block is quarantined, and the others go on.
//!
//! **Cancel.** When told to stop, the shipper goes on until everything sealed is durable and Prometheus is gone, or the
//! grace period is over; then what runs is dropped, open multipart uploads are aborted, and what is not durable is logged.

mod block_events;
mod bucket_lookup;
mod commit;
mod compaction;
mod content;
mod drain;
mod due_block;
mod durability;
mod durability_metrics;
mod failure;
mod gate;
mod heartbeat;
mod held;
mod ledger;
mod metrics;
mod min_time;
#[cfg(test)]
mod model_test;
mod other_writers;
mod out_of_order;
mod overview;
mod pass;
mod pipeline;
mod plan;
mod prove;
mod quarantine;
mod quiet_period;
mod removed_blocks;
mod retention;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod under_way;
mod upload;
mod watcher;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::RandomState,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use commit::Committed;
pub use drain::DrainReport;
pub(crate) use drain::LINGER;
pub use heartbeat::Heartbeat;
pub(crate) use ledger::now_ms;
pub use ledger::{Found, Ledger, LocalBlock};
pub use metrics::Metrics;
pub use min_time::AutoMinTime;
pub use overview::{BlockOverview, BlockState, Overview, Overviews};
pub use plan::{Decision, Facts, Policy, QUIET, Skip, Verdict, Wait, plan};
pub use under_way::{UnderWay, Upload};
pub(crate) use upload::{
    BlockFiles, CheckedFiles, Error as UploadError, FileStamp, UploadOutcome, UploadRequest, Uploader, rewritten_files,
    stamps,
};
pub use upload::{ContentPolicy, NewerEncodings, Overlapping};

use crate::{
    lineage::Lineage,
    model::{Labels, Retention},
    objstore::{Backoff, Bucket},
    tsdb::{BlockId, Scanner},
};

/// What the shipper is to do; checked by whoever makes it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory of Prometheus (`--tsdb.path`).
    pub dir: PathBuf,
    /// The ledger's name in it (`--shipper.meta-file-name`).
    pub ledger_name: String,
    /// Which blocks are shipped, and whether in order.
    pub policy: Policy,
    /// What happens with blocks by their content.
    pub content: ContentPolicy,
    /// Whether a SHA-256 of each file goes into `meta.json` (`--hash-func`).
    pub sha256: bool,
    /// What `meta.json` names as the source, `sidecar` for the sidecar.
    pub source: String,
    /// The time between two scans when nothing hints at a new block.
    pub scan_interval: Duration,
    /// The most by which sending a block that was just sealed is put off, by chance; zero: it is sent at once.
    pub jitter: Duration,
    /// After which time a broken block is looked at again.
    pub look_again: Duration,
    /// How many bytes of blocks that Prometheus has deleted are held until they are shipped; 0 holds none.
    pub hold_unshipped: u64,
    /// How fresh news of Prometheus are requested; `None` if nobody can be asked.
    pub heartbeat: Option<Heartbeat>,
    /// Who wants to know from which time on queries have to be answered; `None` if that is fixed.
    pub min_time: Option<AutoMinTime>,
    /// Where is shown what is known of the blocks.
    pub overviews: Overviews,
}

/// Whether Prometheus may still seal a block; asked for only when the shipper is told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// It answers, as far as we know.
    #[default]
    Up,
    /// It answers that it is not ready: it is stopping, or starting.
    Stopping,
    /// Nobody listens any more.
    Gone,
}

/// What the shipper must know of Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrometheusStatus {
    /// The external labels, once they are known; an empty set is known, too, and nothing can be shipped under it.
    pub labels: Option<Labels>,
    /// Whether it still runs.
    pub liveness: Liveness,
    /// When its counter of failed reloads was last seen to grow: while it does, it takes blocks back that it has sealed.
    pub reload_failed_at: Option<tokio::time::Instant>,
    /// The oldest time that its head holds, in ms since 1970, as last read; `None` if it does not tell. It empties its
    /// head up to the end of a block of it once it keeps that block.
    pub head_min_time_ms: Option<i64>,
    /// How much older than the newest sample one may be that is still taken (ms): `out_of_order_time_window` of its
    /// configuration; `None` until that was read.
    pub out_of_order_window_ms: Option<i64>,
    /// It waits for the ledger before it compacts blocks of level 1 (`--storage.tsdb.delay-compact-file.path`).
    pub delays_compaction: bool,
    /// How long it keeps blocks; `None` until that was read, or where it cannot be made out.
    pub retention: Option<Retention>,
    /// It was told, at some time in this run, to write chunks that Thanos' readers refuse.
    pub newer_encodings: bool,
}

/// The shipper of one data directory.
#[derive(Debug)]
pub struct Shipper {
    settings: Settings,
    uploader: Arc<upload::Uploader>,
    prometheus: watch::Receiver<PrometheusStatus>,
    metrics: Metrics,
    ledger: Ledger,
    scanner: Scanner,
    watcher: watcher::Watcher,
    hints: mpsc::Receiver<watcher::Hint>,
    /// When blocks were seen to be sealed and to be removed. One that was sealed is new to the bucket, and whole.
    events: block_events::BlockEvents,
    /// The blocks that the last scan has shown.
    scanned: HashSet<BlockId>,
    /// When the last scan began (ms since 1970).
    scan_began_ms: i64,
    /// Something came or went since the last scan began.
    has_news: bool,
    /// A block was sealed that the last scan has not shown.
    sealed_since: bool,
    quiet_periods: quiet_period::QuietPeriods,
    quarantine: quarantine::Quarantine,
    /// What commits wait for.
    at_gate: BTreeMap<BlockId, gate::WaitReason>,
    /// What the bucket's blocks say of themselves, as far as it was read.
    lineage: Lineage,
    /// Why the ledger could not be written, as it was logged.
    ledger_failure: Option<String>,
    /// The newest block of the ledger was looked for in the bucket.
    ledger_checked: bool,
    /// When the sources of compacted blocks were last looked up in the bucket.
    sources_looked_up_at: Option<Instant>,
    backoff: Backoff,
    /// Of this process alone, so that no two of a fleet choose the same.
    jitter_seed: RandomState,
    /// What is not durable, as of the last pass.
    pending: BTreeMap<BlockId, Pending>,
    /// The blocks that keep Prometheus from compacting, as they were reported.
    compaction_blocked: Vec<compaction::Blocking>,
    /// Blocks that wait, open in case Prometheus deletes them.
    held: held::Held,
    /// Blocks in the bucket that others made under our labels, as they were reported.
    other_writers: BTreeSet<BlockId>,
    /// When retention deletes what is not durable.
    retention: retention::Forecast,
    /// What was seen of local blocks, to be shown.
    seen: overview::Seen,
    /// What is known of durability beside the ledger.
    durability: durability::Durability,
    /// Finds out from which time on queries have to be answered, if somebody wants to know.
    out_of_order: out_of_order::OutOfOrderWindow,
    min_time: Option<min_time::MinTime>,
    /// How many blocks are uploaded at the same time.
    blocks_at_once: usize,
    /// What failed last, so that it is logged once, and once more at the end.
    last_failure: Option<failure::Failure>,
}

/// A block that is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    why: String,
    /// It is being copied in, or broken, and was never whole as far as was seen.
    is_no_block: bool,
}

impl Shipper {
    /// Opens the ledger in `settings.dir` and writes it if it is missing or of no use: Prometheus must find one before
    /// it plans its first compaction. Failures are logged and counted, and tried again in every pass.
    pub fn new(
        settings: Settings,
        bucket: Arc<dyn Bucket>,
        prometheus: watch::Receiver<PrometheusStatus>,
        metrics: Metrics,
    ) -> Self {
        let (ledger, found) = Ledger::open(settings.dir.join(&settings.ledger_name), bucket.identity(), None);
        ledger::log_found(ledger.path(), &found);
        let (watcher, hints) = watcher::Watcher::new(&settings.dir);
        let uploader = upload::Uploader::new(bucket, settings.sha256, settings.content);
        let uploader = uploader.listing(settings.overviews.under_way().clone());
        let out_of_order = out_of_order::OutOfOrderWindow::new(ledger.out_of_order_window);
        let mut shipper = Self {
            uploader: Arc::new(uploader),
            scanner: Scanner::default(),
            prometheus,
            metrics,
            ledger,
            watcher,
            hints,
            events: block_events::BlockEvents::default(),
            scanned: HashSet::new(),
            scan_began_ms: 0,
            has_news: false,
            sealed_since: false,
            quiet_periods: quiet_period::QuietPeriods::default(),
            quarantine: quarantine::Quarantine::new(settings.look_again),
            at_gate: BTreeMap::new(),
            lineage: Lineage::default(),
            ledger_failure: None,
            ledger_checked: false,
            sources_looked_up_at: None,
            backoff: Backoff::default(),
            jitter_seed: RandomState::new(),
            pending: BTreeMap::new(),
            compaction_blocked: Vec::new(),
            held: held::Held::new(settings.hold_unshipped),
            other_writers: BTreeSet::new(),
            retention: retention::Forecast::default(),
            seen: overview::Seen::default(),
            durability: durability::Durability::default(),
            out_of_order,
            min_time: settings.min_time.clone().map(min_time::MinTime::new),
            blocks_at_once: pipeline::BLOCKS_AT_ONCE,
            last_failure: None,
            settings,
        };
        shipper.save_ledger();
        shipper
    }

    /// Ships until `stop` is cancelled, and then for at most `grace` more; returns what is not durable.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) -> DrainReport {
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let in_time = tokio::select! {
            biased;
            () = self.ship(&stop) => true,
            () = deadline => false,
        };
        self.close(in_time).await
    }

    async fn ship(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let wait = self.pass_and_wait().await;
            if self.has_news {
                continue;
            }
            self.rest(stop, wait).await;
        }
        self.drain().await;
    }

    /// Waits between two passes: for so long, or until there are news.
    async fn rest(&mut self, stop: &CancellationToken, wait: Duration) {
        let end = Instant::now() + wait;
        if self.look_at_bucket(stop, wait).await {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(end) => {}
            hint = self.hints.recv() => self.record_hints(hint),
            () = changed(&mut self.prometheus) => {}
        }
    }

    /// One pass; how long to rest after it when nothing happens.
    async fn pass_and_wait(&mut self) -> Duration {
        match self.pass().await {
            pass::Outcome::Clean | pass::Outcome::Unlabelled => {
                self.backoff.reset();
                self.settings.scan_interval
            }
            pass::Outcome::Arriving(rest) | pass::Outcome::Waiting(rest) => {
                self.backoff.reset();
                rest.min(self.settings.scan_interval)
            }
            pass::Outcome::Failed => self.backoff.next(),
        }
    }

    /// Records `hint` and every other that is waiting.
    fn record_hints(&mut self, hint: Option<watcher::Hint>) {
        let mut hint = hint.or_else(|| self.hints.try_recv().ok());
        while let Some(seen) = hint {
            self.events.record(seen);
            self.has_news = true;
            self.sealed_since |= seen.change == watcher::Change::Sealed && !self.scanned.contains(&seen.id);
            hint = self.hints.try_recv().ok();
        }
    }

    fn save_ledger(&mut self) {
        let failed = self.ledger.save().err();
        let error = failed.as_ref().map(ToString::to_string);
        let is_new = error != std::mem::replace(&mut self.ledger_failure, error.clone());
        if error.is_none() && is_new {
            tracing::info!(ledger = %self.ledger.path().display(), "the ledger can be written again");
        }
        if let Some(error) = failed {
            self.metrics.ledger_failures.inc();
            if !is_new {
                return;
            }
            tracing::error!(
                ledger = %self.ledger.path().display(), %error,
                "cannot write the ledger; Prometheus may compact blocks that are not durable. Make the directory writable and check its space; retrying in every pass"
            );
        }
    }
}

/// Waits for news of Prometheus; for ever when nobody can send any more.
async fn changed(prometheus: &mut watch::Receiver<PrometheusStatus>) {
    if prometheus.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
