//! Answers from sealed blocks against those of Prometheus alone, chunk for chunk: two sidecars beside the same Prometheus, of
//! which one reads its blocks and the other asks it for everything.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use narthex::pb::thanos::{LabelMatcher, SeriesRequest, ShardInfo, label_matcher::Type};

use super::{
    ask::{Got, Set, matcher, raw, set},
    random::Dice,
    special::histogram,
    stage::{LIMIT, Stage, Written, labels, prometheus_of, start_ms, write},
};
use crate::rig::{Leg, Prometheus, Tools};

/// Time of a block, in ms.
const BLOCK: i64 = 60_000;
const BLOCKS: i64 = 24;
/// Time of the samples of one request to write, in ms: Prometheus takes none that are half a block older than its newest.
const AT_ONCE: i64 = 20_000;
const REQUESTS: usize = 700;
const EXTERNAL: [(&str, &str); 2] = [("cluster", "eu"), ("replica", "a")];
const NAMES: [&str; 8] = ["A", "a", "b", "cluster", "job", "pod", "replica", "zz"];
const VALUES: [&str; 8] = ["x", "y", "eu", "a", "pod-1", "pod-10", "pod-2", "\u{fc}ber"];
/// In Go's syntax, some of which match nothing, everything or the empty value.
const PATTERNS: [&str; 17] = [
    "x|eu",
    ".+",
    ".*",
    "",
    "pod-1.*",
    "pod-[0-9]",
    "(?i)X|EU",
    "pod-1|",
    "e(u|x)?",
    r"\Qpod-1\E0?",
    "^x$",
    "[^xy]*",
    "p.d-.+",
    "none",
    "\u{fc}.*",
    "a{1,2}",
    r"pod-\d{1,2}",
];

/// A series and when it has samples: each `step` from a time to a time, in ms after the start.
struct Made {
    labels: BTreeMap<String, String>,
    step: i64,
    times: std::ops::Range<i64>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Floats,
    Histograms,
    FloatHistograms,
}

fn made(dice: &mut Dice, leg: &Leg) -> Vec<Made> {
    let whole = BLOCKS * BLOCK + BLOCK / 2;
    let mut sets = BTreeSet::new();
    while sets.len() < 140 {
        let mut set = labels(&[("__name__", dice.one(&["m", "m", "n"]))]);
        for name in NAMES {
            if dice.below(3) == 0 {
                set.insert(name.to_owned(), dice.one(&VALUES).to_owned());
            }
        }
        sets.insert(set);
    }
    let mut all: Vec<Made> = Vec::new();
    for labels in sets {
        let from = dice.below(2) as i64 * dice.below(whole as usize) as i64;
        let to = whole - dice.below(2) as i64 * dice.below((whole - from) as usize) as i64;
        let step = [5_000, 7_500, 20_000, 250][dice.below(4).min(dice.below(8))];
        let times = from..to;
        let kind = [Kind::Floats, Kind::Histograms, Kind::FloatHistograms][dice.below(3).min(dice.below(3))];
        all.push(Made {
            labels,
            step,
            times,
            kind,
        });
    }
    let mut odd = |pairs: &[(&str, &str)], times: std::ops::Range<i64>| {
        let labels = labels(pairs);
        let (step, kind) = (5_000, Kind::Floats);
        all.push(Made {
            labels,
            step,
            times,
            kind,
        });
    };
    // In one block only, and of a value that takes more than a window of 64 KiB.
    odd(
        &[("__name__", "m"), ("job", "once")],
        3 * BLOCK + 1_000..3 * BLOCK + 2_000,
    );
    odd(&[("__name__", "m"), ("job", &"long".repeat(20_000))], 0..whole);
    if leg.at_least(3, 0) {
        odd(&[("__name__", "m"), ("a.b \u{e4}", "x"), ("job", "utf-8")], 0..whole);
    }
    all
}

/// Writes the series in the order of time.
async fn write_all(prometheus: &Prometheus, all: &[Made], start: i64) {
    let end = all.iter().map(|made| made.times.end).max().unwrap();
    for from in (0..end).step_by(AT_ONCE as usize) {
        let part = |made: &Made| {
            let in_part = |at: &i64| made.times.contains(at) && (from..from + AT_ONCE).contains(at);
            let times = (0..end).step_by(made.step as usize).filter(in_part);
            let mut written = Written {
                labels: made.labels.clone(),
                ..Written::default()
            };
            for at in times {
                match made.kind {
                    Kind::Floats => written.floats.push((start + at, (at % 977) as f64 / 8.0)),
                    // Its own times are 5 s apart.
                    Kind::Histograms | Kind::FloatHistograms => {
                        let mut one = histogram(0, at / 1000, made.kind == Kind::FloatHistograms);
                        one.timestamp = start + at;
                        written.histograms.push(one);
                    }
                }
            }
            written
        };
        write(prometheus, &all.iter().map(part).collect::<Vec<_>>()).await;
    }
}

/// A time at or near the border of a block or a sample, or any.
fn time(dice: &mut Dice, start: i64) -> i64 {
    let border = start + dice.below(BLOCKS as usize + 2) as i64 * BLOCK;
    match dice.below(3) {
        0 => border + dice.below(3) as i64 - 1,
        1 => border + dice.below(12) as i64 * 5_000 + dice.below(3) as i64 - 1,
        _ => border + dice.below(BLOCK as usize) as i64,
    }
}

fn condition(dice: &mut Dice, leg: &Leg) -> LabelMatcher {
    let op = [Type::Eq, Type::Neq, Type::Re, Type::Nre][dice.below(4)];
    let value = match op {
        Type::Eq | Type::Neq if dice.below(4) == 0 => "",
        Type::Eq | Type::Neq => dice.one(&VALUES),
        Type::Re | Type::Nre => dice.one(&PATTERNS),
    };
    let names = ["A", "a", "b", "job", "pod", "zz", "missing", "a.b \u{e4}"];
    // Such names are known since 3.0.
    let known = names.len() - usize::from(!leg.at_least(3, 0));
    matcher(op, dice.one(&names[..known]), value)
}

fn request(dice: &mut Dice, leg: &Leg, start: i64) -> SeriesRequest {
    let mut matchers = vec![matcher(Type::Eq, "cluster", "eu")];
    let skip_chunks = dice.below(6) == 0;
    matchers.push(match dice.below(4) {
        // Prometheus' API for labels wants one that does not take the empty value.
        _ if skip_chunks => matcher(Type::Eq, "__name__", dice.one(&["m", "n"])),
        0 => matcher(Type::Re, "__name__", "m|n"),
        1 => matcher(Type::Neq, "__name__", "n"),
        _ => matcher(Type::Eq, "__name__", dice.one(&["m", "n"])),
    });
    matchers.extend((0..dice.below(4)).map(|_| condition(dice, leg)));
    let (one, other) = (time(dice, start), time(dice, start));
    const WITHOUT: [&[&str]; 4] = [&[], &["replica"], &["replica", "b"], &["zz", "A"]];
    let without = WITHOUT[dice.below(4)];
    let shard = (dice.below(4) == 0).then(|| ShardInfo {
        shard_index: dice.below(3) as i64,
        total_shards: 3,
        by: dice.below(2) == 0,
        labels: vec!["job".to_owned(), "a".to_owned()],
    });
    SeriesRequest {
        min_time: one.min(other),
        max_time: one.max(other),
        matchers,
        without_replica_labels: without.iter().map(|&name| name.to_owned()).collect(),
        shard_info: shard,
        skip_chunks,
        // Of labels any may come where not all are wanted.
        limit: if skip_chunks { 0 } else { [0, 0, 0, 1, 7][dice.below(5)] },
        response_batch_size: [0, 2, 64][dice.below(3)],
        ..Default::default()
    }
}

/// First and last time, encoding, data.
type SentChunk = (i64, i64, i32, Vec<u8>);

/// The chunks of each series as they come, those of its parts one behind the other.
fn chunks(got: &Got, leg: &Leg) -> Vec<(Set, Vec<SentChunk>)> {
    let mut found: Vec<(Set, Vec<SentChunk>)> = Vec::new();
    for series in &got.series {
        let chunks = raw(series).map(|((min, max), chunk)| {
            let mut data = chunk.data.to_vec();
            // Before 3.1 Prometheus said of a chunk that it has cut what it knew of the whole one about counter resets, and a
            // chunk that ends with a whole byte ended with a spare one.
            if !leg.at_least(3, 1) {
                if chunk.r#type != 0 {
                    data[2] &= 0x3f;
                }
                data.truncate(data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            }
            (min, max, chunk.r#type, data)
        });
        let set = set(series);
        match found.last_mut() {
            Some((last, list)) if *last == set => list.extend(chunks),
            _ => found.push((set, chunks.collect())),
        }
    }
    found
}

#[tokio::test]
async fn what_comes_from_disk_is_what_prometheus_sends_chunk_for_chunk() {
    join_all(Tools::find().legs.iter().enumerate().map(|(at, leg)| compare(leg, at))).await;
}

async fn compare(leg: &Leg, at: usize) {
    let mut dice = Dice(90 + at as u64);
    let start = start_ms() / BLOCK * BLOCK;
    let prometheus = prometheus_of(leg, &EXTERNAL, "1m", &[]).await;
    write_all(&prometheus, &made(&mut dice, leg), start).await;
    // The head keeps one and a half of them.
    prometheus.wait_for_blocks(BLOCKS as usize - 1, LIMIT).await;
    let beat = "--prometheus.get_config_interval=1s";
    let disk = Stage::start(&prometheus, &[beat]).await;
    let alone = Stage::start(&prometheus, &[beat, "--no-store.sealed-from-disk"]).await;
    let calls = async |stage: &Stage, source: &str| {
        let metrics = stage.sidecar.metrics().await?;
        metrics.value("narthex_series_calls_total", &[("source", source)])
    };
    let first = SeriesRequest {
        min_time: start,
        max_time: start + BLOCK,
        matchers: vec![matcher(Type::Eq, "cluster", "eu"), matcher(Type::Eq, "__name__", "m")],
        ..Default::default()
    };
    let from_disk = async || {
        disk.series(first.clone()).await;
        calls(&disk, "disk").await.filter(|calls| *calls > 0.0)
    };
    disk.sidecar.wait_until(LIMIT, "blocks are read", from_disk).await;
    for _ in 0..REQUESTS {
        let request = request(&mut dice, leg, start);
        let (got, wanted) = tokio::join!(disk.series(request.clone()), alone.series(request.clone()));
        let (mut got, mut wanted) = (chunks(&got, leg), chunks(&wanted, leg));
        for ((set, got), (_, wanted)) in got.iter_mut().zip(&mut wanted) {
            // Several stored series may have become this one: theirs may come in any order.
            assert!(
                got.is_sorted() || !wanted.is_sorted(),
                "{} {request:?}: {set:?}",
                leg.version
            );
            got.sort_unstable();
            wanted.sort_unstable();
        }
        // All of it would fill screens.
        let differ = got.iter().zip(&wanted).find(|(got, wanted)| got != wanted);
        let chunks =
            differ.map(|(got, wanted)| (&got.0, got.1.iter().zip(&wanted.1).find(|(got, wanted)| got != wanted)));
        assert!(
            got == wanted,
            "{} {request:?}: {} of {}: {chunks:?}",
            leg.version,
            got.len(),
            wanted.len()
        );
    }
    for source in ["disk", "both"] {
        let calls = calls(&disk, source).await.unwrap();
        assert!(calls >= REQUESTS as f64 / 10.0, "{calls} calls from {source}");
    }
    let others = [calls(&alone, "disk").await, calls(&alone, "both").await];
    assert_eq!(others, [Some(0.0), Some(0.0)]);
}
