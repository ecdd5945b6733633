//! What is not durable, told by the metrics: during a pass from what its scan found, so that they do not stand still
//! while a large backlog is on its way.

use std::collections::HashSet;

use crate::{
    shipper::{Decision, Shipper, Skip, Verdict, Wait},
    tsdb::{Block, BlockId, Scan},
};

/// What a pass goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) decisions: &'a [Decision],
    pub(super) scan: &'a Scan,
}

impl Shipper {
    /// Blocks that waited and are gone; Prometheus deletes by its retention, whatever is shipped.
    pub(super) fn count_vanished(&mut self, scan: &Scan, present: &HashSet<BlockId>) {
        let gone: Vec<BlockId> = self
            .pending
            .keys()
            .filter(|id| !present.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.pending.remove(&id);
            self.lost.insert(id);
            self.metrics.vanished.inc();
            tracing::warn!(block = %id, "a block was deleted before it was durable: by retention, by compaction into a larger block, or by hand");
        }
        let compacted = || scan.blocks.iter().filter(|block| block.meta.level > 1);
        self.lost
            .retain(|id| compacted().any(|block| block.meta.sources.contains(id)));
    }

    /// Measures, and keeps what is not durable for the next pass.
    pub(super) fn remember(&mut self, view: View<'_>) {
        self.measure(view);
        let open = view.decisions.iter().filter(|decision| self.is_open(decision));
        let open = open.map(|open| (open.block.id, open.verdict.to_string()));
        let corrupt = view.scan.corrupt.iter();
        let corrupt = corrupt.map(|corrupt| {
            let wait = match self.quarantine.is_arriving(corrupt.id) {
                true => Wait::Arriving(corrupt.detail.clone()),
                false => Wait::Quarantined(corrupt.detail.clone()),
            };
            (corrupt.id, Verdict::Wait(wait).to_string())
        });
        let corrupt = corrupt.filter(|(id, _)| !self.ledger.contains(*id));
        self.pending = open.chain(corrupt).collect();
    }

    /// Tells what is durable by now.
    pub(super) fn measure(&self, view: View<'_>) {
        let open = view.decisions.iter().filter(|decision| self.is_open(decision));
        let corrupt = view.scan.corrupt.iter().map(|corrupt| corrupt.id);
        let corrupt: Vec<BlockId> = corrupt.filter(|id| !self.ledger.contains(*id)).collect();
        let open: Vec<BlockId> = open.map(|open| open.block.id).chain(corrupt.iter().copied()).collect();
        self.metrics
            .unuploaded
            .set(i64::try_from(open.len()).unwrap_or(i64::MAX));
        let oldest = open.iter().map(|id| id.timestamp_ms()).min();
        self.metrics.oldest.set(oldest.and_then(|ms| i64::try_from(ms).ok()));
        self.metrics.set_quarantined(self.quarantine.by_reason());
        let until = match corrupt.is_empty() {
            true => self.durable_until(view.decisions),
            // Nobody can tell which time its samples are of.
            false => None,
        };
        self.metrics
            .durable_until
            .set(until.map_or(0.0, |until| until as f64 / 1000.0));
    }

    /// The time (ms since 1970) before which all samples of readable local blocks are durable.
    fn durable_until(&self, decisions: &[Decision]) -> Option<i64> {
        let shipped = decisions.iter().filter(|found| self.ledger.contains(found.block.id));
        let until = shipped.map(|shipped| shipped.block.meta.max_time).max()?;
        let missing = decisions.iter().filter(|found| match found.verdict {
            // It counts for the blocks that it was made of, and one of these never got there.
            Verdict::Skip(Skip::Compacted(_)) => self.has_lost(&found.block),
            _ => self.is_open(found),
        });
        let missing = missing.map(|missing| missing.block.meta.min_time).min();
        Some(missing.map_or(until, |from| until.min(from)))
    }

    fn has_lost(&self, block: &Block) -> bool {
        block.meta.sources.iter().any(|source| self.lost.contains(source))
    }

    fn is_open(&self, decision: &Decision) -> bool {
        matches!(decision.verdict, Verdict::Ship(_) | Verdict::Wait(_)) && !self.ledger.contains(decision.block.id)
    }
}
