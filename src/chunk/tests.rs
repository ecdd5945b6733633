//! Chunks held against Prometheus' own (`testdata/chunks`), and against damage.

use std::{path::Path, sync::LazyLock};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// What `testdata/chunks/generate.go` writes. Floats and chunks are in hexadecimal.
#[derive(Deserialize)]
pub(super) struct Vectors {
    floats: Vec<FloatVector>,
    pub(super) histograms: Vec<histogram::tests::Vector>,
}

#[derive(Deserialize)]
struct FloatVector {
    name: String,
    times: Vec<i64>,
    values: Vec<String>,
    xor: String,
    xor2: String,
    xor2_without_start: String,
}

pub(super) fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/chunks/vectors.json");
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

pub(super) fn float(hex: &str) -> f64 {
    f64::from_bits(u64::from_str_radix(hex, 16).unwrap())
}

/// Samples by their bits: NaN must equal itself.
pub(super) fn by_bits(samples: impl IntoIterator<Item = Result<(i64, f64), Error>>) -> Result<Vec<(i64, u64)>, Error> {
    let bits = |sample: Result<(i64, f64), Error>| sample.map(|(time, value)| (time, value.to_bits()));
    samples.into_iter().map(bits).collect()
}

#[test]
fn floats_are_as_prometheus_writes_them() {
    let vectors = vectors().floats;
    assert!(vectors.len() > 20);
    for vector in vectors {
        let name = &vector.name;
        let values = vector.values.iter().map(|hex| float(hex));
        let samples: Vec<(i64, f64)> = vector.times.iter().copied().zip(values).collect();
        let expected = by_bits(samples.iter().copied().map(Ok)).unwrap();
        let xor = bytes(&vector.xor);
        assert_eq!(encode_hex(&xor::encode(samples).unwrap()), vector.xor, "{name}");
        assert_eq!(by_bits(xor::decode(&xor)).as_ref(), Ok(&expected), "{name}");
        for xor2 in [bytes(&vector.xor2), bytes(&vector.xor2_without_start)] {
            assert_eq!(by_bits(xor2::decode(&xor2)).as_ref(), Ok(&expected), "{name}");
            assert_eq!(transcoded(&xor2).as_ref(), Ok(&xor), "{name}");
        }
    }
}

/// A chunk as XOR, bits to bits; it is appended to what is there.
fn transcoded(xor2: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = b"before".to_vec();
    xor2::transcode_into(xor2, &mut out)?;
    assert!(out.starts_with(b"before"));
    Ok(out.split_off(6))
}

/// A chunk as XOR, by reading its samples and writing them.
fn by_samples(xor2: &[u8]) -> Result<Vec<u8>, Error> {
    xor::encode(xor2::decode(xor2).collect::<Result<Vec<_>, _>>()?)
}

pub(super) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn cut_chunks_and_wrong_counts_are_errors() {
    type Read = fn(&[u8]) -> Result<Vec<(i64, u64)>, Error>;
    let reads: [(Read, usize); 2] = [
        (|data| by_bits(xor::decode(data)), 2),
        (|data| by_bits(xor2::decode(data)), 3),
    ];
    for vector in vectors().floats {
        for ((read, header), data) in reads.into_iter().zip([&vector.xor, &vector.xor2]) {
            let data = bytes(data);
            for length in 0..data.len() {
                let error = read(&data[..length]).unwrap_err();
                if header == 3 {
                    assert_eq!(transcoded(&data[..length]).as_ref(), Err(&error), "{}", vector.name);
                }
                match length < header {
                    true => assert_eq!(error, Error::NoHeader),
                    false => assert!(
                        matches!(error, Error::Cut { announced, .. } if usize::from(announced) == vector.times.len())
                    ),
                }
            }
            let more = [&data[..], &[0]].concat();
            assert_eq!(read(&more), read(&data), "a spare byte is no sample");
        }
    }
    let long = xor::encode((0..9).map(|n| (n, n as f64 * 0.1))).unwrap();
    let text = |count: u8| {
        let data = [&[0, count], &long[2..]].concat();
        by_bits(xor::decode(&data)).unwrap_err().to_string()
    };
    // The bits that fill up the last byte look like one more sample that is as the last.
    assert_eq!(text(20), "the chunk is cut: 10 of its 20 samples can be read");
}

#[test]
fn garbled_samples_are_errors() {
    let garbled = |data: &[u8]| match by_bits(xor::decode(data)) {
        Err(Error::Garbled { sample, what }) => (sample, what),
        other => panic!("{other:?}"),
    };
    let wide = [0xff; 11];
    assert_eq!(garbled(&[&[0, 1], &wide[..]].concat()), (0, xor::WIDE_TIME));
    let first = xor::encode([(0, 0.0)]).unwrap();
    assert_eq!(
        garbled(&[&[0, 2], &first[2..], &wide[..]].concat()),
        (1, xor::WIDE_TIME)
    );
    // A new window with 31 leading zeros and 63 bits.
    assert_eq!(
        garbled(&[&[0, 2], &first[2..], &[0, 0xff, 0xff, 0xff, 0xff]].concat()),
        (1, xor::BAD_WINDOW)
    );
}

#[test]
fn a_chunk_counts_in_sixteen_bits() {
    let samples = |count: i64| xor::encode((0..count).map(|n| (n, 1.0)));
    let most = samples(65_535).unwrap();
    assert_eq!(xor::decode(&most).count(), 65_535);
    assert_eq!(samples(65_536), Err(Error::TooManySamples));
}

#[test]
fn hashes_are_the_published_ones() {
    assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
    assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
}

#[test]
fn encodings_have_their_numbers() {
    let all: Vec<Encoding> = (-1..9).filter_map(Encoding::from_prometheus).collect();
    let row = |encoding: &Encoding| {
        (
            *encoding as i32,
            encoding.name(),
            encoding.storeapi(),
            encoding.plain() as i32,
            encoding.setting().is_some(),
        )
    };
    assert_eq!(
        all.iter().map(row).collect::<Vec<_>>(),
        [
            (1, "XOR", Some(0), 1, false),
            (2, "HISTOGRAM", Some(1), 2, false),
            (3, "FLOAT_HISTOGRAM", Some(2), 3, false),
            (4, "XOR2", None, 1, true),
            (5, "HISTOGRAM_ST", None, 2, true),
            (6, "FLOAT_HISTOGRAM_ST", None, 3, true),
        ]
    );
}

/// The XOR2 chunks of the vectors.
pub(super) static XOR2: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| vectors().floats.iter().map(|vector| bytes(&vector.xor2)).collect());

pub(super) fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0..9).prop_map(f64::from),
        Just(f64::from_bits(STALE_NAN))
    ]
}

pub(super) fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), 1_700_000_000_000_i64..1_700_000_100_000]
}

proptest! {
    #[test]
    fn floats_come_back(samples in prop::collection::vec((any_time(), any_float()), 0..150)) {
        let data = xor::encode(samples.iter().copied()).unwrap();
        prop_assert_eq!(by_bits(xor::decode(&data)), by_bits(samples.into_iter().map(Ok)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(count in 0_u8..200, mut data in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(first) = data.first_mut() {
            *first = 0;
        }
        if let Some(second) = data.get_mut(1) {
            *second = count;
        }
        let read = by_bits(xor::decode(&data));
        if let Ok(samples) = read {
            prop_assert_eq!(samples.len(), usize::from(count));
        }
        prop_assert_eq!(transcoded(&data), by_samples(&data));
    }

    /// Mostly zeros, as long runs of samples that are as the last, and what a flipped bit makes of good chunks.
    #[test]
    fn odd_chunks_are_transcoded_as_their_samples_are_read(
        header in prop_oneof![Just(0_u8), Just(0x80), any::<u8>()],
        count in 0_u8..=255,
        mut data in prop::collection::vec(prop_oneof![6 => Just(0_u8), 1 => Just(0xff), 3 => any::<u8>()], 0..120),
        vector in any::<prop::sample::Index>(),
        flipped in any::<prop::sample::Index>(),
    ) {
        data.splice(0..0, [0, count, header]);
        prop_assert_eq!(transcoded(&data), by_samples(&data));
        let mut data = vector.get(&XOR2).clone();
        let at = flipped.index(data.len() * 8);
        data[at / 8] ^= 0x80 >> (at % 8);
        prop_assert_eq!(transcoded(&data), by_samples(&data));
    }
}
