//! Sends what the plan says, with the sidecar's own engine: several blocks travel at once, they become visible one after
//! another, oldest first.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Item, Plan, Settings, holdings::Own, prove::same_files};
use crate::{
    lineage::existing,
    model::Labels,
    objstore::{self, Bucket, ErrorKind, Scope, Transient, retry_transient},
    shipper::{BlockFiles, Committed, UploadError, UploadOutcome, UploadRequest, Uploader},
    tsdb::{Block, BlockId},
};

/// Blocks that are opened and travel at the same time; the bucket limits the requests of all of them together.
const BLOCKS_AT_ONCE: usize = 8;
/// How often a block is tried when what fails can pass, on top of what the bucket's client tries by itself for each
/// request.
const TRIES: u32 = 3;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Blocks that became visible, in that order.
    pub sent: Vec<BlockId>,
    /// Blocks that somebody else has made visible meanwhile, and that are the same.
    pub there: Vec<BlockId>,
    /// Blocks that turned out not to be fit to be sent, and why.
    pub refused: Vec<(BlockId, String)>,
    /// The block that failed for good, and why; nothing younger was made visible.
    pub failed: Option<(BlockId, String)>,
    /// Blocks that are still to be sent: run again.
    pub left: Vec<BlockId>,
}

/// Sends the blocks of a plan.
#[derive(Debug)]
pub struct Apply {
    uploader: Arc<Uploader>,
    source: String,
}

/// How one block fared.
enum Fate {
    Sent,
    There,
    Refused(String),
}

/// Why a block is not sent.
enum Trouble {
    /// The block is at fault.
    Refused(String),
    /// The bucket or this host is at fault.
    Failed(String),
}

/// A block whose data is in the bucket, or that is there already.
enum Arrived {
    Ready(Box<BlockFiles>),
    There,
}

impl Apply {
    /// A sender to `bucket`.
    pub fn new(settings: &Settings, bucket: &Arc<dyn Bucket>) -> Self {
        Self {
            uploader: Arc::new(Uploader::new(Arc::clone(bucket), settings.sha256)),
            source: settings.source.clone(),
        }
    }

    /// Sends the blocks of `plan`, and calls `done` with each that is visible. Ends early when a block fails for good, and
    /// when `stop` is cancelled.
    pub async fn run(&self, plan: &Plan, stop: &CancellationToken, mut done: impl FnMut(&Item)) -> Applied {
        let due: Vec<&Item> = plan.to_send().collect();
        let mut applied = Applied::default();
        let carried = stream::iter(due.iter().copied()).map(|item| {
            let (uploader, job) = (Arc::clone(&self.uploader), job(item));
            let labels = item.labels.clone();
            // A task of its own each, so that it goes on while another block is committed.
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                match job {
                    Some(job) => carry(&uploader, &job, &labels).await,
                    None => Err(Trouble::Refused("it was not checked".into())),
                }
            }));
            async move { (item, task.await) }
        });
        let mut carried = std::pin::pin!(carried.buffered(BLOCKS_AT_ONCE));
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = carried.next() => next,
            };
            let Some((item, arrived)) = next else { break };
            let arrived = arrived.unwrap_or_else(|error| {
                Err(Trouble::Failed(format!(
                    "carrying it failed, which is a bug in narthex: {error}"
                )))
            });
            let fate = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                fate = self.arrive(item, arrived) => fate,
            };
            match fate {
                Ok(Fate::Sent) => {
                    done(item);
                    applied.sent.push(item.id);
                }
                Ok(Fate::There) => applied.there.push(item.id),
                Ok(Fate::Refused(why)) => applied.refused.push((item.id, why)),
                Err(why) => {
                    applied.failed = Some((item.id, why));
                    break;
                }
            }
        }
        let through = |id: &BlockId| {
            applied.sent.contains(id)
                || applied.there.contains(id)
                || applied.refused.iter().any(|(refused, _)| refused == id)
        };
        applied.left = due.iter().map(|item| item.id).filter(|id| !through(id)).collect();
        applied
    }

    /// Makes a block visible whose data is in the bucket.
    async fn arrive(&self, item: &Item, arrived: Result<Arrived, Trouble>) -> Result<Fate, String> {
        let (Some(block), arrived) = (&item.block, arrived) else {
            return Ok(Fate::Refused("it has no readable meta.json".into()));
        };
        let result = match arrived {
            Ok(Arrived::There) => Ok(Fate::There),
            Ok(Arrived::Ready(files)) => retried(|| self.commit(block, &files, &item.labels).boxed()).await,
            Err(trouble) => Err(trouble),
        };
        match result {
            Ok(fate) => {
                if matches!(fate, Fate::Sent) && block.meta.num_tombstones > 0 {
                    tracing::warn!(block = %block.id, tombstones = block.meta.num_tombstones, "the block has tombstones, which are not sent: series deleted in Prometheus are there in the bucket");
                }
                Ok(fate)
            }
            Err(Trouble::Refused(why)) => Ok(Fate::Refused(why)),
            Err(Trouble::Failed(why)) => Err(why),
        }
    }
}

impl Apply {
    /// Commits a block, unless somebody else did: its data may have waited for hours for an older block.
    async fn commit(&self, block: &Block, files: &BlockFiles, labels: &Labels) -> Result<Fate, UploadError> {
        // What an earlier attempt may have left is ours.
        let tried_before = self.uploader.is_unsettled(block.id);
        if !tried_before {
            match look(&self.uploader, block, labels).await? {
                Sight::Nothing => {}
                Sight::Same => return Ok(Fate::There),
                Sight::Other(why) => return Ok(Fate::Refused(appeared(&why))),
            }
        }
        let job = UploadRequest::new(block.clone());
        Ok(match self.uploader.commit(&job, files, labels, &self.source).await? {
            Committed::Now => Fate::Sent,
            Committed::Before if tried_before => Fate::Sent,
            Committed::Before => match look(&self.uploader, block, labels).await? {
                Sight::Other(why) => Fate::Refused(appeared(&why)),
                Sight::Same | Sight::Nothing => Fate::There,
            },
        })
    }
}

fn appeared(why: &str) -> String {
    format!("something of this name appeared in the bucket since the plan was made: {why}")
}

fn job(item: &Item) -> Option<UploadRequest> {
    Some(UploadRequest {
        checked: Some(item.known.as_ref()?.known.clone()),
        ..UploadRequest::new(item.block.clone()?)
    })
}

/// Carries the data of a block, unless the block became visible since the plan was made.
async fn carry(uploader: &Uploader, job: &UploadRequest, labels: &Labels) -> Result<Arrived, Trouble> {
    match retried(|| look_and_carry(uploader, job, labels).boxed()).await? {
        Ok(UploadOutcome::Uploaded(files)) => Ok(Arrived::Ready(Box::new(files))),
        Ok(UploadOutcome::Broken(broken)) => Err(Trouble::Refused(format!("it broke since it was checked: {broken}"))),
        Ok(UploadOutcome::Vanished) => Err(Trouble::Refused("it was deleted here meanwhile".into())),
        Ok(UploadOutcome::Repaired) => Ok(Arrived::There),
        Err(None) => Ok(Arrived::There),
        Err(Some(why)) => Err(Trouble::Refused(appeared(&why))),
    }
}

async fn look_and_carry(
    uploader: &Uploader,
    job: &UploadRequest,
    labels: &Labels,
) -> Result<Result<UploadOutcome, Option<String>>, UploadError> {
    match look(uploader, &job.block, labels).await? {
        Sight::Nothing => Ok(Ok(uploader.upload(job).await?)),
        Sight::Same => Ok(Err(None)),
        Sight::Other(why) => Ok(Err(Some(why))),
    }
}

/// What readers see of a block.
enum Sight {
    Nothing,
    /// The block.
    Same,
    /// Another one of its name, in words.
    Other(String),
}

async fn look(uploader: &Uploader, block: &Block, labels: &Labels) -> Result<Sight, objstore::Error> {
    let found = existing(uploader.bucket.as_ref(), &block.meta, labels).await?;
    Ok(match Own::of(found, labels) {
        Own::Nothing => Sight::Nothing,
        Own::Marked(why) => Sight::Other(why.to_owned()),
        Own::Other(why) => Sight::Other(why),
        Own::Same => match same_files(block, &uploader.bucket).await? {
            None => Sight::Same,
            Some(why) => Sight::Other(format!("it has other bytes: {why}; it is not overwritten")),
        },
    })
}

impl Transient for UploadError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Bucket(error) => error.kind != ErrorKind::Local && error.is_transient(),
            Self::Local(_) | Self::Unproven { .. } => true,
            Self::Changed(_)
            | Self::Foreign { .. }
            | Self::NoLabels
            | Self::Marked { .. }
            | Self::Conflict(_)
            | Self::Panicked(_) => false,
        }
    }
}

/// Tries again what can pass, with growing waits.
async fn retried<'a, T>(attempt: impl Fn() -> BoxFuture<'a, Result<T, UploadError>>) -> Result<T, Trouble> {
    let told = |error: &UploadError, wait: Duration| {
        tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "trying again");
    };
    retry_transient(TRIES, told, attempt)
        .await
        .map_err(|error| match error {
            UploadError::Changed(what) => Trouble::Refused(format!(
                "{what} changed since it was checked; run again when nobody writes to it"
            )),
            UploadError::Foreign { .. }
            | UploadError::NoLabels
            | UploadError::Marked { .. }
            | UploadError::Conflict(_)
            | UploadError::Panicked(_) => Trouble::Refused(error.to_string()),
            // Other blocks may fare better.
            UploadError::Bucket(ref of_object) if of_object.scope() == Scope::Object => {
                Trouble::Refused(error.to_string())
            }
            UploadError::Bucket(_) | UploadError::Local(_) | UploadError::Unproven { .. } => {
                Trouble::Failed(error.to_string())
            }
        })
}

#[cfg(test)]
mod tests;
