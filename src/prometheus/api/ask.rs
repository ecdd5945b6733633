//! What a question may cost: time, memory, a thread.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::threads::Lane;

/// How a question may be asked; clones are of the same question.
#[derive(Clone)]
pub struct Ask {
    since: Instant,
    by: Instant,
    lane: Option<Lane>,
    place: Option<Arc<dyn Fn(&'static str) + Send + Sync>>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("by", &self.by).finish_non_exhaustive()
    }
}

impl Ask {
    /// Until `by`: for its turn, and for the whole answer.
    pub fn until(by: Instant) -> Self {
        Self {
            since: Instant::now(),
            by,
            lane: None,
            place: None,
        }
    }

    /// Large answers are read on `lane`; without one each is read where it is asked for.
    #[must_use]
    pub fn on(mut self, lane: Lane) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Calls `place` with a few words for each step that the question reaches.
    #[must_use]
    pub fn telling(mut self, place: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.place = Some(Arc::new(place));
        self
    }

    pub(in crate::prometheus) fn by(&self) -> Instant {
        self.by
    }

    /// How long it may take in all, in whole milliseconds.
    pub(in crate::prometheus) fn time(&self) -> Duration {
        let time = self.by.duration_since(self.since);
        Duration::from_millis(time.as_micros().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    }

    pub(in crate::prometheus) fn is_at(&self, place: &'static str) {
        if let Some(tell) = &self.place {
            tell(place);
        }
    }

    pub(super) fn lane(&self) -> Option<&Lane> {
        self.lane.as_ref()
    }
}
