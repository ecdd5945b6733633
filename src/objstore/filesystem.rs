//! A bucket that is a directory.
//!
//! Guarantees: an object appears whole or not at all. It is written under a temporary name beside its place, flushed to
//! disk, checked for its size and renamed; then its directory, and every directory that was made for it, is flushed
//! too. On a crash at most temporary files stay: they are hidden from listings, and [`Bucket::abort_stale`] removes
//! them. On cancel the copy stops within a few MiB and its temporary file is removed; [`Bucket::settle`] waits for
//! that. Memory: one small buffer per object on its way.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{Bucket, Error, ErrorKind, Limits, Object, Op, Source, config::FilesystemConfig};

/// How much is copied at once.
const BUFFER: usize = 256 * 1024;

/// A directory as a bucket.
#[derive(Debug)]
pub(super) struct Filesystem {
    name: String,
    identity: String,
    root: PathBuf,
    permits: Arc<Semaphore>,
    /// Temporary files that are being written.
    live: Live,
    cleanup: TaskTracker,
}

/// What is to become an object.
enum Content {
    File(Source),
    Memory(Bytes),
}

type Live = Arc<Mutex<HashSet<PathBuf>>>;

/// Tells the blocking half that nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Filesystem {
    /// The bucket in `directory`, with all keys below `prefix`. Touches nothing: a directory that does not exist is an
    /// empty bucket, and is made with the first object.
    pub(super) fn new(config: &FilesystemConfig, prefix: &str, limits: &Limits) -> Self {
        let directory = config.directory.display();
        let root = if prefix.is_empty() {
            config.directory.clone()
        } else {
            config.directory.join(prefix)
        };
        let cleanup = TaskTracker::new();
        // A tracker that is closed can be waited for; tasks may still be added.
        cleanup.close();
        Self {
            name: format!("fs: {directory}"),
            identity: format!("file://{}", root.display()),
            root,
            permits: Arc::new(Semaphore::new(limits.requests_at_once.max(1))),
            live: Live::default(),
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
        let (kind, help) = classify(op, error);
        let detail = if help.is_empty() {
            error.to_string()
        } else {
            format!("{error}; {help}")
        };
        Error {
            op,
            key: self.place(key),
            kind,
            detail,
            source: None,
        }
    }

    /// Where a key lives. Keys that would leave the directory, or that name a directory, have no place.
    fn path(&self, op: Op, key: &str) -> Result<PathBuf, Error> {
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if key.split('/').all(sound) && !key.split('/').any(is_temp) {
            return Ok(self.root.join(key));
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

    /// The directory of a listing; the root for an empty one.
    fn dir(&self, op: Op, dir: &str) -> Result<PathBuf, Error> {
        if dir.is_empty() {
            Ok(self.root.clone())
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
        let done = self.cleanup.spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| self.error(op, key, &error))
    }

    async fn put(&self, key: &str, content: Content) -> Result<(), Error> {
        let target = self.path(Op::Upload, key)?;
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(Arc::clone(&cancelled));
        let live = Arc::clone(&self.live);
        let done = self.cleanup.spawn_blocking(move || {
            let _permit = permit;
            write(&target, &content, live, &cancelled)
        });
        match done
            .await
            .unwrap_or_else(|error| Err(Failed::Store(io::Error::other(error))))
        {
            Ok(()) => Ok(()),
            Err(Failed::Store(error)) => Err(self.error(Op::Upload, key, &error)),
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
        self.put(key, Content::File(source.clone())).await
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.put(key, Content::Memory(body)).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let path = self.path(Op::Get, key)?;
        let read = self.blocking(Op::Get, key, move || read(&path, limit)).await?;
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

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        let path = self.dir(Op::Iter, dir)?;
        let base = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let mut objects = self
            .blocking(Op::Iter, dir, move || {
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

    async fn list_top(&self, after: &str) -> Result<Vec<String>, Error> {
        let (root, after) = (self.root.clone(), after.to_owned());
        self.blocking(Op::Iter, "", move || {
            let mut dirs = Vec::new();
            for entry in entries(&root)? {
                if entry.is_dir && entry.name > after && holds_objects(&root.join(&entry.name))? {
                    dirs.push(entry.name);
                }
            }
            dirs.sort_unstable();
            Ok(dirs)
        })
        .await
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        let path = self.dir(Op::Delete, dir)?;
        let live = Arc::clone(&self.live);
        self.blocking(Op::Delete, dir, move || remove_stale(&path, &live)).await
    }

    async fn settle(&self) {
        self.cleanup.wait().await;
    }
}

/// What kind of failure it is, and what helps.
fn classify(op: Op, error: &io::Error) -> (ErrorKind, &'static str) {
    use io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound if op == Op::Get => (ErrorKind::NotFound, ""),
        Io::PermissionDenied => (
            ErrorKind::Forbidden,
            "this process needs to read and write the directory",
        ),
        Io::ReadOnlyFilesystem => (ErrorKind::Forbidden, "the directory must be writable"),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Server, "free some space; nothing half-written is kept"),
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::InvalidInput => (
            ErrorKind::Refused,
            "something else has the object's name, or its name cannot be a file's",
        ),
        _ => (ErrorKind::Server, ""),
    }
}

/// Why an object was not written.
#[derive(Debug)]
enum Failed {
    Store(io::Error),
    Source(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Store(error)
    }
}

/// A temporary file; it goes when it is dropped.
struct Temp {
    path: PathBuf,
    live: Live,
}

impl Temp {
    fn create(dir: &Path, name: &str, live: Live) -> io::Result<(Self, fs_err::File)> {
        let path = dir.join(format!(".{name}.narthex-{:016x}.tmp", rand::random::<u64>()));
        live.lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .insert(path.clone());
        let temp = Self { path, live };
        let file = fs_err::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temp.path)?;
        Ok((temp, file))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove; a file that cannot be removed goes with `abort_stale`.
        let _ = fs_err::remove_file(&self.path);
        self.live
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .remove(&self.path);
    }
}

fn is_temp(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp") && name.contains(".narthex-")
}

fn write(target: &Path, content: &Content, live: Live, cancelled: &AtomicBool) -> Result<(), Failed> {
    let (Some(dir), Some(name)) = (target.parent(), target.file_name().and_then(OsStr::to_str)) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename).into());
    };
    create_dirs(dir)?;
    let (temp, mut file) = Temp::create(dir, name, live)?;
    let len = match content {
        Content::Memory(bytes) => {
            file.write_all(bytes)?;
            bytes.len() as u64
        }
        Content::File(source) => {
            copy(source, &mut file, cancelled)?;
            source.len
        }
    };
    file.sync_all()?;
    let written = file.metadata()?.len();
    if written != len {
        return Err(io::Error::other(format!("{written} bytes are on disk where {len} were written")).into());
    }
    still_wanted(cancelled)?;
    fs_err::rename(&temp.path, target)?;
    sync_dir(dir)?;
    Ok(())
}

fn copy(source: &Source, target: &mut fs_err::File, cancelled: &AtomicBool) -> Result<(), Failed> {
    let (mut buffer, mut at) = (vec![0; BUFFER], 0);
    while at < source.len {
        still_wanted(cancelled)?;
        let take = usize::try_from(source.len - at).map_or(BUFFER, |left| left.min(BUFFER));
        source.file.read_exact_at(&mut buffer[..take], at).map_err(|error| {
            let path = source.path.display();
            Failed::Source(match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    format!(
                        "{path} is shorter than the {} bytes it had when it was opened",
                        source.len
                    )
                }
                _ => format!("reading {path} failed: {error}"),
            })
        })?;
        target.write_all(&buffer[..take])?;
        at += take as u64;
    }
    Ok(())
}

fn still_wanted(cancelled: &AtomicBool) -> io::Result<()> {
    if cancelled.load(Ordering::Relaxed) {
        Err(io::Error::other("cancelled"))
    } else {
        Ok(())
    }
}

/// Makes a directory and what is missing above it, each of them lasting.
fn create_dirs(dir: &Path) -> io::Result<()> {
    match fs_err::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dirs(dir.parent().ok_or(error)?)?;
            match fs_err::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    match dir.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs_err::File::open(dir)?.sync_all()
}

/// Up to `limit` bytes; `None` if there are more.
fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = fs_err::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is a directory", path.display()),
        ));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// One name in a directory.
struct Entry {
    name: String,
    is_dir: bool,
    is_temp: bool,
    len: u64,
}

/// The directories and files in a directory. Links to files count as files, links to directories are left out, and so
/// is what has vanished meanwhile. A directory that does not exist is empty.
fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let missing = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let listing = match fs_err::read_dir(dir) {
        Err(error) if missing(&error) => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_dir = entry.file_type()?.is_dir();
        let len = match fs_err::metadata(entry.path()) {
            Ok(metadata) if is_dir || metadata.is_file() => metadata.len(),
            Ok(_) => continue,
            Err(error) if missing(&error) => continue,
            Err(error) => return Err(error),
        };
        entries.push(Entry {
            is_temp: !is_dir && is_temp(&name),
            name,
            is_dir,
            len,
        });
    }
    Ok(entries)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    GoOn,
    Stop,
}

/// Shows every object below a directory, in no order, until told to stop.
fn walk(dir: &Path, base: &str, each: &mut dyn FnMut(String, &Entry) -> Step) -> io::Result<Step> {
    for entry in entries(dir)? {
        let key = format!("{base}{}", entry.name);
        let step = if entry.is_dir {
            walk(&dir.join(&entry.name), &format!("{key}/"), each)?
        } else if entry.is_temp {
            Step::GoOn
        } else {
            each(key, &entry)
        };
        if step == Step::Stop {
            return Ok(Step::Stop);
        }
    }
    Ok(Step::GoOn)
}

fn holds_objects(dir: &Path) -> io::Result<bool> {
    Ok(walk(dir, "", &mut |_, _| Step::Stop)? == Step::Stop)
}

fn remove_stale(dir: &Path, live: &Live) -> io::Result<()> {
    for entry in entries(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_stale(&path, live)?;
        } else if entry.is_temp
            && !live
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .contains(&path)
        {
            match fs_err::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => tracing::info!(file = %path.display(), "removed a temporary file that was left behind"),
            }
        }
    }
    Ok(())
}
