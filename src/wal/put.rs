//! An object of a log: its checksum, and the store's word for it.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;

use crate::{
    objstore::{self, Bucket, Source},
    threads::blocking_io,
};

/// How much is read at once for a checksum.
const BUFFER: usize = 128 * 1024;

/// Why a round did not do all that was due.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bucket's.
    #[error(transparent)]
    Bucket(#[from] objstore::Error),
    /// The data directory cannot be read; names the path.
    #[error("{0}; narthex needs to read the directory wal in --tsdb.path")]
    Local(io::Error),
    /// The store said that it has an object and does not.
    #[error("{key}: the store acknowledged {len} bytes and then {}", has(.found))]
    NotThere { key: String, len: u64, found: Option<u64> },
    /// What was sent so far is not the beginning of the local log.
    #[error("{why}")]
    Anew { why: String, reason: &'static str },
}

fn has(found: &Option<u64>) -> String {
    match found {
        Some(len) => format!("shows {len}"),
        None => "does not know it".to_owned(),
    }
}

/// Why a new generation has to begin.
pub(super) fn anew(why: String, reason: &'static str) -> Error {
    Error::Anew { why, reason }
}

/// The CRC32C of what is to be sent.
///
/// # Errors
/// It cannot be read.
pub(super) async fn crc(source: &Source) -> Result<u32, Error> {
    let source = source.clone();
    let summed = blocking_io(move || crc_of(&source.file, &source.path, source.start, source.len));
    summed.await.map_err(Error::Local)
}

/// The CRC32C of so many bytes of a file.
///
/// # Errors
/// They cannot be read, or are not there; names the path.
pub fn crc_of(file: &File, path: &Path, start: u64, len: u64) -> io::Result<u32> {
    let (mut buffer, mut crc, mut at) = (vec![0; BUFFER], 0, 0);
    while at < len {
        let take = usize::try_from(len - at).map_or(BUFFER, |left| left.min(BUFFER));
        let read = file.read_exact_at(&mut buffer[..take], start + at);
        read.map_err(|error| io::Error::new(error.kind(), format!("reading {} failed: {error}", path.display())))?;
        crc = crc32c::crc32c_append(crc, &buffer[..take]);
        at += take as u64;
    }
    Ok(crc)
}

/// Puts a file, or a range of one, and has the store show that it is there.
///
/// # Errors
/// The bucket's; it is not there, or not whole.
pub(super) async fn put_file(bucket: &dyn Bucket, key: &str, source: &Source) -> Result<(), Error> {
    bucket.put_file(key, source).await?;
    found(bucket, key, source.len).await
}

/// Puts bytes, and has the store show that they are there.
///
/// # Errors
/// As for [`put_file`].
pub(super) async fn put_bytes(bucket: &dyn Bucket, key: &str, body: Bytes) -> Result<(), Error> {
    let len = body.len() as u64;
    bucket.put_bytes(key, body).await?;
    found(bucket, key, len).await
}

async fn found(bucket: &dyn Bucket, key: &str, len: u64) -> Result<(), Error> {
    match bucket.stat(key).await? {
        Some(there) if there == len => Ok(()),
        found => Err(Error::NotThere {
            key: key.to_owned(),
            len,
            found,
        }),
    }
}
