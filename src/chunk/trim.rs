//! A chunk cut to a range of time, as Prometheus cuts one that crosses the limits of a query to a block: byte for byte what
//! it would send by remote read, but in the [plain](Encoding::plain) encoding. Pure.
//!
//! One chunk makes one chunk at most. Prometheus looks at the times that the index gives to a chunk: one that lies inside is
//! sent as it is, any other one is written anew, even if all its samples are inside; so [`trim`] is for the latter
//! only, and always writes anew. Deletions (tombstones) are not looked at: Prometheus leaves those samples out as well.
//!
//! Exact for Prometheus 3.1 and later: a chunk of histograms that is cut says that it holds gauges if its first sample is
//! one, and nothing else about counter resets. Others differ in these two bits and in nothing else: up to 2.46, they are
//! those of the chunk that is cut; from 2.47 to 3.0 they also say that there was a reset, if the chunk did and its first
//! sample stays. Before 2.45, Prometheus fails to cut a chunk of gauges of which more than one sample stays.
//!
//! What Prometheus does not write into one chunk it does not cut, either, and the query fails: counters that go back, and a
//! mark of the series' end behind a gauge. Such samples are kept here, as they are where nothing is cut. Histograms of
//! a finer resolution than Prometheus knows (schemas above 8, which it never writes) keep theirs; since 3.7 it makes
//! them coarser.

use std::ops::RangeInclusive;

use super::{
    Encoding, Error,
    histogram::{self, Kind},
    to_plain, xor, xor2,
};

/// The samples of a chunk that lie in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The time of the first sample, in Unix milliseconds.
    pub min_time_ms: i64,
    /// The time of the last sample, in Unix milliseconds.
    pub max_time_ms: i64,
    /// A plain one.
    pub encoding: Encoding,
    /// The data, without the encoding.
    pub data: Vec<u8>,
}

/// Cuts a chunk to a range of Unix milliseconds, with both its ends; none if no sample is inside. Samples are kept bit by
/// bit; start timestamps are dropped.
///
/// # Errors
/// Data that is no chunk of its encoding, wherever in it: [`Error::NoHeader`], [`Error::Cut`], [`Error::Garbled`].
pub fn trim(encoding: Encoding, data: &[u8], range: RangeInclusive<i64>) -> Result<Option<Trimmed>, Error> {
    match encoding {
        Encoding::Xor => floats(xor::decode(data), &range),
        Encoding::Xor2 => floats(xor2::decode(data), &range),
        Encoding::Histogram => histograms(data, Kind::Integer, &range),
        Encoding::FloatHistogram => histograms(data, Kind::Float, &range),
        Encoding::HistogramSt => histograms(&without_starts(encoding, data)?, Kind::Integer, &range),
        Encoding::FloatHistogramSt => histograms(&without_starts(encoding, data)?, Kind::Float, &range),
    }
}

fn floats(
    samples: impl Iterator<Item = Result<(i64, f64), Error>>,
    range: &RangeInclusive<i64>,
) -> Result<Option<Trimmed>, Error> {
    let mut encoder = xor::Encoder::new();
    let mut times = None;
    for sample in samples {
        let (time, value) = sample?;
        if range.contains(&time) {
            encoder.push(time, value)?;
            times = Some((times.map_or(time, |(first, _)| first), time));
        }
    }
    Ok(times.map(|(min_time_ms, max_time_ms)| Trimmed {
        min_time_ms,
        max_time_ms,
        encoding: Encoding::Xor,
        data: encoder.finish(),
    }))
}

fn histograms(data: &[u8], kind: Kind, range: &RangeInclusive<i64>) -> Result<Option<Trimmed>, Error> {
    let chunk = histogram::cut(data, kind, range)?;
    Ok(chunk.map(|chunk| Trimmed {
        min_time_ms: chunk.min_time_ms,
        max_time_ms: chunk.max_time_ms,
        encoding: chunk.encoding,
        data: chunk.data,
    }))
}

fn without_starts(encoding: Encoding, data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::with_capacity(data.len() + 64);
    to_plain(encoding, data, &mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests;
