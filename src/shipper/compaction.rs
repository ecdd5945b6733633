//! What of the local blocks keeps Prometheus from compacting its own.
//!
//! Its planner looks at the blocks in the order of their names. With `--storage.tsdb.delay-compact-file.path` (3.9 and
//! later) it stops at the first block of level 1 that the ledger does not list, and plans nothing beyond; a `meta.json`
//! that cannot be read fails the whole plan, in every version. A block on its way to the bucket holds it back for a while,
//! as it should. One that is set aside holds it back until somebody does something: local blocks stay small, so that
//! queries over long times become slower, and nobody else says so. Computed anew in each pass; nothing is kept.

use super::{Shipper, durability_metrics::View};
use crate::tsdb::BlockId;

/// The most blocks that are named in the metric. The first of them is the one that Prometheus stops at.
const NAMED: usize = 20;

/// A block beyond which Prometheus compacts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocking {
    pub(super) id: BlockId,
    /// Why it is set aside, as in `narthex_quarantined_blocks`.
    pub(super) reason: &'static str,
}

/// The blocks that were set aside and keep Prometheus from compacting, in the order in which it meets them; the first few.
/// `delayed`: it waits for the ledger.
fn blocking(view: View<'_>, shipper: &Shipper, delayed: bool) -> Vec<Blocking> {
    let Shipper {
        ledger,
        quarantine,
        held,
        ..
    } = shipper;
    let unlisted = view.decisions.iter().map(|decision| &decision.block);
    let unlisted = unlisted
        .filter(|block| delayed && block.meta.level <= 1 && !ledger.contains(block.id) && !held.is_deleted(block.id));
    let unreadable = view.scan.corrupt.iter().map(|corrupt| corrupt.id);
    let ids = unlisted.map(|block| block.id).chain(unreadable);
    let mut blocking: Vec<Blocking> = ids
        .filter_map(|id| quarantine.reason(id).map(|reason| Blocking { id, reason }))
        .collect();
    blocking.sort_unstable_by_key(|block| block.id);
    blocking.truncate(NAMED);
    blocking
}

impl Shipper {
    /// Sets the metric to the blocks that keep Prometheus from compacting, and logs where it stops.
    pub(super) fn report_blocked_compaction(&mut self, view: View<'_>) {
        let delayed = self.prometheus.borrow().delays_compaction;
        let now = blocking(view, self, delayed);
        if now == self.compaction_blocked {
            return;
        }
        // Those behind the first one change nothing as long as it is there.
        if let Some(first) = now
            .first()
            .filter(|first| self.compaction_blocked.first() != Some(first))
        {
            let Blocking { id, reason } = first;
            tracing::warn!(block = %id, reason, "Prometheus compacts none of its blocks from this one on while it is set aside; its queries over long times become slower. Do what the message about this block says");
        }
        self.metrics
            .set_compaction_blocked(now.iter().map(|block| (block.id, block.reason)).collect());
        self.compaction_blocked = now;
    }
}
