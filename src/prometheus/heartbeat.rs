//! The heartbeat: asks Prometheus at an interval and publishes the result as a [`Snapshot`].
//!
//! **Interval.** At once at the start, then each [`Settings::interval`] while Prometheus answers, and each 2 s (or each
//! interval, if that is shorter) while it does not, so that we are ready soon after it is. One failed attempt does not
//! count: a second one follows within a second, or starts beside the first when that has taken half of the time. Only
//! when both fail is Prometheus down. All of that takes no longer than one call of the client
//! (`--prometheus.get_config_timeout`). Whoever needs news sooner triggers a heartbeat ([`Heartbeat::trigger`]); it
//! starts within a second after the last one.
//!
//! **Reloads.** A Prometheus that fails to reload its blocks deletes the block that it has just sealed and seals the
//! same range again. Its counter of failed reloads is read with each heartbeat, and for three minutes after it has
//! grown there is a heartbeat each 5 s. The first value proves nothing, since it may be old. A value that is smaller
//! than the last one comes from a new process, so that all of it is new. (A new process that has failed exactly as
//! often as the old one, between two heartbeats, is not noticed.)
//!
//! **Metrics page.** If the page is refused or cannot be parsed, only what it would have told is unknown: times,
//! blocks and reloads. A Prometheus that does not respond there at all counts as down.
//!
//! **Label names.** After each heartbeat the names that queries need are looked up ([`StoredNames`]), each with a
//! request whose response is one line. That takes 5 s at most and fails nothing: a name that was not looked up is
//! unknown.
//!
//! **Failures** end nothing. While Prometheus is down the last labels, version and flags stay in the snapshot, marked
//! by `up: false`. Missing external labels, or flags that do not fit ([`super::checks`]), make us not ready and are
//! checked again at each heartbeat, also after Prometheus was restarted with other flags. An agent has no blocks, so
//! that its flags are not checked; that it is one is a warning.
//!
//! **Logs** report changes only: each new problem once, its end, new warnings. New labels are logged by whoever passes
//! them on.

mod metrics;
mod snapshot;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, future::select_ok};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::snapshot::{Settings, Snapshot, Validation};
use self::{
    metrics::Metrics,
    snapshot::{Observation, RELOADS_FAIL, answered, failed, is_another, log_change, pause, reloads_fail},
};
use super::{
    checks::{self, Finding, Severity},
    client::{Client, Storage},
    error::{Error, ErrorKind},
    stored_names::StoredNames,
};

/// Pause before a failed heartbeat is tried once more.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// Shortest time from the end of a heartbeat to the next one, however often somebody asks for one.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// How long all names of labels are looked up, at most.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// The heartbeat of one Prometheus.
#[derive(Debug)]
pub struct Heartbeat {
    client: Client,
    settings: Settings,
    metrics: Metrics,
    sender: watch::Sender<Snapshot>,
    answered: watch::Sender<Option<Instant>>,
    trigger: Arc<Notify>,
    stored_names: StoredNames,
    /// It was logged that reloads fail, and not yet that they have stopped to.
    reloads_fail: bool,
    /// The warnings about Prometheus that were logged last.
    warned: Vec<String>,
    /// The last metrics page was an answer, but none that could be read.
    guarded: bool,
    /// It has refused a lookup as only an agent does. That counts where it does not report its flags.
    refused_as_agent: bool,
}

impl Heartbeat {
    /// A heartbeat that does not run yet.
    pub fn new(client: Client, settings: Settings, registry: &mut Registry) -> Self {
        let sender = watch::Sender::new(Snapshot::unknown(client.url()));
        let metrics = Metrics::register(registry);
        Self {
            client,
            settings,
            metrics,
            sender,
            answered: watch::Sender::new(None),
            trigger: Arc::default(),
            stored_names: StoredNames::default(),
            reloads_fail: false,
            warned: Vec::new(),
            guarded: false,
            refused_as_agent: false,
        }
    }

    /// Where the snapshots arrive; a new one only when something has changed, be it the head's newest time. When the storage was
    /// asked is no such change: [`Heartbeat::answered`] tells that. The last one stays readable after
    /// [`Heartbeat::run`] has ended.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// When the last heartbeat that was answered began; changes with each of them, after its snapshot was published.
    pub fn answered(&self) -> watch::Receiver<Option<Instant>> {
        self.answered.subscribe()
    }

    /// Notify it (`notify_one`) for a heartbeat that begins afterwards: at once, but no sooner than
    /// a second after the last one has ended.
    pub fn trigger(&self) -> Arc<Notify> {
        Arc::clone(&self.trigger)
    }

    /// Which labels Prometheus stores, of those that somebody asks it about.
    pub fn stored_names(&self) -> StoredNames {
        self.stored_names.clone()
    }

    /// Runs until `token` is cancelled; a request in progress is dropped then.
    pub async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.run_forever()).await;
    }

    /// Asks once, logs and publishes nothing; what is known then, and what is wrong with this Prometheus. A metrics page that
    /// cannot be had is one of the things that are wrong.
    ///
    /// # Errors
    /// Prometheus does not answer, or not as it should.
    pub async fn observe(&self) -> Result<(Snapshot, Vec<Finding>), Error> {
        let (_, reading) = self.read(Instant::now() + self.client.limit(), false).await?;
        let findings = self.findings(&reading);
        let unknown = Snapshot::unknown(self.client.url());
        Ok((answered(&unknown, reading, &findings, &self.settings), findings))
    }

    async fn run_forever(&mut self) {
        loop {
            let (began, result) = match self.read_twice().await {
                Ok((began, reading)) => (Some(began), Ok(reading)),
                Err(error) => (None, Err(error)),
            };
            self.apply(result);
            if began.is_some() {
                self.answered.send_replace(began);
            }
            self.look_up_names().await;
            let pause = pause(&self.sender.borrow(), self.settings.interval);
            wait_for_next(&self.trigger, pause).await;
        }
    }

    /// Reads; if that fails though all was well, or takes half of the time, once more.
    /// Also returns when the attempt that was answered began.
    async fn read_twice(&self) -> Result<(Instant, Observation), Error> {
        let (began, limit) = (Instant::now(), self.client.limit());
        let up = self.sender.borrow().up;
        let mut first = self.read(began + limit, up && !self.guarded).boxed();
        if !up {
            return first.await;
        }
        match timeout_at(began + limit / 2, &mut first).await {
            Ok(Err(error)) => {
                tracing::debug!(%error, "a heartbeat failed, retrying once");
                let left = (began + limit).duration_since(Instant::now());
                tokio::time::sleep(SECOND_TRY.min(self.settings.interval).min(left / 2)).await;
                self.read(began + limit, false).await
            }
            Ok(read) => read,
            Err(_) => {
                tracing::debug!("a heartbeat is slow, starting a second one beside it");
                let second = self.read(began + limit, false).boxed();
                select_ok([first, second]).await.map(|(read, _)| read)
            }
        }
    }

    /// Asks everything, until `end`. A metrics page that cannot be had is only an error if it is `wanted`.
    async fn read(&self, end: Instant, wanted: bool) -> Result<(Instant, Observation), Error> {
        let began = Instant::now();
        let flags = match self.by(end, "/api/v1/status/flags", self.client.flags()).await {
            // Something else that speaks Prometheus' language may do without.
            Err(error) if self.settings.validation.is_none() && !error.is_refused() => {
                tracing::debug!(%error, "no flags, and none are needed");
                None
            }
            flags => flags?,
        };
        let version = self.client.build_version();
        let version = self.by(end, "/api/v1/status/buildinfo", version).await?;
        let asked_at = Instant::now();
        let (storage, guarded) = match self.by(end, "/metrics", self.client.storage(&version)).await {
            Err(error) if !wanted && error.kind.is_an_answer() => (Storage::default(), Some(error)),
            storage => (storage?, None),
        };
        let configuration = self.client.configuration();
        let configuration = self.by(end, "/api/v1/status/config", configuration).await?;
        let reading = Observation {
            configuration,
            version,
            flags,
            storage,
            storage_asked_at: guarded.is_none().then_some(asked_at),
            guarded,
        };
        Ok((began, reading))
    }

    /// Waits for the answer to the request `path` until `end`, when the heartbeat must have ended.
    async fn by<T>(
        &self,
        end: Instant,
        path: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = timeout_at(end, answer).await;
        answer.unwrap_or_else(|_| {
            Err(Error {
                method: "GET",
                url: self.client.shown(path),
                kind: ErrorKind::Timeout(self.client.limit()),
            })
        })
    }

    /// Looks up which of the names that queries ask about Prometheus stores.
    async fn look_up_names(&mut self) {
        let snapshot = self.sender.borrow().clone();
        if snapshot.up && !snapshot.is_agent() {
            let end = Instant::now() + LOOKUP_TIME;
            let mut ended = false;
            for name in self.stored_names.due() {
                let left = end.duration_since(Instant::now());
                if ended || left.is_zero() {
                    self.stored_names.postponed(&name);
                    continue;
                }
                match self.client.stores_label(&name, &snapshot.version, left).await {
                    Ok(Some(stored)) => self.stored_names.looked_up(&name, stored),
                    Ok(None) => self.stored_names.lookup_failed(&name),
                    Err(error) => {
                        tracing::debug!(%error, "cannot find out whether a label is stored");
                        self.stored_names.lookup_failed(&name);
                        self.refused_as_agent = error.kind.is_of_an_agent();
                        // These concern the one name only.
                        ended = !matches!(
                            error.kind,
                            ErrorKind::Status {
                                code: 400 | 404 | 422,
                                ..
                            }
                        );
                    }
                }
            }
        }
        self.metrics.count_names(self.stored_names.counts());
    }

    /// Takes in the result of a heartbeat: metrics, logs, and the snapshot, if it has changed.
    fn apply(&mut self, result: Result<Observation, Error>) {
        let old = self.sender.borrow().clone();
        let new = match result {
            Ok(mut reading) => {
                if self.refused_as_agent {
                    reading.flags.get_or_insert_with(checks::flags_of_an_agent);
                }
                let findings = self.findings(&reading);
                self.guarded = reading.guarded.is_some();
                self.metrics.last_heartbeat.set(now());
                let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
                self.metrics.configuration_errors.set(errors.count() as i64);
                self.warn(&findings);
                answered(&old, reading, &findings, &self.settings)
            }
            Err(error) => {
                // What comes back may be no agent.
                self.refused_as_agent = false;
                failed(&old, &error)
            }
        };
        self.metrics.up.set(i64::from(new.up));
        if !new.up || is_another(&old, &new) {
            self.stored_names.forget();
        }
        self.stored_names.keep(new.labels.iter().map(|label| &*label.name));
        log_change(&old, &new, self.client.url());
        self.log_reloads(&old, &new);
        self.sender.send_if_modified(|snapshot| {
            snapshot.storage_asked_at = new.storage_asked_at;
            let changed = *snapshot != new;
            *snapshot = new;
            changed
        });
    }

    /// What is wrong with a Prometheus that answers.
    fn findings(&self, reading: &Observation) -> Vec<Finding> {
        let mut findings = match &self.settings.validation {
            _ if reading.flags.as_ref().is_some_and(checks::is_agent) => vec![checks::agent()],
            Some(Validation {
                tsdb_path,
                ledger_name,
                ignore_unequal,
            }) => checks::validate(reading.flags.as_ref(), tsdb_path, ledger_name, *ignore_unequal),
            None => Vec::new(),
        };
        if let Some(error) = &reading.guarded {
            findings.push(checks::guarded(error));
        }
        if self.settings.validation.is_some() {
            let settings = &reading.configuration.storage;
            findings.extend(checks::newer_encodings(reading.flags.as_ref(), settings));
        }
        let labels = reading.configuration.labels.overlaid_with(&self.settings.extra_labels);
        findings.extend(checks::unreplaced(&labels));
        if reading.configuration.labels.is_empty() && self.settings.extra_labels.is_empty() {
            findings.push(checks::unlabelled());
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
                "Prometheus cannot reload its blocks, so it deletes each block that it has just sealed and seals it \
                 again; its own log says why (such as a block with a broken index in its data directory, or a limit \
                 of memory maps, open files or memory). Fix that: until then none of its new blocks stays"
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

/// Rests for `pause`, or until somebody asks for a heartbeat, but not for less than [`MIN_PAUSE`] then.
async fn wait_for_next(trigger: &Notify, pause: Duration) {
    let least = MIN_PAUSE.min(pause);
    tokio::time::sleep(least).await;
    tokio::select! {
        // First, so that one who has asked is not answered twice.
        biased;
        () = trigger.notified() => {}
        () = tokio::time::sleep(pause - least) => {}
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
