//! A block whose chunks have newer encodings (XOR2, HISTOGRAM_ST, FLOAT_HISTOGRAM_ST), written anew with those that every
//! reader knows: the same series, chunks and samples, bit by bit; start timestamps are dropped and counted.
//!
//! Nothing is written to the disk: the bytes of the new files go to an [`Output`], those of the index and of the segment
//! that it has come to side by side, and each file in order. It is one pass over the series of the index: of each the
//! chunks are read, checked by their checksums, rewritten where they have to be, and stand in the new segments one series
//! after another, cut as Prometheus cuts them; then comes the series' entry. What follows the series is copied, with
//! the places of series and lists as they are now.
//!
//! What this module guarantees:
//!
//! - **The same block gives the same bytes**, however they are read and taken; and a rewritten block, rewritten, is itself.
//! - **Nothing is guessed.** Every byte that is used is under a sound checksum. What is damaged, of a kind that is not known,
//!   or has no place in the new block is an error that says where it is. What was put out until then is of no use.
//! - **Memory is bounded**, whatever the files say: 12 bytes for each series, five buffers of 256 KiB, and the
//!   largest series and chunk that there are, each as it was and as it is (at most 16 MiB each; an ordinary one has some
//!   hundred bytes). Chunks that no series refers to are left out; the same bytes may be referred to again, until twice the
//!   length of the segments was read.
//!
//! What it does not prove is that the samples of chunks that stay as they are can be decoded, and what
//! [`check::full`](super::check::full) looks for beyond that. There is no state: a crash leaves nothing behind, and a retry
//! starts from the beginning. A call blocks on the disk and the output, and ends soon after [`Options::stop`] is set.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{
    Broken, Pinned,
    check::{full::Digest, parts},
    segment_path,
};

mod chunks;
mod files;
mod index;
mod places;
mod tables;

/// How long Prometheus lets a segment become (bytes).
pub const SEGMENT_LIMIT: u64 = 512 << 20;

/// A file of the new block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutFile {
    /// The chunk segment with this number, from 1 on.
    Segment(u32),
    /// The index.
    Index,
}

impl OutFile {
    /// Its name, relative to the block.
    pub fn rel_path(self) -> String {
        match self {
            Self::Segment(number) => segment_path(number.into()),
            Self::Index => super::pinned::INDEX.to_owned(),
        }
    }
}

/// Where the bytes of a new block go.
pub trait Output {
    /// The next bytes of a file. An error ends the pass, as [`Error::Output`].
    ///
    /// # Errors
    /// The output's own.
    fn write(&mut self, file: OutFile, bytes: &[u8]) -> io::Result<()>;

    /// A file has all its bytes. Each file is finished once: a segment before the next one begins, and the index last.
    ///
    /// # Errors
    /// The output's own.
    fn finish(&mut self, file: OutFile) -> io::Result<()>;
}

/// How a block is rewritten.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// How long a segment may become (bytes), at most 4 GiB; see [`SEGMENT_LIMIT`]. A chunk that is longer has a segment of
    /// its own.
    pub segment_limit: u64,
    /// Compute the SHA-256 of each file, too.
    pub sha256: bool,
    /// Set to stop: what is under way ends with [`Error::Stopped`] within a MiB or so, or one section of the index.
    pub stop: &'a AtomicBool,
}

impl Options<'_> {
    fn go_on(&self) -> Result<(), Error> {
        match self.stop.load(Relaxed) {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }
}

/// A block that was rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// The new files: segments by name, then the index.
    pub files: Vec<Digest>,
    /// How many chunks had each encoding before, by its byte; those that stayed as they are, too.
    pub from: BTreeMap<u8, u64>,
    /// How many series there are.
    pub series: u64,
    /// How many chunks they have: as many as before.
    pub chunks: u64,
    /// How many samples those have: as many as before.
    pub samples: u64,
    /// How many of the samples had a start timestamp, which they lost.
    pub start_timestamps_dropped: u64,
}

/// Why a block was not rewritten to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is damaged, or its files cannot be read.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It is whole as far as it was read, and of a kind that is not rewritten. For the operator: what, and where.
    #[error("the block cannot be rewritten: {0}")]
    Refused(String),
    /// The output's own error, as it came.
    #[error("the rewritten block cannot be written: {0}")]
    Output(io::Error),
    /// [`Options::stop`] was set.
    #[error("the rewriting was stopped")]
    Stopped,
}

impl Error {
    fn refused(what: impl fmt::Display) -> Self {
        Self::Refused(what.to_string())
    }
}

/// Writes `block` anew to `out`; see the module for what that means. A block that has none of the newer encodings comes out
/// as Prometheus would write it, which mostly is as it is.
///
/// # Errors
/// A block that is damaged or of a kind that is not rewritten (an index of version 1, downsampled chunks), an error of
/// `out`, and a stop.
pub fn block(block: &Pinned, options: &Options<'_>, out: &mut dyn Output) -> Result<Rewritten, Error> {
    let (segments, index_file) = parts(block)?;
    let mut chunks = chunks::Chunks::new(segments, options)?;
    let mut files = files::Files::new(out, options);
    let series = index::rewrite(index_file, &mut chunks, &mut files)?;
    Ok(Rewritten {
        files: files.finish()?,
        series,
        ..chunks.counts()
    })
}

#[cfg(test)]
mod tests;
