use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use super::*;
use crate::tsdb::testing::{self, Shape};

mod garbage;
mod issues;
mod running;

const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

/// The time range of blocks for which it does not matter (ms).
const RANGE: (i64, i64) = (i64::MIN, i64::MAX);

static GO: AtomicBool = AtomicBool::new(false);
static READ: AtomicU64 = AtomicU64::new(0);

fn options(threads: usize) -> Options<'static> {
    Options {
        threads,
        sha256: false,
        stop: &GO,
        read: &READ,
    }
}

/// The results by place; each block must have just one.
fn check_all(list: &[Block], options: &Options<'_>) -> Vec<Result<Checked, PinError>> {
    let results = Mutex::new(BTreeMap::new());
    blocks(list, options, |i, result| {
        let result = result.map(|(pinned, checked)| {
            assert_eq!(pinned.id, list[i].id);
            checked
        });
        assert!(results.lock().unwrap().insert(i, result).is_none());
    });
    let results = results.into_inner().unwrap();
    assert_eq!(results.len(), list.len());
    results.into_values().collect()
}

fn check(block: &Block) -> Result<Checked, PinError> {
    check_all(std::slice::from_ref(block), &options(2)).remove(0)
}

fn broken(block: &Block) -> (Reason, String) {
    match check(block) {
        Err(PinError::Broken { reason, detail }) => (reason, detail),
        other => panic!("{other:?}"),
    }
}

fn made(shape: Shape) -> (tempfile::TempDir, Block) {
    let data = tempfile::tempdir().unwrap();
    let block = testing::write_block(data.path(), ID, shape);
    (data, block)
}

/// The block with another `meta.json`.
fn with_meta(block: &Block, change: impl Fn(&mut BlockMeta)) -> Block {
    let mut block = block.clone();
    change(std::sync::Arc::make_mut(&mut block.meta));
    block
}

fn edit(block: &Block, file: &str, change: impl Fn(&mut Vec<u8>)) {
    let path = block.dir.join(file);
    let mut bytes = fs_err::read(&path).unwrap();
    change(&mut bytes);
    fs_err::write(&path, bytes).unwrap();
}

#[test]
fn the_real_block_is_whole() {
    let (_data, block) = testing::real_block();
    let options = Options {
        sha256: true,
        ..options(1)
    };
    let checked = check_all(std::slice::from_ref(&block), &options).remove(0).unwrap();
    // Three series of 480 samples, 15 s apart, in chunks of 120; see make.sh.
    let start = 1_767_225_600_000;
    let facts = Facts {
        series: 3,
        chunks: 12,
        samples: 1440,
        times: Some((start, start + 479 * 15_000)),
        encodings: BTreeMap::from([(1, 12)]),
        issues: Vec::new(),
    };
    assert_eq!(checked.facts, facts);
    let digests: Vec<_> = checked
        .files
        .iter()
        .map(|file| (file.rel_path.as_str(), file.len, file.sha256.as_deref()))
        .collect();
    // By sha256sum.
    assert_eq!(
        digests,
        [
            (
                "chunks/000001",
                4815,
                Some("898631f15e0d0bdacaeeef78a205367e52e1558fb1e01a4fd1b25e1d239faf49")
            ),
            (
                "index",
                550,
                Some("09a06df741472778586bd7dcc8873e3b514f1065c1e34b840dd5c661d557d652")
            ),
        ]
    );
    for file in &checked.files {
        let bytes = fs_err::read(block.dir.join(&file.rel_path)).unwrap();
        assert_eq!(file.crc32c, crc32c::crc32c(&bytes));
    }
}

#[test]
fn made_blocks_are_whole() {
    for version in [1, 2] {
        for (series, chunks, segments) in [(1, 1, 1), (7, 5, 1), (100, 30, 3), (5, 1, 5), (1, 200_000, 2)] {
            let shape = Shape {
                series,
                chunks,
                segments,
                version,
            };
            let (_data, block) = made(shape);
            let facts = check(&block).unwrap().facts;
            let count = u64::from(series * chunks);
            assert_eq!(
                (facts.series, facts.chunks, facts.samples),
                (series.into(), count, count)
            );
            assert_eq!(facts.times, Some((0, 999)), "{shape:?}");
        }
    }
}

/// What the passes make of an index and segments that are in memory.
fn passes(meta: &BlockMeta, index: &[u8], segments: &[Vec<u8>]) -> Result<Facts, Broken> {
    let toc = &index[index.len().saturating_sub(TOC as usize)..];
    let range = (meta.min_time, meta.max_time);
    let (index, _) = super::index(index.len() as u64, toc, range, index, &options(1)).unwrap()?;
    let mut facts = Vec::new();
    for (i, bytes) in segments.iter().enumerate() {
        facts.push(of_segment(i, bytes)?);
    }
    agree(meta, &index, &facts)
}

fn of_segment(number: usize, bytes: &[u8]) -> Result<SegmentFacts, Broken> {
    let (facts, _) = segment(&segment_name(number), bytes.len() as u64, bytes, &options(1)).unwrap()?;
    Ok(facts)
}

fn bytes_of(block: &Block) -> (Vec<u8>, Vec<Vec<u8>>) {
    let files = Pinned::open(block).unwrap().files;
    let mut all: Vec<Vec<u8>> = files.iter().map(|file| fs_err::read(&file.path).unwrap()).collect();
    (all.pop().unwrap(), all)
}

#[test]
fn any_changed_byte_is_found() {
    let made = made(Shape {
        segments: 3,
        ..Shape::default()
    });
    let old = self::made(Shape {
        version: 1,
        ..Shape::default()
    });
    for (_data, block) in [testing::real_block(), made, old] {
        let (index, segments) = bytes_of(&block);
        passes(&block.meta, &index, &segments).unwrap();
        for flip in [0xff, 1, 2, 3, 0x10, 0x80] {
            for at in 0..index.len() {
                let mut index = index.clone();
                index[at] ^= flip;
                let broken = passes(&block.meta, &index, &segments).unwrap_err();
                assert_eq!(broken.reason, Reason::Index, "byte {at} ^ {flip}");
            }
            for (i, at) in (0..segments.len()).flat_map(|i| (0..segments[i].len()).map(move |at| (i, at))) {
                let mut bytes = segments[i].clone();
                bytes[at] ^= flip;
                let broken = of_segment(i, &bytes).unwrap_err();
                assert!(
                    broken.detail.starts_with(&segment_name(i)),
                    "byte {at} ^ {flip}: {broken}"
                );
            }
        }
    }
}

#[test]
fn any_cut_and_any_tail_is_found() {
    let (_data, block) = testing::real_block();
    let (index, segments) = bytes_of(&block);
    for len in 0..index.len() {
        let broken = passes(&block.meta, &index[..len], &segments).unwrap_err();
        assert_eq!(broken.reason, Reason::Index, "{len}");
    }
    for len in 0..segments[0].len() {
        let broken = passes(&block.meta, &index, &[segments[0][..len].to_vec()]).unwrap_err();
        assert!(
            matches!(broken.reason, Reason::ShortSegment | Reason::Chunk),
            "{len}: {broken}"
        );
    }
    for tail in [1, 4, 6, 4096] {
        let longer = |bytes: &[u8]| [bytes, &vec![0; tail]].concat();
        passes(&block.meta, &longer(&index), &segments).unwrap_err();
        passes(&block.meta, &index, &[longer(&segments[0])]).unwrap_err();
    }
}

#[test]
fn says_which_statistic_is_wrong() {
    let (_data, block) = testing::real_block();
    let said = |change: fn(&mut BlockMeta)| broken(&with_meta(&block, change));
    let stats = |text: &str| (Reason::Stats, text.to_owned());
    assert_eq!(
        said(|meta| meta.num_series = 4),
        stats("meta.json counts 4 series, and the block has 3")
    );
    assert_eq!(
        said(|meta| meta.num_chunks = 0),
        stats("meta.json counts 0 chunks, and the block has 12")
    );
    assert_eq!(
        said(|meta| meta.num_samples -= 1),
        stats("meta.json counts 1439 samples, and the block has 1440")
    );
}

#[test]
fn says_what_is_wrong_with_the_segments() {
    let shape = Shape {
        segments: 3,
        chunks: 20,
        ..Shape::default()
    };
    let name = |block: &Block, number: u32| block.dir.join(format!("chunks/{number:06}"));
    let (_data, block) = made(shape);
    fs_err::remove_file(name(&block, 3)).unwrap();
    let missing = (
        Reason::MissingSegment,
        "chunks/000003 is missing: the index refers to it".to_owned(),
    );
    assert_eq!(broken(&block), missing);
    fs_err::remove_file(name(&block, 1)).unwrap();
    let gap = "chunks/000001 is missing, and chunks/000002 is there".to_owned();
    assert_eq!(broken(&block), (Reason::MissingSegment, gap));

    let (_data, block) = made(shape);
    fs_err::rename(name(&block, 1), block.dir.join("aside")).unwrap();
    fs_err::rename(name(&block, 2), name(&block, 1)).unwrap();
    fs_err::rename(block.dir.join("aside"), name(&block, 2)).unwrap();
    let (reason, detail) = broken(&block);
    assert!(matches!(reason, Reason::Segment | Reason::ShortSegment), "{detail}");
    // The first chunk begins at the same place in both, and the second does not.
    assert!(
        detail.starts_with("chunks/000001 ") && detail.contains("at byte "),
        "{detail}"
    );
    let (index, segments) = bytes_of(&block);
    let far = passes(&block.meta, &index, &segments).unwrap_err();
    assert_eq!(far.reason, Reason::Chunk);
    let text = "the index refers to 33 chunks of chunks/000001, which holds as many, but others";
    assert_eq!(far.detail, text);
}

#[test]
fn a_segment_that_ends_between_two_chunks_is_found() {
    let (_data, block) = testing::real_block();
    let (index, segments) = bytes_of(&block);
    // The longest beginning that passes for a segment by itself.
    let cut = (0..segments[0].len())
        .rev()
        .find(|len| of_segment(0, &segments[0][..*len]).is_ok())
        .unwrap();
    let far = passes(&block.meta, &index, &[segments[0][..cut].to_vec()]).unwrap_err();
    let text = "the index refers to 12 chunks of chunks/000001, which holds 11";
    assert_eq!((far.reason, far.detail.as_str()), (Reason::Chunk, text));
    edit(&block, "chunks/000001", |bytes| bytes.truncate(cut));
    let text = format!("chunks/000001 has no chunk at byte {cut}, as the index says");
    assert_eq!(broken(&block), (Reason::ShortSegment, text));
}

#[test]
fn chunks_that_nobody_refers_to_are_no_damage_on_disk() {
    let (_data, block) = testing::real_block();
    edit(&block, "chunks/000001", |bytes| {
        testing::one_chunk(bytes, 1, &[0, 9, 9, 9])
    });
    let facts = check(&block).unwrap().facts;
    assert_eq!((facts.chunks, facts.samples), (12, 1440));
    assert_eq!(facts.encodings, BTreeMap::from([(1, 12)]));
    let (index, segments) = bytes_of(&block);
    let text = "the index refers to 12 chunks of chunks/000001, which holds 13";
    assert_eq!(passes(&block.meta, &index, &segments).unwrap_err().detail, text);
}

#[test]
fn chunks_that_two_series_refer_to_are_no_damage_on_disk() {
    let (_data, block) = made(Shape {
        series: 2,
        chunks: 1,
        ..Shape::default()
    });
    let shape = Shape {
        series: 4,
        chunks: 1,
        ..Shape::default()
    };
    let index = testing::index(shape, &[8, 8, 16, 16]);
    fs_err::write(block.dir.join("index"), index).unwrap();
    let block = with_meta(&block, |meta| {
        (meta.num_series, meta.num_chunks, meta.num_samples) = (4, 4, 4)
    });
    assert_eq!(check(&block).unwrap().facts.samples, 4);
}

#[test]
fn only_known_chunks_pass_and_each_encoding_counts() {
    let chunks: [(u8, &[u8]); 7] = [
        (1, &[0, 7]),
        (2, &[0, 1, 0]),
        (3, &[1, 0]),
        (4, &[0, 2, 0]),
        (5, &[0xc0, 3]),
        (6, &[0x40, 4]),
        (0xff, &[0xff, 0xff]),
    ];
    let segment_of = |chunks: &[(u8, &[u8])]| {
        let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
        for (encoding, data) in chunks {
            testing::one_chunk(&mut bytes, *encoding, data);
        }
        of_segment(0, &bytes)
    };
    let found = segment_of(&chunks).unwrap();
    assert_eq!(found.samples, 7 + 1 + 256 + 2 + 3 + 4);
    let index = IndexFacts {
        references: vec![found.references],
        ..IndexFacts::default()
    };
    let known = facts(&index, std::slice::from_ref(&found), true).unwrap();
    assert_eq!(
        known.encodings,
        chunks.iter().map(|(encoding, _)| (*encoding, 1)).collect()
    );
    assert_eq!(known.samples, 0);
    let text = "1 chunks are downsampled, and by meta.json the block is not";
    assert_eq!(facts(&index, &[found], false).unwrap_err().detail, text);
    for encoding in [0, 7, 42, 0xfe] {
        let broken = segment_of(&[(1, &[0, 1]), (encoding, &[0, 1])]).unwrap_err();
        let text = format!("chunks/000001 has a chunk at byte 16 of the encoding {encoding}, which is not known here");
        assert_eq!((broken.reason, broken.detail), (Reason::Chunk, text));
    }
    let broken = segment_of(&[(1, &[0])]).unwrap_err();
    let text = "chunks/000001 has a chunk at byte 8 that is too short for any sample";
    assert_eq!((broken.reason, broken.detail.as_str()), (Reason::Chunk, text));
}
