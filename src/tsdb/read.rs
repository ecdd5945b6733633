//! The series of sealed blocks, selected as Prometheus selects them: by matchers and a time range, in label order, with their
//! chunks.
//!
//! **Guarantees.**
//! - Every byte that an answer is made of was held against its checksum. What is damaged or makes no sense is a [`Broken`],
//!   which names file and place; nothing is passed over.
//! - Memory is bounded whatever a block holds: [`Tables`] keep a sample of an index' tables, at most [`Tables::LARGEST`] bytes, and can
//!   be shared by all calls; a [`SeriesReader`] holds a few windows of each block, [`WIDTH`](super::window::WIDTH) bytes for all of
//!   them together and kind or 16 KiB each, which grow to what is longer (16 MiB at most), the lists of at most a thousand values
//!   for each matcher, and some thousand labels. What is handed out comes on top: a label set of at most 32 MiB, and all chunks of
//!   a series in the range.
//! - Only open descriptors are read: a block that Prometheus deletes meanwhile stays readable. Symbols are mapped where many are read;
//!   a file that is cut or cannot be read is an error all the same.
//!
//! Symbols and lists are read once more after their checksums were looked at, some of them much later. A rename or a deletion
//! does not change what is open; that nobody has written into it meanwhile is to be asked of [`OpenBlock::check_unwritten`].
//!
//! What must be right without being looked at is what Prometheus relies on, too: symbols and series are in order.
//!
//! All calls block on the disk. Dropping a reader ends it.

mod block;
mod choose;
mod chunks;
mod entry;
mod filter;
mod index;
mod labels;
mod map;
mod merge;
mod postings;
mod postings_table;
mod scattered;
mod selector;
mod symbols;
mod table_entry;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub use merge::SeriesReader;
pub use selector::Selector;
pub use tables::Tables;

use super::{BlockId, Broken, Pinned, PinnedFile, Reason, check::parts};
use crate::model::ReadSeries;

/// A block that is open, with the tables of its index.
#[derive(Clone, Debug)]
pub struct OpenBlock {
    id: BlockId,
    index: Arc<PinnedFile>,
    segments: Arc<[Arc<PinnedFile>]>,
    tables: Arc<Tables>,
    /// When these files were written last: the index, then the segments.
    written: Arc<[Written]>,
}

/// When a file was written last (seconds since 1970 and nanoseconds), and its length (bytes). Links do not count.
type Written = (i64, i64, u64);

/// What of a block is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The block.
    pub block: OpenBlock,
    /// The time, in ms since 1970: series and chunks with a sample inside.
    pub range: RangeInclusive<i64>,
}

impl OpenBlock {
    /// A block of these files, whose index has these `tables`.
    ///
    /// # Errors
    /// A file is missing or cannot be looked at.
    pub fn new(files: Pinned, tables: Arc<Tables>) -> Result<Self, Broken> {
        let (segments, index) = parts(&files)?;
        let index = Arc::new(index.clone());
        let segments: Arc<[_]> = segments.into_iter().cloned().map(Arc::new).collect();
        let all = std::iter::once(&index).chain(segments.iter());
        Ok(Self {
            id: files.id,
            written: all.map(|file| written(file)).collect::<Result<_, _>>()?,
            index,
            segments,
            tables,
        })
    }

    /// The block.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Looks whether its files are as they were when it was made.
    ///
    /// # Errors
    /// Somebody has written into one of them: what was read of it may be wrong.
    pub fn check_unwritten(&self) -> Result<(), ReadError> {
        let all = std::iter::once(&self.index).chain(self.segments.iter());
        for (file, before) in all.zip(self.written.iter()) {
            let now = written(file).map_err(|broken| self.error(broken))?;
            if now != *before {
                let name = &file.rel_path;
                let broken = Broken::new(
                    Reason::Unreadable,
                    format_args!("{name} was written to while it was read"),
                );
                return Err(self.error(broken));
            }
        }
        Ok(())
    }

    fn error(&self, broken: Broken) -> ReadError {
        let block = self.id;
        ReadError { block, broken }
    }

    /// Whether its files have no name any more, so that their space is free once they are closed. One that cannot be looked
    /// at counts as deleted.
    pub fn is_deleted(&self) -> bool {
        self.index.file.metadata().map_or(true, |status| status.nlink() == 0)
    }
}

fn written(file: &PinnedFile) -> Result<Written, Broken> {
    let status = file.file.metadata();
    let status = status.map_err(|error| Broken::unreadable(file, &error))?;
    Ok((status.mtime(), status.mtime_nsec(), status.len()))
}

/// A block that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("block {block}: {broken}")]
pub struct ReadError {
    /// The block.
    pub block: BlockId,
    /// What is wrong with it.
    pub broken: Broken,
}

/// What a reader gives.
#[derive(Debug)]
pub enum Next {
    /// A series, or a part of one with many chunks.
    Series(ReadSeries),
    /// Nothing yet: many series were looked at that are not wanted. To be called again, when others had their turn.
    Pause,
    /// There are no more.
    End,
}

/// How far a reader is, and whether it shall go on: for whoever waits for it on another thread.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
}

impl Progress {
    /// Of a reader that ends, wherever it is, once `stop` is set: then nobody wants what it gives.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let steps = Arc::default();
        Self { stop, steps }
    }

    /// Grows as long as the reader goes on.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Counts some more work; whether to go on.
    fn step(&self) -> bool {
        // Only the reader writes it.
        self.steps.store(self.steps() + 1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}
