//! Whether a block is whole, proven by reading every byte of it.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::atomic::{AtomicBool, AtomicU64},
};

use super::Broken;
use crate::tsdb::{Block, Meta, PinError, Pinned};

/// What was found in a block that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many series the index has.
    pub series: u64,
    /// How many chunks they have.
    pub chunks: u64,
    /// How many samples those have; of a downsampled block 0, since its chunks do not say so.
    pub samples: u64,
    /// The first and the last sample's time by the index (ms, both inclusive); `None` without chunks.
    pub times: Option<(i64, i64)>,
    /// How many chunks there are of each encoding, by its byte.
    pub encodings: BTreeMap<u8, u64>,
}

/// What a file of a block is, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its name, relative to the block: `chunks/000001`, `index`.
    pub rel_path: String,
    /// Its length (bytes).
    pub len: u64,
    /// CRC-32C of all of it.
    pub crc32c: u32,
    /// SHA-256 of all of it, in lower-case hex, if it was asked for.
    pub sha256: Option<String>,
}

/// A block that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What it holds.
    pub facts: Facts,
    /// Its segments by name, then its index.
    pub files: Vec<Digest>,
}

/// How blocks are checked.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// How many files are read at once, each by a thread of its own; at least 1.
    pub threads: usize,
    /// Compute the SHA-256 of each file, too.
    pub sha256: bool,
    /// Set to stop: what is under way ends within a MiB or so with an error of kind `Interrupted`.
    pub stop: &'a AtomicBool,
    /// Counts the bytes that were read.
    pub read: &'a AtomicU64,
}

/// What an index says; see [`agree`].
#[derive(Clone, Debug)]
pub struct IndexFacts {}

/// What a chunk segment holds; see [`agree`].
#[derive(Clone, Debug)]
pub struct SegmentFacts {}

/// Checks every block of `blocks`, several files at once, and hands the result of each with its place to `done` as soon
/// as it is known; in no order. Opens no more blocks at once than it reads files.
pub fn blocks(
    blocks: &[Block],
    options: &Options<'_>,
    done: impl Fn(usize, Result<(Pinned, Checked), PinError>) + Sync,
) {
    let _ = options;
    for (i, block) in blocks.iter().enumerate() {
        done(i, Pinned::open(block).map(|pinned| (pinned, Checked::default())));
    }
}

/// Checks an index of `len` bytes, of which `toc` are the last [`TOC`], in one pass over `bytes`.
pub fn index(
    len: u64,
    toc: &[u8],
    bytes: impl Read,
    options: &Options<'_>,
) -> io::Result<Result<(IndexFacts, Digest), Broken>> {
    let _ = (len, toc, bytes, options);
    Err(io::Error::other("not there yet"))
}

/// Checks the segment `rel_path` of `len` bytes in one pass over `bytes`.
pub fn segment(
    rel_path: &str,
    len: u64,
    bytes: impl Read,
    options: &Options<'_>,
) -> io::Result<Result<(SegmentFacts, Digest), Broken>> {
    let _ = (rel_path, len, bytes, options);
    Err(io::Error::other("not there yet"))
}

/// Whether index, segments (by number) and `meta.json` speak of the same block.
pub fn agree(meta: &Meta, index: &IndexFacts, segments: &[SegmentFacts]) -> Result<Facts, Broken> {
    let _ = (meta, index, segments);
    Ok(Facts::default())
}

/// How long the table of contents is at the end of an index (bytes).
pub const TOC: u64 = 6 * 8 + 4;
