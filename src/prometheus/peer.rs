//! The heartbeat: asks Prometheus again and again and publishes what it is in a [`Snapshot`].
//!
//! **Cadence.** At once at the start, then each [`Settings::interval`] while Prometheus answers, and each 2 s (or each
//! interval, if that is shorter) while it does not, so that we are ready soon after it is. One failed heartbeat is not
//! believed: a second try follows within a second, and only when that fails too Prometheus counts as down.
//!
//! **Trouble** ends nothing. While Prometheus is down the last labels, version and flags stay in the snapshot, marked by
//! `up: false`. Prometheus without external labels, or with flags that do not fit ([`super::checks`]), is a problem that
//! makes us not ready and is looked at again at each heartbeat, also after Prometheus was restarted with other flags.
//!
//! **Logs** tell changes: each new problem once, its end, new labels, new warnings.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    checks::{self, Finding, Severity},
    client::Client,
    error::Error,
};
use crate::model::Labels;

/// Pause between two tries while Prometheus does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Pause before a failed heartbeat is tried once more.
const SECOND_TRY: Duration = Duration::from_secs(1);

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
    lowest_time_ms: i64,
}

impl Peer {
    /// A heartbeat that does not beat yet.
    pub fn new(client: Client, settings: Settings, registry: &mut Registry) -> Self {
        let sender = watch::Sender::new(Snapshot::unknown(client.url()));
        let metrics = Metrics::register(registry);
        let warned = Vec::new();
        Self {
            client,
            settings,
            metrics,
            sender,
            warned,
        }
    }

    /// Where the snapshots arrive; a new one only when something has changed. The last one stays readable after
    /// [`Peer::run`] has ended.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// Beats until `token` is cancelled; a request that is under way is dropped then.
    pub async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.beat_for_ever()).await;
    }

    async fn beat_for_ever(&mut self) {
        loop {
            let result = self.read_twice().await;
            let up = result.is_ok();
            self.take(result);
            let pause = if up {
                self.settings.interval
            } else {
                RETRY.min(self.settings.interval)
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads; if that fails though all was well, once more.
    async fn read_twice(&self) -> Result<Reading, Error> {
        let first = self.read().await;
        match first {
            Err(error) if self.sender.borrow().up => {
                tracing::debug!(%error, "a heartbeat failed; it is tried once more");
            }
            result => return result,
        }
        tokio::time::sleep(SECOND_TRY.min(self.settings.interval)).await;
        self.read().await
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
        let lowest_time_ms = self.client.lowest_time_ms().await?;
        let labels = self.client.external_labels().await?;
        Ok(Reading {
            labels,
            version,
            flags,
            lowest_time_ms,
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
                answered(reading, &findings, &self.settings)
            }
            Err(error) => failed(&old, &error),
        };
        self.metrics.up.set(i64::from(new.problem.is_none()));
        log_change(&old, &new, self.client.url());
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

/// The snapshot after a heartbeat that was answered.
fn answered(reading: Reading, findings: &[Finding], settings: &Settings) -> Snapshot {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    Snapshot {
        labels: reading.labels.overlaid_with(&settings.extra_labels),
        version: reading.version,
        flags: reading.flags.unwrap_or_default(),
        lowest_time_ms: reading.lowest_time_ms,
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
