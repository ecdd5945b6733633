//! When to try again: exponential with full jitter, so that many sidecars do not return to a sick store in step.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
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
}
