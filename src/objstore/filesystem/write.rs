//! An object's way to disk: temporary name, flush, rename, flush.

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

use crate::objstore::{Pace, Source, pace};

/// How much is copied at once.
pub(super) const BUFFER: usize = 256 * 1024;

/// What is to become an object.
pub(super) enum Content {
    File(Source),
    Memory(Bytes),
}

/// Temporary files that are being written.
pub(super) type Live = Arc<Mutex<HashSet<PathBuf>>>;

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

pub(super) fn write(
    target: &Path,
    content: &Content,
    live: Live,
    pace: &Pace,
    cancelled: &AtomicBool,
) -> Result<(), Failed> {
    let (Some(dir), Some(name)) = (target.parent(), target.file_name().and_then(OsStr::to_str)) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename).into());
    };
    create_dirs(dir)?;
    let (temp, mut file) = Temp::create(dir, name, live)?;
    let len = match content {
        Content::Memory(bytes) => {
            wait(pace.send(bytes.len()), cancelled)?;
            file.write_all(bytes)?;
            bytes.len() as u64
        }
        Content::File(source) => {
            copy(source, &mut file, pace, cancelled)?;
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

/// Reads by position: others may read the same descriptor at the same time.
fn copy(source: &Source, target: &mut fs_err::File, pace: &Pace, cancelled: &AtomicBool) -> Result<(), Failed> {
    let most = BUFFER.min(pace.step());
    let (mut buffer, mut at) = (vec![0; most], 0);
    while at < source.len {
        still_wanted(cancelled)?;
        let take = usize::try_from(source.len - at).map_or(most, |left| left.min(most));
        fill(source, &mut buffer[..take], at).map_err(Failed::Source)?;
        wait(pace.send(take), cancelled)?;
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

/// Waits for the pace's sake, on a thread that may block.
pub(super) fn wait(pause: Duration, cancelled: &AtomicBool) -> io::Result<()> {
    pace::rest(pause, || still_wanted(cancelled))
}

pub(super) fn still_wanted(cancelled: &AtomicBool) -> io::Result<()> {
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
