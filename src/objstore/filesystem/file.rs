//! The file that is an object: looked at before it is opened.
//!
//! To open a pipe waits for its other end, which may never come, and to open a device may set something off. So only a
//! regular file, or a link to one, is opened; what else bears an object's name is refused for that object in words that say
//! what it is. A link that leads nowhere is refused as well, and is not taken for an object that is absent: its object may
//! be on a file system that is not mounted, and nothing is to be sent in its place.

use std::{
    fmt,
    fs::{File, FileType, Metadata},
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::dirs::leads_nowhere;

/// What bears an object's name and can be no object.
#[derive(Debug)]
pub(super) struct NotAFile {
    path: PathBuf,
    what: &'static str,
}

impl fmt::Display for NotAFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, what) = (self.path.display(), self.what);
        write!(
            f,
            "{path} is {what} and not a file, so it cannot be an object; move it away"
        )
    }
}

impl std::error::Error for NotAFile {}

/// What is known of the file at `path`. A directory is [`io::ErrorKind::IsADirectory`]; anything else that is no regular
/// file, nor a link to one, is [`NotAFile`] inside.
pub(super) fn check(path: &Path) -> io::Result<Metadata> {
    let not_a_file = |what| {
        let path = path.to_owned();
        io::Error::new(io::ErrorKind::InvalidInput, NotAFile { path, what })
    };
    let there = fs_err::metadata(path).map_err(|error| match leads_nowhere(path) {
        true => not_a_file("a symbolic link that leads nowhere or in a circle"),
        false => error,
    })?;
    match there.file_type() {
        kind if kind.is_file() => Ok(there),
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        kind => Err(not_a_file(name(kind))),
    }
}

fn name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_fifo() => "a named pipe (FIFO)",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Whether nothing is there: no such name (any more), or a link that leads nowhere or round in a circle.
pub(crate) fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.kind() == io::Error::from(Errno::LOOP).kind()
}

/// An object's file, and its size in bytes; a directory is no object. Errors of opening keep the number that the system
/// gave.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    check(path).map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => {
            let detail = format!("{} is a directory", path.display());
            io::Error::new(io::ErrorKind::NotFound, detail)
        }
        _ => error,
    })?;
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let len = file.metadata()?.len();
    Ok((file, len))
}
