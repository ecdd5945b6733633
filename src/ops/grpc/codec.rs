//! Compression of messages: the codecs, and the stream of a body.
//!
//! Each message is compressed by itself, so that any of them can be read alone. Only memory is kept from one message to
//! the next.

use bytes::{BufMut as _, BytesMut};
use tonic::Status;

use super::messages::{COMPRESSED, Messages, PREFIX, Piece, prefix};

mod encoder;
mod gzip;
mod snappy;

use self::encoder::{Broken, Encoder};

/// A way to compress a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// The framed format.
    Snappy,
    /// RFC 1952.
    Gzip,
}

impl Codec {
    /// The codec of this name; an error for one that is not known.
    pub(super) fn of(name: &str) -> Result<Option<Self>, Status> {
        match name {
            "identity" | "" => Ok(None),
            "snappy" => Ok(Some(Self::Snappy)),
            "gzip" => Ok(Some(Self::Gzip)),
            other => Err(Status::unimplemented(format!(
                "grpc: Decompressor is not installed for grpc-encoding {other:?}"
            ))),
        }
    }

    /// The name in `grpc-encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
        }
    }

    /// Appends what `message` decompresses to. What was appended by a failed call has no meaning.
    ///
    /// # Errors
    /// Internal for a message that is not what this codec writes, ResourceExhausted for one of more than `limit` bytes.
    /// Neither takes more memory than `limit` and a constant.
    pub(super) fn decompress(self, message: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), Status> {
        let done = match self {
            Self::Snappy => snappy::decompress(message, limit, out),
            Self::Gzip => gzip::decompress(message, limit, out),
        };
        done.map_err(|error| {
            let text = format!("cannot decompress the request, sent as {}: {error}", self.name());
            match error {
                Broken::Content(_) => Status::internal(text),
                Broken::TooLarge(_) => Status::resource_exhausted(text),
            }
        })
    }
}

/// Compresses the messages of a body one by one, as their bytes come. It holds the compressed bytes of one message.
#[derive(Debug)]
pub(super) struct Compressor {
    messages: Messages,
    encoder: Box<dyn Encoder>,
    /// Finished messages and, from `begun` on, the one that is not.
    out: BytesMut,
    begun: usize,
    left: usize,
}

impl Compressor {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            messages: Messages::default(),
            encoder: match codec {
                Codec::Snappy => Box::new(snappy::Encoder::new()),
                Codec::Gzip => Box::new(gzip::Encoder::new()),
            },
            out: BytesMut::new(),
            begun: 0,
            left: 0,
        }
    }

    /// Takes the next bytes of the body and gives the messages that they complete; empty if there are none. With how many
    /// messages begin in `data`.
    ///
    /// # Errors
    /// Internal when a message is compressed already, or does not fit into one after it was compressed.
    pub(super) fn push(&mut self, mut data: &[u8]) -> Result<(bytes::Bytes, u64), Status> {
        let mut count = 0;
        while let Some(piece) = self.messages.next(&mut data) {
            match piece {
                Piece::Prefix(start) => {
                    count += 1;
                    self.begin(start)?;
                }
                Piece::Bytes(bytes) => self.write(bytes)?,
            }
        }
        let done = self.out.split_to(self.begun).freeze();
        self.begun = 0;
        Ok((done, count))
    }

    fn begin(&mut self, start: [u8; PREFIX]) -> Result<(), Status> {
        if start[0] != 0 {
            return Err(Status::internal("a message of the answer is compressed already"));
        }
        self.left = super::messages::length(start) as usize;
        self.out.put_slice(&start);
        if self.left == 0 {
            // As grpc-go has it: an empty message is not compressed.
            self.begun = self.out.len();
            return Ok(());
        }
        self.encoder.begin(&mut self.out);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let failed = |error: Broken| Status::internal(format!("cannot compress the answer: {error}"));
        self.left -= bytes.len();
        self.encoder.write(bytes, &mut self.out).map_err(failed)?;
        if self.left > 0 {
            return Ok(());
        }
        self.encoder.finish(&mut self.out).map_err(failed)?;
        let length = self.out.len() - self.begun - PREFIX;
        let length = u32::try_from(length).map_err(|_| failed(Broken::TooLarge(u32::MAX as usize)))?;
        self.out[self.begun..self.begun + PREFIX].copy_from_slice(&prefix(COMPRESSED, length));
        self.begun = self.out.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
