//! What each fuzz target checks, as plain functions: the fuzzer calls them with inputs that it invents, and the tests with
//! those that are kept in `fuzz/corpus/NAME`. An input that does not fit is ignored; a fault is a panic.

#![allow(
    dead_code,
    reason = "each fuzz target includes this file and calls one function of it"
)]

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use bytes::Bytes;
use narthex::{
    chunk::{self, Encoding, for_storeapi, histogram, trim, xor, xor2},
    model::{
        Labels, Matcher,
        matcher::{
            Op,
            go_regex::{Pattern, Refusal, translate},
        },
        uvarint::uvarint,
    },
    pb::{prometheus::ReadRequest, thanos::SeriesRequest},
    prometheus::remote_read::{frames::FrameReader, wire},
    storeapi::{
        View, request_limits,
        selection::{Selection, read},
        series::{
            encode::OutSeries,
            order::{Labelled, Order},
            query::{Query, Written},
        },
    },
    tsdb::{
        BlockId, Broken, Meta, Pinned, PinnedFile,
        check::full::{self, Options, TOC},
        read::{Next, OpenBlock, Progress, Selector, SeriesReader, Tables, Wanted},
    },
};
use prost::Message;

/// A function that takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// Every target, under the name of its corpus and of its program.
pub(crate) const ALL: [(&str, Target); 7] = [
    ("block_files", block_files),
    ("chunk_read", chunk_read),
    ("chunk_write", chunk_write),
    ("go_regex", go_regex),
    ("index_reader", index_reader),
    ("remote_read", remote_read),
    ("series_request", series_request),
];

/// Any bytes as an index, as a chunk segment and as a `meta.json`: found whole or refused, never taken for both lengths.
pub(crate) fn block_files(data: &[u8]) {
    let options = Options {
        threads: 1,
        sha256: false,
        stop: &AtomicBool::new(false),
        read: &AtomicU64::new(0),
    };
    let len = data.len() as u64;
    let toc = &data[data.len().saturating_sub(TOC as usize)..];
    let index = full::index(len, toc, (0, 1000), data, &options).expect("nothing but memory is read");
    if let Ok((mut facts, digest)) = index {
        let _ = full::name_series(&mut facts, len, toc, data, &options).expect("nothing but memory is read");
        assert_eq!((digest.len, digest.crc32c), (len, crc32c::crc32c(data)));
    }
    let segment = full::segment("chunks/000001", len, data, &options).expect("nothing but memory is read");
    if let Ok((_, digest)) = segment {
        assert_eq!((digest.len, digest.crc32c), (len, crc32c::crc32c(data)));
    }
    if let Ok(meta) = Meta::parse(data) {
        let _ = meta.files();
        assert!(Meta::parse(meta.to_json().as_bytes()).is_ok());
    }
}

/// Any bytes as a chunk of every encoding: read to its end or refused, and rewritten or cut only into what can be read.
pub(crate) fn chunk_read(data: &[u8]) {
    for encoding in 0..3 {
        let _ = samples(encoding, data);
    }
    let floats = xor2::decode(data).try_fold(0, |count, sample| sample.map(|_| count + 1));
    for number in -1..8 {
        let trimmed = Encoding::from_prometheus(number).map(|encoding| trim(encoding, data, 0..=i64::MAX));
        if let Some(Ok(Some(trimmed))) = trimmed {
            let again = trim(trimmed.encoding, &trimmed.data, 0..=i64::MAX);
            assert_eq!(again, Ok(Some(trimmed)));
        }
        match for_storeapi(number, data) {
            Ok((encoding, Some(rewritten))) => {
                let count = samples(encoding, &rewritten).expect("what is written can be read");
                if number == 4 {
                    assert_eq!(Ok(count), floats);
                }
            }
            Ok((encoding, None)) => assert_eq!(encoding, number - 1),
            Err(_) => {}
        }
    }
}

/// How many samples a chunk holds.
fn samples(encoding: i32, data: &[u8]) -> Result<usize, chunk::Error> {
    match encoding {
        0 => xor::decode(data).try_fold(0, |count, sample| sample.map(|_| count + 1)),
        1 => histogram::decode(data, histogram::Kind::Integer).try_fold(0, |count, sample| sample.map(|_| count + 1)),
        _ => histogram::decode(data, histogram::Kind::Float).try_fold(0, |count, sample| sample.map(|_| count + 1)),
    }
}

/// Any samples (eight bytes for the time and eight for the value, each with the lowest first) as an XOR chunk: they come
/// back bit by bit.
pub(crate) fn chunk_write(data: &[u8]) {
    let (words, _) = data.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    if pairs.len() > usize::from(u16::MAX) {
        return;
    }
    let written: Vec<(i64, u64)> = pairs
        .iter()
        .map(|[time, value]| (i64::from_le_bytes(*time), u64::from_le_bytes(*value)))
        .collect();
    let floats = written.iter().map(|(time, bits)| (*time, f64::from_bits(*bits)));
    let chunk = xor::encode(floats).expect("there are not too many");
    let read: Result<Vec<_>, _> = xor::decode(&chunk)
        .map(|sample| sample.map(|(time, value)| (time, value.to_bits())))
        .collect();
    assert_eq!(read, Ok(written));
}

/// Any text up to the first zero byte as a pattern in Go's syntax: refused, or translated into what the `regex` crate takes
/// for good syntax. The text behind it is matched against the pattern.
pub(crate) fn go_regex(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, value) = text.split_once('\0').unwrap_or((text, ""));
    match Pattern::new(pattern) {
        Ok(compiled) => {
            compiled.is_match(value);
        }
        Err(Refusal::Unsupported(problem)) => {
            let ours = translate(pattern).is_err();
            assert!(
                ours || problem.contains("compiled") || problem.contains("nest"),
                "{pattern:?}: {problem}"
            );
        }
        Err(Refusal::Invalid(_)) => assert!(translate(pattern).is_err()),
    }
}

/// Any bytes as the body of a remote-read answer, torn into pieces as long as the first byte says: frames, labels and order
/// come out whole or are refused.
pub(crate) fn remote_read(data: &[u8]) {
    let Some((size, body)) = data.split_first() else { return };
    let (mut reader, mut order) = (FrameReader::default(), Order::new(b"m"));
    for piece in body.chunks(usize::from(*size).max(1)) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next() {
                Ok(Some(payload)) => sort(&payload, &mut order),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = reader.finish();
    // What has no frame around it is read, too: checksums keep a fuzzer out.
    sort(&Bytes::copy_from_slice(body), &mut order);
    order.finish();
    let mut last = None;
    while let Ok(Some(placed)) = order.next() {
        let labels = Labelled::labels(&placed.series).clone();
        assert!(last.is_none_or(|last| last <= labels));
        last = Some(labels);
    }
}

/// Puts the series of a message where they belong.
fn sort(message: &Bytes, order: &mut Order<OutSeries>) {
    let Ok(frame) = wire::parse(message) else { return };
    for series in frame.series {
        let names: Vec<&[u8]> = series.labels.iter().map(|(name, _)| name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        let _ = order.push(OutSeries::new(series.labels, Vec::new()));
    }
}

/// Any bytes as a Series request: it becomes a request for Prometheus or is refused.
pub(crate) fn series_request(body: &[u8]) {
    if request_limits::check("/thanos.Store/Series", body).is_err() {
        return;
    }
    let Ok(request) = SeriesRequest::decode(body) else {
        return;
    };
    assert!(request.matchers.len() <= 1000 && request.without_replica_labels.len() <= 256);
    let view = View {
        labels: Labels::from_pairs([("cluster", "eu"), ("replica", "a")]),
        min_time_ms: 0,
        limit_ms: 0,
        version: "3.5.0".to_owned(),
        seen: true,
        reads_elsewhere: false,
    };
    let matchers = request.matchers.iter().cloned().map(read).collect::<Result<_, _>>();
    let Ok(matchers) = matchers else { return };
    if let Ok(Some(query)) = Query::of(Selection::Matching(matchers), &request, &view) {
        let names = query.relabel.touched();
        let queries = |written: Written| {
            ReadRequest::decode(written.bytes)
                .expect("what is written is read")
                .queries
        };
        let split = |names: &[String]| query.split_by(names, &(query.start_ms..=query.end_ms));
        assert_eq!(queries(split(names)).len(), names.len() + 1);
        assert_eq!(queries(split(&[])).len(), 1);
    }
}

/// What the matchers of `index_reader` are chosen from, by halves of a byte. 0 stands for none.
const MATCHERS: [(&str, Op, &str); 15] = [
    ("a", Op::Equal, "x"),
    ("a", Op::NotEqual, "x"),
    ("a", Op::Regex, ".+"),
    ("a", Op::NotRegex, ".+"),
    ("a", Op::Regex, "x|y"),
    ("a", Op::Regex, "x.*"),
    ("b", Op::Equal, ""),
    ("b", Op::NotEqual, ""),
    ("b", Op::Regex, "1|2|3"),
    ("b", Op::Regex, "1.+"),
    ("b", Op::NotRegex, "1.*|"),
    ("b", Op::Regex, "[^x]*"),
    ("missing", Op::Equal, "x"),
    ("missing", Op::NotEqual, "x"),
    ("", Op::Regex, ".*"),
];

/// Two bytes and an index, which is the only segment of its block, too. The first byte chooses two matchers, the second
/// whether checksums are put right before (1), chunks are read (2), the block is there twice (4), the range is short (8).
/// All series come, or an error does.
pub(crate) fn index_reader(data: &[u8]) {
    let Some(([chosen, how], index)) = data.split_first_chunk() else {
        return;
    };
    let mut index = index.to_vec();
    if how & 1 != 0 {
        put_checksums(&mut index);
    }
    let halves = [chosen >> 4, chosen & 15].map(usize::from);
    let matchers = halves.iter().filter_map(|half| MATCHERS.get(half.checked_sub(1)?));
    let matchers: Vec<Matcher> = matchers
        .map(|(name, op, value)| Matcher::new(*op, *name, *value))
        .collect();
    let selector = Selector::new(&matchers).expect("the patterns are good");
    let range = if how & 8 != 0 { 0..=20 } else { i64::MIN..=i64::MAX };
    let blocks = if how & 4 != 0 { 2 } else { 1 };
    let read = || -> Result<usize, Broken> {
        let files = block_of(&index);
        let tables = Tables::read(files.index().expect("it is there"))?;
        assert!(tables.bytes() <= Tables::LARGEST);
        let block = OpenBlock::new(files, Arc::new(tables))?;
        let wanted = vec![Wanted { block, range }; blocks];
        let reader = SeriesReader::new(&wanted, &selector, how & 2 != 0, &Progress::default());
        let mut reader = reader.map_err(|error| error.broken)?;
        let (mut count, mut last) = (0, None);
        loop {
            match reader.next_series() {
                // Another part of the last one does not count.
                Ok(Next::Series(series)) => {
                    count += usize::from(last.as_ref() != Some(&series.labels));
                    last = Some(series.labels);
                }
                Ok(Next::Pause) => {}
                Ok(Next::End) => return Ok(count),
                Err(error) => {
                    assert!(matches!(reader.next_series(), Ok(Next::End)));
                    return Err(error.broken);
                }
            }
        }
    };
    // Each series takes at least 16 bytes.
    if let Ok(count) = read() {
        assert!(count <= blocks * index.len() / 16);
    }
}

/// A block whose index and whose segment have these bytes.
fn block_of(index: &[u8]) -> Pinned {
    let mut file = tempfile::tempfile().expect("there is a directory for temporary files");
    file.write_all(index).expect("the file can be written");
    let file = Arc::new(file);
    let pinned = |rel_path: &str| PinnedFile {
        rel_path: rel_path.to_owned(),
        path: rel_path.into(),
        file: Arc::clone(&file),
        len: index.len() as u64,
    };
    Pinned {
        id: BlockId::parse("01K4ABCDEFGHJKMNPQRSTVWXYZ").expect("it is a name"),
        files: vec![pinned("chunks/000001"), pinned("index")],
    }
}

/// Puts the right checksums behind all parts of an index that can be found: they keep a fuzzer out.
fn put_checksums(index: &mut [u8]) {
    let Some(end) = index.len().checked_sub(TOC as usize) else {
        return;
    };
    let (words, _) = index[end..].as_chunks::<8>();
    let places: Vec<usize> = words
        .iter()
        .map(|word| (u64::from_be_bytes(*word) as usize).min(end))
        .collect();
    let [symbols, series, _, _, lists, table] = places[..] else {
        return;
    };
    let section = |index: &mut [u8], at: usize| {
        let head = index.get(at..)?.first_chunk()?;
        put_checksum(index, at + 4, u32::from_be_bytes(*head) as usize)
    };
    section(index, symbols);
    section(index, table);
    let mut at = lists.next_multiple_of(4);
    while let Some(end) = section(index, at).filter(|_| at < table) {
        at = end.next_multiple_of(4);
    }
    at = series.next_multiple_of(16);
    while let Some((len, head)) = index.get(at..).and_then(uvarint).filter(|_| at < lists) {
        let Some(end) = put_checksum(index, at + head, len as usize) else {
            break;
        };
        at = end.next_multiple_of(16);
    }
    put_checksum(index, end, TOC as usize - 4);
}

/// Puts a checksum behind `len` bytes at `at`, and returns where it ends; `None` if the file ends before.
fn put_checksum(index: &mut [u8], at: usize, len: usize) -> Option<usize> {
    let end = at.checked_add(len)?;
    let sum = crc32c::crc32c(index.get(at..end)?).to_be_bytes();
    index.get_mut(end..)?.get_mut(..4)?.copy_from_slice(&sum);
    Some(end + 4)
}
