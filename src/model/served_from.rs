//! From which time on samples have to be served, for as long as that is known.

use tokio::time::Instant;

/// The bucket is proven to have every sample that is older; known until a moment at which it has to be proven anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedFrom {
    /// The first time that has to be served (ms since 1970).
    pub time_ms: i64,
    /// From this moment on nothing is known.
    pub known_until: Instant,
}

impl ServedFrom {
    /// The first time that has to be served (ms since 1970), as far as that is known at the moment `now`.
    pub fn at(&self, now: Instant) -> Option<i64> {
        (now < self.known_until).then_some(self.time_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_proven_is_known_until_then_and_not_at_that_moment() {
        let now = Instant::now();
        let served = ServedFrom {
            time_ms: 7,
            known_until: now + Duration::from_millis(1),
        };
        assert_eq!(served.at(now), Some(7));
        assert_eq!(served.at(served.known_until), None);
        assert_eq!(served.at(now + Duration::from_secs(1)), None);
    }
}
