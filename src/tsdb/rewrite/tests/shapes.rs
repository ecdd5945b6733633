//! Blocks of odd shapes, and what is asked of a pass: where segments end, stops, errors of the output.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::tsdb::{Reason, testing::Shape};

const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

fn made(shape: Shape) -> (tempfile::TempDir, Block) {
    let data = tempfile::tempdir().unwrap();
    let block = testing::write_block(data.path(), ID, shape);
    (data, block)
}

fn refused(block: &Block) -> String {
    match rewritten(block, SEGMENT_LIMIT) {
        Err(error @ Error::Refused(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn broken(block: &Block) -> (Reason, String) {
    match rewritten(block, SEGMENT_LIMIT) {
        Err(Error::Broken(broken)) => (broken.reason, broken.detail),
        other => panic!("{other:?}"),
    }
}

/// Puts these chunks into the first segment, and an index over them, `shape.chunks` for each series; returns where they are.
fn hold(block: &Block, shape: Shape, chunks: &[(u8, &[u8])], order: impl Fn(&mut Vec<u64>)) -> Vec<u64> {
    let mut segment = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
    let mut references = Vec::new();
    for (encoding, data) in chunks {
        references.push(segment.len() as u64);
        testing::one_chunk(&mut segment, *encoding, data);
    }
    order(&mut references);
    fs_err::write(block.dir.join("chunks/000001"), segment).unwrap();
    fs_err::write(block.dir.join("index"), testing::index(shape, &references)).unwrap();
    references
}

#[test]
fn what_is_not_rewritten_is_refused_in_words() {
    let (_data, block) = made(Shape {
        version: 1,
        ..Shape::default()
    });
    let text = "the block cannot be rewritten: its index has the format 1, and only 2 can be rewritten";
    assert_eq!(refused(&block), text);
    let (_data, block) = made(Shape::default());
    let one = Shape {
        series: 1,
        chunks: 2,
        ..Shape::default()
    };
    hold(&block, one, &[(1, &[0, 1, 1]), (0xff, &[0, 1, 2])], |_| ());
    let text = "the block cannot be rewritten: its chunk at byte 17 of chunks/000001 is downsampled";
    assert_eq!(refused(&block), text);
    for unknown in [0, 7, 0xfe] {
        hold(&block, one, &[(1, &[0, 1, 1]), (unknown, &[0, 1, 2])], |_| ());
        let text = format!("chunks/000001 has a chunk at byte 17 of the encoding {unknown}, which is not known here");
        assert_eq!(broken(&block), (Reason::Chunk, text));
    }
    hold(
        &block,
        one,
        &[(1, &[0, 1, 1]), (4, &[0, 9, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])],
        |_| (),
    );
    let text = "chunks/000001 has a chunk at byte 17 of the encoding XOR2 that cannot be decoded: the chunk is cut: 1 of its 9 samples can be read";
    assert_eq!(broken(&block), (Reason::Chunk, text.into()));
    hold(&block, one, &[(1, &[0, 1, 1]), (5, &[0])], |_| ());
    let text = "chunks/000001 has a chunk at byte 17 that is too short for any sample";
    assert_eq!(broken(&block), (Reason::Chunk, text.into()));
    let long = vec![0; 16 << 20];
    hold(&block, one, &[(1, &[0, 1, 1]), (4, &long)], |_| ());
    let text =
        "the block cannot be rewritten: chunks/000001 has a chunk of 16777217 bytes at byte 17, more than 16777216";
    assert_eq!(refused(&block), text);
}

#[test]
fn references_to_nowhere_are_errors_that_say_so() {
    let one = Shape {
        series: 1,
        chunks: 2,
        ..Shape::default()
    };
    let with = |second: u64| {
        let (_data, block) = made(one);
        hold(&block, one, &[(1, &[0, 1, 1]), (1, &[0, 1, 2])], |references| {
            references[1] = second
        });
        broken(&block)
    };
    let text = "chunks/000003 is missing: the index refers to it";
    assert_eq!(with(2 << 32 | 8), (Reason::MissingSegment, text.into()));
    let text = "chunks/000001 has no chunk at byte 300, as the index says";
    assert_eq!(with(300), (Reason::ShortSegment, text.into()));
    let text = "chunks/000001 is damaged: wrong checksum of its chunk at byte 10";
    assert_eq!(with(10), (Reason::Segment, text.into()));
    let (reason, text) = with(0);
    assert!(reason == Reason::ShortSegment || reason == Reason::Segment, "{text}");
    assert_eq!(with(u64::MAX >> 1).0, Reason::MissingSegment);
}

#[test]
fn chunks_that_stand_elsewhere_are_found() {
    let shape = Shape {
        series: 2,
        chunks: 3,
        ..Shape::default()
    };
    let (_data, block) = made(shape);
    let data: Vec<[u8; 3]> = (1..=6).map(|n| [0, 1, n]).collect();
    let chunks: Vec<(u8, &[u8])> = data.iter().map(|data| (1, &data[..])).collect();
    let order = |references: &mut Vec<u64>| references.reverse();
    hold(&block, shape, &chunks, order);
    let (done, files) = rewritten(&block, SEGMENT_LIMIT).unwrap();
    let mut turned: Vec<(u8, Vec<u8>)> = chunks.iter().map(|(byte, data)| (*byte, data.to_vec())).collect();
    turned.reverse();
    assert_eq!(chunks_of(&files[&OutFile::Segment(1)]), turned);
    assert_eq!((done.chunks, done.samples), (6, 6));
    // Chunks that nobody refers to are left out, those that two series refer to are there twice.
    hold(&block, shape, &chunks, |references| {
        references[0] = references[3];
        references[1] = references[4];
    });
    let (done, files) = rewritten(&block, SEGMENT_LIMIT).unwrap();
    let held: Vec<u8> = chunks_of(&files[&OutFile::Segment(1)])
        .iter()
        .map(|(_, data)| data[2])
        .collect();
    assert_eq!(held, [4, 5, 3, 4, 5, 6]);
    assert_eq!(done.chunks, 6);
}

#[test]
fn the_same_chunk_is_not_read_without_end() {
    let shape = Shape {
        series: 1,
        chunks: 1000,
        ..Shape::default()
    };
    let (_data, block) = made(shape);
    hold(&block, shape, &[(1, &[0, 1, 1, 1, 1, 1])], |references| {
        references.resize(1000, 8)
    });
    let text = "the index refers to more than twice as many bytes of chunks as the segments have";
    assert_eq!(broken(&block), (Reason::Chunk, text.into()));
}

#[test]
fn a_series_with_more_chunks_than_a_segment_goes_over_several() {
    let shape = Shape {
        series: 3,
        chunks: 4,
        segments: 5,
        version: 2,
    };
    let (_data, block) = made(shape);
    let (all, whole) = rewritten(&block, SEGMENT_LIMIT).unwrap();
    assert_eq!(whole.len(), 2);
    // A limit that no chunk keeps to gives each a segment of its own.
    let (apart, files) = rewritten(&block, 0).unwrap();
    assert_eq!((apart.chunks, files.len()), (12, 13));
    assert_eq!((all.samples, apart.samples), (12, 12));
    let (_dir, new) = put_down(&block, &files);
    assert_eq!(checked(&new).facts.chunks, 12);
    // And back again.
    let (_, joined) = rewritten(&new, SEGMENT_LIMIT).unwrap();
    assert!(joined == whole);
}

#[test]
fn no_more_segments_are_made_than_may_be() {
    let shape = Shape {
        series: 1,
        chunks: (1 << 16) + 1,
        ..Shape::default()
    };
    let (_data, block) = made(shape);
    match rewritten(&block, 0) {
        Err(Error::Refused(text)) => assert_eq!(text, "it would have more than 65536 segments of 0 bytes"),
        other => panic!("{:?}", other.map(|(done, _)| done.chunks)),
    }
}

/// The tables of contents, as six offsets.
fn toc_of(index: &[u8]) -> [u64; 6] {
    let (words, _) = index[index.len() - 52..].as_chunks::<8>();
    std::array::from_fn(|i| u64::from_be_bytes(words[i]))
}

/// The places that a table at `start` holds, each behind `strings` strings, which are left in the key.
fn entries(index: &[u8], start: u64) -> Vec<(Vec<u8>, u64)> {
    let mut rest = &index[start as usize + 4..];
    let count = u32::from_be_bytes(*rest.first_chunk().unwrap());
    rest = &rest[4..];
    let number = |rest: &mut &[u8]| {
        let (number, len) = uvarint(rest).unwrap();
        *rest = &rest[len..];
        number
    };
    let entry = |_| {
        let key = rest;
        for _ in 0..number(&mut rest) {
            let length = number(&mut rest) as usize;
            rest = &rest[length..];
        }
        let key = key[..key.len() - rest.len()].to_vec();
        (key, number(&mut rest))
    };
    (0..count).map(entry).collect()
}

/// The list at a place, without its checksum.
fn list_at(index: &[u8], place: u64) -> &[u8] {
    let from = &index[place as usize..];
    let length = u32::from_be_bytes(*from.first_chunk().unwrap()) as usize;
    &from[4..4 + length]
}

#[test]
fn label_indices_and_their_table_move_with_the_series() {
    let (_dir, real) = testing::real_block();
    let old = files_of(&real).remove(&OutFile::Index).unwrap();
    // In segments of their own the chunks have longer references.
    let (_, files) = rewritten(&real, 0).unwrap();
    let (_new_dir, block) = put_down(&real, &files);
    assert_eq!(checked(&block).facts.chunks, 12);
    let new = &files[&OutFile::Index];
    let (was, is) = (toc_of(&old), toc_of(new));
    assert!(is[2] > was[2] && is[..2] == was[..2], "{was:?} {is:?}");
    let lists = |index: &[u8], table: u64| {
        let list = |(key, place): (Vec<u8>, u64)| (key, list_at(index, place).to_vec());
        entries(index, table).into_iter().map(list).collect::<Vec<_>>()
    };
    assert!(lists(&old, was[3]).len() > 1);
    assert_eq!(lists(new, is[3]), lists(&old, was[3]));
    let (old, new) = (lists(&old, was[5]), lists(new, is[5]));
    assert_eq!(old.len(), new.len());
    let moved = old.iter().zip(&new).filter(|((old_key, old), (key, list))| {
        assert_eq!((old_key, old.len()), (key, list.len()));
        old != list
    });
    // Of three series the later two moved.
    assert!(moved.count() > 1);
}

#[test]
fn a_stop_ends_the_pass() {
    /// Stops at a write.
    struct Stopping<'a>(&'a AtomicBool, Kept);
    impl Output for Stopping<'_> {
        fn write(&mut self, file: OutFile, bytes: &[u8]) -> io::Result<()> {
            self.0.store(true, Relaxed);
            self.1.write(file, bytes)
        }
        fn finish(&mut self, file: OutFile) -> io::Result<()> {
            self.1.finish(file)
        }
    }
    let source = case("segments").source;
    let pinned = Pinned::open(&source).unwrap();
    for set in [true, false] {
        let stop = AtomicBool::new(set);
        let options = Options {
            stop: &stop,
            ..options(100)
        };
        let mut out = Stopping(&stop, Kept::default());
        let result = block(&pinned, &options, &mut out);
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
        // After the first piece at most one segment comes to its end.
        assert!(out.1.files.len() <= 1 && out.1.finished.len() <= 1);
    }
}

#[test]
fn an_error_of_the_output_ends_the_pass_as_it_is() {
    /// Fails at a call.
    struct Failing(AtomicUsize);
    impl Failing {
        fn call(&self) -> io::Result<()> {
            match self.0.fetch_sub(1, Relaxed) {
                0 => Err(io::Error::new(io::ErrorKind::StorageFull, "the bucket is full")),
                _ => Ok(()),
            }
        }
    }
    impl Output for Failing {
        fn write(&mut self, _: OutFile, _: &[u8]) -> io::Result<()> {
            self.call()
        }
        fn finish(&mut self, _: OutFile) -> io::Result<()> {
            self.call()
        }
    }
    let Case { source, samples, .. } = case("segments");
    let pinned = Pinned::open(&source).unwrap();
    let mut failed = 0;
    loop {
        match block(
            &pinned,
            &options(samples.segment_limit),
            &mut Failing(AtomicUsize::new(failed)),
        ) {
            Ok(_) => break,
            Err(Error::Output(error)) => assert_eq!(error.to_string(), "the bucket is full"),
            Err(other) => panic!("{other}"),
        }
        failed += 1;
    }
    // One write and one finish for each of eight segments and the index.
    assert_eq!(failed, 18);
}

#[test]
fn what_is_more_than_a_piece_is_summed_up_and_whole() {
    let shape = Shape {
        series: 3000,
        chunks: 2,
        segments: 3,
        version: 2,
    };
    let (_data, block) = made(shape);
    let (done, files) = rewritten(&block, SEGMENT_LIMIT).unwrap();
    // More than a piece of each file.
    assert!(
        files
            .values()
            .all(|bytes| bytes.len() > 256 << 10 || bytes.len() < 256 << 10)
    );
    for (digest, (file, bytes)) in done.files.iter().zip(&files) {
        assert_eq!(digest.rel_path, file.rel_path());
        assert_eq!((digest.len, digest.crc32c), (bytes.len() as u64, crc32c::crc32c(bytes)));
    }
    let (_dir, new) = put_down(&block, &files);
    assert_eq!(checked(&new).facts.series, 3000);
}
