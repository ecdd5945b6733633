//! Blocks that travel side by side, and become visible one after another.
//!
//! Several blocks are opened and sent at once, the oldest first; each is committed when it has arrived, the gate is open for
//! it, and every older one is durable or set aside. What goes wrong has a scope: what concerns one block sets that block
//! aside, and the others go on; what concerns the bucket, the way to it, or this host holds all of them, and the pass is
//! tried again. Dropped in the middle, nothing is committed that was not proven; what was acknowledged is not sent again.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::{task::JoinError, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Shipper,
    commit::Committed,
    gate::Passage,
    measure::View,
    quarantine::{self, Ailment},
    quiet::Quiet,
    trouble::Trouble,
    upload::{BlockFiles, Error, UploadOutcome, UploadRequest},
};
use crate::{
    model::Labels,
    objstore::{ErrorKind, Scope},
    tsdb::{Block, Broken},
};

/// Blocks that are opened and travel at the same time; the bucket limits the requests of all of them together.
pub(super) const BLOCKS_AT_ONCE: usize = 8;

/// A block that is to be shipped in this pass.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) request: UploadRequest,
    /// How long it had been left alone before it was opened; `None` if that could not be found out.
    pub(super) quiet: Option<Quiet>,
    /// When the pass began, Prometheus might still have taken the block back.
    pub(super) was_young: bool,
}

/// How far a block has come.
enum Arrival {
    /// Durable, set aside, or gone.
    Done,
    /// Its data is in the bucket; it is looked at again then.
    Later(Instant),
}

impl Shipper {
    /// Carries the blocks side by side, and commits them in their order. When to look again at those that wait at the gate,
    /// if there are such. `unsent`: when to look again at blocks that are not even sent yet.
    pub(super) async fn convoy(
        &mut self,
        due: Vec<Due>,
        view: View<'_>,
        unsent: Option<Instant>,
    ) -> Result<Option<Instant>, Trouble> {
        let uploader = Arc::clone(&self.uploader);
        let carried = stream::iter(due).map(|due| {
            let (uploader, request) = (Arc::clone(&uploader), due.request.clone());
            // A task of its own each, so that it goes on while another block is committed.
            let task = AbortOnDropHandle::new(tokio::spawn(async move { uploader.upload(&request).await }));
            async move { (due, task.await) }
        });
        let mut carried = std::pin::pin!(carried.buffered(self.blocks_at_once));
        let ordered = !self.settings.policy.allow_out_of_order;
        let (mut failed, mut later) = (None, unsent);
        while let Some((due, carried)) = carried.next().await {
            let id = due.request.block.id;
            let carried = carried.unwrap_or_else(|error| Err(panicked(&error)));
            let arrived = self.arrive(&due, carried, later.filter(|_| ordered)).await;
            self.measure(view);
            match arrived {
                Ok(Arrival::Done) => {}
                Ok(Arrival::Later(until)) => later = Some(later.map_or(until, |earlier| earlier.min(until))),
                Err(error) => {
                    // Eight blocks may need more descriptors than there are; one may not.
                    if matches!(error, Error::Local(_)) {
                        self.blocks_at_once = 1;
                    }
                    self.metrics.upload_failures.inc();
                    let trouble = Trouble::of_block(id, &error);
                    if ordered {
                        return Err(trouble);
                    }
                    failed = Some(trouble);
                }
            }
        }
        if failed.is_none() {
            self.blocks_at_once = BLOCKS_AT_ONCE;
        }
        failed.map_or(Ok(later), Err)
    }

    /// Commits and records a block that was carried, or sets it aside. While an older one waits at the gate, until `held`,
    /// it waits, too.
    async fn arrive(
        &mut self,
        due: &Due,
        carried: Result<UploadOutcome, Error>,
        held: Option<Instant>,
    ) -> Result<Arrival, Error> {
        let id = due.request.block.id;
        let result = match carried {
            // The next scan no longer has it, and says so.
            Ok(UploadOutcome::Vanished) => return Ok(Arrival::Done),
            Ok(UploadOutcome::Broken(broken)) => {
                self.set_aside_broken(due, broken);
                return Ok(Arrival::Done);
            }
            Ok(UploadOutcome::Repaired) => self.repaired(due).await,
            Ok(UploadOutcome::Uploaded(block_files)) => match held {
                Some(until) => return Ok(Arrival::Later(until)),
                None => match self.wait_at_gate(due, &block_files.pinned).await {
                    Passage::Open(labels) => self.commit(due, &block_files, &labels).await,
                    Passage::Later(until) => return Ok(Arrival::Later(until)),
                    Passage::Gone { withdrawn } => {
                        self.leaves_gate(id);
                        if withdrawn {
                            self.withdrawn(id);
                        }
                        return Ok(Arrival::Done);
                    }
                },
            },
            Err(error) => Err(error),
        };
        self.leaves_gate(id);
        result.or_else(|error| self.judge(due, error))?;
        Ok(Arrival::Done)
    }

    /// Sets the block aside, if what failed concerns it alone.
    fn judge(&mut self, due: &Due, error: Error) -> Result<(), Error> {
        let (ailment, arriving) = match error {
            Error::Bucket(error) if error.kind == ErrorKind::Local => {
                (Ailment::of_bucket(quarantine::UNREADABLE, &error), self.is_moving(due))
            }
            Error::Bucket(error) if error.scope() == Scope::Object => {
                self.metrics.upload_failures.inc();
                (Ailment::of_bucket(quarantine::REFUSED, &error), false)
            }
            Error::Foreign { place, names } => {
                let detail = format!("{names} stands in {place} and is not of the block; move it away");
                (Ailment::new(quarantine::FOREIGN, detail), false)
            }
            Error::Marked { .. } => (Ailment::new(quarantine::MARKED, error.to_string()), false),
            Error::Conflict(why) => (Ailment::new(quarantine::CONFLICT, why), false),
            Error::Changed(file) => (Ailment::new("changing", format!("{file} is being written")), true),
            Error::Panicked(why) => (Ailment::new("panic", why), false),
            error => return Err(error),
        };
        self.set_aside(&due.request.block, ailment, arriving);
        Ok(())
    }

    /// Makes a block visible that was carried, and records it.
    async fn commit(&mut self, due: &Due, block_files: &BlockFiles, labels: &Labels) -> Result<(), Error> {
        let block = &due.request.block;
        let unsettled = self.uploader.is_unsettled(block.id);
        let commit = self
            .uploader
            .commit(&due.request, block_files, labels, &self.settings.source);
        match commit.await? {
            Committed::Now => self.shipped(block, block_files.pinned.files.iter().map(|file| file.len).sum()),
            // By an earlier try of ours, whose answer was lost.
            Committed::Before if unsettled => {
                self.shipped(block, block_files.pinned.files.iter().map(|file| file.len).sum());
            }
            Committed::Before => {
                tracing::info!(block = %block.id, "another writer has committed this block; it is whole")
            }
        }
        self.record(block, labels);
        Ok(())
    }

    /// Looks whether a block that was committed, and of which something was missing, is whole now, and records it.
    async fn repaired(&mut self, due: &Due) -> Result<(), Error> {
        let block = &due.request.block;
        let labels = self.labels().unwrap_or_default();
        self.uploader.there_before(block, &labels).await?;
        tracing::info!(block = %block.id, "the objects that were missing of a committed block are back; it is durable");
        self.record(block, &labels);
        Ok(())
    }

    /// Notes at once that a block is durable.
    pub(super) fn record(&mut self, block: &Block, labels: &Labels) {
        self.ledger.record(block.id, labels, block.meta.max_time);
        self.seen.forget_seal(block.id);
        self.save_ledger();
    }

    /// Whether somebody may still be writing to the block, or removing it: nothing that is missing counts yet.
    pub(super) fn is_moving(&self, due: &Due) -> bool {
        self.settles(due.request.block.id, due.quiet).1 > Instant::now()
    }

    pub(super) fn set_aside_broken(&mut self, due: &Due, broken: Broken) {
        let arriving = self.is_moving(due);
        let files = due.quiet.map(|quiet| quiet.signature);
        if self
            .quarantine
            .set_aside_broken(due.request.block.id, broken, files, arriving)
        {
            self.metrics.corrupted_blocks.inc();
        }
    }

    pub(super) fn set_aside(&mut self, block: &Block, ailment: Ailment, arriving: bool) {
        let broken = !matches!(
            ailment.reason,
            quarantine::REFUSED | quarantine::MARKED | quarantine::CONFLICT
        );
        if self.quarantine.set_aside(block.id, ailment, arriving) && broken {
            self.metrics.corrupted_blocks.inc();
        }
    }

    /// Counts and tells a block that this process made durable; `bytes` of its files.
    pub(super) fn shipped(&mut self, block: &Block, bytes: u64) {
        self.metrics.uploads.inc();
        let took = self.seen.seal(block.id).and_then(|seal| seal.at.elapsed().ok());
        if let Some(took) = took {
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
