//! The rate limit of a bucket's requests, and how many bytes moved.
//!
//! All requests of a bucket share one [`RateLimit`]: each reserves its bytes before they move, and waits for as long as it
//! says. Nothing waits here; a request that is dropped in its wait has used its bytes up. What is counted are bytes handed to the transport or taken from it, those of a second attempt again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The fewest bytes that are waited for at once, however low the limit.
const SMALLEST_STEP: u64 = 1024;

/// The longest that a thread sleeps before it looks whether it is still wanted.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The rate limit of one bucket, and what moved; clones share it.
#[derive(Clone, Debug, Default)]
pub struct RateLimit(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Bytes in a second; 0 for no limit.
    rate: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// When the bytes that were taken so far are through.
    through: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// A limit of at most `rate` bytes in a second, both ways together; 0 means no limit.
    pub fn at_most(rate: u64) -> Self {
        Self(Arc::new(State {
            rate: AtomicU64::new(rate),
            ..State::default()
        }))
    }

    /// Ends the limit for all that begins from now on.
    pub fn lift(&self) {
        self.0.rate.store(0, Ordering::Relaxed);
    }

    /// How many bytes of bodies were sent so far.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// How many bytes of objects were received so far.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Counts `bytes` that are about to be sent; how long to wait before they may move.
    pub(super) fn send(&self, bytes: usize) -> Duration {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.reserve(bytes)
    }

    /// Counts `bytes` that arrived; how long to wait before more are asked for.
    pub(super) fn receive(&self, bytes: usize) -> Duration {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.reserve(bytes)
    }

    /// How many bytes are taken at once, so that many requests that share a low limit all move now and then: an eighth
    /// of a second's worth. Without a limit there is nothing to divide.
    pub(super) fn step(&self) -> usize {
        match self.0.rate.load(Ordering::Relaxed) {
            0 => usize::MAX,
            rate => usize::try_from((rate / 8).max(SMALLEST_STEP)).unwrap_or(usize::MAX),
        }
    }

    fn reserve(&self, bytes: usize) -> Duration {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = Instant::now();
        let mut through = self.0.through.lock().unwrap_or_else(PoisonError::into_inner);
        let start = through.map_or(now, |through| through.max(now));
        *through = Some(start + cost);
        start - now
    }
}

/// Waits, if there is something to wait for.
pub(super) async fn wait(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// Sleeps on a thread that may block, until the pause is over or `wanted` fails.
pub(super) fn sleep_unless<E>(mut pause: Duration, wanted: impl Fn() -> Result<(), E>) -> Result<(), E> {
    while !pause.is_zero() {
        wanted()?;
        let part = pause.min(LONGEST_SLEEP);
        std::thread::sleep(part);
        pause -= part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_nothing_waits_and_all_is_counted() {
        let rate_limit = RateLimit::default();
        let other = rate_limit.clone();
        assert_eq!(rate_limit.send(10) + other.send(1 << 40), Duration::ZERO);
        assert_eq!(rate_limit.receive(7), Duration::ZERO);
        assert_eq!((rate_limit.sent(), other.received()), (10 + (1 << 40), 7));
    }

    #[test]
    fn pieces_queue_behind_each_other() {
        let rate_limit = RateLimit::at_most(1000);
        assert_eq!(
            rate_limit.send(10_000),
            Duration::ZERO,
            "the first one has waited for nobody"
        );
        let second = rate_limit.receive(1000);
        assert!(
            second > Duration::from_secs(9) && second <= Duration::from_secs(10),
            "{second:?}"
        );
        assert!(rate_limit.send(1) > second);
        rate_limit.lift();
        assert_eq!(
            (rate_limit.send(1 << 30), rate_limit.step()),
            (Duration::ZERO, usize::MAX)
        );
    }

    #[test]
    fn a_low_limit_is_divided_so_that_all_move() {
        assert_eq!(RateLimit::default().step(), usize::MAX);
        assert_eq!(RateLimit::at_most(64 << 10).step(), 8 << 10);
        assert_eq!(RateLimit::at_most(1).step(), 1024);
    }

    #[test]
    fn a_sleep_ends_when_its_work_is_not_wanted_any_more() {
        assert_eq!(sleep_unless(Duration::ZERO, || Err("not asked")), Ok(()));
        assert_eq!(sleep_unless(Duration::from_secs(3600), || Err("gone")), Err("gone"));
    }
}
