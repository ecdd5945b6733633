//! Parses the payload of a frame in place: labels stay the bytes that arrived, chunk data are slices of the frame.
//!
//! A label set is kept as the bytes of its `Label` fields ([`LabelBytes`]): what need not change is passed on as it is.
//! Text is not checked to be UTF-8, as in Go.

use bytes::Bytes;

use crate::model::{
    LabelBytes, ReadChunk, ReadSeries,
    fields::{Fields, Malformed, Value},
    label_bytes,
};

/// What is read from a frame may take about seven times its bytes and no more: Prometheus' own chunks have more bytes than
/// this each.
const CHUNK_BYTES: usize = 16;
/// As for chunks: a label with a name and a value takes so much.
const LABEL_BYTES: usize = 8;
/// So many chunks, series or labels a frame may hold however small it is.
const FEW: usize = 1024;
/// So many chunks and series a frame may hold at most: full chunks of one series over some decades.
const CHUNKS_MAX: usize = 1 << 20;

/// A frame's payload that no Prometheus sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Bytes that are no `ChunkedReadResponse`.
    #[error("the payload of a frame is not a remote-read message")]
    Malformed,
    /// A chunk holds no samples.
    #[error("a chunk in a frame has no data, and so no samples")]
    EmptyChunk,
    /// More than so many bytes can hold in truth: they would take many times the memory of the frame.
    #[error("a frame of {bytes} bytes holds more than {limit} {what}, more than Prometheus puts into so many bytes")]
    TooMany {
        /// Of what there is too much.
        what: &'static str,
        /// How many there may be.
        limit: usize,
        /// The length of the payload.
        bytes: usize,
    },
}

impl From<Malformed> for WireError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// One frame of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The query of the request that this belongs to, counted from 0.
    pub query_index: i64,
    /// The series, or a part of one; Prometheus sends one a frame.
    pub series: Vec<ReadSeries>,
}

/// How much may still come in a frame.
struct FrameLimits<'a> {
    payload: &'a Bytes,
    /// Series and chunks.
    chunks: usize,
    labels: usize,
}

impl<'a> FrameLimits<'a> {
    fn new(payload: &'a Bytes) -> Self {
        Self {
            payload,
            chunks: Self::chunks(payload.len()),
            labels: Self::labels(payload.len()),
        }
    }

    fn chunks(bytes: usize) -> usize {
        (FEW + bytes / CHUNK_BYTES).min(CHUNKS_MAX)
    }

    fn labels(bytes: usize) -> usize {
        FEW + bytes / LABEL_BYTES
    }

    fn series_or_chunk(&mut self) -> Result<(), WireError> {
        let bytes = self.payload.len();
        self.chunks = self.chunks.checked_sub(1).ok_or(WireError::TooMany {
            what: "series and chunks",
            limit: Self::chunks(bytes),
            bytes,
        })?;
        Ok(())
    }

    fn label(&mut self) -> Result<(), WireError> {
        let bytes = self.payload.len();
        self.labels = self.labels.checked_sub(1).ok_or(WireError::TooMany {
            what: "labels",
            limit: Self::labels(bytes),
            bytes,
        })?;
        Ok(())
    }
}

/// Reads a `ChunkedReadResponse`. What is made of it takes a few times the memory of `payload` at most.
///
/// # Errors
/// Bytes that are no such message, or that Prometheus does not send.
pub fn parse(payload: &Bytes) -> Result<Frame, WireError> {
    let (mut frame, mut limits) = (Frame::default(), FrameLimits::new(payload));
    let mut fields = Fields::of(payload);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes { start, end }) => {
                limits.series_or_chunk()?;
                frame.series.push(parse_series(&mut limits, start, end)?);
            }
            (2, Value::Number(index)) => frame.query_index = index as i64,
            _ => {}
        }
    }
    Ok(frame)
}

fn parse_series(limits: &mut FrameLimits<'_>, start: usize, end: usize) -> Result<ReadSeries, WireError> {
    let mut series = ReadSeries::default();
    let payload = limits.payload;
    let mut fields = Fields::within(payload, start, end);
    // Labels come first, one behind the other, as long as this is as Prometheus sends it.
    let (mut labels_end, mut plain) = (start, true);
    let mut before: Option<&[u8]> = None;
    loop {
        let at = fields.at();
        match fields.next()? {
            None => break,
            Some((1, Value::Bytes { start: from, end: to })) => {
                limits.label()?;
                let name = label_bytes::plain_name(&payload[from..to]);
                plain &= at == labels_end && name.is_some() && before.is_none_or(|before| Some(before) < name);
                before = name;
                labels_end = to;
            }
            Some((2, Value::Bytes { start, end })) => {
                limits.series_or_chunk()?;
                series.chunks.push(parse_chunk(payload, start, end)?);
            }
            Some(_) => {}
        }
    }
    series.labels = match plain {
        true => LabelBytes::from_encoded(payload.slice(start..labels_end)),
        false => sort_labels(payload, start, end)?,
    };
    Ok(series)
}

/// Labels that are out of order, doubled, empty or otherwise unusual, written anew.
fn sort_labels(payload: &Bytes, start: usize, end: usize) -> Result<LabelBytes, WireError> {
    let mut pairs = Vec::new();
    let mut fields = Fields::within(payload, start, end);
    while let Some(field) = fields.next()? {
        if let (1, Value::Bytes { start, end }) = field {
            let mut pair: (&[u8], &[u8]) = Default::default();
            let mut label = Fields::within(payload, start, end);
            while let Some(field) = label.next()? {
                match field {
                    (1, Value::Bytes { start, end }) => pair.0 = &payload[start..end],
                    (2, Value::Bytes { start, end }) => pair.1 = &payload[start..end],
                    _ => {}
                }
            }
            pairs.push(pair);
        }
    }
    Ok(LabelBytes::from_pairs(pairs))
}

fn parse_chunk(payload: &Bytes, start: usize, end: usize) -> Result<ReadChunk, WireError> {
    let mut chunk = ReadChunk::default();
    let mut fields = Fields::within(payload, start, end);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(ms)) => chunk.min_ms = ms as i64,
            (2, Value::Number(ms)) => chunk.max_ms = ms as i64,
            (3, Value::Number(encoding)) => chunk.encoding = encoding as i32,
            (4, Value::Bytes { start, end }) => chunk.data = payload.slice(start..end),
            _ => {}
        }
    }
    match chunk.data.is_empty() {
        true => Err(WireError::EmptyChunk),
        false => Ok(chunk),
    }
}

#[cfg(test)]
mod tests;
