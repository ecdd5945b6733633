//! A file seen through a window that is moved over it.
//!
//! Files are read by position into buffers: what is read from place to place in order costs no more than a map of it would, and a
//! file that was cut meanwhile is an error.

use std::sync::Arc;

use bytes::Bytes;
use rustix::{buffer::spare_capacity, io::Errno};

use super::{Broken, PinnedFile};
pub(in crate::tsdb) use crate::model::uvarint::{LONGEST_UVARINT, uvarint};

/// What is read at once (bytes), of a file that is read on from place to place.
pub(in crate::tsdb) const WIDTH: usize = 256 << 10;
/// What is read at once elsewhere: of a segment often only a few bytes are wanted.
const NARROW: usize = 4 << 10;
/// A buffer of so many bytes is small: it was not read on from.
const SMALL: usize = 2 * NARROW;
/// How long a checksum is (bytes).
pub(in crate::tsdb) const CHECKSUM: u64 = 4;

/// Reads a file of any size with a buffer of one size.
#[derive(Debug)]
pub(in crate::tsdb) struct Window {
    file: Arc<PinnedFile>,
    bytes: Bytes,
    /// The offset of the first of these bytes.
    start: u64,
    /// The most that is read at once, unless more is asked for.
    width: usize,
    /// Bytes of all buffers that were not small.
    large: u64,
}

impl Window {
    pub(in crate::tsdb) fn new(file: &PinnedFile) -> Self {
        Self::of_width(&Arc::new(file.clone()), WIDTH)
    }

    /// A window in which at most so many bytes are read at once, unless more are asked for.
    pub(in crate::tsdb) fn of_width(file: &Arc<PinnedFile>, width: usize) -> Self {
        Self {
            file: Arc::clone(file),
            bytes: Bytes::new(),
            start: 0,
            width,
            large: 0,
        }
    }

    /// The file.
    pub(in crate::tsdb) fn file(&self) -> &Arc<PinnedFile> {
        &self.file
    }

    /// The bytes from `offset` on: at least `len` of them, unless the file ends before; mostly more. The buffer grows to
    /// `len`, so `len` must not be taken from a file unchecked.
    #[inline]
    pub(in crate::tsdb) fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Broken> {
        let skip = self.seek(offset, len)?;
        Ok(&self.bytes[skip..])
    }

    /// The `len` bytes from `offset` on, or fewer if the file ends before, as a part of the buffer, which lives as long
    /// as any of its parts. For `len` see [`Self::at`].
    #[inline]
    pub(in crate::tsdb) fn slice(&mut self, offset: u64, len: usize) -> Result<Bytes, Broken> {
        let skip = self.seek(offset, len)?;
        let end = skip.saturating_add(len).min(self.bytes.len());
        Ok(self.bytes.slice(skip..end))
    }

    /// Whether its buffer is a small one: parts of those are better copied than kept, if they are few.
    pub(in crate::tsdb) fn is_small(&self) -> bool {
        self.bytes.len() <= SMALL
    }

    /// How many bytes all its buffers had that were not small, which live as long as their parts.
    pub(in crate::tsdb) fn large_bytes(&self) -> u64 {
        self.large
    }

    /// Moves the window so that it shows these bytes, and returns where they are in it.
    #[inline]
    fn seek(&mut self, offset: u64, len: usize) -> Result<usize, Broken> {
        let inside = offset.checked_sub(self.start).map(|skip| skip as usize);
        match inside.filter(|skip| skip.saturating_add(len) <= self.bytes.len()) {
            Some(skip) => Ok(skip),
            None => self.read(offset, len, inside).map(|()| 0),
        }
    }

    #[cold]
    fn read(&mut self, offset: u64, len: usize, inside: Option<usize>) -> Result<(), Broken> {
        let goes_on = !self.bytes.is_empty() && inside.is_some_and(|skip| skip <= self.bytes.len());
        let ahead = match goes_on {
            true => (2 * self.bytes.len()).clamp(NARROW.min(self.width), self.width),
            false => NARROW.min(self.width),
        };
        let rest = self.file.len.saturating_sub(offset);
        let want = usize::try_from(rest).unwrap_or(usize::MAX).min(ahead.max(len));
        let old = std::mem::take(&mut self.bytes);
        // Its memory is used again, unless somebody has a part of it, or more would be read than is wanted.
        let fits = old.is_unique() && old.len() <= 2 * want;
        let mut buffer = if fits { Vec::from(old) } else { Vec::new() };
        buffer.clear();
        buffer.reserve_exact(want);
        read_at(&self.file, offset, want, &mut buffer)?;
        if want > SMALL {
            self.large += want as u64;
        }
        (self.bytes, self.start) = (buffer.into(), offset);
        Ok(())
    }

    /// Whether the bytes from `start` to `end`, the last four of which are their CRC-32C, are sound. The caller has
    /// checked that they lie inside the file and are no fewer than four.
    pub(in crate::tsdb) fn is_sound(&mut self, start: u64, end: u64) -> Result<bool, Broken> {
        let end = end.saturating_sub(CHECKSUM);
        let (mut at, mut sum) = (start, 0);
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.width);
            let bytes = self.at(at, piece)?;
            let bytes = &bytes[..piece.min(bytes.len())];
            sum = crc32c::crc32c_append(sum, bytes);
            at += bytes.len() as u64;
            if bytes.is_empty() {
                return Ok(false);
            }
        }
        Ok(self.at(end, CHECKSUM as usize)?.starts_with(&sum.to_be_bytes()))
    }
}

/// Fills `buffer` with `file` from `offset` on, with `len` bytes or some more; with fewer if it was cut since it was opened.
fn read_at(file: &PinnedFile, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Result<(), Broken> {
    while buffer.len() < len {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(&*file.file, spare_capacity(buffer), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Broken::unreadable(file, &error.into())),
        }
    }
    Ok(())
}

/// The signed number at the start of `bytes` (zigzag) and how many bytes it takes, if there is one.
#[inline]
pub(in crate::tsdb) fn varint(bytes: &[u8]) -> Option<(i64, usize)> {
    let (value, len) = uvarint(bytes)?;
    Some(((value >> 1) as i64 ^ -((value & 1) as i64), len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tsdb::testing;

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>(), rest in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = Vec::new();
            testing::uvarint(&mut bytes, value);
            let len = bytes.len();
            prop_assert_eq!(uvarint(&bytes[..len - 1]), None);
            bytes.extend(rest);
            prop_assert_eq!(uvarint(&bytes), Some((value, len)));
            let mut bytes = Vec::new();
            testing::varint(&mut bytes, value as i64);
            prop_assert_eq!(varint(&bytes), Some((value as i64, bytes.len())));
        }
    }

    #[test]
    fn too_long_numbers_are_none() {
        assert_eq!(uvarint(&[0xff; 20]), None);
        assert_eq!(
            uvarint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            None
        );
        assert_eq!(uvarint(&[]), None);
    }

    #[test]
    fn the_window_shows_the_file_and_its_end() {
        let bytes: Vec<u8> = (0..WIDTH as u32 + 5000).map(|i| (i % 251) as u8).collect();
        let (_dir, file) = testing::pinned_file("index", &bytes);
        let mut window = Window::new(&file);
        for (offset, len) in [
            (0, 10),
            (5, 10),
            (WIDTH - 3, 10),
            (WIDTH + 4990, 20),
            (7, WIDTH),
            (WIDTH + 5000, 1),
        ] {
            let seen = window.at(offset as u64, len).unwrap();
            assert!(seen.len() >= len.min(bytes.len() - offset));
            assert_eq!(seen, &bytes[offset..offset + seen.len()]);
        }
        assert!(window.at(u64::MAX, 10).unwrap().is_empty());
    }
}
