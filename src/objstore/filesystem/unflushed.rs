//! Objects that are in their place and could not be flushed to disk.
//!
//! When a flush fails after an object got its name, everybody sees it, and a crash of the host may yet take it away: that
//! it can be read proves nothing. So it is remembered, and is flushed again by whoever asks for it here; until that
//! succeeds he gets the error, and nobody takes it for one that lasts. This is known to this process alone: a restart
//! forgets it. How many are remembered is bounded: when there are too many, nothing is written until they are flushed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    failure::{NotFlushed, classify},
    file::{self, missing},
};
use crate::objstore::{ErrorKind, Op};

/// With so many of them nothing more is written.
const MOST: usize = 256;

/// The paths of such objects.
#[derive(Debug, Default)]
pub(super) struct Unflushed(Mutex<BTreeSet<PathBuf>>);

impl Unflushed {
    /// Remembers that the object at `target` is to be flushed, should it be there.
    pub(super) fn remember(&self, target: &Path) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.insert(target.to_owned());
    }

    /// Takes down how flushing the object at `target` ended; an error is then that of a flush.
    pub(super) fn record(&self, target: &Path, flushed: io::Result<()>) -> io::Result<()> {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(why) = flushed else {
            paths.remove(target);
            return Ok(());
        };
        paths.insert(target.to_owned());
        let of_disk =
            why.kind() == io::ErrorKind::ReadOnlyFilesystem || classify(Op::Upload, &why).0 == ErrorKind::Server;
        let path = target.to_owned();
        Err(if of_disk {
            io::Error::other(NotFlushed { path, why })
        } else {
            why
        })
    }

    /// Flushes those at or below `path` again.
    pub(super) fn flush(&self, path: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for target in paths.iter().filter(|target| target.starts_with(path)) {
            self.record(target, flush(target, &sync))?;
        }
        Ok(())
    }

    /// Flushes all of them again if there are too many.
    pub(super) fn make_room(&self, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let count = self.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        if count < MOST {
            Ok(())
        } else {
            self.flush(Path::new(""), sync)
        }
    }
}

/// Flushes an object and the directory that holds its name, so far as they are there.
fn flush(target: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let there = |flushed: io::Result<()>| match flushed {
        Err(error) if missing(&error) => Ok(()),
        flushed => flushed,
    };
    match file::check(target) {
        // No object.
        Err(error) if matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput) => {}
        checked => there(checked.and_then(|_| sync(target)))?,
    }
    there(target.parent().map_or(Ok(()), sync))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc};

    use bytes::Bytes;

    use super::*;
    use crate::objstore::{
        Bucket, Error, Limits, Scope, Source,
        config::FilesystemConfig,
        filesystem::{Filesystem, dirs},
    };

    /// Fails while something is named `broken` beside a directory above `path`.
    fn sync(path: &Path) -> io::Result<()> {
        match path
            .ancestors()
            .skip(1)
            .any(|dir| dir.join("broken").try_exists().unwrap())
        {
            true => Err(rustix::io::Errno::IO.into()),
            false => dirs::sync(path),
        }
    }

    async fn of_one_object(bucket: &Filesystem, source: &Source) -> Vec<Result<(), Error>> {
        vec![
            bucket.get("a/meta.json", 9).await.map(drop),
            bucket.stat("a/meta.json").await.map(drop),
            bucket.compare("a/meta.json", source).await.map(drop),
            bucket.list("a").await.map(drop),
        ]
    }

    #[tokio::test]
    async fn an_object_whose_flush_failed_is_not_shown_before_it_was_flushed() {
        let temp = tempfile::tempdir().unwrap();
        let [directory, broken, file] = ["root", "broken", "file"].map(|name| temp.path().join(name));
        fs_err::create_dir(&directory).unwrap();
        fs_err::write(&file, "{}").unwrap();
        let opened = Arc::new(fs_err::File::open(&file).unwrap().into_parts().0);
        let source = Source::new(opened, file, 2);
        let mut bucket = Filesystem::new(&FilesystemConfig { directory }, "", &Limits::default());
        Arc::get_mut(&mut bucket.writer).unwrap().sync = sync;
        let body = Bytes::from_static(b"{}");
        bucket.put_bytes("b/meta.json", body.clone()).await.unwrap();

        fs_err::write(&broken, "").unwrap();
        let mut failed = vec![bucket.put_new("a/meta.json", body.clone()).await.map(drop)];
        failed.append(&mut of_one_object(&bucket, &source).await);
        // It is there now, and is to be flushed all the same.
        failed.push(bucket.put_new("a/meta.json", body.clone()).await.map(drop));
        for error in failed.into_iter().map(Result::unwrap_err) {
            assert_eq!(
                (error.kind, error.scope()),
                (ErrorKind::Unflushed, Scope::Bucket),
                "{error}"
            );
            assert!(error.kind.is_transient() && !error.kind.is_ambiguous());
        }
        assert_eq!(
            bucket.get("b/meta.json", 9).await.unwrap(),
            body,
            "this one was flushed"
        );

        fs_err::remove_file(&broken).unwrap();
        for result in of_one_object(&bucket, &source).await {
            result.unwrap();
        }
        fs_err::write(&broken, "").unwrap();
        assert_eq!(bucket.get("a/meta.json", 9).await.unwrap(), body, "once is enough");
    }

    #[tokio::test]
    async fn an_object_whose_flush_failed_and_that_is_gone_is_absent() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("root");
        fs_err::create_dir(&directory).unwrap();
        let bucket = Filesystem::new(
            &FilesystemConfig {
                directory: directory.clone(),
            },
            "",
            &Limits::default(),
        );
        let failed = bucket
            .writer
            .unflushed
            .record(&directory.join("a/meta.json"), Err(io::Error::other("broken")));
        failed.unwrap_err();
        assert_eq!(bucket.stat("a/meta.json").await.unwrap(), None);
        assert_eq!(bucket.writer.unflushed.0.lock().unwrap().len(), 0);
    }

    #[test]
    fn nothing_more_is_remembered_until_what_could_not_be_flushed_is_flushed() {
        let (temp, unflushed, broken) = (tempfile::tempdir().unwrap(), Unflushed::default(), Cell::new(true));
        let sync = |_: &Path| match broken.get() {
            true => Err(io::Error::other("broken")),
            false => Ok(()),
        };
        for at in 0..MOST {
            unflushed.make_room(sync).unwrap();
            let failed = unflushed.record(&temp.path().join(at.to_string()), Err(io::Error::other("broken")));
            failed.unwrap_err();
        }
        unflushed.make_room(sync).unwrap_err();
        broken.set(false);
        unflushed.make_room(sync).unwrap();
        assert_eq!(unflushed.0.lock().unwrap().len(), 0);
    }
}
