//! A checkpoint on its way to the bucket, beside the rounds.
//!
//! Prometheus writes it under another name and renames it, and deletes it once a newer one is there. Its files are opened before
//! the first byte is sent, so that they can be sent then as well. A checkpoint that is gone before is no failure: a newer one is
//! there. It counts once the manifest names it, which the round after its last file does.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use super::{
    layout::{Checkpoint, CheckpointFile, Generation, checkpoint_name},
    put::{Error, crc, put_file},
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
        let listed = names(&at)?;
        let sources = open(&at, &listed)?;
        // While it is deleted its files go one by one.
        match is_without_gap(&listed) && names(&at)? == listed {
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
        put_file(&*bucket, &key, &source).await?;
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

/// The names of its files, in order. What is no segment is not read by Prometheus.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|c| c.is_ascii_digit()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn open(dir: &Path, names: &[String]) -> io::Result<Vec<(String, Source)>> {
    let open = |name: &String| {
        let path = dir.join(name);
        let file = fs_err::File::open(&path)?.into_file();
        let len = file.metadata()?.len();
        Ok((name.clone(), Source::new(Arc::new(file), path, len)))
    };
    names.iter().map(open).collect()
}

/// Whether the files are numbered from 0 on, and there is one.
fn is_without_gap(names: &[String]) -> bool {
    let numbers = names.iter().map(|name| name.parse::<usize>().ok());
    !names.is_empty() && numbers.enumerate().all(|(at, number)| number == Some(at))
}

/// The latest end of a block that was sealed in order: the head, and with it a new checkpoint, has lost no sample that is younger.
/// A block that was sealed since makes this later than it need be, which is harmless: an older checkpoint is taken then.
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
            is_without_gap(&self::names(made.path()).unwrap())
        };
        assert!(is_whole(&["00000000"]) && is_whole(&["00000001", "00000000"]));
        assert!(!is_whole(&[]) && !is_whole(&["00000001"]) && !is_whole(&["00000000", "00000002"]));
    }
}
