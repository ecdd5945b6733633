//! A checkpoint on its way to the bucket, beside the rounds.
//!
//! Prometheus writes it under another name and renames it, and deletes it once a newer one is there. Its files are opened before
//! the first byte is sent, so that they can be sent then as well. A checkpoint that is gone before is no failure: a newer one is
//! there. It counts once the manifest names it, which the round after its last file does.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use super::{
    layout::{Checkpoint, CheckpointFile, Generation, checkpoint_name},
    put::{Error, crc, found},
};
use crate::{
    objstore::{Bucket, Source},
    threads::blocking_io,
    tsdb::{self, content},
};

/// Sends the checkpoint `number` of the data directory `dir`; `None` if it is gone.
///
/// # Errors
/// The bucket's, and those of reading the files.
pub(super) async fn send(
    bucket: Arc<dyn Bucket>,
    generation: Generation,
    dir: PathBuf,
    number: u64,
    seen_ms: i64,
) -> Result<Option<Checkpoint>, Error> {
    let at = dir.join("wal").join(checkpoint_name(number));
    let opened = blocking_io(move || {
        let sources = open(&at)?;
        // While it is deleted its files go one by one.
        let is_whole = open(&at)?.len() == sources.len() && is_without_gap(&sources);
        match is_whole {
            true => Ok((sources, newest_end(&dir)?)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    });
    let (sources, samples_from_ms) = match opened.await {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Local(error)),
    };
    let mut files = Vec::with_capacity(sources.len());
    for (name, source) in sources {
        let crc32c = crc(&source).await?;
        let key = generation.checkpoint_file(number, &name);
        bucket.put_file(&key, &source).await?;
        found(&*bucket, &key, source.len).await?;
        let len = source.len;
        files.push(CheckpointFile { name, len, crc32c });
    }
    Ok(Some(Checkpoint {
        number,
        seen_ms,
        samples_from_ms,
        files,
    }))
}

/// Its files, in order. What is no segment is not read by Prometheus.
fn open(dir: &Path) -> io::Result<Vec<(String, Source)>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_digit()) {
            continue;
        }
        let path = dir.join(&name);
        let file = fs_err::File::open(&path)?.into_file();
        let len = file.metadata()?.len();
        files.push((name, Source::new(Arc::new(file), path, len)));
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// Whether the files are numbered from 0 on, and there is one.
fn is_without_gap(files: &[(String, Source)]) -> bool {
    let numbers = files.iter().map(|(name, _)| name.parse::<usize>().ok());
    !files.is_empty() && numbers.enumerate().all(|(at, number)| number == Some(at))
}

/// The latest end of a block that was sealed in order: the head, and with it a new checkpoint, has lost no sample that is younger. A block that was
/// sealed since makes this later than it need be, which is harmless: an older checkpoint is taken then.
fn newest_end(dir: &Path) -> io::Result<Option<i64>> {
    let blocks = tsdb::scan(dir)?.blocks;
    let in_order = blocks.iter().filter(|block| content::is_in_order(&block.meta));
    Ok(in_order.map(|block| block.meta.max_time).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_is_being_deleted_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let is_whole = |names: &[&str]| {
            let made = tempfile::tempdir_in(dir.path()).unwrap();
            for name in names {
                fs_err::write(made.path().join(name), "x").unwrap();
            }
            is_without_gap(&open(made.path()).unwrap())
        };
        assert!(is_whole(&["00000000"]) && is_whole(&["00000001", "00000000"]));
        assert!(!is_whole(&[]) && !is_whole(&["00000001"]) && !is_whole(&["00000000", "00000002"]));
    }
}
