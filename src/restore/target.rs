//! The directory that is restored to.
//!
//! While it is open it is locked, so that two restores do not mix; the lock goes with the process. A Prometheus that runs
//! on the directory holds a lock of its own: whether one runs is looked up once, at the start, and its lock is never taken.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::occupied;
use crate::tsdb::BlockId;

/// How the directory of a block is named while it is built, by Prometheus as well.
const UNFINISHED: &str = ".tmp-for-creation";

/// A directory that is restored to.
#[derive(Debug)]
pub struct Target {
    dir: PathBuf,
    /// Holds the lock.
    lock: File,
}

/// Why a directory cannot be restored to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is something else.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Another restore.
    #[error("another narthex restores to {0}; wait until it is done")]
    Busy(PathBuf),
    /// A Prometheus runs there.
    #[error(
        "a Prometheus uses {dir}, and would take in, compact and delete blocks meanwhile; stop it, or restore to an empty \
         directory. What was seen: {seen}"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What shows that it runs.
        seen: String,
    },
    /// The disk.
    #[error("cannot restore to {dir}: {}", explained(.error))]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Names the path. Not the source: the text has it already.
        error: io::Error,
    },
}

/// A failure of the disk, and what helps.
pub(super) fn explained(error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::PermissionDenied => "; this user needs to write there",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system must be writable",
        io::ErrorKind::FileTooLarge => "; the limit of file sizes of this process, or of the file system, is too low",
        _ => "",
    };
    format!("{error}{help}")
}

impl Target {
    /// Whether `dir` could be opened, as far as that can be told without making it.
    ///
    /// # Errors
    /// As for [`Target::open`].
    pub fn check(dir: &Path) -> Result<(), TargetError> {
        match fs_err::metadata(dir) {
            Ok(status) if status.is_dir() => free_of_prometheus(dir),
            Ok(_) => Err(TargetError::NotADirectory(dir.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(TargetError::NotADirectory(dir.to_owned()))
            }
            Err(error) => Err(io_error(dir)(error)),
        }
    }

    /// Opens `dir`, makes it if it is missing, and locks it.
    ///
    /// # Errors
    /// It is no directory, is in use, or cannot be written to.
    pub fn open(dir: &Path) -> Result<Self, TargetError> {
        Self::check(dir)?;
        make(dir).map_err(io_error(dir))?;
        let lock = fs_err::File::open(dir).map_err(io_error(dir))?.into_file();
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TargetError::Busy(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error(dir)(error)),
        }
        Ok(Self {
            dir: dir.to_owned(),
            lock,
        })
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a block is once it is restored.
    pub(super) fn finished(&self, id: BlockId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Where a block is built.
    pub(super) fn unfinished(&self, id: BlockId) -> PathBuf {
        self.dir.join(format!("{id}{UNFINISHED}"))
    }

    /// How many bytes of a block of `bytes` still have to come to this disk.
    pub fn lacks(&self, id: BlockId, bytes: u64) -> u64 {
        if fs_err::symlink_metadata(self.finished(id)).is_ok() {
            return 0;
        }
        bytes.saturating_sub(self.begun(id, false))
    }

    /// How many bytes on this disk belong to files of a block that were cut off: they make room when it is restored.
    pub fn cut_off(&self, id: BlockId) -> u64 {
        if fs_err::symlink_metadata(self.finished(id)).is_ok() {
            return 0;
        }
        self.begun(id, true)
    }

    /// How many bytes the files of an unfinished block have, either those that were cut off or the complete ones.
    fn begun(&self, id: BlockId, cut_off: bool) -> u64 {
        let dir = self.unfinished(id);
        // What cannot be read is not there.
        let files = [dir.join("chunks"), dir].into_iter().flat_map(|dir| {
            let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
            let counted =
                entries.filter(|entry| entry.path().extension().is_some_and(|name| name == "part") == cut_off);
            counted.filter_map(|entry| entry.metadata().ok().filter(|status| status.is_file()))
        });
        files.map(|status| status.len()).sum()
    }

    /// How many bytes fit on the disk.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free(&self) -> Result<u64, TargetError> {
        let status = rustix::fs::statvfs(&self.dir).map_err(|error| io_error(&self.dir)(error.into()))?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

fn io_error(dir: &Path) -> impl Fn(io::Error) -> TargetError {
    |error| TargetError::Io {
        dir: dir.to_owned(),
        error,
    }
}

/// Makes a directory and what is missing above it, each of them lasting.
fn make(dir: &Path) -> io::Result<()> {
    let made = match fs_err::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(dir.parent().ok_or(error)?)?;
            fs_err::create_dir(dir)
        }
        other => other,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        },
    }
}

/// The directories that were flushed: whether they were shows nowhere else.
#[cfg(test)]
pub(super) static SYNCED: std::sync::Mutex<Vec<PathBuf>> = std::sync::Mutex::new(Vec::new());

/// Makes what was created, renamed or removed in `dir` last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(test)]
    SYNCED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(dir.to_owned());
    fs_err::File::open(dir)?.sync_all()
}

fn free_of_prometheus(dir: &Path) -> Result<(), TargetError> {
    match occupied::sign(dir) {
        Ok(None) => Ok(()),
        Ok(Some(seen)) => Err(TargetError::InUse {
            dir: dir.to_owned(),
            seen,
        }),
        Err(error) => Err(io_error(dir)(error)),
    }
}

impl Drop for Target {
    /// A process that is started in this moment has the file open, too, and would keep the lock as long.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(dir = %self.dir.display(), %error, "cannot release the lock; it ends with the process");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_and_belongs_to_one_restore() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        Target::check(&dir).unwrap();
        assert!(fs_err::symlink_metadata(&dir).is_err());
        let target = Target::open(&dir).unwrap();
        let error = Target::open(&dir).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("another narthex restores to {}; wait until it is done", dir.display())
        );
        assert!(target.free().unwrap() > 0);
        drop(target);
        Target::open(&dir).unwrap();
    }

    #[test]
    fn what_is_no_directory_or_in_use_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs_err::write(&file, "").unwrap();
        for dir in [file.clone(), file.join("below")] {
            let error = Target::open(&dir).unwrap_err().to_string();
            assert_eq!(error, format!("{} is not a directory", dir.display()));
        }
        let lock = fs_err::File::create(root.path().join("lock")).unwrap().into_file();
        Target::open(root.path()).unwrap();
        lock.try_lock().unwrap();
        let error = Target::open(root.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("a Prometheus uses ") && error.contains("stop it"),
            "{error}"
        );
    }

    #[test]
    fn complete_files_are_not_counted_again() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::open(root.path()).unwrap();
        let id = BlockId::parse("01K4ABCDEFGHJKMNPQRSTVWXYZ").unwrap();
        assert_eq!(target.lacks(id, 100), 100);
        let chunks = target.unfinished(id).join("chunks");
        fs_err::create_dir_all(&chunks).unwrap();
        fs_err::write(chunks.join("000001"), [0; 30]).unwrap();
        fs_err::write(chunks.join("000002.part"), [0; 30]).unwrap();
        fs_err::write(target.unfinished(id).join("index"), [0; 8]).unwrap();
        assert_eq!((target.lacks(id, 100), target.cut_off(id)), (62, 30));
        fs_err::create_dir(target.finished(id)).unwrap();
        assert_eq!((target.lacks(id, 100), target.cut_off(id)), (0, 0));
    }
}
