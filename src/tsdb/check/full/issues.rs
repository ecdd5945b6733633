//! What an index may have although all files of its block are whole: series or chunks that no current Prometheus writes, and
//! that Prometheus reads all the same. Thanos' compactor stops at most of it, and with it the compaction of all blocks of the
//! same labels.
//!
//! Issues are counted by their kind while the series go by; of each kind the first is kept to be named, so memory is bounded
//! whatever the index holds. Series refer to their labels by symbols, which a pass has long forgotten when it meets an issue:
//! [`name`] reads the symbols once more, and only if there is something to be named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::Read,
};

use super::super::{
    Broken,
    index::{HEADER, Toc, bad, format as version_of, number},
    window::{LONGEST_UVARINT, uvarint},
};
use super::{
    IndexFacts, Options,
    stream::{Fault, Stream},
};

/// Labels of a series that are shown.
const MOST_LABELS: usize = 32;
/// Bytes of a label's name or value that are shown.
const LONGEST_TEXT: usize = 128;

/// A chunk by the times of its first and its last sample (ms since 1970, both inclusive).
type Times = (i64, i64);

/// What kind of issue an index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IssueKind {
    /// Series without any label.
    NoLabels,
    /// Series whose label names are not in ascending order, as Prometheus up to 2.8 wrote some.
    UnsortedLabels,
    /// Series that have a label name twice.
    DoubledLabels,
    /// Series without any chunk.
    NoChunks,
    /// Chunks that stand behind a later one of their series.
    UnsortedChunks,
    /// Chunks that share times with an earlier one of their series.
    OverlappingChunks,
    /// Chunks that have the very times of the one before.
    DoubledChunks,
    /// Chunks all of whose samples are outside of the block's time range.
    ChunksOutside,
    /// Chunks some of whose samples are outside of the block's time range.
    ChunksPartlyOutside,
    /// Chunks that begin at the end of the block's time range, which is exclusive, and go on beyond it; Prometheus up to 2.2
    /// wrote such.
    ChunksAtEnd,
}

/// All kinds, in the order of their numbers.
const KINDS: [IssueKind; 10] = [
    IssueKind::NoLabels,
    IssueKind::UnsortedLabels,
    IssueKind::DoubledLabels,
    IssueKind::NoChunks,
    IssueKind::UnsortedChunks,
    IssueKind::OverlappingChunks,
    IssueKind::DoubledChunks,
    IssueKind::ChunksOutside,
    IssueKind::ChunksPartlyOutside,
    IssueKind::ChunksAtEnd,
];

impl IssueKind {
    /// What comes of it, in words.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::NoLabels
            | Self::UnsortedLabels
            | Self::DoubledLabels
            | Self::NoChunks
            | Self::UnsortedChunks
            | Self::OverlappingChunks
            | Self::ChunksOutside
            | Self::ChunksPartlyOutside => "Thanos' compactor stops at it",
            Self::DoubledChunks => "the samples are stored twice",
            Self::ChunksAtEnd => "Thanos' compactor may rewrite the block over and over",
        }
    }
}

/// The issues of one kind in an index. Displayed with their numbers, and the series and chunk of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexIssue {
    /// Of what kind they are.
    pub kind: IssueKind,
    /// How many series have it.
    pub series: u64,
    /// How many chunks have it; 0 if it is an issue of whole series.
    pub chunks: u64,
    /// The first of them, in words: which series, which chunks, and their times.
    pub first: String,
}

impl fmt::Display for IndexIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            series,
            chunks,
            first,
        } = self;
        let chunks = match chunks {
            1 => "1 chunk".to_owned(),
            more => format!("{more} chunks"),
        };
        match kind {
            IssueKind::NoLabels => write!(f, "{series} series without labels"),
            IssueKind::UnsortedLabels => write!(f, "{series} series with label names that are not sorted"),
            IssueKind::DoubledLabels => write!(f, "{series} series with the same label name twice"),
            IssueKind::NoChunks => write!(f, "{series} series without chunks"),
            IssueKind::UnsortedChunks => write!(f, "{chunks} out of order in {series} series"),
            IssueKind::OverlappingChunks => write!(f, "{chunks} in {series} series overlapping another chunk"),
            IssueKind::DoubledChunks => write!(f, "{chunks} in {series} series with the times of the chunk before"),
            IssueKind::ChunksOutside => write!(f, "{chunks} in {series} series outside of the block's time range"),
            IssueKind::ChunksPartlyOutside => {
                write!(
                    f,
                    "{chunks} in {series} series partly outside of the block's time range"
                )
            }
            IssueKind::ChunksAtEnd => write!(
                f,
                "{chunks} in {series} series from the end of the block's time range on, which is exclusive"
            ),
        }?;
        write!(f, " ({}); first: {first}", kind.consequence())
    }
}

/// The issues of an index, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Issues([Option<Box<Counted>>; KINDS.len()]);

/// Issues of one kind.
#[derive(Clone, Debug)]
struct Counted {
    series: u64,
    chunks: u64,
    /// Where the last series with this issue begins in the index.
    last: u64,
    first: First,
}

/// The first issue of its kind.
#[derive(Clone, Debug)]
struct First {
    /// Where the series begins in the index.
    at: u64,
    /// References to symbols: name, value, name, value.
    labels: Vec<u64>,
    /// How many labels it has beyond those.
    more: u64,
    /// The labels as text, once they are known.
    name: Option<String>,
    /// The chunk that it is about, and what that is held against.
    chunk: Option<(Chunk, Against)>,
}

/// A chunk of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Its place in the series, from 1 on.
    place: u64,
    times: Times,
}

/// What a chunk does not go with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Against {
    /// An earlier chunk of its series.
    Chunk(Chunk),
    /// The time range of the block, its end exclusive (ms).
    Range(Times),
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.times;
        write!(f, "chunk {} from {first} to {last} (ms)", self.place)
    }
}

/// The series in which an issue was met.
#[derive(Clone, Copy)]
pub(super) struct Series<'a> {
    /// Where it begins in the index.
    pub(super) at: u64,
    /// Its labels: their count, and pairs of references to symbols.
    pub(super) labels: &'a [u8],
}

impl Issues {
    /// Counts an issue of a series, or of one of its chunks.
    #[cold]
    pub(super) fn add(&mut self, kind: IssueKind, series: Series<'_>, chunk: Option<(Chunk, Against)>) {
        let counted = self.0[kind as usize].get_or_insert_with(|| {
            Box::new(Counted {
                series: 0,
                chunks: 0,
                last: 0,
                first: First::of(series, chunk),
            })
        });
        counted.chunks += u64::from(chunk.is_some());
        // No series begins at byte 0.
        if counted.last != series.at {
            counted.last = series.at;
            counted.series += 1;
        }
    }

    /// The issues, for others to read.
    pub(super) fn list(&self) -> Vec<IndexIssue> {
        let counted = self
            .0
            .iter()
            .zip(KINDS)
            .filter_map(|(counted, kind)| Some((counted.as_deref()?, kind)));
        let issue = |(counted, kind): (&Counted, IssueKind)| IndexIssue {
            kind,
            series: counted.series,
            chunks: counted.chunks,
            first: counted.first.to_string(),
        };
        counted.map(issue).collect()
    }

    fn firsts(&mut self) -> impl Iterator<Item = &mut First> {
        self.0.iter_mut().flatten().map(|counted| &mut counted.first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl First {
    fn of(series: Series<'_>, chunk: Option<(Chunk, Against)>) -> Self {
        let mut rest = series.labels;
        // They were read before.
        let count = number(&mut rest).unwrap_or_default();
        let mut labels = Vec::new();
        while labels.len() < 2 * MOST_LABELS {
            match number(&mut rest) {
                Some(symbol) => labels.push(symbol),
                None => break,
            }
        }
        Self {
            at: series.at,
            more: count.saturating_sub(labels.len() as u64 / 2),
            labels,
            name: None,
            chunk,
        }
    }

    fn set_name(&mut self, symbols: &BTreeMap<u64, String>) {
        let text = |symbol: &u64| symbols.get(symbol).map_or("?", String::as_str);
        let mut parts: Vec<String> = self
            .labels
            .chunks_exact(2)
            .map(|pair| format!("{}={:?}", text(&pair[0]), text(&pair[1])))
            .collect();
        if self.more > 0 {
            parts.push(format!("and {} more labels", self.more));
        }
        self.name = Some(format!("{{{}}}", parts.join(", ")));
    }
}

impl fmt::Display for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "series {name} at byte {} of the index", self.at),
            None => write!(f, "the series at byte {} of the index", self.at),
        }?;
        match self.chunk {
            None => Ok(()),
            Some((chunk, Against::Chunk(other))) => write!(f, ", {chunk} after {other}"),
            Some((chunk, Against::Range((start, end)))) => write!(
                f,
                ", {chunk}, and by meta.json the block goes from {start} to before {end}"
            ),
        }
    }
}

/// Finds the chunks of a series that are not in the order of time; constant memory, however many there are.
#[derive(Debug, Default)]
pub(super) struct ChunkOrder {
    /// How many chunks came.
    count: u64,
    before: Option<Chunk>,
    /// The one that ends latest.
    latest: Option<Chunk>,
}

impl ChunkOrder {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next chunk with its place, and what is wrong with it, held against a chunk before.
    #[inline]
    pub(super) fn next(&mut self, times: Times) -> (Chunk, Option<(IssueKind, Against)>) {
        self.count += 1;
        let chunk = Chunk {
            place: self.count,
            times,
        };
        let issue = match self.latest {
            Some(latest) if times.0 <= latest.times.1 => Some(self.issue(times, latest)),
            _ => None,
        };
        if self.latest.is_none_or(|latest| times.1 > latest.times.1) {
            self.latest = Some(chunk);
        }
        self.before = Some(chunk);
        (chunk, issue)
    }

    #[cold]
    fn issue(&self, times: Times, latest: Chunk) -> (IssueKind, Against) {
        let (kind, other) = match self.before {
            Some(before) if before.times == times => (IssueKind::DoubledChunks, before),
            _ if times.1 < latest.times.0 => (IssueKind::UnsortedChunks, latest),
            _ => (IssueKind::OverlappingChunks, latest),
        };
        (kind, Against::Chunk(other))
    }
}

/// What is wrong with a chunk that is not in the block's `range`.
///
/// The end of the range is exclusive, but a chunk that ends there, or is a single sample there, is no issue: Thanos'
/// compactor counts it as inside. It merges such a block as any other; the samples at the end are kept if the merged block
/// goes on beyond them, and are left out if it ends there, as they do not belong to it.
#[inline]
pub(super) fn outside(chunk: Chunk, range: Times) -> Option<(IssueKind, Against)> {
    let ((first, last), (start, end)) = (chunk.times, range);
    if first >= start && last <= end {
        return None;
    }
    let kind = if first == end {
        IssueKind::ChunksAtEnd
    } else if first > end || last < start {
        IssueKind::ChunksOutside
    } else {
        IssueKind::ChunksPartlyOutside
    };
    Some((kind, Against::Range(range)))
}

/// Names the series of `facts` that have issues by their labels, which stand at the beginning of `bytes`, an index with the
/// table of contents `toc` and `len` bytes; no more than is needed is read of it.
pub(super) fn name(
    facts: &mut IndexFacts,
    len: u64,
    toc: &[u8],
    bytes: impl Read,
    options: &Options<'_>,
) -> Result<(), Fault> {
    let wanted: BTreeSet<u64> = facts.issues.firsts().flat_map(|first| first.labels.clone()).collect();
    let symbols = symbols(len, toc, bytes, &wanted, options)?;
    facts.issues.firsts().for_each(|first| first.set_name(&symbols));
    Ok(())
}

/// The text of those symbols that are `wanted`, as far as it is shown.
fn symbols(
    len: u64,
    toc: &[u8],
    bytes: impl Read,
    wanted: &BTreeSet<u64>,
    options: &Options<'_>,
) -> Result<BTreeMap<u64, String>, Fault> {
    let end = Toc::parse(toc, len)?.series;
    let mut stream = Stream::new(bytes, end, options);
    let version = version_of(stream.need(HEADER as usize)?)?;
    stream.skip(HEADER as usize);
    // The length of the symbols; the first pass has looked at it.
    let head = *stream.need(8)?.first_chunk::<8>().ok_or_else(changed)?;
    stream.skip(head.len());
    let count = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let mut found = BTreeMap::new();
    for place in 0..u64::from(count) {
        if found.len() == wanted.len() {
            break;
        }
        // Version 1 refers to symbols by their offsets.
        let reference = if version == 1 { stream.position() } else { place };
        let (len, head) = uvarint(stream.need(LONGEST_UVARINT)?).ok_or_else(changed)?;
        stream.skip(head);
        let text = match wanted.contains(&reference) {
            true => usize::try_from(len).unwrap_or(usize::MAX).min(LONGEST_TEXT),
            false => 0,
        };
        if text > 0 || wanted.contains(&reference) {
            let bytes = stream.need(text)?.get(..text).ok_or_else(changed)?;
            let more = if len > text as u64 { "…" } else { "" };
            found.insert(reference, format!("{}{more}", String::from_utf8_lossy(bytes)));
        }
        let next = stream.position().checked_add(len).ok_or_else(changed)?;
        while stream.position() < next {
            let rest = usize::try_from(next - stream.position()).unwrap_or(usize::MAX);
            let count = stream.need(1)?.len().min(rest);
            if count == 0 {
                return Err(changed().into());
            }
            stream.skip(count);
        }
    }
    Ok(found)
}

fn changed() -> Broken {
    bad("index is damaged: its symbols read otherwise the second time")
}
