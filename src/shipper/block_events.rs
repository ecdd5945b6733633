//! What the watch has seen of blocks: when they were sealed, and how they were removed.
//!
//! Prometheus removes a block that it needs no more by renaming it first; a block whose reload failed it deletes in place,
//! and writes its range again under another name. So a young block that left without a rename was **withdrawn**: its samples
//! are still in the head, nothing is lost, and nothing of it may be committed. Kept in memory only; a restart knows
//! nothing of what came and went before it, and goes by the clock.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::watcher::{Change, Hint};
use crate::tsdb::BlockId;

/// How long after it was sealed a block may be withdrawn. A failed reload is decided within seconds; more is for a machine
/// that is overloaded.
pub(super) const MAY_BE_WITHDRAWN: Duration = Duration::from_secs(300);
/// A block that is renamed into place later than this after it was made was not sealed by Prometheus just now: it may have been
/// shipped, and merged, long ago.
pub(super) const YOUNG: Duration = Duration::from_secs(3600);
/// How long an event is kept of a block that no scan shows: a hint may come before the scan, and be asked for after it.
const KEPT: Duration = Duration::from_secs(300);

/// The same of a block that was durable; longer than a block may count as new by its name.
const KEPT_DURABLE: Duration = Duration::from_secs(2 * 3600);

/// When a block was sealed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    /// By the clock of this host.
    pub(super) at: SystemTime,
    /// For waiting: no step of that clock changes it.
    pub(super) since: Instant,
}

/// How a block was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// Prometheus deleted it, since its reload failed.
    Withdrawn,
    /// By retention, by compaction, or by hand.
    Removed,
}

/// A block that was seen to be removed.
#[derive(Clone, Copy, Debug)]
struct Left {
    how: Change,
    /// It was young then.
    young: bool,
    when: Instant,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct BlockEvents {
    sealed: HashMap<BlockId, Seal>,
    left: HashMap<BlockId, Left>,
    withdrawn: HashSet<BlockId>,
    /// Blocks that were durable, and when that was seen last: what is renamed to such a name once more is not new.
    durable: HashMap<BlockId, Instant>,
}

impl BlockEvents {
    /// Records a hint of the watcher.
    pub(super) fn record(&mut self, hint: Hint) {
        let now = Instant::now();
        match hint.change {
            Change::Sealed => {
                let age = hint.at.elapsed().unwrap_or_default();
                let since = now.checked_sub(age).unwrap_or(now);
                self.sealed.insert(hint.id, Seal { at: hint.at, since });
                self.left.remove(&hint.id);
                self.withdrawn.remove(&hint.id);
            }
            Change::RenamedAway | Change::Deleted => {
                // By the time when it left: a hint may wait while a large block is uploaded.
                let made = self.sealed.get(&hint.id).map_or_else(|| made(hint.id), |seal| seal.at);
                let left = Left {
                    how: hint.change,
                    young: hint.at.duration_since(made).is_ok_and(|age| age < MAY_BE_WITHDRAWN),
                    when: now,
                };
                self.left.insert(hint.id, left);
            }
        }
    }

    /// When the block was sealed, if that was seen.
    pub(super) fn seal(&self, id: BlockId) -> Option<Seal> {
        self.sealed.get(&id).copied()
    }

    /// Forgets that the block was sealed: it is committed.
    pub(super) fn forget_sealed(&mut self, id: BlockId) {
        self.sealed.remove(&id);
    }

    /// Whether the block was seen to lose its name by a rename, as retention and compaction do it.
    pub(super) fn was_renamed_away(&self, id: BlockId) -> bool {
        self.left.get(&id).is_some_and(|left| left.how == Change::RenamedAway)
    }

    /// Whether the block was seen to be removed.
    pub(super) fn saw_leaving(&self, id: BlockId) -> bool {
        self.left.contains_key(&id)
    }

    /// How a block that is gone was removed. `was_young` is for one that nobody saw leaving: whether it was young when it was seen
    /// last.
    pub(super) fn removal(&self, id: BlockId, was_young: bool) -> Removal {
        let withdrawn = match self.left.get(&id) {
            Some(left) => left.how == Change::Deleted && left.young,
            None => was_young,
        };
        match withdrawn {
            true => Removal::Withdrawn,
            false => Removal::Removed,
        }
    }

    /// Whether the block was sealed so short a time ago that Prometheus may still withdraw it.
    pub(super) fn is_young(&self, id: BlockId) -> bool {
        if let Some(seal) = self.sealed.get(&id) {
            return seal.since.elapsed() < MAY_BE_WITHDRAWN;
        }
        made_within(id, MAY_BE_WITHDRAWN)
    }

    /// Blocks that were seen to be sealed and to be deleted in place soon after.
    pub(super) fn deleted_young(&self) -> impl Iterator<Item = BlockId> {
        let young = self
            .left
            .iter()
            .filter(|(_, left)| left.how == Change::Deleted && left.young);
        young.map(|(id, _)| *id).filter(|id| self.sealed.contains_key(id))
    }

    /// Records that the blocks are durable.
    pub(super) fn record_durable(&mut self, ids: impl Iterator<Item = BlockId>) {
        let now = Instant::now();
        self.durable.extend(ids.map(|id| (id, now)));
    }

    /// Whether the block was durable before.
    pub(super) fn was_durable(&self, id: BlockId) -> bool {
        self.durable.contains_key(&id)
    }

    /// Records that the block was withdrawn; returns whether that is new.
    pub(super) fn record_withdrawn(&mut self, id: BlockId) -> bool {
        self.withdrawn.insert(id)
    }

    /// Whether the block was withdrawn.
    pub(super) fn is_withdrawn(&self, id: BlockId) -> bool {
        self.withdrawn.contains(&id)
    }

    /// Forgets blocks that are neither there nor were seen lately.
    pub(super) fn retain(&mut self, present: impl Fn(BlockId) -> bool) {
        self.sealed
            .retain(|id, seal| present(*id) || seal.since.elapsed() < KEPT);
        self.durable
            .retain(|id, seen| present(*id) || seen.elapsed() < KEPT_DURABLE);
        self.left.retain(|id, left| present(*id) || left.when.elapsed() < KEPT);
        let left = &self.left;
        self.withdrawn
            .retain(|id| present(*id) || left.contains_key(id) || self.sealed.contains_key(id));
    }
}

/// Whether a block was made less than `limit` (wall time) ago, by its name.
pub(super) fn made_within(id: BlockId, limit: Duration) -> bool {
    made(id).elapsed().is_ok_and(|age| age < limit)
}

/// When a block was made, by its name.
pub(super) fn made(id: BlockId) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(id.timestamp_ms())
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::shipper::testing::{id, name};

    fn hint(id: BlockId, change: Change) -> Hint {
        let at = SystemTime::now();
        Hint { id, change, at }
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_block_that_was_deleted_in_place_was_withdrawn_and_others_were_removed() {
        let (old, young) = (id("01J4ABCDEFGHJKMNPQRSTVWXYZ"), id(&name(1)));
        let mut seen = BlockEvents::default();
        assert!(
            seen.is_young(young) && !seen.is_young(old),
            "by the times in their names"
        );
        assert_eq!(seen.removal(young, true), Removal::Withdrawn, "nobody saw it leave");
        assert_eq!(seen.removal(young, false), Removal::Removed);
        seen.record(hint(young, Change::RenamedAway));
        assert_eq!(seen.removal(young, true), Removal::Removed, "retention renames");
        seen.record(hint(old, Change::Sealed));
        assert!(seen.is_young(old), "it was sealed a moment ago");
        seen.record(hint(old, Change::Deleted));
        advance(KEPT - Duration::from_secs(1)).await;
        // However late that is asked for.
        assert_eq!(seen.removal(old, false), Removal::Withdrawn);
        seen.record(hint(old, Change::Sealed));
        let late = Hint {
            at: SystemTime::now() + MAY_BE_WITHDRAWN,
            ..hint(old, Change::Deleted)
        };
        seen.record(late);
        assert_eq!(seen.removal(old, true), Removal::Removed, "it was not young any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_that_waited_tells_how_young_the_block_was_when_it_left() {
        let a = id(&name(1));
        let mut seen = BlockEvents::default();
        let (sealed, left) = (hint(a, Change::Sealed), hint(a, Change::Deleted));
        seen.record(sealed);
        // The upload takes longer than the block may be withdrawn.
        advance(2 * MAY_BE_WITHDRAWN).await;
        seen.record(left);
        assert!(!seen.is_young(a));
        assert_eq!(seen.removal(a, false), Removal::Withdrawn);
        assert_eq!(seen.deleted_young().collect::<Vec<_>>(), [a]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_is_forgotten_after_a_while() {
        let (a, b) = (id(&name(1)), id(&name(2)));
        let mut seen = BlockEvents::default();
        for block in [a, b] {
            seen.record(hint(block, Change::Sealed));
        }
        for block in [a, b] {
            seen.record(hint(block, Change::Deleted));
        }
        assert!(seen.record_withdrawn(b) && !seen.record_withdrawn(b));
        advance(KEPT).await;
        seen.retain(|block| block == a);
        assert!(seen.seal(a).is_some() && seen.seal(b).is_none());
        assert!(!seen.is_withdrawn(b) && !seen.saw_leaving(b));
        assert!(seen.saw_leaving(a), "the scan of a long pass still shows it");
    }
}
