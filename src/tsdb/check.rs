//! Whether a block is whole, as far as one can tell without reading its samples.
//!
//! [`quick`] reads the index once from end to end and a few bytes of each chunk segment. What it proves:
//!
//! - the index is whole: its header, its table of contents, its symbols and its postings table are sound (what
//!   Prometheus itself looks at when it opens a block), and so is every series, each by its own checksum;
//! - the segments that the series refer to are there, from 1 without a gap, and each has its header;
//! - the last chunk that any series refers to in each segment lies wholly inside it and is sound, so that no segment was
//!   cut off, and none ends in the zeros of a file that was never written.
//!
//! Beside that it tells of which encodings the chunks are, by a sample or by all of them ([`Encodings`]).
//!
//! What it does not prove: that each sample is right (the chunks between are not read), and that the postings lists are
//! sound; that is for [`full`]. Memory is bounded whatever the files say: a window of 256 KiB, which grows only to the size of a single
//! series that is larger (16 MiB at most; an ordinary one has some hundred bytes), 8 bytes per segment, and what the sample
//! takes.

use std::{fmt, io, ops::Range, os::unix::fs::FileExt};

use super::{
    Pinned, PinnedFile, segment_path,
    window::{self, Window},
};

mod encodings;
pub mod full;
pub(super) mod index;

pub use encodings::{Depth, Encodings, at_start_of_segment};

/// Every segment begins with it.
pub(super) const SEGMENT_MAGIC: [u8; 4] = 0x85BD_40DD_u32.to_be_bytes();
/// The only version of segments.
pub(super) const SEGMENT_VERSION: u8 = 1;
/// How long a segment's header is (bytes); the first chunk follows.
pub(super) const SEGMENT_HEADER: u64 = 8;

/// The encoding of the chunks that Thanos downsampled: up to five chunks in one, which count nothing together.
const AGGREGATES: u8 = 0xff;
/// No chunk is longer (bytes), its encoding included: 16,384 samples of noise take a hundredth of it.
pub(super) const LONGEST_CHUNK: u64 = 16 << 20;

/// What kind of thing is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// `meta.json` is missing: the directory is no block, not to Prometheus either, which does not serve it.
    NoMeta,
    /// `meta.json` says nonsense.
    Meta,
    /// The index is missing, cut off or damaged.
    Index,
    /// A chunk segment, or all of them, is missing.
    MissingSegment,
    /// A chunk segment is shorter than the index says.
    ShortSegment,
    /// A chunk segment is damaged.
    Segment,
    /// Index and segments do not speak of the same chunks, or a chunk is of a kind that is not known here.
    Chunk,
    /// `meta.json` counts other series, chunks or samples than there are.
    Stats,
    /// A file is there and cannot be read: rights, or the disk.
    Unreadable,
}

impl Reason {
    /// The reason as the value of a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoMeta => "no_meta",
            Reason::Meta => "meta",
            Reason::Index => "index",
            Reason::MissingSegment => "missing_segment",
            Reason::ShortSegment => "short_segment",
            Reason::Segment => "segment",
            Reason::Chunk => "chunk",
            Reason::Stats => "stats",
            Reason::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Broken {
    /// For a metric.
    pub reason: Reason,
    /// For the operator: which file, where in it, and what.
    pub detail: String,
}

impl Broken {
    pub(super) fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self {
            reason,
            detail: detail.to_string(),
        }
    }

    pub(super) fn unreadable(file: &PinnedFile, error: &io::Error) -> Self {
        Self::new(
            Reason::Unreadable,
            format_args!("{} cannot be read: {error}", file.path.display()),
        )
    }
}

/// Proves that `block` is whole; see the module for what that means. Returns of which encodings its chunks are. Blocks on
/// the disk for as long as it takes to read the index once, and with [`Depth::All`] or newer encodings the segments.
pub fn quick(block: &Pinned, depth: Depth) -> Result<Encodings, Broken> {
    let (segments, index) = parts(block)?;
    for segment in &segments {
        segment_header(segment)?;
    }
    let (last_chunks, sample) = index::last_chunks(index, segments.len())?;
    for (segment, offset) in segments.iter().zip(&last_chunks) {
        if let Some(offset) = offset {
            chunk(&mut Window::new(segment), segment, *offset)?;
        }
    }
    let found = encodings::of_sample(sample, &segments)?;
    if depth == Depth::Sample && found.newer() + found.unknown() == 0 {
        return Ok(found);
    }
    encodings::all(&segments, &last_chunks)
}

/// The segments, of which none may be missing in between, and the index.
pub(super) fn parts(block: &Pinned) -> Result<(Vec<&PinnedFile>, &PinnedFile), Broken> {
    let segments: Vec<&PinnedFile> = block.segments().collect();
    for (i, segment) in segments.iter().enumerate() {
        let due = segment_name(i);
        if segment.rel_path != due {
            let next = &segment.rel_path;
            return Err(Broken::new(
                Reason::MissingSegment,
                format_args!("{due} is missing, and {next} is there"),
            ));
        }
    }
    let index = block
        .index()
        .ok_or_else(|| Broken::new(Reason::Index, "index is missing"))?;
    Ok((segments, index))
}

/// How the segment is called that a reference calls `number`.
fn segment_name(number: usize) -> String {
    segment_path(number as u64 + 1)
}

/// That the index refers to a segment which is not there.
pub(super) fn missing_segment(number: usize) -> Broken {
    let name = segment_name(number);
    Broken::new(
        Reason::MissingSegment,
        format_args!("{name} is missing: the index refers to it"),
    )
}

pub(super) fn segment_header(segment: &PinnedFile) -> Result<(), Broken> {
    long_enough(&segment.rel_path, segment.len)?;
    let mut header = [0; SEGMENT_HEADER as usize];
    segment
        .file
        .read_exact_at(&mut header, 0)
        .map_err(|error| Broken::unreadable(segment, &error))?;
    begins_as_segment(&segment.rel_path, header)
}

/// Whether a segment of `len` bytes has room for its header.
fn long_enough(name: &str, len: u64) -> Result<(), Broken> {
    if len >= SEGMENT_HEADER {
        return Ok(());
    }
    let what = format_args!("{name} has {len} bytes, fewer than its header");
    Err(Broken::new(Reason::ShortSegment, what))
}

fn begins_as_segment(name: &str, header: [u8; SEGMENT_HEADER as usize]) -> Result<(), Broken> {
    if header[..4] != SEGMENT_MAGIC {
        return Err(Broken::new(
            Reason::Segment,
            format_args!("{name} does not begin as a chunk segment"),
        ));
    }
    if header[4] != SEGMENT_VERSION {
        let what = format_args!(
            "{name} has the format {}, and only {SEGMENT_VERSION} can be read",
            header[4]
        );
        return Err(Broken::new(Reason::Segment, what));
    }
    Ok(())
}

/// That a segment of `len` bytes ends before its chunk at `offset` does.
pub(super) fn cut_chunk(name: &str, len: u64, offset: u64) -> Broken {
    let what = format_args!("{name} has {len} bytes, and ends within its chunk at byte {offset}");
    Broken::new(Reason::ShortSegment, what)
}

/// That the chunk at `offset` of a segment does not have its checksum.
fn damaged_chunk(name: &str, offset: u64) -> Broken {
    let what = format_args!("{name} is damaged: wrong checksum of its chunk at byte {offset}");
    Broken::new(Reason::Segment, what)
}

/// Checks the chunk at `offset`: length, one byte for the encoding, data, checksum over the latter two. Returns where
/// encoding and data are.
pub(super) fn chunk(window: &mut Window, segment: &PinnedFile, offset: u32) -> Result<Range<u64>, Broken> {
    let name = &segment.rel_path;
    let start = u64::from(offset);
    let bytes = window.at(start, window::LONGEST_UVARINT)?;
    let Some((len, head)) = window::uvarint(bytes) else {
        let reason = if bytes.len() < window::LONGEST_UVARINT {
            Reason::ShortSegment
        } else {
            Reason::Segment
        };
        return Err(Broken::new(
            reason,
            format_args!("{name} has no chunk at byte {offset}, as the index says"),
        ));
    };
    let body = start + head as u64;
    // Mostly all of it is in sight.
    if is_seen_sound(bytes, head, len) {
        return Ok(body..body + 1 + len);
    }
    let end = body.checked_add(1 + 4).and_then(|end| end.checked_add(len));
    let Some(end) = end.filter(|end| *end <= segment.len) else {
        return Err(cut_chunk(name, segment.len, start));
    };
    if !window.is_sound(body, end)? {
        return Err(damaged_chunk(name, start));
    }
    Ok(body..end - window::CHECKSUM)
}

/// Whether the chunk with `len` bytes of data behind the first `head` bytes of `seen` is among those, and sound.
#[inline]
fn is_seen_sound(seen: &[u8], head: usize, len: u64) -> bool {
    let end = usize::try_from(len).ok().and_then(|len| len.checked_add(head + 1));
    let split = end.and_then(|end| Some((seen.get(head..end)?, seen.get(end..)?)));
    split.is_some_and(|(content, sum)| sum.starts_with(&crc32c::crc32c(content).to_be_bytes()))
}

#[cfg(test)]
mod tests;
