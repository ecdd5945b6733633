//! Broken blocks, and blocks that are still being copied in: set aside, so that they hold nobody up.
//!
//! A block is set aside with the reason when it is found broken, and looked at again after a while: a copy may have gone
//! on, an operator may have mended it. Nothing is kept on disk; a restart looks at everything anew.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    shipper::plan::{QUIET, Wait},
    tsdb::{BlockId, Broken, Corrupt},
};

/// When a block that is still being copied in is looked at again.
pub(super) const LOOK_SOON: Duration = Duration::from_secs(2);

/// The reason of a compacted block that overlaps what is in the bucket.
pub(super) const OVERLAP: &str = "overlap";
/// The reason of a block in whose directory in the bucket something else stands.
pub(super) const FOREIGN: &str = "foreign_object";

/// What is wrong: a short and stable reason for the metric, and the whole story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ailment {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl Ailment {
    pub(super) fn new(reason: &'static str, detail: String) -> Self {
        Self { reason, detail }
    }
}

impl From<Broken> for Ailment {
    fn from(broken: Broken) -> Self {
        Self {
            reason: broken.reason.as_str(),
            detail: broken.detail,
        }
    }
}

#[derive(Debug)]
struct Case {
    ailment: Ailment,
    arriving: bool,
    look_again: Instant,
}

/// The blocks that are set aside.
#[derive(Debug)]
pub(super) struct Quarantine {
    /// After which time a broken block is looked at again.
    look_again: Duration,
    cases: BTreeMap<BlockId, Case>,
    /// Blocks whose `meta.json` already is no good, as of the last scan.
    corrupt: BTreeMap<BlockId, Ailment>,
}

impl Quarantine {
    /// Nothing is set aside yet.
    pub(super) fn new(look_again: Duration) -> Self {
        Self {
            look_again,
            cases: BTreeMap::new(),
            corrupt: BTreeMap::new(),
        }
    }

    /// Sets `id` aside; says so when the reason is new. Returns whether it counts as broken.
    pub(super) fn set_aside(&mut self, id: BlockId, ailment: Ailment, arriving: bool) -> bool {
        let known = self
            .cases
            .get(&id)
            .is_some_and(|case| case.ailment == ailment && case.arriving == arriving);
        if !known && arriving {
            tracing::info!(block = %id, missing = ailment.detail, "a block is being copied in; it is taken when it is whole and left alone");
        } else if !known {
            warn(id, &ailment);
        }
        let wait = if arriving { LOOK_SOON } else { self.look_again };
        self.cases.insert(
            id,
            Case {
                ailment,
                arriving,
                look_again: Instant::now() + wait,
            },
        );
        !arriving
    }

    /// Takes over what the scan found, some of which may still be `arriving`; returns how many broken blocks are new.
    pub(super) fn take(&mut self, corrupt: &[Corrupt], arriving: impl Fn(BlockId) -> bool) -> u64 {
        let mut fresh = 0;
        let mut now = BTreeMap::new();
        for corrupt in corrupt {
            let ailment = Ailment {
                reason: corrupt.reason.as_str(),
                detail: corrupt.detail.clone(),
            };
            if arriving(corrupt.id) {
                self.set_aside(corrupt.id, ailment, true);
                continue;
            }
            self.cases.remove(&corrupt.id);
            if self.corrupt.get(&corrupt.id) != Some(&ailment) {
                warn(corrupt.id, &ailment);
                fresh += 1;
            }
            now.insert(corrupt.id, ailment);
        }
        self.corrupt = now;
        fresh
    }

    /// Forgets the case of a block that was found good, and of all that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(BlockId) -> bool) {
        self.cases.retain(|id, _| keep(*id));
    }

    /// The blocks that are not yet due to be looked at again.
    pub(super) fn waiting(&self) -> HashMap<BlockId, Wait> {
        let now = Instant::now();
        let not_due = self.cases.iter().filter(|(_, case)| case.look_again > now);
        let wait = |case: &Case| match case.arriving {
            true => Wait::Arriving(case.ailment.detail.clone()),
            false => Wait::Quarantined(case.ailment.detail.clone()),
        };
        not_due.map(|(id, case)| (*id, wait(case))).collect()
    }

    /// Whether `id` was set aside before.
    pub(super) fn has(&self, id: BlockId) -> bool {
        self.cases.contains_key(&id)
    }

    /// Whether a block was set aside for what the bucket holds.
    pub(super) fn looks_at_bucket(&self) -> bool {
        self.cases
            .values()
            .any(|case| matches!(case.ailment.reason, OVERLAP | FOREIGN))
    }

    /// Whether this block is on its way in.
    pub(super) fn is_arriving(&self, id: BlockId) -> bool {
        self.cases.get(&id).is_some_and(|case| case.arriving)
    }

    /// Whether a block is on its way in.
    pub(super) fn any_arriving(&self) -> bool {
        self.cases.values().any(|case| case.arriving)
    }

    /// How many blocks are broken, by reason.
    pub(super) fn by_reason(&self) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::new();
        let cases = self
            .cases
            .values()
            .filter(|case| !case.arriving)
            .map(|case| &case.ailment);
        for ailment in cases.chain(self.corrupt.values()) {
            *counts.entry(ailment.reason).or_default() += 1;
        }
        counts
    }
}

fn warn(id: BlockId, ailment: &Ailment) {
    tracing::error!(
        block = %id, reason = ailment.reason, detail = ailment.detail,
        "a block is broken and is left out; the others go on. Restore it from a copy, or delete it; it is looked at again every minute"
    );
}

/// For how long nothing was written to the block in `dir`: neither to its files nor to the lists of them. A copy keeps old
/// times of change but not of the inode, so of a file the later of both counts.
pub(super) fn quiet(dir: &Path) -> io::Result<Duration> {
    let mut newest = Duration::ZERO;
    for dir in [dir.to_owned(), dir.join("chunks")] {
        let listed = match fs_err::metadata(&dir) {
            Ok(listed) if listed.is_dir() => listed,
            // A copy may begin with another file.
            _ if dir.ends_with("chunks") => continue,
            other => other?,
        };
        newest = newest.max(since_1970(listed.mtime(), listed.mtime_nsec()));
        for entry in fs_err::read_dir(dir)? {
            let file = entry?.metadata()?;
            if file.is_file() {
                newest = newest.max(since_1970(file.mtime(), file.mtime_nsec()));
                newest = newest.max(since_1970(file.ctime(), file.ctime_nsec()));
            }
        }
    }
    // Asked last: what is written meanwhile was written just now.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Ok(match newest.checked_sub(now) {
        // Another host's clock; it would hold the block for as long as the clocks differ.
        Some(ahead) if ahead > QUIET => QUIET,
        _ => now.saturating_sub(newest),
    })
}

fn since_1970(seconds: i64, nanos: i64) -> Duration {
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::Reason;

    fn id(n: u32) -> BlockId {
        BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{n:05}")).unwrap()
    }

    fn broken(detail: &str) -> Ailment {
        Ailment {
            reason: "index",
            detail: detail.into(),
        }
    }

    #[test]
    fn broken_blocks_count_and_arriving_ones_do_not() {
        let mut quarantine = Quarantine::new(Duration::from_secs(60));
        assert!(quarantine.set_aside(id(1), broken("cut"), false));
        assert!(!quarantine.set_aside(id(2), broken("short"), true));
        let corrupt = [Corrupt {
            id: id(3),
            reason: Reason::Meta,
            detail: "empty".into(),
        }];
        assert_eq!(quarantine.take(&corrupt, |_| true), 0);
        assert!(quarantine.is_arriving(id(3)));
        assert_eq!(quarantine.take(&corrupt, |_| false), 1);
        assert!(!quarantine.is_arriving(id(3)));
        assert_eq!(quarantine.take(&corrupt, |_| false), 0);
        let counts: Vec<_> = quarantine.by_reason().into_iter().collect();
        assert_eq!(counts, [("index", 1), ("meta", 1)]);
        assert!(quarantine.any_arriving());
        let waiting = quarantine.waiting();
        assert_eq!(waiting[&id(1)], Wait::Quarantined("cut".into()));
        assert_eq!(waiting[&id(2)], Wait::Arriving("short".into()));
        quarantine.retain(|other| other == id(1));
        assert!(!quarantine.any_arriving());
    }

    #[test]
    fn a_block_is_quiet_since_its_last_change_even_when_the_copy_kept_old_times() {
        let dir = tempfile::tempdir().unwrap();
        // The first moment of a copy: nothing is in it yet.
        let begun = SystemTime::now();
        let since = |quiet: Duration| quiet <= begun.elapsed().unwrap() + Duration::from_secs(1);
        assert!(since(quiet(dir.path()).unwrap()));
        fs_err::create_dir(dir.path().join("chunks")).unwrap();
        let file = fs_err::File::create(dir.path().join("chunks/000001")).unwrap();
        file.file().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(since(quiet(dir.path()).unwrap()));
    }

    #[test]
    fn a_time_in_the_future_is_a_write_of_now_unless_it_is_of_another_clock() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs_err::File::create(dir.path().join("index")).unwrap();
        let later = |seconds| SystemTime::now() + Duration::from_secs(seconds);
        file.file().set_modified(later(5)).unwrap();
        assert_eq!(quiet(dir.path()).unwrap(), Duration::ZERO);
        file.file().set_modified(later(3600)).unwrap();
        assert_eq!(quiet(dir.path()).unwrap(), QUIET);
    }

    #[test]
    fn a_vanished_block_is_an_error() {
        assert!(quiet(Path::new("/nowhere/at/all")).is_err());
    }
}
