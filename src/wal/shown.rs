//! What an operator sees of the log that is sent. Kept in memory only.

use std::sync::{Arc, Mutex, PoisonError};

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// The newest generation; empty until there is one.
    pub generation: String,
    /// What Prometheus had taken at this time (ms since 1970) is in the bucket; `None` until that is known.
    pub durable_ms: Option<i64>,
    /// Why the last round could not do all that is due, while that lasts.
    pub failure: Option<String>,
}

/// Where the newest overview is found; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Overview>>);

impl Shown {
    /// The newest one.
    pub fn newest(&self) -> Overview {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Overview)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
