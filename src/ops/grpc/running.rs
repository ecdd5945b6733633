//! What the server knows of a call that runs, for the service that answers it and for whoever wants to see all of them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

/// A call, as its service may know it: among the extensions of its request. Clones are of the same call.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Known>);

#[derive(Debug)]
struct Known {
    peer: Option<SocketAddr>,
    deadline: Option<Instant>,
    place: Mutex<&'static str>,
}

impl Caller {
    /// The call of `peer` that must have ended at `deadline`.
    pub(super) fn new(peer: SocketAddr, deadline: Option<Instant>) -> Self {
        Self::of(Some(peer), deadline)
    }

    /// A call of nobody, without a deadline.
    pub fn unknown() -> Self {
        Self::of(None, None)
    }

    fn of(peer: Option<SocketAddr>, deadline: Option<Instant>) -> Self {
        let place = Mutex::new("begun");
        Self(Arc::new(Known { peer, deadline, place }))
    }

    /// Who calls.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// When the client gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Where the call is from now on, in a few words: `waiting for a turn at Prometheus`.
    pub fn is_at(&self, place: &'static str) {
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}
