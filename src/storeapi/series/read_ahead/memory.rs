//! The memory in which answers wait for slow clients: `--store.read-ahead` for all of them, a part of the budget of all
//! calls.
//!
//! A call may hold three times what is left for others, so that one slow client gets three quarters, and more of them
//! get a share each that shrinks with their number. What a call holds beside its pieces counts, too, once it has
//! lagged: so the process does not use more than it may, however many clients there are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::storeapi::budget::{Budget, Reservation};

/// How many times what is left a call may hold.
const TIMES_WHAT_IS_LEFT: usize = 3;
/// Of so many bytes one goes to what is not counted: the allocator, and the frames that are read.
const LOST: usize = 6;
/// What a call that has lagged holds beside its pieces, until it ends: what its connection has taken and not sent, in bytes.
const BESIDE: usize = 512 << 10;
/// Of so many bytes of the budget one may go to that, for all calls together: the rest stays for requests and other answers.
const BESIDE_PART: usize = 2;

/// The memory; clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    budget: Budget,
    used: Gauge,
    total: usize,
    /// What calls that have lagged hold beside their pieces, and the most of it.
    beside: Arc<AtomicUsize>,
    beside_max: usize,
}

/// What one call holds of it; released when dropped.
#[derive(Debug)]
pub struct Share {
    memory: Memory,
    reservation: Reservation,
    /// Bytes that are held until the call ends.
    beside: usize,
}

impl Memory {
    /// Memory of `total` bytes, which are taken from `budget` as they are needed.
    pub fn new(budget: Budget, total: usize) -> Self {
        Self {
            beside_max: budget.total() / BESIDE_PART,
            budget,
            used: Gauge::default(),
            total: total - total / LOST,
            beside: Arc::default(),
        }
    }

    /// Shows it in the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "narthex_read_ahead_bytes",
            "Memory of answers that wait for slow clients (at most --store.read-ahead)",
            self.used.clone(),
        );
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        usize::try_from(self.used.get()).unwrap_or(0)
    }

    /// Nothing yet.
    pub fn share(&self) -> Share {
        Share {
            reservation: self.budget.reservation(),
            memory: self.clone(),
            beside: 0,
        }
    }
}

impl Share {
    /// The call lags; whether there is memory for what it holds beside its pieces from now on. There always is for one call.
    pub fn mark_lagging(&mut self) -> bool {
        if self.beside > 0 {
            return true;
        }
        let before = self.memory.beside.fetch_add(BESIDE, Ordering::Relaxed);
        if before > 0 && before + BESIDE > self.memory.beside_max {
            self.memory.beside.fetch_sub(BESIDE, Ordering::Relaxed);
            return false;
        }
        self.reserve_anyway(BESIDE);
        self.beside = BESIDE;
        true
    }

    /// Reserves memory, if this call may have so much more.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let left = (self.memory.total).saturating_sub(self.memory.used().saturating_add(bytes));
        let may_hold = left.saturating_mul(TIMES_WHAT_IS_LEFT);
        let pieces = self.reservation.bytes() - self.beside;
        if pieces.saturating_add(bytes) > may_hold {
            return false;
        }
        if !self.reservation.reserve(bytes) {
            self.reservation.release(bytes);
            return false;
        }
        self.memory.used.inc_by(bytes as i64);
        true
    }

    /// Reserves memory that is already in use, whether there is so much or not.
    pub fn reserve_anyway(&mut self, bytes: usize) {
        self.reservation.reserve(bytes);
        self.memory.used.inc_by(bytes as i64);
    }

    /// Releases so many bytes, which were reserved before.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.reservation.bytes() - self.beside);
        self.reservation.release(bytes);
        self.memory.used.dec_by(bytes as i64);
    }

    /// The call has ended: releases everything.
    pub fn end(&mut self) {
        let beside = std::mem::take(&mut self.beside);
        self.memory.beside.fetch_sub(beside, Ordering::Relaxed);
        self.release_all();
    }

    /// Releases all that pieces take.
    pub fn release_all(&mut self) {
        self.release(self.reservation.bytes());
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// How much `share` gets, a MiB at a time.
    fn fill(share: &mut Share) -> usize {
        std::iter::from_fn(|| share.reserve(MIB).then_some(1)).count()
    }

    #[test]
    fn one_call_gets_three_quarters_and_the_next_ones_a_share_each() {
        let budget = Budget::new(256 * MIB);
        let memory = Memory::new(budget.clone(), 64 * MIB + 64 * MIB / 5);
        let mut shares: Vec<Share> = (0..4).map(|_| memory.share()).collect();
        let got: Vec<usize> = shares.iter_mut().map(fill).collect();
        assert_eq!(got, [48, 12, 3, 0]);
        assert_eq!(budget.used(), 63 * MIB);
        shares.remove(0);
        assert_eq!(budget.used(), 15 * MIB);
        assert_eq!(fill(&mut shares[0]), 33);
        drop(shares);
        assert_eq!((budget.used(), memory.used.get()), (0, 0));
    }

    #[test]
    fn many_slow_calls_leave_half_of_the_memory_to_others() {
        let budget = Budget::new(256 * MIB);
        let memory = Memory::new(budget.clone(), 64 * MIB);
        let mut shares: Vec<Share> = (0..1000).map(|_| memory.share()).collect();
        let lagging = shares
            .iter_mut()
            .filter_map(|share| share.mark_lagging().then_some(()))
            .count();
        assert_eq!((lagging, budget.used()), (256, 128 * MIB));
        assert!(budget.reservation().reserve(100 * MIB));
        // A call that ends makes room for another.
        shares[0].end();
        assert!(shares[999].mark_lagging() && !shares[998].mark_lagging());
        drop(shares);
        assert_eq!(budget.used(), 0);
        assert!(memory.share().mark_lagging());
        let tiny = Memory::new(Budget::new(1), 0);
        assert!(tiny.share().mark_lagging(), "one call always may");
    }

    #[test]
    fn without_memory_in_the_account_there_is_none_here() {
        let budget = Budget::new(10 * MIB);
        let memory = Memory::new(budget.clone(), 64 * MIB);
        let mut other = budget.reservation();
        assert!(other.reserve(8 * MIB));
        let mut share = memory.share();
        assert_eq!((fill(&mut share), budget.used()), (2, 10 * MIB));
        share.reserve_anyway(3 * MIB);
        share.release(5 * MIB);
        assert_eq!((budget.used(), memory.used.get()), (8 * MIB, 0));
        assert!(share.mark_lagging() && share.mark_lagging());
        share.release_all();
        assert_eq!(memory.used.get(), BESIDE as i64);
        drop(share);
        assert_eq!(memory.used.get(), 0);
        assert_eq!(Memory::new(Budget::new(MIB), 0).share().reservation.bytes(), 0);
        assert!(!Memory::new(Budget::new(MIB), 0).share().reserve(1));
    }
}
