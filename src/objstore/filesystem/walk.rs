//! What is on disk: objects, and what only looks like them.

use std::{
    io::{self, Read},
    path::Path,
    time::SystemTime,
};

use super::{
    failure::is_of_one_file,
    file::{self, missing},
    write::InProgress,
};

/// Whether a file of this name is one of our own that is not an object yet.
pub(super) fn is_temp(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp") && name.contains(".narthex-")
}

/// Up to `limit` bytes; `None` if there are more.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let (file, _) = file::open(path)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// One name in a directory.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_dir: bool,
    pub(super) is_temp: bool,
    pub(super) len: u64,
    /// When it was last written to, where the file system tells.
    pub(super) modified: Option<SystemTime>,
}

/// The names in a directory that are text; none if it does not exist.
fn names(dir: &Path) -> io::Result<Vec<(String, fs_err::DirEntry)>> {
    let listing = match fs_err::read_dir(dir) {
        Err(error) if missing(&error) => return Ok(Vec::new()),
        listing => listing?,
    };
    let named = listing.filter_map(|entry| match entry {
        Ok(entry) => Some(Ok((entry.file_name().into_string().ok()?, entry))),
        Err(error) => Some(Err(error)),
    });
    named.collect()
}

/// Whether a name is that of a directory, and not that of a link to one.
fn is_dir(entry: &fs_err::DirEntry) -> io::Result<bool> {
    match entry.file_type() {
        Err(error) if missing(&error) => Ok(false),
        kind => Ok(kind?.is_dir()),
    }
}

/// The directories in `dir` whose names are `wanted` and that hold an object, in no order. No other one is opened: it may be
/// closed to this process, as `lost+found` in the root of a file system is. One that is wanted and cannot be read is named,
/// since nobody knows what is in it: whoever reads it gets the error.
pub(super) fn dirs(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut dirs = Vec::new();
    for (name, entry) in names(dir)? {
        if wanted(&name) && or_unknown(is_dir(&entry))? && or_unknown(holds_objects(&entry.path()))? {
            dirs.push(name);
        }
    }
    Ok(dirs)
}

/// The directories and files in a directory. Links to files count as files, links to directories are left out, and so
/// is what has vanished meanwhile. A directory that does not exist is empty.
fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (name, entry) in names(dir)? {
        let is_dir = is_dir(&entry)?;
        let (len, modified) = match fs_err::metadata(entry.path()) {
            Ok(metadata) if is_dir || metadata.is_file() => (metadata.len(), metadata.modified().ok()),
            Ok(_) => continue,
            Err(error) if missing(&error) => continue,
            Err(error) => return Err(error),
        };
        entries.push(Entry {
            is_temp: !is_dir && is_temp(&name),
            name,
            is_dir,
            len,
            modified,
        });
    }
    Ok(entries)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    GoOn,
    Stop,
}

/// Shows every object below a directory, in no order, until told to stop.
pub(super) fn walk(dir: &Path, base: &str, each: &mut dyn FnMut(String, &Entry) -> Step) -> io::Result<Step> {
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

/// What was found out about one directory in the bucket: `true` where it alone cannot be read.
fn or_unknown(found: io::Result<bool>) -> io::Result<bool> {
    match found {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidFilename
            ) || is_of_one_file(&error) =>
        {
            Ok(true)
        }
        found => found,
    }
}

/// Removes temporary files below `dir` that nobody has written to since `before`. Another process may be at work on
/// younger ones; those in `live` are our own.
pub(super) fn remove_stale(dir: &Path, before: SystemTime, live: &InProgress) -> io::Result<()> {
    for entry in entries(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_stale(&path, before, live)?;
        } else if entry.is_temp
            && entry.modified.is_some_and(|modified| modified < before)
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

/// Removes the file at `path`, which need not be there, and the directories between it and `base` as far as they are empty: so
/// that nothing of it stays.
pub(super) fn remove_with_dirs(base: &Path, path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let dirs = path
        .ancestors()
        .skip(1)
        .take_while(|dir| *dir != base && dir.starts_with(base));
    for dir in dirs {
        // One that holds more, or that another process has just removed, stays or is gone.
        if fs_err::remove_dir(dir).is_err() {
            break;
        }
    }
    Ok(())
}
