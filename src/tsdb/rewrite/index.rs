//! The index: symbols as they are, the series with the new references of their chunks, and what follows them with the new
//! places of the series and of the lists.
//!
//! Sections stand in the order in which they stood, each where the one before ends. Lists begin at multiples of 4, and none
//! changes its length, so that all lists of a section move by the same distance; that is what the tables of their places
//! need to know.

use std::ops::Range;

use super::{
    super::{
        PinnedFile,
        check::index::{HEADER, LONGEST_SERIES, TOC, Toc, bad, damaged, number, section, sound_series, toc, version},
        window::{CHECKSUM, WIDTH, Window, varint},
    },
    Error,
    chunks::Chunks,
    files::Files,
    places::{Collected, Places},
    tables::{Moved, table},
};
use crate::model::uvarint::put_uvarint;

/// The only format that is rewritten: in the other one symbols are named by their offsets, and no Prometheus since 2.2
/// writes it.
const VERSION: u8 = 2;
/// Where series stand: at multiples of so many bytes.
const SERIES: u64 = 16;
/// Where lists stand: at multiples of so many bytes.
const LISTS: u64 = 4;
/// Fewer zeros than that stand between two things.
const WIDEST_GAP: u64 = 16;

/// Writes the index anew, with the chunks of its series; returns how many series there are.
pub(super) fn rewrite(file: &PinnedFile, chunks: &mut Chunks<'_>, files: &mut Files<'_>) -> Result<u64, Error> {
    let mut window = Window::new(file);
    let version = version(file, &mut window)?;
    if version != VERSION {
        let what = format_args!("its index has the format {version}, and only {VERSION} can be rewritten");
        return Err(Error::refused(what));
    }
    let toc = toc(file, &mut window)?;
    let mut index = Index {
        at: 0,
        end: file.len - TOC,
        window,
        files,
        entry: Vec::new(),
    };
    index.symbols(&toc)?;
    let collected = index.all_series(&toc, chunks)?;
    let series = collected.count();
    index.rest(&toc, &collected.done())?;
    Ok(series)
}

struct Index<'a, 'b> {
    window: Window,
    /// Up to where everything was read, and has its place in the new index.
    at: u64,
    /// Where the table of contents begins.
    end: u64,
    files: &'a mut Files<'b>,
    /// What is written next.
    entry: Vec<u8>,
}

/// A section behind the series.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    LabelIndices,
    Postings,
    LabelTable,
    PostingsTable,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::LabelIndices => "label indices",
            Self::Postings => "postings",
            Self::LabelTable => "label table",
            Self::PostingsTable => "postings table",
        }
    }
}

impl Index<'_, '_> {
    /// Everything before the series.
    fn symbols(&mut self, toc: &Toc) -> Result<(), Error> {
        if toc.symbols != HEADER {
            let start = toc.symbols;
            let what = format_args!("index is damaged: its symbols begin at byte {start} and not behind the header");
            return Err(bad(what).into());
        }
        self.at = section(&mut self.window, toc.symbols, toc.series, "symbols")?.end + CHECKSUM;
        self.zeros(toc.series)?;
        self.copy(0..toc.series)
    }

    fn all_series(&mut self, toc: &Toc, chunks: &mut Chunks<'_>) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let end = toc.series_end;
        let mut next = toc.series.next_multiple_of(SERIES);
        while next < end {
            self.zeros(next)?;
            self.files.pad_index(SERIES)?;
            let (old, new) = (self.at / SERIES, self.files.index_len() / SERIES);
            let (Ok(old), Ok(new)) = (u32::try_from(old), u32::try_from(new)) else {
                let what = format_args!("its series at byte {next} would stand where no postings reach");
                return Err(Error::refused(what));
            };
            collected.push(old, new);
            self.series(end, chunks)?;
            next = self.at.next_multiple_of(SERIES);
        }
        Ok(collected)
    }

    /// The series that is next, which ends at `limit` or before.
    fn series(&mut self, limit: u64, chunks: &mut Chunks<'_>) -> Result<(), Error> {
        let start = self.at;
        let (content, end) = sound_series(&mut self.window, start, limit)?;
        self.entry.clear();
        chunks.begin_series(self.files);
        one_series(content, start, &mut self.entry, |reference| {
            chunks.copy(reference, self.files)
        })?;
        if self.entry.len() as u64 > LONGEST_SERIES {
            let what =
                format_args!("its series at byte {start} of the index would become longer than {LONGEST_SERIES} bytes");
            return Err(Error::refused(what));
        }
        let mut length = Vec::new();
        put_uvarint(&mut length, self.entry.len() as u64);
        self.files.index(&length)?;
        self.files.index(&self.entry)?;
        self.files.index(&crc32c::crc32c(&self.entry).to_be_bytes())?;
        self.at = end;
        Ok(())
    }

    /// What stands behind the series, and the table of contents.
    fn rest(&mut self, toc: &Toc, places: &Places) -> Result<(), Error> {
        let mut parts = [
            (toc.label_indices, Section::LabelIndices),
            (toc.postings, Section::Postings),
            (toc.label_table, Section::LabelTable),
            (toc.postings_table, Section::PostingsTable),
        ];
        parts.sort_by_key(|(start, _)| *start);
        self.gap(toc.series_end)?;
        let (mut labels, mut postings) = (Moved::default(), Moved::default());
        let mut starts = [0; 4];
        for (i, (start, part)) in parts.into_iter().enumerate() {
            // It is not there.
            if start == 0 {
                continue;
            }
            let (name, at) = (part.name(), self.at);
            if start != at {
                let what = format_args!(
                    "index is damaged: its {name} cannot be at byte {start}, since what is before ends at byte {at}"
                );
                return Err(bad(what).into());
            }
            let end = parts.get(i + 1).map_or(self.end, |(next, _)| *next);
            starts[part as usize] = self.files.index_len();
            match part {
                Section::LabelIndices => labels = self.lists(name, end, None)?,
                Section::Postings => postings = self.lists(name, end, Some(places))?,
                // Prometheus does not need it to read a block.
                Section::LabelTable if start == end => {}
                Section::LabelTable => self.table(name, end, &labels)?,
                Section::PostingsTable => self.table(name, end, &postings)?,
            }
            self.gap(end)?;
        }
        self.gap(self.end)?;
        let [label_indices, postings, label_table, postings_table] = starts;
        // What is before the series stands where it stood.
        let offsets = [
            toc.symbols,
            toc.series,
            label_indices,
            label_table,
            postings,
            postings_table,
        ];
        let bytes: Vec<u8> = offsets.into_iter().flat_map(u64::to_be_bytes).collect();
        self.files.index(&bytes)?;
        self.files.index(&crc32c::crc32c(&bytes).to_be_bytes())
    }

    /// Lists up to `end`; those of series, if there are `places`, with the new ones. Returns how they moved.
    fn lists(&mut self, name: &str, end: u64, places: Option<&Places>) -> Result<Moved, Error> {
        let mut moved = Moved::default();
        loop {
            let start = self.at.next_multiple_of(LISTS);
            if start >= end {
                return Ok(moved);
            }
            self.zeros(start)?;
            self.files.pad_index(LISTS)?;
            self.files.go_on()?;
            moved.add(start..end, self.files.index_len());
            let content = section(&mut self.window, start, end, name)?;
            match places {
                Some(places) => self.postings(content.clone(), places)?,
                None => self.copy(start..content.end + CHECKSUM)?,
            }
            self.at = content.end + CHECKSUM;
        }
    }

    /// A list `count | places of series`, the places ascending.
    fn postings(&mut self, content: Range<u64>, places: &Places) -> Result<(), Error> {
        let start = content.start - 4;
        let length = content.end - content.start;
        // It was read from 32 bits.
        self.files.index(&(length as u32).to_be_bytes())?;
        let wrong = || {
            bad(format_args!(
                "index is damaged: its postings at byte {start} do not list series"
            ))
        };
        let (mut at, mut sum, mut before) = (content.start, 0, None);
        while at < content.end {
            self.files.go_on()?;
            let piece = (content.end - at).min(WIDTH as u64) as usize;
            let (words, rest) = self
                .window
                .at(at, piece)?
                .get(..piece)
                .ok_or_else(wrong)?
                .as_chunks::<4>();
            if !rest.is_empty() {
                return Err(wrong().into());
            }
            self.entry.clear();
            let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
            if at == content.start {
                let count = words
                    .next()
                    .filter(|count| u64::from(*count) * 4 + 4 == length)
                    .ok_or_else(wrong)?;
                self.entry.extend(count.to_be_bytes());
            }
            for old in words {
                if before >= Some(old) {
                    return Err(wrong().into());
                }
                before = Some(old);
                let new = places.new_place(old).ok_or_else(|| {
                    let place = u64::from(old) * SERIES;
                    bad(format_args!("index is damaged: its postings at byte {start} name a series at byte {place}, where there is none"))
                })?;
                self.entry.extend(new.to_be_bytes());
            }
            sum = crc32c::crc32c_append(sum, &self.entry);
            self.files.index(&self.entry)?;
            at += piece as u64;
        }
        self.files.index(&u32::to_be_bytes(sum))
    }

    /// The table of places in lists that moved; it ends at `end` or before.
    fn table(&mut self, name: &str, end: u64, moved: &Moved) -> Result<(), Error> {
        let content = section(&mut self.window, self.at, end, name)?;
        table(&mut self.window, content.clone(), name, moved, self.files)?;
        self.at = content.end + CHECKSUM;
        Ok(())
    }

    /// Copies bytes to the end of the new index.
    fn copy(&mut self, range: Range<u64>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            self.files.go_on()?;
            let piece = (range.end - at).min(WIDTH as u64) as usize;
            let bytes = self.window.at(at, piece)?;
            let bytes = &bytes[..piece.min(bytes.len())];
            if bytes.is_empty() {
                return Err(bad(format_args!("index ends at byte {at}, within what was read before")).into());
            }
            self.files.index(bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Passes over the zeros up to `to`, and leaves as many as bring the next thing to where lists stand.
    fn gap(&mut self, to: u64) -> Result<(), Error> {
        if self.at < to {
            self.files.pad_index(LISTS)?;
        }
        self.zeros(to)
    }

    /// Passes over the zeros up to `to`.
    fn zeros(&mut self, to: u64) -> Result<(), Error> {
        let start = self.at;
        let Some(count) = to.checked_sub(start).filter(|count| *count < WIDEST_GAP) else {
            let what = format_args!(
                "index is damaged: nothing that is known begins at byte {start}, and the next thing at byte {to}"
            );
            return Err(bad(what).into());
        };
        let count = count as usize;
        let bytes = self.window.at(start, count)?;
        if bytes.get(..count).is_none_or(|gap| gap.iter().any(|byte| *byte != 0)) {
            let what =
                format_args!("index is damaged: there are other bytes than zeros between bytes {start} and {to}");
            return Err(bad(what).into());
        }
        self.at = to;
        Ok(())
    }
}

/// Puts a series that stood at `start` into `entry`, each reference to a chunk as `copy` says; labels and times keep their
/// bytes.
fn one_series(
    content: &[u8],
    start: u64,
    entry: &mut Vec<u8>,
    mut copy: impl FnMut(u64) -> Result<u64, Error>,
) -> Result<(), Error> {
    let damaged = || damaged(start);
    let mut rest = content;
    let labels = number(&mut rest)
        .and_then(|count| count.checked_mul(2))
        .ok_or_else(damaged)?;
    for _ in 0..labels {
        number(&mut rest).ok_or_else(damaged)?;
    }
    let count = number(&mut rest).ok_or_else(damaged)?;
    entry.extend_from_slice(&content[..content.len() - rest.len()]);
    let (mut old, mut new) = (0_u64, 0_u64);
    for i in 0..count {
        let times = rest;
        // The start, or its distance to the end before; its first form is signed, and takes the same bytes.
        number(&mut rest).ok_or_else(damaged)?;
        number(&mut rest).ok_or_else(damaged)?;
        entry.extend_from_slice(&times[..times.len() - rest.len()]);
        if i == 0 {
            old = number(&mut rest).ok_or_else(damaged)?;
            new = copy(old)?;
            put_uvarint(entry, new);
        } else {
            let (delta, len) = varint(rest).ok_or_else(damaged)?;
            rest = &rest[len..];
            old = old.checked_add_signed(delta).ok_or_else(damaged)?;
            let before = new;
            new = copy(old)?;
            let delta = new.wrapping_sub(before) as i64;
            put_uvarint(entry, ((delta << 1) ^ (delta >> 63)) as u64);
        }
    }
    match rest {
        [] => Ok(()),
        _ => Err(damaged().into()),
    }
}
