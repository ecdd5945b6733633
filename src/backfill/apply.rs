//! Sends what the plan says, with the sidecar's own engine: several blocks are uploaded at once, they become visible one after
//! another, oldest first.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument as _, info_span};

use super::{
    Decision, Item, Plan, Settings,
    bucket_blocks::UnderName,
    plan::part_of_refused,
    prove::{merged_meanwhile, same_files},
};
use crate::{
    lineage::existing,
    model::Labels,
    objstore::{self, Bucket, ErrorKind, Scope, Transient, retry_transient},
    shipper::{
        BlockFiles, Committed, ContentPolicy, NewerEncodings, UploadError, UploadOutcome, UploadRequest, Uploader,
    },
    spans,
    tsdb::{Block, BlockId},
};

/// Blocks that are opened and are uploaded at the same time; the bucket limits the requests of all of them together.
const BLOCKS_AT_ONCE: usize = 8;
/// How often a block is tried when what fails can pass, on top of what the bucket's client tries by itself for each
/// request.
const TRIES: u32 = 3;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Blocks that became visible, in that order.
    pub sent: Vec<BlockId>,
    /// Blocks that somebody else has made visible meanwhile, and that are the same or were merged since.
    pub there: Vec<BlockId>,
    /// Blocks that turned out not to be fit to be sent, and why; and those that were left out as their parts.
    pub refused: Vec<(BlockId, String)>,
    /// Blocks that were in the bucket before and could not be marked, and why.
    pub unmarked: Vec<(BlockId, String)>,
    /// The block that failed for good, and why; nothing younger was made visible.
    pub failed: Option<(BlockId, String)>,
    /// Blocks that are still to be sent, and those that were left out as their parts: run again.
    pub left: Vec<BlockId>,
}

impl Applied {
    /// Names the blocks of `plan` that were left out as parts of others that did not come into the bucket: their samples
    /// would be missing without a word.
    fn add_parts(&mut self, plan: &Plan) {
        let (mut refused, mut left) = (Vec::new(), Vec::new());
        for item in &plan.items {
            let (Decision::LeftOut(_), Some(larger)) = (&item.decision, item.within) else {
                continue;
            };
            if self.refused.iter().any(|(id, _)| *id == larger) {
                refused.push((item.id, part_of_refused(larger)));
            } else if self.left.contains(&larger) {
                left.push(item.id);
            }
        }
        self.refused.extend(refused);
        self.left.extend(left);
    }
}

/// Sends the blocks of a plan.
#[derive(Debug)]
pub struct Apply {
    uploader: Arc<Uploader>,
    source: String,
    newer_encodings: NewerEncodings,
}

/// How one block fared.
enum BlockOutcome {
    Sent,
    There,
    Refused(String),
}

/// Why a block is not sent.
enum NotSent {
    /// The block is at fault.
    Refused(String),
    /// The bucket or this host is at fault.
    Failed(String),
}

/// A block whose data is in the bucket, or that is there already.
enum Uploaded {
    Ready(Box<BlockFiles>),
    There,
}

impl Apply {
    /// A sender to `bucket`.
    pub fn new(settings: &Settings, bucket: &Arc<dyn Bucket>) -> Self {
        let content = ContentPolicy {
            newer_encodings: settings.newer_encodings,
            ..ContentPolicy::default()
        };
        Self {
            uploader: Arc::new(Uploader::new(Arc::clone(bucket), settings.sha256, content)),
            source: settings.source.clone(),
            newer_encodings: settings.newer_encodings,
        }
    }

    /// Sends the blocks of `plan`, and calls `done` with each that is visible. Ends early when a block fails for good, and
    /// when `stop` is cancelled.
    pub async fn run(&self, plan: &Plan, stop: &CancellationToken, mut done: impl FnMut(&Item)) -> Applied {
        let due: Vec<&Item> = plan.to_send().collect();
        let mut applied = Applied::default();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.mark_refused(plan, &mut applied) => {}
        }
        let uploads = stream::iter(due.iter().copied()).map(|item| {
            let (uploader, job) = (Arc::clone(&self.uploader), job(item));
            let labels = item.labels.clone();
            let span = info_span!(target: spans::TARGET, parent: None, "ship_block", block = %item.id);
            let uploading = info_span!(target: spans::TARGET, parent: &span, "upload");
            // A task of its own each, so that it goes on while another block is committed.
            let task = async move {
                match job {
                    Some(job) => upload(&uploader, &job, &labels).await,
                    None => Err(NotSent::Refused("it was not checked".into())),
                }
            };
            let task = AbortOnDropHandle::new(tokio::spawn(task.instrument(uploading)));
            async move { (item, span, task.await) }
        });
        let mut uploads = std::pin::pin!(uploads.buffered(BLOCKS_AT_ONCE));
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = uploads.next() => next,
            };
            let Some((item, span, uploaded)) = next else { break };
            let uploaded = uploaded.unwrap_or_else(|error| {
                Err(NotSent::Failed(format!(
                    "uploading it failed, which is a bug in narthex: {error}"
                )))
            });
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = self.commit_uploaded(item, uploaded).instrument(span.clone()) => outcome,
            };
            match outcome {
                Ok(BlockOutcome::Sent) => {
                    done(item);
                    applied.sent.push(item.id);
                }
                Ok(BlockOutcome::There) => applied.there.push(item.id),
                Ok(BlockOutcome::Refused(why)) => {
                    spans::fail(&span, &why);
                    applied.refused.push((item.id, why));
                }
                Err(why) => {
                    spans::fail(&span, &why);
                    applied.failed = Some((item.id, why));
                    break;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.find_merged(&due, &mut applied) => {}
        }
        let through = |id: &BlockId| {
            applied.sent.contains(id)
                || applied.there.contains(id)
                || applied.refused.iter().any(|(refused, _)| refused == id)
        };
        applied.left = due.iter().map(|item| item.id).filter(|id| !through(id)).collect();
        applied.add_parts(plan);
        applied
    }

    /// Makes a block visible whose data is in the bucket.
    async fn commit_uploaded(&self, item: &Item, uploaded: Result<Uploaded, NotSent>) -> Result<BlockOutcome, String> {
        let (Some(block), uploaded) = (&item.block, uploaded) else {
            return Ok(BlockOutcome::Refused("it has no readable meta.json".into()));
        };
        let result = match uploaded {
            Ok(Uploaded::There) => Ok(BlockOutcome::There),
            Ok(Uploaded::Ready(files)) => retried(|| self.commit(block, &files, &item.labels).boxed()).await,
            Err(reason) => Err(reason),
        };
        match result {
            Ok(outcome) => {
                if matches!(outcome, BlockOutcome::Sent) && block.meta.num_tombstones > 0 {
                    tracing::warn!(block = %block.id, tombstones = block.meta.num_tombstones, "the block has tombstones, which are not sent: series deleted in Prometheus are there in the bucket");
                }
                Ok(outcome)
            }
            Err(NotSent::Refused(why)) => Ok(BlockOutcome::Refused(why)),
            Err(NotSent::Failed(why)) => Err(why),
        }
    }
}

impl Apply {
    /// Finds those of the refused blocks whose samples are in the bucket after all: somebody else has sent them, as a sidecar
    /// beside the same Prometheus does, and a compactor has merged them since. Under their own names they are marked or gone.
    async fn find_merged(&self, due: &[&Item], applied: &mut Applied) {
        let is_refused = |item: &&Item| applied.refused.iter().any(|(id, _)| *id == item.id);
        let refused: Vec<&Item> = due.iter().copied().filter(is_refused).collect();
        let mut merged = BTreeSet::new();
        if let Err(error) = merged_meanwhile(&refused, self.uploader.bucket.as_ref(), &mut merged).await {
            tracing::warn!(%error, "cannot find out whether blocks that were refused are in others of the bucket");
        }
        applied.refused.retain(|(id, _)| !merged.contains(id));
        applied.there.extend(merged);
    }

    /// Keeps compactors from blocks that are in the bucket already with chunks that they refuse, if that is asked for.
    async fn mark_refused(&self, plan: &Plan, applied: &mut Applied) {
        if self.newer_encodings != NewerEncodings::Mark {
            return;
        }
        for item in plan.items.iter().filter(|item| !item.refused_in_bucket.is_empty()) {
            let Some(block) = &item.block else { continue };
            match retried(|| self.mark_one(block, &item.labels).boxed()).await {
                Ok(()) => {}
                Err(NotSent::Refused(why)) => applied.unmarked.push((item.id, why)),
                Err(NotSent::Failed(why)) => {
                    applied.unmarked.push((item.id, why));
                    break;
                }
            }
        }
    }

    /// Marks a block, unless it is gone since the plan was made, or was sent anew.
    async fn mark_one(&self, block: &Block, labels: &Labels) -> Result<(), UploadError> {
        let found = existing(self.uploader.bucket.as_ref(), &block.meta, labels).await?;
        match UnderName::of(found, labels) {
            UnderName::Same { rewritten: false } => Ok(self.uploader.mark_newer(block.id).await?),
            _ => Ok(()),
        }
    }

    /// Commits a block, unless somebody else did: its data may have waited for hours for an older block.
    async fn commit(&self, block: &Block, files: &BlockFiles, labels: &Labels) -> Result<BlockOutcome, UploadError> {
        // What an earlier attempt may have left is ours.
        let tried_before = self.uploader.is_unsettled(block.id);
        if !tried_before {
            match in_bucket(&self.uploader, block, labels).await? {
                InBucket::Nothing => {}
                InBucket::Same => return Ok(BlockOutcome::There),
                InBucket::Other(why) => return Ok(BlockOutcome::Refused(appeared(&why))),
            }
        }
        let job = UploadRequest::new(block.clone());
        let span = info_span!(target: spans::TARGET, "commit");
        let committed = self.uploader.commit(&job, files, labels, &self.source).instrument(span);
        Ok(match committed.await? {
            Committed::Now => BlockOutcome::Sent,
            Committed::Before if tried_before => BlockOutcome::Sent,
            Committed::Before => match in_bucket(&self.uploader, block, labels).await? {
                InBucket::Other(why) => BlockOutcome::Refused(appeared(&why)),
                InBucket::Same | InBucket::Nothing => BlockOutcome::There,
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

/// Uploads the data of a block, unless the block became visible since the plan was made.
async fn upload(uploader: &Uploader, job: &UploadRequest, labels: &Labels) -> Result<Uploaded, NotSent> {
    match retried(|| upload_unless_there(uploader, job, labels).boxed()).await? {
        Ok(UploadOutcome::Uploaded(files)) => Ok(Uploaded::Ready(files)),
        Ok(UploadOutcome::Broken(broken)) => Err(NotSent::Refused(format!("it broke since it was checked: {broken}"))),
        Ok(UploadOutcome::Held { why }) => Err(NotSent::Refused(why)),
        Ok(UploadOutcome::Vanished) => Err(NotSent::Refused("it was deleted here meanwhile".into())),
        Ok(UploadOutcome::Repaired) => Ok(Uploaded::There),
        Err(None) => Ok(Uploaded::There),
        Err(Some(why)) => Err(NotSent::Refused(appeared(&why))),
    }
}

async fn upload_unless_there(
    uploader: &Uploader,
    job: &UploadRequest,
    labels: &Labels,
) -> Result<Result<UploadOutcome, Option<String>>, UploadError> {
    match in_bucket(uploader, &job.block, labels).await? {
        InBucket::Nothing => Ok(Ok(uploader.upload(job).await?)),
        InBucket::Same => Ok(Err(None)),
        InBucket::Other(why) => Ok(Err(Some(why))),
    }
}

/// What readers see of a block.
enum InBucket {
    Nothing,
    /// The block.
    Same,
    /// Another one of its name, in words.
    Other(String),
}

async fn in_bucket(uploader: &Uploader, block: &Block, labels: &Labels) -> Result<InBucket, objstore::Error> {
    let found = existing(uploader.bucket.as_ref(), &block.meta, labels).await?;
    Ok(match UnderName::of(found, labels) {
        UnderName::Nothing => InBucket::Nothing,
        UnderName::Marked(why) => InBucket::Other(why.to_owned()),
        UnderName::Other(why) => InBucket::Other(why),
        UnderName::Same { .. } => match same_files(block, &uploader.bucket).await? {
            None => InBucket::Same,
            Some(why) => InBucket::Other(format!("it has other bytes: {why}; it is not overwritten")),
        },
    })
}

impl Transient for UploadError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Bucket(error) => error.kind != ErrorKind::Local && error.is_transient(),
            Self::Local(_) | Self::Unproven { .. } => true,
            Self::Changed(_)
            | Self::Unreadable(_)
            | Self::Foreign { .. }
            | Self::NoLabels
            | Self::Marked { .. }
            | Self::Conflict(_)
            | Self::Panicked(_) => false,
        }
    }
}

/// Tries again what can pass, with growing waits.
async fn retried<'a, T>(attempt: impl Fn() -> BoxFuture<'a, Result<T, UploadError>>) -> Result<T, NotSent> {
    let log_retry = |error: &UploadError, wait: Duration| {
        tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "upload failed, retrying");
    };
    retry_transient(TRIES, log_retry, attempt)
        .await
        .map_err(|error| match error {
            UploadError::Changed(what) => NotSent::Refused(format!(
                "{what} changed since it was checked; run again when nobody writes to it"
            )),
            UploadError::Foreign { .. }
            | UploadError::Unreadable(_)
            | UploadError::NoLabels
            | UploadError::Marked { .. }
            | UploadError::Conflict(_)
            | UploadError::Panicked(_) => NotSent::Refused(error.to_string()),
            // Other blocks may fare better.
            UploadError::Bucket(ref of_object) if of_object.scope() == Scope::Object => {
                NotSent::Refused(error.to_string())
            }
            UploadError::Bucket(_) | UploadError::Local(_) | UploadError::Unproven { .. } => {
                NotSent::Failed(error.to_string())
            }
        })
}

#[cfg(test)]
mod tests;
