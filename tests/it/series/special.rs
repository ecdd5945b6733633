//! Samples that are not plain floats, names that are not plain ASCII, series in many frames.

use futures_util::future::join_all;
use narthex::{
    chunk::{self, histogram::Kind},
    pb::{
        prometheus::{
            BucketSpan, Histogram,
            histogram::{Count, ZeroCount},
        },
        thanos::{SeriesRequest, label_matcher::Type},
    },
};

use super::{
    ask::{matcher, raw, set},
    stage::{Stage, Written, labels, prometheus, start_ms, write},
};
use crate::rig::{Leg, Tools};

const EXTERNAL: [(&str, &str); 1] = [("cluster", "eu")];

fn all(start: i64, name: &str) -> SeriesRequest {
    SeriesRequest {
        min_time: start,
        max_time: start + 3_600_000,
        matchers: vec![matcher(Type::Eq, "__name__", name)],
        ..Default::default()
    }
}

#[tokio::test]
async fn every_bit_of_a_float_arrives() {
    let values = [
        0.0,
        -1e-300,
        1.5,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::from_bits(0x7ff8_0000_0000_0001),
        f64::from_bits(chunk::STALE_NAN),
        42.0,
    ];
    for leg in Tools::find().legs {
        let start = start_ms();
        let floats: Vec<(i64, f64)> = (0..)
            .zip(values)
            .map(|(at, value)| (start + at * 7001, value))
            .collect();
        let prometheus = prometheus(&leg, &EXTERNAL, &[]).await;
        let written = Written {
            labels: labels(&[("__name__", "bits")]),
            floats: floats.clone(),
            ..Default::default()
        };
        write(&prometheus, &[written]).await;
        let stage = Stage::start(&prometheus, &[]).await;
        let got = stage.series(all(start, "bits")).await.floats();
        let wanted: Vec<(i64, u64)> = floats.iter().map(|(time, value)| (*time, value.to_bits())).collect();
        assert_eq!(got.into_values().collect::<Vec<_>>(), [wanted], "{}", leg.version);
    }
}

/// A histogram whose buckets grow with `at`.
pub(super) fn histogram(start: i64, at: i64, float: bool) -> Histogram {
    let base = Histogram {
        sum: at as f64 * 1.5,
        schema: 2,
        zero_threshold: 0.001,
        positive_spans: vec![
            BucketSpan { offset: -2, length: 2 },
            BucketSpan { offset: 3, length: 1 },
        ],
        timestamp: start + at * 5_000,
        ..Default::default()
    };
    match float {
        true => Histogram {
            count: Some(Count::CountFloat(3.5 * at as f64 + 1.0)),
            zero_count: Some(ZeroCount::ZeroCountFloat(1.0)),
            positive_counts: vec![at as f64, 2.0 * at as f64, 0.5 * at as f64],
            ..base
        },
        false => Histogram {
            count: Some(Count::CountInt(4 * at as u64 + 1)),
            zero_count: Some(ZeroCount::ZeroCountInt(1)),
            positive_deltas: vec![at, at, -at],
            ..base
        },
    }
}

#[tokio::test]
async fn native_histograms_arrive_as_they_were_written() {
    join_all(Tools::find().legs.iter().map(histograms)).await;
}

async fn histograms(leg: &Leg) {
    let start = start_ms();
    let prometheus = prometheus(leg, &EXTERNAL, &[]).await;
    let series = [("whole", false), ("float", true)].map(|(name, float)| Written {
        labels: labels(&[("__name__", name)]),
        histograms: (0..200).map(|at| histogram(start, at, float)).collect(),
        ..Default::default()
    });
    write(&prometheus, &series).await;
    let stage = Stage::start(&prometheus, &[]).await;
    for (name, number, kind) in [("whole", 1, Kind::Integer), ("float", 2, Kind::Float)] {
        let got = stage.series(all(start, name)).await;
        assert_eq!(got.series.len(), 1);
        let mut read = Vec::new();
        for (_, chunk) in raw(&got.series[0]) {
            assert_eq!(chunk.r#type, number, "{name}");
            for sample in chunk::histogram::decode(&chunk.data, kind) {
                let sample = sample.unwrap();
                read.push((sample.timestamp_ms, sample.sum, format!("{:?}", sample.counts)));
            }
        }
        let wanted: Vec<_> = (0..200)
            .map(|at| {
                let counts = match kind {
                    Kind::Integer => chunk::histogram::Counts::Integer {
                        count: 4 * at as u64 + 1,
                        zero: 1,
                        positive: vec![at, at, -at],
                        negative: vec![],
                    },
                    Kind::Float => chunk::histogram::Counts::Float {
                        count: 3.5 * at as f64 + 1.0,
                        zero: 1.0,
                        positive: vec![at as f64, 2.0 * at as f64, 0.5 * at as f64],
                        negative: vec![],
                    },
                };
                (start + at * 5_000, at as f64 * 1.5, format!("{counts:?}"))
            })
            .collect();
        assert_eq!(read, wanted, "{name} of {}", leg.version);
    }
}

#[tokio::test]
async fn names_in_any_script_arrive_from_prometheus_3() {
    let newer: Vec<Leg> = Tools::find()
        .legs
        .into_iter()
        .filter(|leg| !leg.version.starts_with("2."))
        .collect();
    for leg in &newer {
        let start = start_ms();
        let prometheus = prometheus(leg, &EXTERNAL, &[]).await;
        let series = |pairs: &[(&str, &str)]| Written {
            labels: labels(pairs),
            floats: vec![(start, 1.0)],
            ..Default::default()
        };
        let written = [
            series(&[("__name__", "größe.bytes"), ("http/route", "/ä?b=\"c\"\\d\n")]),
            series(&[("__name__", "größe.bytes"), ("clusteR", "x"), ("日本", "値")]),
            series(&[("__name__", "größe.bytes")]),
        ];
        write(&prometheus, &written).await;
        let stage = Stage::start(&prometheus, &[]).await;
        for skip_chunks in [false, true] {
            let request = SeriesRequest {
                skip_chunks,
                ..all(start, "größe.bytes")
            };
            let mut wanted: Vec<Vec<(String, String)>> = written
                .iter()
                .map(|series| {
                    let mut set = series.labels.clone();
                    set.extend(labels(&EXTERNAL));
                    set.into_iter().collect()
                })
                .collect();
            wanted.sort();
            let got = stage.series(request).await;
            assert_eq!(got.series.iter().map(set).collect::<Vec<_>>(), wanted);
            let one = SeriesRequest {
                skip_chunks,
                matchers: vec![matcher(Type::Eq, "http/route", "/ä?b=\"c\"\\d\n")],
                ..all(start, "")
            };
            assert_eq!(stage.series(one).await.series.len(), 1);
        }
    }
    // Nothing was tested if only old versions are at hand, and that shall be seen.
    assert!(
        !newer.is_empty() || Tools::find().legs.len() == 1,
        "no Prometheus 3 at hand"
    );
}

#[tokio::test]
async fn a_series_in_many_frames_stays_together() {
    let start = start_ms();
    let tiny = ["--storage.remote.read-max-bytes-in-frame=1"];
    let prometheus = prometheus(&Tools::oldest(), &EXTERNAL, &tiny).await;
    let series = |name: &str| Written {
        labels: labels(&[("__name__", "long"), ("n", name)]),
        floats: (0..1000).map(|at| (start + at * 1000, at as f64)).collect(),
        ..Default::default()
    };
    write(&prometheus, &[series("b"), series("a")]).await;
    let stage = Stage::start(&prometheus, &[]).await;
    let got = stage.series(all(start, "long")).await;
    assert!(got.series.len() > 10, "the frames were not split: {}", got.series.len());
    for (_, floats) in got.floats() {
        let wanted: Vec<(i64, u64)> = (0..1000).map(|at| (start + at * 1000, (at as f64).to_bits())).collect();
        assert_eq!(floats, wanted);
    }
    let mut sets = got.sets();
    sets.dedup();
    assert_eq!(sets.len(), 2);
    let frames = stage.sidecar.metric("prometheus_store_received_frames_count").await;
    assert_eq!(frames, Some(1.0));
}
