//! A sampled response, from servers that cannot stream: one message, decoded series by series, so that it is never in
//! memory a second time in decoded form.

use bytes::{Buf as _, Bytes};
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::pb::prometheus::{Exemplar, Histogram, Label, Sample, TimeSeries};

/// An answer as it came: compressed.
#[derive(Debug)]
pub struct Sampled {
    pub(super) compressed: Vec<u8>,
}

/// A sampled answer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SampledError {
    /// It is no snappy.
    #[error("the sampled answer cannot be read: snappy: {0}")]
    Snappy(#[from] snap::Error),
    /// It is no such message.
    #[error("the sampled answer cannot be read: protobuf: {0}")]
    Protobuf(#[from] DecodeError),
    /// It ends early.
    #[error("the sampled answer cannot be read: protobuf: a field is longer than what holds it")]
    Cut,
    /// A series would take more memory than there is.
    #[error("no memory now for a series of the sampled answer that needs {0} bytes: select less, or a shorter time")]
    NoMemory(usize),
}

impl Sampled {
    /// Hands over the series of all results, one by one, and returns how many results there were. Takes as long as the answer
    /// is large: call it where blocking is allowed. The memory of each series is requested of `reserve` before it is made,
    /// in bytes, and is the caller's business afterwards.
    ///
    /// # Errors
    /// See [`SampledError`], and whatever `accept` gives.
    pub fn each<E: From<SampledError>>(
        self,
        mut reserve: impl FnMut(usize) -> bool,
        mut accept: impl FnMut(TimeSeries) -> Result<(), E>,
    ) -> Result<usize, E> {
        let plain = snap::raw::Decoder::new()
            .decompress_vec(&self.compressed)
            .map_err(SampledError::from)?;
        drop(self.compressed);
        let (mut answer, mut results) = (Bytes::from(plain), 0);
        while let Some(mut result) = next_field(&mut answer, 1)? {
            results += 1;
            while let Some(series) = next_field(&mut result, 1)? {
                let needs = needs(series.clone())?;
                if !reserve(needs) {
                    return Err(SampledError::NoMemory(needs).into());
                }
                accept(TimeSeries::decode(series).map_err(SampledError::from)?)?;
            }
        }
        Ok(results)
    }
}

/// The next field of this number that has a length; others are passed over.
fn next_field(message: &mut Bytes, number: u32) -> Result<Option<Bytes>, SampledError> {
    while message.has_remaining() {
        let (tag, wire) = decode_key(message)?;
        if (tag, wire) != (number, WireType::LengthDelimited) {
            skip_field(wire, tag, message, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(message)?;
        return match usize::try_from(length) {
            Ok(length) if length <= message.len() => Ok(Some(message.split_to(length))),
            _ => Err(SampledError::Cut),
        };
    }
    Ok(None)
}

/// What a series takes in memory, in bytes, at most.
fn needs(mut series: Bytes) -> Result<usize, SampledError> {
    let mut needs = size_of::<TimeSeries>();
    while series.has_remaining() {
        let (tag, wire) = decode_key(&mut series)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, tag, &mut series, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut series)?).unwrap_or(usize::MAX);
        if length > series.len() {
            return Err(SampledError::Cut);
        }
        needs += match tag {
            1 => size_of::<Label>() + length,
            2 => size_of::<Sample>(),
            // An empty label takes two bytes there.
            3 => size_of::<Exemplar>() + size_of::<Label>() * length,
            // Packed numbers may take a byte there, and eight here.
            4 => size_of::<Histogram>() + 8 * length,
            _ => 0,
        };
        series.advance(length);
    }
    // Lists grow by doubling.
    Ok(2 * needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::prometheus::{QueryResult, ReadResponse};

    fn sampled(plain: &[u8]) -> Sampled {
        let compressed = snap::raw::Encoder::new().compress_vec(plain).unwrap();
        Sampled { compressed }
    }

    fn series(value: &str) -> TimeSeries {
        TimeSeries {
            labels: vec![Label {
                name: "a".to_owned(),
                value: value.to_owned(),
            }],
            samples: vec![
                Sample {
                    value: 1.0,
                    timestamp: 2
                };
                3
            ],
            ..TimeSeries::default()
        }
    }

    #[test]
    fn series_of_all_results_come_in_order() {
        let result = |names: &[&str]| QueryResult {
            timeseries: names.iter().map(|name| series(name)).collect(),
        };
        let answer = ReadResponse {
            results: vec![result(&["x", "y"]), result(&[]), result(&["z"])],
        };
        let (mut found, mut asked) = (Vec::new(), Vec::new());
        let reserve = |bytes| {
            asked.push(bytes);
            true
        };
        let results = sampled(&answer.encode_to_vec()).each(reserve, |series| {
            found.push(series);
            Ok::<_, SampledError>(())
        });
        assert_eq!(
            (results.unwrap(), found),
            (3, vec![series("x"), series("y"), series("z")])
        );
        assert!(asked.iter().all(|&bytes| bytes > 100), "{asked:?}");
    }

    #[test]
    fn what_would_grow_is_asked_for_before_it_does() {
        // A million labels without a name, and as many histograms: two bytes each.
        for field in [0x0a, 0x22] {
            let inner = [field, 0].repeat(1_000_000);
            let mut plain = vec![0x0a];
            for length in [inner.len() + 4, inner.len()] {
                prost::encode_length_delimiter(length, &mut plain).unwrap();
                plain.push(0x0a);
            }
            plain.pop();
            plain.extend_from_slice(&inner);
            let mut most = 0;
            let refused = sampled(&plain).each(
                |bytes| {
                    most = bytes;
                    false
                },
                |_| Ok::<_, SampledError>(()),
            );
            assert!(matches!(refused, Err(SampledError::NoMemory(_))), "{refused:?}");
            assert!(most > 48_000_000, "{most}");
        }
    }

    #[test]
    fn what_is_cut_is_an_error() {
        let plain = ReadResponse {
            results: vec![QueryResult {
                timeseries: vec![series("x")],
            }],
        }
        .encode_to_vec();
        for end in 1..plain.len() {
            let read = sampled(&plain[..end]).each(|_| true, |_| Ok::<_, SampledError>(()));
            assert!(
                matches!(read, Err(SampledError::Cut | SampledError::Protobuf(_))),
                "{end}: {read:?}"
            );
        }
        let broken = Sampled { compressed: vec![7, 7] };
        let read = broken.each(|_| true, |_| Ok::<_, SampledError>(()));
        assert!(matches!(read, Err(SampledError::Snappy(_))), "{read:?}");
    }
}
