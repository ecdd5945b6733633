//! `--store.limits.request-series` and `--store.limits.request-samples`, counted while frames arrive. Pure.

use tonic::Status;

/// Samples that a chunk counts as, whatever is in it.
const SAMPLES_PER_CHUNK: u64 = 120;

/// The limits of every call; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Series, each part of a split series counted.
    pub series: u64,
    /// Samples: each chunk counts as 120.
    pub samples: u64,
}

/// What a call has used of its limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Series so far.
    pub series: u64,
    /// Chunks so far.
    pub chunks: u64,
}

/// Which limit a call ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Too many series.
    Series {
        /// The limit.
        limit: u64,
        /// What there was, at least.
        got: u64,
    },
    /// Too many samples.
    Samples {
        /// The limit.
        limit: u64,
        /// What there was, at least.
        got: u64,
    },
}

impl Usage {
    /// Counts one series with so many chunks.
    ///
    /// # Errors
    /// The limit that it exceeds.
    pub fn add(&mut self, chunks: usize, limits: Limits) -> Result<(), Exceeded> {
        self.series += 1;
        self.chunks += chunks as u64;
        let samples = self.chunks.saturating_mul(SAMPLES_PER_CHUNK);
        if limits.series > 0 && self.series > limits.series {
            let (limit, got) = (limits.series, self.series);
            return Err(Exceeded::Series { limit, got });
        }
        if limits.samples > 0 && samples > limits.samples {
            let (limit, got) = (limits.samples, samples);
            return Err(Exceeded::Samples { limit, got });
        }
        Ok(())
    }
}

impl From<Exceeded> for Status {
    fn from(exceeded: Exceeded) -> Self {
        let (what, flag, limit, got) = match exceeded {
            Exceeded::Series { limit, got } => ("series", "request-series", limit, got),
            Exceeded::Samples { limit, got } => ("samples", "request-samples", limit, got),
        };
        // The first half is Thanos' text, which others match on.
        Status::resource_exhausted(format!(
            "failed to send {what}: limit {limit} violated (got {got}); select less, or raise --store.limits.{flag}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_series_too_many_is_told_with_the_counts() {
        let limits = Limits { series: 2, samples: 0 };
        let mut used = Usage::default();
        assert_eq!(used.add(9, limits), Ok(()));
        assert_eq!(used.add(9, limits), Ok(()));
        let status = Status::from(used.add(9, limits).unwrap_err());
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(
            status
                .message()
                .starts_with("failed to send series: limit 2 violated (got 3)"),
            "{status}"
        );
    }

    #[test]
    fn each_chunk_counts_as_120_samples() {
        let limits = Limits {
            series: 0,
            samples: 360,
        };
        let mut used = Usage::default();
        assert_eq!(used.add(3, limits), Ok(()));
        let status = Status::from(used.add(1, limits).unwrap_err());
        assert!(
            status
                .message()
                .starts_with("failed to send samples: limit 360 violated (got 480)"),
            "{status}"
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let mut used = Usage::default();
        for _ in 0..1000 {
            assert_eq!(used.add(1000, Limits::default()), Ok(()));
        }
    }
}
