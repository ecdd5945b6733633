//! For how long nothing has written to a block, and whether it is still what it was when it was looked at last.
//!
//! A block that was not seen to be sealed may be on its way in, as a copy. Of each file the time of change of the inode
//! counts, which a copy cannot set, and the time of modification where that is later and not in the future: some file
//! systems keep no other. Where a file was changed in the future, by the clock of another host, the block is quiet for as
//! long as its files were seen to stay as they are. Nothing is read but names and times; nothing is kept on disk.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::tsdb::BlockId;

/// What a block's files are: two observations of the same files have the same value, unless something was written between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature(u64);

/// For how long a block has been left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuietPeriod {
    /// When that was found out.
    pub(super) at: Instant,
    /// How long it had lasted by then.
    pub(super) lasted: Duration,
    /// What the files are.
    pub(super) signature: Signature,
}

/// Since when the files of blocks that are not durable were seen to stay as they are.
#[derive(Debug, Default)]
pub(super) struct QuietPeriods {
    last_seen: HashMap<BlockId, (Signature, Instant)>,
}

impl QuietPeriods {
    /// Finds out for how long nothing has written to the block in `dir`.
    ///
    /// # Errors
    /// It cannot be read, or is gone.
    pub(super) fn observe(&mut self, id: BlockId, dir: &Path) -> io::Result<QuietPeriod> {
        let files = files(dir)?;
        // Asked last: what is written meanwhile was written just now.
        let (at, now) = (Instant::now(), SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
        let signature = files.signature;
        let since = match self.last_seen.get(&id) {
            Some((before, since)) if *before == signature => *since,
            _ => {
                self.last_seen.insert(id, (signature, at));
                at
            }
        };
        let lasted = match files.newest(now) {
            Some(newest) => now.saturating_sub(newest),
            None => at.duration_since(since),
        };
        Ok(QuietPeriod { at, lasted, signature })
    }

    /// Forgets blocks that are gone or durable.
    pub(super) fn retain(&mut self, keep: impl Fn(BlockId) -> bool) {
        self.last_seen.retain(|id, _| keep(*id));
    }
}

/// What one look shows.
struct Files {
    signature: Signature,
    /// The time of change and of modification of each (since 1970).
    times: Vec<(Duration, Duration)>,
}

impl Files {
    /// When something was written last, by the clock of `now`; `None` if that cannot be told.
    fn newest(&self, now: Duration) -> Option<Duration> {
        let of = |&(changed, modified): &(Duration, Duration)| {
            let modified = Some(modified).filter(|modified| *modified <= now);
            (changed <= now).then(|| changed.max(modified.unwrap_or_default()))
        };
        self.times
            .iter()
            .map(of)
            .try_fold(Duration::ZERO, |newest, time| time.map(|time| newest.max(time)))
    }
}

fn files(dir: &Path) -> io::Result<Files> {
    let (mut named, mut times) = (Vec::new(), Vec::new());
    for dir in [dir.to_owned(), dir.join("chunks")] {
        let listed = match fs_err::metadata(&dir) {
            Ok(listed) if listed.is_dir() => listed,
            // A copy may begin with another file.
            _ if dir.ends_with("chunks") => continue,
            other => other?,
        };
        // Of a directory only the list of its names counts: a rename of the block changes its inode.
        let modified = since_1970(listed.mtime(), listed.mtime_nsec());
        times.push((modified, modified));
        for entry in fs_err::read_dir(&dir)? {
            let entry = entry?;
            let file = entry.metadata()?;
            if file.is_file() {
                let changed = since_1970(file.ctime(), file.ctime_nsec());
                let modified = since_1970(file.mtime(), file.mtime_nsec());
                named.push((entry.path(), file.ino(), file.len(), changed, modified));
                times.push((changed, modified));
            }
        }
    }
    named.sort();
    let mut hasher = DefaultHasher::new();
    named.hash(&mut hasher);
    let signature = Signature(hasher.finish());
    Ok(Files { signature, times })
}

fn since_1970(seconds: i64, nanos: i64) -> Duration {
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::shipper::{
        plan::QUIET,
        testing::{id, name},
    };

    fn lasted(quiet_periods: &mut QuietPeriods, dir: &Path) -> Duration {
        quiet_periods.observe(id(&name(1)), dir).unwrap().lasted
    }

    #[test]
    fn a_block_is_quiet_since_its_last_change_even_when_the_copy_kept_old_times() {
        let dir = tempfile::tempdir().unwrap();
        let mut quiet_periods = QuietPeriods::default();
        // The first moment of a copy: nothing is in it yet.
        let begun = SystemTime::now();
        let since = |quiet: Duration| quiet <= begun.elapsed().unwrap() + Duration::from_secs(1);
        assert!(since(lasted(&mut quiet_periods, dir.path())));
        fs_err::create_dir(dir.path().join("chunks")).unwrap();
        let file = fs_err::File::create(dir.path().join("chunks/000001")).unwrap();
        file.file().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(since(lasted(&mut quiet_periods, dir.path())));
    }

    #[test]
    fn a_file_of_the_future_does_not_make_the_others_quiet() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs_err::File::create(dir.path().join("index")).unwrap();
        file.file()
            .set_modified(SystemTime::now() + Duration::from_secs(3600))
            .unwrap();
        fs_err::write(dir.path().join("meta.json"), "{}").unwrap();
        assert!(lasted(&mut QuietPeriods::default(), dir.path()) < QUIET);
    }

    #[test]
    fn a_file_that_was_changed_in_the_future_leaves_it_to_what_is_seen() {
        let hour = Duration::from_secs(3600);
        let files = |times: &[(Duration, Duration)]| Files {
            signature: Signature(0),
            times: times.to_vec(),
        };
        let now = 10 * hour;
        assert_eq!(
            files(&[(hour, hour), (2 * hour, 11 * hour)]).newest(now),
            Some(2 * hour)
        );
        assert_eq!(files(&[(hour, 3 * hour), (hour, hour)]).newest(now), Some(3 * hour));
        assert_eq!(files(&[(hour, hour), (11 * hour, hour)]).newest(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_stay_are_the_same_and_any_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("chunks")).unwrap();
        let segment = dir.path().join("chunks/000001");
        fs_err::write(&segment, "abc").unwrap();
        let (mut quiet_periods, block) = (QuietPeriods::default(), id(&name(1)));
        let first = quiet_periods.observe(block, dir.path()).unwrap();
        advance(QUIET).await;
        let again = quiet_periods.observe(block, dir.path()).unwrap();
        assert_eq!(first.signature, again.signature);
        fs_err::write(&segment, "abd").unwrap();
        fs_err::write(dir.path().join("index"), "").unwrap();
        assert_ne!(
            quiet_periods.observe(block, dir.path()).unwrap().signature,
            first.signature
        );
    }

    #[test]
    fn a_vanished_block_is_an_error() {
        assert!(
            QuietPeriods::default()
                .observe(id(&name(1)), Path::new("/nowhere/at/all"))
                .is_err()
        );
    }
}
