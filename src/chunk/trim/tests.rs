//! Chunks cut as Prometheus cuts them (`testdata/chunks`), by hand, by chance, and when they are damaged.

use proptest::prelude::*;

use super::{
    super::{
        STALE_NAN,
        bits::Writer,
        histogram::{Counts, Histogram, ResetHint, Span, tests::cut_vectors},
        tests::{XOR2, any_float, any_time, by_bits},
    },
    *,
};

fn cut(encoding: Encoding, data: &[u8], from: i64, to: i64) -> Option<Trimmed> {
    trim(encoding, data, from..=to).unwrap()
}

/// A float chunk of samples (Unix milliseconds, value).
fn floats(samples: &[(i64, f64)]) -> Vec<u8> {
    xor::encode(samples.iter().copied()).unwrap()
}

#[test]
fn both_ends_of_the_range_are_inside() {
    let samples = [
        (10, 1.5),
        (20, f64::from_bits(STALE_NAN)),
        (30, 1.5),
        (45, -0.0),
        (60, 7.0),
    ];
    let data = floats(&samples);
    for (from, to, kept) in [
        (20, 45, 1..4),
        (19, 46, 1..4),
        (21, 44, 2..3),
        (i64::MIN, 30, 0..3),
        (30, i64::MAX, 2..5),
        (20, 20, 1..2),
        (i64::MIN, i64::MAX, 0..5),
    ] {
        let expected = Trimmed {
            min_time_ms: samples[kept.start].0,
            max_time_ms: samples[kept.end - 1].0,
            encoding: Encoding::Xor,
            data: floats(&samples[kept]),
        };
        assert_eq!(cut(Encoding::Xor, &data, from, to), Some(expected), "{from} to {to}");
    }
    for (from, to) in [(21, 29), (0, 9), (61, 70), (45, 30)] {
        assert_eq!(cut(Encoding::Xor, &data, from, to), None, "{from} to {to}");
    }
}

#[test]
fn one_float_is_written_whole() {
    // One sample; the time 30 with its sign in the lowest bit; the bits of 2.0.
    let one = [&[0, 1, 60], &2.0_f64.to_bits().to_be_bytes()[..]].concat();
    let data = floats(&[(10, 1.0), (30, 2.0), (50, 3.0)]);
    assert_eq!(cut(Encoding::Xor, &data, 20, 40).unwrap().data, one);
}

#[test]
fn histograms_are_cut_as_prometheus_cuts_them() {
    let vectors = cut_vectors();
    assert!(vectors.len() > 100);
    for vector in vectors {
        let name = format!("{}: {} to {}", vector.name, vector.from, vector.to);
        let (plain, with_starts) = match vector.float {
            false => (Encoding::Histogram, Encoding::HistogramSt),
            true => (Encoding::FloatHistogram, Encoding::FloatHistogramSt),
        };
        let expected = Some(Trimmed {
            min_time_ms: vector.from,
            max_time_ms: vector.to,
            encoding: plain,
            data: vector.data,
        });
        assert_eq!(cut(plain, &vector.chunk, vector.from, vector.to), expected, "{name}");
        let ours = cut(with_starts, &vector.chunk_with_start, vector.from, vector.to);
        assert_eq!(ours, expected, "{name}");
        assert_eq!(
            cut(plain, &vector.chunk, vector.to + 1, vector.from - 1),
            None,
            "{name}"
        );
    }
}

/// A histogram without zero bucket, with so many observations in each of two buckets.
fn histogram(timestamp_ms: i64, hint: ResetHint, observations: u64) -> Histogram {
    Histogram {
        timestamp_ms,
        hint,
        schema: 3,
        zero_threshold: 0.0,
        sum: 0.5,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        negative_spans: Vec::new(),
        custom_values: Vec::new(),
        counts: Counts::Integer {
            count: 2 * observations,
            zero: 0,
            positive: vec![observations as i64, 0],
            negative: Vec::new(),
        },
    }
}

/// The mark of a series' end.
fn end(timestamp_ms: i64, hint: ResetHint) -> Histogram {
    Histogram {
        sum: f64::from_bits(STALE_NAN),
        ..histogram(timestamp_ms, hint, 0)
    }
}

/// The only chunk of these histograms.
fn one_chunk(histograms: &[Histogram]) -> Vec<u8> {
    let mut chunks = histogram::encode(histograms.iter().cloned()).unwrap();
    assert_eq!(chunks.len(), 1);
    chunks.remove(0).data
}

/// The header's bits about counter resets of what is left, and how many samples that has.
fn left(data: &[u8], from: i64, to: i64) -> (u8, u8) {
    let data = cut(Encoding::Histogram, data, from, to).unwrap().data;
    (data[2] >> 6, data[1])
}

#[test]
fn only_gauges_are_known_for_what_they_are() {
    let counters = |hint| {
        [
            histogram(10, hint, 1),
            histogram(20, ResetHint::Unknown, 2),
            histogram(30, ResetHint::Unknown, 3),
        ]
    };
    let mut data = one_chunk(&counters(ResetHint::Reset));
    for header in [0b10, 0b01, 0b00] {
        data[2] = header << 6;
        assert_eq!(left(&data, 0, 20), (0b00, 2));
        assert_eq!(left(&data, 20, 30), (0b00, 2));
    }
    data[2] = 0b11 << 6;
    assert_eq!(left(&data, 0, 20), (0b11, 2));
    assert_eq!(left(&data, 20, 30), (0b11, 2));
    assert_eq!(left(&data, 20, 20), (0b11, 1));
}

#[test]
fn the_end_of_a_series_stays() {
    let unknown = ResetHint::Unknown;
    let data = one_chunk(&[histogram(10, unknown, 1), end(20, unknown), end(30, unknown)]);
    let kept = cut(Encoding::Histogram, &data, 10, 20).unwrap().data;
    assert_eq!(kept, one_chunk(&[histogram(10, unknown, 1), end(20, unknown)]));
    // Where it comes first it has no buckets.
    let kept = cut(Encoding::Histogram, &data, 20, 30).unwrap().data;
    assert_eq!(kept, one_chunk(&[end(20, unknown), end(30, unknown)]));
    let mut gauges = data;
    gauges[2] = 0b11 << 6;
    assert_eq!(left(&gauges, 10, 20), (0b11, 2));
    assert_eq!(left(&gauges, 20, 30), (0b00, 2));
}

#[test]
fn nothing_can_be_written_behind_the_end_of_a_series() {
    let mut writer = Writer::new(vec![0, 2, 0]);
    for (bits, width) in [
        // No zero bucket, schema 0, no spans.
        (0, 8 + 3),
        // At 10, no observations, the end.
        (0b110_001010, 9),
        (0, 2),
        (STALE_NAN, 64),
        // At 20, no observations, infinite: in the last 33 bits, the lowest but one is another.
        (0b110_001010, 9),
        (0, 2),
        (0b11, 2),
        (31, 5),
        (32, 6),
        (1, 32),
    ] {
        writer.bits(bits, width);
    }
    let data = writer.into_bytes();
    let read: Result<Vec<_>, _> = histogram::decode(&data, Kind::Integer)
        .map(|sample| sample.map(|sample| (sample.timestamp_ms, sample.sum.to_bits())))
        .collect();
    assert_eq!(read, Ok(vec![(10, STALE_NAN), (20, f64::INFINITY.to_bits())]));
    let refused = trim(Encoding::Histogram, &data, 10..=20);
    assert!(matches!(refused, Err(Error::Garbled { sample: 1, .. })), "{refused:?}");
    assert_eq!(left(&data, 10, 19), (0b00, 1));
    assert_eq!(left(&data, 11, 20), (0b00, 1));
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    let float = floats(&[(10, 1.0), (20, 2.5), (30, 3.0)]);
    let histogram = one_chunk(&[
        histogram(10, ResetHint::Unknown, 1),
        histogram(20, ResetHint::Unknown, 200),
        histogram(30, ResetHint::Unknown, 300),
    ]);
    for (encoding, data, header) in [(Encoding::Xor, float, 2), (Encoding::Histogram, histogram, 3)] {
        for length in 0..data.len() {
            // The range has only the first sample.
            match trim(encoding, &data[..length], 10..=10).unwrap_err() {
                Error::NoHeader => assert!(length < header),
                Error::Cut { announced, .. } => assert_eq!(announced, 3),
                other => panic!("{other}"),
            }
        }
        assert!(trim(encoding, &data, 10..=10).is_ok());
    }
}

/// Samples of a chunk in a range, by their bits.
fn inside(
    samples: impl Iterator<Item = Result<(i64, f64), Error>>,
    range: &RangeInclusive<i64>,
) -> Result<Vec<(i64, u64)>, Error> {
    let samples = by_bits(samples)?;
    Ok(samples.into_iter().filter(|(time, _)| range.contains(time)).collect())
}

proptest! {
    #[test]
    fn floats_inside_stay_and_no_others(
        samples in prop::collection::vec((any_time(), any_float()), 0..150),
        from in any_time(),
        to in any_time(),
    ) {
        let range = from..=to;
        let expected: Vec<_> = samples.iter().copied().filter(|(time, _)| range.contains(time)).collect();
        let trimmed = trim(Encoding::Xor, &floats(&samples), range).unwrap();
        prop_assert_eq!(trimmed.is_none(), expected.is_empty());
        if let Some(trimmed) = trimmed {
            prop_assert_eq!(trimmed.min_time_ms, expected[0].0);
            prop_assert_eq!(trimmed.max_time_ms, expected[expected.len() - 1].0);
            prop_assert_eq!(trimmed.data, floats(&expected));
        }
    }

    #[test]
    fn newer_floats_are_cut_as_plain_ones(vector in any::<prop::sample::Index>(), from in any_time(), to in any_time()) {
        let data = vector.get(&XOR2);
        let range = from..=to;
        let expected = inside(xor2::decode(data), &range).unwrap();
        let trimmed = trim(Encoding::Xor2, data, range).unwrap();
        let read = trimmed.map_or(Ok(Vec::new()), |trimmed| by_bits(xor::decode(&trimmed.data)));
        prop_assert_eq!(read, Ok(expected));
    }

    #[test]
    fn histograms_inside_stay_and_no_others(
        samples in prop::collection::vec((0_i64..100, 0_u64..1000), 1..30),
        gauge in any::<bool>(),
        from in -10_i64..1000,
        length in 0_i64..1000,
    ) {
        let hint = if gauge { ResetHint::Gauge } else { ResetHint::Unknown };
        let (mut time, mut observations) = (0, 0);
        let grown: Vec<Histogram> = samples.into_iter().map(|(pause, more)| {
            (time, observations) = (time + pause, observations + more);
            histogram(time, hint, observations)
        }).collect();
        let range = from..=from + length;
        let expected: Vec<_> = grown.iter().filter(|one| range.contains(&one.timestamp_ms)).cloned().collect();
        let trimmed = trim(Encoding::Histogram, &one_chunk(&grown), range).unwrap();
        match trimmed {
            Some(trimmed) => prop_assert_eq!(trimmed.data, one_chunk(&expected)),
            None => prop_assert!(expected.is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_cut_or_refused(
        number in 1_i32..7,
        count in 0_u8..200,
        mut data in prop::collection::vec(prop_oneof![6 => Just(0_u8), 1 => Just(0xff), 3 => any::<u8>()], 0..300),
        from in any_time(),
        to in any_time(),
    ) {
        data.splice(0..0, [0, count]);
        let encoding = Encoding::from_prometheus(number).unwrap();
        for range in [from..=to, i64::MIN..=i64::MAX] {
            if let Ok(Some(trimmed)) = trim(encoding, &data, range) {
                prop_assert_eq!(trimmed.encoding, encoding.plain());
                let again = trim(trimmed.encoding, &trimmed.data, i64::MIN..=i64::MAX);
                prop_assert_eq!(again, Ok(Some(trimmed)));
            }
        }
    }
}
