//! How far the clock of a store is from the one of this host, by the `Date` of its answers. In whole seconds, and with the time
//! that an answer takes in it: good for minutes, which is what signatures are judged by. Kept in memory only.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{Timestamp, fmt::rfc2822};

/// The last offset that was seen; clones share it.
#[derive(Clone, Debug, Default)]
pub struct StoreClock(Arc<Mutex<Option<i64>>>);

impl StoreClock {
    /// By how many seconds the store's clock is ahead of ours, behind if it is negative; `None` before its first answer.
    pub fn ahead_secs(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the `Date` of an answer that has just come; what is none tells nothing.
    pub(super) fn observe(&self, date: &str) {
        self.observe_at(date, Timestamp::now());
    }

    fn observe_at(&self, date: &str, now: Timestamp) {
        if let Ok(theirs) = rfc2822::DateTimeParser::new().parse_timestamp(date) {
            let ahead = theirs.as_second() - now.as_second();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_answers_are_held_against_the_own_clock() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = StoreClock::default();
        clock.observe_at("soon", now);
        assert_eq!(clock.ahead_secs(), None);
        for (date, ahead) in [
            ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
            ("Thu, 01 Jan 2026 01:00:00 GMT", 3600),
            ("Wed, 31 Dec 2025 23:59:30 GMT", -30),
            ("", -30),
        ] {
            clock.observe_at(date, now);
            assert_eq!(clock.ahead_secs(), Some(ahead), "{date}");
        }
    }
}
