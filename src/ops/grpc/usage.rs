//! How a connection is used: whether it may be closed for a new one, and which goes first.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::ops::connections::{self, Rank};

/// What a connection and the server share.
#[derive(Debug)]
pub(super) struct Usage {
    born: Instant,
    /// A call may be without progress for so long before its connection may be closed for a new one.
    patience: Duration,
    running: AtomicUsize,
    last_ms: AtomicU64,
}

impl Usage {
    /// A connection that was accepted now, by a server that was started at `born`.
    pub(super) fn new(born: Instant, patience: Duration) -> Self {
        let usage = Self {
            born,
            patience,
            running: AtomicUsize::new(0),
            last_ms: AtomicU64::new(0),
        };
        usage.touch();
        usage
    }

    /// A call has begun.
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    /// A call has ended, for whatever reason.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    /// A call makes progress: it begins or ends, or a part of its request or answer goes through.
    pub(super) fn touch(&self) {
        self.last_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl connections::Usage for Usage {
    /// One without calls may go at any time, one with calls when none of them has made progress for a while: its client
    /// asks again, over a new connection.
    fn rank(&self) -> Option<Rank> {
        let busy = self.running.load(Ordering::Relaxed) > 0;
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        let quiet = Duration::from_millis(self.age_ms().saturating_sub(last_ms));
        (!busy || quiet >= self.patience).then_some(Rank { busy, last_ms })
    }
}
