//! Waiting calls by client: clients take turns, and the calls of a client are served in the order in which they came.
//! Pure.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::sync::oneshot;

/// Calls that may wait at once.
pub(super) const WAITING_MAX: usize = 1000;

/// A call that got no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// Too many wait already, and no client has more of them than this one.
    #[error(
        "{WAITING_MAX} calls already wait for Prometheus, which is sent {slots} remote reads at once, and no client \
         has more of them than this one: send fewer at once, or raise Prometheus' \
         --storage.remote.read-concurrent-limit"
    )]
    Full {
        /// The calls that may run at once.
        slots: usize,
    },
    /// No slot was free in time.
    #[error(
        "waited {waited:?} for one of {slots} remote reads of Prometheus: send fewer at once, or raise Prometheus' \
         --storage.remote.read-concurrent-limit"
    )]
    TooLate {
        /// How long it waited.
        waited: Duration,
        /// The calls that may run at once.
        slots: usize,
    },
}

/// Whose turn it is: a host, whatever its port, since a client may have many connections. Those that are not known count
/// as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientKey(Option<IpAddr>);

impl From<Option<SocketAddr>> for ClientKey {
    fn from(peer: Option<SocketAddr>) -> Self {
        // A dual-stack socket shows IPv4 addresses as mapped IPv6 ones.
        Self(peer.map(|peer| peer.ip().to_canonical()))
    }
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    /// By which it is found again.
    pub(super) number: u64,
    /// Receives the grant, or why there is none.
    pub(super) sender: oneshot::Sender<Result<(), Shed>>,
}

impl Waiter {
    /// Sends the answer. A call that is just being dropped finds it all the same.
    pub(super) fn answer(self, answer: Result<(), Shed>) {
        let _ = self.sender.send(answer);
    }
}

/// The queue: each client that waits once, the one whose turn is next at the front.
#[derive(Debug, Default)]
pub(super) struct Queue {
    clients: VecDeque<(ClientKey, VecDeque<Waiter>)>,
    len: usize,
}

impl Queue {
    /// How many calls wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a call behind those of its client; a client that has none is served after all others.
    pub(super) fn push(&mut self, client: ClientKey, waiter: Waiter) {
        self.len += 1;
        match self.clients.iter_mut().find(|(key, _)| *key == client) {
            Some((_, calls)) => calls.push_back(waiter),
            None => self.clients.push_back((client, VecDeque::from([waiter]))),
        }
    }

    /// The next call.
    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let (client, mut calls) = self.clients.pop_front()?;
        let waiter = calls.pop_front()?;
        self.len -= 1;
        if !calls.is_empty() {
            self.clients.push_back((client, calls));
        }
        Some(waiter)
    }

    /// Takes a call out; whether it was there.
    pub(super) fn remove(&mut self, client: ClientKey, number: u64) -> bool {
        let Some(at) = self.clients.iter().position(|(key, _)| *key == client) else {
            return false;
        };
        let calls = &mut self.clients[at].1;
        // In the order of their numbers.
        let Ok(found) = calls.binary_search_by_key(&number, |waiter| waiter.number) else {
            return false;
        };
        calls.remove(found);
        self.len -= 1;
        if calls.is_empty() {
            self.clients.remove(at);
        }
        true
    }

    /// Takes out the newest call of the client that has most, if it has more than `client` would have with one more.
    pub(super) fn newest_of_longest(&mut self, client: ClientKey) -> Option<Waiter> {
        let own = self.clients.iter().find(|(key, _)| *key == client);
        let own = own.map_or(0, |(_, calls)| calls.len());
        let (_, longest) = self.clients.iter_mut().max_by_key(|(_, calls)| calls.len())?;
        if longest.len() <= own + 1 {
            return None;
        }
        self.len -= 1;
        longest.pop_back()
    }
}
