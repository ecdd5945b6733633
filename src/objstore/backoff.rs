//! When to try again: exponential with full jitter, so that many sidecars do not return to a sick store in step.
//!
//! [`retry_transient`] is for who has one operation to bring to an end; who comes back by himself, as the shipper does with
//! each pass, keeps a `Backoff`. Both stand above a [`Bucket`](super::Bucket), whose calls have tried again already
//! what a few seconds can heal. Nothing is kept between two calls; dropping one ends it, in a wait as in an attempt.

use std::time::Duration;

use super::Error;

/// The first wait is at most this long.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer than this.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Begins anew after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: between nothing and the ceiling, which doubles from 1 s to 30 s.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(rand::random::<f64>())
    }

    fn ceiling(&self) -> Duration {
        FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST)
    }
}

/// An error that tells whether another try can succeed without anybody changing anything.
pub trait Transient {
    /// Whether it can.
    fn is_transient(&self) -> bool;
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }
}

/// Runs a whole operation again while it fails with what is transient, at most `tries` times in all (at least once), with a
/// growing wait before each further try. `on_retry` gets each failure after which it is tried again, and the wait that
/// follows, for the caller's line in the log; the last failure is returned and not passed to it.
///
/// # Errors
/// The first one that does not pass, or that of the last try.
pub async fn retry_transient<T, E, F>(
    tries: u32,
    mut on_retry: impl FnMut(&E, Duration),
    mut operation: impl FnMut() -> F,
) -> Result<T, E>
where
    E: Transient,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::default();
    for _ in 1..tries {
        let error = match operation().await {
            Err(error) if error.is_transient() => error,
            settled => return settled,
        };
        let wait = backoff.next();
        on_retry(&error, wait);
        // Not kept while it waits: an error may hold what a further try needs.
        drop(error);
        tokio::time::sleep(wait).await;
    }
    operation().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_thirty_seconds_and_falls_back() {
        let mut backoff = Backoff::default();
        let mut ceilings = Vec::new();
        for _ in 0..7 {
            ceilings.push(backoff.ceiling().as_secs());
            let before = backoff.ceiling();
            assert!(backoff.next() <= before);
        }
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.ceiling().as_secs(), 1);
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Trouble {
        Transient,
        Stays,
    }

    impl Transient for Trouble {
        fn is_transient(&self) -> bool {
            *self == Trouble::Transient
        }
    }

    /// How it ends, how often it was tried, and how often that was told.
    async fn run(tries: u32, outcomes: &[Result<u8, Trouble>]) -> (Result<u8, Trouble>, usize, usize) {
        let (tried, told) = (Cell::new(0), Cell::new(0));
        let ended = retry_transient(
            tries,
            |_, _| told.set(told.get() + 1),
            || {
                tried.set(tried.get() + 1);
                std::future::ready(outcomes[tried.get() - 1])
            },
        );
        (ended.await, tried.get(), told.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_up_to_the_limit_and_nothing_else_is() {
        use Trouble::{Stays, Transient};
        for (tries, outcomes, expected) in [
            (5, &[Ok(1)][..], (Ok(1), 1, 0)),
            (5, &[Err(Transient), Err(Transient), Ok(3)], (Ok(3), 3, 2)),
            (5, &[Err(Transient), Err(Stays)], (Err(Stays), 2, 1)),
            (3, &[Err(Transient); 3], (Err(Transient), 3, 2)),
            (1, &[Err(Transient)], (Err(Transient), 1, 0)),
            (0, &[Ok(7)], (Ok(7), 1, 0)),
        ] {
            assert_eq!(run(tries, outcomes).await, expected, "{tries} {outcomes:?}");
        }
    }
}
