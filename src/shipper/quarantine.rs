//! Broken blocks, and blocks that are still being copied in: set aside, so that they delay no other block.
//!
//! A block is set aside with the reason when it is found broken, and looked at again after a while: a copy may have gone
//! on, an operator may have mended it. What is wrong with its files stays so until one of them changes, and is not read
//! again before; anything else is looked at again with growing waits. An entry ends with what made it: when the block is
//! shipped, is found to be none for the bucket, or is gone. Nothing is kept on disk; a restart looks at everything anew.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    objstore::{self, ErrorKind},
    shipper::{plan::Wait, quiet_period::Signature},
    tsdb::{BlockId, Broken, Corrupt, Reason},
};

/// When a block that is still being copied in is looked at again.
pub(super) const RECHECK_ARRIVING: Duration = Duration::from_secs(2);

/// The longest wait before a block is looked at again, in times of the first.
const LONGEST: u32 = 16;

/// The reason of a compacted block that overlaps what is in the bucket.
pub(super) const OVERLAP: &str = "overlap";
/// The reason of a block in whose directory in the bucket something else stands.
pub(super) const FOREIGN: &str = "foreign_object";
/// The reason of a block that is marked for deletion in the bucket.
pub(super) const MARKED: &str = "marked_for_deletion";
/// The reason of a block that differs from the one of its name in the bucket.
pub(super) const CONFLICT: &str = "conflict";
/// The reason of a block that is there and cannot be read.
pub(super) const UNREADABLE: &str = "unreadable";
/// The reason of a block of which the store refuses an object.
pub(super) const REFUSED: &str = "refused";

/// The reason of a directory that has the name of a block and no `meta.json`.
pub(super) const NO_META: &str = "no_meta";

/// The reason of a block that is not sent for what its chunks are.
pub(super) const HELD: &str = "encoding";

/// What is wrong: a short and stable reason for the metric, and the details for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) detail: String,
    /// Tells one from another where the words do not, since stores number their answers.
    kind: Option<ErrorKind>,
    /// What retention leaves of the time of a block that is held back, in words.
    retention_leaves: Option<String>,
}

impl Problem {
    pub(super) fn new(reason: &'static str, detail: String) -> Self {
        Self {
            reason,
            detail,
            kind: None,
            retention_leaves: None,
        }
    }

    /// A block is not sent for what its chunks are.
    pub(super) fn held(why: String, retention_leaves: Option<String>) -> Self {
        Self {
            retention_leaves,
            ..Self::new(HELD, why)
        }
    }

    /// What the bucket answered.
    pub(super) fn of_bucket(reason: &'static str, error: &objstore::Error) -> Self {
        Self {
            kind: Some(error.kind),
            ..Self::new(reason, error.to_string())
        }
    }

    /// Whether this is the same problem as another.
    fn is_same(&self, other: &Self) -> bool {
        let words = self.kind.is_some() || self.detail == other.detail;
        self.reason == other.reason && self.kind == other.kind && words
    }

    /// Whether it is the files of the block that are at fault.
    fn is_of_files(&self) -> bool {
        !self.is_of_bucket() && !matches!(self.reason, UNREADABLE | HELD)
    }

    /// Whether it is what the bucket holds or answers.
    fn is_of_bucket(&self) -> bool {
        matches!(self.reason, OVERLAP | FOREIGN | MARKED | CONFLICT | REFUSED)
    }
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        Self::new(broken.reason.as_str(), broken.detail)
    }
}

#[derive(Debug)]
struct Entry {
    problem: Problem,
    arriving: bool,
    /// What the files were when this was found in them; `None` if it is not in the files.
    files: Option<Signature>,
    wait: Duration,
    look_again: Instant,
}

/// The blocks that are set aside.
#[derive(Debug)]
pub(super) struct Quarantine {
    /// After which time a broken block is looked at again.
    look_again: Duration,
    entries: BTreeMap<BlockId, Entry>,
    /// Blocks whose `meta.json` already is no good, as of the last scan.
    corrupt: BTreeMap<BlockId, Problem>,
}

impl Quarantine {
    /// Nothing is set aside yet.
    pub(super) fn new(look_again: Duration) -> Self {
        Self {
            look_again,
            entries: BTreeMap::new(),
            corrupt: BTreeMap::new(),
        }
    }

    /// Sets `id` aside for what is wrong with its files, which were `files` when they were looked at.
    pub(super) fn set_aside_broken(
        &mut self,
        id: BlockId,
        broken: Broken,
        files: Option<Signature>,
        arriving: bool,
    ) -> bool {
        // Rights, or the disk: that may heal without a change of the files.
        let files = files.filter(|_| broken.reason != Reason::Unreadable);
        self.insert(id, broken.into(), files, arriving)
    }

    /// Sets `id` aside for another reason; says so when the reason is new. Returns whether it counts as broken.
    pub(super) fn set_aside(&mut self, id: BlockId, problem: Problem, arriving: bool) -> bool {
        self.insert(id, problem, None, arriving)
    }

    fn insert(&mut self, id: BlockId, problem: Problem, files: Option<Signature>, arriving: bool) -> bool {
        let before = self.entries.get(&id);
        let known = before.filter(|entry| entry.problem.is_same(&problem) && entry.arriving == arriving);
        let wait = match known {
            _ if arriving => RECHECK_ARRIVING,
            Some(entry) if files.is_none() => (entry.wait * 2).min(self.look_again * LONGEST),
            _ => self.look_again,
        };
        if known.is_none() && arriving {
            tracing::info!(block = %id, missing = problem.detail, "a block is being copied in or removed; it is shipped once it is whole and nobody writes to it");
        } else if known.is_none() {
            warn(id, &problem);
        }
        let look_again = Instant::now() + wait;
        self.entries.insert(
            id,
            Entry {
                problem,
                arriving,
                files,
                wait,
                look_again,
            },
        );
        !arriving
    }

    /// Whether what is wrong with the block is in its files, and these are still what they were: then it is not read
    /// again, but looked at later.
    pub(super) fn is_as_before(&mut self, id: BlockId, now: Option<Signature>) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        let same = !entry.arriving && entry.files.is_some() && entry.files == now;
        if same {
            entry.look_again = Instant::now() + entry.wait;
        }
        same
    }

    /// Records what the scan found corrupt, some of which may still be `arriving`; returns how many broken blocks are new.
    pub(super) fn record_corrupt(&mut self, corrupt: &[Corrupt], arriving: impl Fn(BlockId) -> bool) -> u64 {
        let mut fresh = 0;
        let mut now = BTreeMap::new();
        for corrupt in corrupt {
            let problem = Problem::new(corrupt.reason.as_str(), corrupt.detail.clone());
            if arriving(corrupt.id) {
                self.set_aside(corrupt.id, problem, true);
                continue;
            }
            self.entries.remove(&corrupt.id);
            if self.corrupt.get(&corrupt.id) != Some(&problem) {
                warn(corrupt.id, &problem);
                fresh += 1;
            }
            now.insert(corrupt.id, problem);
        }
        self.corrupt = now;
        fresh
    }

    /// Removes the entries of blocks that need no more judging: shipped, skipped, or gone.
    pub(super) fn retain(&mut self, keep: impl Fn(BlockId) -> bool) {
        self.entries.retain(|id, _| keep(*id));
    }

    /// The blocks that are not yet due to be looked at again.
    pub(super) fn waiting(&self) -> HashMap<BlockId, Wait> {
        let now = Instant::now();
        let not_due = self.entries.iter().filter(|(_, entry)| entry.look_again > now);
        let wait = |entry: &Entry| match entry.arriving {
            true => Wait::Arriving(entry.problem.detail.clone()),
            false => Wait::Quarantined(entry.problem.detail.clone()),
        };
        not_due.map(|(id, entry)| (*id, wait(entry))).collect()
    }

    /// Whether `id` was set aside before.
    pub(super) fn has(&self, id: BlockId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whether a block is set aside for what is wrong with its files.
    pub(super) fn is_broken(&self, id: BlockId) -> bool {
        let problem = self.entries.get(&id).map(|entry| &entry.problem);
        let problem = problem.or_else(|| self.corrupt.get(&id));
        problem.is_some_and(Problem::is_of_files)
    }

    /// The block is looked at anew.
    pub(super) fn forget(&mut self, id: BlockId) {
        self.entries.remove(&id);
        self.corrupt.remove(&id);
    }

    /// Whether a block is set aside for what stays so once it is deleted here: what is wrong with it, what is not sent by
    /// decision, or what the bucket holds in its place. What the store refuses for now, and a disk that does not read, may heal.
    pub(super) fn is_final(&self, id: BlockId) -> bool {
        self.reason(id)
            .is_some_and(|reason| !matches!(reason, UNREADABLE | REFUSED))
    }

    /// Why a block is set aside, unless it is on its way in.
    pub(super) fn reason(&self, id: BlockId) -> Option<&'static str> {
        self.problem(id).map(|problem| problem.reason)
    }

    /// What is wrong with a block that is set aside, unless it is on its way in; also while it is looked at again.
    pub(super) fn detail(&self, id: BlockId) -> Option<&str> {
        self.problem(id).map(|problem| problem.detail.as_str())
    }

    fn problem(&self, id: BlockId) -> Option<&Problem> {
        let entry = self.entries.get(&id).filter(|entry| !entry.arriving);
        entry.map(|entry| &entry.problem).or_else(|| self.corrupt.get(&id))
    }

    /// Whether a block was set aside for what the bucket holds.
    pub(super) fn has_bucket_problem(&self) -> bool {
        self.entries.values().any(|entry| entry.problem.is_of_bucket())
    }

    /// Whether this block is on its way in.
    pub(super) fn is_arriving(&self, id: BlockId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.arriving)
    }

    /// Whether there never was a whole block, as far as was seen: it is broken, or on its way in.
    pub(super) fn is_no_block(&self, id: BlockId) -> bool {
        let entry = self.entries.get(&id);
        let corrupt = self.corrupt.get(&id).is_some_and(Problem::is_of_files);
        corrupt || entry.is_some_and(|entry| entry.arriving || entry.problem.is_of_files())
    }

    /// Whether a block is on its way in.
    pub(super) fn any_arriving(&self) -> bool {
        self.entries.values().any(|entry| entry.arriving)
    }

    /// The blocks that are set aside.
    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = BlockId> {
        self.entries.keys().copied()
    }

    /// How many blocks are broken, by reason.
    pub(super) fn by_reason(&self) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::new();
        let entries = self
            .entries
            .values()
            .filter(|entry| !entry.arriving)
            .map(|entry| &entry.problem);
        for problem in entries.chain(self.corrupt.values()) {
            *counts.entry(problem.reason).or_default() += 1;
        }
        counts
    }
}

fn warn(id: BlockId, problem: &Problem) {
    let (reason, detail) = (problem.reason, problem.detail.as_str());
    match problem.reason {
        _ if problem.is_of_bucket() => tracing::error!(
            block = %id, reason, detail,
            "a block is left out because of what the bucket holds or answers; the others go on, and this one is retried after 1 to 16 minutes"
        ),
        HELD => tracing::error!(
            block = %id, reason, detail, retention_leaves = problem.retention_leaves,
            "a block is held back because of the encoding of its chunks; the others go on. It is whole, and only on this disk: Prometheus deletes it at the end of its retention"
        ),
        UNREADABLE => tracing::error!(
            block = %id, reason, detail,
            "a block cannot be read and is left out; the others go on. Give this process the right to read it; it is retried after 1 to 16 minutes"
        ),
        NO_META => tracing::error!(
            block = %id, reason, detail,
            "a directory with the name of a block has no meta.json, as a crash or an interrupted deletion leaves it: neither Prometheus nor narthex takes it for a block, and Prometheus does not compact blocks while it is there. If its samples are wanted, restore meta.json from a copy; else delete the directory"
        ),
        _ => tracing::error!(
            block = %id, reason, detail,
            "a block is broken and is left out; the others go on. Restore it from a copy, or delete it; it is looked at again when it changes"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::Reason;

    fn id(n: u32) -> BlockId {
        BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{n:05}")).unwrap()
    }

    fn broken(detail: &str) -> Problem {
        Problem::new("index", detail.into())
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
        assert_eq!(quarantine.record_corrupt(&corrupt, |_| true), 0);
        assert!(quarantine.is_arriving(id(3)));
        assert_eq!(quarantine.record_corrupt(&corrupt, |_| false), 1);
        assert!(!quarantine.is_arriving(id(3)));
        assert_eq!(quarantine.record_corrupt(&corrupt, |_| false), 0);
        let counts: Vec<_> = quarantine.by_reason().into_iter().collect();
        assert_eq!(counts, [("index", 1), ("meta", 1)]);
        assert!(quarantine.any_arriving());
        let waiting = quarantine.waiting();
        assert_eq!(waiting[&id(1)], Wait::Quarantined("cut".into()));
        assert_eq!(waiting[&id(2)], Wait::Arriving("short".into()));
        quarantine.retain(|other| other == id(1));
        assert!(!quarantine.any_arriving());
    }
}
