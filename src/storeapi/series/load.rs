//! How much there is to do for Series calls at a moment, and what they may use: for whoever shows it to an operator.

use std::time::Duration;

use super::{Series, limits::Limits};

/// The state of the Series service at a moment. What is counted begins with the process.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Remote reads that Prometheus may be asked for at once.
    pub slots: usize,
    /// How many of them are taken.
    pub running: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Age of the oldest remote read in progress.
    pub oldest: Option<Duration>,
    /// Calls that were refused because too many waited, or that waited too long.
    pub shed: u64,
    /// Calls that were ended because their client read nothing for too long.
    pub stalled: u64,
    /// Calls that were ended because their client read too slowly.
    pub lagged: u64,
    /// Memory reserved by all calls, in bytes.
    pub memory_bytes: usize,
    /// The limit of that, in bytes.
    pub memory_limit_bytes: usize,
    /// The part of it in which answers wait for slow clients, in bytes.
    pub read_ahead_bytes: usize,
    /// What waits for them in files, in bytes; `None` without `--store.spill-dir`.
    pub spilled_bytes: Option<u64>,
    /// What a call may ask for; 0 is no limit.
    pub limits: Limits,
}

impl Series {
    /// The state at this moment.
    pub fn load(&self) -> Load {
        let inner = &*self.inner;
        let (gate, budget) = (inner.remote_reads.gate(), &inner.context.budget);
        let (shed, stalled, lagged) = inner.metrics.ended();
        Load {
            slots: gate.slots(),
            running: gate.in_flight(),
            waiting: gate.waiting(),
            oldest: gate.oldest(),
            shed,
            stalled,
            lagged,
            memory_bytes: budget.used(),
            memory_limit_bytes: budget.total(),
            read_ahead_bytes: inner.slow_clients.memory.used(),
            spilled_bytes: inner.slow_clients.spill_dir.as_ref().map(|dir| dir.used()),
            limits: inner.remote_reads.limits(),
        }
    }
}
