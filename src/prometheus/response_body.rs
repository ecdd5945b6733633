//! The body of a response of Prometheus: over a connection of our own, or through a proxy.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;

use super::{connection, error::ErrorKind};

/// A body piece by piece.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, ErrorKind>> + Send>>;

/// The body of a response. Dropping it before its end closes the connection.
pub(super) struct ResponseBody {
    source: Source,
    /// Counts against the limit of connections, if there is one.
    _permit: Option<OwnedSemaphorePermit>,
}

enum Source {
    /// A connection of our own.
    Direct(Box<connection::Body>),
    /// Through a proxy.
    Proxied(Pieces),
}

impl ResponseBody {
    /// A body that comes over a connection of our own.
    pub(super) fn direct(body: connection::Body, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            source: Source::Direct(Box::new(body)),
            _permit: permit,
        }
    }

    /// A body that comes through a proxy.
    pub(super) fn proxied(pieces: Pieces, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            source: Source::Proxied(pieces),
            _permit: permit,
        }
    }

    /// The next piece; `None` at the end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        match &mut self.source {
            Source::Direct(body) => body.poll_piece(cx),
            Source::Proxied(pieces) => pieces.as_mut().poll_next(cx),
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::Direct(_) => "ResponseBody::Direct",
            Source::Proxied(_) => "ResponseBody::Proxied",
        })
    }
}
