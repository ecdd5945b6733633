//! One object's way to disk.

use std::{
    future::Future,
    io::{self, Write},
    path::Path,
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
    let told = |failed: &Failed, wait: Duration| {
        if let Failed::Bucket(error) = failed {
            tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "the bucket has trouble; trying again");
        }
    };
    objstore::retry_transient(TRIES, told, request).await
}

/// Brings the object `key` of `len` bytes to `path`, which it gets when all of it is on disk; until then it is in
/// `path` + `.part`, which is begun anew.
pub(super) async fn fetch(bucket: &dyn Bucket, key: &str, len: u64, path: &Path) -> Result<(), Failed> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = std::path::PathBuf::from(part);
    let mut reading = bucket.read(key, 0).await?;
    if reading.len != len {
        return Err(Failed::Wrong(format!(
            "{key} has {} bytes in the bucket, {len} were expected",
            reading.len
        )));
    }
    let mut file = {
        let part = part.clone();
        blocking(move || fs_err::File::create(part)).await?
    };
    let (mut batch, mut waiting, mut total) = (Vec::new(), 0, 0_u64);
    while let Some(piece) = reading.pieces.try_next().await? {
        waiting += piece.len();
        total += piece.len() as u64;
        batch.push(piece);
        if waiting >= BATCH {
            file = write(file, std::mem::take(&mut batch)).await?;
            waiting = 0;
        }
    }
    if total != len {
        return Err(Failed::Wrong(format!("{total} of {len} bytes of {key} came")));
    }
    let file = write(file, batch).await?;
    let path = path.to_owned();
    blocking(move || {
        file.sync_all()?;
        fs_err::rename(part, path)
    })
    .await?;
    Ok(())
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
