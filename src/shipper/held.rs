//! Blocks that Prometheus deletes before they are shipped, held by their open files (`--shipper.hold-unshipped`).
//!
//! Retention asks nobody whether a block was shipped. While a block waits, its files are opened, which costs no space; once
//! Prometheus has deleted it, they keep its bytes, so that it is shipped all the same, as if it were still there. Deleted
//! blocks are held up to the limit that the operator gives, since their space is not free before they are shipped: one that
//! would go beyond it is lost, and counted as such. A block that Prometheus withdrew is never held: it writes the samples again;
//! nor is one that it wrote anew (after a deletion of samples) or compacted into one that is shipped; nor one that is set
//! aside and will not be shipped. What the bucket does not take for now is held until it does, or we end.
//!
//! At most [`MOST_FILES`] files are held, of the oldest blocks. Kept by the process alone: when it ends, what is held is lost.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Shipper, block_events::Removal, plan, removed_blocks::written_anew, upload::HeldFiles};
use crate::{
    threads::blocking,
    tsdb::{Block, BlockId, Scan},
};

/// The most files that are held open.
const MOST_FILES: usize = 512;

#[derive(Debug)]
struct HeldBlock {
    block: Block,
    files: Arc<HeldFiles>,
    /// It is not in the data directory any more.
    deleted: bool,
}

/// The blocks that are held.
#[derive(Debug)]
pub(super) struct Held {
    /// What deleted blocks may take, in bytes; 0 holds nothing.
    limit: u64,
    blocks: BTreeMap<BlockId, HeldBlock>,
}

impl Held {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            blocks: BTreeMap::new(),
        }
    }

    /// The files of a block, if it is held.
    pub(super) fn files(&self, id: BlockId) -> Option<Arc<HeldFiles>> {
        self.blocks.get(&id).map(|held| Arc::clone(&held.files))
    }

    /// Whether Prometheus has deleted a block that is held.
    pub(super) fn is_deleted(&self, id: BlockId) -> bool {
        self.blocks.get(&id).is_some_and(|held| held.deleted)
    }

    /// What deleted blocks take, in bytes.
    pub(super) fn deleted_bytes(&self) -> u64 {
        let deleted = self.blocks.values().filter(|held| held.deleted);
        deleted.map(|held| held.files.bytes()).sum()
    }

    fn files_open(&self) -> usize {
        self.blocks.values().map(|held| held.files.pinned.files.len()).sum()
    }

    /// A block is not in the data directory any more: it counts against the limit from now on, or is let go. What is held
    /// of it.
    fn delete(&mut self, id: BlockId) -> Option<&Block> {
        let (taken, limit) = (self.deleted_bytes(), self.limit);
        let held = self.blocks.get_mut(&id)?;
        let bytes = held.files.bytes();
        if !held.deleted && taken.saturating_add(bytes) > limit {
            tracing::error!(block = %id, bytes, taken, limit, "a block was deleted before it was durable, and cannot be held: deleted blocks would take more than --shipper.hold-unshipped");
            self.blocks.remove(&id);
            return None;
        }
        if !std::mem::replace(&mut held.deleted, true) {
            tracing::warn!(block = %id, bytes, "a block was deleted before it was durable, by retention or by hand; its files are held open until it is shipped (--shipper.hold-unshipped)");
        }
        self.blocks.get(&id).map(|held| &held.block)
    }
}

impl Shipper {
    /// Opens the blocks that wait, and adds those to a scan that were deleted and are held.
    pub(super) async fn hold_blocks(&mut self, scan: &mut Scan) {
        if self.held.limit > 0 {
            self.add_held(scan);
            self.open_waiting(scan).await;
        }
    }

    /// Adds the blocks to a scan that were deleted and are held, and lets those go that need not be.
    pub(super) fn add_held(&mut self, scan: &mut Scan) {
        let policy = self.settings.policy;
        self.held
            .blocks
            .retain(|_, held| plan::is_wanted(&held.block, &self.ledger, &policy));
        let present: HashSet<BlockId> = (scan.blocks.iter().map(|block| block.id))
            .chain(scan.corrupt.iter().map(|corrupt| corrupt.id))
            .collect();
        // One that is back may be another copy.
        self.held
            .blocks
            .retain(|id, held| !held.deleted || !present.contains(id));
        let gone: Vec<BlockId> = self
            .held
            .blocks
            .keys()
            .filter(|id| !present.contains(id))
            .copied()
            .collect();
        for id in gone {
            let was_young = self.events.is_young(id);
            let newly = !self.held.is_deleted(id);
            let withdrawn = newly && self.events.removal(id, was_young) == Removal::Withdrawn;
            // It may have been looked at while it was being deleted: what is open tells whether it is broken.
            if newly && self.quarantine.is_broken(id) {
                self.quarantine.forget(id);
            }
            if withdrawn || self.quarantine.is_final(id) || self.is_superseded(id, scan) {
                self.held.blocks.remove(&id);
            } else {
                scan.blocks.extend(self.held.delete(id).cloned());
            }
        }
        scan.blocks.sort_by_key(|block| (block.meta.min_time, block.id));
        self.metrics.set_held_bytes(self.held.deleted_bytes());
    }

    /// Whether another block that is shipped has what there was to ship of a block that is gone.
    fn is_superseded(&self, id: BlockId, scan: &Scan) -> bool {
        let held = self.held.blocks.values().map(|held| &held.block);
        let policy = &self.settings.policy;
        let is_shipped =
            |block: &&Block| self.ledger.contains(block.id) || plan::is_wanted(block, &self.ledger, policy);
        let shipped = scan.blocks.iter().chain(held).filter(is_shipped);
        shipped.clone().any(|block| written_anew(id, block)) || self.durability.merged_into(id, shipped).is_some()
    }

    /// Opens the blocks that are to be shipped and are not open yet, the oldest first.
    async fn open_waiting(&mut self, scan: &Scan) {
        let policy = self.settings.policy;
        let wanted = scan
            .blocks
            .iter()
            .filter(|block| !self.held.blocks.contains_key(&block.id) && plan::is_wanted(block, &self.ledger, &policy));
        let wanted: Vec<Block> = wanted.cloned().collect();
        let room = MOST_FILES.saturating_sub(self.held.files_open());
        if wanted.is_empty() || room == 0 {
            return;
        }
        let opened = blocking(move || {
            let (mut opened, mut room) = (Vec::new(), room);
            for block in wanted {
                // One that cannot be opened is reported when it is to be sent.
                let Ok(files) = HeldFiles::open(&block) else { continue };
                let Some(left) = room.checked_sub(files.pinned.files.len()) else {
                    break;
                };
                room = left;
                opened.push((block, files));
            }
            opened
        });
        for (block, files) in opened.await.unwrap_or_default() {
            let held = HeldBlock {
                files: Arc::new(files),
                deleted: false,
                block,
            };
            self.held.blocks.insert(held.block.id, held);
        }
    }
}
