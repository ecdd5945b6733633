//! The tables that tell in which list of a section something is: `count | entries`, each entry
//! `count of strings | strings | place of the list`. The places change with the lists, and so may the bytes that they take.

use std::ops::Range;

use super::{
    super::{
        check::{Broken, index::bad},
        window::{LONGEST_UVARINT, WIDTH, Window, uvarint},
    },
    Error,
    files::Files,
};
use crate::model::uvarint::put_uvarint;

/// How the lists of a section moved.
#[derive(Clone, Debug, Default)]
pub(super) struct Moved {
    /// Where the lists were.
    old: Range<u64>,
    /// Where the first is now.
    new: u64,
}

impl Moved {
    /// The next list, if it is the first: with all behind it it stood in `old`, and now it stands at `new`.
    pub(super) fn add(&mut self, old: Range<u64>, new: u64) {
        if self.old.is_empty() {
            (self.old, self.new) = (old, new);
        }
    }

    fn place(&self, old: u64) -> Option<u64> {
        let inside = self.old.contains(&old);
        inside.then(|| old - self.old.start + self.new)
    }
}

/// Writes the table `name`, whose checksum was found right, with the new places of lists. The table is read twice, since its
/// length comes first.
pub(super) fn table(
    window: &mut Window,
    content: Range<u64>,
    name: &str,
    moved: &Moved,
    files: &mut Files<'_>,
) -> Result<(), Error> {
    let mut length = 0;
    each(window, content.clone(), name, moved, |bytes| {
        length += bytes.len() as u64;
        files.go_on()
    })?;
    let Ok(length) = u32::try_from(length) else {
        return Err(Error::refused(format_args!(
            "the {name} of its index would become longer than 4 GiB"
        )));
    };
    files.index(&length.to_be_bytes())?;
    let mut sum = 0;
    each(window, content, name, moved, |bytes| {
        sum = crc32c::crc32c_append(sum, bytes);
        files.index(bytes)
    })?;
    files.index(&sum.to_be_bytes())
}

/// Hands the new bytes of a table to `out`, piece by piece.
fn each(
    window: &mut Window,
    content: Range<u64>,
    name: &str,
    moved: &Moved,
    mut out: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut table, mut place) = (Table { window, content, name }, Vec::new());
    let Some(count) = table.see(4)?.first_chunk().copied() else {
        return Err(table.wrong().into());
    };
    out(&count)?;
    table.content.start += 4;
    for _ in 0..u32::from_be_bytes(count) {
        let strings = table.number(&mut out)?;
        for _ in 0..strings {
            let length = table.number(&mut out)?;
            table.copy(length, &mut out)?;
        }
        let Some((old, length)) = uvarint(table.see(LONGEST_UVARINT)?) else {
            return Err(table.wrong().into());
        };
        let new = moved.place(old).ok_or_else(|| {
            let at = table.content.start;
            bad(format_args!(
                "index is damaged: its {name} have the place {old} at byte {at}, where no list is"
            ))
        })?;
        table.content.start += length as u64;
        place.clear();
        put_uvarint(&mut place, new);
        out(&place)?;
    }
    match table.content.is_empty() {
        true => Ok(()),
        false => Err(table.wrong().into()),
    }
}

/// A table that is read.
struct Table<'a> {
    window: &'a mut Window,
    /// What is still to be read.
    content: Range<u64>,
    name: &'a str,
}

impl Table<'_> {
    /// The next bytes: so many, unless the table ends before.
    fn see(&mut self, count: usize) -> Result<&[u8], Broken> {
        let left = usize::try_from(self.content.end - self.content.start).unwrap_or(usize::MAX);
        let count = count.min(left);
        let bytes = self.window.at(self.content.start, count)?;
        Ok(&bytes[..count.min(bytes.len())])
    }

    /// A number, which is copied.
    fn number(&mut self, out: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<u64, Error> {
        let bytes = self.see(LONGEST_UVARINT)?;
        let Some((number, length)) = uvarint(bytes) else {
            return Err(self.wrong().into());
        };
        out(&bytes[..length])?;
        self.content.start += length as u64;
        Ok(number)
    }

    /// Copies so many bytes.
    fn copy(&mut self, mut count: u64, out: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        while count > 0 {
            let piece = usize::try_from(count).unwrap_or(usize::MAX).min(WIDTH);
            let bytes = self.see(piece)?;
            let length = bytes.len() as u64;
            if length == 0 {
                return Err(self.wrong().into());
            }
            out(bytes)?;
            self.content.start += length;
            count -= length;
        }
        Ok(())
    }

    fn wrong(&self) -> Broken {
        let (name, at) = (self.name, self.content.start);
        bad(format_args!(
            "index is damaged: its {name} have no entry at byte {at}, where one is due"
        ))
    }
}
