//! Native histograms, of integers or of floats. A chunk begins with the number of its samples, what is known about
//! counter resets, and the layout of the buckets; then each sample is a list of differences to the one before it.

mod buckets;
mod cut;
mod layout;
mod read;
#[cfg(test)]
pub(super) mod tests;
mod write;

pub(super) use cut::cut;
pub(super) use read::COUNT_BESIDE_RESETS;
pub use read::{Decoder, decode, transcode_into};

use super::{Encoding, Error, SAMPLES_PER_CHUNK, is_stale};
use write::Appender;

/// Some buckets side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// How many buckets are left out before it; for the first span the index of its first bucket.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// What the source knows about a counter reset before a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetHint {
    /// Nothing.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NoReset,
    /// It is a gauge and has none.
    Gauge,
}

/// The numbers of a histogram; each side has as many as its spans cover.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// Of a histogram of integers.
    Integer {
        /// All observations.
        count: u64,
        /// Those in the zero bucket.
        zero: u64,
        /// Each bucket's difference to the one before it.
        positive: Vec<i64>,
        /// Each bucket's difference to the one before it.
        negative: Vec<i64>,
    },
    /// Of a histogram of floats.
    Float {
        /// All observations.
        count: f64,
        /// Those in the zero bucket.
        zero: f64,
        /// Each bucket's own number.
        positive: Vec<f64>,
        /// Each bucket's own number.
        negative: Vec<f64>,
    },
}

/// A native histogram at a time. With the mark of a series' end ([`STALE_NAN`](super::STALE_NAN)) for its sum nothing
/// else but the time counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// What is known about a reset before it.
    pub hint: ResetHint,
    /// The resolution; -53 says that the bounds are `custom_values`.
    pub schema: i32,
    /// How wide the zero bucket is.
    pub zero_threshold: f64,
    /// The sum of all observations.
    pub sum: f64,
    /// Where the positive buckets are.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets are.
    pub negative_spans: Vec<Span>,
    /// The upper bounds of the buckets of schema -53.
    pub custom_values: Vec<f64>,
    /// The numbers.
    pub counts: Counts,
}

/// Whether a chunk has integers or floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Integers.
    Integer,
    /// Floats.
    Float,
}

impl Histogram {
    fn kind(&self) -> Kind {
        match self.counts {
            Counts::Integer { .. } => Kind::Integer,
            Counts::Float { .. } => Kind::Float,
        }
    }

    /// That the spans cover as many buckets as there are.
    fn check(&self) -> Result<(), Error> {
        let (positive, negative) = match &self.counts {
            Counts::Integer { positive, negative, .. } => (positive.len(), negative.len()),
            Counts::Float { positive, negative, .. } => (positive.len(), negative.len()),
        };
        for (buckets, spans) in [(positive, &self.positive_spans), (negative, &self.negative_spans)] {
            let spans = buckets::covered(spans);
            if spans != buckets as u64 {
                return Err(Error::Buckets {
                    timestamp_ms: self.timestamp_ms,
                    buckets,
                    spans,
                });
            }
        }
        Ok(())
    }
}

/// What a chunk says about the counter reset before its first sample: the highest bits of its third byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Unknown = 0b0000_0000,
    NoReset = 0b0100_0000,
    Reset = 0b1000_0000,
    Gauge = 0b1100_0000,
}

/// A chunk, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// [`Encoding::Histogram`] or [`Encoding::FloatHistogram`].
    pub encoding: Encoding,
    /// The time of the first sample, in Unix milliseconds.
    pub min_time_ms: i64,
    /// The time of the last sample, in Unix milliseconds.
    pub max_time_ms: i64,
    /// The data, without the encoding.
    pub data: Vec<u8>,
}

/// Writes the samples of a series, in their order, as Prometheus does. A new chunk starts after
/// [`SAMPLES_PER_CHUNK`] samples; between integers and floats, gauges and counters; at a counter reset, found or hinted at;
/// after the end of the series; and when the layout of the buckets changes. (There, Prometheus often rewrites the chunk
/// that it has. The samples are the same.)
///
/// # Errors
/// [`Error::Buckets`]
pub fn encode(samples: impl IntoIterator<Item = Histogram>) -> Result<Vec<Chunk>, Error> {
    let mut chunks = Vec::new();
    let mut open: Option<(Appender, Histogram)> = None;
    for sample in samples {
        if !is_stale(sample.sum) {
            sample.check()?;
        }
        open = Some(match open.take() {
            None => (Appender::new(first_header(&sample), &sample), sample),
            Some((mut appender, last)) => {
                let header = match next(appender.header(), &last, &sample) {
                    None if appender.count() >= SAMPLES_PER_CHUNK => Some(Header::NoReset),
                    other => other,
                };
                match header {
                    None => {
                        appender.push(&sample);
                        (appender, sample)
                    }
                    Some(header) => {
                        // A gauge stays one, also where a chunk is full.
                        let header = if sample.hint == ResetHint::Gauge {
                            Header::Gauge
                        } else {
                            header
                        };
                        chunks.push(appender.finish());
                        (Appender::new(header, &sample), sample)
                    }
                }
            }
        });
    }
    chunks.extend(open.map(|(appender, _)| appender.finish()));
    Ok(chunks)
}

/// The header of a chunk that has none before it.
fn first_header(sample: &Histogram) -> Header {
    match sample.hint {
        ResetHint::Gauge => Header::Gauge,
        ResetHint::Reset => Header::Reset,
        ResetHint::Unknown | ResetHint::NoReset => Header::Unknown,
    }
}

/// The header of the new chunk that `sample` needs, or `None` if it fits behind `last` in a chunk with `header`.
fn next(header: Header, last: &Histogram, sample: &Histogram) -> Option<Header> {
    let gauge = sample.hint == ResetHint::Gauge;
    if last.kind() != sample.kind() || gauge != (header == Header::Gauge) {
        return Some(first_header(sample));
    }
    if sample.hint == ResetHint::Reset {
        return Some(Header::Reset);
    }
    if is_stale(sample.sum) {
        return None;
    }
    if is_stale(last.sum) {
        return Some(Header::Unknown);
    }
    if !gauge && buckets::fewer_observations(last, sample) {
        return Some(Header::Reset);
    }
    if last.schema != sample.schema || last.zero_threshold != sample.zero_threshold {
        return Some(Header::Unknown);
    }
    if last.schema == layout::CUSTOM && last.custom_values != sample.custom_values {
        return Some(Header::Reset);
    }
    if !gauge && buckets::reset(last, sample) {
        return Some(Header::Reset);
    }
    (!buckets::same_layout(last, sample)).then_some(Header::NoReset)
}
