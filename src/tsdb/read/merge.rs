//! The series of several blocks, as one row.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use super::{super::BlockId, Next, Progress, ReadError, Selector, Wanted, block::BlockSeries, chunks::PART};
use crate::model::ReadSeries;

/// Reads the series of blocks in label order; a series that is in several of them comes once, with the chunks of each block
/// behind those of the block before. One with many chunks comes in parts, one behind the other.
#[derive(Debug)]
pub struct SeriesReader {
    blocks: Vec<BlockSeries>,
    ids: Vec<BlockId>,
    /// The next series of each block that is not over, unless there is one block only.
    heads: BinaryHeap<Reverse<Head>>,
    /// Blocks whose next series is not known.
    missing: Vec<usize>,
    /// The next series, to which parts from later blocks are added.
    joined: Option<ReadSeries>,
}

/// The next series of a block.
#[derive(Debug)]
struct Head {
    series: ReadSeries,
    /// Which block.
    block: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let labels = self.series.labels.cmp(&other.series.labels);
        labels.then(self.block.cmp(&other.block))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl SeriesReader {
    /// The series of `blocks`, which are in the order of time and do not overlap, that `selector` takes; with their chunks or
    /// with their labels only. Without chunks a series counts if a chunk of it reaches into the range.
    ///
    /// # Errors
    /// A block is damaged or cannot be read.
    pub fn new(
        blocks: &[Wanted],
        selector: &Selector,
        with_chunks: bool,
        progress: &Progress,
    ) -> Result<Self, ReadError> {
        let count = blocks.len();
        let open = |wanted: &Wanted| {
            let block = BlockSeries::new(wanted, selector, with_chunks, count, progress);
            block.map_err(|broken| ReadError {
                block: wanted.block.id,
                broken,
            })
        };
        Ok(Self {
            ids: blocks.iter().map(|wanted| wanted.block.id).collect(),
            blocks: blocks.iter().map(open).collect::<Result<_, _>>()?,
            heads: BinaryHeap::new(),
            missing: (0..count).collect(),
            joined: None,
        })
    }

    /// The next series. After an error there is nothing more.
    ///
    /// # Errors
    /// A block is damaged or cannot be read.
    pub fn next_series(&mut self) -> Result<Next, ReadError> {
        let next = self.merged();
        if next.is_err() {
            self.blocks.clear();
            self.heads.clear();
            self.missing.clear();
            self.joined = None;
        }
        next
    }

    /// How many bytes were read that are kept as long as any chunk of a series in them is: more than those of the chunks, where few
    /// of those that stand side by side are wanted.
    pub fn large_bytes(&self) -> u64 {
        self.blocks.iter().map(BlockSeries::large_bytes).sum()
    }

    fn merged(&mut self) -> Result<Next, ReadError> {
        if self.blocks.len() == 1 {
            return self.read(0);
        }
        loop {
            while let Some(&block) = self.missing.last() {
                match self.read(block)? {
                    Next::Series(series) => self.heads.push(Reverse(Head { series, block })),
                    Next::Pause => return Ok(Next::Pause),
                    Next::End => {}
                }
                self.missing.pop();
            }
            let Some(joined) = &mut self.joined else {
                let Some(Reverse(Head { series, block })) = self.heads.pop() else {
                    return Ok(Next::End);
                };
                self.joined = Some(series);
                self.missing.push(block);
                continue;
            };
            let part = match self.heads.peek_mut() {
                Some(head) if bytes(joined) < PART && head.0.series.labels == joined.labels => PeekMut::pop(head).0,
                _ => return Ok(self.joined.take().map_or(Next::End, Next::Series)),
            };
            joined.chunks.extend(part.series.chunks);
            self.missing.push(part.block);
        }
    }

    fn read(&mut self, block: usize) -> Result<Next, ReadError> {
        let next = self.blocks[block].next();
        next.map_err(|broken| ReadError {
            block: self.ids[block],
            broken,
        })
    }
}

fn bytes(series: &ReadSeries) -> usize {
    series.chunks.iter().map(|chunk| chunk.data.len()).sum()
}
