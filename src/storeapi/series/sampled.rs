//! Converts the samples of servers that cannot stream chunks into chunks. Pure.
//!
//! A chunk has at most 120 samples. Native histograms are kept, which Thanos drops.

use tonic::Status;

use super::{
    answer::{Answer, Failed, Plan},
    convert::Convert,
    encode::{OutChunk, OutSeries},
};
use crate::{
    chunk::{
        self, Encoding, SAMPLES_PER_CHUNK,
        histogram::{Counts, Histogram, ResetHint, Span},
        xor,
    },
    model::LabelBytes,
    pb::prometheus::{self as pb, TimeSeries, histogram},
    prometheus::remote_read::samples::{Sampled, SampledError},
    storeapi::budget::Reservation,
};

/// Decompresses a response, converts and sorts it; also returns how many results there were. It may take long.
/// `read` is the memory that the answer takes until then.
///
/// # Errors
/// An answer that cannot be read; a limit; no memory.
pub(super) fn answer(samples: Sampled, plan: Plan, read: Reservation) -> Result<(usize, Answer), Failed> {
    let (convert, mut making) = (&mut plan.convert.clone(), plan.reservation.sibling());
    let (mut answer, mut before) = (Answer::collecting(plan), 0);
    let room = |bytes| {
        // Of one series at a time.
        making.release(std::mem::replace(&mut before, bytes));
        making.reserve(bytes)
    };
    let results = samples.each(room, |stored| {
        if let Some(series) = series(stored, convert)? {
            answer.collect(series)?;
        }
        Ok::<(), Failed>(())
    })?;
    drop(read);
    answer.finish();
    Ok((results, answer))
}

impl From<SampledError> for Failed {
    fn from(error: SampledError) -> Self {
        let text = error.to_string();
        Self::Status(match error {
            SampledError::NoMemory(_) => Status::resource_exhausted(text),
            _ => Status::internal(text),
        })
    }
}

/// The series to be sent; `None` if it holds no sample, or belongs to another shard.
///
/// # Errors
/// `Unknown`: a histogram that no chunk can hold.
pub(super) fn series(series: TimeSeries, convert: &mut Convert) -> Result<Option<OutSeries>, Status> {
    if series.samples.is_empty() && series.histograms.is_empty() {
        return Ok(None);
    }
    let pairs = series
        .labels
        .iter()
        .map(|label| (label.name.as_bytes(), label.value.as_bytes()));
    let Some(labels) = convert.labels(&LabelBytes::from_pairs(pairs)) else {
        return Ok(None);
    };
    let unwritable =
        |error: chunk::Error| Status::unknown(format!("a sampled answer cannot be sent as chunks: {error}"));
    let mut chunks = Vec::new();
    for samples in series.samples.chunks(SAMPLES_PER_CHUNK) {
        let data = xor::encode(samples.iter().map(|sample| (sample.timestamp, sample.value))).map_err(unwritable)?;
        let time = |sample: Option<&pb::Sample>| sample.map_or(0, |sample| sample.timestamp);
        chunks.push(made(Encoding::Xor, time(samples.first()), time(samples.last()), data));
    }
    let histograms = series.histograms.into_iter().map(read);
    for written in chunk::histogram::encode(histograms).map_err(unwritable)? {
        chunks.push(made(
            written.encoding,
            written.min_time_ms,
            written.max_time_ms,
            written.data,
        ));
    }
    chunks.sort_by_key(|chunk| chunk.min_ms);
    Ok(Some(OutSeries::new(labels, chunks)))
}

fn made(encoding: Encoding, min_ms: i64, max_ms: i64, data: Vec<u8>) -> OutChunk {
    OutChunk {
        min_ms,
        max_ms,
        encoding: encoding.storeapi().unwrap_or_default(),
        hash: chunk::hash(&data),
        data: data.into(),
    }
}

fn read(histogram: pb::Histogram) -> Histogram {
    let hint = match histogram.reset_hint {
        1 => ResetHint::Reset,
        2 => ResetHint::NoReset,
        3 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    let counts = match histogram.count {
        Some(histogram::Count::CountFloat(count)) => Counts::Float {
            count,
            zero: match histogram.zero_count {
                Some(histogram::ZeroCount::ZeroCountFloat(zero)) => zero,
                _ => 0.0,
            },
            positive: histogram.positive_counts,
            negative: histogram.negative_counts,
        },
        count => Counts::Integer {
            count: match count {
                Some(histogram::Count::CountInt(count)) => count,
                _ => 0,
            },
            zero: match histogram.zero_count {
                Some(histogram::ZeroCount::ZeroCountInt(zero)) => zero,
                _ => 0,
            },
            positive: histogram.positive_deltas,
            negative: histogram.negative_deltas,
        },
    };
    Histogram {
        timestamp_ms: histogram.timestamp,
        hint,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        sum: histogram.sum,
        positive_spans: spans(histogram.positive_spans),
        negative_spans: spans(histogram.negative_spans),
        custom_values: histogram.custom_values,
        counts,
    }
}

fn spans(spans: Vec<pb::BucketSpan>) -> Vec<Span> {
    let span = |span: pb::BucketSpan| Span {
        offset: span.offset,
        length: span.length,
    };
    spans.into_iter().map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Labels,
        storeapi::series::{order::Labelled, relabel::Relabel},
    };

    fn convert() -> Convert {
        Convert::new(Relabel::new(&Labels::from_pairs([("cluster", "eu")]), &[]), None)
    }

    fn up(samples: i64) -> TimeSeries {
        let label = |name: &str, value: &str| pb::Label {
            name: name.into(),
            value: value.into(),
        };
        TimeSeries {
            labels: vec![label("job", "node"), label("__name__", "up")],
            samples: (0..samples)
                .map(|at| pb::Sample {
                    value: at as f64,
                    timestamp: 1000 * at,
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn samples_are_cut_into_chunks_of_120() {
        let sent = series(up(250), &mut convert()).unwrap().unwrap();
        let wanted = LabelBytes::from_sorted([(&b"__name__"[..], &b"up"[..]), (b"cluster", b"eu"), (b"job", b"node")]);
        assert_eq!(sent.labels(), &wanted);
        let times: Vec<_> = sent
            .chunks()
            .iter()
            .map(|chunk| (chunk.encoding, chunk.min_ms, chunk.max_ms))
            .collect();
        assert_eq!(times, [(0, 0, 119_000), (0, 120_000, 239_000), (0, 240_000, 249_000)]);
        let samples = sent.chunks().iter().flat_map(|chunk| xor::decode(&chunk.data));
        let samples: Vec<(i64, f64)> = samples.collect::<Result<_, _>>().unwrap();
        assert_eq!(samples, (0..250).map(|at| (1000 * at, at as f64)).collect::<Vec<_>>());
    }

    #[test]
    fn a_series_of_histograms_alone_is_kept_and_one_without_samples_is_not() {
        assert_eq!(series(up(0), &mut convert()).unwrap(), None);
        let histogram = pb::Histogram {
            count: Some(histogram::Count::CountInt(3)),
            zero_count: Some(histogram::ZeroCount::ZeroCountInt(1)),
            sum: 2.5,
            schema: 0,
            zero_threshold: 0.001,
            positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
            positive_deltas: vec![1, 0],
            timestamp: 7000,
            ..Default::default()
        };
        let only = TimeSeries {
            histograms: vec![histogram],
            ..up(0)
        };
        let sent = series(only, &mut convert()).unwrap().unwrap();
        let [chunk] = sent.chunks() else { panic!("{sent:?}") };
        assert_eq!((chunk.encoding, chunk.min_ms, chunk.max_ms), (1, 7000, 7000));
        let read: Vec<Histogram> = chunk::histogram::decode(&chunk.data, chunk::histogram::Kind::Integer)
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!((read.len(), read[0].sum, read[0].timestamp_ms), (1, 2.5, 7000));
    }

    #[test]
    fn a_histogram_that_no_chunk_can_hold_is_an_error() {
        let bad = pb::Histogram {
            positive_deltas: vec![1],
            ..Default::default()
        };
        let only = TimeSeries {
            histograms: vec![bad],
            ..up(0)
        };
        let error = series(only, &mut convert()).unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unknown);
    }
}
