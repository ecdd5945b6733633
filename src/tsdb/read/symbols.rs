//! The symbols of an index: the texts that its series are made of, numbered in their order.

use std::{cmp::Ordering, io::ErrorKind, os::unix::fs::FileExt, sync::Arc};

use super::{
    super::{
        PinnedFile,
        check::{Broken, index::bad},
        window::{LONGEST_UVARINT, uvarint},
    },
    table_entry::LONGEST_TEXT,
    tables::{Samples, Tables},
};

/// Reads symbols by their numbers. Those that follow one another are read from one window, in two rows at once: the values of
/// two labels of one series after another.
#[derive(Debug)]
pub(super) struct Symbols {
    tables: Arc<Tables>,
    cursors: [Cursor; 2],
    /// The one that was used last.
    current: usize,
}

#[derive(Debug)]
struct Cursor {
    pieces: Pieces,
    /// The number of the symbol that was read last, and where it stands.
    last: (u32, u64),
}

impl Symbols {
    pub(super) fn new(index: &Arc<PinnedFile>, tables: &Arc<Tables>, width: usize) -> Self {
        let cursor = || Cursor {
            pieces: Pieces::new(index, width),
            last: (0, tables.symbols.content.start),
        };
        Self {
            tables: Arc::clone(tables),
            cursors: [cursor(), cursor()],
            current: 0,
        }
    }

    /// The symbol with this number.
    ///
    /// # Errors
    /// There is none, or the file cannot be read.
    pub(super) fn get(&mut self, number: u32) -> Result<&[u8], Broken> {
        let samples = &self.tables.symbols;
        if number >= samples.count {
            return Err(bad(format_args!(
                "index is damaged: a series refers to its symbol {number} of {}",
                samples.count
            )));
        }
        let follows = |cursor: &Cursor| {
            number
                .checked_sub(cursor.last.0)
                .is_some_and(|far| far <= samples.every)
        };
        if !follows(&self.cursors[self.current]) {
            self.current = 1 - self.current;
        }
        let cursor = &mut self.cursors[self.current];
        let place = cursor.find(samples, number)?;
        cursor.text(samples, number, place)
    }

    /// The number of the symbol that is this text; none if it is no symbol.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn find(&mut self, text: &[u8]) -> Result<Option<u32>, Broken> {
        let (mut from, mut to) = (0, self.tables.symbols.count);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.get(middle)?.cmp(text) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(Some(middle)),
                Ordering::Greater => to = middle,
            }
        }
        Ok(None)
    }
}

impl Cursor {
    /// Where the symbol stands.
    fn find(&mut self, samples: &Samples, number: u32) -> Result<u64, Broken> {
        let sample = number / samples.every;
        let (mut at, mut place) = self.last;
        if at > number || at < sample * samples.every {
            at = sample * samples.every;
            place = samples.place(sample as usize).ok_or_else(|| no_symbol(number))?;
        }
        let average = (samples.content.end - samples.content.start) / u64::from(samples.count.max(1));
        self.pieces.piece = (u64::from(number - at + 1) * average) as usize + 2 * LONGEST_UVARINT;
        while at < number {
            let next = uvarint(self.pieces.at(place, LONGEST_UVARINT)?)
                .and_then(|(len, head)| place.checked_add(head as u64)?.checked_add(len))
                .filter(|next| *next <= samples.content.end);
            place = next.ok_or_else(|| no_symbol(at))?;
            at += 1;
        }
        self.last = (number, place);
        Ok(place)
    }

    fn text(&mut self, samples: &Samples, number: u32, place: u64) -> Result<&[u8], Broken> {
        let (len, head) = uvarint(self.pieces.at(place, LONGEST_UVARINT)?).ok_or_else(|| no_symbol(number))?;
        // The tables were read with it, so that it ends within them.
        let rest = samples.content.end.saturating_sub(place + head as u64);
        if len > rest {
            return Err(no_symbol(number));
        }
        if len > LONGEST_TEXT {
            return Err(bad(format_args!(
                "index has a symbol of {len} bytes, more than {LONGEST_TEXT}"
            )));
        }
        let bytes = self.pieces.at(place + head as u64, len as usize)?;
        bytes.get(..len as usize).ok_or_else(|| no_symbol(number))
    }
}

/// What is read at least (bytes).
const PIECE: usize = 64;

/// A file that is read in small pieces, mostly here and there. As [`Window`](super::super::window::Window), which gives parts of
/// its buffer away, it would cost more than the reading.
#[derive(Debug)]
struct Pieces {
    file: Arc<PinnedFile>,
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
    /// What is read at once of symbols that do not follow one another (bytes): up to the one that is wanted, about.
    piece: usize,
    /// The most that is read at once, unless more is asked for.
    width: usize,
}

impl Pieces {
    fn new(file: &Arc<PinnedFile>, width: usize) -> Self {
        Self {
            file: Arc::clone(file),
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            piece: PIECE,
            width,
        }
    }

    /// The bytes from `offset` on: at least `len` of them, unless the file ends before.
    #[inline]
    fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Broken> {
        let inside = offset.checked_sub(self.start).map(|skip| skip as usize);
        if let Some(skip) = inside.filter(|skip| skip.saturating_add(len) <= self.filled) {
            return Ok(&self.buffer[skip..self.filled]);
        }
        self.read(offset, len, inside)
    }

    fn read(&mut self, offset: u64, len: usize, inside: Option<usize>) -> Result<&[u8], Broken> {
        let goes_on = self.filled > 0 && inside.is_some_and(|skip| skip <= self.filled);
        let ahead = match goes_on {
            true => 2 * self.filled,
            false => self.piece,
        };
        let rest = usize::try_from(self.file.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = ahead.clamp(PIECE, self.width.max(PIECE)).max(len).min(rest);
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
        (self.start, self.filled) = (offset, 0);
        while self.filled < want {
            let at = offset + self.filled as u64;
            match self.file.file.read_at(&mut self.buffer[self.filled..want], at) {
                // It was cut since it was opened.
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::unreadable(&self.file, &error)),
            }
        }
        Ok(&self.buffer[..self.filled])
    }
}

fn no_symbol(number: u32) -> Broken {
    bad(format_args!(
        "index is damaged: its symbol {number} is not where it was"
    ))
}
