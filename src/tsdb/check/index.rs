//! The index: what of it Prometheus needs to open a block, and a walk through all series.
//!
//! Layout: header of 5 bytes (magic, version), symbols, series, further tables, and at the end the table of contents:
//! the offsets of the sections and a checksum. Series stand one after another, in version 2 each at a multiple of 16;
//! a series is `uvarint length | labels, chunks | CRC-32C of the latter`. Of its chunks the first has its reference in
//! full and the others the difference to the one before; a reference is `segment << 32 | offset`.

use std::ops::Range;

use super::{
    super::{PinnedFile, Reason},
    Broken, SEGMENT_HEADER,
    encodings::Sample,
    missing_segment,
    window::{CHECKSUM, LONGEST_UVARINT, Window, uvarint, varint},
};

const MAGIC: [u8; 4] = 0xBAAA_D700_u32.to_be_bytes();
pub(in crate::tsdb) const HEADER: u64 = 5;
/// The table of contents: six offsets and their checksum (bytes).
pub(in crate::tsdb) const TOC: u64 = 6 * 8 + CHECKSUM;
/// Where a series may stand in version 2.
const ALIGNMENT: u64 = 16;
/// No series is longer (bytes): it would have more than a million chunks.
pub(in crate::tsdb) const LONGEST_SERIES: u64 = 16 << 20;

/// Where the sections begin, and where the series end.
#[derive(Debug)]
pub(in crate::tsdb) struct Toc {
    pub(in crate::tsdb) symbols: u64,
    pub(in crate::tsdb) series: u64,
    pub(in crate::tsdb) series_end: u64,
    /// 0 stands for one that is not there, as in the next two.
    pub(in crate::tsdb) label_indices: u64,
    pub(in crate::tsdb) label_table: u64,
    pub(in crate::tsdb) postings: u64,
    pub(in crate::tsdb) postings_table: u64,
}

/// For each of `segments` segments, the offset of the last chunk that a series refers to, and a sample of chunks; every
/// series is checked.
pub(super) fn last_chunks(file: &PinnedFile, segments: usize) -> Result<(Vec<Option<u32>>, Sample), Broken> {
    let mut window = Window::new(file);
    let version = version(file, &mut window)?;
    let toc = toc(file, &mut window)?;
    let limit = file.len - TOC;
    section(&mut window, toc.symbols, limit, "symbols")?;
    section(&mut window, toc.postings_table, limit, "postings table")?;
    let (mut last, mut sample) = (vec![None; segments], Sample::default());
    let alignment = alignment(version);
    let mut at = toc.series.next_multiple_of(alignment);
    while at < toc.series_end {
        at = series(&mut window, at, toc.series_end, &mut last, &mut sample)?.next_multiple_of(alignment);
    }
    Ok((last, sample))
}

pub(in crate::tsdb) fn version(file: &PinnedFile, window: &mut Window) -> Result<u8, Broken> {
    long_enough(file.len)?;
    format(window.at(0, HEADER as usize)?)
}

/// Whether an index of `len` bytes has room for the least that there is in any.
pub(in crate::tsdb) fn long_enough(len: u64) -> Result<(), Broken> {
    if len < HEADER + TOC {
        return Err(bad(format_args!("index has {len} bytes, too few for any index")));
    }
    Ok(())
}

/// The format by the header, of which `header` has all bytes.
pub(in crate::tsdb) fn format(header: &[u8]) -> Result<u8, Broken> {
    if !header.starts_with(&MAGIC) {
        return Err(bad("index does not begin as one"));
    }
    match header.get(MAGIC.len()) {
        Some(version @ (1 | 2)) => Ok(*version),
        other => Err(bad(format_args!(
            "index has the format {}, and only 1 and 2 can be read",
            other.unwrap_or(&0)
        ))),
    }
}

/// Where series stand in a format: at multiples of so many bytes.
pub(in crate::tsdb) fn alignment(version: u8) -> u64 {
    if version == 1 { 1 } else { ALIGNMENT }
}

/// The table of contents at the end of an index that is long enough for one.
pub(in crate::tsdb) fn toc(file: &PinnedFile, window: &mut Window) -> Result<Toc, Broken> {
    Toc::parse(window.at(file.len - TOC, TOC as usize)?, file.len)
}

impl Toc {
    /// The table at the end of an index of `len` bytes.
    pub(in crate::tsdb) fn parse(bytes: &[u8], len: u64) -> Result<Self, Broken> {
        let (words, sum) = bytes.as_chunks::<8>();
        let sound = words.len() == 6 && *sum == crc32c::crc32c(words.as_flattened()).to_be_bytes();
        if !sound {
            return Err(bad(
                "index is cut off or damaged: wrong checksum of its table of contents",
            ));
        }
        let mut offsets = [0; 6];
        for (offset, word) in offsets.iter_mut().zip(words) {
            *offset = u64::from_be_bytes(*word);
        }
        let end = len.saturating_sub(TOC);
        if let Some(outside) = offsets
            .iter()
            .find(|offset| **offset != 0 && !(HEADER..=end).contains(*offset))
        {
            return Err(bad(format_args!(
                "index has a section at byte {outside}, outside of its {len} bytes"
            )));
        }
        let [symbols, series, label_indices, label_table, postings, postings_table] = offsets;
        if symbols == 0 || series == 0 || postings_table == 0 {
            return Err(bad("index has no symbols, no series or no postings table"));
        }
        let series_end = [label_indices, label_table, postings, postings_table]
            .into_iter()
            .filter(|offset| *offset >= series)
            .min()
            .unwrap_or(end);
        Ok(Self {
            symbols,
            series,
            series_end,
            label_indices,
            label_table,
            postings,
            postings_table,
        })
    }
}

/// Checks a section `length (4 bytes) | content | CRC-32C of the content`, which must end at `limit` or before; returns where
/// its content is.
pub(in crate::tsdb) fn section(window: &mut Window, start: u64, limit: u64, name: &str) -> Result<Range<u64>, Broken> {
    let head = window.at(start, 4)?;
    let len = head
        .first_chunk()
        .map_or(u64::MAX, |len| u64::from(u32::from_be_bytes(*len)));
    let end = start
        .checked_add(4 + CHECKSUM)
        .and_then(|end| end.checked_add(len))
        .filter(|end| *end <= limit);
    match end {
        Some(end) if window.is_sound(start + 4, end)? => Ok(start + 4..end - CHECKSUM),
        Some(_) => Err(bad(format_args!(
            "index is damaged: wrong checksum of its {name} at byte {start}"
        ))),
        None => Err(bad(format_args!(
            "index is damaged: its {name} at byte {start} do not end inside it"
        ))),
    }
}

/// Checks the series at `start`, notes its chunks in `last` and `sample`, and returns where it ends.
fn series(
    window: &mut Window,
    start: u64,
    limit: u64,
    last: &mut [Option<u32>],
    sample: &mut Sample,
) -> Result<u64, Broken> {
    let (content, end) = sound_series(window, start, limit)?;
    let (mut missing, mut ends) = (None, None);
    chunks(content, |reference| {
        let (segment, offset) = ((reference >> 32) as usize, reference as u32);
        match last.get_mut(segment) {
            Some(highest) => *highest = (*highest).max(Some(offset)),
            None => missing = missing.max(Some(segment)),
        }
        ends = Some((ends.map_or(reference, |(first, _)| first), reference));
        u64::from(offset) >= SEGMENT_HEADER
    })
    .ok_or_else(|| damaged(start))?;
    if let Some(missing) = missing {
        return Err(missing_segment(missing));
    }
    if let Some((first, last)) = ends {
        sample.push(first, last);
    }
    Ok(end)
}

/// The labels and chunks of the series at `start`, which has the right checksum and ends at `limit` or before; and where it
/// ends.
pub(in crate::tsdb) fn sound_series(window: &mut Window, start: u64, limit: u64) -> Result<(&[u8], u64), Broken> {
    let (len, head) = uvarint(window.at(start, LONGEST_UVARINT)?).ok_or_else(|| damaged(start))?;
    let body = start + head as u64;
    let room = limit.saturating_sub(body);
    if len == 0 || len > LONGEST_SERIES || len + CHECKSUM > room {
        return Err(damaged(start));
    }
    let bytes = window.at(body, (len + CHECKSUM) as usize)?;
    let (Some(content), Some(sum)) = (bytes.get(..len as usize), bytes.get(len as usize..)) else {
        return Err(damaged(start));
    };
    if !sum.starts_with(&crc32c::crc32c(content).to_be_bytes()) {
        return Err(bad(format_args!(
            "index is damaged: wrong checksum of its series at byte {start}"
        )));
    }
    Ok((content, body + len + CHECKSUM))
}

/// Hands the reference of each chunk of a series to `on_chunk`, until it says that one is wrong. `None` if the series does
/// not make sense.
fn chunks(content: &[u8], mut on_chunk: impl FnMut(u64) -> bool) -> Option<()> {
    let mut rest = content;
    let labels = number(&mut rest)?;
    for _ in 0..labels {
        number(&mut rest)?;
        number(&mut rest)?;
    }
    let count = number(&mut rest)?;
    let mut reference = 0;
    for i in 0..count {
        // The start, or its distance to the end before; its first form is signed, and takes the same bytes.
        number(&mut rest)?;
        number(&mut rest)?;
        reference = if i == 0 {
            number(&mut rest)?
        } else {
            let (delta, len) = varint(rest)?;
            rest = &rest[len..];
            u64::checked_add_signed(reference, delta)?
        };
        if !on_chunk(reference) {
            return None;
        }
    }
    Some(())
}

pub(in crate::tsdb) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (value, len) = uvarint(bytes)?;
    *bytes = &bytes[len..];
    Some(value)
}

pub(in crate::tsdb) fn damaged(start: u64) -> Broken {
    bad(format_args!(
        "index is damaged: there is no series at byte {start}, where one is due"
    ))
}

pub(in crate::tsdb) fn bad(detail: impl std::fmt::Display) -> Broken {
    Broken::new(Reason::Index, detail)
}
