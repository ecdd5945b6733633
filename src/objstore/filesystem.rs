//! A bucket that is a directory.
//!
//! Guarantees: an object appears whole or not at all. It is written under a temporary name beside its place, flushed to
//! disk, checked for its size and renamed; then its directory is flushed too, and once in a process' life every
//! directory between it and the configured one. One that exists already and is kept is flushed as well. When a flush fails
//! after the rename, the object does not count until it was flushed again (`unflushed`). What another program, or an
//! earlier process, put there and this one only reads or lists is not flushed, and may go with a crash of the host. A file
//! that cannot be read, or is none, concerns its object alone (`failure`, `file`). On a crash at most temporary files
//! stay: they are hidden from listings, and [`Bucket::abort_stale`] removes them when they are a day old. On cancel the
//! copy stops within a few MiB and its temporary file is removed; [`Bucket::settle`] waits for that. Bytes that are made while
//! they are written take no thread and no slot while they are waited for (`streamed`). The configured
//! directory is never made, and nothing is done while another one stands in its place (`root`). An object that is read is
//! held open: one that takes its place meanwhile changes nothing. Memory: one small buffer per object on its way. There is
//! no stall timeout: a directory on a network file system that hangs lets the calls hang.

mod dirs;
mod failure;
mod file;
mod place;
mod read;
mod root;
mod streamed;
mod unflushed;
mod walk;
mod write;

use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinError};
use tokio_util::task::TaskTracker;

pub(crate) use self::file::missing;
use self::{
    failure::failure,
    place::Existing,
    root::Root,
    walk::{Step, dirs as dirs_in, is_temp, read, remove_stale, remove_with_dirs, walk},
    write::{Content, Failed, Writer},
};
use super::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, Limits, NameFilter, Object, Op, Pieces, Placed, RateLimit,
    Reading, STALE_AFTER, Source, config::FilesystemConfig, rate_limit,
};
use crate::threads::StopOnDrop;

/// A directory as a bucket.
#[derive(Debug)]
pub(super) struct Filesystem {
    name: String,
    identity: String,
    /// The configured directory.
    root: Arc<Root>,
    /// The directory below which all keys are: the configured one, or that of the prefix.
    base: PathBuf,
    permits: Arc<Semaphore>,
    /// Those of objects that are being read.
    readings: Arc<Semaphore>,
    rate_limit: RateLimit,
    writer: Arc<Writer>,
    cleanup: TaskTracker,
}

impl Filesystem {
    /// The bucket in `directory`, with all keys below `prefix`. Touches nothing: whether the directory exists is asked with
    /// each operation. That of the prefix is made with the first object.
    pub(super) fn new(config: &FilesystemConfig, prefix: &str, limits: &Limits) -> Self {
        let directory = config.directory.display();
        let base = if prefix.is_empty() {
            config.directory.clone()
        } else {
            config.directory.join(prefix)
        };
        let cleanup = TaskTracker::new();
        // A tracker that is closed can be waited for; tasks may still be added.
        cleanup.close();
        Self {
            name: format!("fs: {directory}"),
            identity: format!("file://{}", base.display()),
            root: Arc::new(Root::new(&config.directory)),
            base,
            permits: Arc::new(Semaphore::new(limits.requests_at_once.max(1))),
            readings: Arc::new(Semaphore::new(limits.requests_at_once.max(1))),
            rate_limit: limits.rate_limit.clone(),
            writer: Arc::new(Writer::below(&config.directory, limits.rate_limit.clone())),
            cleanup,
        }
    }

    fn place(&self, key: &str) -> String {
        if key.is_empty() {
            self.identity.clone()
        } else {
            format!("{}/{key}", self.identity)
        }
    }

    /// The failure of work that ended without a result.
    fn lost(&self, op: Op, key: &str, lost: JoinError) -> Error {
        Error {
            op,
            key: self.place(key),
            kind: ErrorKind::Server,
            detail: lost.to_string(),
            source: None,
        }
    }

    /// Where a key lives. Keys that would leave the directory, or that name a directory, have no place.
    fn path(&self, op: Op, key: &str) -> Result<PathBuf, Error> {
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if key.split('/').all(sound) && !key.split('/').any(is_temp) {
            return Ok(self.base.join(key));
        }
        let detail = "this key cannot be the name of a file".to_owned();
        Err(Error {
            op,
            key: self.place(key),
            kind: ErrorKind::Refused,
            detail,
            source: None,
        })
    }

    /// The directory of a listing; the base for an empty one.
    fn dir(&self, op: Op, dir: &str) -> Result<PathBuf, Error> {
        if dir.is_empty() {
            Ok(self.base.clone())
        } else {
            self.path(op, dir)
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        op: Op,
        key: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (root, place, base) = (Arc::clone(&self.root), self.place(key), self.base.clone());
        let work = move || root.during(work).map_err(|error| failure(op, place, &base, &error));
        let done = self.cleanup.spawn_blocking(work).await;
        done.unwrap_or_else(|lost| Err(self.lost(op, key, lost)))
    }

    async fn put(&self, key: &str, content: Content, existing: Existing) -> Result<Placed, Error> {
        let target = self.path(Op::Upload, key)?;
        let stop = StopOnDrop::default();
        let cancelled = stop.flag();
        let write = move |writer: &Writer| writer.write(&target, &content, existing, &cancelled);
        self.writing(key, write).await
    }

    /// Writes on a thread that may block, when one of the slots is free.
    async fn writing<T: Send + 'static>(
        &self,
        key: &str,
        write: impl FnOnce(&Writer) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (root, writer) = (Arc::clone(&self.root), Arc::clone(&self.writer));
        let (place, base) = (self.place(key), self.base.clone());
        let done = self.cleanup.spawn_blocking(move || {
            let _permit = permit;
            let written = root.during(|| write(&writer));
            written.map_err(|failed| match failed {
                Failed::Store(error) => failure(Op::Upload, place, &base, &error),
                Failed::Source(detail) => Error {
                    op: Op::Upload,
                    key: place,
                    kind: ErrorKind::Local,
                    detail,
                    source: None,
                },
            })
        });
        done.await.unwrap_or_else(|lost| Err(self.lost(Op::Upload, key, lost)))
    }
}

#[async_trait]
impl Bucket for Filesystem {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        let content = Content::File(source.clone());
        self.put(key, content, Existing::Replace).await.map(drop)
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.put(key, Content::Memory(body), Existing::Replace).await.map(drop)
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        self.put(key, Content::Memory(body), Existing::Keep).await
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        self.put_pieces(key, pieces, at_most).await
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        let (path, writer) = (self.path(Op::Get, key)?, Arc::clone(&self.writer));
        let look = move || {
            writer.flush_again(&path)?;
            match fs_err::metadata(path) {
                Ok(there) => Ok(there.is_file().then_some(there.len())),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        self.blocking(Op::Get, key, look).await
    }

    async fn incarnation(&self) -> Result<Option<String>, Error> {
        let root = Arc::clone(&self.root);
        let mark = self.blocking(Op::Iter, "", move || root.check()).await?;
        Ok(Some(mark.to_string()))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let (path, writer) = (self.path(Op::Get, key)?, Arc::clone(&self.writer));
        let work = move || {
            writer.flush_again(&path)?;
            read(&path, limit)
        };
        let read = self.blocking(Op::Get, key, work).await?;
        rate_limit::wait(self.rate_limit.receive(read.as_ref().map_or(0, Vec::len))).await;
        read.map(Bytes::from).ok_or_else(|| {
            let detail = format!("the object has more than the {limit} bytes that are read at most");
            Error {
                op: Op::Get,
                key: self.place(key),
                kind: ErrorKind::TooLarge,
                detail,
                source: None,
            }
        })
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        self.stream(key, offset).await
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.hold_against(key, source).await
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        let (path, writer) = (self.dir(Op::Iter, dir)?, Arc::clone(&self.writer));
        let base = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let mut objects = self
            .blocking(Op::Iter, dir, move || {
                writer.flush_again(&path)?;
                let mut objects = Vec::new();
                walk(&path, &base, &mut |key, entry| {
                    objects.push(Object { key, size: entry.len });
                    Step::GoOn
                })?;
                Ok(objects)
            })
            .await?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        let (base, after) = (self.base.clone(), after.to_owned());
        self.blocking(Op::Iter, "", move || {
            let mut dirs = dirs_in(&base, |name| name > after.as_str() && wanted(name))?;
            dirs.sort_unstable();
            Ok(dirs)
        })
        .await
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        let path = self.dir(Op::Delete, dir)?;
        let writer = Arc::clone(&self.writer);
        let work = move || match SystemTime::now().checked_sub(STALE_AFTER) {
            Some(before) => remove_stale(&path, before, &writer.live),
            None => Ok(()),
        };
        self.blocking(Op::Delete, dir, work).await
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        let (key, base) = (canary.as_str(), self.base.clone());
        let path = self.path(Op::Delete, key)?;
        self.blocking(Op::Delete, key, move || remove_with_dirs(&base, &path))
            .await
    }

    async fn settle(&self) {
        self.cleanup.wait().await;
    }
}
