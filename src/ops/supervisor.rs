//! The tasks of the process, and how it ends.
//!
//! - The first task to return, fail or panic stops all, and so does SIGINT or SIGTERM: the token is cancelled, and each
//!   task has its own grace period to end by itself.
//! - A task that is late is dropped, and named in the log.
//! - A second SIGINT or SIGTERM ends the process at once, with exit code 1: work may have been interrupted.
//! - SIGHUP has no effect. SIGQUIT has none on the process either where [`on_quit`] gives it something to report, and
//!   ends the process as the system does where it does not.
//! - The exit code tells why the process stopped, not how well it did so: 0 after a signal, or a task that was done; 1
//!   after one that failed.
//!
//! What a task must not lose when it is dropped (a crash is the same to it) is that task's own responsibility.

use std::{any::Any, collections::HashMap, error::Error, io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Why a task failed.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// A signal that the process was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Hangup,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The exit code: 0 or 1.
    pub code: i32,
}

/// Named tasks that stop together.
#[derive(Debug, Default)]
pub struct Supervisor {
    token: CancellationToken,
    tasks: JoinSet<Result<(), TaskError>>,
    running: HashMap<Id, Task>,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    grace: Duration,
    handle: AbortHandle,
}

/// Listens for the signals that end the process, from now on; needs a Tokio runtime.
///
/// # Errors
/// When the kernel refuses a handler.
pub fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(4);
    let kinds = [
        (SignalKind::interrupt(), Signal::Interrupt),
        (SignalKind::terminate(), Signal::Terminate),
        (SignalKind::hangup(), Signal::Hangup),
    ];
    for (kind, name) in kinds {
        let mut caught = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while caught.recv().await.is_some() {
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Does `report_state` at every SIGQUIT from now on, which then does not end the process; needs a Tokio runtime, and ends with it.
///
/// # Errors
/// When the kernel refuses a handler.
pub fn on_quit(report_state: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut caught = signal(SignalKind::quit())?;
    tokio::spawn(async move {
        while caught.recv().await.is_some() {
            report_state();
        }
    });
    Ok(())
}

impl Supervisor {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts `task` under `name`. When the process stops it may run on for `grace`; one that bounds its own end needs a
    /// little more here than it takes itself.
    pub fn spawn<F, E>(&mut self, name: &'static str, grace: Duration, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + 'static,
    {
        let handle = self.tasks.spawn(async move { task.await.map_err(Into::into) });
        self.running.insert(handle.id(), Task { name, grace, handle });
    }

    /// Waits for the first task to end or the first signal, and stops all. On a second signal it returns without waiting
    /// for anything; the caller is to end the process with [`Outcome::exit`] in any case.
    pub async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> Outcome {
        let (outcome, asked) = match self.first_end(&mut signals).await {
            Some(outcome) => (outcome, false),
            None => (Outcome { code: 0 }, true),
        };
        self.token.cancel();
        self.stop_all(outcome, asked, &mut signals).await
    }

    /// How the first task ended; `None` after a signal.
    async fn first_end(&mut self, signals: &mut mpsc::Receiver<Signal>) -> Option<Outcome> {
        loop {
            tokio::select! {
                biased;
                Some(signal) = signals.recv() => match signal {
                    Signal::Hangup => debug!("SIGHUP has no effect"),
                    Signal::Interrupt | Signal::Terminate => {
                        info!(?signal, "caught a signal, stopping; a second one ends the process at once");
                        return None;
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => {
                    let failed = self.report(ended, "a task ended, stopping all");
                    return Some(Outcome { code: i32::from(failed) });
                }
                else => return Some(Outcome { code: 0 }),
            }
        }
    }

    async fn stop_all(&mut self, mut outcome: Outcome, asked: bool, signals: &mut mpsc::Receiver<Signal>) -> Outcome {
        let stopping = Instant::now();
        while let Some(deadline) = self.running.values().map(|task| stopping + task.grace).min() {
            tokio::select! {
                biased;
                Some(signal) = signals.recv() => match signal {
                    Signal::Hangup => debug!("SIGHUP has no effect"),
                    Signal::Interrupt | Signal::Terminate => {
                        let running: Vec<_> = self.running.values().map(|task| task.name).collect();
                        warn!(?signal, running = running.join(","), "caught a second signal, ending at once");
                        return Outcome { code: 1 };
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => {
                    // One that fails may take others with it that end well, and sooner.
                    if self.report(ended, "a task has stopped") && !asked {
                        outcome.code = 1;
                    }
                }
                () = sleep_until(deadline) => self.cut_late(stopping),
            }
        }
        info!(
            code = outcome.code,
            seconds = stopping.elapsed().as_secs_f64(),
            "stopped"
        );
        outcome
    }

    /// Takes a task that ended from the running ones and logs how it ended; whether it failed.
    fn report(&mut self, ended: Result<(Id, Result<(), TaskError>), JoinError>, done: &'static str) -> bool {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        // One that was late is named already.
        let Some(Task { name, .. }) = self.running.remove(&id) else {
            return false;
        };
        match ended {
            Ok((_, Ok(()))) => {
                info!(task = name, "{done}");
                false
            }
            Ok((_, Err(failure))) => {
                error!(task = name, error = &*failure as &dyn Error, "a task failed");
                true
            }
            Err(join) => {
                let message = join
                    .try_into_panic()
                    .map_or_else(|_| "cancelled".to_owned(), |panic| panic_text(&*panic));
                error!(
                    task = name,
                    panic = message,
                    "a task panicked: this is a bug in narthex"
                );
                true
            }
        }
    }

    fn cut_late(&mut self, stopping: Instant) {
        let now = Instant::now();
        self.running.retain(|_, task| {
            let late = stopping + task.grace <= now;
            if late {
                warn!(
                    task = task.name,
                    grace_seconds = task.grace.as_secs_f64(),
                    "a task did not stop in time, aborting it"
                );
                task.handle.abort();
            }
            !late
        });
    }
}

impl Outcome {
    /// Ends the process. To leave `main` would mean to wait for threads that a late task left busy.
    pub fn exit(self) -> ! {
        std::process::exit(self.code)
    }
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    type Ended = Result<(), TaskError>;

    /// A task that ends well when it is told to stop, after `takes`, and sets `done`.
    async fn stops(token: CancellationToken, takes: Duration, done: Arc<AtomicBool>) -> Ended {
        token.cancelled().await;
        sleep(takes).await;
        done.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn run(supervisor: Supervisor, sent: &[Signal]) -> Outcome {
        let (sender, receiver) = mpsc::channel(8);
        for signal in sent {
            sender.send(*signal).await.unwrap();
        }
        timeout(Duration::from_secs(20), supervisor.run(receiver))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_first_failure_stops_all_and_each_gets_its_time() {
        let mut supervisor = Supervisor::new();
        let done = Arc::new(AtomicBool::new(false));
        supervisor.spawn(
            "http",
            LONG,
            stops(supervisor.token(), Duration::from_millis(50), Arc::clone(&done)),
        );
        supervisor.spawn("shipper", LONG, async { Ended::Err("no data directory".into()) });
        assert_eq!(run(supervisor, &[]).await, Outcome { code: 1 });
        assert!(done.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn the_first_to_be_done_stops_all_without_blame() {
        let mut supervisor = Supervisor::new();
        let done = Arc::new(AtomicBool::new(false));
        supervisor.spawn(
            "http",
            LONG,
            stops(supervisor.token(), Duration::ZERO, Arc::clone(&done)),
        );
        supervisor.spawn("once", LONG, async { Ended::Ok(()) });
        assert_eq!(run(supervisor, &[]).await, Outcome { code: 0 });
        assert!(done.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn whom_a_failure_takes_along_does_not_hide_it() {
        let mut supervisor = Supervisor::new();
        let token = supervisor.token();
        supervisor.spawn("heartbeat", LONG, async { Ended::Ok(()) });
        supervisor.spawn("shipper", LONG, async move {
            token.cancelled().await;
            Ended::Err("no data directory".into())
        });
        assert_eq!(run(supervisor, &[]).await, Outcome { code: 1 });
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("http", LONG, stops(supervisor.token(), Duration::ZERO, Arc::default()));
        supervisor.spawn("reloader", LONG, async {
            assert_eq!(1, 2, "arithmetic");
            Ended::Ok(())
        });
        assert_eq!(run(supervisor, &[]).await, Outcome { code: 1 });
    }

    #[tokio::test]
    async fn a_signal_stops_all_and_what_fails_then_is_not_blamed() {
        let mut supervisor = Supervisor::new();
        let token = supervisor.token();
        supervisor.spawn("shipper", LONG, async move {
            token.cancelled().await;
            Ended::Err("upload was cut".into())
        });
        assert_eq!(
            run(supervisor, &[Signal::Hangup, Signal::Terminate]).await,
            Outcome { code: 0 }
        );
    }

    #[tokio::test]
    async fn a_hangup_alone_does_nothing() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("http", LONG, pending::<Ended>());
        let (sender, receiver) = mpsc::channel(1);
        sender.send(Signal::Hangup).await.unwrap();
        drop(sender);
        timeout(Duration::from_millis(100), supervisor.run(receiver))
            .await
            .unwrap_err();
    }

    #[tokio::test]
    async fn who_is_late_is_cut_and_the_others_still_get_their_time() {
        let mut supervisor = Supervisor::new();
        let done = Arc::new(AtomicBool::new(false));
        supervisor.spawn("stuck", Duration::from_millis(20), pending::<Ended>());
        supervisor.spawn(
            "slow",
            LONG,
            stops(supervisor.token(), Duration::from_millis(200), Arc::clone(&done)),
        );
        assert_eq!(run(supervisor, &[Signal::Interrupt]).await, Outcome { code: 0 });
        assert!(done.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_second_signal_waits_for_nobody() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("stuck", LONG, pending::<Ended>());
        assert_eq!(
            run(supervisor, &[Signal::Terminate, Signal::Hangup, Signal::Terminate]).await,
            Outcome { code: 1 }
        );
    }

    #[test]
    fn a_panic_tells_its_text() {
        assert_eq!(panic_text(&"a"), "a");
        assert_eq!(panic_text(&"b".to_owned()), "b");
        assert_eq!(panic_text(&7), "no message");
    }
}
