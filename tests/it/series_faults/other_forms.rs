//! Answers in a form that queriers cannot read: chunks of newer encodings, and samples in place of chunks. They are sent
//! on in a form that they can read, sample for sample.

use narthex::{
    chunk::{self, histogram::Kind, xor},
    pb::{
        prometheus::{BucketSpan, Histogram, Label, QueryResult, ReadResponse, Sample, TimeSeries, histogram},
        thanos::Series,
    },
};
use prost::Message as _;
use serde_json::Value;

use super::{
    fake::{Step, http},
    frames::{STREAM, frame, whole, with_data},
    scene::{self, always},
};

/// What Prometheus' own code has written, see `testdata/chunks`.
fn vectors() -> Value {
    let text = include_str!("../../../testdata/chunks/vectors.json");
    serde_json::from_str(text).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[tokio::test]
async fn chunks_of_newer_encodings_are_what_prometheus_writes_without_them() {
    let vectors = vectors();
    // Number in remote read, its bytes, number in the StoreAPI, its bytes.
    let mut cases: Vec<(i32, Vec<u8>, i32, Vec<u8>)> = Vec::new();
    for floats in vectors["floats"].as_array().unwrap() {
        cases.push((4, bytes(&floats["xor2"]), 0, bytes(&floats["xor"])));
    }
    for histograms in vectors["histograms"].as_array().unwrap() {
        let (number, sent) = if histograms["float"] == true { (6, 2) } else { (5, 1) };
        let list = |name: &str| {
            histograms[name]
                .as_array()
                .into_iter()
                .flatten()
                .map(bytes)
                .collect::<Vec<_>>()
        };
        for (with_start, plain) in list("chunks_with_start").into_iter().zip(list("chunks")) {
            cases.push((number, with_start, sent, plain));
        }
    }
    for number in [4, 5, 6] {
        assert!(
            cases.iter().filter(|case| case.0 == number).count() > 5,
            "vectors of {number}"
        );
    }
    let body: Vec<Vec<u8>> = (0..)
        .zip(&cases)
        .map(|(at, case)| frame(STREAM, &[with_data(at, case.0, case.1.clone())]))
        .collect();
    let scene = scene::shared().await;
    scene.fake.answer("newer encodings", always(whole(&body.concat())));
    let outcome = scene.client().await.ask("newer encodings").await;
    outcome.end.unwrap();
    assert_eq!(outcome.series.len(), cases.len());
    for (series, (number, _, wanted, plain)) in outcome.series.iter().zip(&cases) {
        let raw = series.chunks[0].raw.as_ref().unwrap();
        assert_eq!((raw.r#type, &raw.data[..]), (*wanted, &plain[..]), "encoding {number}");
        assert_eq!(raw.hash, twox_hash::XxHash64::oneshot(0, plain));
    }
}

#[tokio::test]
async fn a_chunk_that_must_be_rewritten_and_is_cut_fails_the_call() {
    let vectors = vectors();
    let whole_chunk = bytes(&vectors["floats"][5]["xor2"]);
    let cut = frame(
        STREAM,
        &[with_data(1, 4, whole_chunk[..whole_chunk.len() - 1].to_vec())],
    );
    let scene = scene::shared().await;
    scene.fake.answer("cut xor2", always(whole(&cut)));
    let status = scene.client().await.ask("cut xor2").await.failed("a cut chunk");
    assert!(status.message().contains("the chunk is cut"), "{status}");
}

fn labels(number: usize) -> Vec<Label> {
    [("n", format!("{number:03}")), ("__name__", "m".to_owned())]
        .map(|(name, value)| Label {
            name: name.to_owned(),
            value,
        })
        .to_vec()
}

/// Three series: of 130 floats, of a native histogram alone, of nothing.
fn sampled() -> Vec<TimeSeries> {
    let samples = (0..130).map(|at| Sample {
        timestamp: 1000 * at,
        value: 0.5 * at as f64,
    });
    let histogram = Histogram {
        count: Some(histogram::Count::CountInt(3)),
        zero_count: Some(histogram::ZeroCount::ZeroCountInt(1)),
        sum: 2.5,
        zero_threshold: 0.001,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 0],
        timestamp: 7000,
        ..Default::default()
    };
    // Not in order: it is ours that counts.
    vec![
        TimeSeries {
            labels: labels(3),
            samples: samples.collect(),
            ..Default::default()
        },
        TimeSeries {
            labels: labels(2),
            ..Default::default()
        },
        TimeSeries {
            labels: labels(1),
            histograms: vec![histogram],
            ..Default::default()
        },
    ]
}

fn response(results: Vec<Vec<TimeSeries>>) -> Vec<u8> {
    let results = results.into_iter().map(|timeseries| QueryResult { timeseries });
    let response = ReadResponse {
        results: results.collect(),
    };
    let body = snap::raw::Encoder::new()
        .compress_vec(&response.encode_to_vec())
        .unwrap();
    http(200, "application/x-protobuf", &body)
}

fn assert_sampled(series: &[Series]) {
    let number = |series: &Series| {
        let pairs: Vec<(&str, &str)> = series
            .labels
            .iter()
            .map(|label| (&*label.name, &*label.value))
            .collect();
        assert_eq!(&pairs[..2], [("__name__", "m"), ("cluster", "rig")]);
        pairs[2].1.to_owned()
    };
    assert_eq!(series.iter().map(number).collect::<Vec<_>>(), ["001", "003"]);
    let raw = |at: usize| series[at].chunks.iter().map(|chunk| chunk.raw.as_ref().unwrap());
    let [histogram] = &raw(0).collect::<Vec<_>>()[..] else {
        panic!("one chunk: {series:?}")
    };
    let read: Vec<_> = chunk::histogram::decode(&histogram.data, Kind::Integer)
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(
        (histogram.r#type, read.len(), read[0].sum, read[0].timestamp_ms),
        (1, 1, 2.5, 7000)
    );
    let sizes: Vec<usize> = raw(1).map(|chunk| xor::decode(&chunk.data).count()).collect();
    assert_eq!(sizes, [120, 10]);
    let floats: Vec<(i64, f64)> = raw(1)
        .flat_map(|chunk| xor::decode(&chunk.data))
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(
        floats,
        (0..130).map(|at| (1000 * at, 0.5 * at as f64)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn samples_become_chunks_and_histograms_are_kept() {
    let scene = scene::shared().await;
    scene.fake.answer("samples", |request| {
        let mut results: Vec<Vec<TimeSeries>> = vec![Vec::new(); request.queries.len()];
        *results.last_mut().unwrap() = sampled();
        vec![Step::Send(response(results))]
    });
    let outcome = scene.client().await.ask("samples").await;
    outcome.end.unwrap();
    assert_sampled(&outcome.series);
}

#[tokio::test]
async fn a_server_that_knows_one_query_only_is_asked_once_more() {
    let scene = scene::shared().await;
    scene.fake.answer("one query", |request| {
        // It looks at the first only: of several that is the one that finds next to nothing.
        let first = if request.queries.len() == 1 {
            sampled()
        } else {
            Vec::new()
        };
        vec![Step::Send(response(vec![first]))]
    });
    let outcome = scene.client().await.ask("one query").await;
    outcome.end.unwrap();
    assert_sampled(&outcome.series);
}

#[tokio::test]
async fn samples_that_cannot_be_read_are_an_error() {
    let scene = scene::shared().await;
    let client = scene.client().await;
    let nothing = || response(Vec::new());
    for (key, answer, text) in [
        ("no result", nothing(), "unexpected result size 0"),
        (
            "no snappy",
            http(200, "application/x-protobuf", b"\xff\xff\xff\xff\xff\xff"),
            "snappy",
        ),
        (
            "huge",
            // A length of nearly 4 GiB.
            http(200, "application/x-protobuf", b"\xf0\xff\xff\xff\x0f"),
            "no memory now",
        ),
        (
            "no message",
            http(
                200,
                "application/x-protobuf",
                &snap::raw::Encoder::new().compress_vec(b"\xff\xff").unwrap(),
            ),
            "protobuf",
        ),
    ] {
        scene.fake.answer(key, always(answer));
        let status = client.ask(key).await.failed(key);
        assert!(status.message().contains(text), "{key}: {status}");
    }
}
