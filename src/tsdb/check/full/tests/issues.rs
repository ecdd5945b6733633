//! What is no damage and stops Thanos' compactor: the blocks of `testdata/index_issues`.

use super::*;
use crate::tsdb::{
    check::full::issues::{ChunkOrder, outside},
    scan,
};

/// When the first of those blocks begins, and how long each is (ms).
const START: i64 = 1_767_225_600_000;
const BLOCK: i64 = 7_200_000;
const MINUTE: i64 = 60_000;

/// The block of a directory of `testdata/index_issues`.
fn block(name: &str) -> Block {
    let dir = format!("{}/testdata/index_issues/{name}", env!("CARGO_MANIFEST_DIR"));
    let found = scan(dir.as_ref()).unwrap();
    assert!(found.corrupt.is_empty());
    found.blocks.into_iter().next().unwrap()
}

/// The issues of a block that is whole otherwise: kind, series, chunks, and the first in words.
fn issues(block: &Block) -> Vec<(IssueKind, u64, u64, String)> {
    let found = check(block).unwrap().facts.issues.into_iter();
    found
        .map(|issue| (issue.kind, issue.series, issue.chunks, issue.first))
        .collect()
}

/// A chunk of a block by its minutes in it.
fn chunk(block: &Block, place: u64, from: i64, to: i64) -> String {
    let time = |minute: i64| block.meta.min_time + minute * MINUTE;
    format!("chunk {place} from {} to {} (ms)", time(from), time(to))
}

/// Where the second series of a block begins: its place in multiples of 16 is what Thanos calls the series' number.
const F1: &str = "series {__name__=\"owls\", forest=\"f1\"} at byte 80 of the index";

#[test]
fn sound_blocks_have_no_issues() {
    let (_data, block) = testing::real_block();
    assert_eq!(issues(&block), []);
}

#[test]
fn chunks_of_a_series_that_overlap_are_named() {
    let block = block("overlapping_chunks");
    assert_eq!(block.meta.min_time, START);
    let first = format!("{F1}, {} after {}", chunk(&block, 2, 30, 89), chunk(&block, 1, 0, 59));
    assert_eq!(issues(&block), [(IssueKind::OverlappingChunks, 1, 2, first)]);
}

#[test]
fn a_chunk_that_is_there_twice_is_named() {
    let block = block("doubled_chunks");
    let first = format!("{F1}, {} after {}", chunk(&block, 2, 0, 59), chunk(&block, 1, 0, 59));
    assert_eq!(issues(&block), [(IssueKind::DoubledChunks, 1, 1, first)]);
}

#[test]
fn a_chunk_behind_a_later_one_is_named_and_is_no_damage() {
    let block = block("unsorted_chunks");
    let first = format!("{F1}, {} after {}", chunk(&block, 2, 0, 29), chunk(&block, 1, 60, 119));
    assert_eq!(issues(&block), [(IssueKind::UnsortedChunks, 1, 1, first)]);
}

#[test]
fn label_names_that_are_not_sorted_or_doubled_are_named() {
    let series = |labels: &str, at: u64| format!("series {labels} at byte {at} of the index");
    let unsorted = series(r#"{__name__="owls", forest="f1", zone="z", branch="b"}"#, 96);
    let found = issues(&block("unsorted_labels"));
    assert_eq!(found, [(IssueKind::UnsortedLabels, 1, 0, unsorted)]);
    let doubled = series(r#"{__name__="owls", forest="f1", forest="f9"}"#, 96);
    let found = issues(&block("doubled_labels"));
    assert_eq!(found, [(IssueKind::DoubledLabels, 1, 0, doubled)]);
}

#[test]
fn series_without_labels_or_chunks_are_named() {
    assert_eq!(issues(&block("no_chunks")), [(IssueKind::NoChunks, 1, 0, F1.into())]);
    let found = issues(&block("no_labels"));
    assert_eq!(
        found,
        [(IssueKind::NoLabels, 1, 0, "series {} at byte 48 of the index".into())]
    );
}

#[test]
fn chunks_outside_of_the_range_are_told_from_those_that_reach_over_its_ends() {
    let block = block("chunks_outside");
    let range = format!(
        "and by meta.json the block goes from {} to before {}",
        block.meta.min_time,
        block.meta.min_time + BLOCK
    );
    let outside = format!("{F1}, {}, {range}", chunk(&block, 1, -90, -60));
    let partly = format!("{F1}, {}, {range}", chunk(&block, 2, -10, 59));
    assert_eq!(
        issues(&block),
        [
            (IssueKind::ChunksOutside, 1, 1, outside),
            (IssueKind::ChunksPartlyOutside, 1, 2, partly)
        ]
    );
}

#[test]
fn chunks_from_the_exclusive_end_of_the_range_on_are_an_issue_of_their_own() {
    let block = block("chunks_at_the_end");
    let range = format!(
        "and by meta.json the block goes from {} to before {}",
        block.meta.min_time, block.meta.max_time
    );
    let first = format!("{F1}, {}, {range}", chunk(&block, 3, 120, 125));
    // The third series has one that ends there.
    assert_eq!(issues(&block), [(IssueKind::ChunksAtEnd, 1, 1, first)]);
    // With an end one minute earlier that one is outside in part, and one of the second series ends there.
    let later = with_meta(&block, |meta| meta.max_time -= MINUTE);
    let kinds: Vec<_> = issues(&later)
        .into_iter()
        .map(|(kind, series, chunks, _)| (kind, series, chunks))
        .collect();
    assert_eq!(
        kinds,
        [(IssueKind::ChunksOutside, 1, 1), (IssueKind::ChunksPartlyOutside, 1, 1)]
    );
}

#[test]
fn a_chunk_is_outside_where_the_compactor_of_thanos_counts_it_so() {
    for (times, want) in [
        ((0, 99), None),
        ((0, 100), None),
        ((100, 100), None),
        ((100, 101), Some(IssueKind::ChunksAtEnd)),
        ((101, 101), Some(IssueKind::ChunksOutside)),
        ((-2, -1), Some(IssueKind::ChunksOutside)),
        ((-1, 100), Some(IssueKind::ChunksPartlyOutside)),
        ((99, 101), Some(IssueKind::ChunksPartlyOutside)),
    ] {
        let (chunk, _) = ChunkOrder::default().next(times);
        let found = outside(chunk, (0, 100)).map(|(kind, _)| kind);
        assert_eq!(found, want, "{times:?}");
    }
}

#[test]
fn issues_are_counted_and_only_the_first_is_named_in_both_formats() {
    for version in [1, 2] {
        let (_data, block) = made(Shape {
            series: 100,
            chunks: 10,
            version,
            ..Shape::default()
        });
        let early = with_meta(&block, |meta| meta.max_time = 250);
        let found = issues(&early);
        let counts: Vec<_> = found
            .iter()
            .map(|(kind, series, chunks, _)| (*kind, *series, *chunks))
            .collect();
        let want = [
            (IssueKind::ChunksOutside, 100, 700),
            (IssueKind::ChunksPartlyOutside, 100, 100),
        ];
        assert_eq!(counts, want, "version {version}");
        assert!(
            found[0].3.starts_with("series {a=\"000000\"} at byte "),
            "{}",
            found[0].3
        );
    }
}

#[test]
fn a_chunk_within_a_longer_one_before_overlaps_although_its_neighbour_does_not() {
    let mut order = ChunkOrder::default();
    let kinds: Vec<Option<IssueKind>> = [(0, 100), (10, 20), (50, 60), (50, 60), (100, 120), (121, 130)]
        .into_iter()
        .map(|times| order.next(times).1.map(|(kind, _)| kind))
        .collect();
    let overlap = Some(IssueKind::OverlappingChunks);
    assert_eq!(
        kinds,
        [None, overlap, overlap, Some(IssueKind::DoubledChunks), overlap, None]
    );
}

#[test]
fn an_issue_says_how_many_there_are_and_what_comes_of_it() {
    let text = |name: &str| check(&block(name)).unwrap().facts.issues[0].to_string();
    assert!(
        text("overlapping_chunks").starts_with(
            "2 chunks in 1 series overlapping another chunk (Thanos' compactor stops at it); first: series {"
        ),
        "{}",
        text("overlapping_chunks")
    );
    assert!(
        text("doubled_labels").starts_with("1 series with the same label name twice (Thanos' compactor stops at it); ")
    );
    assert!(
        text("doubled_chunks")
            .starts_with("1 chunk in 1 series with the times of the chunk before (the samples are stored twice); ")
    );
}
