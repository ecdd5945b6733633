//! The blocks in a row by their times, what of them comes from disk, and what of a request is left for Prometheus.

use std::{
    collections::{BTreeSet, HashSet},
    ops::RangeInclusive,
};

use super::{
    confirmed::{Agreed, Confirmed},
    listing::{Listed, Listing},
    reason::Reason,
};
use crate::tsdb::BlockId;

/// The version of an index that is read.
const INDEX_VERSION: u8 = 2;

const ALWAYS: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// What comes from disk, and what does not. Time that no doubt covers and no block holds is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Those that can be used, by their ranges. No two overlap, nor does any overlap a doubt.
    blocks: Vec<(BlockId, RangeInclusive<i64>)>,
    doubts: Vec<Doubt>,
}

/// A range that Prometheus must be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// In ms since 1970, both ends inclusive.
    pub range: RangeInclusive<i64>,
    /// Why.
    pub reason: Reason,
}

/// Who answers a request. Ranges are in ms since 1970, both ends inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The blocks to read, each with the range to answer from it, by time.
    pub blocks: Vec<(BlockId, RangeInclusive<i64>)>,
    /// What to ask Prometheus; `None` if nothing.
    pub prometheus: Option<Asked>,
}

/// What Prometheus is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For which range.
    pub range: RangeInclusive<i64>,
    /// Why.
    pub reasons: BTreeSet<Reason>,
}

/// A block that counts or did; its range is not empty.
struct Candidate {
    id: BlockId,
    range: RangeInclusive<i64>,
    reason: Option<Reason>,
    overlaps: bool,
}

impl Row {
    /// The row of the directory as listed.
    pub fn new(listing: &Listing, confirmed: &Confirmed) -> Self {
        let agreed = match confirmed.agreed() {
            Ok(agreed) => agreed,
            Err(reason) => return Self::of(Vec::new(), vec![always(reason)]),
        };
        let limit = confirmed.out_of_order_limit_ms();
        let (mut candidates, mut doubts) = candidates(listing, agreed, limit);
        mark_overlaps(&mut candidates);
        let mut blocks = Vec::new();
        for candidate in candidates {
            let range = candidate.range;
            if candidate.reason.is_none() && !candidate.overlaps {
                blocks.push((candidate.id, range));
                continue;
            }
            let overlap = candidate.overlaps.then_some(Reason::Overlap);
            doubts.extend(candidate.reason.into_iter().chain(overlap).map(|reason| Doubt {
                range: range.clone(),
                reason,
            }));
        }
        Self::of(blocks, doubts)
    }

    /// With the range behind the last block, which is the head's. The blocks are in order.
    fn of(blocks: Vec<(BlockId, RangeInclusive<i64>)>, mut doubts: Vec<Doubt>) -> Self {
        match blocks.last() {
            // A block ends before the largest time, since its end is exclusive.
            Some((_, range)) => doubts.push(Doubt {
                range: range.end().saturating_add(1)..=i64::MAX,
                reason: Reason::Head,
            }),
            None if doubts.iter().any(|doubt| doubt.range == ALWAYS) => {}
            None => doubts.push(always(Reason::Head)),
        }
        Self { blocks, doubts }
    }

    /// The blocks that can be used, with their ranges (ms since 1970, both ends inclusive), by time.
    pub fn blocks(&self) -> &[(BlockId, RangeInclusive<i64>)] {
        &self.blocks
    }

    /// What Prometheus is asked about, in no order; some of it may be there twice, for two reasons.
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// Who answers a request for `start_ms..=end_ms` (ms since 1970). Prometheus is asked for one range: from the first to the
    /// last time of the request that is in doubt. If no block is left then, it is asked for all of it.
    pub fn split(&self, start_ms: i64, end_ms: i64) -> Split {
        let request = start_ms..=end_ms;
        let mut hull: Option<RangeInclusive<i64>> = None;
        let mut reasons = BTreeSet::new();
        for doubt in &self.doubts {
            let Some(range) = common(&doubt.range, &request) else {
                continue;
            };
            reasons.insert(doubt.reason);
            hull = Some(match hull {
                Some(hull) => *hull.start().min(range.start())..=*hull.end().max(range.end()),
                None => range,
            });
        }
        let Some(hull) = hull else {
            return Split {
                blocks: self.within(&request).collect(),
                prometheus: None,
            };
        };
        let before = hull.start().checked_sub(1).map(|end| start_ms..=end);
        let after = hull.end().checked_add(1).map(|start| start..=end_ms);
        let outside = before.iter().chain(&after);
        let blocks: Vec<_> = outside.flat_map(|range| self.within(range)).collect();
        let range = if blocks.is_empty() { request } else { hull };
        Split {
            blocks,
            prometheus: Some(Asked { range, reasons }),
        }
    }

    /// What the blocks hold of `range`.
    fn within(&self, range: &RangeInclusive<i64>) -> impl Iterator<Item = (BlockId, RangeInclusive<i64>)> {
        let from = self.blocks.partition_point(|(_, block)| block.end() < range.start());
        let blocks = self.blocks[from..].iter();
        blocks.map_while(|(id, block)| Some((*id, common(block, range)?)))
    }
}

fn always(reason: Reason) -> Doubt {
    Doubt { range: ALWAYS, reason }
}

/// What two ranges have in common.
fn common(a: &RangeInclusive<i64>, b: &RangeInclusive<i64>) -> Option<RangeInclusive<i64>> {
    let (start, end) = (*a.start().max(b.start()), *a.end().min(b.end()));
    (start <= end).then_some(start..=end)
}

/// The blocks that count and those that Prometheus had loaded and are gone; and what is in doubt beside them.
fn candidates(listing: &Listing, agreed: &Agreed, limit: Option<i64>) -> (Vec<Candidate>, Vec<Doubt>) {
    let counted = listing.counted();
    let here: HashSet<BlockId> = counted.iter().map(|listed| listed.block.id).collect();
    let unreadable: HashSet<BlockId> = listing.unreadable().collect();
    let present = counted.iter().map(|listed| {
        let meta = &listed.block.meta;
        let reason = against(listed, agreed, limit);
        (listed.block.id, meta.min_time, meta.max_time, reason)
    });
    // Until Prometheus has told that it holds nothing of that time any more, it may.
    let gone = agreed.blocks.iter().filter(|(id, _)| !here.contains(id));
    let gone = gone.map(|(id, known)| {
        let reason = match unreadable.contains(id) {
            true => Reason::Damaged,
            false => Reason::Differs,
        };
        (*id, known.min_time, known.max_time, Some(reason))
    });
    let (mut candidates, mut doubts) = (Vec::new(), Vec::new());
    for (id, min_time, max_time, reason) in present.chain(gone) {
        match max_time.checked_sub(1).filter(|last| min_time <= *last) {
            Some(last) => candidates.push(Candidate {
                id,
                range: min_time..=last,
                reason,
                overlaps: false,
            }),
            // Prometheus serves it, and nobody knows of which time its samples are.
            None => doubts.push(always(Reason::Damaged)),
        }
    }
    // Nobody knows its time, and Prometheus may have read it before it was damaged.
    let is_new = |id: &BlockId| !agreed.unreadable.contains(id) && !agreed.blocks.contains_key(id);
    if unreadable.iter().any(is_new) {
        doubts.push(always(Reason::Damaged));
    }
    (candidates, doubts)
}

/// What speaks against a block that counts, but for other blocks.
fn against(listed: &Listed, agreed: &Agreed, out_of_order_limit: Option<i64>) -> Option<Reason> {
    let facts = &listed.facts;
    let Some(index_version) = facts.index_version.filter(|_| !facts.quarantined) else {
        return Some(Reason::Damaged);
    };
    if index_version != INDEX_VERSION {
        return Some(Reason::IndexVersion);
    }
    if facts.has_tombstones {
        return Some(Reason::Tombstones);
    }
    match agreed.blocks.get(&listed.block.id) {
        Some(known) if known.files == facts.files => {
            if known.overlaps_head {
                return Some(Reason::OverlapsHead);
            }
        }
        _ => return Some(Reason::Arriving),
    }
    let is_sealed = out_of_order_limit.is_some_and(|limit| listed.block.meta.max_time <= limit);
    (!is_sealed).then_some(Reason::OutOfOrder)
}

/// Puts the candidates in order and marks each that overlaps another one.
fn mark_overlaps(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| (*candidate.range.start(), candidate.id));
    // The one that reaches furthest of those before: what overlaps any of them overlaps this one, and each that it has
    // replaced as the furthest was compared with it.
    let mut furthest: Option<usize> = None;
    for i in 0..candidates.len() {
        let Some(before) = furthest else {
            furthest = Some(i);
            continue;
        };
        if candidates[i].range.start() <= candidates[before].range.end() {
            candidates[i].overlaps = true;
            candidates[before].overlaps = true;
        }
        if candidates[i].range.end() > candidates[before].range.end() {
            furthest = Some(i);
        }
    }
}

#[cfg(test)]
mod tests;
