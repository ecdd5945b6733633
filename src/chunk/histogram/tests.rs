//! Histograms held against Prometheus' own chunks (`testdata/chunks`), and against damage.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        STALE_NAN, for_storeapi,
        tests::{bytes, encode_hex, float, vectors},
    },
    *,
};

#[derive(Deserialize)]
pub(in crate::chunk) struct Vector {
    name: String,
    float: bool,
    recoded: bool,
    samples: Vec<Sample>,
    chunks: Vec<String>,
    chunks_with_start: Vec<String>,
    cuts: Vec<Cut>,
}

/// What a query gets of a chunk that crosses its limits.
#[derive(Deserialize)]
struct Cut {
    chunk: usize,
    from: i64,
    to: i64,
    data: String,
}

/// A chunk, and what Prometheus makes of it for a range (Unix milliseconds).
pub(in crate::chunk) struct CutVector {
    pub(in crate::chunk) name: String,
    pub(in crate::chunk) float: bool,
    pub(in crate::chunk) chunk: Vec<u8>,
    pub(in crate::chunk) chunk_with_start: Vec<u8>,
    pub(in crate::chunk) from: i64,
    pub(in crate::chunk) to: i64,
    pub(in crate::chunk) data: Vec<u8>,
}

pub(in crate::chunk) fn cut_vectors() -> Vec<CutVector> {
    let of = |vector: &Vector| -> Vec<CutVector> {
        let cut = |cut: &Cut| CutVector {
            name: vector.name.clone(),
            float: vector.float,
            chunk: bytes(&vector.chunks[cut.chunk]),
            chunk_with_start: bytes(&vector.chunks_with_start[cut.chunk]),
            from: cut.from,
            to: cut.to,
            data: bytes(&cut.data),
        };
        vector.cuts.iter().map(cut).collect()
    };
    vectors().histograms.iter().flat_map(of).collect()
}

#[derive(Deserialize)]
struct Sample {
    t: i64,
    hint: u8,
    /// None if it is that of the sample before.
    layout: Option<Layout>,
    sum: String,
    count: Value,
    zero: Value,
    positive: Vec<Value>,
    negative: Vec<Value>,
}

#[derive(Deserialize)]
struct Layout {
    schema: i32,
    zero_threshold: String,
    positive_spans: Vec<(i32, u32)>,
    negative_spans: Vec<(i32, u32)>,
    custom_values: Vec<String>,
}

impl Sample {
    fn histogram(&self, layout: &Layout, float_kind: bool) -> Histogram {
        let spans = |spans: &[(i32, u32)]| spans.iter().map(|&(offset, length)| Span { offset, length }).collect();
        let bits = |value: &Value| float(value.as_str().unwrap());
        let integer = |value: &Value| value.as_i64().unwrap();
        Histogram {
            timestamp_ms: self.t,
            hint: [
                ResetHint::Unknown,
                ResetHint::Reset,
                ResetHint::NoReset,
                ResetHint::Gauge,
            ][usize::from(self.hint)],
            schema: layout.schema,
            zero_threshold: float(&layout.zero_threshold),
            sum: float(&self.sum),
            positive_spans: spans(&layout.positive_spans),
            negative_spans: spans(&layout.negative_spans),
            custom_values: layout.custom_values.iter().map(|hex| float(hex)).collect(),
            counts: if float_kind {
                Counts::Float {
                    count: bits(&self.count),
                    zero: bits(&self.zero),
                    positive: self.positive.iter().map(bits).collect(),
                    negative: self.negative.iter().map(bits).collect(),
                }
            } else {
                Counts::Integer {
                    count: self.count.as_u64().unwrap(),
                    zero: self.zero.as_u64().unwrap(),
                    positive: self.positive.iter().map(integer).collect(),
                    negative: self.negative.iter().map(integer).collect(),
                }
            },
        }
    }
}

impl Vector {
    fn kind(&self) -> Kind {
        if self.float { Kind::Float } else { Kind::Integer }
    }

    fn histograms<'a>(&'a self) -> Vec<Histogram> {
        let mut layout = None;
        let histogram = |sample: &'a Sample| {
            layout = sample.layout.as_ref().or(layout);
            sample.histogram(layout.unwrap(), self.float)
        };
        self.samples.iter().map(histogram).collect()
    }
}

/// A sample without what a chunk need not keep, and by its bits: NaN must equal itself.
fn essence(mut histogram: Histogram) -> String {
    histogram.hint = ResetHint::Unknown;
    // By the buckets' numbers and places, whatever their spans; and without empty ones, which rewriting adds.
    let numbers = |spans: &[Span], values: Vec<f64>| {
        let placed = buckets::indexes(spans).zip(values);
        placed
            .filter(|(_, value)| *value != 0.0)
            .map(|(at, value)| (at, value.to_bits()))
            .collect::<Vec<_>>()
    };
    let sums = |deltas: &[i64]| {
        let sum = |sum: &mut i64, delta: &i64| {
            *sum += delta;
            Some(*sum as f64)
        };
        deltas.iter().scan(0, sum).collect::<Vec<f64>>()
    };
    let (count, zero, positive, negative) = match &histogram.counts {
        Counts::Integer {
            count,
            zero,
            positive,
            negative,
        } => (*count as f64, *zero as f64, sums(positive), sums(negative)),
        Counts::Float {
            count,
            zero,
            positive,
            negative,
        } => (*count, *zero, positive.clone(), negative.clone()),
    };
    format!(
        "{} {} {:x} {:x} {} {} {:?} {:?} {:?}",
        histogram.timestamp_ms,
        histogram.schema,
        histogram.zero_threshold.to_bits(),
        histogram.sum.to_bits(),
        count,
        zero,
        histogram.custom_values,
        numbers(&histogram.positive_spans, positive),
        numbers(&histogram.negative_spans, negative),
    )
}

fn essences(chunks: impl IntoIterator<Item = Vec<u8>>, kind: Kind) -> Vec<String> {
    let read = |data: Vec<u8>| decode(&data, kind).map(Result::unwrap).map(essence).collect::<Vec<_>>();
    chunks.into_iter().flat_map(read).collect()
}

#[test]
fn histograms_are_as_prometheus_writes_them() {
    let vectors = vectors().histograms;
    assert!(vectors.len() > 40);
    for vector in vectors {
        let name = format!("{}, {:?}", vector.name, vector.kind());
        let histograms = vector.histograms();
        let written = encode(histograms.clone()).unwrap();
        let expected: Vec<String> = histograms.into_iter().map(essence).collect();
        let theirs = vector.chunks.iter().map(|hex| bytes(hex));
        assert_eq!(essences(theirs, vector.kind()), expected, "{name}");
        let ours = written.iter().map(|chunk| chunk.data.clone());
        assert_eq!(essences(ours, vector.kind()), expected, "{name}");
        if !vector.recoded {
            let ours: Vec<String> = written.iter().map(|chunk| encode_hex(&chunk.data)).collect();
            assert_eq!(ours, vector.chunks, "{name}");
        }
    }
}

#[test]
fn start_timestamps_are_taken_out() {
    for vector in vectors().histograms {
        let (number, storeapi) = if vector.float { (6, 2) } else { (5, 1) };
        let transcode = |hex: &String| {
            let (encoding, data) = for_storeapi(number, &bytes(hex)).unwrap();
            assert_eq!(encoding, storeapi);
            encode_hex(&data.unwrap())
        };
        let ours: Vec<String> = vector.chunks_with_start.iter().map(transcode).collect();
        assert_eq!(ours, vector.chunks, "{}", vector.name);
    }
}

#[test]
fn cut_chunks_and_wrong_counts_are_errors() {
    for vector in vectors().histograms {
        let kind = vector.kind();
        let read = |data: &[u8]| {
            decode(data, kind)
                .collect::<Result<Vec<_>, _>>()
                .map(|samples| samples.len())
        };
        for chunk in vector.chunks.iter().take(1) {
            let data = bytes(chunk);
            let announced = u16::from_be_bytes([data[0], data[1]]);
            assert_eq!(read(&data), Ok(announced.into()));
            for length in 0..data.len() {
                match read(&data[..length]).unwrap_err() {
                    Error::NoHeader => assert!(length < 3),
                    Error::Cut { .. } => {}
                    other => panic!("{}: {other}", vector.name),
                }
            }
            assert_eq!(
                read(&[&data[..], &[0]].concat()),
                Ok(announced.into()),
                "a spare byte is no sample"
            );
        }
    }
}

#[test]
fn a_layout_makes_nobody_allocate() {
    // Threshold 0, schema 0, one span of 2^32 - 1 buckets, no negative one.
    let mut writer = super::super::bits::Writer::new(vec![0, 1, 0]);
    let spans = vec![Span {
        offset: 0,
        length: u32::MAX,
    }];
    let layout = layout::Layout {
        positive: spans,
        ..layout::Layout::default()
    };
    layout.write(&mut writer);
    writer.bits(0, 64);
    let data = writer.into_bytes();
    for kind in [Kind::Integer, Kind::Float] {
        let cut = Error::Cut { read: 0, announced: 1 };
        assert_eq!(decode(&data, kind).next(), Some(Err(cut)));
    }
}

#[test]
fn buckets_must_be_as_many_as_spans_say() {
    let histogram = any_histogram(0, ResetHint::Unknown, 0.0, &[1, 2], &[]);
    let wrong = Histogram {
        positive_spans: vec![Span { offset: 0, length: 3 }],
        ..histogram
    };
    let error = encode([wrong.clone()]).unwrap_err().to_string();
    assert_eq!(error, "the histogram at 0 has 2 buckets, its spans cover 3");
    // At the end of a series they do not count.
    let stale = Histogram {
        sum: f64::from_bits(STALE_NAN),
        ..wrong
    };
    assert_eq!(encode([stale]).unwrap().len(), 1);
}

#[test]
fn chunks_say_what_they_hold() {
    let counter = |time, first| any_histogram(time, ResetHint::Unknown, 1.0, &[first], &[]);
    let mut float = counter(30, 0);
    float.counts = Counts::Float {
        count: 1.0,
        zero: 0.0,
        positive: vec![1.0],
        negative: vec![],
    };
    let gauge = any_histogram(40, ResetHint::Gauge, 1.0, &[1], &[]);
    let back = counter(50, 1);
    let chunks = encode([counter(0, 5), counter(10, 6), counter(20, 2), float, gauge, back]).unwrap();
    let row = |chunk: &Chunk| {
        (
            chunk.encoding.name(),
            chunk.min_time_ms,
            chunk.max_time_ms,
            chunk.data[1],
            chunk.data[2] >> 6,
        )
    };
    assert_eq!(
        chunks.iter().map(row).collect::<Vec<_>>(),
        [
            ("HISTOGRAM", 0, 10, 2, 0b00),
            ("HISTOGRAM", 20, 20, 1, 0b10),
            ("FLOAT_HISTOGRAM", 30, 30, 1, 0b00),
            ("HISTOGRAM", 40, 40, 1, 0b11),
            // Prometheus claims that there was no reset between a gauge and a counter, which nobody can know.
            ("HISTOGRAM", 50, 50, 1, 0b00),
        ]
    );
}

/// A histogram of integers with these differences of buckets, from index 0 on.
fn any_histogram(time: i64, hint: ResetHint, sum: f64, positive: &[i64], negative: &[i64]) -> Histogram {
    let spans = |side: &[i64]| {
        vec![Span {
            offset: 0,
            length: side.len() as u32,
        }]
    };
    Histogram {
        timestamp_ms: time,
        hint,
        schema: 0,
        zero_threshold: 0.0,
        sum,
        positive_spans: spans(positive),
        negative_spans: spans(negative),
        custom_values: Vec::new(),
        counts: Counts::Integer {
            count: 7,
            zero: 0,
            positive: positive.to_vec(),
            negative: negative.to_vec(),
        },
    }
}

proptest! {
    #[test]
    fn histograms_come_back(
        samples in prop::collection::vec(
            (any::<i64>(), 0_usize..4, any::<f64>(), prop::collection::vec(-9_i64..9, 0..4), prop::collection::vec(-9_i64..9, 0..2)),
            0..20,
        )
    ) {
        let hints = [ResetHint::Unknown, ResetHint::Reset, ResetHint::NoReset, ResetHint::Gauge];
        let histogram = |(time, hint, sum, positive, negative): (_, usize, _, Vec<i64>, Vec<i64>)| {
            any_histogram(time, hints[hint], sum, &positive, &negative)
        };
        let histograms: Vec<Histogram> = samples.into_iter().map(histogram).collect();
        let chunks = encode(histograms.clone()).unwrap();
        let read = essences(chunks.into_iter().map(|chunk| chunk.data), Kind::Integer);
        prop_assert_eq!(read, histograms.into_iter().map(essence).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_read_or_refused(count in 0_u8..200, mut data in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(first) = data.first_mut() {
            *first &= 0xc0;
        }
        if let Some(second) = data.get_mut(1) {
            *second = count;
        }
        for kind in [Kind::Integer, Kind::Float] {
            let mut transcoded = Vec::new();
            if transcode_into(&data, kind, &mut transcoded).is_ok() {
                prop_assert!(decode(&transcoded, kind).all(|sample| sample.is_ok()));
            }
            prop_assert!(decode(&data, kind).count() <= usize::from(u16::MAX));
        }
    }
}
