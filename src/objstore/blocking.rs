//! An object as a plain reader, for work that blocks.
//!
//! The bytes are those of [`Reading`], no more of them in memory than its current piece. A failure of the bucket comes
//! out as an [`io::Error`] with the [`Error`](super::Error) inside; after it, or after the end, nothing more comes. Every
//! read ends, as every call of the bucket does. Dropping the reader stops the request.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::BoxStream};
use tokio::runtime::Handle;

use super::{Error, Reading};

struct Blocking {
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    current: Bytes,
    runtime: Handle,
    over: bool,
}

impl Reading {
    /// The same bytes for code that blocks. To be read on a thread that may block (`spawn_blocking`), never within a
    /// future: there it panics. The runtime must outlive it: who stops such work waits for it before the runtime ends.
    pub fn into_blocking(self, runtime: Handle) -> impl Read + Send + use<> {
        Blocking {
            pieces: self.pieces,
            current: Bytes::new(),
            runtime,
            over: false,
        }
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current.is_empty() && !self.over {
            match self.runtime.block_on(self.pieces.next()) {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => {
                    self.over = true;
                    return Err(io::Error::other(error));
                }
                None => self.over = true,
            }
        }
        let take = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..take]);
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::objstore::{ErrorKind, Op};

    fn broken() -> Error {
        Error {
            op: Op::Get,
            key: "k".into(),
            kind: ErrorKind::Stalled,
            detail: "no more".into(),
            source: None,
        }
    }

    #[tokio::test]
    async fn bytes_come_in_order_and_the_error_can_be_had_back() {
        let pieces = [
            Ok(Bytes::from_static(b"abc")),
            Ok(Bytes::new()),
            Ok(Bytes::from_static(b"de")),
            Err(broken()),
        ];
        let reading = Reading {
            len: 6,
            pieces: stream::iter(pieces).boxed(),
        };
        let mut reader = reading.into_blocking(Handle::current());
        let read = move || {
            let mut bytes = [0; 5];
            assert_eq!(reader.read(&mut bytes[..2]).unwrap(), 2);
            assert_eq!(reader.read(&mut bytes[2..]).unwrap(), 1, "no more than the piece has");
            assert_eq!(reader.read(&mut bytes[3..]).unwrap(), 2);
            assert_eq!(&bytes, b"abcde");
            let error = reader.read(&mut bytes).unwrap_err();
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            assert_eq!(inner.unwrap().kind, ErrorKind::Stalled);
            assert_eq!(reader.read(&mut bytes).unwrap(), 0);
        };
        tokio::task::spawn_blocking(read).await.unwrap();
    }
}
