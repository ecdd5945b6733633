//! Blocks that are gone: lost, compacted, or taken back by Prometheus.

use std::collections::HashSet;

use super::{Shipper, sightings::Departure};
use crate::tsdb::{BlockId, Scan};

impl Shipper {
    /// Blocks that waited and are gone. Prometheus deletes by its retention, whatever is shipped; one that it compacted is
    /// not lost as long as the larger block is there, which is told as not durable in its place; one that it took back
    /// comes again under another name.
    pub(super) fn note_departures(&mut self, scan: &Scan, present: &HashSet<BlockId>) {
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
            if self.seen.is_withdrawn(id) {
                continue;
            }
            match self.seen.departure(id, self.seen.is_young(id)) {
                _ if is_no_block => {
                    tracing::info!(block = %id, "a block that was broken, or being copied in or removed, is gone");
                }
                Departure::Withdrawn => self.withdrawn(id),
                Departure::Removed => {
                    self.metrics.vanished.inc();
                    tracing::warn!(block = %id, "a block was deleted before it was durable, by retention or by hand; its samples are no longer on this disk");
                }
            }
        }
        self.note_taken_back(present);
    }

    /// Blocks that were deleted in place soon after they were sealed: those that are committed, and those that no scan has
    /// shown.
    fn note_taken_back(&mut self, present: &HashSet<BlockId>) {
        let gone: Vec<BlockId> = self.ledger.listed().filter(|id| !present.contains(id)).collect();
        for id in gone {
            let departure = self.seen.departure(id, self.seen.is_young(id));
            if departure == Departure::Withdrawn && self.seen.set_withdrawn(id) {
                self.metrics.count_withdrawn();
                tracing::error!(block = %id, "a block that is committed was deleted in place soon after it was made: Prometheus took it back, since its reload failed after the commit, and the block that takes its place will overlap it. If so, mark this one for deletion in the bucket (thanos tools bucket mark)");
            }
        }
        // Most are gone before a scan can show them.
        let unseen: Vec<BlockId> = self.seen.deleted_young().filter(|id| !present.contains(id)).collect();
        for id in unseen {
            self.withdrawn(id);
        }
    }

    /// Notes that Prometheus took a block back.
    pub(super) fn withdrawn(&mut self, id: BlockId) {
        if self.seen.set_withdrawn(id) {
            self.metrics.count_withdrawn();
            tracing::warn!(block = %id, "Prometheus took a block back soon after it had sealed it: its reload failed, see its log. The block is not committed; its samples are still in the head, and come again in another block");
        }
    }
}
