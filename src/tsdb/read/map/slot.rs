//! The maps that there are, where a signal's handler can look at them: in memory that never moves, without locks.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// So many maps are there at once, for all calls.
pub(super) const MAPS: usize = 64;

static SLOTS: [Slot; MAPS] = [const { Slot::free() }; MAPS];

/// A place for a map.
#[derive(Debug)]
pub(super) struct Slot {
    is_taken: AtomicBool,
    /// The pages of the map, by their addresses; none if the end is 0.
    start: AtomicUsize,
    end: AtomicUsize,
    /// How often these two have changed, twice: odd while they do.
    changes: AtomicUsize,
    /// A page could not be given.
    is_broken: AtomicBool,
}

impl Slot {
    const fn free() -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            is_broken: AtomicBool::new(false),
        }
    }

    /// A free one, if there is one.
    pub(super) fn take() -> Option<&'static Self> {
        SLOTS.iter().find(|slot| !slot.is_taken.swap(true, Ordering::Acquire))
    }

    /// The one whose map has `address`, and the pages of that map. For the thread that reads the map, which does not change then.
    pub(super) fn with(address: usize) -> Option<(&'static Self, Range<usize>)> {
        SLOTS.iter().find_map(|slot| {
            let pages = slot.pages().filter(|pages| pages.contains(&address))?;
            Some((slot, pages))
        })
    }

    /// `None` while they change: other threads' maps come and go at any time.
    fn pages(&self) -> Option<Range<usize>> {
        let before = self.changes.load(Ordering::SeqCst);
        let pages = self.start.load(Ordering::SeqCst)..self.end.load(Ordering::SeqCst);
        (before.is_multiple_of(2) && self.changes.load(Ordering::SeqCst) == before).then_some(pages)
    }

    /// The pages are there.
    pub(super) fn show(&self, pages: Range<usize>) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.start.store(pages.start, Ordering::SeqCst);
        self.end.store(pages.end, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// The pages are about to go.
    pub(super) fn hide(&self) {
        self.show(0..0);
    }

    /// It is free again.
    pub(super) fn give_back(&self) {
        self.is_broken.store(false, Ordering::Release);
        self.is_taken.store(false, Ordering::Release);
    }

    /// A page could not be given; whether that is new.
    pub(super) fn mark_broken(&self) -> bool {
        !self.is_broken.swap(true, Ordering::AcqRel)
    }

    /// Whether a page could not be given.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }
}
