//! Encodes the messages of an answer straight into the buffer that is sent: chunk data is copied once, labels are the
//! bytes that Prometheus sent. Pure.

use bytes::{BufMut, Bytes, BytesMut};

use super::order::Labelled;
use crate::model::{
    LabelBytes,
    uvarint::{put_uvarint, uvarint_size},
};

/// A batch is sent once it has so many bytes, also if it is asked to hold more series.
const BATCH_BYTES: usize = 1 << 20;

/// A chunk as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutChunk {
    /// Time of the first sample, in ms.
    pub min_ms: i64,
    /// Time of the last sample, in ms.
    pub max_ms: i64,
    /// The encoding's number in the StoreAPI.
    pub encoding: i32,
    /// The encoded samples.
    pub data: Bytes,
    /// XXH64 of `data`.
    pub hash: u64,
}

/// A series as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutSeries {
    labels: LabelBytes,
    chunks: Vec<OutChunk>,
    /// Bytes of the encoded `Series`.
    size: usize,
}

impl Labelled for OutSeries {
    fn labels(&self) -> &LabelBytes {
        &self.labels
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl OutSeries {
    /// A series of these parts.
    pub fn new(labels: LabelBytes, chunks: Vec<OutChunk>) -> Self {
        let chunk_size = |chunk: &OutChunk| field_size(chunk.aggregate_size());
        let size = labels.as_bytes().len() + chunks.iter().map(chunk_size).sum::<usize>();
        Self { labels, chunks, size }
    }

    /// The same series with memory of its own, which keeps no more of an answer alive than what it is.
    pub fn detached(mut self) -> Self {
        self.labels = self.labels.detached();
        for chunk in &mut self.chunks {
            chunk.data = Bytes::copy_from_slice(&chunk.data);
        }
        self
    }

    /// Its chunks.
    pub fn chunks(&self) -> &[OutChunk] {
        &self.chunks
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(self.labels.as_bytes());
        for chunk in &self.chunks {
            put_head(out, 2, chunk.aggregate_size());
            put_number(out, 1, chunk.min_ms as u64);
            put_number(out, 2, chunk.max_ms as u64);
            put_head(out, 3, chunk.size());
            put_number(out, 1, chunk.encoding as u64);
            if !chunk.data.is_empty() {
                put_head(out, 2, chunk.data.len());
                out.put_slice(&chunk.data);
            }
            put_number(out, 3, chunk.hash);
        }
    }
}

impl OutChunk {
    fn size(&self) -> usize {
        let data = match self.data.len() {
            0 => 0,
            length => field_size(length),
        };
        number_size(self.encoding as u64) + data + number_size(self.hash)
    }

    fn aggregate_size(&self) -> usize {
        number_size(self.min_ms as u64) + number_size(self.max_ms as u64) + field_size(self.size())
    }
}

/// Puts series together to messages as the request wants them.
#[derive(Debug)]
pub struct Batcher {
    /// Series in one message; 1 is messages of a series each.
    series: usize,
    held: Vec<OutSeries>,
    held_bytes: usize,
}

impl Batcher {
    /// Messages of `series` series each; of single series if it is 1.
    pub fn new(series: usize) -> Self {
        Self {
            series,
            held: Vec::new(),
            held_bytes: 0,
        }
    }

    /// Adds a series; writes the message that it completes, with gRPC's head, to `out`, and returns how many series that has.
    pub fn add(&mut self, series: OutSeries, out: &mut BytesMut) -> u64 {
        if self.series < 2 {
            put_grpc_head(out, field_size(series.size));
            put_head(out, 1, series.size);
            series.write(out);
            return 1;
        }
        self.held_bytes += field_size(series.size);
        self.held.push(series);
        match self.held.len() >= self.series || self.held_bytes >= BATCH_BYTES {
            true => self.flush(out),
            false => 0,
        }
    }

    /// Writes what is held back, and returns how many series that is.
    pub fn flush(&mut self, out: &mut BytesMut) -> u64 {
        if self.held.is_empty() {
            return 0;
        }
        let written = self.held.len() as u64;
        put_grpc_head(out, field_size(self.held_bytes));
        put_head(out, 4, self.held_bytes);
        for series in self.held.drain(..) {
            put_head(out, 1, series.size);
            series.write(out);
        }
        self.held_bytes = 0;
        written
    }
}

/// gRPC's own head of a message: not compressed, its length.
fn put_grpc_head(out: &mut BytesMut, length: usize) {
    out.reserve(5 + length);
    out.put_u8(0);
    // A message is a frame of at most 50 MB and a batch of 1 MiB.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// A field of a number below 16; left out if it is 0.
fn put_number(out: &mut BytesMut, field: u8, value: u64) {
    if value != 0 {
        out.put_u8(field << 3);
        put_uvarint(out, value);
    }
}

fn number_size(value: u64) -> usize {
    match value {
        0 => 0,
        value => 1 + uvarint_size(value),
    }
}

/// The head of a field below 16 that has so many bytes.
fn put_head(out: &mut BytesMut, field: u8, length: usize) {
    out.put_u8(field << 3 | 2);
    put_uvarint(out, length as u64);
}

/// Bytes of a field that has so many bytes, with its head.
fn field_size(length: usize) -> usize {
    1 + uvarint_size(length as u64) + length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::pb::thanos::{self, SeriesResponse, series_response::Result as Answer};

    /// Contract 1.12: `{__name__="up",job="node",region="eu"}` with one chunk.
    const SERIES: &str = "0a4f0a0e0a085f5f6e616d655f5f120275700a0b0a036a6f6212046e6f64650a0c0a06726567696f6e1202657512220880d\
                          095ffbc311080d095ffbc311a12120500010000001897a1c6baa9d2bcd3cd01";

    fn up() -> OutSeries {
        let data = Bytes::from_static(&[0, 1, 0, 0, 0]);
        let pairs = [("__name__", "up"), ("job", "node"), ("region", "eu")];
        let chunk = OutChunk {
            min_ms: 1_700_000_000_000,
            max_ms: 1_700_000_000_000,
            encoding: 0,
            hash: crate::chunk::hash(&data),
            data,
        };
        let labels = LabelBytes::from_sorted(pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        OutSeries::new(labels, vec![chunk])
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_series_and_a_batch_are_the_bytes_of_the_contract() {
        for (size, prefix) in [(1, String::new()), (2, "2251".to_owned())] {
            let (mut batcher, mut out) = (Batcher::new(size), BytesMut::new());
            batcher.add(up(), &mut out);
            batcher.flush(&mut out);
            let wanted = prefix + SERIES;
            assert_eq!(hex(&out), format!("00{:08x}{wanted}", wanted.len() / 2));
        }
    }

    /// The messages of `out`, by the generated decoder.
    fn messages(mut out: BytesMut) -> Vec<Answer> {
        let mut found = Vec::new();
        while !out.is_empty() {
            let head = out.split_to(5);
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            found.push(SeriesResponse::decode(out.split_to(length)).unwrap().result.unwrap());
        }
        found
    }

    #[test]
    fn batches_hold_what_was_asked_for_and_large_ones_are_cut() {
        let (mut batcher, mut out) = (Batcher::new(3), BytesMut::new());
        for _ in 0..7 {
            batcher.add(up(), &mut out);
        }
        batcher.flush(&mut out);
        batcher.flush(&mut out);
        let size = |answer: &Answer| match answer {
            Answer::Batch(batch) => batch.series.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(messages(out).iter().map(size).collect::<Vec<_>>(), [3, 3, 1]);
        let mut large = up();
        large.chunks[0].data = vec![7; BATCH_BYTES / 2].into();
        let large = OutSeries::new(large.labels, large.chunks);
        let (mut batcher, mut out) = (Batcher::new(64), BytesMut::new());
        for _ in 0..4 {
            batcher.add(large.clone(), &mut out);
        }
        batcher.flush(&mut out);
        assert_eq!(messages(out).iter().map(size).collect::<Vec<_>>(), [2, 2]);
    }

    proptest! {
        /// Against the generated encoder.
        #[test]
        fn any_series_is_written_as_the_generated_code_writes_it(
            labels in proptest::collection::btree_map("[a-z]{1,200}", "[a-z]{1,200}", 0..4),
            chunks in proptest::collection::vec((any::<i64>(), any::<i64>(), 0..3_i32, proptest::collection::vec(any::<u8>(), 0..300), any::<u64>()), 0..4),
        ) {
            let wanted = thanos::Series {
                labels: labels.iter().map(|(name, value)| thanos::Label { name: name.clone(), value: value.clone() }).collect(),
                chunks: chunks.iter().map(|(min, max, encoding, data, hash)| thanos::AggrChunk {
                    min_time: *min,
                    max_time: *max,
                    raw: Some(thanos::Chunk { r#type: *encoding, data: data.clone().into(), hash: *hash }),
                    ..Default::default()
                }).collect(),
            };
            let wanted = SeriesResponse { result: Some(Answer::Series(wanted)) }.encode_to_vec();
            let series = OutSeries::new(
                LabelBytes::from_sorted(labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))),
                chunks.iter().map(|(min_ms, max_ms, encoding, data, hash)| OutChunk {
                    min_ms: *min_ms, max_ms: *max_ms, encoding: *encoding, data: data.clone().into(), hash: *hash,
                }).collect(),
            );
            let (mut batcher, mut out) = (Batcher::new(1), BytesMut::new());
            batcher.add(series, &mut out);
            prop_assert_eq!(hex(&out[5..]), hex(&wanted));
        }
    }
}
