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
            .map(|(id, pending)| (*id, pending.is_copy))
            .collect();
        for (id, is_copy) in gone {
            self.pending.remove(&id);
            if let Some(into) = self.durability.merged_into(id, &scan.blocks) {
                tracing::warn!(block = %id, %into, "Prometheus compacted a block before it was durable; its samples are in the larger block. Set its --storage.tsdb.max-block-duration equal to the min-block-duration, or let it wait for the ledger by --storage.tsdb.delay-compact-file.path");
                continue;
            }
            if self.seen.is_withdrawn(id) {
                continue;
            }
            match self.seen.departure(id, self.seen.is_young(id)) {
                _ if is_copy => tracing::info!(block = %id, "a block that was being copied in, or removed, is gone"),
                Departure::Withdrawn => self.withdrawn(id),
                Departure::Removed => {
                    self.metrics.vanished.inc();
                    tracing::warn!(block = %id, "a block was deleted before it was durable, by retention or by hand; its samples are no longer on this disk");
                }
            }
        }
        self.note_taken_back(present);
    }

    /// Blocks that are committed and were seen to be deleted in place soon after they were sealed.
    fn note_taken_back(&mut self, present: &HashSet<BlockId>) {
        let gone: Vec<BlockId> = self.ledger.listed().filter(|id| !present.contains(id)).collect();
        for id in gone {
            if self.seen.was_deleted_young(id) && self.seen.set_withdrawn(id) {
                self.metrics.count_withdrawn();
                tracing::error!(block = %id, "Prometheus took back a block that is committed: its reload took longer to fail than the commit waited. The block that takes its place will overlap it: mark this one for deletion in the bucket (thanos tools bucket mark)");
            }
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
