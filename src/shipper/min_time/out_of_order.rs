//! How old a sample may be that Prometheus still holds in its head: the widest `out_of_order_time_window` under which such
//! samples may have come.
//!
//! A narrower one counts only once Prometheus has sealed a block long enough after the wider one was last seen: with each
//! block of its head it seals what came out of order. The ledger keeps the width, so that a restart does not forget it; of
//! one that was lost, or was never written, nothing wider than what Prometheus says now is known.

use super::super::ledger::now_ms;
use crate::tsdb::{Block, content};

/// How long after the wider window was last seen a block must have been made to show that what came by it is sealed (ms):
/// the narrower one may have been noticed early, and clocks differ.
const SEALED_AFTER_MS: i64 = 3_600_000;

/// The window as it counts.
#[derive(Debug)]
pub(super) struct OutOfOrderWindow {
    widest_ms: i64,
    /// When Prometheus was last seen to allow so much (ms since 1970).
    seen_ms: i64,
    /// Prometheus has said what it allows.
    told: bool,
}

impl OutOfOrderWindow {
    /// As an earlier run knew it (ms). Nobody knows when it was narrowed since, so that may have been just now.
    pub(super) fn new(kept_ms: Option<i64>) -> Self {
        Self {
            widest_ms: kept_ms.unwrap_or(0),
            seen_ms: now_ms(),
            told: false,
        }
    }

    /// In ms; `None` until Prometheus has said what it allows.
    pub(super) fn ms(&self) -> Option<i64> {
        self.told.then_some(self.widest_ms)
    }

    /// Takes in what Prometheus says, if it does, and which blocks there are.
    pub(super) fn update<'a>(&mut self, told_ms: Option<i64>, blocks: impl Iterator<Item = &'a Block>) {
        let Some(told_ms) = told_ms else { return };
        self.told = true;
        if told_ms >= self.widest_ms {
            (self.widest_ms, self.seen_ms) = (told_ms, now_ms());
            return;
        }
        let from_head = blocks.filter(|block| block.meta.level <= 1 && content::by_meta(&block.meta).is_empty());
        let newest = from_head
            .filter_map(|block| i64::try_from(block.id.timestamp_ms()).ok())
            .max();
        if newest.is_some_and(|newest| newest > self.seen_ms.saturating_add(SEALED_AFTER_MS)) {
            self.widest_ms = told_ms;
        }
    }
}
