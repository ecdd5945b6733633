//! Puts the configuration where Prometheus reads it.
//!
//! A reader sees the old file or the new one, whole; a crash leaves one of them, and perhaps `<file>.tmp`, which the next
//! attempt overwrites. A file that holds the same already is not touched.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fs_err::{self as fs, os::unix::fs::OpenOptionsExt as _};

use super::render::read_limited;

/// Everybody may read it, as far as the umask allows: Prometheus may be another user.
const MODE: u32 = 0o644;

/// The name under which a new version of `path` is written.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    name.into()
}

/// Makes `content` the content of the file at `path`; whether it was another.
///
/// # Errors
/// The file cannot be written; it stands as it was then.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<bool> {
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    if is_file && read_limited(path).is_ok_and(|now| now == content) {
        return Ok(false);
    }
    let temporary = temporary(path);
    let replaced = create(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        // It may be what fills the disk; that it cannot be removed either is no news.
        let _ = fs::remove_file(&temporary);
    }
    replaced.map(|()| true)
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(MODE);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_only_by_another_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.yml");
        fs::write(temporary(&path), "left by a crash, and longer").unwrap();
        assert!(write(&path, b"a: b\n").unwrap());
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.permissions().mode() & 0o444, 0o444);
        assert!(!write(&path, b"a: b\n").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
        assert!(write(&path, b"a: c\n").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"a: c\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_it_cannot_be_written_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.yml");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("in"), "").unwrap();
        let error = write(&path, b"a: b\n").unwrap_err().to_string();
        assert!(error.contains("out.yml"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let missing = dir.path().join("no/out.yml");
        assert!(
            write(&missing, b"a: b\n")
                .unwrap_err()
                .to_string()
                .contains("no/out.yml.tmp")
        );
    }
}
