//! An object's way to disk: directories, temporary name, flush, rename, flush.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    dirs::{self, Dirs},
    file,
    place::{Existing, place},
    unflushed::Unflushed,
};
use crate::objstore::{Placed, RateLimit, Source, rate_limit};

/// How much is copied at once.
pub(super) const BUFFER: usize = 256 * 1024;

/// What is to become an object.
pub(super) enum Content {
    File(Source),
    Memory(Bytes),
}

/// Temporary files that are being written.
pub(super) type InProgress = Arc<Mutex<HashSet<PathBuf>>>;

/// Why an object was not written.
#[derive(Debug)]
pub(super) enum Failed {
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
    live: InProgress,
}

impl Temp {
    fn create(dir: &Path, name: &str, live: InProgress) -> io::Result<(Self, fs_err::File)> {
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

/// An object that has no name yet; its temporary file goes when it is dropped, which blocks.
pub(super) struct Unfinished {
    temp: Temp,
    file: fs_err::File,
    /// How many bytes were written.
    len: u64,
}

/// What all writing to one bucket shares.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) dirs: Dirs,
    pub(super) live: InProgress,
    pub(super) unflushed: Unflushed,
    pub(super) rate_limit: RateLimit,
    /// Flushes what is at a path.
    pub(super) sync: fn(&Path) -> io::Result<()>,
}

impl Writer {
    /// The writer of the bucket in this directory.
    pub(super) fn below(root: &Path, rate_limit: RateLimit) -> Self {
        Self {
            dirs: Dirs::below(root),
            live: InProgress::default(),
            unflushed: Unflushed::default(),
            rate_limit,
            sync: dirs::sync,
        }
    }

    /// Flushes again what is at or below `path` and could not be flushed when it was written.
    pub(super) fn flush_again(&self, path: &Path) -> io::Result<()> {
        self.unflushed.flush(path, self.sync)
    }

    /// Makes `content` the object at `target`. When it returns `Ok`, what is there lasts, whoever put it there.
    pub(super) fn write(
        &self,
        target: &Path,
        content: &Content,
        existing: Existing,
        cancelled: &AtomicBool,
    ) -> Result<Placed, Failed> {
        self.write_with(target, content, existing, cancelled, self.sync)
    }

    /// The same; `sync` flushes what is at a path.
    fn write_with(
        &self,
        target: &Path,
        content: &Content,
        existing: Existing,
        cancelled: &AtomicBool,
        sync: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<Placed, Failed> {
        let (dir, _) = split(target)?;
        self.prepare(dir, &sync)?;
        if existing == Existing::Keep && fs_err::symlink_metadata(target).is_ok() {
            return self.flush_placed(target, Placed::Exists, sync);
        }
        let mut unfinished = self.create(target)?;
        match content {
            Content::Memory(bytes) => self.append(&mut unfinished, bytes, cancelled)?,
            Content::File(source) => self.copy(source, &mut unfinished, cancelled)?,
        }
        self.finish_with(unfinished, target, existing, cancelled, sync)
    }

    /// Begins an object at `target` that is written bit by bit: its directories, and a temporary file.
    pub(super) fn begin(&self, target: &Path) -> Result<Unfinished, Failed> {
        self.prepare(split(target)?.0, self.sync)?;
        Ok(self.create(target)?)
    }

    fn prepare(&self, dir: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        self.unflushed.make_room(sync)?;
        self.dirs.make(dir)
    }

    fn create(&self, target: &Path) -> io::Result<Unfinished> {
        let (dir, name) = split(target)?;
        let (temp, file) = Temp::create(dir, name, Arc::clone(&self.live))?;
        Ok(Unfinished { temp, file, len: 0 })
    }

    /// Appends bytes, no faster than the rate limit.
    pub(super) fn append(
        &self,
        unfinished: &mut Unfinished,
        bytes: &[u8],
        cancelled: &AtomicBool,
    ) -> Result<(), Failed> {
        for bytes in bytes.chunks(BUFFER.min(self.rate_limit.step())) {
            check_cancelled(cancelled)?;
            wait(self.rate_limit.send(bytes.len()), cancelled)?;
            unfinished.file.write_all(bytes)?;
            unfinished.len += bytes.len() as u64;
        }
        Ok(())
    }

    /// Appends a file. Reads by position: others may read the same descriptor at the same time.
    fn copy(&self, source: &Source, unfinished: &mut Unfinished, cancelled: &AtomicBool) -> Result<(), Failed> {
        let most = BUFFER.min(self.rate_limit.step());
        let mut buffer = vec![0; most];
        while unfinished.len < source.len {
            check_cancelled(cancelled)?;
            let take = usize::try_from(source.len - unfinished.len).map_or(most, |left| left.min(most));
            fill(source, &mut buffer[..take], unfinished.len).map_err(Failed::Source)?;
            self.append(unfinished, &buffer[..take], cancelled)?;
            source.read.add(take);
        }
        Ok(())
    }

    /// Makes what was written the object at `target`. When it returns `Ok`, it lasts.
    pub(super) fn finish(
        &self,
        unfinished: Unfinished,
        target: &Path,
        cancelled: &AtomicBool,
    ) -> Result<Placed, Failed> {
        self.finish_with(unfinished, target, Existing::Replace, cancelled, self.sync)
    }

    fn finish_with(
        &self,
        unfinished: Unfinished,
        target: &Path,
        existing: Existing,
        cancelled: &AtomicBool,
        sync: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<Placed, Failed> {
        let Unfinished { temp, file, len } = unfinished;
        file.sync_all()?;
        let written = file.metadata()?.len();
        if written != len {
            return Err(io::Error::other(format!("{written} bytes are on disk where {len} were written")).into());
        }
        check_cancelled(cancelled)?;
        // From before it has its name: an error may speak of a rename that was done, and who asked may be gone.
        self.unflushed.remember(target);
        let placed = place(&temp.path, target, existing)?;
        // Its other name, if it has one, is not to be flushed with it.
        drop(temp);
        self.flush_placed(target, placed, sync)
    }

    /// Sees that what is at `target` lasts, whoever put it there.
    fn flush_placed(
        &self,
        target: &Path,
        placed: Placed,
        sync: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<Placed, Failed> {
        let (dir, _) = split(target)?;
        let flushed = match placed {
            Placed::Exists => {
                file::check(target)?;
                // Another program may have written it and not flushed it.
                sync(target).and_then(|()| sync(dir))
            }
            Placed::Created => sync(dir),
        };
        self.unflushed.record(target, flushed)?;
        Ok(placed)
    }
}

/// The directory and the name of an object.
fn split(target: &Path) -> io::Result<(&Path, &str)> {
    match (target.parent(), target.file_name().and_then(OsStr::to_str)) {
        (Some(dir), Some(name)) => Ok((dir, name)),
        _ => Err(io::ErrorKind::InvalidFilename.into()),
    }
}

/// Fills `buffer` from the byte `at` of what is sent on, or says why not.
pub(super) fn fill(source: &Source, buffer: &mut [u8], at: u64) -> Result<(), String> {
    source.file.read_exact_at(buffer, source.start + at).map_err(|error| {
        let path = source.path.display();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!(
                    "{path} is shorter than the {} bytes it had when it was opened",
                    source.len
                )
            }
            _ => format!("reading {path} failed: {error}"),
        }
    })
}

/// Waits as long as the rate limit asks for, on a thread that may block.
pub(super) fn wait(pause: Duration, cancelled: &AtomicBool) -> io::Result<()> {
    rate_limit::sleep_unless(pause, || check_cancelled(cancelled))
}

pub(super) fn check_cancelled(cancelled: &AtomicBool) -> io::Result<()> {
    if cancelled.load(Ordering::Relaxed) {
        Err(io::Error::other("cancelled"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn an_object_that_another_program_wrote_is_flushed_before_it_counts_as_lasting() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::below(dir.path(), RateLimit::default());
        let [block, target] = ["block", "block/meta.json"].map(|name| dir.path().join(name));
        let flushed = RefCell::new(Vec::new());
        let write = || {
            let sync = |path: &Path| {
                flushed.borrow_mut().push(path.to_owned());
                dirs::sync(path)
            };
            let content = Content::Memory(Bytes::from_static(b"{}"));
            let placed = writer.write_with(&target, &content, Existing::Keep, &AtomicBool::new(false), sync);
            (placed.unwrap(), flushed.take())
        };
        // What is new was flushed before it got its name.
        assert_eq!(write(), (Placed::Created, vec![block.clone()]));
        fs_err::write(&target, "{}").unwrap();
        assert_eq!(write(), (Placed::Exists, vec![target.clone(), block.clone()]));
    }

    #[test]
    fn an_object_counts_as_not_flushed_from_the_moment_that_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::below(dir.path(), RateLimit::default());
        let [block, target] = ["block", "block/meta.json"].map(|name| dir.path().join(name));
        // What a reader would have to flush before the object counts.
        let due = || {
            let flushed = RefCell::new(Vec::new());
            let flush = |path: &Path| {
                flushed.borrow_mut().push(path.to_owned());
                Ok(())
            };
            writer.unflushed.flush(&target, flush).unwrap();
            flushed.into_inner()
        };
        let seen = RefCell::new(Vec::new());
        let sync = |_: &Path| {
            seen.borrow_mut().push(due());
            Ok(())
        };
        let content = Content::Memory(Bytes::from_static(b"{}"));
        let placed = writer.write_with(&target, &content, Existing::Keep, &AtomicBool::new(false), sync);
        assert_eq!(placed.unwrap(), Placed::Created);
        assert_eq!(seen.into_inner(), [[target.clone(), block]]);
        assert_eq!(due(), [""; 0].map(PathBuf::from), "it was flushed");
    }
}
