//! Symbols, tables and lists that nobody writes, with right checksums.

use super::*;
use crate::tsdb::testing::{
    indexed::{MadeList, index, places, put_entry, series_content, with_section, with_table},
    uvarint,
};

const GIB: u64 = 1 << 30;
/// The count of a table with one entry.
const ONE: [u8; 4] = [0, 0, 0, 1];

/// Three series of the labels `a` and `b`, each with a chunk.
fn series() -> Vec<MadeSeries> {
    [("1", "x"), ("1", "y"), ("2", "x")]
        .map(|(a, b)| MadeSeries::new(&[("a", a), ("b", b)], vec![chunk(0, 9)]))
        .into()
}

/// What is read of an index with the segment of [`series`].
fn read_index(index: Vec<u8>, matchers: &[Matcher]) -> Result<Vec<ReadSeries>, Broken> {
    let segments = MadeBlock::of(&series()).segments;
    let opened = open(&MadeBlock { index, segments })?;
    read(&[opened.wanted(ALWAYS)], matchers, true)
}

/// What is wrong with an index.
#[track_caller]
fn refused(index: Vec<u8>, matchers: &[Matcher]) -> String {
    let broken = read_index(index, matchers).unwrap_err();
    assert_eq!(broken.reason, Reason::Index);
    broken.detail
}

fn good() -> Vec<u8> {
    MadeBlock::of(&series()).index
}

fn table_of(entries: &[(&[u8], &[u8], u64)]) -> Vec<u8> {
    let mut table = (entries.len() as u32).to_be_bytes().to_vec();
    for (name, value, list) in entries {
        put_entry(&mut table, name, value, *list);
    }
    table
}

#[test]
fn counts_that_no_file_could_hold_are_refused() {
    let [symbols, .., table] = places(&good());
    let with_count = |start, count: u32| {
        with_section(&good(), start, |content| {
            content[..4].copy_from_slice(&count.to_be_bytes())
        })
    };
    for count in [9, 1 << 20, u32::MAX - 1, u32::MAX] {
        let text = refused(with_count(symbols, count), &[]);
        assert!(
            text.starts_with("index is damaged: it has no symbol at byte "),
            "{text}"
        );
        let text = refused(with_count(table, count), &[]);
        assert!(
            text.starts_with("index is damaged: its postings table has no entry at byte "),
            "{text}"
        );
    }
    // Fewer than there are: what is behind them is not there.
    let text = refused(with_count(table, 0), &[]);
    assert_eq!(text, "index is damaged: it has no list of all series");
    let text = refused(with_count(symbols, 1), &[]);
    assert!(
        text.starts_with("index is damaged: a series refers to its symbol "),
        "{text}"
    );
    for (content, what) in [(&[][..], "postings table"), (&[0, 0, 0], "postings table")] {
        let text = refused(with_table(&good(), content), &[]);
        assert!(
            text.contains(&format!("its {what} at byte ")) && text.ends_with(" have no count"),
            "{text}"
        );
    }
}

#[test]
fn texts_that_no_file_could_hold_are_refused() {
    let [symbols, ..] = places(&good());
    for len in [100, GIB, u64::MAX >> 1, u64::MAX - 9, u64::MAX] {
        let mut number = Vec::new();
        uvarint(&mut number, len);
        let long = with_section(&good(), symbols, |content| {
            let end = number.len().min(content.len() - 4);
            content[4..4 + end].copy_from_slice(&number[..end]);
        });
        let text = refused(long, &[]);
        assert!(
            text.starts_with("index is damaged: it has no symbol at byte "),
            "{text}"
        );
        for before in [&b"\x02"[..], b"\x02\x01a"] {
            let table = [&ONE[..], before, &number, b"abc"].concat();
            let text = refused(with_table(&good(), &table), &[]);
            assert!(
                text.starts_with("index is damaged: its postings table has no entry at byte "),
                "{text}"
            );
        }
    }
    // An entry of three texts, and one of which only the place is missing.
    for entry in [
        &b"\x03\x01a\x01b\x01c\x10"[..],
        b"\x02\x01a\x01b",
        b"\x02\x01a\x01b\xff\xff",
    ] {
        let table = [&ONE[..], entry].concat();
        let text = refused(with_table(&good(), &table), &[]);
        assert!(
            text.starts_with("index is damaged: its postings table has no entry at byte "),
            "{text}"
        );
    }
}

#[test]
fn an_entry_and_a_symbol_have_a_limit() {
    let long = vec![b'x'; (32 << 20) + 100];
    let text = refused(with_table(&good(), &table_of(&[(&long, b"", 0)])), &[]);
    assert!(
        text.starts_with("index is damaged: its postings table has no entry at byte "),
        "{text}"
    );
    let symbols = [b"a".to_vec(), vec![b'x'; (16 << 20) + 1]];
    let all = MadeList {
        name: Vec::new(),
        value: Vec::new(),
        series: vec![0],
    };
    let text = refused(index(&symbols, &[series_content(&[(0, 1)], &[(0, 9, 8)])], &[all]), &[]);
    assert_eq!(text, "index has a symbol of 16777217 bytes, more than 16777216");
}

#[test]
fn a_table_that_is_not_in_order_is_refused() {
    let all = (&b""[..], &b""[..], 200);
    for entries in [
        [all, (b"b", b"x", 200), (b"a", b"1", 200)],
        [all, (b"a", b"2", 200), (b"a", b"1", 200)],
        [all, (b"a", b"1", 200), (b"a", b"1", 200)],
        [(b"a", b"1", 200), all, (b"b", b"1", 200)],
    ] {
        let text = refused(with_table(&good(), &table_of(&entries)), &[]);
        assert!(text.ends_with(" of its postings table is not in order"), "{text}");
    }
}

#[test]
fn lists_that_are_nowhere_are_refused() {
    let end = good().len() as u64;
    let all = places(&good())[4].next_multiple_of(4) as u64;
    for place in [
        0,
        end - 53,
        end - 52,
        end - 1,
        end,
        GIB,
        u64::MAX >> 1,
        u64::MAX - 7,
        u64::MAX,
    ] {
        let table = table_of(&[(b"", b"", place)]);
        refused(with_table(&good(), &table), &[]);
        let table = table_of(&[(b"", b"", all), (b"a", b"1", place), (b"b", b"x", all)]);
        let (a, b) = (matcher("a", Op::Equal, "1"), matcher("b", Op::Equal, "x"));
        refused(with_table(&good(), &table), std::slice::from_ref(&a));
        // Next to a short list one that looks long is not read: each series is held against its label.
        if let Ok(found) = read_index(with_table(&good(), &table), &[a, b]) {
            assert_eq!(found.len(), 2);
        }
    }
    let table = table_of(&[(b"", b"", all), (b"a", b"1", all)]);
    assert_eq!(
        read_index(with_table(&good(), &table), &[matcher("a", Op::Equal, "1")])
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn lists_of_nonsense_are_refused() {
    let all = places(&good())[4].next_multiple_of(4);
    let with_list = |numbers: [u32; 4]| {
        with_section(&good(), all, |content| {
            content.copy_from_slice(numbers.map(u32::to_be_bytes).as_flattened());
        })
    };
    let first = places(&good())[1].next_multiple_of(16) as u32 / 16;
    let length = format!("index is damaged: its list of series at byte {all} has another length than it says");
    for count in [0, 2, 4, 1 << 30, u32::MAX] {
        assert_eq!(refused(with_list([count, first, first + 1, first + 2]), &[]), length);
    }
    let order = format!("index is damaged: its list of series at byte {all} is not in order");
    for numbers in [[3, first + 1, first, first + 2], [3, first, first, first + 1]] {
        assert_eq!(refused(with_list(numbers), &[]), order);
    }
    for number in [0, 1, first + 3, first + 100, 1 << 31, u32::MAX - 1, u32::MAX] {
        let mut numbers = [number, first, first + 1];
        numbers.sort_unstable();
        refused(with_list([3, numbers[0], numbers[1], numbers[2]]), &[]);
    }
    assert_eq!(
        read_index(with_list([3, first, first + 1, first + 2]), &[])
            .unwrap()
            .len(),
        3
    );
}

/// It is not opened then, and its count alone must not make an answer.
#[test]
fn a_list_is_only_empty_if_its_checksum_says_so() {
    let mut bytes = good();
    let all = places(&bytes)[4].next_multiple_of(4);
    bytes[all + 4..all + 8].fill(0);
    let text = format!("index is damaged: wrong checksum of its postings at byte {all}");
    assert_eq!(refused(bytes, &[]), text);
}

#[test]
fn only_the_second_format_is_read() {
    for (version, text) in [
        (1, "index has the format 1; only 2 can be queried"),
        (3, "index has the format 3, and only 1 and 2 can be read"),
    ] {
        let mut bytes = good();
        bytes[4] = version;
        assert_eq!(refused(bytes, &[]), text);
    }
}

#[test]
fn sections_may_be_said_to_be_anywhere() {
    let places = places(&good());
    let len = good().len() as u64;
    for at in [0, 1, 4, 5] {
        for place in [
            0,
            1,
            5,
            9,
            60,
            64,
            len - 60,
            len - 53,
            len - 52,
            len,
            u64::MAX - 3,
            u64::MAX,
        ] {
            let mut bytes = good();
            bytes.truncate(bytes.len() - 52);
            let mut offsets = places.map(|place| place as u64);
            offsets[at] = place;
            testing::toc(&mut bytes, offsets);
            // Where the series and lists begin is only a border.
            if let Ok(found) = read_index(bytes, &[]) {
                assert_eq!(found, expected(&[&series()], &ALWAYS, &[], true), "{at} at {place}");
            }
        }
    }
}
