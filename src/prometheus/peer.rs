//! The heartbeat: asks Prometheus again and again and publishes what it is in a [`Snapshot`].
//!
//! **Cadence.** At once at the start, then each [`Settings::interval`] while Prometheus answers, and each 2 s (or each
//! interval, if that is shorter) while it does not, so that we are ready soon after it is. One failed heartbeat is not
//! believed: a second try follows within a second, and only when that fails too Prometheus counts as down. Whoever must
//! know sooner asks for a heartbeat ([`Peer::sooner`]); it begins within a second after the one before.
//!
//! **Reloads.** A Prometheus that fails to reload its blocks takes back the block that it has just sealed and seals the
//! same range again. Its counter of such failures is read with each heartbeat, and for three minutes after it was seen to
//! grow there is a heartbeat each 5 s. The first value that is seen tells nothing: it may be old. A value that is smaller
//! than the last one is that of a new process, so that all of it is new. (A new process that has failed exactly as often
//! as the old one, between two heartbeats, is not noticed.)
//!
//! **Trouble** ends nothing. While Prometheus is down the last labels, version and flags stay in the snapshot, marked by
//! `up: false`. Prometheus without external labels, or with flags that do not fit ([`super::checks`]), is a problem that
//! makes us not ready and is looked at again at each heartbeat, also after Prometheus was restarted with other flags.
//!
//! **Logs** tell changes: each new problem once, its end, new labels, new warnings.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    checks::{self, Finding, Severity},
    client::{Client, Storage},
    error::Error,
    stored_names::StoredNames,
};
use crate::model::Labels;

/// Pause between two tries while Prometheus does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Pause before a failed heartbeat is tried once more.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// Shortest time from the end of a heartbeat to the next one, however often somebody asks for one.
const SHORTEST: Duration = Duration::from_secs(1);

/// For how long a failed reload means that Prometheus may take blocks back: it tries again each minute.
const RELOADS_FAIL: Duration = Duration::from_secs(180);

/// Longest pause between two heartbeats meanwhile.
const CLOSELY: Duration = Duration::from_secs(5);

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

/// What is known of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Prometheus' external labels as last read, under those of our flags. Empty until `seen`, and when there are none.
    pub labels: Labels,
    /// Its version as last read; `0` if it does not tell, empty until it was asked.
    pub version: String,
    /// Its flags as last read; empty if it does not tell them.
    pub flags: BTreeMap<String, String>,
    /// The oldest time that it still holds, in ms since 1970; `i64::MIN` if it holds nothing, 0 if it does not tell.
    pub lowest_time_ms: i64,
    /// The oldest time that its head holds, in ms since 1970, as last read; `i64::MAX` if the head is empty, `None` if it
    /// does not tell. It empties its head up to the end of a block once it has reloaded its blocks with that one.
    pub head_min_time_ms: Option<i64>,
    /// How often it could not reload its blocks since it was started, as last read; `None` until it tells.
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
    fn unknown(url: &str) -> Self {
        Self {
            labels: Labels::default(),
            version: String::new(),
            flags: BTreeMap::new(),
            lowest_time_ms: 0,
            head_min_time_ms: None,
            reload_failures: None,
            reload_failed_at: None,
            up: false,
            problem: Some(format!("Prometheus at {url} was not asked yet")),
            asked: false,
            seen: false,
            gone: false,
        }
    }
}

/// The heartbeat of one Prometheus.
#[derive(Debug)]
pub struct Peer {
    client: Client,
    settings: Settings,
    metrics: Metrics,
    sender: watch::Sender<Snapshot>,
    answered: watch::Sender<Option<Instant>>,
    sooner: Arc<Notify>,
    stored_names: StoredNames,
    /// It was logged that reloads fail, and not yet that they have stopped to.
    reloads_fail: bool,
    /// The warnings about Prometheus' flags that were logged last.
    warned: Vec<String>,
}

#[derive(Debug)]
struct Metrics {
    up: Gauge,
    configuration_errors: Gauge,
    last_heartbeat: Gauge<f64, AtomicU64>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            up: Gauge::default(),
            configuration_errors: Gauge::default(),
            last_heartbeat: Gauge::default(),
        };
        registry.register(
            "thanos_sidecar_prometheus_up",
            "1 if Prometheus answers and its labels and flags fit, else 0; the log says why",
            metrics.up.clone(),
        );
        registry.register(
            "narthex_configuration_errors",
            "Mistakes in Prometheus' labels and flags that must be changed before blocks are safe; the log names them",
            metrics.configuration_errors.clone(),
        );
        registry.register(
            "narthex_prometheus_last_heartbeat_timestamp_seconds",
            "When Prometheus last answered a heartbeat; 0 if it never did",
            metrics.last_heartbeat.clone(),
        );
        metrics
    }
}

/// What one heartbeat read.
#[derive(Debug)]
struct Reading {
    labels: Labels,
    version: String,
    /// `None` if Prometheus does not tell them.
    flags: Option<BTreeMap<String, String>>,
    storage: Storage,
}

impl Peer {
    /// A heartbeat that does not beat yet.
    pub fn new(client: Client, settings: Settings, registry: &mut Registry) -> Self {
        let sender = watch::Sender::new(Snapshot::unknown(client.url()));
        let metrics = Metrics::register(registry);
        Self {
            client,
            settings,
            metrics,
            sender,
            answered: watch::Sender::new(None),
            sooner: Arc::default(),
            stored_names: StoredNames::default(),
            reloads_fail: false,
            warned: Vec::new(),
        }
    }

    /// Where the snapshots arrive; a new one only when something has changed. The last one stays readable after
    /// [`Peer::run`] has ended.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// When the last heartbeat that was answered began; changes with each of them, after its snapshot was published.
    pub fn answered(&self) -> watch::Receiver<Option<Instant>> {
        self.answered.subscribe()
    }

    /// Whoever notifies this one (`notify_one`) asks for a heartbeat that begins afterwards: at once, but no sooner than
    /// a second after the last one has ended.
    pub fn sooner(&self) -> Arc<Notify> {
        Arc::clone(&self.sooner)
    }

    /// Which labels Prometheus stores, of those that somebody asks it about.
    pub fn stored_names(&self) -> StoredNames {
        self.stored_names.clone()
    }

    /// Beats until `token` is cancelled; a request that is under way is dropped then.
    pub async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.beat_for_ever()).await;
    }

    async fn beat_for_ever(&mut self) {
        loop {
            let (began, result) = self.read_twice().await;
            let up = result.is_ok();
            self.take(result);
            if up {
                self.answered.send_replace(Some(began));
            }
            let pause = pause(&self.sender.borrow(), self.settings.interval);
            rest(&self.sooner, pause).await;
        }
    }

    /// Reads; if that fails though all was well, once more.
    /// Tells when the last try began, too.
    async fn read_twice(&self) -> (Instant, Result<Reading, Error>) {
        let began = Instant::now();
        match self.read().await {
            Err(error) if self.sender.borrow().up => {
                tracing::debug!(%error, "a heartbeat failed; it is tried once more");
            }
            result => return (began, result),
        }
        tokio::time::sleep(SECOND_TRY.min(self.settings.interval)).await;
        (Instant::now(), self.read().await)
    }

    async fn read(&self) -> Result<Reading, Error> {
        let flags = match self.client.flags().await {
            // Something else that speaks Prometheus' language may do without.
            Err(error) if self.settings.validation.is_none() && !error.is_refused() => {
                tracing::debug!(%error, "no flags, and none are needed");
                None
            }
            flags => flags?,
        };
        let version = self.client.build_version().await?;
        let storage = self.client.storage().await?;
        let labels = self.client.external_labels().await?;
        Ok(Reading {
            labels,
            version,
            flags,
            storage,
        })
    }

    /// Takes in the result of a heartbeat: metrics, logs, and the snapshot, if it has changed.
    fn take(&mut self, result: Result<Reading, Error>) {
        let old = self.sender.borrow().clone();
        let new = match result {
            Ok(reading) => {
                let findings = self.findings(&reading);
                self.metrics.last_heartbeat.set(now());
                let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
                self.metrics.configuration_errors.set(errors.count() as i64);
                self.warn(&findings);
                answered(&old, reading, &findings, &self.settings)
            }
            Err(error) => failed(&old, &error),
        };
        self.metrics.up.set(i64::from(new.problem.is_none()));
        log_change(&old, &new, self.client.url());
        self.log_reloads(&old, &new);
        self.sender.send_if_modified(|snapshot| {
            let changed = *snapshot != new;
            *snapshot = new;
            changed
        });
    }

    /// What is wrong with a Prometheus that answers.
    fn findings(&self, reading: &Reading) -> Vec<Finding> {
        let mut findings = match &self.settings.validation {
            Some(Validation {
                tsdb_path,
                ledger_name,
                ignore_unequal,
            }) => checks::validate(reading.flags.as_ref(), tsdb_path, ledger_name, *ignore_unequal),
            None => Vec::new(),
        };
        if reading.labels.is_empty() && self.settings.extra_labels.is_empty() {
            findings.push(Finding {
                severity: Severity::Error,
                text: "Prometheus has no external labels, so that its blocks could not be told from others: set \
                       global.external_labels in its configuration, or --label here"
                    .to_owned(),
            });
        }
        findings
    }

    /// Logs that reloads of Prometheus' blocks begin to fail, and that none has failed for a while.
    fn log_reloads(&mut self, old: &Snapshot, new: &Snapshot) {
        let fail = reloads_fail(new);
        if fail && !self.reloads_fail {
            let (before, now) = (old.reload_failures, new.reload_failures);
            tracing::warn!(
                prometheus = self.client.url(),
                failures = now.unwrap_or_default(),
                before = before.unwrap_or_default(),
                "Prometheus cannot reload its blocks, so that it takes back each block that it seals and seals it again; its own log says why (a block without a good index in its data directory, or no more maps, files or memory). Mend that: until then none of its blocks stays"
            );
        } else if self.reloads_fail && !fail {
            tracing::info!(
                prometheus = self.client.url(),
                "no reload of Prometheus' blocks has failed for {RELOADS_FAIL:?}"
            );
        }
        self.reloads_fail = fail;
    }

    /// Logs warnings that were not there the last time.
    fn warn(&mut self, findings: &[Finding]) {
        let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning);
        let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
        for text in warnings.iter().filter(|text| !self.warned.contains(text)) {
            tracing::warn!(prometheus = self.client.url(), "{text}");
        }
        self.warned = warnings;
    }
}

/// How long to rest after a heartbeat.
fn pause(snapshot: &Snapshot, interval: Duration) -> Duration {
    match snapshot {
        Snapshot { up: false, .. } => RETRY.min(interval),
        _ if reloads_fail(snapshot) => CLOSELY.min(interval),
        _ => interval,
    }
}

/// Whether a reload of Prometheus' blocks has failed lately.
fn reloads_fail(snapshot: &Snapshot) -> bool {
    snapshot.reload_failed_at.is_some_and(|at| at.elapsed() < RELOADS_FAIL)
}

/// Rests for `pause`, or until somebody asks for a heartbeat, but not for less than [`SHORTEST`] then.
async fn rest(sooner: &Notify, pause: Duration) {
    let least = SHORTEST.min(pause);
    tokio::time::sleep(least).await;
    tokio::select! {
        // First, so that one who has asked is not answered twice.
        biased;
        () = sooner.notified() => {}
        () = tokio::time::sleep(pause - least) => {}
    }
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

/// The snapshot after a heartbeat that was answered.
fn answered(old: &Snapshot, reading: Reading, findings: &[Finding], settings: &Settings) -> Snapshot {
    let storage = reading.storage;
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    Snapshot {
        labels: reading.labels.overlaid_with(&settings.extra_labels),
        version: reading.version,
        flags: reading.flags.unwrap_or_default(),
        lowest_time_ms: storage.lowest_time_ms,
        head_min_time_ms: storage.head_min_time_ms,
        // A page that does not tell once leaves what the next one is held against.
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
fn failed(old: &Snapshot, error: &Error) -> Snapshot {
    Snapshot {
        up: false,
        problem: Some(error.to_string()),
        asked: true,
        gone: error.is_refused(),
        ..old.clone()
    }
}

fn log_change(old: &Snapshot, new: &Snapshot, url: &str) {
    if old.seen && old.labels != new.labels {
        tracing::warn!(
            prometheus = url, old = %old.labels, new = %new.labels,
            "external labels have changed; blocks shipped from now on carry the new ones"
        );
    }
    if old.problem == new.problem {
        return;
    }
    match &new.problem {
        Some(problem) if new.up => tracing::error!(prometheus = url, "not ready: {problem}"),
        Some(problem) => tracing::warn!(prometheus = url, "not ready: {problem}"),
        None => tracing::info!(prometheus = url, version = new.version, labels = %new.labels, "Prometheus is up"),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests;
