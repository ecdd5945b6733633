//! The body of an answer that is encoded already: its pieces are handed over as the client takes them.
//!
//! **Fairness.** Between two pieces others get a turn: whoever compresses a message takes all of it at once.
//!
//! **A client that reads nothing** for [`SILENCE`], or twice that at most, loses its call, and what it held is given back:
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

use crate::storeapi::{budget::Held, context::SILENCE};

/// The body of one answer.
#[derive(Debug)]
pub(super) struct AnswerBody {
    left: Arc<Mutex<Option<Left>>>,
    /// Others had a turn since the last piece.
    rested: bool,
    ended: bool,
    /// Ends with the body: most bodies are short, and the watch is long.
    _watch: AbortOnDropHandle<()>,
}

/// What the client has not taken; the watch may take it away.
#[derive(Debug)]
struct Left {
    pieces: VecDeque<Bytes>,
    held: Held,
}

impl AnswerBody {
    /// The body of these pieces, whose memory `held` has; to be made within a runtime.
    pub(super) fn new(pieces: impl Iterator<Item = Bytes>, held: Held) -> Self {
        let left = Left {
            pieces: pieces.collect(),
            held,
        };
        let left = Arc::new(Mutex::new(Some(left)));
        let watch = tokio::spawn(watch(Arc::downgrade(&left)));
        Self {
            left,
            rested: true,
            ended: false,
            _watch: AbortOnDropHandle::new(watch),
        }
    }
}

/// Takes the answer from a client that does not read.
async fn watch(left: Weak<Mutex<Option<Left>>>) {
    let mut before = None;
    loop {
        sleep(SILENCE).await;
        let Some(left) = left.upgrade() else { return };
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = left.as_ref().map(|left| left.pieces.len());
        if now == before {
            *left = None;
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
        let mut left = this.left.lock().unwrap_or_else(PoisonError::into_inner);
        let end = match left.as_mut() {
            Some(left) if left.pieces.is_empty() => Status::ok(""),
            Some(_) if !this.rested => {
                this.rested = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(left) => {
                let piece = left.pieces.pop_front().unwrap_or_default();
                left.held.give_back(piece.len());
                this.rested = false;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            None => Status::aborted(format!(
                "the client read nothing for {SILENCE:?}; the memory of its answer was given to others"
            )),
        };
        *left = None;
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
        let mut held = budget.hold();
        assert!(held.take(9));
        AnswerBody::new(["one", "two", "six"].map(Bytes::from).into_iter(), held)
    }

    #[tokio::test(start_paused = true)]
    async fn others_get_a_turn_between_two_pieces_and_memory_goes_with_each() {
        let budget = Budget::new(9);
        let mut body = body(&budget);
        for (left, want) in [(6, "one"), (3, "two"), (0, "six")] {
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
            assert_eq!(budget.used(), left);
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
        sleep(SILENCE).await;
        body.frame().await;
        sleep(SILENCE).await;
        assert_eq!(budget.used(), 3);
        sleep(2 * SILENCE).await;
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
