//! Many blocks at once, stops, and readers other than files.

use std::thread;

use super::*;

fn name(number: u64) -> String {
    format!("01K4ABCDEFGHJKMNPQRSTVWXY{number}")
}

#[test]
fn each_block_has_its_own_result() {
    let data = tempfile::tempdir().unwrap();
    let mut list: Vec<Block> = (0..9)
        .map(|number| {
            let shape = Shape {
                series: 3 + number as u32,
                segments: 1 + number as u32 % 4,
                ..Shape::default()
            };
            testing::write_block(data.path(), &name(number), shape)
        })
        .collect();
    fs_err::remove_dir_all(&list[2].dir).unwrap();
    edit(&list[4], "index", |bytes| bytes[40] ^= 1);
    edit(&list[7], "chunks/000002", |bytes| bytes[20] ^= 1);
    edit(&list[7], "chunks/000003", |bytes| bytes.truncate(3));
    std::sync::Arc::make_mut(&mut list[8].meta).num_series = 1;
    for threads in [0, 1, 2, 7, 40] {
        let results = check_all(&list, &options(threads));
        for (i, result) in results.into_iter().enumerate() {
            match (i, result) {
                (2, Err(PinError::Vanished)) => {}
                (4, Err(PinError::Broken { reason, .. })) => assert_eq!(reason, Reason::Index),
                // Which of the two is found first depends on the threads.
                (7, Err(PinError::Broken { reason, detail })) => assert!(
                    matches!(reason, Reason::Segment | Reason::ShortSegment) && detail.starts_with("chunks/00000"),
                    "{detail}"
                ),
                (8, Err(PinError::Broken { reason, .. })) => assert_eq!(reason, Reason::Stats),
                (_, Ok(checked)) => {
                    assert_eq!(checked.facts.series, 3 + i as u64);
                    let names: Vec<_> = checked.files.iter().map(|file| file.rel_path.as_str()).collect();
                    let segments: Vec<String> = (0..1 + i % 4).map(segment_name).collect();
                    assert_eq!(names[..names.len() - 1], segments);
                    assert_eq!(names.last(), Some(&"index"));
                }
                (_, Err(error)) => panic!("block {i}, {threads} threads: {error}"),
            }
        }
    }
}

#[test]
fn all_bytes_are_counted_once() {
    let (_data, block) = made(Shape {
        segments: 3,
        ..Shape::default()
    });
    let (index, segments) = bytes_of(&block);
    let read = AtomicU64::new(0);
    let options = Options {
        read: &read,
        ..options(2)
    };
    assert!(check_all(&[block], &options)[0].is_ok());
    let sum = index.len() + segments.iter().map(Vec::len).sum::<usize>();
    assert_eq!(read.load(Relaxed), sum as u64);
}

#[test]
fn a_stop_ends_what_is_under_way_and_what_is_to_come() {
    let data = tempfile::tempdir().unwrap();
    let list: Vec<Block> = (0..5)
        .map(|number| testing::write_block(data.path(), &name(number), Shape::default()))
        .collect();
    let stop = AtomicBool::new(false);
    let stopping = Options {
        stop: &stop,
        ..options(1)
    };
    let results = Mutex::new(Vec::new());
    blocks(&list, &stopping, |i, result| {
        stop.store(i == 1, Relaxed);
        stop.fetch_or(i > 1, Relaxed);
        results.lock().unwrap().push(result.map(|_| ()));
    });
    let results = results.into_inner().unwrap();
    assert!(results[0].is_ok() && results[1].is_ok());
    assert_eq!(results.len(), 5);
    for result in &results[2..] {
        assert!(
            matches!(result, Err(PinError::Io(error)) if error.kind() == io::ErrorKind::Interrupted),
            "{result:?}"
        );
    }
}

/// Hands out `bytes` in pieces, and does something before each.
struct Pieces<'a, F>(&'a [u8], usize, F);

impl<F: FnMut(usize) -> io::Result<()>> Read for Pieces<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.2)(self.0.len())?;
        let count = self.1.min(self.0.len()).min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn a_stop_ends_a_pass_within_a_megabyte() {
    let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
    testing::one_chunk(&mut bytes, 1, &vec![0; 8 << 20]);
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let options = Options {
        stop: &stop,
        read: &read,
        ..options(1)
    };
    let stopping = Pieces(&bytes, usize::MAX, |left| {
        stop.fetch_or(left < 4 << 20, Relaxed);
        // As a signal may interrupt a read; that alone ends nothing.
        static ONCE: AtomicBool = AtomicBool::new(true);
        match ONCE.swap(false, Relaxed) {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    });
    let error = segment("chunks/000001", bytes.len() as u64, stopping, &options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    let read = read.load(Relaxed);
    assert!((4 << 20..5 << 20).contains(&read), "{read}");
}

#[test]
fn what_comes_in_small_pieces_is_the_same() {
    let (_data, block) = made(Shape {
        series: 400,
        ..Shape::default()
    });
    let (bytes, segments) = bytes_of(&block);
    let toc = &bytes[bytes.len() - TOC as usize..];
    for size in [1, 7, 4096] {
        let pieces = Pieces(&bytes, size, |_| Ok(()));
        let (facts, digest) = super::super::index(bytes.len() as u64, toc, RANGE, pieces, &options(1))
            .unwrap()
            .unwrap();
        assert_eq!((facts.series, digest.crc32c), (400, crc32c::crc32c(&bytes)));
        // What comes behind the length is not looked at.
        let more = [&segments[0][..], b"more"].concat();
        let pieces = Pieces(&more, size, |_| Ok(()));
        let (_, digest) = segment("chunks/000001", segments[0].len() as u64, pieces, &options(1))
            .unwrap()
            .unwrap();
        assert_eq!(digest.crc32c, crc32c::crc32c(&segments[0]));
    }
}

#[test]
fn errors_of_a_reader_are_passed_on() {
    let (_data, block) = testing::real_block();
    let (_, segments) = bytes_of(&block);
    let bytes = &segments[0];
    let failing = Pieces(bytes, 100, |left| match left < 2000 {
        true => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line is cut")),
        false => Ok(()),
    });
    let error = segment("chunks/000001", bytes.len() as u64, failing, &options(1)).unwrap_err();
    assert_eq!(error.to_string(), "the line is cut");
    let error = segment("chunks/000001", bytes.len() as u64, &bytes[..2000], &options(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(error.to_string(), "it ends 2815 bytes before its 4815");
}

#[test]
fn huge_chunks_and_huge_series_are_read() {
    let data = tempfile::tempdir().unwrap();
    // One series of 200,000 chunks is larger than the buffer, and so are these chunks.
    let block = testing::write_block(
        data.path(),
        ID,
        Shape {
            series: 1,
            chunks: 200_000,
            ..Shape::default()
        },
    );
    assert!(fs_err::metadata(block.dir.join("index")).unwrap().len() > 600_000);
    assert_eq!(check(&block).unwrap().facts.chunks, 200_000);
    for len in [2, 65_535, 65_536, 65_537, 262_144, 1_000_003] {
        let mut bytes = vec![0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
        let mut data = vec![0, 5];
        data.resize(len, 0xa5);
        for _ in 0..3 {
            testing::one_chunk(&mut bytes, 1, &data);
        }
        assert_eq!(of_segment(0, &bytes).unwrap().samples, 15, "{len}");
        let last = bytes.len() - 9;
        bytes[last] ^= 4;
        assert_eq!(of_segment(0, &bytes).unwrap_err().reason, Reason::Segment, "{len}");
    }
}

#[test]
fn results_come_from_several_threads_at_once() {
    let data = tempfile::tempdir().unwrap();
    let list: Vec<Block> = (0..2)
        .map(|number| testing::write_block(data.path(), &name(number), Shape::default()))
        .collect();
    // Nobody gets past it alone.
    let both = std::sync::Barrier::new(2);
    let threads = Mutex::new(Vec::new());
    let fast = Options {
        threads: 2,
        ..options(2)
    };
    blocks(&list, &fast, |_, _| {
        both.wait();
        threads.lock().unwrap().push(thread::current().id());
    });
    let threads = threads.into_inner().unwrap();
    assert_ne!(threads[0], threads[1]);
}
