//! Blocks for tests: a small writer of the format, and the real block of `testdata/blocks`.

pub(crate) mod indexed;
pub(crate) mod summed;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Block, BlockId, Meta, Pinned, PinnedFile, scan};

/// What a made block looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) series: u32,
    /// Chunks per series.
    pub(crate) chunks: u32,
    pub(crate) segments: u32,
    /// The index' format.
    pub(crate) version: u8,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            series: 5,
            chunks: 3,
            segments: 1,
            version: 2,
        }
    }
}

/// Writes a block of level 1 into the data directory `data`.
pub(crate) fn write_block(data: &Path, id: &str, shape: Shape) -> Block {
    let dir = data.join(id);
    fs_err::create_dir_all(dir.join("chunks")).unwrap();
    let meta = format!(
        r#"{{"ulid":"{id}","minTime":0,"maxTime":1000,"stats":{{"numSamples":{1},"numSeries":{0},"numChunks":{1}}},"compaction":{{"level":1,"sources":["{id}"]}},"version":1}}"#,
        shape.series,
        shape.series * shape.chunks
    );
    fs_err::write(dir.join("meta.json"), &meta).unwrap();
    let references = write_segments(&dir, shape);
    fs_err::write(dir.join("index"), index(shape, &references)).unwrap();
    Block {
        id: BlockId::parse(id).unwrap(),
        dir: dir.into(),
        meta: Meta::parse(meta.as_bytes()).unwrap().into(),
    }
}

fn write_segments(dir: &Path, shape: Shape) -> Vec<u64> {
    let mut references = Vec::new();
    let total = shape.series * shape.chunks;
    for segment in 0..shape.segments {
        let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
        for chunk in total * segment / shape.segments..total * (segment + 1) / shape.segments {
            references.push(u64::from(segment) << 32 | bytes.len() as u64);
            let mut data = vec![0, 1];
            data.resize(2 + chunk as usize % 200, 1);
            one_chunk(&mut bytes, 1, &data);
        }
        fs_err::write(dir.join(format!("chunks/{:06}", segment + 1)), bytes).unwrap();
    }
    references
}

/// Adds a chunk with the byte `encoding`.
pub(crate) fn one_chunk(out: &mut Vec<u8>, encoding: u8, data: &[u8]) {
    uvarint(out, data.len() as u64);
    out.push(encoding);
    out.extend(data);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[encoding]), data);
    out.extend(sum.to_be_bytes());
}

/// The bytes of an index whose series hold the chunks at `references`, `shape.chunks` each.
pub(crate) fn index(shape: Shape, references: &[u64]) -> Vec<u8> {
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, shape.version];
    let symbols = out.len();
    let values = references.len().div_ceil(shape.chunks as usize);
    let mut content = (1 + values as u32).to_be_bytes().to_vec();
    content.extend(b"\x01a");
    let mut symbol_of_value = Vec::new();
    for value in 0..values {
        // Version 1 refers to symbols by their offsets.
        let offset = (symbols + 4 + content.len()) as u64;
        symbol_of_value.push(if shape.version == 1 { offset } else { 1 + value as u64 });
        content.extend(format!("\x06{value:06}").bytes());
    }
    section(&mut out, &content);
    let series = out.len();
    let first_symbol = if shape.version == 1 { symbols as u64 + 8 } else { 0 };
    let mut postings = (values as u32).to_be_bytes().to_vec();
    for (chunks, symbol) in references.chunks(shape.chunks as usize).zip(symbol_of_value) {
        let alignment = if shape.version == 1 { 1 } else { 16 };
        out.resize(out.len().next_multiple_of(alignment), 0);
        postings.extend(((out.len() / alignment) as u32).to_be_bytes());
        let content = one_series([first_symbol, symbol], chunks);
        uvarint(&mut out, content.len() as u64);
        let sum = crc32c::crc32c(&content).to_be_bytes();
        out.extend(content);
        out.extend(sum);
    }
    let first_postings = out.len();
    out.resize(out.len().next_multiple_of(4), 0);
    section(&mut out, &postings);
    let postings_table = out.len();
    section(&mut out, &[0; 4]);
    toc(
        &mut out,
        [symbols, series, 0, 0, first_postings, postings_table].map(|offset| offset as u64),
    );
    out
}

/// Adds a table of contents.
pub(crate) fn toc(out: &mut Vec<u8>, offsets: [u64; 6]) {
    let toc: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_be_bytes()).collect();
    out.extend(&toc);
    out.extend(crc32c::crc32c(&toc).to_be_bytes());
}

/// A series whose chunks share the time from 0 to 1000 among them.
fn one_series(labels: [u64; 2], chunks: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    uvarint(&mut out, 1);
    for symbol in labels {
        uvarint(&mut out, symbol);
    }
    uvarint(&mut out, chunks.len() as u64);
    let (mut last, mut before) = (0, 0);
    for (i, reference) in chunks.iter().enumerate() {
        let time = |i: usize| (i * 1000 / chunks.len()) as u64;
        let (start, end) = (time(i), time(i + 1).max(time(i) + 1) - 1);
        if i == 0 {
            varint(&mut out, start as i64);
            uvarint(&mut out, end - start);
            uvarint(&mut out, *reference);
        } else {
            uvarint(&mut out, start - last);
            uvarint(&mut out, end - start);
            varint(&mut out, reference.wrapping_sub(before) as i64);
        }
        (last, before) = (end, *reference);
    }
    out
}

fn section(out: &mut Vec<u8>, content: &[u8]) {
    out.extend((content.len() as u32).to_be_bytes());
    out.extend(content);
    out.extend(crc32c::crc32c(content).to_be_bytes());
}

pub(crate) fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn varint(out: &mut Vec<u8>, value: i64) {
    uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// A pinned file with `bytes`, and the directory that it lives in.
pub(crate) fn pinned_file(rel_path: &str, bytes: &[u8]) -> (tempfile::TempDir, PinnedFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs_err::write(&path, bytes).unwrap();
    let file = Arc::new(fs_err::File::open(&path).unwrap().into_file());
    (
        dir,
        PinnedFile {
            rel_path: rel_path.into(),
            path,
            file,
            len: bytes.len() as u64,
        },
    )
}

/// A copy of the real block of `testdata/blocks` (see `make.sh` there) in a data directory of its own.
pub(crate) fn real_block() -> (tempfile::TempDir, Block) {
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/blocks"));
    let block = scan(&source).unwrap().blocks.remove(0);
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join(block.id.to_string());
    fs_err::create_dir_all(dir.join("chunks")).unwrap();
    for file in Pinned::open(&block).unwrap().files {
        fs_err::copy(file.path, dir.join(file.rel_path)).unwrap();
    }
    fs_err::copy(block.dir.join("meta.json"), dir.join("meta.json")).unwrap();
    let dir = dir.into();
    (data, Block { dir, ..block })
}
