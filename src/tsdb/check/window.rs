//! A file seen through a window that moves forward.

use std::os::unix::fs::FileExt;

use super::{super::PinnedFile, Broken};
pub(in crate::tsdb) use crate::model::uvarint::{LONGEST_UVARINT, uvarint};

/// What is read at once (bytes), of a file that is read on from place to place.
pub(in crate::tsdb) const WIDTH: usize = 256 << 10;
/// What is read at once elsewhere: of a segment often only a few bytes are wanted.
const NARROW: usize = 4 << 10;
/// How long a checksum is (bytes).
pub(in crate::tsdb) const CHECKSUM: u64 = 4;

/// Reads a file of any size with a buffer of one size.
pub(in crate::tsdb) struct Window<'a> {
    file: &'a PinnedFile,
    buffer: Vec<u8>,
    /// The offset of the buffer's first byte.
    start: u64,
    /// How many bytes of the buffer are the file's.
    filled: usize,
}

impl<'a> Window<'a> {
    pub(in crate::tsdb) fn new(file: &'a PinnedFile) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
        }
    }

    /// The bytes from `offset` on: at least `len` of them, unless the file ends before; mostly more. The buffer grows to
    /// `len`, so `len` must not be taken from a file unchecked.
    pub(in crate::tsdb) fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Broken> {
        let inside = offset.checked_sub(self.start).map(|skip| skip as usize);
        if let Some(skip) = inside.filter(|skip| skip.saturating_add(len) <= self.filled) {
            return Ok(&self.buffer[skip..self.filled]);
        }
        let goes_on = self.filled > 0 && inside.is_some_and(|skip| skip <= self.filled);
        let ahead = match goes_on {
            true => (2 * self.filled).clamp(NARROW, WIDTH),
            false => NARROW,
        };
        let ahead = ahead.max(len);
        let rest = self.file.len.saturating_sub(offset);
        let want = usize::try_from(rest).unwrap_or(usize::MAX).min(ahead);
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
        self.filled = 0;
        self.start = offset;
        let read = self.file.file.read_exact_at(&mut self.buffer[..want], offset);
        read.map_err(|error| Broken::unreadable(self.file, &error))?;
        self.filled = want;
        Ok(&self.buffer[..want])
    }

    /// Whether the bytes from `start` to `end`, the last four of which are their CRC-32C, are sound. The caller has
    /// checked that they lie inside the file and are no fewer than four.
    pub(in crate::tsdb) fn is_sound(&mut self, start: u64, end: u64) -> Result<bool, Broken> {
        let end = end.saturating_sub(CHECKSUM);
        let (mut at, mut sum) = (start, 0);
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(WIDTH);
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
