//! Series and chunks that nobody writes, with right checksums.

use super::*;
use crate::tsdb::testing::{
    indexed::{MadeList, SEGMENT_HEADER, index, places, series_content, with_section},
    one_chunk, uvarint,
};

/// A segment with a chunk at byte 8, and where that chunk ends.
fn segment() -> (Vec<u8>, u64) {
    let mut segment = SEGMENT_HEADER.to_vec();
    one_chunk(&mut segment, 1, b"samples");
    let end = segment.len() as u64;
    (segment, end)
}

fn block_of(symbols: &[&[u8]], contents: &[Vec<u8>], segment: Vec<u8>) -> MadeBlock {
    let symbols: Vec<Vec<u8>> = symbols.iter().map(|symbol| symbol.to_vec()).collect();
    let list = |name: &[u8], value: &[u8]| MadeList {
        name: name.into(),
        value: value.into(),
        series: (0..contents.len()).collect(),
    };
    MadeBlock {
        index: index(&symbols, contents, &[list(b"", b""), list(b"a", b"x")]),
        segments: vec![segment],
    }
}

/// What is read of a block with this one series of the symbols a, b, x, y.
fn read_content(content: Vec<u8>, matchers: &[Matcher]) -> Result<Vec<ReadSeries>, Broken> {
    let made = block_of(&[b"a", b"b", b"x", b"y"], &[content], segment().0);
    read(&[open(&made)?.wanted(ALWAYS)], matchers, true)
}

#[track_caller]
fn refused(content: Vec<u8>) -> (Reason, String) {
    let broken = read_content(content, &[]).unwrap_err();
    (broken.reason, broken.detail)
}

const NO_SERIES: &str = "index is damaged: there is no series at byte 32, where one is due";

#[test]
fn what_is_no_series_is_refused() {
    let number = |value: u64| {
        let mut out = Vec::new();
        uvarint(&mut out, value);
        out
    };
    let contents = [
        vec![],
        vec![0x80],
        // More labels or chunks than there are bytes.
        number(u64::MAX),
        [number(u64::MAX), vec![0; 9]].concat(),
        [vec![1, 0, 2], number(u64::MAX)].concat(),
        [vec![1, 0, 2], number(u64::MAX), vec![1; 30]].concat(),
        [vec![1, 0, 2, 1], number(9), number(9)].concat(),
        vec![1, 0],
        // Symbols of more than 32 bits.
        series_content(&[(u64::MAX, 2)], &[(0, 9, 8)]),
        series_content(&[(0, 1 << 32)], &[(0, 9, 8)]),
        // Names twice, or in another order.
        series_content(&[(0, 2), (0, 3)], &[(0, 9, 8)]),
        series_content(&[(1, 2), (0, 3)], &[(0, 9, 8)]),
        // References below 0 and beyond 64 bits.
        [vec![1, 0, 2, 2, 0, 9, 8, 1, 9], number(17)].concat(),
        [vec![1, 0, 2, 2, 0, 9], number(u64::MAX), vec![1, 9, 2]].concat(),
    ];
    for content in contents {
        assert_eq!(
            refused(content.clone()),
            (Reason::Index, NO_SERIES.into()),
            "{content:?}"
        );
    }
}

#[test]
fn symbols_that_are_not_there_are_refused() {
    for number in [4, 1000, u64::from(u32::MAX)] {
        let text = format!("index is damaged: a series refers to its symbol {number} of 4");
        let content = series_content(&[(0, number)], &[(0, 9, 8)]);
        assert_eq!(refused(content.clone()), (Reason::Index, text.clone()));
        // A test that needs to know the text.
        let broken = read_content(content, &[matcher("a", Op::NotRegex, "q.*")]).unwrap_err();
        assert_eq!(broken.detail, text);
        if number > 4 {
            assert_eq!(
                refused(series_content(&[(number, 2)], &[(0, 9, 8)])),
                (Reason::Index, text)
            );
        }
    }
    // A label of the table that is no symbol.
    let made = block_of(&[b"b", b"x"], &[series_content(&[(0, 1)], &[(0, 9, 8)])], segment().0);
    let opened = open(&made).unwrap();
    let broken = read(&[opened.wanted(ALWAYS)], &[matcher("a", Op::NotEqual, "q")], true).unwrap_err();
    let text = "index is damaged: the label a of its postings table is not among its symbols";
    assert_eq!(broken.detail, text);
}

#[test]
fn references_to_nowhere_are_refused() {
    let end = segment().1;
    let missing = |number: u64| format!("chunks/{number:06} is missing: the index refers to it");
    for (reference, reason) in [
        (0, Reason::Chunk),
        (7, Reason::Chunk),
        (9, Reason::Segment),
        (end - 1, Reason::ShortSegment),
        (end, Reason::ShortSegment),
        (end + 1, Reason::ShortSegment),
        (u64::from(u32::MAX), Reason::ShortSegment),
        (1 << 32 | 8, Reason::MissingSegment),
        (u64::MAX >> 1, Reason::MissingSegment),
        (u64::MAX, Reason::MissingSegment),
    ] {
        let (found, text) = refused(series_content(&[(0, 2)], &[(0, 9, reference)]));
        // A byte of a chunk may be a length that leads out of the file.
        let is_due = found == reason || (reason, found) == (Reason::Segment, Reason::ShortSegment);
        assert!(is_due, "{reference}: {text}");
        if reason == Reason::MissingSegment {
            assert_eq!(text, missing((reference >> 32) + 1));
        }
        // Of what is not wanted only the index is looked at.
        let made = block_of(
            &[b"a", b"b", b"x", b"y"],
            &[series_content(&[(0, 2)], &[(0, 9, reference)])],
            segment().0,
        );
        let opened = open(&made).unwrap();
        assert_eq!(read(&[opened.wanted(10..=20)], &[], true), Ok(Vec::new()));
        assert_eq!(read(&[opened.wanted(ALWAYS)], &[], false).unwrap().len(), 1);
    }
}

#[test]
fn chunks_of_nonsense_are_refused() {
    let content = series_content(&[(0, 2)], &[(0, 9, 8)]);
    let with = |segment: Vec<u8>| {
        let made = block_of(&[b"a", b"b", b"x", b"y"], std::slice::from_ref(&content), segment);
        let opened = open(&made).unwrap();
        let broken = read(&[opened.wanted(ALWAYS)], &[], true).unwrap_err();
        (broken.reason, broken.detail)
    };
    for encoding in [0, 7, 0x7f, 0xff] {
        let mut segment = SEGMENT_HEADER.to_vec();
        one_chunk(&mut segment, encoding, b"samples");
        let text = format!("chunks/000001 has a chunk at byte 8 of the unknown encoding {encoding}");
        assert_eq!(with(segment), (Reason::Chunk, text));
    }
    for len in [20, 1 << 30, u64::MAX >> 1, u64::MAX - 5, u64::MAX - 4, u64::MAX] {
        let mut segment = SEGMENT_HEADER.to_vec();
        uvarint(&mut segment, len);
        segment.extend(b"\x01samples");
        let text = format!(
            "chunks/000001 has {} bytes, and ends within its chunk at byte 8",
            segment.len()
        );
        assert_eq!(with(segment), (Reason::ShortSegment, text));
    }
    let mut segment = SEGMENT_HEADER.to_vec();
    one_chunk(&mut segment, 1, &vec![0; 16 << 20]);
    let text = "chunks/000001 has a chunk at byte 8 of 16777217 bytes, more than 16777216";
    assert_eq!(with(segment), (Reason::Chunk, text.into()));
    assert_eq!(with(Vec::new()).0, Reason::ShortSegment);
}

#[test]
fn times_may_be_any() {
    let (_, end) = segment();
    let chunks = [
        (i64::MIN, i64::MIN, 8),
        (i64::MAX, i64::MAX, 8),
        (i64::MIN, i64::MAX, 8),
        (-1, 0, 8),
    ];
    let found = read_content(series_content(&[(0, 2)], &chunks), &[]).unwrap();
    let times: Vec<(i64, i64, u64)> = found[0]
        .chunks
        .iter()
        .map(|chunk| (chunk.min_ms, chunk.max_ms, 8))
        .collect();
    assert_eq!(times, chunks);
    // A chunk that ends before it begins is as good as its reference.
    let content = series_content(&[(0, 2)], &[(5, -5, end)]);
    assert_eq!(read_content(content, &[]).unwrap_err().reason, Reason::ShortSegment);
}

#[test]
fn a_label_set_has_a_limit() {
    let value = vec![b'v'; 1 << 20];
    let names: Vec<String> = (0..40).map(|at| format!("a{at:02}")).collect();
    let mut symbols: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    symbols.push(&value);
    let with = |count: u64| {
        let labels: Vec<(u64, u64)> = (0..count).map(|name| (name, 40)).collect();
        let made = block_of(&symbols, &[series_content(&labels, &[(0, 9, 8)])], segment().0);
        read(&[open(&made).unwrap().wanted(ALWAYS)], &[], true)
    };
    assert_eq!(with(30).unwrap()[0].labels.iter().count(), 30);
    let text = "index has a series whose labels take more than 33554432 bytes";
    assert_eq!(with(40).unwrap_err().detail, text);
}

#[test]
fn values_that_are_no_text_are_held_against_patterns_as_go_reads_them() {
    let content = series_content(&[(0, 1)], &[(0, 9, 8)]);
    let made = block_of(&[b"a", b"x\xff"], &[content], segment().0);
    let opened = open(&made).unwrap();
    let found = |op, value| read(&[opened.wanted(ALWAYS)], &[matcher("a", op, value)], true).map(|found| found.len());
    assert_eq!(found(Op::NotEqual, "q"), Ok(1));
    assert_eq!(found(Op::NotRegex, "q.*"), Ok(1));
    // One character for each byte that is none.
    for (pattern, series) in [("x.", 1), ("x[^x]", 1), ("x..", 0), ("[x]", 0)] {
        assert_eq!(found(Op::Regex, pattern), Ok(series), "{pattern}");
    }
}

#[test]
fn the_series_with_the_highest_number_is_not_left_out() {
    let mut made = block_of(&[b"a", b"x"], &[series_content(&[(0, 1)], &[(0, 9, 8)])], segment().0);
    let list = places(&made.index)[4].next_multiple_of(4);
    made.index = with_section(&made.index, list, |content| content[4..8].fill(0xff));
    let broken = read(&[open(&made).unwrap().wanted(ALWAYS)], &[], true).unwrap_err();
    let text = "index is damaged: there is no series at byte 68719476720, where one is due";
    assert_eq!(broken.detail, text);
}
