//! Limits how often a warning that strangers can cause is logged, and counts those that were suppressed.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The shortest time between two logged warnings.
const EVERY: Duration = Duration::from_secs(30);

/// When a warning was last logged.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<Logged>);

#[derive(Debug, Default)]
struct Logged {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a warning may be logged now: if so, with how many were suppressed since the last one.
    pub(super) fn check(&self) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.last.is_some_and(|last| last.elapsed() < EVERY) {
            logged.suppressed += 1;
            return None;
        }
        logged.last = Some(Instant::now());
        Some(std::mem::take(&mut logged.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_at_times_and_counted() {
        let limit = LogLimit::default();
        assert_eq!(limit.check(), Some(0));
        assert_eq!((limit.check(), limit.check()), (None, None));
        tokio::time::sleep(EVERY).await;
        assert_eq!((limit.check(), limit.check()), (Some(2), None));
        tokio::time::sleep(EVERY).await;
        assert_eq!(limit.check(), Some(1));
    }
}
