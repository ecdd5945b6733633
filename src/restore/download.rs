//! One object's way to disk.

use std::{
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::{
    objstore::{self, Bucket, Transient},
    threads::blocking_io as blocking,
};

/// So much is collected before it is written (bytes).
const BATCH: usize = 1 << 20;
/// How often a request that may succeed later is made, on top of what the bucket's client tries by itself.
const TRIES: u32 = 3;

/// Why an object did not come to disk.
#[derive(Debug)]
pub(super) enum Failed {
    /// The bucket.
    Bucket(objstore::Error),
    /// The disk; names the path.
    Disk(io::Error),
    /// The object is not what it must be, in words.
    Wrong(String),
}

impl From<objstore::Error> for Failed {
    fn from(error: objstore::Error) -> Self {
        Self::Bucket(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Transient for Failed {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Bucket(error) if error.is_transient())
    }
}

/// Makes a request again while the bucket has trouble that can heal.
pub(super) async fn retry_transient<T, F>(request: impl FnMut() -> F) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Failed>>,
{
    let log_retry = |failed: &Failed, wait: Duration| {
        if let Failed::Bucket(error) = failed {
            tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "request to the bucket failed, retrying");
        }
    };
    objstore::retry_transient(TRIES, log_retry, request).await
}

/// Brings the object `key` of `len` bytes to `path`, which it gets when all of it is on disk; until then it is in
/// `path` + `.part`, which is begun anew.
pub(super) async fn fetch(bucket: &dyn Bucket, key: &str, len: u64, path: &Path) -> Result<(), Failed> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let created = part.clone();
    let file = blocking(move || fs_err::File::create(created)).await?;
    let file = append(bucket, key, len, file, |piece| piece).await?;
    publish(file, part, path.to_owned()).await
}

/// Writes the object `key` of `len` bytes to a file from where it stands. `each` sees the pieces in order, and gives back what of
/// each is written.
pub(super) async fn append(
    bucket: &dyn Bucket,
    key: &str,
    len: u64,
    mut file: fs_err::File,
    mut each: impl FnMut(Bytes) -> Bytes,
) -> Result<fs_err::File, Failed> {
    let mut reading = bucket.read(key, 0).await?;
    if reading.len != len {
        return Err(Failed::Wrong(format!(
            "{key} has {} bytes in the bucket, {len} were expected",
            reading.len
        )));
    }
    let (mut batch, mut waiting, mut total) = (Vec::new(), 0, 0_u64);
    while let Some(piece) = reading.pieces.try_next().await? {
        waiting += piece.len();
        total += piece.len() as u64;
        batch.push(each(piece));
        if waiting >= BATCH {
            file = write(file, std::mem::take(&mut batch)).await?;
            waiting = 0;
        }
    }
    if total != len {
        return Err(Failed::Wrong(format!("{total} of {len} bytes of {key} came")));
    }
    Ok(write(file, batch).await?)
}

/// Gives a file that is all there its name, once it is flushed.
pub(super) async fn publish(file: fs_err::File, part: PathBuf, path: PathBuf) -> Result<(), Failed> {
    let publish = move || {
        file.sync_all()?;
        fs_err::rename(part, path)
    };
    Ok(blocking(publish).await?)
}

async fn write(mut file: fs_err::File, batch: Vec<Bytes>) -> io::Result<fs_err::File> {
    blocking(move || {
        for piece in batch {
            file.write_all(&piece)?;
        }
        Ok(file)
    })
    .await
}
