//! The body of a Series answer: series are pulled while the client takes them, and written in bulk.
//!
//! Pieces have about [`PIECE`] bytes, or hold what came within [`LINGER`]: one message at a time would cost a wake-up and
//! a system call each. A client that reads nothing for [`PATIENCE`] loses its call, so that it cannot keep others from
//! Prometheus. An error ends the answer with its status; what was sent before is a prefix, and the client knows it.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::time::{Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    answer::Answer,
    encode::Batcher,
    metrics::{Metrics, Pending},
};

/// Bytes of a piece, at least, unless the answer pauses or ends.
const PIECE: usize = 128 << 10;
/// How long a message may wait for others.
const LINGER: Duration = Duration::from_millis(3);
/// How long a client may read nothing of a long answer, at least: it is looked at once in this time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The body of one answer.
#[derive(Debug)]
pub struct SeriesBody {
    answer: Arc<Shared>,
    batcher: Batcher,
    out: BytesMut,
    linger: Option<Pin<Box<Sleep>>>,
    /// What is left to be told at the end.
    end: Option<Status>,
    done: bool,
    /// Ends with the body: most bodies are short, and the watch is long.
    _watch: Option<AbortOnDropHandle<()>>,
    _pending: Pending,
}

/// What the watch over a silent client can take away.
#[derive(Debug)]
struct Shared {
    answer: Mutex<Option<Answer>>,
    /// Pieces given to the client; odd numbers mean that it is Prometheus who is waited for.
    turns: AtomicU64,
}

impl SeriesBody {
    /// The body that gives `answer` in messages of `batch` series; to be called within a runtime.
    pub fn new(answer: Option<Answer>, batch: usize, metrics: Metrics, pending: Pending) -> Self {
        let done = answer.is_none();
        let answer = Arc::new(Shared {
            answer: Mutex::new(answer),
            turns: AtomicU64::new(0),
        });
        // From the start: a client may let not even the first piece through.
        let watch = (!done).then(|| AbortOnDropHandle::new(tokio::spawn(watch(Arc::downgrade(&answer), metrics))));
        Self {
            answer,
            batcher: Batcher::new(batch),
            out: BytesMut::new(),
            linger: None,
            end: done.then(|| Status::ok("")),
            done: false,
            _watch: watch,
            _pending: pending,
        }
    }

    /// Fills `out` up to a piece; pending when it is empty and nothing is there.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.answer.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answer) = slot.as_mut() else {
            let text = format!("the client read nothing for {PATIENCE:?}; its place at Prometheus was given to others");
            self.end = Some(Status::aborted(text));
            return Poll::Ready(());
        };
        while self.out.len() < PIECE {
            match answer.poll_next(cx) {
                Poll::Ready(Some(Ok(series))) => self.batcher.add(series, &mut self.out),
                Poll::Ready(Some(Err(status))) => {
                    self.end = Some(status);
                    *slot = None;
                    break;
                }
                Poll::Ready(None) => {
                    answer.complete();
                    self.batcher.flush(&mut self.out);
                    self.end = Some(Status::ok(""));
                    *slot = None;
                    break;
                }
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                    if linger.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        self.linger = None;
        Poll::Ready(())
    }
}

impl SeriesBody {
    /// It is the client's turn: up to the next even number.
    fn given(&self) {
        let turns = self.answer.turns.load(Ordering::Relaxed);
        self.answer.turns.store(turns + 2 - turns % 2, Ordering::Relaxed);
    }
}

/// Takes the answer from a client that does not read.
async fn watch(shared: Weak<Shared>, metrics: Metrics) {
    let mut before = None;
    loop {
        sleep(PATIENCE).await;
        let Some(shared) = shared.upgrade() else { return };
        let turns = shared.turns.load(Ordering::Relaxed);
        if turns % 2 == 0 && before == Some(turns) {
            let answer = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if answer.is_some() {
                metrics.stalled();
            }
            return;
        }
        before = Some(turns);
    }
}

impl http_body::Body for SeriesBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.end.is_none() && self.out.len() < PIECE {
            let filled = self.fill(cx);
            if filled.is_pending() {
                let turns = self.answer.turns.load(Ordering::Relaxed);
                self.answer.turns.store(turns | 1, Ordering::Relaxed);
                return Poll::Pending;
            }
        }
        if !self.out.is_empty() {
            // A message may have many MiB: each piece of it counts as progress of the client.
            let length = self.out.len().min(2 * PIECE);
            let piece = self.out.split_to(length).freeze();
            self.given();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.done = true;
        let status = self.end.take().unwrap_or_else(|| Status::ok(""));
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
        ))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests;
