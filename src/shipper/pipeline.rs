//! Several blocks are uploaded at once, and committed one after another.
//!
//! The oldest are opened and sent first; each is committed when its data is in the bucket, the gate is open for it, and every
//! older one is durable or set aside. A failure has a scope: one that concerns a single block sets that block aside, and the
//! others go on; one that concerns the bucket, the way to it, or this host ends the pass, which is tried again. Dropped in the middle, nothing is committed that was not proven; what was acknowledged is not sent again.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::{task::JoinError, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, info_span};

use super::{
    Shipper,
    commit::Committed,
    due_block::DueBlock,
    durability_metrics::View,
    failure::Failure,
    gate::GateResult,
    ledger::now_ms,
    quarantine::{self, Problem},
    upload::{BlockFiles, Error, UploadOutcome},
};
use crate::{
    model::Labels,
    objstore::{ErrorKind, Scope},
    spans,
    tsdb::{Block, Broken},
};

/// Blocks that are opened and uploaded at the same time; the bucket limits the requests of all of them together.
pub(super) const BLOCKS_AT_ONCE: usize = 8;

/// How far a block has come.
enum Progress {
    /// Durable, set aside, or gone.
    Done,
    /// Its data is in the bucket; it is looked at again then.
    WaitingUntil(Instant),
}

impl Shipper {
    /// Uploads the blocks, several at once, and commits them in their order. Returns when to try those again that wait at the
    /// gate, if there are such. `unsent`: when to try blocks again that are not even sent yet; they are younger, if there is an
    /// order.
    pub(super) async fn upload_and_commit(
        &mut self,
        due: Vec<DueBlock>,
        view: View<'_>,
        unsent: Option<Instant>,
    ) -> Result<Option<Instant>, Failure> {
        let uploader = Arc::clone(&self.uploader);
        let uploads = stream::iter(due).map(|due| {
            let (uploader, request) = (Arc::clone(&uploader), due.request.clone());
            let id = request.block.id;
            let span = info_span!(target: spans::TARGET, parent: None, "ship_block", block = %id);
            let upload = info_span!(target: spans::TARGET, parent: &span, "upload");
            // A task of its own each, so that it goes on while another block is committed.
            let task = async move { uploader.upload(&request).await }.instrument(upload);
            let task = AbortOnDropHandle::new(tokio::spawn(task));
            async move { (due, span, task.await) }
        });
        let mut uploads = std::pin::pin!(uploads.buffered(self.blocks_at_once));
        let ordered = !self.settings.policy.allow_out_of_order;
        let (mut failed, mut later) = (None, None);
        while let Some((due, span, uploaded)) = uploads.next().await {
            let id = due.request.block.id;
            let uploaded = uploaded.unwrap_or_else(|error| Err(panicked(&error)));
            if let Err(error) = &uploaded {
                spans::fail(&span, error);
            }
            let progress = self
                .commit_or_set_aside(&due, uploaded, later.filter(|_| ordered))
                .instrument(span.clone())
                .await;
            self.update_durability_metrics(view);
            match progress {
                Ok(Progress::Done) => {}
                Ok(Progress::WaitingUntil(until)) => later = Some(later.map_or(until, |earlier| earlier.min(until))),
                Err(error) => {
                    spans::fail(&span, &error);
                    // Eight blocks may need more descriptors than there are; one may not.
                    if matches!(error, Error::Local(_)) {
                        self.blocks_at_once = 1;
                    }
                    self.metrics.upload_failures.inc();
                    let failure = Failure::of_block(id, &error);
                    if ordered {
                        return Err(failure);
                    }
                    failed = Some(failure);
                }
            }
        }
        if failed.is_none() {
            self.blocks_at_once = BLOCKS_AT_ONCE;
        }
        let next = [later, unsent].into_iter().flatten().min();
        failed.map_or(Ok(next), Err)
    }

    /// Commits and records a block that was uploaded, or sets it aside. While an older one waits at the gate, until
    /// `older_waits_until`, it waits, too.
    async fn commit_or_set_aside(
        &mut self,
        due: &DueBlock,
        uploaded: Result<UploadOutcome, Error>,
        older_waits_until: Option<Instant>,
    ) -> Result<Progress, Error> {
        let id = due.request.block.id;
        let result = match uploaded {
            // The next scan no longer has it, and says so.
            Ok(UploadOutcome::Vanished) => return Ok(Progress::Done),
            Ok(UploadOutcome::Broken(broken)) => {
                self.set_aside_broken(due, broken);
                return Ok(Progress::Done);
            }
            Ok(UploadOutcome::Held { why }) => {
                let deletion = self.retention.deletion(id);
                let left = deletion.map(|deletion| deletion.left_in_words(now_ms()));
                self.set_aside(&due.request.block, Problem::held(why, left), false);
                return Ok(Progress::Done);
            }
            Ok(UploadOutcome::Repaired) => self.record_repaired(due).await,
            Ok(UploadOutcome::Uploaded(block_files)) => {
                self.report_content(&due.request, &block_files.encodings);
                if let Some(until) = older_waits_until {
                    return Ok(Progress::WaitingUntil(until));
                }
                let waiting = self.wait_at_gate(due, &block_files.pinned);
                match waiting
                    .instrument(info_span!(target: spans::TARGET, "wait_at_gate"))
                    .await
                {
                    GateResult::Open(labels) => self.commit(due, &block_files, &labels).await,
                    GateResult::Later(until) => return Ok(Progress::WaitingUntil(until)),
                    GateResult::Gone { withdrawn } => {
                        self.remove_from_gate(id);
                        if withdrawn {
                            self.record_withdrawn(id);
                        }
                        return Ok(Progress::Done);
                    }
                }
            }
            Err(error) => Err(error),
        };
        self.remove_from_gate(id);
        result.or_else(|error| self.set_aside_for_error(due, error))?;
        Ok(Progress::Done)
    }

    /// Sets the block aside, if what failed concerns it alone.
    pub(super) fn set_aside_for_error(&mut self, due: &DueBlock, error: Error) -> Result<(), Error> {
        let (problem, arriving) = match error {
            Error::Bucket(error) if error.kind == ErrorKind::Local => (
                Problem::of_bucket(quarantine::UNREADABLE, &error),
                self.may_be_changing(due),
            ),
            Error::Unreadable(why) => (Problem::new(quarantine::UNREADABLE, why), self.may_be_changing(due)),
            Error::Bucket(error) if error.scope() == Scope::Object => {
                self.metrics.upload_failures.inc();
                (Problem::of_bucket(quarantine::REFUSED, &error), false)
            }
            Error::Foreign { place, names } => {
                let detail = format!("{names} in {place} does not belong to the block; move it away");
                (Problem::new(quarantine::FOREIGN, detail), false)
            }
            Error::Marked { .. } => (Problem::new(quarantine::MARKED, error.to_string()), false),
            Error::Conflict(why) => (Problem::new(quarantine::CONFLICT, why), false),
            Error::Changed(file) => (Problem::new("changing", format!("{file} is being written")), true),
            Error::Panicked(why) => (Problem::new("panic", why), false),
            error => return Err(error),
        };
        self.set_aside(&due.request.block, problem, arriving);
        Ok(())
    }

    /// Makes a block visible that was uploaded, and records it.
    async fn commit(&mut self, due: &DueBlock, block_files: &BlockFiles, labels: &Labels) -> Result<(), Error> {
        let block = &due.request.block;
        let unsettled = self.uploader.is_unsettled(block.id);
        let commit = self
            .uploader
            .commit(&due.request, block_files, labels, &self.settings.source);
        let span = info_span!(target: spans::TARGET, "commit");
        match commit.instrument(span).await? {
            Committed::Before if !unsettled => {
                tracing::info!(block = %block.id, "another writer has committed this block; it is whole");
            }
            // Unsettled: by an earlier try of ours, whose answer was lost.
            Committed::Now | Committed::Before => {
                self.metrics.count_rewritten(block_files.rewritten.as_ref());
                self.count_shipped(block, block_files.entries.iter().filter_map(|file| file.size).sum());
            }
        }
        self.record(block, labels);
        Ok(())
    }

    /// Checks whether a block that was committed, and of which something was missing, is whole now, and records it.
    async fn record_repaired(&mut self, due: &DueBlock) -> Result<(), Error> {
        let block = &due.request.block;
        let labels = self.labels_of(block.id, &self.labels().unwrap_or_default());
        self.uploader.check_committed_before(block, &labels).await?;
        tracing::info!(block = %block.id, "uploaded the objects that were missing from a committed block; it is durable");
        self.record(block, &labels);
        Ok(())
    }

    /// Records at once that a block is durable.
    pub(super) fn record(&mut self, block: &Block, labels: &Labels) {
        self.ledger.record(block.id, labels, block.meta.max_time);
        self.events.forget_sealed(block.id);
        self.save_ledger();
        // Whatever failed before, the bucket takes blocks now.
        self.settings.overviews.show_failure(None);
    }

    /// Whether somebody may still be writing to the block, or removing it: nothing that is missing counts yet.
    pub(super) fn may_be_changing(&self, due: &DueBlock) -> bool {
        self.settles(due.request.block.id, due.quiet).1 > Instant::now()
    }

    pub(super) fn set_aside_broken(&mut self, due: &DueBlock, broken: Broken) {
        let arriving = self.may_be_changing(due);
        let files = due.quiet.map(|quiet| quiet.signature);
        if self
            .quarantine
            .set_aside_broken(due.request.block.id, broken, files, arriving)
        {
            self.metrics.corrupted_blocks.inc();
        }
    }

    pub(super) fn set_aside(&mut self, block: &Block, problem: Problem, arriving: bool) {
        let broken = !matches!(
            problem.reason,
            quarantine::REFUSED | quarantine::MARKED | quarantine::CONFLICT | quarantine::HELD
        );
        if self.quarantine.set_aside(block.id, problem, arriving) && broken {
            self.metrics.corrupted_blocks.inc();
        }
    }

    /// Counts and logs a block that this process made durable; `bytes` of its files.
    pub(super) fn count_shipped(&mut self, block: &Block, bytes: u64) {
        self.metrics.uploads.inc();
        let took = self.events.seal(block.id).and_then(|seal| seal.at.elapsed().ok());
        if let Some(took) = took {
            self.seen.seal_to_durable.insert(block.id, took);
            self.metrics.seal_to_durable.observe(took.as_secs_f64());
        }
        if block.meta.num_tombstones > 0 {
            tracing::warn!(block = %block.id, tombstones = block.meta.num_tombstones, "the block has tombstones, which are not shipped: series deleted in Prometheus are still there in the bucket");
        }
        tracing::info!(
            block = %block.id, min_time = block.meta.min_time, max_time = block.meta.max_time, level = block.meta.level,
            series = block.meta.num_series, samples = block.meta.num_samples, bytes,
            sealed_to_durable_ms = took.map(|took| took.as_millis() as u64), "block is durable"
        );
    }
}

fn panicked(error: &JoinError) -> Error {
    Error::Panicked(format!("uploading it failed, which is a bug in narthex: {error}"))
}
