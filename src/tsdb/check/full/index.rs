//! One pass over an index, in which every byte has its place: header, symbols, series, label indices, postings, the two
//! tables of offsets, table of contents; and between them zeros, to bring the next one to a multiple of 4 or 16.
//!
//! All but the series are records `length (4 bytes) | content | CRC-32C of the content`, summed up piece by piece. The
//! postings are looked into, too: each must name places of series, which no flipped byte of the index' format survives.

use std::{cmp::Ordering, io::Read, ops::Range};

use super::{
    super::{
        Broken, SEGMENT_HEADER,
        index::{HEADER, LONGEST_SERIES, Toc, alignment, bad, damaged, format, long_enough, number},
        missing_segment,
        window::{CHECKSUM, LONGEST_UVARINT, uvarint, varint},
    },
    Digest, IndexFacts, IssueKind, TOC,
    issues::{self, ChunkOrder, Series},
    stream::{Fault, Stream},
};

/// Fewer zeros than that stand between two things.
const WIDEST_GAP: u64 = 16;
/// Records begin at multiples of it.
const RECORDS: u64 = 4;

/// Checks an index of `len` bytes with the table of contents `toc`, of a block that goes from `range.0` to before `range.1`
/// (ms); `note` is told each reference to a chunk.
pub(super) fn walk<R: Read>(
    len: u64,
    toc: &[u8],
    range: (i64, i64),
    mut stream: Stream<'_, R>,
    note: impl FnMut(u64) -> Result<(), Fault>,
) -> Result<(IndexFacts, Digest), Fault> {
    long_enough(len)?;
    let version = format(stream.need(HEADER as usize)?)?;
    stream.skip(HEADER as usize);
    let sections = Toc::parse(toc, len)?;
    let mut walk = Walk {
        stream,
        alignment: alignment(version),
        symbols: None,
        facts: IndexFacts::default(),
        labels: Vec::new(),
        range,
        note,
    };
    walk.symbols(&sections, version)?;
    walk.all_series(&sections)?;
    walk.records(&sections, len - TOC)?;
    let mut stream = walk.stream;
    if stream.need(TOC as usize)? != toc {
        return Err(bad("index is damaged: its table of contents reads otherwise the second time").into());
    }
    Ok((walk.facts, stream.digest("index")))
}

struct Walk<'a, R, N> {
    stream: Stream<'a, R>,
    /// Of series.
    alignment: u64,
    /// How many symbols there are, where series refer to them by number.
    symbols: Option<u64>,
    facts: IndexFacts,
    /// The labels of the series before: pairs of references to symbols.
    labels: Vec<u8>,
    /// The time range of the block, its end exclusive (ms).
    range: (i64, i64),
    note: N,
}

impl<R: Read, N: FnMut(u64) -> Result<(), Fault>> Walk<'_, R, N> {
    fn symbols(&mut self, sections: &Toc, version: u8) -> Result<(), Fault> {
        if sections.symbols != HEADER {
            return Err(bad(format_args!(
                "index is damaged: its symbols begin at byte {} and not behind the header",
                sections.symbols
            ))
            .into());
        }
        let mut count = None;
        self.record("symbols", sections.series, |piece| {
            count = count.or(piece.first_chunk().copied());
        })?;
        if version > 1 {
            self.symbols = count.map(|count| u64::from(u32::from_be_bytes(count)));
        }
        Ok(())
    }

    fn all_series(&mut self, sections: &Toc) -> Result<(), Fault> {
        let end = sections.series_end;
        self.zeros(sections.series.next_multiple_of(self.alignment).min(end))?;
        while self.stream.position() < end {
            self.series(end)?;
            let next = self.stream.position().next_multiple_of(self.alignment);
            self.zeros(next.min(end))?;
        }
        Ok(())
    }

    /// What stands between the series and the table of contents at `end`.
    fn records(&mut self, sections: &Toc, end: u64) -> Result<(), Fault> {
        let mut parts = [
            (sections.label_indices, "label indices"),
            (sections.postings, "postings"),
            (sections.label_table, "label table"),
            (sections.postings_table, "postings table"),
        ];
        parts.sort_by_key(|(start, _)| *start);
        let places = sections.series.next_multiple_of(self.alignment)..sections.series_end;
        for (i, (start, name)) in parts.into_iter().enumerate() {
            if start == 0 {
                continue;
            }
            if start != self.stream.position() {
                return Err(bad(format_args!(
                    "index is damaged: its {name} cannot be at byte {start}, since what is before ends at byte {}",
                    self.stream.position()
                ))
                .into());
            }
            let end = parts.get(i + 1).map_or(end, |(next, _)| *next);
            match name {
                "label indices" => self.lists(name, end, None)?,
                "postings" => self.lists(name, end, Some(&places))?,
                // Prometheus does not need it to read a block.
                "label table" if start == end => {}
                _ => self.record(name, end, |_| ())?,
            }
            self.zeros(end)?;
        }
        self.zeros(end)
    }

    /// Records up to `end`, each at a multiple of four. With `places` they are lists of series: `count | places`, the
    /// latter ascending, in units of the series' alignment, and all within `places`.
    fn lists(&mut self, name: &str, end: u64, places: Option<&Range<u64>>) -> Result<(), Fault> {
        let alignment = self.alignment;
        loop {
            self.zeros(self.stream.position().next_multiple_of(RECORDS).min(end))?;
            let start = self.stream.position();
            if start >= end {
                return Ok(());
            }
            let Some(places) = places else {
                self.record(name, end, |_| ())?;
                continue;
            };
            // How many places are still to come, and the one before.
            let (mut due, mut before) = (None, 0);
            let mut good = true;
            self.record(name, end, |piece| {
                let (words, rest) = piece.as_chunks();
                good &= rest.is_empty();
                for word in words {
                    let word = u32::from_be_bytes(*word);
                    let Some(count) = due else {
                        due = Some(word);
                        continue;
                    };
                    let place = u64::from(word) * alignment;
                    good &= count > 0 && place > before && places.contains(&place);
                    (due, before) = (Some(count.saturating_sub(1)), place);
                }
            })?;
            if !good || due != Some(0) {
                return Err(bad(format_args!(
                    "index is damaged: its postings at byte {start} do not list series"
                ))
                .into());
            }
        }
    }

    /// The record that is next, which must end at `limit` or before.
    fn record(&mut self, name: &str, limit: u64, content: impl FnMut(&[u8])) -> Result<(), Fault> {
        let start = self.stream.position();
        let len = self.stream.need(4)?.first_chunk().copied();
        let len = len.map_or(u64::MAX, |len| u64::from(u32::from_be_bytes(len)));
        let room = limit.saturating_sub(start).checked_sub(4 + CHECKSUM);
        if room.is_none_or(|room| len > room) {
            return Err(bad(format_args!(
                "index is damaged: its {name} at byte {start} do not end inside it"
            ))
            .into());
        }
        self.stream.skip(4);
        if !self.stream.is_sound(len, content)? {
            return Err(bad(format_args!(
                "index is damaged: wrong checksum of its {name} at byte {start}"
            ))
            .into());
        }
        Ok(())
    }

    /// The zeros from here to `to`.
    #[inline]
    fn zeros(&mut self, to: u64) -> Result<(), Fault> {
        let start = self.stream.position();
        let Some(count) = to.checked_sub(start).filter(|count| *count < WIDEST_GAP) else {
            return Err(bad(format_args!(
                "index is damaged: nothing that is known begins at byte {start}, and the next thing at byte {to}"
            ))
            .into());
        };
        let count = count as usize;
        let bytes = self.stream.need(count)?;
        if bytes.get(..count).is_none_or(|gap| gap.iter().any(|byte| *byte != 0)) {
            return Err(bad(format_args!(
                "index is damaged: there are other bytes than zeros between bytes {start} and {to}"
            ))
            .into());
        }
        self.stream.skip(count);
        Ok(())
    }

    /// The series that is next, which must end at `limit` or before.
    #[inline]
    fn series(&mut self, limit: u64) -> Result<(), Fault> {
        let start = self.stream.position();
        let (len, head) = uvarint(self.stream.need(LONGEST_UVARINT)?).ok_or_else(|| damaged(start))?;
        let room = limit.saturating_sub(start + head as u64);
        if len == 0 || len > LONGEST_SERIES || len + CHECKSUM > room {
            return Err(damaged(start).into());
        }
        self.stream.skip(head);
        let (len, whole) = (len as usize, (len + CHECKSUM) as usize);
        let bytes = self.stream.need(whole)?;
        let (Some(content), Some(sum)) = (bytes.get(..len), bytes.get(len..whole)) else {
            return Err(damaged(start).into());
        };
        if *sum != crc32c::crc32c(content).to_be_bytes() {
            return Err(bad(format_args!(
                "index is damaged: wrong checksum of its series at byte {start}"
            ))
            .into());
        }
        let labels = labels(content, &self.labels, self.symbols).ok_or_else(|| damaged(start))?;
        if self.facts.series > 0 && labels.order != Ordering::Greater {
            return Err(bad(format_args!(
                "index is damaged: the labels of its series at byte {start} do not come after those before"
            ))
            .into());
        }
        let chunks = labels.rest;
        self.labels.clear();
        self.labels.extend_from_slice(&content[..content.len() - chunks.len()]);
        self.facts.series += 1;
        let facts = &mut self.facts;
        let series = Series {
            at: start,
            labels: &self.labels,
        };
        for kind in labels.issues.into_iter().flatten() {
            facts.issues.add(kind, series, None);
        }
        let (mut order, range) = (ChunkOrder::default(), self.range);
        each_chunk(chunks, start, |reference, times| {
            facts.note(reference, times)?;
            let (chunk, issue) = order.next(times);
            for (kind, against) in issue.into_iter().chain(issues::outside(chunk, range)) {
                facts.issues.add(kind, series, Some((chunk, against)));
            }
            (self.note)(reference)
        })?;
        if order.is_empty() {
            facts.issues.add(IssueKind::NoChunks, series, None);
        }
        self.stream.skip(whole);
        Ok(())
    }
}

/// What the beginning of a series says.
struct Beginning<'a> {
    /// How its labels compare with those of the series before.
    order: Ordering,
    /// What is wrong with the labels: that there are none, that names are not sorted, that one is there twice.
    issues: [Option<IssueKind>; 3],
    /// What follows the labels.
    rest: &'a [u8],
}

/// The labels at the start of a series, and those of the series `before`: `count | pairs of symbols`. Symbols are sorted, so
/// the order of their references is that of the labels.
#[inline]
fn labels<'a>(content: &'a [u8], before: &[u8], symbols: Option<u64>) -> Option<Beginning<'a>> {
    let (mut rest, mut old) = (content, before);
    let count = number(&mut rest)?;
    let old_count = if old.is_empty() { 0 } else { number(&mut old)? };
    let mut order = Ordering::Equal;
    let (mut name, mut unsorted, mut doubled) = (None, false, false);
    for i in 0..count.checked_mul(2)? {
        let symbol = number(&mut rest)?;
        if symbols.is_some_and(|symbols| symbol >= symbols) {
            return None;
        }
        if order == Ordering::Equal && i < old_count * 2 {
            order = symbol.cmp(&number(&mut old)?);
        }
        if i % 2 == 0 {
            unsorted |= Some(symbol) < name;
            doubled |= Some(symbol) == name;
            name = Some(symbol);
        }
    }
    Some(Beginning {
        order: order.then(count.cmp(&old_count)),
        issues: [
            (count == 0).then_some(IssueKind::NoLabels),
            unsorted.then_some(IssueKind::UnsortedLabels),
            doubled.then_some(IssueKind::DoubledLabels),
        ],
        rest,
    })
}

/// Hands each chunk's reference and first and last time to `note`.
#[inline]
fn each_chunk(
    content: &[u8],
    series: u64,
    mut note: impl FnMut(u64, (i64, i64)) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rest = content;
    let count = number(&mut rest).ok_or_else(|| damaged(series))?;
    let (mut reference, mut last) = (0_u64, 0_i64);
    for i in 0..count {
        let chunk = one_chunk(&mut rest, i == 0, reference, last).ok_or_else(|| damaged(series))?;
        let (first, end);
        (reference, first, end) = chunk;
        last = end;
        if end < first {
            return Err(bad(format_args!(
                "index is damaged: a chunk of its series at byte {series} ends before it begins"
            ))
            .into());
        }
        note(reference, (first, end))?;
    }
    match rest {
        [] => Ok(()),
        _ => Err(damaged(series).into()),
    }
}

/// The reference and the times of a chunk; all but the first are told by their distance from the one before. Times wrap,
/// as Prometheus lets them: a chunk may begin before the one before ends.
#[inline]
fn one_chunk(rest: &mut &[u8], first: bool, reference: u64, last: i64) -> Option<(u64, i64, i64)> {
    let start = if first {
        signed(rest)?
    } else {
        last.wrapping_add(number(rest)? as i64)
    };
    let end = start.wrapping_add(number(rest)? as i64);
    let reference = if first {
        number(rest)?
    } else {
        reference.checked_add_signed(signed(rest)?)?
    };
    (reference as u32 >= SEGMENT_HEADER as u32).then_some((reference, start, end))
}

#[inline]
fn signed(bytes: &mut &[u8]) -> Option<i64> {
    let (value, len) = varint(bytes)?;
    *bytes = &bytes[len..];
    Some(value)
}

impl IndexFacts {
    #[inline]
    fn note(&mut self, reference: u64, (first, last): (i64, i64)) -> Result<(), Broken> {
        let (segment, offset) = ((reference >> 32) as usize, u64::from(reference as u32));
        if segment >= self.references.len() {
            if segment >= super::MOST_SEGMENTS {
                return Err(missing_segment(segment));
            }
            self.references.resize(segment + 1, super::References::default());
        }
        self.references[segment].note(offset);
        self.chunks += 1;
        self.times = Some(match self.times {
            None => (first, last),
            Some((start, end)) => (start.min(first), end.max(last)),
        });
        Ok(())
    }
}
