//! Blocks that are gone from the data directory: lost, compacted, or withdrawn by Prometheus.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{Shipper, block_events::Removal};
use crate::tsdb::{Block, BlockId, Parents, Scan};

/// How long the scan waits for what the watch says of a young block that is gone: it comes within milliseconds, if it
/// comes.
const WATCH_LAG: Duration = Duration::from_secs(1);

/// Whether `block` is what Prometheus made of the block `id` alone, when it deleted samples of it.
pub(super) fn written_anew(id: BlockId, block: &Block) -> bool {
    matches!(&block.meta.parents, Parents::Blocks(parents) if *parents == [id])
}

impl Shipper {
    /// Waits a moment for the hints of how young blocks were removed, where the scan was faster than the watch: without one
    /// they count as withdrawn. Dropping it loses nothing.
    pub(super) async fn wait_for_removal_hints(&mut self, scan: &Scan) {
        let deadline = Instant::now() + WATCH_LAG;
        while self.is_removal_unexplained(scan) {
            match timeout_at(deadline, self.hints.recv()).await {
                Ok(Some(hint)) => self.record_hints(Some(hint)),
                _ => return,
            }
        }
    }

    /// Whether a young block is gone of which the watch has not said how.
    fn is_removal_unexplained(&self, scan: &Scan) -> bool {
        let waiting = self.pending.iter().filter(|(_, pending)| !pending.is_no_block);
        let known = waiting.map(|(id, _)| *id).chain(self.ledger.listed());
        known.filter(|id| !self.scanned.contains(id)).any(|id| {
            !self.events.saw_leaving(id)
                && self.events.is_young(id)
                && !self.events.is_withdrawn(id)
                && self.durability.merged_into(id, &scan.blocks).is_none()
        })
    }

    /// Logs and counts blocks that were not durable and are gone. Prometheus deletes by its retention, whatever is shipped; one
    /// that it compacted is not lost as long as the larger block is there, which is reported as not durable in its place; one
    /// that it withdrew comes again under another name.
    pub(super) fn report_removed_blocks(&mut self, scan: &Scan, present: &HashSet<BlockId>) {
        let gone: Vec<(BlockId, bool)> = self
            .pending
            .iter()
            .filter(|(id, _)| !present.contains(id))
            .map(|(id, pending)| (*id, pending.is_no_block))
            .collect();
        for (id, is_no_block) in gone {
            self.pending.remove(&id);
            if let Some(into) = self.durability.merged_into(id, &scan.blocks) {
                tracing::warn!(block = %id, %into, "Prometheus compacted a block before it was durable; its samples are in the larger block. Set its --storage.tsdb.max-block-duration equal to the min-block-duration, or let it wait for the ledger by --storage.tsdb.delay-compact-file.path");
                continue;
            }
            if self.events.is_withdrawn(id) {
                continue;
            }
            if let Some(new) = scan.blocks.iter().find(|block| written_anew(id, block)) {
                tracing::warn!(block = %id, new = %new.id, "Prometheus wrote a block anew before it was durable, because samples of it were deleted; the new block takes its place");
                continue;
            }
            match self.events.removal(id, self.events.is_young(id)) {
                _ if is_no_block => {
                    tracing::info!(block = %id, "a block that was broken, or being copied in or removed, is gone");
                }
                Removal::Withdrawn => self.record_withdrawn(id),
                Removal::Removed => {
                    self.metrics.vanished.inc();
                    tracing::warn!(block = %id, "a block was deleted before it was durable, by retention or by hand; its samples are no longer on this disk");
                }
            }
        }
        self.report_withdrawn_blocks(scan, present);
    }

    /// Logs and counts blocks that were deleted in place soon after they were sealed: those that are committed, and those that
    /// no scan has shown. What Prometheus compacted it has not withdrawn, whatever was seen of it.
    fn report_withdrawn_blocks(&mut self, scan: &Scan, present: &HashSet<BlockId>) {
        let gone: Vec<BlockId> = self.ledger.listed().filter(|id| !present.contains(id)).collect();
        for id in gone {
            if self.durability.merged_into(id, &scan.blocks).is_some() {
                continue;
            }
            let departure = self.events.removal(id, self.events.is_young(id));
            if departure == Removal::Withdrawn && self.events.record_withdrawn(id) {
                self.metrics.count_withdrawn();
                tracing::error!(block = %id, "Prometheus deleted a block soon after it had sealed it, and the block was committed by then: its reload failed after the commit, and the block that it writes in its place will overlap this one. If so, mark this one for deletion in the bucket (thanos tools bucket mark)");
            }
        }
        // Most are gone before a scan can show them.
        let unseen: Vec<BlockId> = self.events.deleted_young().filter(|id| !present.contains(id)).collect();
        for id in unseen {
            self.record_withdrawn(id);
        }
    }

    /// Logs and counts a block that Prometheus withdrew.
    pub(super) fn record_withdrawn(&mut self, id: BlockId) {
        if self.events.record_withdrawn(id) {
            self.metrics.count_withdrawn();
            tracing::warn!(block = %id, "Prometheus deleted a block soon after it had sealed it: its reload failed, see its log. The block is not committed; its samples are still in the head and will be written to another block");
        }
    }
}
