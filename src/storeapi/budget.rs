//! The memory that calls hold beyond a few MiB each: one budget for all of them together, `--store.memory-limit`.
//!
//! Requests, series to be sorted, answers in JSON and what is read ahead for slow clients are reserved from it.
//! Dropping a [`Reservation`] releases its memory, whatever ended the call.

use prometheus_client::{
    metrics::gauge::{ConstGauge, Gauge},
    registry::Registry,
};
use tonic::Status;

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Gauge,
    total: usize,
}

/// What one call holds of it; released when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        Self {
            used: Gauge::default(),
            total: total.min(isize::MAX as usize),
        }
    }

    /// Shows it in the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "narthex_query_memory_bytes",
            "Memory reserved by calls: requests, series to be sorted, answers read ahead",
            self.used.clone(),
        );
        registry.register(
            "narthex_query_memory_limit_bytes",
            "Limit of the memory reserved by all calls (--store.memory-limit)",
            ConstGauge::new(self.total as i64),
        );
    }

    /// The most bytes that may be in use.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        usize::try_from(self.used.get()).unwrap_or(0)
    }

    /// Nothing yet.
    pub fn reservation(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Reservation {
    /// Nothing yet, for another part of the same call.
    pub fn sibling(&self) -> Self {
        self.budget.reservation()
    }

    /// Bytes that this call holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Releases all but so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.budget.used.dec_by(back as i64);
        self.bytes -= back;
    }

    /// Releases so many bytes, which were reserved before.
    pub fn release(&mut self, bytes: usize) {
        self.shrink_to(self.bytes.saturating_sub(bytes));
    }

    /// Reserves memory; whether there is so much. It counts as reserved all the same: the caller must end, or release it.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let before = usize::try_from(self.budget.used.inc_by(bytes as i64)).unwrap_or(0);
        self.bytes += bytes;
        before.saturating_add(bytes) <= self.budget.total
    }

    /// Reserves memory for one series of `size` bytes.
    ///
    /// # Errors
    /// `ResourceExhausted`: there is not so much; `why` names what had to be collected.
    pub fn reserve_for(&mut self, size: usize, why: &str) -> Result<(), Status> {
        if self.reserve(size) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "{why} have to be held in memory: this call needs more than {} bytes for them, all calls together may use \
             {} (--store.memory-limit); select less, or a shorter time",
            self.bytes, self.budget.total
        )))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_share_it_and_what_a_call_held_comes_back() {
        let budget = Budget::new(10_000);
        let (mut one, mut other) = (budget.reservation(), budget.reservation());
        one.reserve_for(6001, "series").unwrap();
        let error = other.reserve_for(4000, "series that carry cluster").unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(error.message().starts_with("series that carry cluster have"), "{error}");
        one.release(901);
        one.shrink_to(100);
        other.shrink_to(0);
        assert_eq!((budget.used(), one.bytes(), other.bytes()), (100, 100, 0));
        drop((one, other));
        assert_eq!(budget.used(), 0);
        budget.reservation().reserve_for(9000, "series").unwrap();
    }
}
