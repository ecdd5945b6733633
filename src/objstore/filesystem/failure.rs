//! What a failure of the system means: for one object, or for the whole bucket.
//!
//! A bad sector, a damaged directory, a link in a circle or a directory that is closed to this process concerns the objects
//! there and no others, as long as the bucket's own directory can be listed. Where that fails too, as when a file system on
//! the network is gone, the failure is that of the bucket.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};

use super::{file::NotAFile, root::Unavailable};
use crate::objstore::{Error, ErrorKind, Op};

/// The flush of an object that is in its place failed.
#[derive(Debug)]
pub(super) struct NotFlushed {
    pub(super) path: PathBuf,
    pub(super) why: io::Error,
}

impl fmt::Display for NotFlushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, why) = (self.path.display(), &self.why);
        write!(
            f,
            "{path} was written, but it or its directory could not be flushed to disk: {why}; it does not count, as a crash of \
             the host may take it away, and is flushed again with the next try. Check the file system and its disk"
        )
    }
}

impl std::error::Error for NotFlushed {}

/// A failure of the system, as one on the object at `place` of the bucket in the directory `base`. Looks at that directory,
/// so that it is for threads that may block.
pub(super) fn failure(op: Op, place: String, base: &Path, error: &io::Error) -> Error {
    let (kind, help) = classify(op, error);
    let (op, kind, help) = match (op, kind) {
        // What cannot be listed cannot be read.
        (Op::Iter, ErrorKind::Forbidden) if permits(base, Access::READ_OK | Access::EXEC_OK) => (Op::Get, kind, help),
        (Op::Iter, ErrorKind::Refused) if can_be_listed(base) => (Op::Get, kind, help),
        (Op::Upload, ErrorKind::Forbidden) if permits(base, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) => {
            (op, ErrorKind::Refused, help)
        }
        (Op::Get | Op::Iter, ErrorKind::Server) if is_of_one_file(error) && can_be_listed(base) => {
            let help = "the directory of the bucket can be listed, so this concerns what is at this path alone: check the \
                        file system and its disk, or move it away";
            (Op::Get, ErrorKind::Refused, help)
        }
        unchanged => (unchanged.0, unchanged.1, help),
    };
    let detail = match help {
        "" => error.to_string(),
        help => format!("{error}; {help}"),
    };
    Error {
        op,
        key: place,
        kind,
        detail,
        source: None,
    }
}

/// Whether the file system fails so when one file or directory is damaged or is a link in a circle; some of these are also
/// what it says when all of it is broken.
pub(super) fn is_of_one_file(error: &io::Error) -> bool {
    // Too many open files: of this kind, too, where the number is known.
    let exhausted = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    // Most of what the system has numbers for is of one kind that has no name: EIO, EBADMSG, EUCLEAN, ENODATA.
    [Errno::IO, Errno::LOOP]
        .map(|errno| io::Error::from(errno).kind())
        .contains(&error.kind())
        && !error.raw_os_error().is_some_and(|number| exhausted.contains(&number))
}

fn permits(base: &Path, needed: Access) -> bool {
    access(base, needed).is_ok()
}

fn can_be_listed(base: &Path) -> bool {
    fs_err::read_dir(base).is_ok_and(|mut entries| !matches!(entries.next(), Some(Err(_))))
}

/// What kind of failure it is, and what helps.
pub(super) fn classify(op: Op, error: &io::Error) -> (ErrorKind, &'static str) {
    use io::ErrorKind as Io;
    if let Some(inner) = error.get_ref() {
        if inner.is::<Unavailable>() {
            return (ErrorKind::NoBucket, "");
        }
        if inner.is::<NotAFile>() {
            return (ErrorKind::Refused, "");
        }
        if inner.is::<NotFlushed>() {
            return (ErrorKind::Unflushed, "");
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::Scope;

    const DAMAGED: [Errno; 5] = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::LOOP, Errno::NOTDIR];

    fn failed(op: Op, base: &Path, errno: Errno) -> (Op, ErrorKind, Scope) {
        let error = failure(op, "file:///bucket/a".to_owned(), base, &errno.into());
        (error.op, error.kind, error.scope())
    }

    #[test]
    fn what_is_damaged_is_refused_alone_while_the_directory_of_the_bucket_can_be_listed() {
        let base = tempfile::tempdir().unwrap();
        for op in [Op::Get, Op::Iter] {
            for errno in DAMAGED {
                let expected = (Op::Get, ErrorKind::Refused, Scope::Object);
                assert_eq!(failed(op, base.path(), errno), expected, "{op}: {errno}");
            }
        }
    }

    #[test]
    fn a_file_system_that_is_gone_is_a_failure_of_the_bucket() {
        let base = tempfile::tempdir().unwrap();
        let gone = base.path().join("gone");
        for op in [Op::Get, Op::Iter] {
            for errno in [Errno::IO, Errno::NODEV, Errno::STALE, Errno::TIMEDOUT] {
                let expected = (op, ErrorKind::Server, Scope::Bucket);
                assert_eq!(failed(op, &gone, errno), expected, "{op}: {errno}");
            }
            // These are of the mount, or of this process, although its directory may still be listed.
            for errno in [Errno::STALE, Errno::TIMEDOUT, Errno::MFILE, Errno::NFILE] {
                let expected = (op, ErrorKind::Server, Scope::Bucket);
                assert_eq!(failed(op, base.path(), errno), expected, "{op}: {errno}");
            }
        }
    }

    #[test]
    fn a_write_that_fails_is_a_failure_of_the_bucket() {
        let base = tempfile::tempdir().unwrap();
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::STALE] {
            let expected = (Op::Upload, ErrorKind::Server, Scope::Bucket);
            assert_eq!(failed(Op::Upload, base.path(), errno), expected, "{errno}");
        }
    }
}
