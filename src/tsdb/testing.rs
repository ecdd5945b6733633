//! Blocks for tests: a small writer of the format, and the real block of `testdata/blocks`.

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
        r#"{{"ulid":"{id}","minTime":0,"maxTime":1000,"stats":{{"numSamples":{0},"numSeries":{0}}},"compaction":{{"level":1,"sources":["{id}"]}},"version":1}}"#,
        shape.series
    );
    fs_err::write(dir.join("meta.json"), &meta).unwrap();
    let references = write_segments(&dir, shape);
    fs_err::write(dir.join("index"), index(shape, &references)).unwrap();
    Block {
        id: BlockId::parse(id).unwrap(),
        dir,
        meta: Meta::parse(meta.as_bytes()).unwrap(),
    }
}

fn write_segments(dir: &Path, shape: Shape) -> Vec<u64> {
    let mut references = Vec::new();
    let total = shape.series * shape.chunks;
    for segment in 0..shape.segments {
        let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
        for chunk in total * segment / shape.segments..total * (segment + 1) / shape.segments {
            references.push(u64::from(segment) << 32 | bytes.len() as u64);
            let data: Vec<u8> = std::iter::repeat_n(1, 1 + chunk as usize % 200).collect();
            uvarint(&mut bytes, data.len() as u64);
            let sum = crc32c::crc32c_append(crc32c::crc32c(&[1]), &data);
            bytes.push(1);
            bytes.extend(data);
            bytes.extend(sum.to_be_bytes());
        }
        fs_err::write(dir.join(format!("chunks/{:06}", segment + 1)), bytes).unwrap();
    }
    references
}

/// The bytes of an index whose series hold the chunks at `references`, `shape.chunks` each.
pub(crate) fn index(shape: Shape, references: &[u64]) -> Vec<u8> {
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, shape.version];
    let symbols = out.len();
    let mut content = 2_u32.to_be_bytes().to_vec();
    content.extend(b"\x01a\x01b");
    section(&mut out, &content);
    let series = out.len();
    for chunks in references.chunks(shape.chunks as usize) {
        if shape.version != 1 {
            out.resize(out.len().next_multiple_of(16), 0);
        }
        let content = one_series(chunks);
        uvarint(&mut out, content.len() as u64);
        let sum = crc32c::crc32c(&content).to_be_bytes();
        out.extend(content);
        out.extend(sum);
    }
    let postings = out.len();
    section(&mut out, &[0; 4]);
    let postings_table = out.len();
    section(&mut out, &[0; 4]);
    toc(
        &mut out,
        [symbols, series, 0, 0, postings, postings_table].map(|offset| offset as u64),
    );
    out
}

/// Adds a table of contents.
pub(crate) fn toc(out: &mut Vec<u8>, offsets: [u64; 6]) {
    let toc: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_be_bytes()).collect();
    out.extend(&toc);
    out.extend(crc32c::crc32c(&toc).to_be_bytes());
}

fn one_series(chunks: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    uvarint(&mut out, 1);
    uvarint(&mut out, 0);
    uvarint(&mut out, 1);
    uvarint(&mut out, chunks.len() as u64);
    let mut before = 0;
    for (i, reference) in chunks.iter().enumerate() {
        if i == 0 {
            varint(&mut out, -1_000_000);
            uvarint(&mut out, 1000);
            uvarint(&mut out, *reference);
        } else {
            uvarint(&mut out, 15_000);
            uvarint(&mut out, 1000);
            varint(&mut out, reference.wrapping_sub(before) as i64);
        }
        before = *reference;
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
    (data, Block { dir, ..block })
}
