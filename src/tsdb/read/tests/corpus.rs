//! What the fuzzer of the reader begins with: `UPDATE=1 cargo test tsdb::read::tests::corpus` writes it into `fuzz/corpus`.

use super::*;
use crate::tsdb::testing::{
    indexed::{MadeList, index, places, series_content},
    one_chunk,
};

/// What the second byte of an input asks for: see `index_reader` in `fuzz/targets.rs`.
const MEND: u8 = 1;
const CHUNKS: u8 = 2;
const TWICE: u8 = 4;

/// An index that holds a chunk among its symbols, since it stands for the segment as well.
fn with_chunk() -> Vec<u8> {
    let mut chunk = Vec::new();
    one_chunk(&mut chunk, 1, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let symbols = [vec![], b"a".to_vec(), b"x".to_vec(), chunk];
    // Header, length, count, and the symbols with their lengths: it follows the last of those.
    let reference =
        5 + 4 + 4 + symbols.iter().map(|symbol| 1 + symbol.len() as u64).sum::<u64>() - symbols[3].len() as u64;
    let list = |name: &str, value: &str| MadeList {
        name: name.into(),
        value: value.into(),
        series: vec![0],
    };
    let content = series_content(&[(1, 2)], &[(0, 0, reference), (1, 5, reference)]);
    index(&symbols, &[content], &[list("", ""), list("a", "x")])
}

/// Twenty series, with a list that is long beside another.
fn small() -> Vec<u8> {
    let one = |at: i64| {
        let b = (at % 19).to_string();
        let labels = [("a", if at == 7 { "xy" } else { "x" }), ("b", &b)];
        MadeSeries::new(
            &labels[usize::from(at == 9)..],
            vec![chunk(at, at + 9), chunk(at + 10, at + 19)],
        )
    };
    MadeBlock::of(&(0..20).map(one).collect::<Vec<_>>()).index
}

fn inputs() -> Vec<(String, Vec<u8>)> {
    let input = |matchers: u8, how: u8, index: &[u8]| [&[matchers, how], index].concat();
    let small = small();
    let mut inputs = vec![
        ("empty".to_owned(), input(0, 0, &MadeBlock::of(&[]).index)),
        ("chunk".to_owned(), input(0x01, CHUNKS, &with_chunk())),
        ("chunk-twice".to_owned(), input(0x50, CHUNKS | TWICE, &with_chunk())),
    ];
    for matchers in [0x00, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xff, 0x17, 0xf1] {
        inputs.push((format!("small-{matchers:02x}"), input(matchers, TWICE, &small)));
    }
    let starts = places(&small);
    for (name, at) in ["symbols", "series", "", "", "lists", "table"].into_iter().zip(starts) {
        for (kind, how) in [("damaged", 0), ("nonsense", MEND)] {
            let mut index = small.clone();
            // Behind the length, which would hide the rest.
            index[(at + 9).next_multiple_of(16)] ^= 0x21;
            if !name.is_empty() {
                inputs.push((format!("{kind}-{name}"), input(0x3f, how, &index)));
            }
        }
    }
    inputs
}

#[test]
fn the_fuzzer_begins_with_indexes_that_can_be_read_and_with_damaged_ones() {
    let mut refused = 0;
    for (name, input) in inputs() {
        let made = MadeBlock {
            index: input[2..].to_vec(),
            segments: vec![input[2..].to_vec()],
        };
        let with_chunks = input[1] & CHUNKS > 0;
        match open(&made).and_then(|opened| read(&[opened.wanted(ALWAYS)], &[], with_chunks)) {
            Ok(found) => assert_eq!(found.is_empty(), name == "empty", "{name}"),
            Err(_) => refused += 1,
        }
        if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
            let path = format!("{}/fuzz/corpus/index_reader/{name}", env!("CARGO_MANIFEST_DIR"));
            fs_err::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
            fs_err::write(path, input).unwrap();
        }
    }
    assert!((1..=8).contains(&refused), "{refused}");
}
