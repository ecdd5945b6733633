//! The symbols of an index: the texts that its series are made of, numbered in their order.

use std::{cmp::Ordering, sync::Arc};

use super::{
    super::{
        PinnedFile,
        check::{Broken, index::bad},
        window::{LONGEST_UVARINT, uvarint},
    },
    scattered::{Piece, Scattered},
    table_entry::LONGEST_TEXT,
    tables::{Samples, Tables},
};

/// Reads symbols by their numbers. Those that follow one another are read from one window, in two rows at once: the values of
/// two labels of one series after another.
#[derive(Debug)]
pub(super) struct Symbols {
    tables: Arc<Tables>,
    file: Scattered,
    cursors: [Cursor; 2],
    /// The one that was used last.
    current: usize,
}

#[derive(Debug)]
struct Cursor {
    piece: Piece,
    /// The number of the symbol that was read last, and where it stands.
    last: (u32, u64),
}

impl Symbols {
    pub(super) fn new(index: &Arc<PinnedFile>, tables: &Arc<Tables>, width: usize) -> Self {
        let cursor = || Cursor {
            piece: Piece::new(width),
            last: (0, tables.symbols.content.start),
        };
        Self {
            tables: Arc::clone(tables),
            file: Scattered::new(index, tables.symbols.content.clone()),
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
        let place = cursor.find(&mut self.file, samples, number)?;
        cursor.text(&mut self.file, samples, number, place)
    }

    /// Has the processor fetch a symbol that stands in memory, which otherwise takes as long as much else.
    pub(super) fn prefetch(&self, number: u32) {
        let samples = &self.tables.symbols;
        let Some(place) = samples.place((number / samples.every) as usize) else {
            return;
        };
        let symbols = u64::from(number % samples.every + 1);
        self.file.prefetch(place, (symbols * samples.average()) as usize);
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
    fn find(&mut self, file: &mut Scattered, samples: &Samples, number: u32) -> Result<u64, Broken> {
        let sample = number / samples.every;
        let (mut at, mut place) = self.last;
        if at > number || at < sample * samples.every {
            at = sample * samples.every;
            place = samples.place(sample as usize).ok_or_else(|| no_symbol(number))?;
        }
        self.piece.expected = (u64::from(number - at + 1) * samples.average()) as usize + 2 * LONGEST_UVARINT;
        while at < number {
            let next = uvarint(self.piece.at(file, place, LONGEST_UVARINT)?)
                .and_then(|(len, head)| place.checked_add(head as u64)?.checked_add(len))
                .filter(|next| *next <= samples.content.end);
            place = next.ok_or_else(|| no_symbol(at))?;
            at += 1;
        }
        self.last = (number, place);
        Ok(place)
    }

    fn text(&mut self, file: &mut Scattered, samples: &Samples, number: u32, place: u64) -> Result<&[u8], Broken> {
        let (len, head) = uvarint(self.piece.at(file, place, LONGEST_UVARINT)?).ok_or_else(|| no_symbol(number))?;
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
        let bytes = self.piece.at(file, place + head as u64, len as usize)?;
        bytes.get(..len as usize).ok_or_else(|| no_symbol(number))
    }
}

fn no_symbol(number: u32) -> Broken {
    bad(format_args!(
        "index is damaged: its symbol {number} is not where it was"
    ))
}
