//! Whether an object is the same as a file, by reading it back. Nothing is changed; dropping stops it. Memory: a few buffers,
//! whatever the size.

use futures_util::StreamExt as _;

use super::body::{BufferPool, Slice};
use crate::{
    objstore::{Comparison, Error, ErrorKind, Proof, Reading, Source},
    threads::blocking,
};

/// Holds an object that is read from its start against a file; `local` says that the file cannot be read, and why.
///
/// # Errors
/// The store's, and those of the file.
pub(in crate::objstore) async fn read_back(
    reading: Result<Reading, Error>,
    source: &Source,
    buffers: &BufferPool,
    local: impl Fn(String) -> Error,
) -> Result<Comparison, Error> {
    let mut reading = match reading {
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
        let (slice, buffers) = (slice.clone(), buffers.clone());
        let held = blocking(move || slice.first_difference(at, &piece, &buffers)).await;
        let held = held.unwrap_or_else(|error| Err(format!("reading the file was cut short: {error}")));
        if let Some(at) = held.map_err(&local)? {
            return Ok(Comparison::Different(format!("byte {at} differs (counted from 0)")));
        }
        at += len;
    }
    Ok(Comparison::Same(Proof::ReadBack))
}

pub(in crate::objstore) fn other_length(len: u64, source: &Source) -> Comparison {
    Comparison::Different(format!("the object has {len} bytes, the file {}", source.len))
}
