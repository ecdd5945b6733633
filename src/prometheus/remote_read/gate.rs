//! The queue before Prometheus' remote reads: one slot fewer than Prometheus itself has, so that its other clients get
//! one, too.
//!
//! Clients take turns, and within a client it is first come, first served: a client with many calls waits behind
//! itself. The number of waiting calls is bounded; when the queue is full, the client with most waiting calls loses its
//! newest one, so that nobody can fill it for the others. How long a call waits is its own affair: see
//! [`Gate::acquire`].
//!
//! **Cancel.** A future that is dropped leaves the queue, or releases the slot that it has just been granted. A permit
//! whose response was not read to its end is released only after a pause: until then Prometheus may not have noticed.
//! Nothing is kept: a crash leaves nothing behind.

mod queue;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

pub use self::queue::{ClientKey, Shed};
use self::queue::{Queue, WAITING_MAX, Waiter};

/// Prometheus' limit when it does not report it (`--storage.remote.read-concurrent-limit`).
const DEFAULT_LIMIT: usize = 10;
/// How long Prometheus may take to notice that a request was dropped.
const NOTICE: Duration = Duration::from_millis(250);

/// The queue; clones share it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Slots that there should be; more may be taken after their number was lowered.
    slots: usize,
    taken: usize,
    queue: Queue,
    /// When each permit was granted, by its number: the first is the oldest.
    running: BTreeMap<u64, Instant>,
    next: u64,
}

/// Permission to read; released when dropped.
#[derive(Debug)]
pub struct Permit {
    /// `None` once it is released.
    slot: Option<Slot>,
    number: u64,
}

/// A slot that is taken until this is dropped.
#[derive(Debug)]
struct Slot(Gate);

/// Our slots for the limit of Prometheus' flag, if it reports that: one fewer, at least one.
pub fn slots(limit: Option<&str>) -> usize {
    let limit = limit.and_then(|text| text.parse::<usize>().ok());
    limit.unwrap_or(DEFAULT_LIMIT).saturating_sub(1).max(1)
}

impl Gate {
    /// A queue with `slots`, at least one.
    pub fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            slots: slots.max(1),
            taken: 0,
            queue: Queue::default(),
            running: BTreeMap::new(),
            next: 0,
        })))
    }

    /// Changes the number of slots; permits that were granted stay valid.
    pub fn set_slots(&self, wanted: usize) {
        let mut state = self.lock();
        state.slots = wanted.max(1);
        state.serve();
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.lock().slots
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// How many slots are taken: by granted permits, and for a moment by those that were dropped before their end.
    pub fn in_flight(&self) -> usize {
        self.lock().taken
    }

    /// Age of the oldest permit that is neither finished nor dropped; `None` if there is none.
    pub fn oldest(&self) -> Option<Duration> {
        let state = self.lock();
        state.running.first_key_value().map(|(_, since)| since.elapsed())
    }

    /// Waits for `client`'s turn, for `patience` at most; without one for as long as the future lives, which is for calls
    /// that are dropped at a deadline of their own. A future that is dropped leaves the queue.
    ///
    /// # Errors
    /// When the queue is full, or the turn does not come in time.
    pub async fn acquire(&self, client: ClientKey, patience: Option<Duration>) -> Result<Permit, Shed> {
        let mut waiting = {
            let mut state = self.lock();
            if state.taken < state.slots {
                // Nobody waits as long as there are free slots.
                state.taken += 1;
                return Ok(self.permit(&mut state));
            }
            let (sender, receiver) = oneshot::channel();
            let number = state.number();
            state.join(client, Waiter { number, sender })?;
            Waiting {
                gate: self.clone(),
                client,
                number,
                receiver,
                answered: false,
            }
        };
        let receiver = &mut waiting.receiver;
        let answer = match patience {
            Some(patience) => tokio::time::timeout(patience, receiver).await.ok(),
            None => Some(receiver.await),
        };
        if let Some(Ok(turn)) = answer {
            waiting.answered = true;
            return turn.map(|()| self.permit(&mut self.lock()));
        }
        // Waiting calls always get an answer, so that only the time can be up.
        Err(Shed::TooLate {
            waited: patience.unwrap_or_default(),
            slots: self.lock().slots,
        })
    }

    /// The permit for a slot that is taken.
    fn permit(&self, state: &mut State) -> Permit {
        let number = state.number();
        state.running.insert(number, Instant::now());
        let slot = Some(Slot(self.clone()));
        Permit { slot, number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Puts a call into the queue; if that is full, a call of the client with most of it leaves.
    fn join(&mut self, client: ClientKey, waiter: Waiter) -> Result<(), Shed> {
        if self.queue.len() >= WAITING_MAX {
            let full = Shed::Full { slots: self.slots };
            let Some(newest) = self.queue.newest_of_longest(client) else {
                return Err(full);
            };
            newest.answer(Err(full));
        }
        self.queue.push(client, waiter);
        Ok(())
    }

    /// Grants free slots to waiting calls.
    fn serve(&mut self) {
        while self.taken < self.slots
            && let Some(next) = self.queue.pop()
        {
            self.taken += 1;
            next.answer(Ok(()));
        }
    }

    fn give_back(&mut self) {
        self.taken -= 1;
        self.serve();
    }
}

/// A call in the queue, until it has its answer.
struct Waiting {
    gate: Gate,
    client: ClientKey,
    number: u64,
    receiver: oneshot::Receiver<Result<(), Shed>>,
    /// The answer was taken.
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.gate.lock();
        if state.queue.remove(self.client, self.number) {
            return;
        }
        // It left the queue with an answer, which came too late for it.
        if let Ok(Ok(())) = self.receiver.try_recv() {
            state.give_back();
        }
    }
}

impl Permit {
    /// The response was read to its end, or Prometheus never got the request: the slot is free at once.
    pub fn finish(mut self) {
        self.end();
    }

    /// Prometheus does nothing for it any more, as far as we are concerned.
    fn end(&mut self) -> Option<Slot> {
        let slot = self.slot.take()?;
        slot.0.lock().running.remove(&self.number);
        Some(slot)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(slot) = self.end() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(NOTICE).await;
                drop(slot);
            });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.lock().give_back();
    }
}

#[cfg(test)]
mod tests;
