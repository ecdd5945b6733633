//! The bytes of a chunk as Prometheus writes them: encodings that are written, read and transcoded here. Pure; no input
//! makes it panic, and none makes it take more memory than a bounded multiple of the input's size.
//!
//! Prometheus numbers the encodings from 1, the StoreAPI from 0, and of the six only the first three are read by every
//! Thanos Query. The others hold the same samples with start timestamps beside them: [`for_storeapi`] rewrites them.

mod bits;
pub mod histogram;
mod st;
mod trim;
mod value;
mod varbit;
pub mod xor;
pub mod xor2;

pub use trim::{Trimmed, trim};

/// The most samples that go into a chunk that is written here; what Prometheus and Thanos aim at, too.
pub const SAMPLES_PER_CHUNK: usize = 120;

/// The bits of the NaN that marks the end of a series.
pub const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the mark of a series' end. No comparison of floats can tell.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN
}

/// The chunk's number, by which Thanos Query finds equal chunks: XXH64 with seed 0 over the chunk's data.
pub fn hash(data: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, data)
}

/// How a chunk is encoded, with the numbers of Prometheus' remote read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats.
    Xor = 1,
    /// Native histograms of integers.
    Histogram = 2,
    /// Native histograms of floats.
    FloatHistogram = 3,
    /// Floats, perhaps with start timestamps.
    Xor2 = 4,
    /// Native histograms of integers, with start timestamps.
    HistogramSt = 5,
    /// Native histograms of floats, with start timestamps.
    FloatHistogramSt = 6,
}

impl Encoding {
    /// The encoding that Prometheus calls by this number, if it is one of those known here.
    pub fn from_prometheus(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Xor,
            2 => Self::Histogram,
            3 => Self::FloatHistogram,
            4 => Self::Xor2,
            5 => Self::HistogramSt,
            6 => Self::FloatHistogramSt,
            _ => return None,
        })
    }

    /// As Prometheus' remote read names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xor => "XOR",
            Self::Histogram => "HISTOGRAM",
            Self::FloatHistogram => "FLOAT_HISTOGRAM",
            Self::Xor2 => "XOR2",
            Self::HistogramSt => "HISTOGRAM_ST",
            Self::FloatHistogramSt => "FLOAT_HISTOGRAM_ST",
        }
    }

    /// The number of the StoreAPI, one less than Prometheus'; none for those that Thanos Query cannot read.
    pub fn storeapi(self) -> Option<i32> {
        match self {
            Self::Xor => Some(0),
            Self::Histogram => Some(1),
            Self::FloatHistogram => Some(2),
            Self::Xor2 | Self::HistogramSt | Self::FloatHistogramSt => None,
        }
    }

    /// The encoding that every reader knows and that holds the same samples; start timestamps it cannot hold.
    pub fn plain(self) -> Self {
        match self {
            Self::Xor | Self::Xor2 => Self::Xor,
            Self::Histogram | Self::HistogramSt => Self::Histogram,
            Self::FloatHistogram | Self::FloatHistogramSt => Self::FloatHistogram,
        }
    }

    /// How many samples a chunk says that it has, by the beginning of its data; none if not even that is there.
    pub fn samples(self, data: &[u8]) -> Option<u16> {
        let count = u16::from_be_bytes(*data.first_chunk()?);
        Some(match self {
            Self::Xor | Self::Histogram | Self::FloatHistogram | Self::Xor2 => count,
            Self::HistogramSt | Self::FloatHistogramSt => count & histogram::COUNT_BESIDE_RESETS,
        })
    }

    /// What Prometheus was told so that it writes this encoding; none for those that it always wrote.
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Xor | Self::Histogram | Self::FloatHistogram => None,
            Self::Xor2 => Some("storage.tsdb.chunk_encoding.floats: xor2 (or --enable-feature=xor2-encoding)"),
            Self::HistogramSt | Self::FloatHistogramSt => Some("--enable-feature=histograms-st-encoding"),
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a chunk cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The data ends before the last sample that it announces.
    #[error("the chunk is cut: {read} of its {announced} samples can be read")]
    Cut {
        /// The samples before the cut.
        read: u16,
        /// The samples that the chunk's beginning announces.
        announced: u16,
    },
    /// Not even the beginning is whole.
    #[error("the chunk is shorter than its header")]
    NoHeader,
    /// The bits of a sample cannot be what they stand for.
    #[error("sample {sample} of the chunk is garbled: {what}")]
    Garbled {
        /// Which, from 0.
        sample: u16,
        /// What is wrong.
        what: &'static str,
    },
    /// A chunk counts its samples in 16 bits.
    #[error("more than {} samples do not fit into one chunk", u16::MAX)]
    TooManySamples,
    /// A histogram's buckets and spans do not belong together.
    #[error("the histogram at {timestamp_ms} has {buckets} buckets, its spans cover {spans}")]
    Buckets {
        /// Unix milliseconds.
        timestamp_ms: i64,
        /// The buckets that there are, on the side that is wrong.
        buckets: usize,
        /// The buckets that the spans of this side cover.
        spans: u64,
    },
    /// An encoding that is not known here.
    #[error("the chunk has the encoding {0} of Prometheus, which is not known here")]
    UnknownEncoding(i32),
}

/// A chunk as Thanos Query can read it: the StoreAPI's number of its encoding, and new data if that had to be rewritten.
/// `number` is Prometheus'. Samples are kept bit by bit; start timestamps, which Query does not know, are dropped.
///
/// # Errors
/// An unknown number, or data to be rewritten that is no chunk of its encoding. Data that stays is not looked at.
pub fn for_storeapi(number: i32, data: &[u8]) -> Result<(i32, Option<Vec<u8>>), Error> {
    let encoding = Encoding::from_prometheus(number).ok_or(Error::UnknownEncoding(number))?;
    let plain = encoding.plain();
    let anew = match plain == encoding {
        true => None,
        false => {
            let mut out = Vec::with_capacity(data.len() + 64);
            to_plain(encoding, data, &mut out)?;
            Some(out)
        }
    };
    // The StoreAPI has a number for each of them.
    let storeapi = plain.storeapi().ok_or(Error::UnknownEncoding(number))?;
    Ok((storeapi, anew))
}

/// Appends a chunk to `out` in its [plain](Encoding::plain) encoding, and returns how many start timestamps were dropped.
/// Samples are kept bit by bit.
///
/// # Errors
/// Data to be rewritten that is no chunk of its encoding; then `out` is of no use. Data that stays is not looked at.
pub fn to_plain(encoding: Encoding, data: &[u8], out: &mut Vec<u8>) -> Result<u16, Error> {
    match encoding {
        Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram => {
            out.extend_from_slice(data);
            Ok(0)
        }
        Encoding::Xor2 => xor2::transcode_into(data, out),
        Encoding::HistogramSt => histogram::transcode_into(data, histogram::Kind::Integer, out),
        Encoding::FloatHistogramSt => histogram::transcode_into(data, histogram::Kind::Float, out),
    }
}

#[cfg(test)]
mod tests;
