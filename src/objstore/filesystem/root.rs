//! The configured directory: whether it is there, and whether it is still the one that it was.
//!
//! It is never made here. Where a file system belongs there and is not mounted, a directory made in its place would be
//! an empty bucket that takes everything, and all of it would be out of sight once the mount is back. For the same
//! reason the directory that was seen first is remembered for the life of the process: while another one stands in its
//! place (its file system was unmounted, or something mounted over it) nothing is read, listed or written. A restart
//! accepts what is there then; [`DirectoryId`] as text tells whoever kept it whether that is the same place.

use std::{
    fmt, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The type of file systems in user space. They may number a directory anew whenever the kernel has forgotten it.
const FUSE: i128 = 0x6573_5546;

/// What tells one directory from another at the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectoryId {
    /// What kind of file system it is on.
    kind: i128,
    /// The file system's own identity; 0 where it has none.
    file_system: u64,
    /// The number of its device in this life of the kernel.
    device: u64,
    /// The directory's number in its file system; 0 where that does not last.
    inode: u64,
}

impl DirectoryId {
    fn of(directory: &Path) -> io::Result<Self> {
        let there = fs_err::metadata(directory)?;
        if !there.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let kind = i128::from(rustix::fs::statfs(directory)?.f_type);
        Ok(Self {
            kind,
            file_system: rustix::fs::statvfs(directory)?.f_fsid,
            device: there.dev(),
            inode: if kind == FUSE { 0 } else { there.ino() },
        })
    }

    /// Whether both are of one directory. A file system without an identity of its own is known by its device, which is
    /// another one when it is mounted anew.
    fn is_same(&self, other: &Self) -> bool {
        let same_file_system = match (self.file_system, other.file_system) {
            (0, _) | (_, 0) => self.device == other.device,
            (ours, theirs) => ours == theirs,
        };
        self.kind == other.kind && self.inode == other.inode && same_file_system
    }
}

/// Without the device, whose number does not survive a restart of the host.
impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{}", self.kind, self.file_system, self.inode)
    }
}

/// Why there is no bucket.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// Nothing is there, or no directory.
    Missing(PathBuf),
    /// Another directory than before is there.
    Other(PathBuf),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::Missing(path) => write!(
                f,
                "there is no directory {}: make it, or mount what belongs there; it is not made by narthex, and is looked \
                 for again with the next try",
                path.display()
            ),
            Unavailable::Other(path) => write!(
                f,
                "the directory {} is not the one that was there before: its file system was unmounted, another one was \
                 mounted over it, or it was made anew. Bring the former one back, which is noticed with the next try, or \
                 restart narthex to use this one",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Unavailable {}

/// The configured directory.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    first: Mutex<Option<DirectoryId>>,
}

impl Root {
    /// Looks at nothing yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            first: Mutex::default(),
        }
    }

    /// Fails with [`Unavailable`] inside if the directory is not there, or is another one than at the first call.
    pub(super) fn check(&self) -> io::Result<DirectoryId> {
        let now = DirectoryId::of(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                unavailable(Unavailable::Missing(self.path.clone()))
            }
            _ => error,
        })?;
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.get_or_insert(now).is_same(&now) {
            Ok(now)
        } else {
            Err(unavailable(Unavailable::Other(self.path.clone())))
        }
    }

    /// Runs `work` between two checks: what it found, or did not find, counts only if it was looked for in the right
    /// place.
    pub(super) fn during<T, E: From<io::Error>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.check()?;
        let done = work();
        self.check()?;
        done
    }
}

fn unavailable(why: Unavailable) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_told_apart_by_what_lasts() {
        let here = DirectoryId {
            kind: 0xef53,
            file_system: 7,
            device: 5,
            inode: 2,
        };
        let nameless = DirectoryId { file_system: 0, ..here };
        for (same, one, other, why) in [
            (true, here, here, "nothing changed"),
            (true, here, DirectoryId { device: 6, ..here }, "mounted anew"),
            (
                false,
                here,
                DirectoryId { file_system: 8, ..here },
                "another file system",
            ),
            (false, here, DirectoryId { inode: 3, ..here }, "made anew"),
            (false, here, DirectoryId { kind: 1, ..here }, "another kind"),
            (true, nameless, nameless, "nothing changed"),
            (false, nameless, DirectoryId { device: 6, ..nameless }, "another mount"),
        ] {
            assert_eq!(one.is_same(&other), same, "{why}");
            assert_eq!(other.is_same(&one), same, "{why}");
        }
        assert_eq!(here.to_string(), DirectoryId { device: 6, ..here }.to_string());
    }

    #[test]
    fn two_mounts_are_two_places_although_both_are_roots() {
        // Both are mounted wherever Linux runs.
        let [proc, sys] = ["/proc", "/sys"].map(|path| DirectoryId::of(Path::new(path)).unwrap());
        assert!(!proc.is_same(&sys) && proc.to_string() != sys.to_string());
    }

    #[test]
    fn what_was_found_elsewhere_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let [path, aside] = ["bucket", "aside"].map(|name| dir.path().join(name));
        fs_err::create_dir(&path).unwrap();
        let root = Root::new(&path);
        let swapped = root.during(|| {
            fs_err::rename(&path, &aside)?;
            fs_err::create_dir(&path)
        });
        assert!(swapped.unwrap_err().to_string().contains("not the one"));
        assert!(root.during(|| io::Result::Ok(())).is_err(), "it stays so");
        fs_err::remove_dir(&path).unwrap();
        fs_err::rename(&aside, &path).unwrap();
        root.during(|| io::Result::Ok(())).unwrap();
    }
}
