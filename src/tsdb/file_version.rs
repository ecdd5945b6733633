//! Which file stood under a name: two looks that give the same version have seen the same content, as long as nobody writes
//! into a file in place. Prometheus does not: it replaces files of a block by renames.

use std::os::unix::fs::MetadataExt;

/// The version of a file, by its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileVersion {
    dev: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Tells an edit that set the time of modification back.
    changed: (i64, i64),
}

impl FileVersion {
    /// The version of the file that has this status.
    pub fn of(status: &std::fs::Metadata) -> Self {
        Self {
            dev: status.dev(),
            inode: status.ino(),
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }

    /// A version for tests: those of different numbers differ.
    #[cfg(test)]
    pub(crate) fn numbered(inode: u64) -> Self {
        Self {
            inode,
            ..Self::default()
        }
    }
}
