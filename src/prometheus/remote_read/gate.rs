//! The queue before Prometheus' remote reads: one place fewer than Prometheus itself has, so that others get one, too.
//!
//! First come, first served. The number of waiting calls is bounded, and so is the time each waits. A pass whose answer
//! was not read to its end is given back only after a pause: until then Prometheus may not have noticed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls that may wait at once.
const WAITING_MAX: usize = 1000;
/// Prometheus' limit when it does not tell its own (`--storage.remote.read-concurrent-limit`).
const DEFAULT_LIMIT: usize = 10;
/// How long Prometheus may take to notice that a request was dropped.
const NOTICE: Duration = Duration::from_millis(250);

/// A call that did not get its turn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// Too many wait already.
    #[error(
        "{WAITING_MAX} calls already wait for Prometheus, which takes {places} remote reads at once from narthex: ask less \
         at once, or raise Prometheus' --storage.remote.read-concurrent-limit"
    )]
    Full {
        /// The calls that may run at once.
        places: usize,
    },
    /// Its turn did not come in time.
    #[error(
        "waited {waited:?} for one of {places} remote reads of Prometheus: ask less at once, or raise Prometheus' \
         --storage.remote.read-concurrent-limit"
    )]
    TooLate {
        /// How long it waited.
        waited: Duration,
        /// The calls that may run at once.
        places: usize,
    },
}

/// The queue; clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    /// Places there should be and places there are: fewer are reached as passes come back.
    places: Mutex<(usize, usize)>,
    waiting: AtomicUsize,
    patience: Duration,
}

/// Leave to read; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Inner>,
    permit: Option<OwnedSemaphorePermit>,
    finished: bool,
}

/// Our places under a limit of Prometheus' flag, if it tells that: one below it, at least one.
pub fn places(limit: Option<&str>) -> usize {
    let limit = limit.and_then(|text| text.parse::<usize>().ok());
    limit.unwrap_or(DEFAULT_LIMIT).saturating_sub(1).max(1)
}

impl Gate {
    /// A queue with `places`, in which nobody waits longer than `patience`.
    pub fn new(places: usize, patience: Duration) -> Self {
        let inner = Inner {
            permits: Arc::new(Semaphore::new(places)),
            places: Mutex::new((places, places)),
            waiting: AtomicUsize::new(0),
            patience,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Changes the number of places; passes that are out stay good.
    pub fn set_places(&self, wanted: usize) {
        let mut places = self.inner.places.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        if places.0 == wanted {
            return;
        }
        places.0 = wanted;
        if places.1 < wanted {
            self.inner.permits.add_permits(wanted - places.1);
            places.1 = wanted;
        } else {
            places.1 -= self.inner.permits.forget_permits(places.1 - wanted);
        }
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    /// How many passes are out.
    pub fn in_flight(&self) -> usize {
        let (_, there) = *self.inner.places.lock().unwrap_or_else(PoisonError::into_inner);
        there.saturating_sub(self.inner.permits.available_permits())
    }

    /// Waits for its turn; a future that is dropped leaves the queue.
    ///
    /// # Errors
    /// When the queue is full, or the turn does not come in time.
    pub async fn enter(&self) -> Result<Pass, Shed> {
        let pass = |permit| Pass {
            gate: Arc::clone(&self.inner),
            permit: Some(permit),
            finished: false,
        };
        if let Ok(permit) = Arc::clone(&self.inner.permits).try_acquire_owned() {
            return Ok(pass(permit));
        }
        let places = self.inner.places.lock().unwrap_or_else(PoisonError::into_inner).0;
        let waiting = Waiting::new(&self.inner.waiting);
        if waiting.before >= WAITING_MAX {
            return Err(Shed::Full { places });
        }
        let turn = Arc::clone(&self.inner.permits).acquire_owned();
        match tokio::time::timeout(self.inner.patience, turn).await {
            Ok(Ok(permit)) => Ok(pass(permit)),
            // The semaphore is never closed, so that only time can run out.
            Ok(Err(_)) | Err(_) => Err(Shed::TooLate {
                waited: self.inner.patience,
                places,
            }),
        }
    }
}

struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pass {
    /// The answer was read to its end: the place is free at once.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let gate = Arc::clone(&self.gate);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !self.finished => {
                runtime.spawn(async move {
                    tokio::time::sleep(NOTICE).await;
                    gate.give_back(permit);
                });
            }
            _ => gate.give_back(permit),
        }
    }
}

impl Inner {
    fn give_back(&self, permit: OwnedSemaphorePermit) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.1 > places.0 {
            places.1 -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn there_is_one_place_fewer_than_prometheus_has() {
        assert_eq!(places(Some("10")), 9);
        assert_eq!(places(Some("1")), 1);
        assert_eq!(places(Some("0")), 1);
        assert_eq!(places(Some("many")), 9);
        assert_eq!(places(None), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_a_dropped_wait_leaves_the_queue() {
        let gate = Gate::new(1, LONG);
        let first = gate.enter().await.unwrap();
        let mut second = Box::pin(gate.enter());
        let mut third = Box::pin(gate.enter());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        assert_eq!((gate.waiting(), gate.in_flight()), (2, 1));
        drop(second);
        assert_eq!(gate.waiting(), 1);
        first.finish();
        third.await.unwrap().finish();
        assert_eq!((gate.waiting(), gate.in_flight()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_what_to_do() {
        let gate = Gate::new(2, Duration::from_secs(5));
        let _held = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let error = gate.enter().await.unwrap_err();
        assert!(
            error.to_string().contains("waited 5s for one of 2 remote reads"),
            "{error}"
        );
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end() {
        let gate = Gate::new(1, LONG);
        let _held = gate.enter().await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(gate.enter())).collect();
        for wait in &mut waiting {
            assert!(futures_util::poll!(wait.as_mut()).is_pending());
        }
        assert_eq!(gate.enter().await.unwrap_err(), Shed::Full { places: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_stays_taken_for_a_moment_when_an_answer_was_dropped() {
        let gate = Gate::new(1, LONG);
        drop(gate.enter().await.unwrap());
        let before = tokio::time::Instant::now();
        gate.enter().await.unwrap().finish();
        assert!(before.elapsed() >= NOTICE);
    }

    #[tokio::test(start_paused = true)]
    async fn places_can_become_more_and_fewer() {
        let gate = Gate::new(3, LONG);
        let passes = [
            gate.enter().await.unwrap(),
            gate.enter().await.unwrap(),
            gate.enter().await.unwrap(),
        ];
        gate.set_places(1);
        for pass in passes {
            assert!(futures_util::poll!(std::pin::pin!(gate.enter())).is_pending());
            pass.finish();
        }
        let only = gate.enter().await.unwrap();
        assert!(futures_util::poll!(std::pin::pin!(gate.enter())).is_pending());
        gate.set_places(2);
        gate.enter().await.unwrap().finish();
        only.finish();
        assert_eq!(gate.in_flight(), 0);
    }
}
