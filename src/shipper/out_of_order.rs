//! How old a sample may be that Prometheus still holds in its head: the widest `out_of_order_time_window` under which such
//! samples may have come.
//!
//! Prometheus seals what came out of order behind the blocks of its head, in the same run; a run that fails or is cut off
//! leaves it for the next. So a narrower window counts only once a block that Prometheus cut from its head is durable that was
//! made long after the wider one was last seen: several runs lie between. The ledger keeps the width, so that a restart does
//! not forget it; of a ledger that was lost, nothing wider than what Prometheus says now is known.

use super::ledger::now_ms;
use crate::tsdb::{BlockMeta, content};

/// How long after the wider window was last seen a block must have been made to show that what came by it is sealed (ms): six
/// runs of Prometheus' compaction.
const SEALED_AFTER_MS: i64 = 12 * 3_600_000;

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

    /// Takes in what Prometheus says, if it does, and which local blocks are durable.
    pub(super) fn update<'a>(&mut self, told_ms: Option<i64>, durable: impl Iterator<Item = &'a BlockMeta>) {
        self.update_at(now_ms(), told_ms, durable);
    }

    fn update_at<'a>(&mut self, now_ms: i64, told_ms: Option<i64>, durable: impl Iterator<Item = &'a BlockMeta>) {
        let Some(told_ms) = told_ms else { return };
        self.told = true;
        if told_ms >= self.widest_ms {
            (self.widest_ms, self.seen_ms) = (told_ms, now_ms);
            return;
        }
        let of_head = durable.filter(|meta| meta.level <= 1 && content::by_meta(meta).is_empty());
        let made = of_head.filter_map(|meta| i64::try_from(meta.ulid.timestamp_ms()).ok());
        // A name of the future tells nothing.
        let newest = made.filter(|made| *made <= now_ms).max();
        if newest.is_some_and(|newest| newest > self.seen_ms.saturating_add(SEALED_AFTER_MS)) {
            self.widest_ms = told_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::Meta;

    const HOUR: i64 = 3_600_000;

    fn made(at_ms: i64, compaction: &str) -> Meta {
        let name = ulid::Ulid::from_parts(u64::try_from(at_ms).unwrap(), 7);
        let text = format!(r#"{{"ulid":"{name}","version":1,"compaction":{{{compaction}}}}}"#);
        Meta::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_wider_window_counts_until_a_block_of_the_head_was_made_long_after() {
        let mut window = OutOfOrderWindow::new(Some(1000));
        assert_eq!(window.ms(), None, "Prometheus was not asked");
        let begun = window.seen_ms;
        let head = r#""level":1"#;
        for (made_after, compaction, now_after) in [
            (12, head, 20),
            (13, r#""level":2"#, 20),
            (13, r#""level":1,"hints":["from-out-of-order"]"#, 20),
            // Of the future.
            (13, head, 12),
        ] {
            let meta = made(begun + made_after * HOUR, compaction);
            window.update_at(begun + now_after * HOUR, Some(0), [&*meta].into_iter());
            assert_eq!(window.ms(), Some(1000), "{compaction}");
        }
        // It was wide again.
        window.update_at(begun + HOUR, Some(2000), [].into_iter());
        let meta = made(begun + 13 * HOUR, head);
        window.update_at(begun + 20 * HOUR, Some(0), [&*meta].into_iter());
        assert_eq!(window.ms(), Some(2000));
        let meta = made(begun + 13 * HOUR + 1, head);
        window.update_at(begun + 20 * HOUR, None, [&*meta].into_iter());
        assert_eq!(window.ms(), Some(2000), "nobody knows what it is now");
        window.update_at(begun + 20 * HOUR, Some(5), [&*meta].into_iter());
        assert_eq!(window.ms(), Some(5));
    }
}
