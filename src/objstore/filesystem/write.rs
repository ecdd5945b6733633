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
        let (Some(dir), Some(name)) = (target.parent(), target.file_name().and_then(OsStr::to_str)) else {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename).into());
        };
        self.unflushed.make_room(&sync)?;
        self.dirs.make(dir)?;
        let placed = match existing {
            Existing::Keep if fs_err::symlink_metadata(target).is_ok() => Placed::Exists,
            _ => {
                let temp = self.fill(dir, name, content, cancelled)?;
                check_cancelled(cancelled)?;
                // From before it has its name: an error may speak of a rename that was done, and who asked may be gone.
                self.unflushed.remember(target);
                place(&temp.path, target, existing)?
            }
        };
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

    /// A temporary file with all of `content`, flushed.
    fn fill(&self, dir: &Path, name: &str, content: &Content, cancelled: &AtomicBool) -> Result<Temp, Failed> {
        let (temp, mut file) = Temp::create(dir, name, Arc::clone(&self.live))?;
        let len = match content {
            Content::Memory(bytes) => {
                wait(self.rate_limit.send(bytes.len()), cancelled)?;
                file.write_all(bytes)?;
                bytes.len() as u64
            }
            Content::File(source) => {
                copy(source, &mut file, &self.rate_limit, cancelled)?;
                source.len
            }
        };
        file.sync_all()?;
        let written = file.metadata()?.len();
        if written != len {
            return Err(io::Error::other(format!("{written} bytes are on disk where {len} were written")).into());
        }
        Ok(temp)
    }
}

/// Reads by position: others may read the same descriptor at the same time.
fn copy(
    source: &Source,
    target: &mut fs_err::File,
    rate_limit: &RateLimit,
    cancelled: &AtomicBool,
) -> Result<(), Failed> {
    let most = BUFFER.min(rate_limit.step());
    let (mut buffer, mut at) = (vec![0; most], 0);
    while at < source.len {
        check_cancelled(cancelled)?;
        let take = usize::try_from(source.len - at).map_or(most, |left| left.min(most));
        fill(source, &mut buffer[..take], at).map_err(Failed::Source)?;
        wait(rate_limit.send(take), cancelled)?;
        target.write_all(&buffer[..take])?;
        at += take as u64;
    }
    Ok(())
}

/// Fills `buffer` from the byte `at` of a local file on, or says why not.
pub(super) fn fill(source: &Source, buffer: &mut [u8], at: u64) -> Result<(), String> {
    source.file.read_exact_at(buffer, at).map_err(|error| {
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
