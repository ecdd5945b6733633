//! Series as they are read: from the remote read of Prometheus, or from blocks.

use bytes::Bytes;

use super::LabelBytes;

/// A series, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSeries {
    /// Its labels.
    pub labels: LabelBytes,
    /// Its chunks, in the order sent.
    pub chunks: Vec<ReadChunk>,
}

/// A chunk as it was sent, or as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadChunk {
    /// Time of the first sample, in ms.
    pub min_ms: i64,
    /// Time of the last sample, in ms.
    pub max_ms: i64,
    /// The encoding's number as Prometheus has it.
    pub encoding: i32,
    /// The encoded samples.
    pub data: Bytes,
}
