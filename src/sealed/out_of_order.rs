//! How old a sample may be that Prometheus took out of order and has not sealed yet.
//!
//! With a window W Prometheus takes a sample that is up to W older than the newest one in its head, into a part of the head of
//! its own, also where the range was sealed long ago. It seals these some time after, mostly with the next block of the head:
//! by then the newest sample is hours ahead. So what counts is not how far the head reaches now, but how far it reached before
//! the oldest of them came. They are logged in the directory `wbl`, whose segments Prometheus removes once it has sealed and
//! loaded what is in them. So:
//!
//! - If `wbl` is empty, what is still to come is at most W older than the newest sample of now.
//! - If all segments are gone that were there at an earlier look, what is in the others came after that look, and is at most
//!   W older than the newest sample of then.
//! - Else the bound stays where it was; without any nothing is known. So it is with a log that is there at the first look.
//!
//! W is the widest window that was seen, until `wbl` is empty. What is in `wbl` though no window was seen came by one that
//! nobody knows.

use std::collections::BTreeMap;

/// How long Prometheus may hold on to the window and the newest time by which it takes samples (ms): it reads both when it
/// begins with one scrape or one request.
const APPEND_MS: i64 = 60_000;

/// What is known of samples out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    /// `out_of_order_time_window` (ms); `None` if it is not known.
    pub window_ms: Option<i64>,
    /// The log, looked at after the evidence of this heartbeat was received and before the directory was found to be as it is
    /// listed; `None` if it could not be looked at.
    pub wbl: Option<Wbl>,
}

/// The log of samples that came out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wbl {
    /// It is absent, or no segment holds a byte.
    Empty,
    /// It holds something.
    Segments {
        /// The lowest number of a segment.
        first: u64,
        /// The highest number of a segment.
        last: u64,
    },
}

/// The bound.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// The widest window by which the samples may have come that are not sealed (ms).
    window_ms: i64,
    /// A newest time of the head before the oldest of them came (ms).
    head_max_ms: Option<i64>,
    /// By the last segment at a look: the newest time of the head before the latest such look (ms).
    looks: BTreeMap<u64, i64>,
}

impl Bound {
    /// Takes in a heartbeat, with the newest time of the head (ms). What was sealed meanwhile counts only if the listing in
    /// use `is_current`: else the blocks in which it was sealed may not be in there.
    pub(super) fn heartbeat(&mut self, head_max_ms: Option<i64>, told: &OutOfOrder, is_current: bool) {
        let Some(window_ms) = told.window_ms else {
            *self = Self::default();
            return;
        };
        self.window_ms = self.window_ms.max(window_ms);
        match told.wbl {
            Some(Wbl::Segments { .. }) if self.window_ms == 0 => *self = Self::default(),
            Some(Wbl::Empty) if is_current => {
                *self = Self {
                    window_ms,
                    head_max_ms: Some(head_max_ms.unwrap_or(i64::MIN)),
                    looks: BTreeMap::new(),
                };
            }
            Some(Wbl::Segments { first, last }) if is_current => {
                if let Some(head_max_ms) = head_max_ms {
                    self.looks.insert(last, head_max_ms);
                }
                let left = self.looks.split_off(&first);
                let sealed = std::mem::replace(&mut self.looks, left);
                self.head_max_ms = sealed.into_values().next_back().or(self.head_max_ms);
            }
            _ => {}
        }
    }

    /// Up to which time nothing comes from the head out of order (ms, exclusive); `None` if that is not known.
    pub(super) fn limit_ms(&self) -> Option<i64> {
        let head_max_ms = self.head_max_ms?;
        match self.window_ms {
            0 => Some(i64::MAX),
            window_ms => Some(head_max_ms.saturating_sub(window_ms).saturating_sub(APPEND_MS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    /// A heartbeat: head's newest time (hours), window (hours), log.
    fn beat(bound: &mut Bound, head_max: i64, window: i64, wbl: Wbl) -> Option<i64> {
        let told = OutOfOrder {
            window_ms: Some(window * HOUR),
            wbl: Some(wbl),
        };
        bound.heartbeat(Some(head_max * HOUR), &told, true);
        bound.limit_ms()
    }

    /// The limit by a newest time and a window (hours).
    fn by(head_max: i64, window: i64) -> Option<i64> {
        Some((head_max - window) * HOUR - APPEND_MS)
    }

    fn segments(first: u64, last: u64) -> Wbl {
        Wbl::Segments { first, last }
    }

    #[test]
    fn without_a_window_and_a_log_there_is_no_limit() {
        let mut bound = Bound::default();
        assert_eq!(bound.limit_ms(), None, "nobody knows");
        assert_eq!(beat(&mut bound, 10, 0, Wbl::Empty), Some(i64::MAX));
        // A window that was open between two heartbeats only.
        assert_eq!(beat(&mut bound, 10, 0, segments(0, 0)), None);
        assert_eq!(beat(&mut bound, 10, 0, Wbl::Empty), Some(i64::MAX));
        // It is opened, and something comes before this is seen: the head reached as far as 10 then, at least.
        assert_eq!(beat(&mut bound, 11, 1, segments(0, 0)), by(10, 1));
    }

    #[test]
    fn while_the_log_is_empty_the_limit_follows_the_head() {
        let mut bound = Bound::default();
        assert_eq!(beat(&mut bound, 10, 2, Wbl::Empty), by(10, 2));
        assert_eq!(beat(&mut bound, 11, 2, Wbl::Empty), by(11, 2));
        // What has come may have come just after the last look.
        assert_eq!(beat(&mut bound, 12, 2, segments(3, 3)), by(11, 2));
        assert_eq!(beat(&mut bound, 13, 2, segments(3, 3)), by(11, 2));
        // A narrower window counts once all of that is sealed, a wider one at once.
        assert_eq!(beat(&mut bound, 14, 1, segments(3, 3)), by(11, 2));
        assert_eq!(beat(&mut bound, 14, 3, segments(3, 3)), by(11, 3));
        assert_eq!(beat(&mut bound, 15, 0, segments(3, 3)), by(11, 3));
        assert_eq!(beat(&mut bound, 16, 1, Wbl::Empty), by(16, 1));
        assert_eq!(beat(&mut bound, 16, 0, Wbl::Empty), Some(i64::MAX));
    }

    #[test]
    fn a_log_that_is_never_empty_bounds_by_the_segments_that_are_gone() {
        let mut bound = Bound::default();
        assert_eq!(beat(&mut bound, 10, 2, segments(4, 4)), None, "as old as it likes");
        assert_eq!(beat(&mut bound, 11, 2, segments(4, 4)), None);
        // It seals: a new segment first, and the old ones are removed last.
        assert_eq!(beat(&mut bound, 12, 2, segments(4, 5)), None);
        assert_eq!(beat(&mut bound, 13, 2, segments(5, 5)), by(11, 2));
        // It has failed to seal: two segments stay until the next time.
        assert_eq!(beat(&mut bound, 14, 2, segments(5, 6)), by(11, 2));
        assert_eq!(beat(&mut bound, 15, 2, segments(5, 7)), by(11, 2));
        assert_eq!(beat(&mut bound, 16, 2, segments(7, 7)), by(14, 2));
        assert_eq!(bound.looks.len(), 1, "looks at segments that are gone are forgotten");
    }

    #[test]
    fn what_is_not_known_is_no_limit() {
        let (told, known) = (
            |window_ms, wbl| OutOfOrder { window_ms, wbl },
            || {
                let mut bound = Bound::default();
                beat(&mut bound, 10, 2, Wbl::Empty);
                bound
            },
        );
        let (window, empty) = (Some(2 * HOUR), Some(Wbl::Empty));
        for (head_max_ms, told, is_current, limit) in [
            (Some(11 * HOUR), told(None, empty), true, None),
            (Some(11 * HOUR), told(window, None), true, by(10, 2)),
            (Some(11 * HOUR), told(Some(3 * HOUR), None), true, by(10, 3)),
            (Some(11 * HOUR), told(Some(3 * HOUR), empty), false, by(10, 3)),
            (None, told(window, empty), true, Some(i64::MIN)),
            (Some(i64::MIN), told(window, empty), true, Some(i64::MIN)),
        ] {
            let mut bound = known();
            bound.heartbeat(head_max_ms, &told, is_current);
            assert_eq!(bound.limit_ms(), limit, "{head_max_ms:?} {told:?} {is_current}");
        }
    }
}
