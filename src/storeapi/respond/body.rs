//! The body of an answer that is encoded already: its pieces are handed over as the client takes them.
//!
//! **Fairness.** Between two pieces others get a turn: whoever compresses a message takes all of it at once.
//!
//! **A client that reads nothing** for [`CLIENT_STALL`], or twice that at most, loses its call, and what it held is given back:
//! it would keep memory from the calls of others. Who drops the body gives it back at once.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::storeapi::{budget::Reservation, context::CLIENT_STALL};

/// The body of one answer.
#[derive(Debug)]
pub(super) struct AnswerBody {
    remaining: Arc<Mutex<Option<Remaining>>>,
    /// Others had a turn since the last piece.
    rested: bool,
    ended: bool,
    /// Ends with the body: most bodies are short, and the watch is long.
    _stall_timer: AbortOnDropHandle<()>,
}

/// What the client has not taken; the watch may take it away.
#[derive(Debug)]
struct Remaining {
    pieces: VecDeque<Bytes>,
    reservation: Reservation,
}

impl AnswerBody {
    /// The body of these pieces, whose memory `reservation` has; to be made within a runtime.
    pub(super) fn new(pieces: impl Iterator<Item = Bytes>, reservation: Reservation) -> Self {
        let remaining = Remaining {
            pieces: pieces.collect(),
            reservation,
        };
        let remaining = Arc::new(Mutex::new(Some(remaining)));
        let drop_when_stalled = tokio::spawn(drop_when_stalled(Arc::downgrade(&remaining)));
        Self {
            remaining,
            rested: true,
            ended: false,
            _stall_timer: AbortOnDropHandle::new(drop_when_stalled),
        }
    }
}

/// Takes the answer from a client that does not read.
async fn drop_when_stalled(remaining: Weak<Mutex<Option<Remaining>>>) {
    let mut before = None;
    loop {
        sleep(CLIENT_STALL).await;
        let Some(remaining) = remaining.upgrade() else { return };
        let mut remaining = remaining.lock().unwrap_or_else(PoisonError::into_inner);
        let now = remaining.as_ref().map(|remaining| remaining.pieces.len());
        if now == before {
            *remaining = None;
            return;
        }
        before = now;
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut remaining = this.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        let end = match remaining.as_mut() {
            Some(remaining) if remaining.pieces.is_empty() => Status::ok(""),
            Some(_) if !this.rested => {
                this.rested = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(remaining) => {
                let piece = remaining.pieces.pop_front().unwrap_or_default();
                remaining.reservation.release(piece.len());
                this.rested = false;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            None => Status::aborted(format!(
                "the client read nothing for {CLIENT_STALL:?}; the memory of its answer was given to others"
            )),
        };
        *remaining = None;
        this.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(end.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::storeapi::budget::Budget;

    fn body(budget: &Budget) -> AnswerBody {
        let mut reservation = budget.reservation();
        assert!(reservation.reserve(9));
        AnswerBody::new(["one", "two", "six"].map(Bytes::from).into_iter(), reservation)
    }

    #[tokio::test(start_paused = true)]
    async fn others_get_a_turn_between_two_pieces_and_memory_goes_with_each() {
        let budget = Budget::new(9);
        let mut body = body(&budget);
        for (remaining, want) in [(6, "one"), (3, "two"), (0, "six")] {
            let mut frame = Box::pin(body.frame());
            let first = poll!(frame.as_mut());
            let frame = match first {
                Poll::Ready(frame) => {
                    assert_eq!(want, "one", "only the first piece comes at once");
                    frame
                }
                Poll::Pending => frame.await,
            };
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), want);
            assert_eq!(budget.used(), remaining);
        }
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_loses_its_call_and_the_memory() {
        let budget = Budget::new(9);
        let mut body = body(&budget);
        body.frame().await;
        // Slow is not still.
        sleep(CLIENT_STALL).await;
        body.frame().await;
        sleep(CLIENT_STALL).await;
        assert_eq!(budget.used(), 3);
        sleep(2 * CLIENT_STALL).await;
        assert_eq!(budget.used(), 0);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "10");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_dropped_gives_all_back() {
        let budget = Budget::new(9);
        drop(body(&budget));
        assert_eq!(budget.used(), 0);
    }
}
