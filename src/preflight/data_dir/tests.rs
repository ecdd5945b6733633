use tempfile::TempDir;

use super::*;
use crate::{preflight::Verdict, tsdb::BlockId};

/// A Prometheus that holds its directory by a lock, and holds samples from `lowest` on (ms), those of its head from `head` on.
fn prometheus(path: &str, lowest: i64, head: Option<i64>) -> Snapshot {
    let flags = [("storage.tsdb.no-lockfile", "false"), ("storage.tsdb.path", path)];
    Snapshot {
        flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        lowest_time_ms: lowest,
        head_min_time_ms: head,
        ..Snapshot::unknown("http://p")
    }
}

/// A directory with a block that begins at `begins` (ms), if there is one.
fn directory(begins: Option<i64>, has_lock: bool) -> (TempDir, DataDir) {
    let dir = tempfile::tempdir().unwrap();
    if let Some(begins) = begins {
        let id = BlockId::first_at(1).to_string();
        fs_err::create_dir(dir.path().join(&id)).unwrap();
        let meta = format!(
            r#"{{"ulid": "{id}", "minTime": {begins}, "maxTime": {}, "version": 1, "compaction": {{"level": 1, "sources": ["{id}"]}}}}"#,
            begins + 7_200_000
        );
        fs_err::write(dir.path().join(id).join("meta.json"), meta).unwrap();
    }
    if has_lock {
        fs_err::write(dir.path().join("lock"), "").unwrap();
    }
    let (findings, looked) = look(dir.path(), None);
    assert_eq!(crate::preflight::verdict(&findings), Verdict::Ok, "{findings:?}");
    (dir, looked.unwrap())
}

#[test]
fn lock_times_and_path_tell_whose_directory_it_is() {
    use Verdict::{Fail, Ok, Warn};
    const T: i64 = 1_700_000_000_000;
    for (begins, has_lock, lowest, head, verdict, part) in [
        (Some(T), true, T, Some(T + 9000), Ok, "begins where"),
        // Told in seconds.
        (Some(T + 999), true, T, None, Ok, "begins where"),
        (Some(T), false, T, None, Fail, "lock"),
        (Some(T), true, T - 1000, Some(T + 9000), Fail, "older than all"),
        (None, true, T, Some(T + 9000), Fail, "older than all"),
        // Nothing but its head, of which nothing is seen here.
        (None, true, T, Some(T), Warn, "/elsewhere"),
        (None, true, i64::MAX, Some(i64::MAX), Warn, "/elsewhere"),
        (Some(T), true, 0, None, Warn, "/elsewhere"),
        // A block was copied in, which it has not loaded yet.
        (Some(T), true, T + 9000, Some(T + 9000), Warn, "/elsewhere"),
    ] {
        let (dir, seen) = directory(begins, has_lock);
        let case = format!("{begins:?} {has_lock} {lowest} {head:?}");
        let found = is_that_of(&seen, &prometheus("/elsewhere", lowest, head));
        assert_eq!(found.verdict, verdict, "{case}: {found:?}");
        assert!(found.text.contains(part), "{case}: {found:?}");
        // Where both spell the same path, that is good enough; a relative one says nothing.
        if verdict == Warn {
            for path in [dir.path().to_str().unwrap(), "data"] {
                let found = is_that_of(&seen, &prometheus(path, lowest, head));
                assert_eq!(found.verdict, Ok, "{case}: {found:?}");
            }
        }
    }
}

#[test]
fn where_a_block_cannot_be_read_the_oldest_time_is_not_known() {
    let (dir, _) = directory(Some(1_700_000_000_000), true);
    let broken = dir.path().join(BlockId::first_at(0).to_string());
    fs_err::create_dir(&broken).unwrap();
    fs_err::write(broken.join("meta.json"), "{").unwrap();
    let seen = look(dir.path(), None).1.unwrap();
    let found = is_that_of(&seen, &prometheus("/elsewhere", 1_600_000_000_000, Some(i64::MAX)));
    assert_eq!(found.verdict, Verdict::Warn, "{found:?}");
}

#[test]
fn nothing_stays_of_the_look_and_without_writing_the_rights_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for write in [true, false] {
        let expected = Expected {
            ledger_name: "l.json".to_owned(),
            bucket: "file:///b".to_owned(),
            write,
        };
        let (findings, looked) = look(dir.path(), Some(&expected));
        assert_eq!(crate::preflight::verdict(&findings), Verdict::Ok, "{findings:?}");
        assert!(looked.unwrap().ledger.is_some());
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    }
    let gone = dir.path().join("gone");
    assert!(writable(&gone, true).is_err() && writable(&gone, false).is_err());
}
