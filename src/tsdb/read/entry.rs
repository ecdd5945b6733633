//! A series of an index: the numbers of its labels, and what it says of its chunks.

use super::super::{check::index::number, window::varint};

/// A chunk by the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkEntry {
    /// Time of the first sample (ms since 1970).
    pub(super) min_ms: i64,
    /// Time of the last sample (ms since 1970).
    pub(super) max_ms: i64,
    /// Segment and offset.
    pub(super) reference: u64,
}

/// Reads the labels of a series into `labels`, as names and values; returns what follows. `None` if it makes no sense, as with
/// names that are not in order.
pub(super) fn labels<'a>(content: &'a [u8], labels: &mut Vec<(u32, u32)>) -> Option<&'a [u8]> {
    let mut rest = content;
    labels.clear();
    for _ in 0..number(&mut rest)? {
        let name = u32::try_from(number(&mut rest)?).ok()?;
        let value = u32::try_from(number(&mut rest)?).ok()?;
        if labels.last().is_some_and(|(last, _)| *last >= name) {
            return None;
        }
        labels.push((name, value));
    }
    Some(rest)
}

/// Hands the chunks behind the labels of a series to `on_chunk`. `None` if they make no sense.
pub(super) fn chunks(content: &[u8], mut on_chunk: impl FnMut(ChunkEntry)) -> Option<()> {
    let mut rest = content;
    let (mut end, mut reference) = (0_i64, 0_u64);
    for at in 0..number(&mut rest)? {
        let start = match at {
            0 => signed(&mut rest)?,
            // Written without a sign, and read as one with a sign would be.
            _ => end.wrapping_add(number(&mut rest)? as i64),
        };
        end = start.wrapping_add(number(&mut rest)? as i64);
        reference = match at {
            0 => number(&mut rest)?,
            _ => reference.checked_add_signed(signed(&mut rest)?)?,
        };
        on_chunk(ChunkEntry {
            min_ms: start,
            max_ms: end,
            reference,
        });
    }
    Some(())
}

fn signed(bytes: &mut &[u8]) -> Option<i64> {
    let (value, len) = varint(bytes)?;
    *bytes = &bytes[len..];
    Some(value)
}
