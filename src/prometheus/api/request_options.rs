//! What an API request may use: time, and threads for long responses; and whom it reports its progress to.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::threads::BlockingPool;

/// How a request may be asked; clones are of the same request.
#[derive(Clone)]
pub struct RequestOptions {
    started: Instant,
    deadline: Instant,
    pool: Option<BlockingPool>,
    report: Option<Arc<dyn Fn(&'static str) + Send + Sync>>,
}

impl fmt::Debug for RequestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestOptions")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl RequestOptions {
    /// Until `deadline`: for the wait in the queue, and for the whole response.
    pub fn until(deadline: Instant) -> Self {
        Self {
            started: Instant::now(),
            deadline,
            pool: None,
            report: None,
        }
    }

    /// Large answers are read on `pool`; without one each is read where it is asked for.
    #[must_use]
    pub fn on_pool(mut self, pool: BlockingPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Calls `report` with a few words for each step that the request reaches.
    #[must_use]
    pub fn reporting(mut self, report: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    pub(in crate::prometheus) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long it may take in all, in whole milliseconds.
    pub(in crate::prometheus) fn limit(&self) -> Duration {
        let limit = self.deadline.duration_since(self.started);
        Duration::from_millis(limit.as_micros().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    }

    pub(in crate::prometheus) fn report(&self, step: &'static str) {
        if let Some(report) = &self.report {
            report(step);
        }
    }

    pub(super) fn pool(&self) -> Option<&BlockingPool> {
        self.pool.as_ref()
    }
}
