//! A file read once from its beginning to its end.

use std::{
    io::{self, Read},
    sync::atomic::Ordering::Relaxed,
};

use sha2::{Digest as _, Sha256};

use super::{
    super::{Broken, window::CHECKSUM},
    Digest, Options,
};

/// What is read at once (bytes): small enough to stay in a core's cache while it is summed up twice.
const WIDTH: usize = 256 << 10;

/// Why a pass over a file ended before its end.
pub(super) enum Fault {
    /// The file says nonsense.
    Broken(Broken),
    /// It cannot be read, or whoever waits for it has given up.
    Io(io::Error),
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The two kinds of fault apart, as the callers want them.
pub(super) fn apart<T>(result: Result<T, Fault>) -> io::Result<Result<T, Broken>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Broken(broken)) => Ok(Err(broken)),
        Err(Fault::Io(error)) => Err(error),
    }
}

/// What was asked to stop.
pub(super) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the check was stopped")
}

/// The bytes of a file, some of which are in sight. All that were in sight are part of its [`Digest`].
pub(super) struct Stream<'a, R> {
    bytes: R,
    options: &'a Options<'a>,
    len: u64,
    buffer: Vec<u8>,
    /// The part of the buffer that is still to be used.
    start: usize,
    end: usize,
    /// Where in the file that part begins.
    position: u64,
    /// How many bytes come after it.
    unread: u64,
    crc32c: u32,
    sha256: Option<Sha256>,
}

impl<'a, R: Read> Stream<'a, R> {
    /// Of the first `len` bytes; no more are read.
    pub(super) fn new(bytes: R, len: u64, options: &'a Options<'a>) -> Self {
        let width = usize::try_from(len).unwrap_or(usize::MAX).min(WIDTH);
        Self {
            bytes,
            options,
            len,
            buffer: vec![0; width],
            start: 0,
            end: 0,
            position: 0,
            unread: len,
            crc32c: 0,
            sha256: options.sha256.then(Sha256::new),
        }
    }

    /// How many bytes were used.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes: at least `len` of them, unless the file ends before; mostly more. The buffer grows to `len`, so
    /// `len` must not be taken from a file unchecked.
    #[inline]
    pub(super) fn need(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len && self.unread > 0 {
            self.fill(len)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Uses the next `len` bytes, which are in sight.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.position += len as u64;
    }

    fn fill(&mut self, len: usize) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        while self.end < len && self.unread > 0 {
            if self.options.stop.load(Relaxed) {
                return Err(stopped());
            }
            let room = (self.buffer.len() - self.end).min(WIDTH);
            let room = usize::try_from(self.unread).unwrap_or(usize::MAX).min(room);
            let piece = &mut self.buffer[self.end..self.end + room];
            let count = match self.bytes.read(piece) {
                Ok(0) => {
                    let what = format!("it ends {} bytes before its {}", self.unread, self.len);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Ok(count) => count.min(room),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let piece = &piece[..count];
            self.crc32c = crc32c::crc32c_append(self.crc32c, piece);
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(piece);
            }
            self.end += count;
            self.unread -= count as u64;
            self.options.read.fetch_add(count as u64, Relaxed);
        }
        Ok(())
    }

    /// Whether the next `len` bytes are those of the checksum behind them; both are used up, piece by piece. All pieces
    /// but the last hold whole words of four bytes. The caller has looked that the file has so many.
    pub(super) fn is_sound(&mut self, len: u64, mut seen: impl FnMut(&[u8])) -> io::Result<bool> {
        let (mut left, mut sum) = (len, 0);
        while left > 0 {
            let rest = usize::try_from(left).unwrap_or(usize::MAX);
            let bytes = self.need(rest.min(4))?;
            let count = match bytes.len() {
                _ if bytes.len() >= rest => rest,
                0..4 => return Ok(false),
                more => more & !3,
            };
            sum = crc32c::crc32c_append(sum, &bytes[..count]);
            seen(&bytes[..count]);
            self.skip(count);
            left -= count as u64;
        }
        let sound = self.need(CHECKSUM as usize)?.starts_with(&sum.to_be_bytes());
        self.skip(CHECKSUM as usize);
        Ok(sound)
    }

    /// What was read, once all of it was.
    pub(super) fn digest(self, rel_path: &str) -> Digest {
        Digest::new(rel_path, self.len, self.crc32c, self.sha256)
    }
}
