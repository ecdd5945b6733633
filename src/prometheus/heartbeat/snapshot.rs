//! What is known of Prometheus after each heartbeat, computed from what the heartbeat read; pure.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    model::{Labels, Retention},
    prometheus::{
        Configuration, StorageSettings,
        checks::{self, Finding, Severity},
        client::Storage,
        error::Error,
        retention,
    },
};

/// Pause between two tries while Prometheus does not answer.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// For how long a failed reload means that Prometheus may take blocks back: it tries again each minute.
pub(super) const RELOADS_FAIL: Duration = Duration::from_secs(180);

/// Longest pause between two heartbeats meanwhile.
pub(super) const SHORT_INTERVAL: Duration = Duration::from_secs(5);

/// How the heartbeat works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two heartbeats.
    pub interval: Duration,
    /// Labels from our own flags; they are laid over Prometheus' own.
    pub extra_labels: Labels,
    /// What to hold Prometheus' flags against; `None`, when nothing is uploaded, checks nothing.
    pub validation: Option<Validation>,
}

/// What Prometheus' flags must fit, as [`checks::validate`] wants it.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The data directory, spelled as `--tsdb.path` has it.
    pub tsdb_path: PathBuf,
    /// The file name of the ledger in it.
    pub ledger_name: String,
    /// Unequal block durations are accepted.
    pub ignore_unequal: bool,
}

/// What one heartbeat read.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) configuration: Configuration,
    pub(super) version: String,
    /// `None` if Prometheus does not report them.
    pub(super) flags: Option<BTreeMap<String, String>>,
    pub(super) storage: Storage,
    /// The moment before `storage` was asked for; `None` if nothing is known of it.
    pub(super) storage_asked_at: Option<Instant>,
    /// Why nothing is known of its storage.
    pub(super) guarded: Option<Error>,
}

/// What is known of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Prometheus' external labels as last read, under those of our flags. Empty until `seen`, and when there are none.
    pub labels: Labels,
    /// Its version as last read; `0` if it does not report one, empty until it was asked.
    pub version: String,
    /// Its flags as last read; empty if it does not report them.
    pub flags: BTreeMap<String, String>,
    /// Settings of its storage as last read.
    pub settings: StorageSettings,
    /// The oldest time that it still holds, in ms since 1970 and cut to whole seconds; `i64::MIN` if it holds nothing, 0 if it
    /// does not report it.
    pub lowest_time_ms: i64,
    /// The oldest time that its head holds, in ms since 1970, as last read; `i64::MAX` if the head is empty, `None` if it
    /// does not report it. It empties its head up to the end of a block once it has reloaded its blocks with that one.
    pub head_min_time_ms: Option<i64>,
    /// The newest time that its head holds, in ms since 1970, as last read; `i64::MIN` if the head is empty, `None` if it does
    /// not report it.
    pub head_max_time_ms: Option<i64>,
    /// How many blocks it has loaded, as last read; `None` if it does not report it.
    pub blocks_loaded: Option<u64>,
    /// What the files of these blocks take (bytes), as last read; `None` if it does not report it. It sets this when it reloads
    /// its blocks.
    pub blocks_bytes: Option<u64>,
    /// The moment before the request whose answer told what is said here of times, blocks and reloads; `None` if no answer
    /// could be read. What was true of the disk before that moment and still is was so when Prometheus answered.
    pub storage_asked_at: Option<Instant>,
    /// How often it could not reload its blocks since it was started, as last read; `None` until it reports it.
    pub reload_failures: Option<u64>,
    /// When `reload_failures` was last seen to have grown.
    pub reload_failed_at: Option<Instant>,
    /// It answered the last heartbeat.
    pub up: bool,
    /// Why we are not ready, in words for logs and probes; `None` when we are.
    pub problem: Option<String>,
    /// It was asked at least once, whatever came of it.
    pub asked: bool,
    /// Its configuration was read at least once, so that `labels` are its own.
    pub seen: bool,
    /// At the last try nothing listened at its address.
    pub gone: bool,
}

impl Snapshot {
    /// What is known before the first heartbeat.
    pub(crate) fn unknown(url: &str) -> Self {
        Self {
            labels: Labels::default(),
            version: String::new(),
            flags: BTreeMap::new(),
            settings: StorageSettings::default(),
            lowest_time_ms: 0,
            head_min_time_ms: None,
            head_max_time_ms: None,
            blocks_loaded: None,
            blocks_bytes: None,
            storage_asked_at: None,
            reload_failures: None,
            reload_failed_at: None,
            up: false,
            problem: Some(format!("Prometheus at {url} has not answered yet")),
            asked: false,
            seen: false,
            gone: false,
        }
    }

    /// Whether this is of another Prometheus or another process than `old`, by what it says of itself.
    pub fn is_of_another(&self, old: &Snapshot) -> bool {
        old.version != self.version
            || old.flags != self.flags
            || matches!((old.reload_failures, self.reload_failures), (Some(before), Some(now)) if now < before)
    }

    /// Whether Prometheus waits for the ledger before it compacts blocks, as far as its flags show.
    pub fn delays_compaction(&self) -> bool {
        checks::delays_compaction(&self.flags)
    }

    /// Whether Prometheus is told to write chunks that Thanos' readers refuse, as far as its flags and settings show.
    pub fn writes_newer_encodings(&self) -> bool {
        !checks::newer_encoding_settings(&self.flags, &self.settings).is_empty()
    }

    /// The oldest time that it still holds (ms since 1970), if it holds anything and reports it.
    pub fn known_lowest_time_ms(&self) -> Option<i64> {
        Some(self.lowest_time_ms).filter(|time| !matches!(*time, 0 | i64::MIN | i64::MAX))
    }

    /// How long Prometheus keeps its blocks, as far as its flags and settings show.
    pub fn retention(&self) -> Option<Retention> {
        retention::retention(&self.flags, &self.settings)
    }

    /// Whether Prometheus runs in agent mode, as far as its flags show: it then stores nothing that could be queried.
    pub fn is_agent(&self) -> bool {
        checks::is_agent(&self.flags)
    }
}

/// The snapshot after a heartbeat that was answered.
pub(super) fn answered(old: &Snapshot, reading: Observation, findings: &[Finding], settings: &Settings) -> Snapshot {
    let storage = reading.storage;
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    Snapshot {
        labels: reading.configuration.labels.overlaid_with(&settings.extra_labels),
        version: reading.version,
        flags: reading.flags.unwrap_or_default(),
        settings: reading.configuration.storage,
        lowest_time_ms: storage.lowest_time_ms,
        head_min_time_ms: storage.head_min_time_ms,
        head_max_time_ms: storage.head_max_time_ms,
        blocks_loaded: storage.blocks_loaded,
        blocks_bytes: storage.blocks_bytes,
        storage_asked_at: reading.storage_asked_at,
        // A page without it leaves the value that the next one is compared with.
        reload_failures: storage.reload_failures.or(old.reload_failures),
        reload_failed_at: reload_failed_at(old, storage.reload_failures),
        up: true,
        problem: (!errors.is_empty()).then(|| errors.join("; ")),
        asked: true,
        seen: true,
        gone: false,
    }
}

/// The snapshot after a heartbeat that failed: what was known stays known.
pub(super) fn failed(old: &Snapshot, error: &Error) -> Snapshot {
    Snapshot {
        up: false,
        problem: Some(error.to_string()),
        asked: true,
        gone: error.is_refused(),
        ..old.clone()
    }
}

/// Whether this may be another Prometheus, or another process of it, than the one before, as far as it can be seen.
pub(super) fn is_another(old: &Snapshot, new: &Snapshot) -> bool {
    !old.up || new.is_of_another(old)
}

/// How long to rest after a heartbeat.
pub(super) fn pause(snapshot: &Snapshot, interval: Duration) -> Duration {
    match snapshot {
        Snapshot { up: false, .. } => RETRY.min(interval),
        _ if reloads_fail(snapshot) => SHORT_INTERVAL.min(interval),
        _ => interval,
    }
}

/// Whether a reload of Prometheus' blocks has failed lately.
pub(super) fn reloads_fail(snapshot: &Snapshot) -> bool {
    snapshot.reload_failed_at.is_some_and(|at| at.elapsed() < RELOADS_FAIL)
}

/// When the counter of failed reloads was last seen to have grown, now that it has been read again.
fn reload_failed_at(old: &Snapshot, now: Option<u64>) -> Option<Instant> {
    let grown = match (old.reload_failures, now) {
        (Some(before), Some(now)) if now < before => now > 0,
        (Some(before), Some(now)) => now > before,
        _ => false,
    };
    if grown {
        Some(Instant::now())
    } else {
        old.reload_failed_at
    }
}

/// Logs what an operator should hear of.
pub(super) fn log_change(old: &Snapshot, new: &Snapshot, url: &str) {
    if old.problem == new.problem {
        return;
    }
    match &new.problem {
        Some(problem) if new.up => tracing::error!(prometheus = url, "not ready: {problem}"),
        Some(problem) => tracing::warn!(prometheus = url, "not ready: {problem}"),
        None => tracing::info!(prometheus = url, version = new.version, labels = %new.labels, "Prometheus is up"),
    }
}
