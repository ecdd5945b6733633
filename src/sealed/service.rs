//! What of a request comes from disk: the handle that calls have.
//!
//! Each call looks again: the directory must be as it was listed, the files of each block as they were when Prometheus was seen
//! to have them, and they are open before they count. Where anything differs, or the disk takes long, Prometheus is asked for
//! all, and the directory is listed anew.

use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    directory,
    listing::Listing,
    open_blocks::OpenBlocks,
    out_of_order::Wbl,
    reason::Reason,
    row::{Asked, Row, Split},
    tables_cache::TablesCache,
};
use crate::{
    threads::BlockingPool,
    tsdb::{
        self, Block, BlockId, Broken, FileVersion,
        read::{OpenBlock, ReadError, Tables, Wanted},
    },
};

/// How long opening blocks may take.
const OPENING: Duration = Duration::from_secs(5);
/// After so long no more blocks are opened: their tables have to be read first.
const TABLES: Duration = Duration::from_secs(3);
/// For how long the disk is left alone after it made no progress.
const PAUSE: Duration = Duration::from_secs(60);
/// How long a block is left alone that the disk did not give.
const UNREADABLE: Duration = Duration::from_secs(300);
/// Blocks are read by so many threads at most: more would only take the disk and the processors from Prometheus.
const THREADS: usize = 2;

/// Answers what comes from disk; clones share it.
#[derive(Clone, Debug)]
pub struct Sealed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) data_dir: PathBuf,
    /// `None` until the directory was listed.
    pub(super) state: ArcSwapOption<State>,
    pub(super) wake: Notify,
    /// A call found a file that is not as it was listed, though the directory may look the same.
    pub(super) has_changed: AtomicBool,
    /// Until when, if that may pass.
    pub(super) damaged: Mutex<HashMap<BlockId, Damaged>>,
    tables: TablesCache,
    pool: BlockingPool,
    /// Until when the disk is left alone.
    paused_until: Mutex<Option<Instant>>,
    /// How many threads are opening blocks for calls that have given up.
    overdue: Arc<AtomicUsize>,
    /// Descriptors for all calls together.
    files: Arc<Semaphore>,
}

/// What is known of the directory.
#[derive(Debug)]
pub(super) struct State {
    pub(super) listing: Listing,
    pub(super) version: FileVersion,
    pub(super) row: Row,
    /// The log of samples out of order was empty, and no window is open: it must still be so.
    pub(super) wbl_stays_empty: bool,
}

/// Files that are not read.
#[derive(Debug)]
pub(super) struct Damaged {
    files: Arc<[FileVersion]>,
    /// They are tried again then: the disk refused them, which may pass.
    until: Option<Instant>,
}

impl Damaged {
    fn new(files: &Arc<[FileVersion]>, broken: &Broken) -> Self {
        let may_pass = broken.reason == tsdb::Reason::Unreadable;
        Self {
            files: Arc::clone(files),
            until: may_pass.then(|| Instant::now() + UNREADABLE),
        }
    }

    /// Whether these are the files, and it has not passed.
    pub(super) fn holds_for(&self, files: &[FileVersion]) -> bool {
        *self.files == *files && self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Who answers a request.
#[derive(Debug, Default)]
pub struct Cover {
    /// Blocks with the ranges to answer from them that lie before what Prometheus is asked for, by time.
    pub before: OpenBlocks,
    /// What to ask Prometheus for, and why; `None` if nothing.
    pub prometheus: Option<Asked>,
    /// Blocks with ranges that lie behind it.
    pub after: OpenBlocks,
}

impl Cover {
    /// Prometheus is asked for all.
    fn none(range: RangeInclusive<i64>, reason: Reason) -> Self {
        let reasons = BTreeSet::from([reason]);
        Self {
            prometheus: Some(Asked { range, reasons }),
            ..Self::default()
        }
    }

    /// Whether anything comes from disk.
    pub fn has_blocks(&self) -> bool {
        !self.before.is_empty() || !self.after.is_empty()
    }
}

/// What an operator may want to know.
#[derive(Clone, Debug)]
pub struct Overview {
    /// What comes from disk and what does not; `None` until the directory was listed.
    pub row: Option<Row>,
    /// What the tables of indices take in memory (bytes).
    pub tables_bytes: usize,
    /// The disk is left alone for a while: it made no progress.
    pub is_paused: bool,
}

impl Sealed {
    /// Of the blocks in `data_dir`, of which nothing is known until a [`super::Looker`] runs. At most so many `files` are open at
    /// once.
    pub fn new(data_dir: PathBuf, files: usize) -> Self {
        let inner = Inner {
            data_dir,
            state: ArcSwapOption::empty(),
            wake: Notify::new(),
            has_changed: AtomicBool::new(false),
            damaged: Mutex::default(),
            tables: TablesCache::default(),
            pool: BlockingPool::new(THREADS),
            paused_until: Mutex::default(),
            overdue: Arc::default(),
            files: Arc::new(Semaphore::new(files)),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Where blocks are read.
    pub fn pool(&self) -> &BlockingPool {
        &self.inner.pool
    }

    /// Whether Prometheus will have to be asked for something of a request, as far as can be seen without a look at the disk.
    pub fn needs_prometheus(&self, start_ms: i64, end_ms: i64) -> bool {
        let state = self.inner.state.load();
        let split = state.as_ref().map(|state| state.row.split(start_ms, end_ms));
        split.is_none_or(|split| split.prometheus.is_some())
    }

    /// Who answers a request for `start_ms..=end_ms` (ms since 1970). The blocks are open. Takes a few seconds at most.
    pub async fn cover(&self, start_ms: i64, end_ms: i64) -> Cover {
        let request = start_ms..=end_ms;
        let Some(state) = self.inner.state.load_full() else {
            return Cover::none(request, Reason::Unknown);
        };
        let split = state.row.split(start_ms, end_ms);
        // That there is nothing at all must still hold, as anything else.
        if split.blocks.is_empty() && split.prometheus.is_some() {
            let prometheus = split.prometheus;
            return Cover {
                prometheus,
                ..Cover::default()
            };
        }
        if self.is_paused() {
            return Cover::none(request, Reason::Slow);
        }
        let (inner, opening) = (Arc::clone(&self.inner), Opening::new(&self.inner.overdue));
        let (begun, seen) = (opening.clone(), Arc::clone(&state));
        let opened = self.inner.pool.run(move || {
            let _running = begun.begin();
            inner.open(&seen, split)
        });
        match timeout(OPENING, opened).await {
            Ok(Ok(Ok(cover))) => cover,
            Ok(Ok(Err(reason))) => {
                // A listing that was made meanwhile is not known to be out of date.
                let is_current = self
                    .inner
                    .state
                    .load()
                    .as_ref()
                    .is_some_and(|now| Arc::ptr_eq(now, &state));
                if is_current && reason != Reason::Slow {
                    self.inner.has_changed.store(true, Ordering::Relaxed);
                }
                self.inner.wake.notify_one();
                Cover::none(request, reason)
            }
            // A panic while blocks are opened is reported as damage would be, and must not end the call.
            Ok(Err(lost)) => {
                tracing::error!("opening sealed blocks failed, so Prometheus is asked: {lost}");
                Cover::none(request, Reason::Damaged)
            }
            Err(_) => {
                // One that has only waited for a thread says nothing of the disk.
                if opening.give_up() {
                    self.stalled();
                }
                Cover::none(request, Reason::Slow)
            }
        }
    }

    /// A block turned out to be damaged: from now on Prometheus is asked for its range, until its files are others.
    pub fn report(&self, error: &ReadError) {
        tracing::error!(
            block = %error.block, "reading a sealed block for a query failed, so Prometheus is asked for its range: {}",
            error.broken
        );
        let state = self.inner.state.load();
        let blocks = state.iter().flat_map(|state| &state.listing.blocks);
        let listed = blocks.into_iter().find(|listed| listed.block.id == error.block);
        if let Some(listed) = listed {
            let mut damaged = self.inner.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            damaged.insert(error.block, Damaged::new(&listed.facts.files, &error.broken));
        }
        // Nothing comes from disk until the row is made without it.
        self.inner.state.store(None);
        self.inner.wake.notify_one();
    }

    /// The disk made no progress: it is left alone for a while.
    pub fn stalled(&self) {
        tracing::warn!(
            dir = %self.inner.data_dir.display(),
            "reading sealed blocks is too slow, so Prometheus is asked for all for {PAUSE:?}: check the disk"
        );
        let mut paused = self.inner.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some(Instant::now() + PAUSE);
    }

    fn is_paused(&self) -> bool {
        if self.inner.overdue.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let paused = self.inner.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        paused.is_some_and(|until| Instant::now() < until)
    }

    /// What is known at this moment.
    pub fn overview(&self) -> Overview {
        Overview {
            row: self.inner.state.load().as_ref().map(|state| state.row.clone()),
            tables_bytes: self.inner.tables.bytes(),
            is_paused: self.is_paused(),
        }
    }
}

/// Blocks that are being opened, for a call that may give up.
#[derive(Clone)]
struct Opening {
    phase: Arc<Mutex<Phase>>,
    overdue: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Queued,
    Running,
    /// It runs, and nobody waits for it any more.
    Overdue,
    Over,
}

/// While it is there, blocks are being opened; it goes with a panic, too.
struct Running<'a>(&'a Opening);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.enter(|_| Phase::Over);
    }
}

impl Opening {
    fn new(overdue: &Arc<AtomicUsize>) -> Self {
        Self {
            phase: Arc::new(Mutex::new(Phase::Queued)),
            overdue: Arc::clone(overdue),
        }
    }

    /// Goes on to a phase; returns the one before.
    fn enter(&self, next: impl FnOnce(Phase) -> Phase) -> Phase {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *phase;
        *phase = next(before);
        match (before, *phase) {
            (Phase::Running, Phase::Overdue) => drop(self.overdue.fetch_add(1, Ordering::Relaxed)),
            (Phase::Overdue, Phase::Over) => drop(self.overdue.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        before
    }

    fn begin(&self) -> Running<'_> {
        self.enter(|_| Phase::Running);
        Running(self)
    }

    /// Nobody waits any more; whether it runs all the same.
    fn give_up(&self) -> bool {
        let before = self.enter(|before| match before {
            Phase::Running => Phase::Overdue,
            other => other,
        });
        before == Phase::Running
    }
}

impl Inner {
    /// Opens the blocks of `split`, if everything is as it was listed; else says what is not.
    fn open(&self, state: &State, split: Split) -> Result<Cover, Reason> {
        let begun = Instant::now();
        let end = split.prometheus.as_ref().map(|asked| *asked.range.end());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let (mut before_files, mut after_files) = (None, None);
        for (id, range) in split.blocks {
            let listed = state.listing.blocks.iter().find(|listed| listed.block.id == id);
            let listed = listed.ok_or(Reason::Differs)?;
            // What was read of tables by then is kept, so that another call finds less to do.
            if begun.elapsed() > TABLES {
                return Err(Reason::Slow);
            }
            let (blocks, held) = match end.is_none_or(|end| *range.start() <= end) {
                true => (&mut before, &mut before_files),
                false => (&mut after, &mut after_files),
            };
            self.hold(held, listed.facts.files.len())?;
            let block = self.open_block(&listed.block, &listed.facts.files)?;
            blocks.push(Wanted { block, range });
        }
        // Only now: whatever came or went before the files were open is seen.
        let version = directory::version(&self.data_dir).map_err(|_| Reason::Differs)?;
        if version != state.version {
            return Err(Reason::Arriving);
        }
        if state.wbl_stays_empty && directory::wbl(&self.data_dir) != Some(Wbl::Empty) {
            return Err(Reason::OutOfOrder);
        }
        Ok(Cover {
            before: OpenBlocks::new(before, before_files),
            prometheus: split.prometheus,
            after: OpenBlocks::new(after, after_files),
        })
    }

    /// Counts so many more descriptors, unless all calls together would have too many.
    fn hold(&self, held: &mut Option<OwnedSemaphorePermit>, files: usize) -> Result<(), Reason> {
        let files = u32::try_from(files).map_err(|_| Reason::Slow)?;
        let more = Arc::clone(&self.files).try_acquire_many_owned(files);
        let more = more.map_err(|_| Reason::Slow)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    /// Opens a block whose files must be of these versions.
    fn open_block(&self, block: &Block, files: &Arc<[FileVersion]>) -> Result<OpenBlock, Reason> {
        let (pinned, now) = directory::open(block).map_err(|_| Reason::Differs)?;
        if now.versions != *files {
            return Err(Reason::Arriving);
        }
        let tables = match self.tables.get(block.id, files) {
            Some(tables) => tables,
            None => {
                let index = pinned.index().ok_or(Reason::Damaged)?;
                let tables = Tables::read(index).map_err(|broken| self.broken(block.id, files, &broken))?;
                let tables = Arc::new(tables);
                self.tables.insert(block.id, Arc::clone(files), Arc::clone(&tables));
                tables
            }
        };
        let index = pinned.index().map(|index| Arc::clone(&index.file));
        let opened = OpenBlock::new(pinned, tables).map_err(|broken| self.broken(block.id, files, &broken))?;
        // It notes when its files were written last: nobody has written into the index while the tables were read.
        let now = index.ok_or(Reason::Damaged)?.metadata().map_err(|_| Reason::Differs)?;
        match files.contains(&FileVersion::of(&now)) {
            true => Ok(opened),
            false => Err(Reason::Arriving),
        }
    }

    /// A block cannot be opened, and is not tried again until its files are others.
    fn broken(&self, block: BlockId, files: &Arc<[FileVersion]>, broken: &Broken) -> Reason {
        tracing::error!(%block, "a sealed block cannot be read, so Prometheus is asked for its range: {broken}");
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.insert(block, Damaged::new(files, broken));
        Reason::Damaged
    }
}

#[cfg(test)]
mod tests;
