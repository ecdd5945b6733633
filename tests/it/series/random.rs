//! Random label sets, matchers, ranges, external and replica labels: what Prometheus' engine finds, with the labels of the
//! contract, is what arrives, and in the order of a full sort.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use narthex::pb::thanos::{SeriesRequest, label_matcher::Type};

use super::{
    ask::matcher,
    stage::{Stage, Written, engine, labels, prometheus, relabelled, start_ms, write},
};
use crate::rig::{Leg, Tools};

/// Time between two samples, in ms.
const STEP: i64 = 15_000;
const SAMPLES: i64 = 60;
/// Time of a block, in ms.
const BLOCK: i64 = 2 * 60 * 60 * 1000;

/// The same numbers in each run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }

    pub(super) fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Few names and values: many label sets are prefixes of others, and many carry a label that is external somewhere.
const NAMES: [&str; 9] = ["A", "__meta", "a", "b", "cluster", "job", "replica", "zone", "zz"];

fn written(dice: &mut Dice, start: i64) -> Vec<Written> {
    let mut sets: BTreeMap<BTreeMap<String, String>, Vec<(i64, f64)>> = BTreeMap::new();
    while sets.len() < 700 {
        let mut set = labels(&[("__name__", dice.one(&["m", "m", "n"]))]);
        for name in NAMES {
            if dice.below(3) == 0 {
                set.insert(name.to_owned(), dice.one(&["x", "y", "eu", "a"]).to_owned());
            }
        }
        let from = dice.below(20) as i64;
        let floats = (from..SAMPLES).filter(|at| at % 7 != 3).map(|at| {
            let value = dice.below(1000) as f64 / 8.0;
            (start + at * STEP, value)
        });
        sets.insert(set, floats.collect());
    }
    let series = |(labels, floats)| Written {
        labels,
        floats,
        ..Default::default()
    };
    sets.into_iter().map(series).collect()
}

/// External labels that sort first, in the middle and last, that are stored too, and that are not.
const EXTERNAL: [&[(&str, &str)]; 4] = [
    &[("cluster", "eu"), ("replica", "a")],
    &[("A", "first"), ("zz", "last")],
    &[("aa", "new"), ("job", "x"), ("zone", "y")],
    &[("A0", "capital"), ("zzz", "last")],
];

const WITHOUT: [&[&str]; 4] = [&[], &["replica"], &["replica", "b"], &["zz", "A", "__name__"]];

/// A matcher as PromQL writes it and as the StoreAPI has it.
fn condition(dice: &mut Dice) -> (String, narthex::pb::thanos::LabelMatcher) {
    let name = dice.one(&["a", "b", "job", "zone", "zz", "replica", "cluster"]);
    let (op, sign, value) = match dice.below(6) {
        0 => (Type::Eq, "=", "x"),
        1 => (Type::Eq, "=", ""),
        2 => (Type::Neq, "!=", "y"),
        3 => (Type::Neq, "!=", ""),
        4 => (Type::Re, "=~", "x|eu"),
        _ => (Type::Nre, "!~", "(x|a).*"),
    };
    (format!("{name}{sign}{value:?}"), matcher(op, name, value))
}

#[tokio::test]
async fn what_arrives_is_what_the_engine_finds_in_the_order_of_a_full_sort() {
    join_all(Tools::find().legs.iter().enumerate().map(|(at, leg)| compare(leg, at))).await;
}

async fn compare(leg: &Leg, at: usize) {
    // The head cuts chunks at each second hour: most series have two, and with tiny frames they come in two parts.
    let start = start_ms() / BLOCK * BLOCK - SAMPLES / 2 * STEP;
    let mut dice = Dice(7 + at as u64);
    // Tiny frames on one of them: each chunk comes in a frame of its own.
    let frames = ["--storage.remote.read-max-bytes-in-frame=1"];
    let mut prometheus = prometheus(leg, EXTERNAL[0], &frames[..usize::from(at == 0)]).await;
    write(&prometheus, &written(&mut dice, start)).await;
    for external in EXTERNAL {
        prometheus.set_external_labels(external).await;
        let stage = Stage::start(&prometheus, &[]).await;
        for _ in 0..12 {
            ask_once(&mut dice, &prometheus, &stage, external, start).await;
        }
        assert_eq!(stage.sidecar.stop().await.code(), Some(0));
    }
}

async fn ask_once(
    dice: &mut Dice,
    prometheus: &crate::rig::Prometheus,
    stage: &Stage,
    external: &[(&str, &str)],
    start: i64,
) {
    let without = WITHOUT[dice.below(WITHOUT.len())];
    let name = dice.one(&["m", "n"]);
    let mut text = vec![format!("__name__={name:?}")];
    let mut matchers = vec![matcher(Type::Eq, "__name__", name)];
    for _ in 0..dice.below(3) {
        let (promql, one) = condition(dice);
        // One on an external label is settled by narthex, and the engine knows nothing of it.
        if !external.iter().any(|(name, _)| *name == one.name) {
            text.push(promql);
            matchers.push(one);
        }
    }
    let (label, value) = external[dice.below(external.len())];
    matchers.insert(dice.below(matchers.len() + 1), matcher(Type::Eq, label, value));
    let selector = format!("{{{}}}", text.join(","));
    // Between two samples, so that no version can differ about the ends.
    let from = start + dice.below(30) as i64 * STEP + 1;
    let to = from + (1 + dice.below(40) as i64) * STEP + 1;
    let batch = [0, 1, 2, 64][dice.below(4)];
    let request = SeriesRequest {
        min_time: from,
        max_time: to,
        matchers,
        without_replica_labels: without.iter().map(|&name| name.to_owned()).collect(),
        response_batch_size: batch,
        ..Default::default()
    };
    let got = stage.series(request).await;
    let wanted = relabelled(&engine(prometheus, &selector, from, to).await, external, without);
    let mut sets = got.sets();
    sets.dedup();
    assert_eq!(
        sets,
        wanted.keys().cloned().collect::<Vec<_>>(),
        "{selector} without {without:?}"
    );
    // Chunks may reach beyond the range.
    let mut floats = got.floats();
    floats
        .values_mut()
        .for_each(|list| list.retain(|(time, _)| (from..=to).contains(time)));
    assert_eq!(floats, wanted, "{selector} without {without:?}");
    batches(&got.messages, batch, got.series.len());
}

fn batches(messages: &[Option<usize>], batch: i64, series: usize) {
    if batch < 2 {
        assert_eq!(messages, vec![None; series]);
        return;
    }
    let batch = batch as usize;
    let sizes: Vec<usize> = messages
        .iter()
        .map(|size| size.expect("all messages are batches"))
        .collect();
    assert_eq!(sizes.len(), series.div_ceil(batch));
    assert!(sizes.iter().rev().skip(1).all(|size| *size == batch), "{sizes:?}");
}
