//! From a series as Prometheus sends it to one as the StoreAPI sends it. Pure.

use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::{
    encode::{OutChunk, OutSeries},
    order::Order,
    relabel::Relabel,
    shard::Shard,
};
use crate::{
    chunk,
    model::{LabelBytes, ReadChunk, ReadSeries},
};

/// How much of a label set is shown in an error.
const SHOWN_LABELS: usize = 32;
const SHOWN_CHARS: usize = 500;

/// What happens to each series of one answer.
#[derive(Clone, Debug)]
pub struct Convert {
    relabel: Relabel,
    shard: Option<Shard>,
    /// Memory for labels.
    shared: BytesMut,
}

impl Convert {
    /// Changes labels and keeps what belongs to the shard.
    pub fn new(relabel: Relabel, shard: Option<Shard>) -> Self {
        let shared = BytesMut::new();
        Self { relabel, shard, shared }
    }

    /// Nothing yet, of series that are made so.
    pub fn order(&self) -> Order<OutSeries> {
        Order::new(self.relabel.greatest_added())
    }

    /// The labels to be sent; `None` if the series belongs to another shard.
    pub fn labels(&mut self, stored: &LabelBytes) -> Option<LabelBytes> {
        let labels = self.relabel.apply(stored, &mut self.shared);
        let keeps = self.shard.as_mut().is_none_or(|shard| shard.keeps(&labels));
        keeps.then_some(labels)
    }

    /// The series to be sent; `None` if it belongs to another shard.
    ///
    /// # Errors
    /// `Unknown`: a chunk whose encoding today's queriers cannot read; broken chunk data that had to be read.
    pub fn series(&mut self, series: ReadSeries) -> Result<Option<OutSeries>, Status> {
        let Some(labels) = self.labels(&series.labels) else {
            return Ok(None);
        };
        let mut chunks = Vec::with_capacity(series.chunks.len());
        for chunk in series.chunks {
            chunks.push(convert(chunk, &labels)?);
        }
        Ok(Some(OutSeries::new(labels, chunks)))
    }
}

fn convert(chunk: ReadChunk, labels: &LabelBytes) -> Result<OutChunk, Status> {
    let (encoding, anew) = chunk::for_storeapi(chunk.encoding, &chunk.data)
        .map_err(|error| Status::unknown(format!("series {}: {error}", shown(labels))))?;
    let data = anew.map_or(chunk.data, Bytes::from);
    Ok(OutChunk {
        min_ms: chunk.min_ms,
        max_ms: chunk.max_ms,
        encoding,
        hash: chunk::hash(&data),
        data,
    })
}

/// The beginning of a label set, for an error: trailers that are too long would end more than this call.
fn shown(labels: &LabelBytes) -> String {
    let label = |(name, value)| format!("{}={:?}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    let text = labels
        .iter()
        .take(SHOWN_LABELS)
        .map(label)
        .collect::<Vec<_>>()
        .join(", ");
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{{{}...", &text[..end]),
        None => format!("{{{text}}}"),
    }
}
