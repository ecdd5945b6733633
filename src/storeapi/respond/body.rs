//! The body of an answer that is already encoded: its pieces are handed out as the client takes them.
//!
//! **Fairness.** Between two pieces other tasks get a turn: compression takes a whole message at once.
//!
//! **A client that reads nothing** for [`CLIENT_STALL`] loses its call, and its memory is
//! released, which other calls would lack. Dropping the body releases it at once.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::{Instant, sleep_until};
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
    /// When the client last took a piece, or could first.
    since: Instant,
}

impl AnswerBody {
    /// The body of these pieces, whose memory `reservation` has; to be made within a runtime.
    pub(super) fn new(pieces: impl Iterator<Item = Bytes>, reservation: Reservation) -> Self {
        let remaining = Remaining {
            pieces: pieces.collect(),
            reservation,
            since: Instant::now(),
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

/// Drops the answer of a client that does not read.
async fn drop_when_stalled(remaining: Weak<Mutex<Option<Remaining>>>) {
    let mut end = Instant::now() + CLIENT_STALL;
    loop {
        sleep_until(end).await;
        let Some(remaining) = remaining.upgrade() else { return };
        let mut remaining = remaining.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = remaining.as_ref().map(|remaining| remaining.since) else {
            return;
        };
        if since + CLIENT_STALL <= end {
            *remaining = None;
            return;
        }
        end = since + CLIENT_STALL;
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
                remaining.since = Instant::now();
                this.rested = false;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            None => Status::aborted(format!(
                "the client read nothing for {CLIENT_STALL:?}; its answer was dropped to free memory for other calls"
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
    use std::time::Duration;

    use futures_util::poll;
    use http_body_util::BodyExt as _;
    use tokio::time::sleep;

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
        let a_second = Duration::from_secs(1);
        sleep(CLIENT_STALL - a_second).await;
        body.frame().await;
        sleep(CLIENT_STALL - a_second).await;
        assert_eq!(budget.used(), 3);
        sleep(2 * a_second).await;
        assert_eq!(budget.used(), 0, "after that time, and not twice of it");
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
