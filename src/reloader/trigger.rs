//! Has Prometheus load its files, and finds out whether it did.
//!
//! A reload under way in Prometheus cannot be taken back: a future that is dropped leaves it to its end. So none is asked
//! for while an earlier one may still be under way, and none of a Prometheus that does not serve yet: it would answer once it
//! has read its WAL, and would then read the same files for each request that waits.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::process::{self, ProcessError};
use crate::{
    prometheus::{Alive, Client, Error, ErrorKind, LastReload},
    threads::{self, Lost},
};

/// How long the answer to a reload is waited for: that of a large configuration waits for its rules, which may take long.
const HTTP_LIMIT: Duration = Duration::from_secs(15 * 60);

/// After so long without an answer a reload is taken to have come to its end unseen.
const LOST_AFTER: Duration = Duration::from_secs(60 * 60);

/// How long Prometheus is watched after a signal.
const SIGNAL_LIMIT: Duration = Duration::from_secs(60);

/// The same, where the reload before has failed, so that another failure does not show.
const SIGNAL_LIMIT_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(500);

/// Prometheus tells the time of a reload in whole seconds.
const RESOLUTION: Duration = Duration::from_secs(1);

/// How Prometheus is asked to reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// With a POST to `/-/reload`.
    Http,
    /// With SIGHUP to the process of this name.
    Signal(String),
}

impl Method {
    /// As `--reloader.method` has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Signal(_) => "signal",
        }
    }
}

/// Why Prometheus has not loaded its files.
#[derive(Debug, thiserror::Error)]
pub(super) enum TriggerError {
    /// A request has failed; it says which.
    #[error(transparent)]
    Prometheus(#[from] Error),
    /// It does not serve yet, or does not answer.
    #[error("it is not ready; it is told once it is")]
    NotReady,
    /// An earlier reload has not come to its end.
    #[error(
        "an earlier reload, which was not answered in time, may still be under way; no other one is asked for meanwhile"
    )]
    UnderWay,
    /// There is no process to tell.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It was told by a signal, and refuses the files.
    #[error("it refuses the files; its log says why")]
    Refused,
    /// It was told by a signal, and nothing shows that it has loaded them.
    #[error("{after:?} after SIGHUP to process {pid} it has not loaded the files; its log says why")]
    NotLoaded {
        /// The process.
        pid: u32,
        /// How long it was watched.
        after: Duration,
    },
    /// The work on a thread did not come to its end.
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl TriggerError {
    /// Whether another attempt may cost Prometheus as much and end the same way: the files are at fault, or time.
    pub(super) fn is_costly(&self) -> bool {
        match self {
            Self::Refused | Self::NotLoaded { .. } => true,
            Self::Prometheus(error) => {
                matches!(error.kind, ErrorKind::Status { code: 500, .. } | ErrorKind::Timeout(_))
            }
            Self::NotReady | Self::UnderWay | Self::Process(_) | Self::Lost(_) => false,
        }
    }

    /// Whether Prometheus was told at all.
    pub(super) fn is_an_attempt(&self) -> bool {
        !matches!(self, Self::NotReady | Self::UnderWay)
    }
}

/// A reload that was not answered in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    /// By the clock of this machine, in whole seconds.
    asked_at: Timestamp,
    asked: Instant,
}

/// Has Prometheus load its files and waits until it has. `unanswered` is kept from one call to the next.
///
/// # Errors
/// It cannot be told, or refuses them.
pub(super) async fn reload(
    client: &Client,
    method: &Method,
    unanswered: &mut Option<Unanswered>,
) -> Result<(), TriggerError> {
    match method {
        Method::Http => post(client, unanswered).await,
        Method::Signal(process) => signal(client, process).await,
    }
}

async fn post(client: &Client, unanswered: &mut Option<Unanswered>) -> Result<(), TriggerError> {
    match client.alive().await {
        Alive::Ready => {}
        Alive::NotReady => return Err(TriggerError::NotReady),
        // Whoever reloads it next is another process, or none: the request says so.
        Alive::Gone => *unanswered = None,
    }
    if let Some(before) = *unanswered {
        let last = client.last_reload().await?;
        // One that failed shows, too: it is asked for again, and answered so.
        let ended = !last.successful || last.loaded_at >= before.asked_at;
        if !ended && before.asked.elapsed() < LOST_AFTER {
            return Err(TriggerError::UnderWay);
        }
    }
    let asked = Unanswered {
        asked_at: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
        asked: Instant::now(),
    };
    let reloaded = client.reload(HTTP_LIMIT).await;
    let timed_out = matches!(&reloaded, Err(error) if matches!(error.kind, ErrorKind::Timeout(_)));
    *unanswered = timed_out.then_some(asked);
    Ok(reloaded?)
}

async fn signal(client: &Client, process: &str) -> Result<(), TriggerError> {
    let before = client.last_reload().await?;
    // Within the second of the last one, this one could not be told from it.
    sleep(until_told_apart(&before, SystemTime::now())).await;
    let name = process.to_owned();
    let pid = threads::blocking(move || process::hang_up(&name)).await??;
    tracing::debug!(pid, "sent SIGHUP to Prometheus");
    let after = match before.successful {
        true => SIGNAL_LIMIT,
        false => SIGNAL_LIMIT_AFTER_FAILURE,
    };
    let end = Instant::now() + after;
    while Instant::now() < end {
        sleep(POLL).await;
        // While it loads it may not answer; what was told is told.
        let Ok(now) = client.last_reload().await else { continue };
        if now.successful && now.loaded_at > before.loaded_at {
            return Ok(());
        }
        if before.successful && !now.successful {
            return Err(TriggerError::Refused);
        }
    }
    Err(TriggerError::NotLoaded { pid, after })
}

/// How long to wait so that the next reload gets a later time; no longer than needed where the clocks differ.
fn until_told_apart(last: &LastReload, now: SystemTime) -> Duration {
    let since = Timestamp::try_from(now).map(|now| now.duration_since(last.loaded_at));
    let since = since.ok().and_then(|since| Duration::try_from(since).ok());
    since.map_or(RESOLUTION, |since| RESOLUTION.saturating_sub(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_comes_in_another_second_than_the_last_one() {
        let last = LastReload {
            successful: true,
            loaded_at: Timestamp::from_second(1_000_000).unwrap(),
        };
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000 + ms);
        for (ms, expected) in [(0, 1000), (400, 600), (1000, 0), (60_000, 0)] {
            assert_eq!(until_told_apart(&last, at(ms)), Duration::from_millis(expected));
        }
        let early = at(0) - Duration::from_secs(3600);
        assert_eq!(until_told_apart(&last, early), RESOLUTION, "the clock was set back");
    }
}
