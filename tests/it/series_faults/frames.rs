//! What a Prometheus sends in answer to a remote read, made without the code under test.

use narthex::pb::{
    prometheus::{Chunk, ChunkedReadResponse, ChunkedSeries, Label},
    thanos,
};
use prost::Message as _;

use super::fake::http;

pub(crate) const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// The query whose series are streamed: the one before it asks for those that carry an external label.
pub(crate) const STREAM: i64 = 1;

/// The series `{__name__="m", n="number"}` with one chunk.
pub(crate) fn series(number: u64) -> ChunkedSeries {
    with_data(number, 1, format!("{number:05}").into_bytes())
}

/// As [`series`], with a chunk of this encoding and these bytes.
pub(crate) fn with_data(number: u64, encoding: i32, data: Vec<u8>) -> ChunkedSeries {
    let label = |name: &str, value: String| Label {
        name: name.to_owned(),
        value,
    };
    ChunkedSeries {
        labels: vec![label("__name__", "m".to_owned()), label("n", format!("{number:010}"))],
        chunks: vec![Chunk {
            min_time_ms: 1,
            max_time_ms: 2,
            r#type: encoding,
            data: data.into(),
        }],
    }
}

/// The series as it comes out: the external label is set.
pub(crate) fn sent(series: &ChunkedSeries) -> thanos::Series {
    let mut labels: Vec<_> = series
        .labels
        .iter()
        .map(|label| (label.name.clone(), label.value.clone()))
        .collect();
    labels.push(("cluster".to_owned(), "rig".to_owned()));
    labels.sort();
    let label = |(name, value)| thanos::Label { name, value };
    let chunk = |chunk: &Chunk| thanos::AggrChunk {
        min_time: chunk.min_time_ms,
        max_time: chunk.max_time_ms,
        raw: Some(thanos::Chunk {
            r#type: chunk.r#type - 1,
            data: chunk.data.clone(),
            hash: twox_hash::XxHash64::oneshot(0, &chunk.data),
        }),
        ..Default::default()
    };
    thanos::Series {
        labels: labels.into_iter().map(label).collect(),
        chunks: series.chunks.iter().map(chunk).collect(),
    }
}

/// A frame of these series in answer to the query with this index.
pub(crate) fn frame(query_index: i64, series: &[ChunkedSeries]) -> Vec<u8> {
    let response = ChunkedReadResponse {
        chunked_series: series.to_vec(),
        query_index,
    };
    let payload = response.encode_to_vec();
    [&head(payload.len() as u64, crc32c::crc32c(&payload))[..], &payload].concat()
}

/// The head of a frame that claims this length and checksum.
pub(crate) fn head(length: u64, checksum: u32) -> Vec<u8> {
    let mut head = Vec::new();
    prost::encoding::encode_varint(length, &mut head);
    head.extend_from_slice(&checksum.to_be_bytes());
    head
}

/// Frames of one series each, numbered from 0.
pub(crate) fn frames(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(STREAM, &[series(number)])).collect()
}

/// An answer with a length.
pub(crate) fn whole(body: &[u8]) -> Vec<u8> {
    http(200, STREAMED, body)
}

/// The head of an answer in HTTP chunks.
pub(crate) fn chunked_head() -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes()
}

/// One HTTP chunk; the empty one is the end.
pub(crate) fn http_chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// An answer in HTTP chunks of these pieces.
pub(crate) fn chunked<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut answer = chunked_head();
    for piece in pieces {
        answer.extend(http_chunk(piece));
    }
    answer.extend(http_chunk(b""));
    answer
}
