//! What the codecs share: how one encodes, what goes wrong, and a bounded read.

use std::io::{self, Read};

use bytes::{BufMut as _, BytesMut};

/// A message could not be decompressed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Broken {
    #[error("{0}")]
    Content(String),
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
}

pub(super) fn broken(text: impl Into<String>) -> Broken {
    Broken::Content(text.into())
}

/// The size of the buffer for decompressed bytes.
const ROOM: usize = 16 << 10;

/// Appends all that `decoder` gives, as long as that is at most `limit` bytes: the rest takes no memory.
pub(super) fn read_all(mut decoder: impl Read, limit: usize, out: &mut BytesMut) -> Result<(), Broken> {
    let begun = out.len();
    let mut room = [0; ROOM];
    loop {
        let read = decoder.read(&mut room).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => broken("it is truncated"),
            _ => broken(error.to_string()),
        })?;
        if read == 0 {
            return Ok(());
        }
        if out.len() - begun + read > limit {
            return Err(Broken::TooLarge(limit));
        }
        out.put_slice(&room[..read]);
    }
}

/// Compresses one message after the other.
pub(super) trait Encoder: std::fmt::Debug + Send {
    /// A message begins.
    fn begin(&mut self, out: &mut BytesMut);

    /// The message goes on with `bytes`.
    fn write(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Broken>;

    /// The message is complete.
    fn finish(&mut self, out: &mut BytesMut) -> Result<(), Broken>;
}
