//! The memory for series that have to be collected before they can be sent: one budget for all calls together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tonic::Status;

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    total: usize,
}

/// What one call holds of the budget; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        Self {
            used: Arc::default(),
            total,
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Nothing yet.
    pub fn hold(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    /// Gives back all but so many bytes.
    pub fn keep(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(back, Ordering::Relaxed);
        self.bytes -= back;
    }

    /// Gives back so many bytes, which were taken before.
    pub fn give_back(&mut self, bytes: usize) {
        self.keep(self.bytes.saturating_sub(bytes));
    }

    /// Takes memory; whether there is so much.
    pub fn take(&mut self, bytes: usize) -> bool {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.budget.total
    }

    /// Takes memory for one series of `size` bytes.
    ///
    /// # Errors
    /// `ResourceExhausted`: there is not so much; `why` says what had to be collected.
    pub fn add(&mut self, size: usize, why: &str) -> Result<(), Status> {
        if self.take(size) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "{why} have to be sorted in memory: this call needs more than {} bytes for them, all calls together may use \
             {}; select less, or a shorter time",
            self.bytes, self.budget.total
        )))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_share_it_and_what_a_call_held_comes_back() {
        let budget = Budget::new(10_000);
        let (mut one, mut other) = (budget.hold(), budget.hold());
        one.add(6001, "series").unwrap();
        let error = other.add(4000, "series that carry cluster").unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
        assert!(error.message().starts_with("series that carry cluster have"), "{error}");
        one.give_back(901);
        one.keep(100);
        other.keep(0);
        assert_eq!(budget.used(), 100);
        drop((one, other));
        assert_eq!(budget.used(), 0);
        budget.hold().add(9000, "series").unwrap();
    }
}
