//! The queues of API requests of clients: two, so that a flood of one kind does not delay the other.
//!
//! First come, first served within each. The number of waiting requests is bounded, and each waits until its own
//! deadline at most. A dropped future leaves the queue; dropping a permit releases its slot. Nothing outlives the
//! process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::error::Shed;

/// Requests of each kind at once.
pub(super) const SLOTS: usize = 8;
/// Requests of each kind that may wait at once.
pub(super) const WAITING_MAX: usize = 1000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Names and values of labels, and label sets of series.
    Labels,
    /// Rules, targets, metadata, exemplars, the numbers of the storage.
    Others,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Others => "others",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// What is counted, by kind.
#[derive(Clone, Debug)]
struct Metrics {
    waiting: Family<KindLabel, Gauge>,
    running: Family<KindLabel, Gauge>,
    wait: Family<KindLabel, Histogram, fn() -> Histogram>,
    shed: Family<KindLabel, Counter>,
}

/// The queues.
#[derive(Debug)]
pub(super) struct RequestQueues {
    labels: Arc<Queue>,
    others: Arc<Queue>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Queue {
    slots: Arc<Semaphore>,
    queued: AtomicUsize,
    waiting: Gauge,
    running: Gauge,
    wait: Histogram,
    shed: Counter,
}

/// Permission to send a request.
#[derive(Debug)]
pub(super) struct Permit {
    queue: Arc<Queue>,
    _slot: OwnedSemaphorePermit,
}

impl RequestQueues {
    /// Empty queues.
    pub(super) fn new() -> Self {
        let wait = || Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0]);
        let metrics = Metrics {
            waiting: Family::default(),
            running: Family::default(),
            wait: Family::new_with_constructor(wait),
            shed: Family::default(),
        };
        // All kinds are there from the start.
        let queue = |kind: Kind| {
            let label = KindLabel { kind: kind.name() };
            Arc::new(Queue {
                slots: Arc::new(Semaphore::new(SLOTS)),
                queued: AtomicUsize::new(0),
                waiting: metrics.waiting.get_or_create(&label).clone(),
                running: metrics.running.get_or_create(&label).clone(),
                wait: metrics.wait.get_or_create(&label).clone(),
                shed: metrics.shed.get_or_create(&label).clone(),
            })
        };
        let (labels, others) = (queue(Kind::Labels), queue(Kind::Others));
        Self {
            labels,
            others,
            metrics,
        }
    }

    /// Registers what is counted.
    pub(super) fn register(&self, registry: &mut Registry) {
        let metrics = self.metrics.clone();
        registry.register(
            "narthex_prometheus_api_requests_waiting",
            "API requests of clients that wait for a slot at Prometheus, by kind: labels, or others",
            metrics.waiting,
        );
        registry.register(
            "narthex_prometheus_api_requests_running",
            "API requests of clients that Prometheus is answering, by kind",
            metrics.running,
        );
        registry.register(
            "narthex_prometheus_api_request_wait_seconds",
            "How long an API request of a client waited for a slot at Prometheus, by kind",
            metrics.wait,
        );
        registry.register(
            "narthex_prometheus_api_requests_shed",
            "API requests of clients that were refused because too many waited, or that waited too long, by kind",
            metrics.shed,
        );
    }

    /// Waits for a turn until `by`.
    ///
    /// # Errors
    /// The queue is full, or the turn does not come in time.
    pub(super) async fn acquire(&self, kind: Kind, by: Instant) -> Result<Permit, Shed> {
        let queue = match kind {
            Kind::Labels => &self.labels,
            Kind::Others => &self.others,
        };
        let since = Instant::now();
        let slot = match Arc::clone(&queue.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => queue.wait(by).await.inspect_err(|_| {
                queue.shed.inc();
            })?,
        };
        queue.wait.observe(since.elapsed().as_secs_f64());
        queue.running.inc();
        Ok(Permit {
            queue: Arc::clone(queue),
            _slot: slot,
        })
    }
}

impl Queue {
    async fn wait(&self, by: Instant) -> Result<OwnedSemaphorePermit, Shed> {
        let since = Instant::now();
        let waiting = Waiting::new(self);
        if waiting.before >= WAITING_MAX {
            return Err(Shed::Full {
                most: WAITING_MAX,
                slots: SLOTS,
            });
        }
        match timeout_at(by, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            // The semaphore is never closed, so that only time can run out.
            Ok(Err(_)) | Err(_) => Err(Shed::TooLate {
                waited: since.elapsed(),
                slots: SLOTS,
            }),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.running.dec();
    }
}

/// Counts one that waits until it is dropped.
struct Waiting<'a> {
    queue: &'a Queue,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(queue: &'a Queue) -> Self {
        queue.waiting.inc();
        let before = queue.queued.fetch_add(1, Ordering::Relaxed);
        Self { queue, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.queued.fetch_sub(1, Ordering::Relaxed);
        self.queue.waiting.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::poll;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn fill(queues: &RequestQueues, kind: Kind) -> Vec<Permit> {
        let mut held = Vec::new();
        for _ in 0..SLOTS {
            held.push(queues.acquire(kind, soon()).await.unwrap());
        }
        held
    }

    #[tokio::test(start_paused = true)]
    async fn one_kind_does_not_wait_for_the_other() {
        let queues = RequestQueues::new();
        let mut held = fill(&queues, Kind::Others).await;
        let mut waiting = Box::pin(queues.acquire(Kind::Others, soon()));
        assert!(poll!(waiting.as_mut()).is_pending());
        let labels = queues.acquire(Kind::Labels, soon()).await.unwrap();
        let counts = |queue: &Queue| (queue.waiting.get(), queue.running.get(), queue.shed.get());
        assert_eq!(counts(&queues.others), (1, SLOTS as i64, 0));
        assert_eq!(counts(&queues.labels), (0, 1, 0));
        held.pop();
        held.push(waiting.await.unwrap());
        drop((held, labels));
        assert_eq!(counts(&queues.others), (0, 0, 0));
        assert_eq!(counts(&queues.labels), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_until_the_deadline_and_a_dropped_wait_leaves_the_queue() {
        let queues = RequestQueues::new();
        let held = fill(&queues, Kind::Labels).await;
        let gone = Box::pin(queues.acquire(Kind::Labels, soon()));
        drop(gone);
        let error = queues.acquire(Kind::Labels, soon()).await.unwrap_err();
        assert!(
            error.to_string().starts_with("waited 5s for one of the 8 requests"),
            "{error}"
        );
        assert_eq!((queues.labels.waiting.get(), queues.labels.shed.get()), (0, 1));
        drop(held);
        queues.acquire(Kind::Labels, soon()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end() {
        let queues = RequestQueues::new();
        let _held = fill(&queues, Kind::Others).await;
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(queues.acquire(Kind::Others, soon())))
            .collect();
        for wait in &mut waiting {
            assert!(poll!(wait.as_mut()).is_pending());
        }
        let error = queues.acquire(Kind::Others, soon()).await.unwrap_err();
        assert!(matches!(error, Shed::Full { .. }), "{error}");
    }
}
