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
pub(super) struct Rarely(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    unsaid: u64,
}

impl Rarely {
    /// Whether it may be said now: then with how often it was not since the last time.
    pub(super) fn now(&self) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| last.elapsed() < EVERY) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(Instant::now());
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_at_times_and_counted() {
        let rarely = Rarely::default();
        assert_eq!(rarely.now(), Some(0));
        assert_eq!((rarely.now(), rarely.now()), (None, None));
        tokio::time::sleep(EVERY).await;
        assert_eq!((rarely.now(), rarely.now()), (Some(2), None));
        tokio::time::sleep(EVERY).await;
        assert_eq!(rarely.now(), Some(1));
    }
}
