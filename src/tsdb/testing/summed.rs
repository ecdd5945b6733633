//! The parts of an index that have checksums behind them, to be damaged with right ones.

use std::ops::Range;

use super::{super::window::uvarint, indexed::places};

/// The contents of an index of version 2 that has series, whole and sound.
pub(crate) fn summed(index: &[u8]) -> Vec<Range<usize>> {
    let [symbols, series, label_indices, label_table, postings, table] = places(index);
    let section = |start: usize| {
        let length = u32::from_be_bytes(*index[start..].first_chunk().unwrap()) as usize;
        start + 4..start + 4 + length
    };
    let mut parts = vec![section(symbols), section(table), index.len() - 52..index.len() - 4];
    let starts = [label_indices, label_table, postings, table];
    let end_of = |start: usize| starts.iter().copied().filter(|other| *other > start).min().unwrap();
    let mut at = series.next_multiple_of(16);
    while at < end_of(series) {
        let (length, head) = uvarint(&index[at..]).unwrap();
        parts.push(at + head..at + head + length as usize);
        at = (at + head + length as usize + 4).next_multiple_of(16);
    }
    for lists in [label_indices, postings] {
        let mut at = lists.next_multiple_of(4);
        while lists > 0 && at < end_of(lists) {
            parts.push(section(at));
            at = (section(at).end + 4).next_multiple_of(4);
        }
    }
    if label_table > 0 && label_table < table {
        parts.push(section(label_table));
    }
    parts
}

/// Puts the right checksum behind a part.
pub(crate) fn repair(index: &mut [u8], part: &Range<usize>) {
    let sum = crc32c::crc32c(&index[part.clone()]).to_be_bytes();
    index[part.end..part.end + 4].copy_from_slice(&sum);
}
