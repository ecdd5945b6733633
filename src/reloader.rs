//! Has Prometheus load its configuration and rules anew when they change.
//!
//! - [`inputs`] reads the files and makes one fingerprint of their content; `trail` follows links, `render` unpacks the
//!   configuration and replaces variables, `output` writes it to where Prometheus reads it.
//! - [`watcher`] has the kernel tell of changes; a look at an interval finds what it does not tell.
//! - [`trigger`] tells Prometheus, by HTTP or by a signal to its [`process`], and finds out whether it has loaded them.
//!
//! **Guarantees.** A change is passed on once it is complete: when nothing more has changed for a quarter of a second.
//! Prometheus is told once for each state of the files, and again until it has loaded it; while changes do not end, it
//! spends at most a fifth of its time on them. What cannot be read of the rules holds up neither the others nor the
//! configuration. A configuration that no parser takes, that refers to a variable which is not set, or that is empty is neither written to where Prometheus
//! reads it nor passed on: it goes on with the last one. No trouble of the files or of Prometheus ends this process.
//!
//! **Crash, cancel.** What Prometheus was told last is known to this process only: at its start it tells Prometheus once.
//! A run that is dropped leaves nothing behind but what [`output`] may leave.

mod inputs;
mod metrics;
mod output;
mod problem;
mod process;
mod render;
mod trail;
mod trigger;
mod watcher;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::{inputs::Variables, metrics::Metrics, trigger::Method};
use self::{
    inputs::{Fingerprint, Inputs, Look},
    problem::Problem,
    trigger::Unanswered,
    watcher::{Events, Watcher},
};
use crate::{
    prometheus::Client,
    threads::{BlockingPool, StopOnDrop},
};

/// Reading the files may take no longer: the file system that they are on may be gone.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// The shortest time between two looks or two attempts, whatever the flags say.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);

/// While files change as they are read, they are read again for so long before Prometheus is told all the same.
const UNSETTLED: Duration = Duration::from_secs(5);

/// How often the files are read in one look because links led elsewhere meanwhile.
const READS: usize = 3;

/// After a reload nothing is done for so many times as long as it took, at least for [`SHORTEST_REST`].
const REST: u32 = 4;
const SHORTEST_REST: Duration = Duration::from_millis(500);

/// Of rules that were never read.
const NO_RULES: Fingerprint = [0; 32];

/// What a reloader works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Prometheus' configuration, if it is to be followed.
    pub config_file: Option<PathBuf>,
    /// Where it is written unpacked and with variables replaced.
    pub output_file: Option<PathBuf>,
    /// Directories of rules.
    pub rule_dirs: Vec<PathBuf>,
    /// The time between two looks at the files; zero: one look at the start, and Prometheus is not told.
    pub watch_interval: Duration,
    /// The time after which what has failed is tried again.
    pub retry_interval: Duration,
    /// How Prometheus is told.
    pub method: Method,
    /// The environment.
    pub variables: Variables,
}

/// Follows files, and tells Prometheus.
#[derive(Debug)]
pub struct Reloader {
    inputs: Inputs,
    settings: Settings,
    client: Client,
    metrics: Metrics,
    /// Told after each reload.
    reloaded: Arc<Notify>,
    watcher: Arc<Mutex<Watcher>>,
    events: Events,
    /// One thread: where it hangs, no other one is taken.
    pool: BlockingPool,
    /// What Prometheus has loaded last, as far as we know.
    loaded: Option<State>,
    /// Whether it still uses that: a reload that failed may have taken effect in part.
    in_use: bool,
    /// The last attempt, if it failed.
    failed: Option<Failed>,
    /// A reload that was not answered in time.
    unanswered: Option<Unanswered>,
    /// Until when there is neither a look nor a reload.
    rest_until: Instant,
    unsettled_since: Option<Instant>,
    looks: u64,
    /// What was said last of what is wrong.
    said: Option<String>,
    /// What was said last of rules that are passed over.
    passed_over: Vec<String>,
}

/// What is wrong with the files of `settings`, a line each: none where there is nothing to follow. Writes nothing, and reads no
/// further once `stop` is set. Blocks the thread.
pub fn problems(settings: &Settings, stop: &AtomicBool) -> Vec<String> {
    let inputs = Inputs::of(settings);
    let look = inputs.look(settings.variables, stop);
    let problems = [look.config.err(), look.rules.err(), inputs.unwritable()];
    let problems = problems.into_iter().flatten().map(|problem| problem.to_string());
    problems.chain(look.passed_over).collect()
}

/// A state of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    config: Option<Fingerprint>,
    rules: Fingerprint,
}

/// An attempt that failed.
#[derive(Debug)]
struct Failed {
    state: State,
    error: String,
    /// Refusals of this state, one after another.
    refusals: u32,
    retry_at: Instant,
}

impl Reloader {
    /// A reloader that has not looked yet; `reloaded` is notified after each reload.
    pub fn new(settings: Settings, client: Client, metrics: Metrics, reloaded: Arc<Notify>) -> Self {
        metrics.is_told_by(&settings.method);
        let (watcher, events) = Watcher::new(&metrics);
        Self {
            inputs: Inputs::of(&settings),
            settings,
            client,
            metrics,
            reloaded,
            watcher: Arc::new(Mutex::new(watcher)),
            events,
            pool: BlockingPool::new(1),
            loaded: None,
            in_use: false,
            failed: None,
            unanswered: None,
            rest_until: Instant::now(),
            unsettled_since: None,
            looks: 0,
            said: None,
            passed_over: Vec::new(),
        }
    }

    /// Follows the files until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    /// Never ends.
    async fn follow(mut self) {
        if self.inputs.is_empty() {
            return std::future::pending().await;
        }
        if self.settings.watch_interval.is_zero() {
            while !self.write_once().await {
                tokio::time::sleep(self.retry()).await;
            }
            return std::future::pending().await;
        }
        loop {
            let began = Instant::now();
            let wait = self.turn().await;
            let rest = began.elapsed().max(SHORTEST_RETRY);
            self.rest_until = self.rest_until.max(Instant::now() + rest);
            self.events.settled(wait).await;
            tokio::time::sleep_until(self.rest_until).await;
        }
    }

    /// Reads the files once and writes the configuration; whether that went well.
    async fn write_once(&mut self) -> bool {
        let problem = match self.look().await {
            Ok(mut look) => {
                self.write(&mut look).await;
                look.config.err().or(look.rules.err())
            }
            Err(problem) => Some(problem),
        };
        self.report(problem.as_ref().map(ToString::to_string));
        if problem.is_none() {
            tracing::info!("--reloader.watch-interval is 0: the files are read once, and Prometheus is not told");
        }
        problem.is_none()
    }

    /// Looks at the files and tells Prometheus if they have changed; the time until the next look, unless something happens.
    async fn turn(&mut self) -> Duration {
        self.events.mark();
        let look = self.look().await;
        if self.is_unsettled() {
            return Duration::ZERO;
        }
        let slow = matches!(look, Err(Problem::Slow(_)));
        let (state, problem) = match look {
            Ok(mut look) => {
                self.write(&mut look).await;
                self.report_passed_over(std::mem::take(&mut look.passed_over));
                self.judge(look)
            }
            Err(problem) => (None, Some(problem)),
        };
        self.metrics.unset_variables.set(
            problem
                .as_ref()
                .map_or(0, |problem| i64::try_from(problem.unset()).unwrap_or(i64::MAX)),
        );
        let mut trouble = problem.map(|problem| problem.to_string());
        let wait = match state {
            Some(state) if Some(state) != self.loaded || !self.in_use => {
                match self.reload(state, trouble.is_some()).await {
                    Ok(()) if trouble.is_none() => self.settings.watch_interval,
                    Ok(()) => self.retry(),
                    Err((error, wait)) => {
                        trouble = Some(match trouble {
                            Some(problem) => format!("{problem}; besides, {error}"),
                            None => error,
                        });
                        wait
                    }
                }
            }
            // It would be as much work for the file system again.
            _ if slow => self.retry().max(self.settings.watch_interval),
            _ if trouble.is_some() => self.retry(),
            _ => self.settings.watch_interval,
        };
        self.count(trouble.is_none());
        self.report(trouble);
        wait
    }

    fn retry(&self) -> Duration {
        self.settings.retry_interval.max(SHORTEST_RETRY)
    }

    fn count(&mut self, well: bool) {
        self.looks += 1;
        if self.looks == 1 {
            return;
        }
        self.metrics.applied.inc();
        if !well {
            self.metrics.apply_failed.inc();
        }
    }

    /// Reads the files, with watches set on all of them before.
    async fn look(&mut self) -> Result<Look, Problem> {
        let (inputs, variables, watcher) = (self.inputs.clone(), self.settings.variables, Arc::clone(&self.watcher));
        let stop = StopOnDrop::default();
        let stopped = stop.flag();
        let work = move || {
            let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
            let mut look = inputs.look(variables, &stopped);
            let mut reads = 1;
            while !watcher.watch(&look.interest) && reads < READS {
                // What changed before it was watched has gone unseen.
                look = inputs.look(variables, &stopped);
                reads += 1;
            }
            look
        };
        let limited = timeout(READ_LIMIT, self.pool.run(work)).await;
        Ok(limited.map_err(|_| Problem::Slow(READ_LIMIT))??)
    }

    /// Writes the configuration of a look, if it is to be written; that it cannot be is what is wrong with it then.
    async fn write(&self, look: &mut Look) {
        let Ok(Some(config)) = &mut look.config else { return };
        let Some(rendered) = config.rendered.take() else { return };
        let inputs = self.inputs.clone();
        let limited = timeout(READ_LIMIT, self.pool.run(move || inputs.write(&rendered))).await;
        let written = limited.map_err(|_| Problem::Slow(READ_LIMIT));
        if let Err(problem) = written.and_then(|done| done?) {
            look.config = Err(problem);
        }
    }

    /// Which state of the files Prometheus should have loaded, if that can be told, and what is wrong.
    fn judge(&self, look: Look) -> (Option<State>, Option<Problem>) {
        let had_rules = self.loaded.is_some_and(|loaded| loaded.rules != NO_RULES);
        let (rules, problem) = match look.rules {
            Ok(rules) => (rules, None),
            Err(problem) if had_rules => {
                return (
                    None,
                    Some(look.config.err().unwrap_or(Problem::RulesAway(Box::new(problem)))),
                );
            }
            Err(problem) => (NO_RULES, Some(problem)),
        };
        match look.config {
            Ok(config) => {
                let config = config.map(|config| config.fingerprint);
                (Some(State { config, rules }), problem)
            }
            // Prometheus reads what was written before, and may have the rules.
            Err(problem) if self.inputs.output.is_some() => {
                let config = self.loaded.and_then(|loaded| loaded.config);
                (Some(State { config, rules }), Some(problem))
            }
            Err(problem) => (None, Some(problem)),
        }
    }

    /// Whether the files have changed while they were read, and may not be complete.
    fn is_unsettled(&mut self) -> bool {
        if !self.events.is_any() {
            self.unsettled_since = None;
            return false;
        }
        let since = *self.unsettled_since.get_or_insert_with(Instant::now);
        since.elapsed() < UNSETTLED
    }

    /// Tells Prometheus, unless that failed for the same state and is not due again; `in_part`: something of it cannot be used.
    /// An error comes with the time after which to try again.
    async fn reload(&mut self, state: State, in_part: bool) -> Result<(), (String, Duration)> {
        let failed = self.failed.as_ref().filter(|failed| failed.state == state);
        let refused_before = failed.map_or(0, |failed| failed.refusals);
        if let Some(failed) = failed {
            let left = failed.retry_at.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err((failed.error.clone(), left));
            }
        }
        let began = Instant::now();
        let reloaded = trigger::reload(&self.client, &self.settings.method, &mut self.unanswered).await;
        self.rest_until = Instant::now() + (REST * began.elapsed()).max(SHORTEST_REST);
        if !matches!(&reloaded, Err(error) if !error.is_an_attempt()) {
            self.metrics.count(reloaded.is_ok());
        }
        let Err(error) = reloaded else {
            self.loaded = Some(state);
            self.in_use = true;
            self.failed = None;
            self.reloaded.notify_one();
            let (method, seconds) = (self.settings.method.name(), began.elapsed().as_secs_f64());
            match in_part {
                true => tracing::info!(
                    method,
                    seconds,
                    "Prometheus has loaded those of its files that can be used"
                ),
                false => tracing::info!(method, seconds, "Prometheus has loaded its files"),
            }
            return Ok(());
        };
        let refusals = match error.is_costly() {
            true => {
                self.in_use = false;
                refused_before.saturating_add(1)
            }
            false => 0,
        };
        let error = format!("Prometheus was not reloaded: {error}");
        let wait = self.wait_after(refusals);
        self.failed = Some(Failed {
            state,
            error: error.clone(),
            refusals,
            retry_at: Instant::now() + wait,
        });
        Err((error, wait))
    }

    /// What Prometheus refuses it will refuse again, and each attempt costs it the reading of all: so they get rarer.
    fn wait_after(&self, refusals: u32) -> Duration {
        let factor = 2_u32.saturating_pow(refusals.saturating_sub(1));
        let most = self.settings.watch_interval.max(self.retry());
        self.retry().saturating_mul(factor).min(most)
    }

    /// Says which rules are passed over, if they are not those of last time.
    fn report_passed_over(&mut self, passed_over: Vec<String>) {
        if passed_over != self.passed_over && !passed_over.is_empty() {
            tracing::warn!(
                files = passed_over.join("; "),
                "cannot read all that is in --reloader.rule-dir: mend it, or take it out; the rest is followed all the same"
            );
        }
        self.passed_over = passed_over;
    }

    /// Says what is wrong, if it is not what was said last.
    fn report(&mut self, trouble: Option<String>) {
        if trouble == self.said {
            return;
        }
        match &trouble {
            Some(problem) => tracing::warn!(
                problem,
                "Prometheus does not use the current state of its files; this is tried again until it does"
            ),
            None => tracing::info!("Prometheus uses the current state of its files again"),
        }
        self.said = trouble;
    }
}
