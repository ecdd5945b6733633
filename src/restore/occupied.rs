//! Whether a Prometheus uses a directory.
//!
//! A running Prometheus holds an exclusive lock on the file `lock`. That file is never locked here, not even for a moment:
//! a Prometheus that started in that moment would exit. The kernel tells who holds which lock; where it does not, since the
//! holder lives in another pid namespace or on another host, the files tell that somebody writes. Nothing is made or
//! written here, and nothing is kept.

use std::{
    fs::Metadata,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// Somebody who wrote to the files of a Prometheus within this time is taken for one that runs.
const RECENT: Duration = Duration::from_secs(120);
/// The locks of this host.
const LOCKS: &str = "/proc/locks";
/// No more of them is read (bytes).
const MOST_LOCKS: u64 = 16 << 20;
/// Where a Prometheus writes all the time: directories of segments, and its queries.
const WRITTEN: [&str; 3] = ["wal", "chunks_head", "queries.active"];

/// What shows that a Prometheus uses `dir`, in words; `None` if nothing does.
///
/// # Errors
/// The status of the file `lock` cannot be read.
pub(super) fn sign(dir: &Path) -> io::Result<Option<String>> {
    let lock = match fs_err::metadata(dir.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Without the list of locks the files have to tell.
    let locks = fs_err::File::open(LOCKS).ok();
    let held = locks.is_some_and(|locks| is_locked(BufReader::new(locks.take(MOST_LOCKS)), &lock));
    if held {
        return Ok(Some("it holds its lock on the file lock".to_owned()));
    }
    let newest = WRITTEN
        .iter()
        .filter_map(|name| newest(dir, name))
        .max_by_key(|(at, _)| *at);
    let recent = newest.filter(|(at, _)| SystemTime::now().duration_since(*at).is_ok_and(|age| age < RECENT));
    Ok(recent.map(|(_, name)| {
        format!(
            "there is a file lock, and {name} was written within the last two minutes. If none runs there any more, wait until \
             two minutes have passed since, or remove the file lock"
        )
    }))
}

/// Whether a list as in `/proc/locks` has a lock on this file:
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:131072 0 EOF`, device and inode being the sixth word.
fn is_locked(locks: impl BufRead, file: &Metadata) -> bool {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let held = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let lines = locks.lines().map_while(Result::ok);
    let mut words = lines.map(|line| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
    // One who waits for a lock has an arrow before its kind.
    words.any(|words| words.get(5) == Some(&held) && words.get(1).is_some_and(|kind| kind != "->"))
}

/// When the file `name` in `dir`, or the newest file in that directory, was written, and which one it is.
fn newest(dir: &Path, name: &str) -> Option<(SystemTime, String)> {
    let path = dir.join(name);
    // What cannot be read tells nothing.
    let status = fs_err::metadata(&path).ok()?;
    if !status.is_dir() {
        return Some((status.modified().ok()?, name.to_owned()));
    }
    let entries = fs_err::read_dir(path).ok()?.flatten();
    let written = entries.filter_map(|entry| {
        let at = entry.metadata().ok().filter(Metadata::is_file)?.modified().ok()?;
        Some((at, format!("{name}/{}", entry.file_name().to_string_lossy())))
    });
    written.max_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn lock(dir: &Path) -> std::fs::File {
        fs_err::File::create(dir.join("lock")).unwrap().into_file()
    }

    fn write(dir: &Path, name: &str, age: Duration) {
        let path = dir.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs_err::File::create(path).unwrap().into_file();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn a_lock_that_is_held_is_seen_and_one_that_is_not_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sign(dir.path()).unwrap(), None);
        let lock = lock(dir.path());
        assert_eq!(sign(dir.path()).unwrap(), None);
        lock.try_lock().unwrap();
        assert_eq!(
            sign(dir.path()).unwrap().as_deref(),
            Some("it holds its lock on the file lock")
        );
        lock.unlock().unwrap();
        assert_eq!(sign(dir.path()).unwrap(), None);
    }

    #[test]
    fn nobody_who_takes_the_lock_meanwhile_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, done) = (lock(dir.path()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..5000 {
                    let _ = sign(dir.path());
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                lock.try_lock().unwrap();
                lock.unlock().unwrap();
            }
        });
    }

    #[test]
    fn where_the_kernel_does_not_tell_what_was_written_last_does() {
        const OLD: Duration = Duration::from_secs(200);
        for name in ["wal/00000003", "chunks_head/000002", "queries.active"] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "wal/00000002", OLD);
            write(dir.path(), "chunks_head/000001", OLD);
            write(dir.path(), name, Duration::from_secs(5));
            assert_eq!(sign(dir.path()).unwrap(), None, "without a lock none runs");
            let _lock = lock(dir.path());
            let seen = sign(dir.path()).unwrap().unwrap();
            assert!(seen.contains(name) && seen.contains("remove the file lock"), "{seen}");
            write(dir.path(), name, OLD);
            assert_eq!(sign(dir.path()).unwrap(), None, "it was killed a while ago");
        }
    }

    #[test]
    fn only_a_holder_of_this_very_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = lock(dir.path());
        let file = fs_err::metadata(dir.path().join("lock")).unwrap();
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        let at = |inode: u64| format!("{major:02x}:{minor:02x}:{inode}");
        for (line, held) in [
            (format!("1: FLOCK  ADVISORY  WRITE 12 {} 0 EOF", at(file.ino())), true),
            (format!("9: POSIX  ADVISORY  WRITE 12 {} 0 EOF", at(file.ino())), true),
            (
                format!("1: FLOCK  ADVISORY  WRITE 12 {} 0 EOF", at(file.ino() + 1)),
                false,
            ),
            (
                format!("1: FLOCK  ADVISORY  WRITE 12 ff:ff:{} 0 EOF", file.ino()),
                false,
            ),
            (
                format!("1: -> FLOCK  ADVISORY  WRITE 12 {} 0 EOF", at(file.ino())),
                false,
            ),
            (String::new(), false),
        ] {
            assert_eq!(is_locked(line.as_bytes(), &file), held, "{line}");
        }
    }
}
