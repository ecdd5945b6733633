//! Whole blocks from given series: symbols, series, lists of series and the table that leads to them, and segments.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{
    super::{BlockId, Pinned, PinnedFile, segment_path},
    one_chunk, section, toc, uvarint, varint,
};

/// What each segment begins with.
pub(crate) const SEGMENT_HEADER: [u8; 8] = [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];

/// Names and values.
pub(crate) type Labels = Vec<(Vec<u8>, Vec<u8>)>;

/// A series that a block shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MadeSeries {
    /// Sorted by name.
    pub(crate) labels: Labels,
    pub(crate) chunks: Vec<MadeChunk>,
}

/// A chunk that a series shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MadeChunk {
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) encoding: u8,
    pub(crate) data: Vec<u8>,
    /// Whether it begins a new segment.
    pub(crate) cut: bool,
}

/// A list of series, by their places among all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MadeList {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) series: Vec<usize>,
}

/// The files of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MadeBlock {
    pub(crate) index: Vec<u8>,
    pub(crate) segments: Vec<Vec<u8>>,
}

impl MadeSeries {
    /// A series of these labels, in any order.
    pub(crate) fn new(labels: &[(&str, &str)], chunks: Vec<MadeChunk>) -> Self {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self {
            labels: labels.collect(),
            chunks,
        }
    }
}

impl MadeBlock {
    /// A block of these series, which are put in order.
    pub(crate) fn of(series: &[MadeSeries]) -> Self {
        let mut series: Vec<&MadeSeries> = series.iter().collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        let symbols: Vec<Vec<u8>> = texts(&series).into_iter().collect();
        let (mut segments, mut contents) = (vec![SEGMENT_HEADER.to_vec()], Vec::new());
        for series in &series {
            let references: Vec<u64> = series.chunks.iter().map(|chunk| put(&mut segments, chunk)).collect();
            contents.push(content(series, &symbols, &references));
        }
        Self {
            index: index(&symbols, &contents, &lists(&series)),
            segments,
        }
    }

    /// Its files below `dir`, open.
    pub(crate) fn pinned(&self, dir: &Path) -> Pinned {
        let paths = (1..).map(segment_path).zip(&self.segments);
        let files = paths.chain([("index".to_owned(), &self.index)]);
        Pinned {
            id: BlockId::parse("01K4ABCDEFGHJKMNPQRSTVWXYZ").unwrap(),
            files: files.map(|(name, bytes)| file(dir, name, bytes)).collect(),
        }
    }
}

fn file(dir: &Path, rel_path: String, bytes: &[u8]) -> PinnedFile {
    let path = dir.join(&rel_path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(&path, bytes).unwrap();
    let file = Arc::new(fs_err::File::open(&path).unwrap().into_file());
    PinnedFile {
        rel_path,
        path,
        file,
        len: bytes.len() as u64,
    }
}

fn texts(series: &[&MadeSeries]) -> BTreeSet<Vec<u8>> {
    let labels = series.iter().flat_map(|series| &series.labels);
    labels.flat_map(|(name, value)| [name.clone(), value.clone()]).collect()
}

/// Adds a chunk to the last segment, or to a new one; returns its reference.
fn put(segments: &mut Vec<Vec<u8>>, chunk: &MadeChunk) -> u64 {
    if chunk.cut {
        segments.push(SEGMENT_HEADER.to_vec());
    }
    let number = segments.len() as u64 - 1;
    let segment = segments.last_mut().unwrap();
    let reference = number << 32 | segment.len() as u64;
    one_chunk(segment, chunk.encoding, &chunk.data);
    reference
}

fn content(series: &MadeSeries, symbols: &[Vec<u8>], references: &[u64]) -> Vec<u8> {
    let number = |text: &Vec<u8>| symbols.binary_search(text).unwrap() as u64;
    let labels: Vec<(u64, u64)> = series
        .labels
        .iter()
        .map(|(name, value)| (number(name), number(value)))
        .collect();
    let chunks: Vec<(i64, i64, u64)> = series
        .chunks
        .iter()
        .zip(references)
        .map(|(chunk, reference)| (chunk.min_ms, chunk.max_ms, *reference))
        .collect();
    series_content(&labels, &chunks)
}

/// A series of the labels with these symbols, and the chunks of these times and references.
pub(crate) fn series_content(labels: &[(u64, u64)], chunks: &[(i64, i64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    uvarint(&mut out, labels.len() as u64);
    for (name, value) in labels {
        uvarint(&mut out, *name);
        uvarint(&mut out, *value);
    }
    uvarint(&mut out, chunks.len() as u64);
    let mut before = None;
    for (min_ms, max_ms, reference) in chunks {
        match before {
            None => varint(&mut out, *min_ms),
            Some((end, _)) => uvarint(&mut out, min_ms.wrapping_sub(end) as u64),
        }
        uvarint(&mut out, max_ms.wrapping_sub(*min_ms) as u64);
        match before {
            None => uvarint(&mut out, *reference),
            Some((_, last)) => varint(&mut out, reference.wrapping_sub(last) as i64),
        }
        before = Some((*max_ms, *reference));
    }
    out
}

/// The list of all series, then one for each label.
fn lists(series: &[&MadeSeries]) -> Vec<MadeList> {
    let mut lists = BTreeMap::from([((Vec::new(), Vec::new()), (0..series.len()).collect::<Vec<usize>>())]);
    for (at, series) in series.iter().enumerate() {
        for label in &series.labels {
            lists.entry(label.clone()).or_default().push(at);
        }
    }
    let list = |((name, value), series)| MadeList { name, value, series };
    lists.into_iter().map(list).collect()
}

/// An index of these symbols, contents of series, and lists, all as they are. A series that is not there is a number of the
/// list as it is.
pub(crate) fn index(symbols: &[Vec<u8>], series: &[Vec<u8>], lists: &[MadeList]) -> Vec<u8> {
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, 2];
    let first_symbol = out.len();
    let mut content = (symbols.len() as u32).to_be_bytes().to_vec();
    for symbol in symbols {
        uvarint(&mut content, symbol.len() as u64);
        content.extend(symbol);
    }
    section(&mut out, &content);
    let first_series = out.len();
    let mut numbers = Vec::new();
    for content in series {
        out.resize(out.len().next_multiple_of(16), 0);
        numbers.push((out.len() / 16) as u32);
        uvarint(&mut out, content.len() as u64);
        out.extend(content);
        out.extend(crc32c::crc32c(content).to_be_bytes());
    }
    let first_list = out.len();
    let mut table = (lists.len() as u32).to_be_bytes().to_vec();
    for list in lists {
        out.resize(out.len().next_multiple_of(4), 0);
        put_entry(&mut table, &list.name, &list.value, out.len() as u64);
        let mut content = (list.series.len() as u32).to_be_bytes().to_vec();
        for at in &list.series {
            content.extend(numbers.get(*at).copied().unwrap_or(*at as u32).to_be_bytes());
        }
        section(&mut out, &content);
    }
    let places = [first_symbol, first_series, 0, 0, first_list, out.len()];
    section(&mut out, &table);
    toc(&mut out, places.map(|place| place as u64));
    out
}

/// Adds an entry of the postings table.
pub(crate) fn put_entry(out: &mut Vec<u8>, name: &[u8], value: &[u8], list: u64) {
    uvarint(out, 2);
    for text in [name, value] {
        uvarint(out, text.len() as u64);
        out.extend(text);
    }
    uvarint(out, list);
}

/// Where the sections of an index begin, by its table of contents.
pub(crate) fn places(index: &[u8]) -> [usize; 6] {
    let (words, _) = index[index.len() - 52..].as_chunks::<8>();
    std::array::from_fn(|at| u64::from_be_bytes(words[at]) as usize)
}

/// The index with another content of the section that begins at `start`, as long as the old one.
pub(crate) fn with_section(index: &[u8], start: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut out = index.to_vec();
    let len = u32::from_be_bytes(*index[start..].first_chunk().unwrap()) as usize;
    let (content, rest) = out[start + 4..].split_at_mut(len);
    change(content);
    rest[..4].copy_from_slice(&crc32c::crc32c(content).to_be_bytes());
    out
}

/// The index with another content of its postings table, of any length.
pub(crate) fn with_table(index: &[u8], content: &[u8]) -> Vec<u8> {
    let places = places(index);
    let mut out = index[..places[5]].to_vec();
    section(&mut out, content);
    toc(&mut out, places.map(|place| place as u64));
    out
}
