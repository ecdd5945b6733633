//! Warnings that strangers can cause: said at most once in a while, with how many went unsaid.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often something is said at most.
const EVERY: Duration = Duration::from_secs(30);

/// When something was last said.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<Logged>);

#[derive(Debug, Default)]
struct Logged {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Whether it may be said now: then with how often it was not since the last time.
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
