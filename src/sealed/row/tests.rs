use proptest::{collection::vec, option, prelude::*};
use tokio::time::Instant;

use super::{
    super::{
        listing::BlockFacts,
        out_of_order::{OutOfOrder, Wbl},
        testing::{IN_ORDER, WINDOW, block, confirmed, id, listing, told, unreadable},
    },
    *,
};
use crate::tsdb::FileVersion;

fn ranges(split: &Split) -> Vec<(BlockId, i64, i64)> {
    let blocks = split.blocks.iter();
    blocks.map(|(id, range)| (*id, *range.start(), *range.end())).collect()
}

fn asked(split: &Split) -> Option<(i64, i64, Vec<&'static str>)> {
    let asked = split.prometheus.as_ref()?;
    let reasons = asked.reasons.iter().map(|reason| reason.as_str()).collect();
    Some((*asked.range.start(), *asked.range.end(), reasons))
}

/// Blocks 1: 10..20, 2: 20..30, 3: 40..50; the head begins at 50.
fn three() -> Listing {
    let blocks = vec![block(1, 10, 20, &[]), block(2, 20, 30, &[]), block(3, 40, 50, &[])];
    listing(Instant::now(), blocks)
}

fn row(listing: &Listing) -> Row {
    Row::new(listing, &confirmed(listing, 10, 50))
}

#[test]
fn borders_are_exact() {
    let row = row(&three());
    let (one, two, three) = (id(1), id(2), id(3));
    for (start, end, blocks, prometheus) in [
        (10, 29, vec![(one, 10, 19), (two, 20, 29)], None),
        (19, 20, vec![(one, 19, 19), (two, 20, 20)], None),
        (i64::MIN, 9, vec![], None),
        (i64::MIN, 10, vec![(one, 10, 10)], None),
        (30, 39, vec![], None),
        (30, 40, vec![(three, 40, 40)], None),
        (29, 49, vec![(two, 29, 29), (three, 40, 49)], None),
        (49, 50, vec![(three, 49, 49)], Some((50, 50, vec!["head"]))),
        (45, i64::MAX, vec![(three, 45, 49)], Some((50, i64::MAX, vec!["head"]))),
        (50, 50, vec![], Some((50, 50, vec!["head"]))),
        (i64::MAX, i64::MAX, vec![], Some((i64::MAX, i64::MAX, vec!["head"]))),
        // Nothing is asked.
        (20, 19, vec![], None),
    ] {
        let split = row.split(start, end);
        assert_eq!((ranges(&split), asked(&split)), (blocks, prometheus), "{start}..={end}");
    }
}

#[test]
fn prometheus_is_asked_for_one_range_and_disk_answers_around_it() {
    let mut listed = three();
    listed.blocks[1].facts.has_tombstones = true;
    let row = row(&listed);
    let (one, three) = (id(1), id(3));
    for (start, end, blocks, prometheus) in [
        (
            0,
            49,
            vec![(one, 10, 19), (three, 40, 49)],
            Some((20, 29, vec!["tombstones"])),
        ),
        (0, 25, vec![(one, 10, 19)], Some((20, 25, vec!["tombstones"]))),
        (25, 45, vec![(three, 40, 45)], Some((25, 29, vec!["tombstones"]))),
        // Up to the head: what lies between is asked of Prometheus as well.
        (15, 60, vec![(one, 15, 19)], Some((20, 60, vec!["head", "tombstones"]))),
        // No block is left.
        (22, 35, vec![], Some((22, 35, vec!["tombstones"]))),
        (0, 9, vec![], None),
        (30, 60, vec![(three, 40, 49)], Some((50, 60, vec!["head"]))),
    ] {
        let split = row.split(start, end);
        assert_eq!((ranges(&split), asked(&split)), (blocks, prometheus), "{start}..={end}");
    }
}

/// What is asked of Prometheus for the second of three blocks, and why.
fn second(change: impl FnOnce(&mut Listing), seen: &Listing) -> Option<(i64, i64, Vec<&'static str>)> {
    let mut now = seen.clone();
    change(&mut now);
    asked(&Row::new(&now, &confirmed(seen, 10, 50)).split(10, 49))
}

#[test]
fn each_reason_is_told() {
    let seen = three();
    let whole = |reason| Some((20, 29, vec![reason]));
    assert_eq!(second(|_| {}, &seen), None);
    let facts = |change: fn(&mut BlockFacts)| second(|now| change(&mut now.blocks[1].facts), &seen);
    assert_eq!(facts(|facts| facts.has_tombstones = true), whole("tombstones"));
    assert_eq!(facts(|facts| facts.index_version = Some(1)), whole("index_version"));
    assert_eq!(facts(|facts| facts.index_version = Some(3)), whole("index_version"));
    assert_eq!(facts(|facts| facts.index_version = None), whole("damaged"));
    assert_eq!(facts(|facts| facts.quarantined = true), whole("damaged"));
    let other = |facts: &mut BlockFacts| facts.files = [FileVersion::numbered(2), FileVersion::numbered(7)].into();
    assert_eq!(facts(other), whole("arriving"), "its files are others");
    let gone = second(|now| drop(now.blocks.remove(1)), &seen);
    assert_eq!(gone, whole("differs"), "Prometheus may hold it still");
    let damaged = second(
        |now| {
            now.blocks.remove(1);
            now.corrupt.push(unreadable(2));
        },
        &seen,
    );
    assert_eq!(damaged, whole("damaged"));
    let compacted = second(|now| now.blocks.push(block(4, 10, 30, &[1, 2])), &seen);
    assert_eq!(compacted, Some((10, 29, vec!["overlap", "arriving", "differs"])));
    let between = second(|now| now.blocks.push(block(4, 32, 38, &[])), &seen);
    assert_eq!(between, Some((32, 37, vec!["arriving"])));
    let across = second(|now| now.blocks.push(block(4, 29, 41, &[])), &seen);
    assert_eq!(
        across,
        Some((20, 49, vec!["head", "overlap", "arriving"])),
        "whole blocks are in doubt"
    );
    let touching = second(|now| now.blocks.push(block(4, 30, 40, &[])), &seen);
    assert_eq!(touching, Some((30, 39, vec!["arriving"])));
}

#[test]
fn what_has_no_time_makes_all_of_it_doubtful() {
    let seen = three();
    let all = Some((10, 49, vec!["damaged"]));
    assert_eq!(second(|now| now.corrupt.push(unreadable(9)), &seen), all);
    for (min, max) in [(25, 25), (45, 15), (0, i64::MIN)] {
        let split = second(|now| now.blocks.push(block(9, min, max, &[])), &seen);
        assert_eq!(split, all, "{min}..{max}");
    }
    // Prometheus has told that it has not loaded it, or it is no block at all.
    let mut seen = three();
    seen.corrupt.push(unreadable(9));
    assert_eq!(second(|_| {}, &seen), None);
    let mut leftover = unreadable(8);
    leftover.reason = crate::tsdb::Reason::NoMeta;
    assert_eq!(second(|now| now.corrupt.push(leftover), &seen), None);
}

#[test]
fn where_nothing_is_confirmed_prometheus_is_asked_about_everything() {
    let seen = three();
    let mut none = confirmed(&seen, 10, 50);
    none.forget();
    assert_eq!(
        asked(&Row::new(&seen, &none).split(0, 60)),
        Some((0, 60, vec!["unknown"]))
    );
    none.heartbeat(&told(seen.made_at, 4, 10, 50), &IN_ORDER, Some(&seen));
    assert_eq!(
        asked(&Row::new(&seen, &none).split(0, 60)),
        Some((0, 60, vec!["differs"]))
    );
    let empty = listing(seen.made_at, Vec::new());
    let row = Row::new(&empty, &confirmed(&empty, i64::MIN, i64::MAX));
    assert_eq!(asked(&row.split(0, 60)), Some((0, 60, vec!["head"])));
    // The head reaches into all of them, and then into the last one.
    let reached = Row::new(&seen, &confirmed(&seen, 10, 5)).split(10, 49);
    assert_eq!(asked(&reached), Some((10, 49, vec!["head", "overlaps_head"])));
    let reached = Row::new(&seen, &confirmed(&seen, 10, 49)).split(0, 49);
    assert_eq!(asked(&reached), Some((30, 49, vec!["head", "overlaps_head"])));
    assert_eq!(ranges(&reached), [(id(1), 10, 19), (id(2), 20, 29)]);
}

#[test]
fn what_may_have_come_out_of_order_is_asked_of_prometheus() {
    let seen = three();
    let by = |window_ms, wbl, limit: i64| {
        let mut confirmed = Confirmed::default();
        let mut evidence = told(seen.made_at, 3, 10, 50);
        // A minute for whoever has begun to add samples.
        evidence.head_max_time_ms = Some(limit + WINDOW + 60_000);
        confirmed.heartbeat(&evidence, &OutOfOrder { window_ms, wbl }, Some(&seen));
        asked(&Row::new(&seen, &confirmed).split(0, 49))
    };
    let empty = Some(Wbl::Empty);
    assert_eq!(by(Some(0), empty, 0), None);
    assert_eq!(by(Some(WINDOW), empty, 50), None);
    assert_eq!(
        by(Some(WINDOW), empty, 49),
        Some((30, 49, vec!["head", "out_of_order"]))
    );
    assert_eq!(
        by(Some(WINDOW), empty, 30),
        Some((30, 49, vec!["head", "out_of_order"]))
    );
    assert_eq!(
        by(Some(WINDOW), empty, 29),
        Some((20, 49, vec!["head", "out_of_order"]))
    );
    let all = Some((0, 49, vec!["head", "out_of_order"]));
    assert_eq!(by(None, empty, 50), all);
    assert_eq!(by(Some(WINDOW), None, 50), all);
    assert_eq!(by(Some(0), Some(Wbl::Segments { first: 0, last: 0 }), 50), all);
}

/// A block as it is made up: since when it is there, and what is wrong with it.
#[derive(Clone, Debug)]
struct Made {
    min: i64,
    max: i64,
    /// It came after the heartbeat, and replaces these.
    new: Option<Vec<usize>>,
    gone: bool,
    changed: bool,
    tombstones: bool,
    quarantined: bool,
    index_version: Option<u8>,
}

fn made() -> impl Strategy<Value = Made> {
    let times = (0..50_i64, 1..14_i64);
    let rare = || proptest::bool::weighted(0.08);
    let new = prop_oneof![5 => Just(None), 1 => vec(0..6_usize, 0..3).prop_map(Some)];
    let index = prop_oneof![12 => Just(Some(2)), 1 => Just(Some(1)), 1 => Just(None)];
    (times, new, (rare(), rare(), rare(), rare()), index).prop_map(|((min, len), new, wrong, index_version)| Made {
        min,
        max: min + len,
        gone: wrong.0 && new.is_none(),
        new,
        changed: wrong.1,
        tombstones: wrong.2,
        quarantined: wrong.3,
        index_version,
    })
}

/// Mostly blocks side by side, as they are in life.
fn made_blocks() -> impl Strategy<Value = Vec<Made>> {
    let apart = |mut blocks: Vec<Made>| {
        let mut from = 0;
        for block in &mut blocks {
            let len = block.max - block.min;
            block.min = from + block.min % 3;
            block.max = block.min + len.min(9);
            from = block.max;
        }
        blocks
    };
    prop_oneof![3 => vec(made(), 0..7).prop_map(apart), 1 => vec(made(), 0..7)]
}

/// What the made blocks come to by the rules, each looked at by itself: which can be used, and which times are in doubt.
struct Model {
    good: Vec<(BlockId, i64, i64)>,
    doubts: Vec<(i64, i64)>,
}

impl Model {
    fn new(blocks: &[Made], head_min: i64, limit: i64) -> Self {
        let replaced = |i: usize| {
            blocks
                .iter()
                .any(|other| other.new.as_ref().is_some_and(|new| new.contains(&i)))
        };
        // One that came after the heartbeat and was replaced since has never counted.
        let was_there = |i: &usize| blocks[*i].new.is_none() || !replaced(*i);
        let mut model = Self {
            good: Vec::new(),
            doubts: Vec::new(),
        };
        for i in (0..blocks.len()).filter(was_there) {
            let block = &blocks[i];
            let overlaps = |j: usize| i != j && block.min < blocks[j].max && blocks[j].min < block.max;
            let doubtful = replaced(i)
                || block.gone
                || block.new.is_some()
                || block.changed
                || block.tombstones
                || block.quarantined
                || block.index_version != Some(2)
                || block.max > head_min
                || block.max > limit
                || (0..blocks.len()).filter(was_there).any(overlaps);
            match doubtful {
                true => model.doubts.push((block.min, block.max)),
                false => model.good.push((id(i as u64 + 1), block.min, block.max)),
            }
        }
        let end = model.good.iter().map(|(_, _, max)| *max).max();
        model.doubts.push((end.unwrap_or(i64::MIN), i64::MAX));
        model
    }

    fn is_doubtful(&self, time: i64) -> bool {
        self.doubts.iter().any(|(min, max)| (*min..*max).contains(&time))
    }

    fn block_at(&self, time: i64) -> Option<BlockId> {
        let mut at = self.good.iter().filter(|(_, min, max)| (*min..*max).contains(&time));
        at.next().map(|(id, _, _)| *id)
    }
}

/// The same blocks for the code: as they were with the heartbeat, which agreed, and as they are.
fn built(blocks: &[Made], head_min: i64, limit: i64) -> Row {
    let at = Instant::now();
    let one = |i: usize, block_made: &Made| {
        let parents: Vec<u64> = block_made
            .new
            .iter()
            .flatten()
            .map(|parent| *parent as u64 + 1)
            .collect();
        block(i as u64 + 1, block_made.min, block_made.max, &parents)
    };
    let old = blocks.iter().enumerate().filter(|(_, made)| made.new.is_none());
    let before = listing(at, old.map(|(i, made)| one(i, made)).collect());
    let here = blocks.iter().enumerate().filter(|(_, made)| !made.gone);
    let mut now: Vec<Listed> = here
        .map(|(i, made)| {
            let mut listed = one(i, made);
            if made.changed {
                listed.facts.files = [FileVersion::numbered(i as u64 + 1)].into();
            }
            listed.facts.has_tombstones = made.tombstones;
            listed.facts.quarantined = made.quarantined;
            listed.facts.index_version = made.index_version;
            listed
        })
        .collect();
    now.reverse();
    let lowest = blocks
        .iter()
        .filter(|made| made.new.is_none())
        .map(|made| made.min)
        .min();
    let mut evidence = told(at, before.blocks.len() as u64, lowest.unwrap_or(i64::MIN), head_min);
    evidence.head_max_time_ms = Some(limit + WINDOW + 60_000);
    let out_of_order = OutOfOrder {
        window_ms: Some(WINDOW),
        wbl: Some(Wbl::Empty),
    };
    let mut confirmed = Confirmed::default();
    confirmed.heartbeat(&evidence, &out_of_order, Some(&before));
    assert!(confirmed.agreed().is_ok());
    Row::new(&listing(at, now), &confirmed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_millisecond_is_answered_once_by_whom_it_must_be(
        blocks in made_blocks(),
        head_min in option::weighted(0.3, 0..70_i64),
        limit in option::weighted(0.3, 0..70_i64),
        requests in vec((0..62_i64, 0..62_i64), 8),
    ) {
        let (head_min, limit) = (head_min.unwrap_or(70), limit.unwrap_or(70));
        let (model, row) = (Model::new(&blocks, head_min, limit), built(&blocks, head_min, limit));
        for (start, len) in requests {
            let end = (start + len).min(70);
            let split = row.split(start, end);
            let doubtful: Vec<i64> = (start..=end).filter(|time| model.is_doubtful(*time)).collect();
            let hull = doubtful.first().copied().zip(doubtful.last().copied());
            let left = |(first, last)| {
                (start..first).chain(last + 1..=end).any(|time| model.block_at(time).is_some())
            };
            let want = hull.map(|hull| if left(hull) { hull } else { (start, end) });
            let range = split.prometheus.as_ref().map(|asked| asked.range.clone());
            prop_assert_eq!(range.clone().map(RangeInclusive::into_inner), want, "{:?}", split);
            for time in start..=end {
                let mut from_disk = split.blocks.iter().filter(|(_, range)| range.contains(&time)).map(|(id, _)| *id);
                let by_prometheus = range.as_ref().is_some_and(|range| range.contains(&time));
                let (found, twice) = (from_disk.next(), from_disk.next());
                prop_assert_eq!(twice, None);
                let block = model.block_at(time).filter(|_| !by_prometheus);
                prop_assert_eq!(found, block, "{} in {:?}", time, split);
                prop_assert!(by_prometheus || !model.is_doubtful(time));
            }
            for (_, range) in &split.blocks {
                prop_assert!(start <= *range.start() && range.start() <= range.end() && *range.end() <= end);
            }
            prop_assert!(split.blocks.windows(2).all(|two| two[0].1.end() < two[1].1.start()));
            prop_assert_eq!(split.prometheus.is_some_and(|asked| asked.reasons.is_empty()), false);
        }
    }

    #[test]
    fn overlaps_are_found_as_by_looking_at_each_pair(ranges in vec((0..30_i64, 0..12_i64), 0..12)) {
        let mut candidates: Vec<Candidate> = ranges
            .iter()
            .enumerate()
            .map(|(i, (start, len))| Candidate {
                id: id(i as u64),
                range: *start..=start + len,
                reason: None,
                overlaps: false,
            })
            .collect();
        mark_overlaps(&mut candidates);
        for a in &candidates {
            let other = |b: &&Candidate| a.id != b.id && common(&a.range, &b.range).is_some();
            prop_assert_eq!(a.overlaps, candidates.iter().any(|b| other(&b)));
        }
    }
}
