//! Another writer under the same external labels: two Prometheus instances that nobody can tell apart, so that their series
//! are taken for one, and a compactor stops at their blocks, or merges them.
//!
//! Found from the metas of the bucket that are read anyway: a block as a sidecar ships it (not compacted), of the labels of a
//! local block that is looked up, that shares times with it and is neither local nor known to the ledger. Nothing is read for
//! it, so that it is found at the latest after a restart. It is reported, once for each block, and holds nothing up. Kept in
//! memory only, for the newest [`MOST`] blocks.

use super::{Shipper, due_block::DueBlock};
use crate::{
    lineage::Entry,
    model::{Labels, few},
    tsdb::BlockId,
};

/// The most blocks that are remembered as reported.
const MOST: usize = 1000;

impl Shipper {
    /// Reports the blocks of others among what was read of the bucket. `labels`: those of now.
    pub(super) fn report_other_writers(&mut self, due: &[DueBlock], labels: &Labels) {
        let local = due.iter().map(|due| &due.request.block);
        let local = local.filter(|block| block.meta.is_cut_from_head());
        let local: Vec<Entry> = local
            .map(|block| Entry::local(&block.meta, &self.labels_of(block.id, labels)))
            .collect();
        let is_other = |entry: &&Entry| {
            entry.is_as_sealed()
                && !self.scanned.contains(&entry.id)
                && !self.ledger.knows(entry.id)
                && !self.other_writers.contains(&entry.id)
                && local.iter().any(|block| block.overlaps(entry))
        };
        let found: Vec<BlockId> = self.lineage.entries().filter(is_other).map(|entry| entry.id).collect();
        if found.is_empty() {
            return;
        }
        self.metrics.other_writers.inc_by(found.len() as u64);
        tracing::error!(
            blocks = few(found.iter()), %labels, bucket = self.uploader.bucket.identity(),
            "blocks in the bucket have the external labels and the times of local ones, and were not made here: another Prometheus ships under the same labels, so that their series are mixed up and a compactor may stop. Give each its own labels (such as replica); if this data directory was restored or replaced, or samples come out of order, the blocks may be its own. What is local is shipped all the same"
        );
        self.other_writers.extend(found);
        while self.other_writers.len() > MOST {
            self.other_writers.pop_first();
        }
    }
}
