//! An entry of the postings table: `2 | length, name | length, value | place of the list`, all numbers of variable length.

use std::ops::Range;

use super::super::{
    check::{Broken, index::bad},
    window::{LONGEST_UVARINT, Window, uvarint},
};

/// No label name or value is longer (bytes).
pub(super) const LONGEST_TEXT: u64 = 16 << 20;
/// No entry is longer (bytes): two texts and four numbers.
const LONGEST: usize = 2 * LONGEST_TEXT as usize + 4 * LONGEST_UVARINT;
/// What is first read of an entry (bytes); most are shorter.
const USUAL: usize = 128;

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// Where the list is in the file.
    pub(super) list: u64,
    /// Where the next entry begins.
    pub(super) next: u64,
}

impl<'a> Entry<'a> {
    /// The entry at `at`, in a table that ends at `end`.
    pub(super) fn read(window: &'a mut Window, at: u64, end: u64) -> Result<Self, Broken> {
        let rest = usize::try_from(end.saturating_sub(at))
            .unwrap_or(usize::MAX)
            .min(LONGEST);
        let mut want = USUAL.min(rest);
        let places = loop {
            let bytes = window.at(at, want)?;
            if let Some(places) = Places::parse(&bytes[..want.min(bytes.len())]) {
                break places;
            }
            if want == rest {
                return Err(bad(format_args!(
                    "index is damaged: its postings table has no entry at byte {at}, where one is due"
                )));
            }
            want = want.saturating_mul(4).min(rest);
        };
        let bytes = window.at(at, places.len)?;
        Ok(Self {
            name: &bytes[places.name],
            value: &bytes[places.value],
            list: places.list,
            next: at + places.len as u64,
        })
    }
}

/// Where the parts of an entry are in its bytes.
struct Places {
    name: Range<usize>,
    value: Range<usize>,
    list: u64,
    len: usize,
}

impl Places {
    /// `None`: there is no entry, or more bytes are needed.
    #[inline]
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (texts, head) = uvarint(bytes)?;
        if texts != 2 {
            return None;
        }
        let mut position = head;
        let text = |position: &mut usize| -> Option<Range<usize>> {
            let (length, head) = uvarint(bytes.get(*position..)?)?;
            let start = *position + head;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            *position = end;
            (end <= bytes.len()).then_some(start..end)
        };
        let (name, value) = (text(&mut position)?, text(&mut position)?);
        let (list, head) = uvarint(bytes.get(position..)?)?;
        let len = position + head;
        Some(Self { name, value, list, len })
    }
}
