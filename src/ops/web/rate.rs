//! `rate_limit` of `--http.config`: how many requests are answered.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::config::Rate;

/// Counts requests against a rate.
#[derive(Debug)]
pub(super) struct RateLimit {
    rate: Rate,
    /// When all of the burst is there again.
    full_at: Mutex<Instant>,
}

impl RateLimit {
    /// The whole burst is there.
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: Mutex::new(Instant::now()),
        }
    }

    /// Whether one more may be answered now.
    pub(super) fn allows(&self) -> bool {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + self.rate.interval;
        let most = self.rate.interval.saturating_mul(self.rate.burst);
        if next.duration_since(now) > most {
            return false;
        }
        *full_at = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_answered_and_then_one_for_each_interval() {
        let interval = Duration::from_secs(1);
        let limit = RateLimit::new(Rate { interval, burst: 3 });
        let answered = || (0..10).filter(|_| limit.allows()).count();
        assert_eq!(answered(), 3);
        tokio::time::advance(interval).await;
        assert_eq!(answered(), 1);
        tokio::time::advance(interval * 2).await;
        assert_eq!(answered(), 2);
        tokio::time::advance(interval * 100).await;
        assert_eq!(answered(), 3);
    }
}
