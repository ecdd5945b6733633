use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{
    model::Labels,
    pb::prometheus::{Chunk, ChunkedReadResponse, ChunkedSeries, Label},
    prometheus::remote_read::{
        Frames,
        gate::{ClientKey, Gate, Permit},
    },
    storeapi::{
        budget::Budget,
        series::{
            relabel::Relabel,
            source::{self, PrometheusFrames, Single},
        },
    },
    threads::BlockingPool,
};

pub(in crate::storeapi::series) type Set = BTreeMap<String, String>;
/// Labels and chunk data as they are sent.
type Sent = (Vec<(String, String)>, Vec<u8>);

pub(in crate::storeapi::series) fn set(pairs: &[(&str, &str)]) -> Set {
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    pairs.iter().map(own).collect()
}

/// A frame of these series, each with one chunk of these bytes.
pub(in crate::storeapi::series) fn encode(query_index: i64, series: &[(Set, Vec<u8>)]) -> Bytes {
    let label = |(name, value): (&String, &String)| Label {
        name: name.clone(),
        value: value.clone(),
    };
    let one = |(set, data): &(Set, Vec<u8>)| ChunkedSeries {
        labels: set.iter().map(label).collect(),
        chunks: vec![Chunk {
            min_time_ms: 1,
            max_time_ms: 2,
            r#type: 1,
            data: data.clone().into(),
        }],
    };
    let response = ChunkedReadResponse {
        chunked_series: series.iter().map(one).collect(),
        query_index,
    };
    let payload = response.encode_to_vec();
    let mut frame = Vec::new();
    prost::encode_length_delimiter(payload.len(), &mut frame).unwrap();
    frame.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
    frame.extend_from_slice(&payload);
    frame.into()
}

/// A plan without limits that changes nothing.
pub(in crate::storeapi::series) fn plan(streamed: Option<i64>, metrics: Metrics) -> Plan {
    Plan {
        convert: Convert::new(Relabel::default(), None),
        streamed,
        why: "series".to_owned(),
        limits: Limits::default(),
        wanted: 0,
        reservation: Budget::new(1 << 30).reservation(),
        pool: BlockingPool::new(1),
        metrics,
    }
}

/// An answer of a response of Prometheus.
pub(in crate::storeapi::series) fn streaming(plan: Plan, frames: Box<Frames>, permit: Permit) -> Answer {
    let (metrics, sources) = (
        plan.metrics.clone(),
        source::metrics::Metrics::register(&mut Registry::default()),
    );
    let frames = PrometheusFrames::new(frames, permit, metrics, sources);
    Answer::streaming(plan, Source::Single(Single::Prometheus(frames)))
}

/// What comes of a body, up to an error.
#[derive(Debug)]
struct Outcome {
    series: Vec<Sent>,
    end: Result<(), Status>,
}

/// Reads an answer whose body comes in pieces of these sizes, again and again.
fn read(mut body: Bytes, sizes: &[usize], mut plan: Plan, relabel: Relabel) -> Outcome {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if body.is_empty() {
            break;
        }
        pieces.push(Ok(body.split_to((*size).min(body.len()))));
    }
    plan.convert = Convert::new(relabel, None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let permit = Gate::new(1).acquire(ClientKey::default(), None).await.unwrap();
        // As from a connection: not all at once.
        let pieces = stream::iter(pieces).then(|piece| async move {
            tokio::task::yield_now().await;
            piece
        });
        let mut answer = streaming(plan, Box::new(Frames::of(pieces)), permit);
        let (mut series, mut end) = (Vec::new(), Ok(()));
        while let Some(next) = std::future::poll_fn(|cx| answer.poll_next(cx)).await {
            match next {
                Ok(next) => series.push(text(&next)),
                Err(failed) => end = Err(failed.into()),
            }
        }
        Outcome { series, end }
    })
}

fn text(series: &OutSeries) -> Sent {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let labels = series
        .labels()
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let data = series.chunks().iter().flat_map(|chunk| chunk.data.to_vec()).collect();
    (labels, data)
}

fn metrics() -> Metrics {
    Metrics::register(&mut Registry::default())
}

/// Frames of so many series each, of the query that the series belong to.
fn stream_of(stored: &[(Set, Vec<u8>)], touched: &[String], frame: usize) -> Bytes {
    let is_touched = |series: &(Set, Vec<u8>)| touched.iter().any(|name| series.0.contains_key(name));
    let (apart, rest): (Vec<_>, Vec<_>) = stored.iter().cloned().partition(is_touched);
    let frames = [(0, apart), (1, rest)].map(|(query, series)| {
        let frames = series.chunks(frame).map(|series| encode(query, series));
        frames.collect::<Vec<_>>().concat()
    });
    frames.concat().into()
}

/// Sets over few names and values, with the bytes of a chunk that tells them apart.
fn stored() -> impl Strategy<Value = Vec<(Set, Vec<u8>)>> {
    let set = proptest::collection::btree_map("[a-e]", "[xy]", 1..5);
    let data = proptest::collection::vec(any::<u8>(), 1..40);
    proptest::collection::btree_map(set, data, 0..20).prop_map(|stored| {
        let mut stored: Vec<_> = stored.into_iter().collect();
        stored.sort_by_key(|(set, _)| set.clone().into_iter().collect::<Vec<_>>());
        stored
    })
}

/// What must come of these series.
fn wanted(stored: &[(Set, Vec<u8>)], external: &Set) -> Vec<Sent> {
    let mut wanted: Vec<_> = stored
        .iter()
        .cloned()
        .map(|(mut set, data)| {
            set.extend(external.clone());
            (set.into_iter().collect::<Vec<_>>(), data)
        })
        .collect();
    // Stable, as sets that become equal come in the order in which they were stored.
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    wanted
}

fn sorted(mut series: Vec<Sent>) -> Vec<Sent> {
    series.sort();
    series
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn however_it_is_torn_an_answer_is_whole_and_in_order(
        stored in stored(),
        external in proptest::collection::btree_map("[a-f]|zz", "[wxyz]", 0..3),
        frame in 1_usize..5,
        sizes in proptest::collection::vec(1_usize..60, 1..10),
    ) {
        let relabel = Relabel::new(&Labels::from_pairs(&external), &[]);
        let body = stream_of(&stored, relabel.touched(), frame);
        let outcome = read(body, &sizes, plan(Some(1), metrics()), relabel);
        outcome.end.unwrap();
        let labels = |series: &Sent| series.0.clone();
        prop_assert!(outcome.series.iter().map(labels).is_sorted());
        prop_assert_eq!(sorted(outcome.series), sorted(wanted(&stored, &external)));
    }

    #[test]
    fn a_cut_or_a_wrong_bit_is_never_a_whole_answer(
        stored in stored().prop_filter("something to cut", |stored| !stored.is_empty()),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
        frame in 1_usize..5,
        sizes in proptest::collection::vec(1_usize..60, 1..10),
    ) {
        let body = stream_of(&stored, &["a".to_owned()], frame);
        let all = sorted(wanted(&stored, &Set::new()));
        let at = at.index(body.len());
        let mut wrong = body.to_vec();
        wrong[at] ^= 1_u8 << bit;
        for (body, may_end) in [(Bytes::from(wrong), false), (body.slice(..at), true)] {
            let outcome = read(body, &sizes, plan(Some(1), metrics()), Relabel::default());
            // Cut between two frames it cannot be known by the frames; HTTP tells it.
            prop_assert!(may_end || outcome.end.is_err());
            let there = |series: &_| all.contains(series);
            prop_assert!(outcome.series.iter().all(there));
            prop_assert!(outcome.series.iter().map(|series| &series.0).is_sorted());
        }
    }

    #[test]
    fn series_in_any_order_come_sorted_and_whole_or_not_at_all(
        stored in stored().prop_shuffle(),
        frame in 1_usize..5,
    ) {
        let body = stream_of(&stored, &[], frame);
        let outcome = read(body, &[1000], plan(Some(1), metrics()), Relabel::default());
        prop_assert!(outcome.series.iter().map(|series| &series.0).is_sorted());
        if outcome.end.is_ok() {
            prop_assert_eq!(outcome.series, wanted(&stored, &Set::new()));
        }
    }
}

#[test]
fn a_query_that_was_not_asked_is_not_answered() {
    let one = (set(&[("a", "x")]), vec![1]);
    let two = (set(&[("a", "y")]), vec![1]);
    let ends = |indexes: [i64; 2], streamed: Option<i64>| {
        let body = [
            encode(indexes[0], std::slice::from_ref(&one)),
            encode(indexes[1], std::slice::from_ref(&two)),
        ]
        .concat();
        read(body.into(), &[9], plan(streamed, metrics()), Relabel::default()).end
    };
    for indexes in [[0, 7], [1, 2], [-1, 1], [1, 0], [i64::MIN, 1], [0, i64::MAX]] {
        ends(indexes, Some(1)).expect_err("there are two queries");
    }
    ends([0, 1], Some(1)).unwrap();
    ends([0, 0], None).unwrap();
    ends([0, 1], None).expect_err("there is one query");
}

#[test]
fn what_is_collected_is_counted_and_keeps_nothing_else_alive() {
    let frames: Vec<_> = (0..100)
        .map(|at| encode(0, &[(set(&[("n", &format!("{at:03}"))]), vec![7; 1000])]))
        .collect();
    let mut plan = plan(None, metrics());
    let budget = Budget::new(40_000);
    plan.reservation = budget.reservation();
    let outcome = read(frames.concat().into(), &[1 << 20], plan, Relabel::default());
    assert_eq!(outcome.end.unwrap_err().code(), tonic::Code::ResourceExhausted);
    assert_eq!((outcome.series.len(), budget.used()), (0, 0));
}

/// `a` comes in parts, and belongs behind the longer set that follows.
#[test]
fn parts_that_are_held_count_and_are_given_back() {
    let (a, ab) = (set(&[("a", "x")]), set(&[("a", "x"), ("b", "x")]));
    let one = |set: &Set, byte: u8| encode(0, &[(set.clone(), vec![byte; 500])]).to_vec();
    let body: Bytes = [one(&a, 1), one(&a, 2), one(&a, 3), one(&ab, 4)].concat().into();
    let relabel = || Relabel::new(&Labels::from_pairs([("zone", "y")]), &[]);
    let with = |total| {
        let budget = Budget::new(total);
        let mut plan = plan(Some(0), metrics());
        plan.reservation = budget.reservation();
        let outcome = read(body.clone(), &[64], plan, relabel());
        assert_eq!(budget.used(), 0);
        outcome
    };
    // Two further parts are held, of a bit more than 500 bytes each.
    let good = with(1200);
    good.end.unwrap();
    let firsts: Vec<u8> = good.series.iter().map(|(_, data)| data[0]).collect();
    assert_eq!(firsts, [4, 1, 2, 3]);
    let refused = with(1000).end.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(
        refused.message().starts_with("the parts of series that begin others"),
        "{refused}"
    );
    // Where nothing is added behind, none has to wait.
    let mut plan = plan(Some(0), metrics());
    plan.reservation = Budget::new(0).reservation();
    let plain = read(body.clone(), &[64], plan, Relabel::default());
    plain.end.unwrap();
    assert_eq!(plain.series.len(), 4);
}

/// Series of the first query, in falling order, and one of the second.
fn many(count: usize) -> Bytes {
    let one = |at: usize| encode(0, &[(set(&[("n", &format!("{at:06}"))]), vec![7; 10])]);
    let last = encode(1, &[(set(&[("z", "last")]), vec![7; 10])]);
    let frames: Vec<Bytes> = (0..count).rev().map(one).chain([last]).collect();
    frames.concat().into()
}

#[tokio::test]
async fn much_that_was_collected_is_sorted_on_the_lane_and_collected_with_pauses() {
    let mut plan = plan(Some(1), metrics());
    let pool = plan.pool.clone();
    plan.why = "series".to_owned();
    // The pool is busy until this is dropped.
    let (free, taken) = std::sync::mpsc::channel::<()>();
    let other = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(move || taken.recv()).await }
    });
    tokio::task::yield_now().await;
    let permit = Gate::new(1).acquire(ClientKey::default(), None).await.unwrap();
    let body = stream::iter([Ok(many(3 * FEW))]);
    let mut answer = streaming(plan, Box::new(Frames::of(body)), permit);
    let mut pauses = 0;
    while answer.sorting.is_none() {
        assert!(futures_util::poll!(std::future::poll_fn(|cx| answer.poll_next(cx))).is_pending());
        pauses += 1;
    }
    assert_eq!(pauses, 3 * FEW / AT_ONCE + 1);
    assert!(futures_util::poll!(std::future::poll_fn(|cx| answer.poll_next(cx))).is_pending());
    free.send(()).unwrap();
    other.await.unwrap().unwrap().unwrap();
    let mut found = Vec::new();
    while let Some(series) = std::future::poll_fn(|cx| answer.poll_next(cx)).await {
        found.push(text(&series.unwrap()).0[0].1.clone());
    }
    assert_eq!(found.len(), 3 * FEW + 1);
    assert!(found.is_sorted());
    assert_eq!(answer.plan.reservation.bytes(), 0);
}

#[test]
fn a_large_frame_counts_while_it_comes() {
    let large = encode(0, &[(set(&[("a", "x")]), vec![7; 8 << 20])]);
    let with = |total| {
        let budget = Budget::new(total);
        let mut plan = plan(Some(0), metrics());
        plan.reservation = budget.reservation();
        let outcome = read(large.clone(), &[100_000], plan, Relabel::default());
        assert_eq!(budget.used(), 0);
        outcome
    };
    assert_eq!(with(9 << 20).series.len(), 1);
    let refused = with(4 << 20).end.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("the frames of this answer"), "{refused}");
}

#[tokio::test]
async fn the_place_at_prometheus_is_free_while_what_came_of_it_is_sorted() {
    let pool = BlockingPool::new(1);
    let (free, waits) = std::sync::mpsc::channel::<()>();
    let other = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(move || waits.recv().is_ok()).await }
    });
    tokio::task::yield_now().await;
    let series: Vec<_> = (0..2 * FEW)
        .map(|at| (set(&[("n", &format!("{:06}", 2 * FEW - at))]), vec![7]))
        .collect();
    let gate = Gate::new(1);
    let plan = Plan {
        pool,
        ..plan(None, metrics())
    };
    let permit = gate.acquire(ClientKey::default(), None).await.unwrap();
    let frames = Frames::of(stream::iter([Ok(encode(0, &series))]));
    let mut answer = streaming(plan, Box::new(frames), permit);
    for _ in 0..100 {
        let polled = futures_util::poll!(std::future::poll_fn(|cx| answer.poll_next(cx)));
        assert!(polled.is_pending());
    }
    assert_eq!(gate.in_flight(), 0);
    free.send(()).unwrap();
    other.await.unwrap().unwrap();
    let mut given = 0;
    while let Some(next) = std::future::poll_fn(|cx| answer.poll_next(cx)).await {
        next.unwrap();
        given += 1;
    }
    assert_eq!(given, 2 * FEW);
}

#[tokio::test]
async fn what_was_to_be_sorted_is_dropped_elsewhere() {
    struct Tell(Option<tokio::sync::oneshot::Sender<std::thread::ThreadId>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(std::thread::current().id());
        }
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let collected = Tell(Some(tell));
    let sorted = Box::pin(async move {
        let _collected = collected;
        std::future::pending().await
    });
    let mut answer = Answer::collecting(plan(None, metrics()));
    let then = Next::End;
    answer.sorting = Some(Sorting { sorted, then });
    drop(answer);
    assert_ne!(told.await.unwrap(), std::thread::current().id());
}
