//! The series of one block.

use std::{collections::VecDeque, ops::RangeInclusive};

use super::{
    super::{
        check::{
            Broken,
            index::{damaged, sound_series},
        },
        window::{WIDTH, Window},
    },
    Next, Progress, Selector, Wanted,
    choose::{Choice, choose},
    chunks::{PART, Segments},
    entry::{self, ChunkEntry},
    index::IndexReader,
    labels::LabelWriter,
};
use crate::model::ReadSeries;

/// Series stand at multiples of so many bytes, by which they are numbered.
const ALIGNMENT: u64 = 16;
/// No window is made narrower (bytes).
const NARROWEST: usize = 16 << 10;

/// So many series are looked at before there is a pause: some milliseconds.
const AT_ONCE: u32 = 10_000;
/// No part of a series is made smaller (bytes).
const LEAST_PART: usize = 64 << 10;

/// What a search for the next series came to.
enum Found {
    Series,
    /// Nothing yet.
    Pause,
    Nothing,
}

/// The series of a block that a selector wants, in label order.
#[derive(Debug)]
pub(super) struct BlockSeries {
    index: IndexReader,
    /// `None` if there are none.
    choice: Option<Choice>,
    series: Window,
    segments: Option<Segments>,
    range: RangeInclusive<i64>,
    labels: LabelWriter,
    /// A series with more bytes of chunks comes in parts.
    part: usize,
    /// The least number that the next series may have; `None` behind the highest that there is.
    least: Option<u32>,
    /// The labels of the series that is read.
    pairs: Vec<(u32, u32)>,
    /// Those of its chunks that are not read yet.
    entries: VecDeque<ChunkEntry>,
}

impl BlockSeries {
    /// The series of one of `blocks` blocks that are read together.
    pub(super) fn new(
        wanted: &Wanted,
        selector: &Selector,
        with_chunks: bool,
        blocks: usize,
        progress: &Progress,
    ) -> Result<Self, Broken> {
        let width = (WIDTH / blocks.max(1)).max(NARROWEST);
        let Wanted { block, range } = wanted;
        let mut index = IndexReader::new(&block.index, &block.tables, width, progress);
        Ok(Self {
            choice: match range.is_empty() {
                true => None,
                false => choose(&mut index, selector)?,
            },
            index,
            series: Window::of_width(&block.index, width),
            segments: with_chunks.then(|| Segments::new(&block.segments, width)),
            range: range.clone(),
            labels: LabelWriter::new(&block.tables, blocks),
            part: (PART / blocks.max(1)).max(LEAST_PART),
            least: Some(0),
            pairs: Vec::new(),
            entries: VecDeque::new(),
        })
    }

    /// The next series with samples in the range, or the next part of one with many chunks; without chunks, the next with a
    /// chunk that reaches into the range.
    pub(super) fn next(&mut self) -> Result<Next, Broken> {
        loop {
            if self.entries.is_empty() {
                match self.find()? {
                    Found::Series => {}
                    Found::Pause => return Ok(Next::Pause),
                    Found::Nothing => return Ok(Next::End),
                }
            }
            self.labels.prefetch(&self.pairs, &self.index.symbols);
            let chunks = match &mut self.segments {
                Some(segments) => segments.read_some(&mut self.entries, &self.range, self.part)?,
                None => {
                    self.entries.clear();
                    Vec::new()
                }
            };
            if !chunks.is_empty() || self.segments.is_none() {
                let labels = self.labels.write(&self.pairs, &mut self.index.symbols)?;
                return Ok(Next::Series(ReadSeries { labels, chunks }));
            }
        }
    }

    /// How many bytes were read that are kept as long as any chunk in them is.
    pub(super) fn large_bytes(&self) -> u64 {
        self.segments.as_ref().map_or(0, Segments::large_bytes)
    }

    /// Goes on to the next series with a chunk that reaches into the range.
    fn find(&mut self) -> Result<Found, Broken> {
        let Some(choice) = &mut self.choice else {
            return Ok(Found::Nothing);
        };
        let toc = &self.index.tables.toc;
        let reaches = |chunk: &ChunkEntry| chunk.min_ms <= *self.range.end() && chunk.max_ms >= *self.range.start();
        let mut looked_at = 0;
        'next: while let Some(least) = self.least
            && let Some(number) = choice.postings.at_least(least)?
        {
            if looked_at == AT_ONCE {
                return Ok(Found::Pause);
            }
            looked_at += 1;
            self.least = number.checked_add(1);
            if !self.index.progress.step() {
                break;
            }
            let place = u64::from(number) * ALIGNMENT;
            if place < toc.series {
                return Err(damaged(place));
            }
            let (content, _) = sound_series(&mut self.series, place, toc.series_end)?;
            let rest = entry::labels(content, &mut self.pairs).ok_or_else(|| damaged(place))?;
            for filter in &mut choice.filters {
                if !filter.takes(&self.pairs, &mut self.index.symbols)? {
                    continue 'next;
                }
            }
            let read = entry::chunks(rest, |chunk| self.entries.extend(Some(chunk).filter(reaches)));
            read.ok_or_else(|| damaged(place))?;
            if !self.entries.is_empty() {
                return Ok(Found::Series);
            }
        }
        Ok(Found::Nothing)
    }
}
