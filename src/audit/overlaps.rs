//! Blocks that hold the same times.
//!
//! A compactor stops for good at two blocks of the same labels and resolution whose times overlap, unless it is told to
//! merge them. Ranges are half-open: a block that ends where the next one begins does not overlap it.

use std::collections::BTreeMap;

use crate::{lineage::Entry, model::Labels};

/// The most pairs that are looked for at once; whoever has more has enough to do.
pub const MOST_OVERLAPS: usize = 10_000;

/// A range of time (ms since 1970): `min` is in it, `max` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start.
    pub min: i64,
    /// Its end.
    pub max: i64,
}

/// The pairs of `spans` that overlap, by their places, the smaller place first; in the order of the spans' starts. A
/// range that is empty or reversed overlaps nothing. At most [`MOST_OVERLAPS`] pairs.
pub fn overlaps(spans: &[Span]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..spans.len()).filter(|i| spans[*i].min < spans[*i].max).collect();
    order.sort_by_key(|i| (spans[*i].min, *i));
    let mut pairs = Vec::new();
    // Spans that begin before the one in hand and end after its start: each of them is a pair.
    let mut open: Vec<usize> = Vec::new();
    for this in order {
        open.retain(|other| spans[*other].max > spans[this].min);
        for &other in &open {
            if pairs.len() == MOST_OVERLAPS {
                return pairs;
            }
            pairs.push((this.min(other), this.max(other)));
        }
        open.push(this);
    }
    pairs
}

/// Two blocks of the same labels and resolution whose times overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap<'a> {
    /// The one; if there is something to say of `merged`, the one that was merged.
    pub block: &'a Entry,
    /// The other.
    pub other: &'a Entry,
    /// All of `block` is in `other`, since a compactor merged it; that heals by itself.
    pub merged: bool,
}

/// The overlaps among `blocks`, by label set and resolution, whatever the order of `blocks`. At most [`MOST_OVERLAPS`] for
/// each of those.
pub fn among(blocks: &[Entry]) -> Vec<Overlap<'_>> {
    let mut groups: BTreeMap<(&Labels, i64), Vec<&Entry>> = BTreeMap::new();
    for block in blocks {
        groups.entry((&block.labels, block.resolution)).or_default().push(block);
    }
    let mut found = Vec::new();
    for group in groups.values_mut() {
        group.sort_by_key(|block| block.id);
        let spans: Vec<Span> = group.iter().map(|block| span(block)).collect();
        let pairs = overlaps(&spans);
        found.extend(pairs.into_iter().map(|(a, b)| overlap(group[a], group[b])));
    }
    found
}

/// The times of a block.
fn span(block: &Entry) -> Span {
    let (min, max) = block.range;
    Span { min, max }
}

fn overlap<'a>(a: &'a Entry, b: &'a Entry) -> Overlap<'a> {
    let (block, other, merged) = match (a.is_within(b), b.is_within(a)) {
        (true, _) => (a, b, true),
        (false, true) => (b, a, true),
        (false, false) => (a, b, false),
    };
    Overlap { block, other, merged }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tsdb::BlockId;

    fn spans(ranges: &[(i64, i64)]) -> Vec<Span> {
        ranges.iter().map(|(min, max)| Span { min: *min, max: *max }).collect()
    }

    #[test]
    fn ranges_are_half_open() {
        for (ranges, want) in [
            (vec![], vec![]),
            (vec![(0, 10)], vec![]),
            (vec![(0, 10), (10, 20)], vec![]),
            (vec![(0, 11), (10, 20)], vec![(0, 1)]),
            (vec![(10, 20), (0, 11)], vec![(0, 1)]),
            (vec![(0, 10), (0, 10)], vec![(0, 1)]),
            (
                vec![(0, 100), (10, 20), (20, 30), (99, 101)],
                vec![(0, 1), (0, 2), (0, 3)],
            ),
            // Empty and reversed ranges hold no times.
            (vec![(0, 10), (5, 5), (7, 6)], vec![]),
            (vec![(i64::MIN, i64::MAX), (i64::MAX - 1, i64::MAX)], vec![(0, 1)]),
        ] {
            assert_eq!(overlaps(&spans(&ranges)), want, "{ranges:?}");
        }
    }

    #[test]
    fn pairs_are_bounded() {
        assert_eq!(overlaps(&spans(&[(0, 1); 1000])).len(), MOST_OVERLAPS);
    }

    fn id(n: u8) -> BlockId {
        BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRSTVWX{n:02}")).unwrap()
    }

    fn entry(n: u8, cluster: &str, resolution: i64, range: (i64, i64), sources: &[u8]) -> Entry {
        let mut sources: Vec<BlockId> = sources.iter().map(|n| id(*n)).collect();
        sources.sort();
        Entry {
            id: id(n),
            labels: Labels::from_pairs([("cluster", cluster)]),
            resolution,
            range,
            level: 1,
            sources: sources.into(),
        }
    }

    fn overlaps_of(blocks: &[Entry]) -> Vec<(BlockId, BlockId, bool)> {
        let found = among(blocks);
        found
            .iter()
            .map(|overlap| (overlap.block.id, overlap.other.id, overlap.merged))
            .collect()
    }

    #[test]
    fn only_the_same_labels_and_resolution_overlap() {
        let blocks = [
            entry(1, "a", 0, (0, 10), &[1]),
            entry(2, "b", 0, (0, 10), &[2]),
            entry(3, "a", 300_000, (0, 10), &[1]),
            entry(4, "a", 0, (9, 20), &[4]),
        ];
        assert_eq!(overlaps_of(&blocks), [(id(1), id(4), false)]);
    }

    #[test]
    fn what_was_merged_is_told_apart() {
        let blocks = [
            entry(9, "a", 0, (0, 20), &[1, 2]),
            entry(1, "a", 0, (0, 10), &[1]),
            entry(2, "a", 0, (10, 20), &[2]),
            entry(3, "a", 0, (15, 25), &[2, 3]),
            entry(4, "a", 0, (18, 19), &[4]),
        ];
        let mut found = overlaps_of(&blocks);
        found.sort_unstable();
        let mut want = vec![
            (id(1), id(9), true),
            (id(2), id(9), true),
            (id(3), id(9), false),
            // Its sources are those of the other, and its times are not.
            (id(2), id(3), false),
            (id(4), id(9), false),
            (id(2), id(4), false),
            (id(3), id(4), false),
        ];
        want.sort_unstable();
        assert_eq!(found, want);
    }

    #[test]
    fn two_merges_of_the_same_are_merged() {
        let blocks = [entry(8, "a", 0, (0, 20), &[1, 2]), entry(9, "a", 0, (0, 20), &[2, 1])];
        assert_eq!(overlaps_of(&blocks), [(id(8), id(9), true)]);
    }

    proptest! {
        #[test]
        fn as_every_pair_held_against_each_other(ranges in proptest::collection::vec((0..30_i64, 0..30_i64), 0..20)) {
            let spans = spans(&ranges);
            let mut found = overlaps(&spans);
            found.sort_unstable();
            let mut want = Vec::new();
            for (i, a) in spans.iter().enumerate() {
                for (j, b) in spans.iter().enumerate().skip(i + 1) {
                    // Some moment is in both.
                    if (0..30).any(|t| (a.min..a.max).contains(&t) && (b.min..b.max).contains(&t)) {
                        want.push((i, j));
                    }
                }
            }
            prop_assert_eq!(found, want);
        }
    }
}
