//! The memory in which answers wait for slow clients: `--store.read-ahead` for all of them, a part of the account of all calls.
//!
//! A call may hold three times what is left for others, so that one slow client takes three quarters, and a few more still get
//! a share each, the smaller the more they are. What a call holds beside its pieces counts, too, once it has lagged: so the process
//! does not take more than it was told, however many clients there are.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::storeapi::budget::{Budget, Reservation};

/// How many times what is left a call may hold.
const TIMES_WHAT_IS_LEFT: usize = 3;
/// Of so many bytes one goes to what is not counted: the allocator, and the frames that are read.
const LOST: usize = 6;
/// What a call that has lagged holds beside its pieces, until it ends: what its connection has taken and not sent, in bytes.
const BESIDE: usize = 512 << 10;

/// The memory; clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    budget: Budget,
    used: Gauge,
    total: usize,
}

/// What one call holds of it; given back when dropped.
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
            budget,
            used: Gauge::default(),
            total: total - total / LOST,
        }
    }

    /// Shows it in the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "narthex_read_ahead_bytes",
            "Memory in which answers wait for clients that read slowly (at most --store.read-ahead)",
            self.used.clone(),
        );
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
    /// The call lags.
    pub fn mark_lagging(&mut self) {
        if self.beside == 0 {
            self.reserve_anyway(BESIDE);
            self.beside = BESIDE;
        }
    }

    /// Takes memory, if this call may have so much more.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let used = usize::try_from(self.memory.used.get()).unwrap_or(0);
        let left = self.memory.total.saturating_sub(used.saturating_add(bytes));
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

    /// Takes memory that is in use already, whether there is so much or not.
    pub fn reserve_anyway(&mut self, bytes: usize) {
        self.reservation.reserve(bytes);
        self.memory.used.inc_by(bytes as i64);
    }

    /// Gives back so many bytes, which were taken before.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.reservation.bytes() - self.beside);
        self.reservation.release(bytes);
        self.memory.used.dec_by(bytes as i64);
    }

    /// The call has ended: gives back everything.
    pub fn end(&mut self) {
        self.beside = 0;
        self.release_all();
    }

    /// Gives back all that pieces take.
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
        share.mark_lagging();
        share.mark_lagging();
        share.release_all();
        assert_eq!(memory.used.get(), BESIDE as i64);
        drop(share);
        assert_eq!(memory.used.get(), 0);
        assert_eq!(Memory::new(Budget::new(MIB), 0).share().reservation.bytes(), 0);
        assert!(!Memory::new(Budget::new(MIB), 0).share().reserve(1));
    }
}
