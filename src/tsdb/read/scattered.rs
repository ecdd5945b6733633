//! A part of a file that is read in small pieces, mostly here and there.
//!
//! Pieces are read by position; where many are wanted the part is [mapped](super::map), as each call would cost more than what it
//! reads. As [`Window`](super::super::window::Window), which gives parts of its buffer away, it would cost more, too.

use std::{io, io::ErrorKind, ops::Range, os::unix::fs::FileExt, sync::Arc};

use super::{
    super::{PinnedFile, check::Broken},
    map::Map,
};

/// What is read at least (bytes).
const PIECE: usize = 64;
/// After so many pieces the part is mapped.
const MANY: u32 = 512;
/// What is known of a part is known for so many bytes: no page is smaller.
const PAGE: u64 = 4096;

/// The part of the file.
#[derive(Debug)]
pub(super) struct Scattered {
    file: Arc<PinnedFile>,
    part: Range<u64>,
    pieces: u32,
    map: Option<(Map, Known)>,
}

/// Which pages of a part were read by position since it is mapped. A disk that fails, or takes long, is met there: in a map it would
/// keep all threads from getting memory.
#[derive(Debug)]
struct Known {
    /// Where the first page begins.
    start: u64,
    /// A bit for each page.
    pages: Vec<u64>,
}

impl Scattered {
    pub(super) fn new(file: &Arc<PinnedFile>, part: Range<u64>) -> Self {
        Self {
            file: Arc::clone(file),
            part,
            pieces: 0,
            map: None,
        }
    }

    /// Has the processor fetch some bytes, if they are in memory.
    pub(super) fn prefetch(&self, offset: u64, len: usize) {
        if let Some((map, _)) = &self.map {
            map.prefetch(offset, len);
        }
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.pieces == MANY {
            let map = Map::new(&self.file, self.part.clone());
            self.map = map.map(|map| (map, Known::nothing_of(&self.part)));
        }
        self.pieces = self.pieces.saturating_add(1);
        if let Some((map, known)) = &mut self.map
            && known.holds(offset, buffer.len())
        {
            return map.read_at(buffer, offset);
        }
        self.file.file.read_at(buffer, offset)
    }
}

impl Known {
    fn nothing_of(part: &Range<u64>) -> Self {
        let start = part.start - part.start % PAGE;
        let pages = (part.end - start) / PAGE + 1;
        Self {
            start,
            pages: vec![0; (pages / 64 + 1) as usize],
        }
    }

    /// Whether all pages of `len` bytes from `offset` on are known; from now on they are.
    fn holds(&mut self, offset: u64, len: usize) -> bool {
        let first = offset.saturating_sub(self.start) / PAGE;
        let last = (offset.saturating_sub(self.start) + len as u64) / PAGE;
        let mut are_known = true;
        for page in first..=last {
            if let Some(bits) = self.pages.get_mut((page / 64) as usize) {
                let bit = 1 << (page % 64);
                are_known &= *bits & bit != 0;
                *bits |= bit;
            }
        }
        are_known
    }
}

/// A piece that was read, and grows while it is read on from.
#[derive(Debug)]
pub(super) struct Piece {
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
    /// What is read at once elsewhere (bytes): up to what is wanted, about.
    pub(super) expected: usize,
    /// The most that is read at once, unless more is asked for.
    width: usize,
}

impl Piece {
    pub(super) fn new(width: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            expected: PIECE,
            width,
        }
    }

    /// The bytes of `file` from `offset` on: at least `len` of them, unless the part ends before.
    #[inline]
    pub(super) fn at(&mut self, file: &mut Scattered, offset: u64, len: usize) -> Result<&[u8], Broken> {
        let inside = offset.checked_sub(self.start).map(|skip| skip as usize);
        if let Some(skip) = inside.filter(|skip| skip.saturating_add(len) <= self.filled) {
            return Ok(&self.buffer[skip..self.filled]);
        }
        self.read(file, offset, len, inside)
    }

    fn read(&mut self, file: &mut Scattered, offset: u64, len: usize, inside: Option<usize>) -> Result<&[u8], Broken> {
        let goes_on = self.filled > 0 && inside.is_some_and(|skip| skip <= self.filled);
        let ahead = match goes_on {
            true => 2 * self.filled,
            false => self.expected,
        };
        let rest = usize::try_from(file.part.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = ahead.clamp(PIECE, self.width.max(PIECE)).max(len).min(rest);
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
        (self.start, self.filled) = (offset, 0);
        while self.filled < want {
            let at = offset + self.filled as u64;
            match file.read_at(&mut self.buffer[self.filled..want], at) {
                // It was cut since it was opened.
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::unreadable(&file.file, &error)),
            }
        }
        Ok(&self.buffer[..self.filled])
    }
}
