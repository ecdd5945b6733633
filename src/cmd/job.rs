//! What commands that do one job and end have in common: the bucket, signals, and exit codes.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done, nothing wrong |
//! | 1 | failed: the bucket, the disk, the configuration, an unknown command or flag; or a second signal |
//! | 2 | a bad value on the command line |
//! | 3 | done, and something is refused, broken or missing; it is named |
//! | 4 | interrupted by a signal; run it again to continue |

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    objstore::{self, Bucket, Limits, RateLimit, config::BucketConfig},
    ops::supervisor::{self, Outcome, Signal},
};

/// What a command may still take after a signal, to finish what it has in hand and to report.
const GRACE: Duration = Duration::from_secs(20);
/// What cleaning up in the bucket may take.
const CLEAN_UP: Duration = Duration::from_secs(15);

/// How a job that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// All there, nothing wrong.
    Clean,
    /// Something is refused, broken or missing.
    WithFindings,
    /// A signal came before all was done.
    Interrupted,
}

impl Completion {
    fn outcome(self) -> Outcome {
        Outcome {
            code: match self {
                Self::Clean => 0,
                Self::WithFindings => 3,
                Self::Interrupted => 4,
            },
        }
    }
}

/// An open bucket, and how fast it moves.
#[derive(Clone, Debug)]
pub(super) struct OpenBucket {
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) rate_limit: RateLimit,
}

/// Opens the bucket that `flags` describe; nothing is sent yet.
///
/// # Errors
/// No configuration, or a mistake in it, with flag, file, key and line.
pub(super) async fn open(flags: &cli::Objstore, requests_at_once: usize, max_rate: u64) -> Result<OpenBucket> {
    let yaml = flags.content(&cli::process_env)?;
    if yaml.trim().is_empty() {
        let empty = flags
            .given()
            .map_or_else(String::new, |flag| format!("{flag} is empty: "));
        bail!("{empty}no bucket is configured: give --objstore.config-file=FILE or --objstore.config=YAML");
    }
    let config: BucketConfig = objstore::config::parse(&yaml).with_context(|| super::invalid_yaml(flags))?;
    for warning in &config.warnings {
        tracing::warn!(warning, "object storage configuration");
    }
    let rate_limit = RateLimit::at_most(max_rate);
    let limits = Limits {
        requests_at_once,
        rate_limit: rate_limit.clone(),
        ..Limits::default()
    };
    let bucket = objstore::open(&config, &limits, &mut Registry::default()).await;
    let bucket = bucket.context("the object storage cannot be used")?;
    Ok(OpenBucket { bucket, rate_limit })
}

/// Runs `job` on a bucket until it ends. The first signal cancels its token, upon which it is to come to an end within seconds;
/// a second one ends the process at once.
///
/// # Errors
/// Those of the job.
pub(super) async fn run<F>(store: &OpenBucket, job: impl FnOnce(CancellationToken) -> F) -> Result<Outcome>
where
    F: Future<Output = Result<Completion>>,
{
    run_then(job, store.bucket.settle()).await
}

/// The same without a bucket, or with one that is not open yet; `clean_up` follows upon the job's end.
///
/// # Errors
/// Those of the job.
pub(super) async fn run_then<F>(
    job: impl FnOnce(CancellationToken) -> F,
    clean_up: impl Future<Output = ()>,
) -> Result<Outcome>
where
    F: Future<Output = Result<Completion>>,
{
    let mut signals = supervisor::signals().context("cannot listen for signals")?;
    let token = CancellationToken::new();
    let ended = {
        let mut job = std::pin::pin!(job(token.clone()));
        tokio::select! {
            biased;
            ended = &mut job => ended,
            () = stop(&mut signals) => {
                tracing::info!("caught a signal, stopping; a second one ends the process at once");
                token.cancel();
                tokio::select! {
                    biased;
                    ended = timeout(GRACE, &mut job) => ended.unwrap_or(Ok(Completion::Interrupted)),
                    () = stop(&mut signals) => return Ok(Outcome { code: 1 }),
                }
            }
        }
    };
    tokio::select! {
        _ = timeout(CLEAN_UP, clean_up) => {}
        () = stop(&mut signals) => {}
    }
    Ok(ended?.outcome())
}

/// Waits for a signal to stop.
async fn stop(signals: &mut mpsc::Receiver<Signal>) {
    loop {
        match signals.recv().await {
            Some(Signal::Interrupt | Signal::Terminate) => return,
            Some(Signal::Hangup) => {}
            None => std::future::pending().await,
        }
    }
}
