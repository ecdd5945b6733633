//! A bucket that is a directory.
//!
//! Guarantees: an object appears whole or not at all. It is written under a temporary name beside its place, flushed to
//! disk, checked for its size and renamed; then its directory is flushed too, and once in a process' life every
//! directory between it and the configured one. One that exists already and is kept is flushed as well. On a crash at
//! most temporary files stay: they are hidden from listings, and [`Bucket::abort_stale`] removes them when they are a
//! day old. On cancel the copy stops within a few MiB and its temporary file is removed; [`Bucket::settle`] waits for
//! that. The configured directory is never made, and nothing is done while another one stands in its place (`root`). An
//! object that is read is held open: one that takes its place meanwhile changes nothing. Memory: one small buffer per
//! object on its way. There is no stall timeout: a directory on a network file system that hangs lets the calls hang.

mod dirs;
mod place;
mod read;
mod root;
mod walk;
mod write;

use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Access, access};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use self::walk::missing;
use self::{
    dirs::Dirs,
    place::Existing,
    root::{Root, Unavailable},
    walk::{Step, dirs as dirs_in, is_temp, read, remove_stale, walk},
    write::{Content, Failed, InProgress, Writer},
};
use super::{
    Bucket, Comparison, Error, ErrorKind, Limits, NameFilter, Object, Op, Placed, RateLimit, Reading, STALE_AFTER,
    Source, config::FilesystemConfig, rate_limit,
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
            writer: Arc::new(Writer {
                dirs: Dirs::below(&config.directory),
                live: InProgress::default(),
                rate_limit: limits.rate_limit.clone(),
            }),
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

    fn error(&self, op: Op, key: &str, error: &io::Error) -> Error {
        failure(op, self.place(key), error)
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
        let root = Arc::clone(&self.root);
        let done = self.cleanup.spawn_blocking(move || root.during(work)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| self.error(op, key, &error))
    }

    /// A directory below that of the bucket that is closed to this process concerns the objects in it and no others: a
    /// copy that somebody made as another user must not hold all else up.
    async fn narrowed(&self, error: Error) -> Error {
        let needed = match (error.op, error.kind) {
            (Op::Iter, ErrorKind::Forbidden) => Access::READ_OK | Access::EXEC_OK,
            (Op::Upload, ErrorKind::Forbidden) => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
            _ => return error,
        };
        let base = self.base.clone();
        let open = self.cleanup.spawn_blocking(move || access(&base, needed).is_ok());
        match (open.await, error.op) {
            (Ok(true), Op::Upload) => Error {
                kind: ErrorKind::Refused,
                ..error
            },
            // What cannot be listed cannot be read.
            (Ok(true), _) => Error { op: Op::Get, ..error },
            _ => error,
        }
    }

    async fn put(&self, key: &str, content: Content, existing: Existing) -> Result<Placed, Error> {
        let target = self.path(Op::Upload, key)?;
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stop = StopOnDrop::default();
        let cancelled = stop.flag();
        let (root, writer) = (Arc::clone(&self.root), Arc::clone(&self.writer));
        let done = self.cleanup.spawn_blocking(move || {
            let _permit = permit;
            root.during(|| writer.write(&target, &content, existing, &cancelled))
        });
        match done
            .await
            .unwrap_or_else(|error| Err(Failed::Store(io::Error::other(error))))
        {
            Ok(placed) => Ok(placed),
            Err(Failed::Store(error)) => Err(self.narrowed(self.error(Op::Upload, key, &error)).await),
            Err(Failed::Source(detail)) => {
                let kind = ErrorKind::Local;
                Err(Error {
                    op: Op::Upload,
                    key: self.place(key),
                    kind,
                    detail,
                    source: None,
                })
            }
        }
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

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        let path = self.path(Op::Get, key)?;
        self.blocking(Op::Get, key, move || match fs_err::metadata(path) {
            Ok(there) => Ok(there.is_file().then_some(there.len())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn incarnation(&self) -> Result<Option<String>, Error> {
        let root = Arc::clone(&self.root);
        let mark = self.blocking(Op::Iter, "", move || root.check()).await?;
        Ok(Some(mark.to_string()))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let path = self.path(Op::Get, key)?;
        let read = self.blocking(Op::Get, key, move || read(&path, limit)).await?;
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
        let path = self.dir(Op::Iter, dir)?;
        let base = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let objects = self
            .blocking(Op::Iter, dir, move || {
                let mut objects = Vec::new();
                walk(&path, &base, &mut |key, entry| {
                    objects.push(Object { key, size: entry.len });
                    Step::GoOn
                })?;
                Ok(objects)
            })
            .await;
        let mut objects = match objects {
            Ok(objects) => objects,
            Err(error) => return Err(self.narrowed(error).await),
        };
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

    async fn settle(&self) {
        self.cleanup.wait().await;
    }
}

/// A failure of the system, as one on the object at `place`.
fn failure(op: Op, place: String, error: &io::Error) -> Error {
    let (kind, help) = classify(op, error);
    let detail = if help.is_empty() {
        error.to_string()
    } else {
        format!("{error}; {help}")
    };
    Error {
        op,
        key: place,
        kind,
        detail,
        source: None,
    }
}

/// What kind of failure it is, and what helps.
fn classify(op: Op, error: &io::Error) -> (ErrorKind, &'static str) {
    use io::ErrorKind as Io;
    if error.get_ref().is_some_and(|inner| inner.is::<Unavailable>()) {
        return (ErrorKind::NoBucket, "");
    }
    match error.kind() {
        Io::NotFound if op == Op::Get => (ErrorKind::NotFound, ""),
        Io::PermissionDenied => {
            let help = match op {
                Op::Get | Op::Iter => "this process needs the right to read it",
                Op::Upload | Op::Delete => "this process needs the right to write there",
            };
            (ErrorKind::Forbidden, help)
        }
        Io::ReadOnlyFilesystem => (ErrorKind::Forbidden, "the directory must be writable"),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Server, "free some space; nothing half-written is kept"),
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::InvalidInput => (
            ErrorKind::Refused,
            "something else has the object's name, or its name cannot be a file's",
        ),
        _ => (ErrorKind::Server, ""),
    }
}
