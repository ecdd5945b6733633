//! Whether an object is the same as a file, by reading it back. Nothing is changed; dropping stops it. Memory: a few buffers,
//! whatever the size.

use std::sync::Arc;

use futures_util::StreamExt as _;

use super::{Dialect, Rest};
use crate::objstore::{
    Comparison, Error, ErrorKind, Op, Proof, Source,
    transfer::body::{Slice, Sum},
};

impl<D: Dialect> Rest<D> {
    /// Reads an object and holds it against a file.
    pub(in crate::objstore) async fn read_back(
        self: &Arc<Self>,
        key: &str,
        source: &Source,
    ) -> Result<Comparison, Error> {
        let mut reading = match self.read(key, 0, std::future::ready(Ok(None))).await {
            Ok(reading) => reading,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Comparison::Absent),
            Err(error) => return Err(error),
        };
        if reading.len != source.len {
            return Ok(other_length(reading.len, source));
        }
        let (slice, mut at) = (Slice::whole(source), 0);
        while let Some(piece) = reading.pieces.next().await {
            let piece = piece?;
            let len = piece.len() as u64;
            let (slice, buffers) = (slice.clone(), self.buffers.clone());
            let held = tokio::task::spawn_blocking(move || slice.first_difference(at, &piece, &buffers)).await;
            let held = held.unwrap_or_else(|error| Err(format!("reading the file was cut short: {error}")));
            if let Some(at) = held.map_err(|reason| self.error(Op::Get, key, ErrorKind::Local, reason))? {
                return Ok(Comparison::Different(format!("byte {at} differs (counted from 0)")));
            }
            at += len;
        }
        Ok(Comparison::Same(Proof::ReadBack))
    }

    /// A sum over a whole file, which must be as long as when it was opened.
    pub(in crate::objstore) async fn summed<S: Sum>(
        &self,
        op: Op,
        key: &str,
        source: &Source,
        sum: S,
    ) -> Result<S, Error> {
        let local = |reason: String| self.error(op, key, ErrorKind::Local, reason);
        source.unchanged().map_err(local)?;
        Slice::whole(source).digest(sum, &self.buffers).await.map_err(local)
    }
}

pub(in crate::objstore) fn other_length(len: u64, source: &Source) -> Comparison {
    Comparison::Different(format!("the object has {len} bytes, the file {}", source.len))
}
