//! All blocks of a plan, several at once, oldest first.

use std::{collections::BTreeMap, io, sync::Arc};

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    block::{Outcome, Run},
    download::Failed,
    target::{Target, explained},
};
use crate::{
    objstore::{self, Bucket},
    threads::StopOnDrop,
    tsdb::BlockId,
};

/// Why not all blocks were tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// It was cancelled.
    #[error("interrupted by a signal")]
    Cut,
    /// The bucket lets nobody in.
    #[error(transparent)]
    Bucket(objstore::Error),
    /// The disk; names the path.
    #[error("{}", explained(.0))]
    Disk(io::Error),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// What became of each block that was tried to its end.
    pub outcomes: BTreeMap<BlockId, Outcome>,
    /// Why the others were not.
    pub stopped: Option<Stop>,
}

/// Brings `blocks` to disk, `at_once` objects at a time, until all were tried, `token` is cancelled, or the disk or the
/// bucket fails for all of them. Can be run again at any time, and goes on with what is missing.
pub async fn apply(
    bucket: Arc<dyn Bucket>,
    target: Target,
    blocks: Vec<BlockId>,
    at_once: usize,
    token: &CancellationToken,
) -> Applied {
    let at_once = at_once.max(1);
    // Checks stop when nobody waits for them any more.
    let guard = StopOnDrop::default();
    let run = Run {
        bucket,
        target,
        at_once,
        permits: Semaphore::new(at_once),
        checks: Semaphore::new(1),
        stop: guard.flag(),
    };
    let mut applied = Applied::default();
    let tried = stream::iter(blocks).map(|id| {
        let run = &run;
        async move { (id, run.restore(id).await) }
    });
    // One more than there are requests, so that requests go on while a block is checked.
    let mut tried = std::pin::pin!(tried.buffer_unordered(at_once.saturating_add(1)));
    loop {
        let (id, outcome) = tokio::select! {
            biased;
            () = token.cancelled() => {
                applied.stopped = Some(Stop::Cut);
                break;
            }
            next = tried.next() => match next {
                Some(next) => next,
                None => break,
            },
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(Failed::Bucket(error)) => {
                applied.stopped = Some(Stop::Bucket(error));
                break;
            }
            Err(Failed::Disk(error)) => {
                applied.stopped = Some(Stop::Disk(error));
                break;
            }
            Err(Failed::Wrong(why)) => Outcome::Refused(why),
        };
        log_outcome(id, &outcome);
        applied.outcomes.insert(id, outcome);
    }
    applied
}

fn log_outcome(id: BlockId, outcome: &Outcome) {
    match outcome {
        Outcome::Restored => tracing::info!(block = %id, "block restored"),
        Outcome::Present => tracing::info!(block = %id, "block is there already"),
        Outcome::Refused(why) => tracing::error!(block = %id, why, "block refused"),
        Outcome::Failed(why) => tracing::error!(block = %id, why, "restoring a block failed"),
    }
}
