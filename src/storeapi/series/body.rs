//! The body of a Series answer: written in large pieces, at the client's speed; [`super::read_ahead`] reads Prometheus
//! meanwhile.
//!
//! Pieces have about [`PIECE`] bytes, or hold what came within a few milliseconds: one message at a time would cost a
//! wake-up and a system call each. An error ends the answer with its status; the client knows that what it got before
//! is incomplete.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::Instrument as _;

#[cfg(doc)]
use super::read_ahead::PIECE;
use super::{
    answer::Answer,
    metrics::Pending,
    read_ahead::{Delivered, Delivery, ReadAhead, reader, spill::SpillDir},
};

/// The body of one answer.
#[derive(Debug)]
pub struct SeriesBody {
    /// `None` for an empty answer.
    ahead: Option<Arc<ReadAhead>>,
    done: bool,
    /// Ends with the body: most bodies are short, and it lives for as long as the call.
    reader: Option<AbortOnDropHandle<()>>,
    _pending: Pending,
}

impl SeriesBody {
    /// The body of an answer without series.
    pub fn empty(pending: Pending) -> Self {
        Self {
            ahead: None,
            done: false,
            reader: None,
            _pending: pending,
        }
    }

    /// The body that gives `answer`; what memory has no room for goes to `spill_dir`. To be called within a runtime.
    pub fn new(answer: Answer, delivery: Delivery, spill_dir: Option<SpillDir>, pending: Pending) -> Self {
        let ahead = Arc::new(ReadAhead::new(answer, delivery));
        let reader = reader::run(Arc::downgrade(&ahead), spill_dir);
        let reader = tokio::spawn(reader.in_current_span());
        Self {
            ahead: Some(ahead),
            done: false,
            reader: Some(AbortOnDropHandle::new(reader)),
            _pending: pending,
        }
    }
}

impl SeriesBody {
    /// The client reads nothing more.
    fn end(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            // The task that reads ahead may hold the answer a moment longer.
            ahead.client_left();
        }
        self.reader = None;
    }
}

impl Drop for SeriesBody {
    fn drop(&mut self) {
        self.end();
    }
}

impl http_body::Body for SeriesBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let delivered = match &self.ahead {
            Some(ahead) => ready!(ahead.poll_delivered(cx)),
            None => Delivered::End(Status::ok("")),
        };
        let status = match delivered {
            Delivered::Piece(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Delivered::End(status) => status,
        };
        self.done = true;
        self.end();
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
