//! Whether a block is whole, proven by reading every byte of it.
//!
//! Each file is read once, from its beginning to its end, so that the same code looks at files and at objects that come
//! over the network. What it proves, beyond what [`quick`](super::quick) does:
//!
//! - every byte of the index and of the segments is part of something known, and that is sound by its checksum or, where
//!   there is none, by its only possible value: one changed byte anywhere is found, and so is any cut;
//! - the series are in the order of their labels;
//! - the chunks that the index refers to are those that the segments hold: for each segment their number and the sum of a
//!   mix of their places agree, which two different sets of places do only once in 2^64;
//! - all chunks are of a kind that is known;
//! - `meta.json` counts as many series, chunks and samples as there are.
//!
//! What is no damage, since Prometheus reads it, and still stops Thanos' compactor, is found as well: [`Facts::issues`].
//!
//! What it does not prove: that samples can be decoded (a checksum says that they are what Prometheus wrote).
//!
//! Memory per file that is being read: a buffer of 256 KiB, which grows only to a series that is larger (16 MiB at most,
//! and its labels once more), 16 bytes for each segment, and some KiB for each kind of issue. Nothing is written and nothing kept, so that a crash leaves
//! nothing behind; the calls end soon after [`Options::stop`] is set.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::atomic::{AtomicBool, AtomicU64},
};

use sha2::{Digest as _, Sha256};

use self::stream::{Stream, apart};
use super::{AGGREGATES, Broken, Reason, missing_segment, segment_name};
use crate::{
    chunk::Encoding,
    tsdb::{Block, BlockMeta, PinError, Pinned},
};

mod index;
mod issues;
mod local;
mod segment;
mod stream;

pub use issues::{IndexIssue, IssueKind};

/// How long the table of contents is at the end of an index (bytes).
pub const TOC: u64 = super::index::TOC;

/// No block has more segments: of the usual size they would be 32 TiB. It bounds what a wrong reference can cost.
const MOST_SEGMENTS: usize = 1 << 16;

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
    /// What Prometheus reads and Thanos' compactor may stop at, one for each kind.
    pub issues: Vec<IndexIssue>,
}

impl Facts {
    /// How many chunks are in encodings that today's readers of a bucket refuse, each in words such as `5 XOR2`.
    pub fn newer_encodings(&self) -> Vec<String> {
        let newer = self.encodings.iter().filter_map(|(byte, count)| {
            let encoding = Encoding::from_prometheus(i32::from(*byte))?;
            encoding.storeapi().is_none().then(|| format!("{count} {encoding}"))
        });
        newer.collect()
    }
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

impl Digest {
    pub(in crate::tsdb) fn new(rel_path: &str, len: u64, crc32c: u32, sha256: Option<Sha256>) -> Self {
        let hex = |sum: Sha256| sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            rel_path: rel_path.to_owned(),
            len,
            crc32c,
            sha256: sha256.map(hex),
        }
    }
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

/// A set of chunks in one segment, as small as it can be told from others: how many they are, and a sum over their
/// offsets, each mixed thoroughly. In which order they come does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct References {
    count: u64,
    sum: u64,
}

impl References {
    #[inline]
    fn add(&mut self, offset: u64) {
        // The finish of MurmurHash3, as SplitMix64 has it.
        let mut mix = offset.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix = (mix ^ (mix >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mix = (mix ^ (mix >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.count += 1;
        self.sum = self.sum.wrapping_add(mix ^ (mix >> 31));
    }
}

/// What an index says; see [`agree`].
#[derive(Clone, Debug, Default)]
pub struct IndexFacts {
    series: u64,
    chunks: u64,
    times: Option<(i64, i64)>,
    /// By the segments' numbers.
    references: Vec<References>,
    issues: issues::Issues,
}

impl IndexFacts {
    /// Whether there is a series to be named by [`name_series`].
    pub fn has_issues(&self) -> bool {
        !self.issues.is_empty()
    }
}

/// What a chunk segment holds; see [`agree`].
#[derive(Clone, Debug, Default)]
pub struct SegmentFacts {
    references: References,
    samples: u64,
    /// Chunks by their encoding's number; those of [`AGGREGATES`] stand at 0, which no encoding has.
    encodings: [u64; 7],
}

impl SegmentFacts {
    /// Counts a chunk, of whose encoding and data `beginning` has the first bytes.
    #[inline]
    fn count(&mut self, name: &str, offset: u64, beginning: &[u8]) -> Result<(), Broken> {
        let (byte, data) = beginning.split_first().unwrap_or((&0, &[]));
        if *byte == AGGREGATES {
            self.encodings[0] += 1;
            return Ok(());
        }
        let encoding = Encoding::from_prometheus(i32::from(*byte));
        let Some(count) = self.encodings.get_mut(usize::from(*byte)).zip(encoding) else {
            let what =
                format_args!("{name} has a chunk at byte {offset} of the encoding {byte}, which is not known here");
            return Err(Broken::new(Reason::Chunk, what));
        };
        let Some(samples) = count.1.samples(data) else {
            let what = format_args!("{name} has a chunk at byte {offset} that is too short for any sample");
            return Err(Broken::new(Reason::Chunk, what));
        };
        *count.0 += 1;
        self.samples += u64::from(samples);
        Ok(())
    }
}

/// Checks every block of `blocks`, several files at once, and hands the result of each with its place to `done` as soon
/// as it is known; in no order. Opens no more blocks at once than it reads files. When it was stopped, all blocks whose
/// result is not known have the error [`io::ErrorKind::Interrupted`].
pub fn blocks(
    blocks: &[Block],
    options: &Options<'_>,
    done: impl Fn(usize, Result<(Pinned, Checked), PinError>) + Sync,
) {
    local::blocks(blocks, options, &done);
}

/// Checks an index of `len` bytes, of which `toc` are the last [`TOC`], in one pass over `bytes`. `range` is the time range
/// of the block (ms since 1970), its end exclusive.
///
/// # Errors
/// Those of `bytes`, [`io::ErrorKind::UnexpectedEof`] if it ends before `len` bytes, and
/// [`io::ErrorKind::Interrupted`] after a stop. What is wrong with the index is no error in this sense.
pub fn index(
    len: u64,
    toc: &[u8],
    range: (i64, i64),
    bytes: impl Read,
    options: &Options<'_>,
) -> io::Result<Result<(IndexFacts, Digest), Broken>> {
    apart(index::walk(len, toc, range, Stream::new(bytes, len, options), |_| {
        Ok(())
    }))
}

/// Names the series with issues by their labels: those are at the beginning of the index, so that it is read once more from
/// its beginning, not to its end. Without it an issue tells its series by its place alone.
///
/// # Errors
/// As for [`index`](index()).
pub fn name_series(
    facts: &mut IndexFacts,
    len: u64,
    toc: &[u8],
    bytes: impl Read,
    options: &Options<'_>,
) -> io::Result<Result<(), Broken>> {
    // What is read a second time is no progress.
    let options = Options {
        read: &AtomicU64::new(0),
        sha256: false,
        ..options.clone()
    };
    apart(issues::name(facts, len, toc, bytes, &options))
}

/// Checks the segment `rel_path` of `len` bytes in one pass over `bytes`.
///
/// # Errors
/// As for [`index`](index()).
pub fn segment(
    rel_path: &str,
    len: u64,
    bytes: impl Read,
    options: &Options<'_>,
) -> io::Result<Result<(SegmentFacts, Digest), Broken>> {
    apart(segment::walk(rel_path, len, Stream::new(bytes, len, options)))
}

/// Whether index, segments (by number) and `meta.json` speak of the same block.
///
/// A chunk that no series refers to, or that two do, harms nobody, and Prometheus makes none; from what the passes kept
/// it cannot be told from a chunk that is missing, and counts as that here. [`blocks`] looks closer.
pub fn agree(meta: &BlockMeta, index: &IndexFacts, segments: &[SegmentFacts]) -> Result<Facts, Broken> {
    if let Some(number) = differing(index, segments)?.first() {
        let (said, held) = (index.references_to(*number).count, segments[*number].references.count);
        let name = segment_name(*number);
        return Err(Broken::new(
            Reason::Chunk,
            match said == held {
                false => format!("the index refers to {said} chunks of {name}, which holds {held}"),
                true => format!("the index refers to {said} chunks of {name}, which holds as many, but others"),
            },
        ));
    }
    let facts = facts(index, segments, meta.resolution() > 0)?;
    statistics(meta, &facts)?;
    Ok(facts)
}

impl IndexFacts {
    fn references_to(&self, segment: usize) -> References {
        self.references.get(segment).copied().unwrap_or_default()
    }
}

/// The numbers of the segments that hold other chunks than the index says.
fn differing(index: &IndexFacts, segments: &[SegmentFacts]) -> Result<Vec<usize>, Broken> {
    if index.references.len() > segments.len() {
        return Err(missing_segment(segments.len()));
    }
    let differs = |(i, segment): (usize, &SegmentFacts)| (segment.references != index.references_to(i)).then_some(i);
    Ok(segments.iter().enumerate().filter_map(differs).collect())
}

fn facts(index: &IndexFacts, segments: &[SegmentFacts], downsampled: bool) -> Result<Facts, Broken> {
    let mut encodings = BTreeMap::new();
    for segment in segments {
        for (number, count) in (0..).zip(segment.encodings) {
            if count > 0 {
                *encodings
                    .entry(if number == 0 { AGGREGATES } else { number })
                    .or_default() += count;
            }
        }
    }
    if let Some(count) = encodings.get(&AGGREGATES).filter(|_| !downsampled) {
        let what = format_args!("{count} chunks are downsampled, and by meta.json the block is not");
        return Err(Broken::new(Reason::Chunk, what));
    }
    Ok(Facts {
        series: index.series,
        chunks: index.chunks,
        samples: if downsampled {
            0
        } else {
            segments.iter().map(|segment| segment.samples).sum()
        },
        times: index.times,
        encodings,
        issues: index.issues.list(),
    })
}

fn statistics(meta: &BlockMeta, facts: &Facts) -> Result<(), Broken> {
    let samples = (meta.num_samples, facts.samples, "samples");
    let counts = [
        (meta.num_series, facts.series, "series"),
        (meta.num_chunks, facts.chunks, "chunks"),
    ];
    let counts = counts.into_iter().chain((meta.resolution() == 0).then_some(samples));
    for (said, found, what) in counts {
        if said != found {
            let what = format_args!("meta.json counts {said} {what}, and the block has {found}");
            return Err(Broken::new(Reason::Stats, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
