//! Lists of series: ascending numbers, read piece by piece, joined and intersected without ever being whole in memory.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use bytes::{Buf, Bytes};

use super::super::{
    check::{
        Broken,
        index::{TOC, bad, section},
    },
    window::Window,
};

/// Bytes of a number.
const NUMBER: usize = 4;

/// Series by their numbers, ascending.
#[derive(Debug)]
pub(super) enum Postings {
    /// Of one label.
    List(List),
    /// Those in any of the lists.
    Union(Union),
    /// Those in all of them.
    Intersection(Vec<Postings>),
}

impl Postings {
    /// The series in any of `lists`.
    pub(super) fn union(mut lists: Vec<List>) -> Result<Self, Broken> {
        if lists.len() == 1
            && let Some(list) = lists.pop()
        {
            return Ok(Self::List(list));
        }
        let mut heads = BinaryHeap::with_capacity(lists.len());
        for (at, list) in lists.iter_mut().enumerate() {
            heads.extend(list.at_least(0)?.map(|head| Reverse((head, at))));
        }
        Ok(Self::Union(Union { lists, heads }))
    }

    /// The first series whose number is not less than `least`, which must not become less from call to call.
    pub(super) fn at_least(&mut self, least: u32) -> Result<Option<u32>, Broken> {
        match self {
            Self::List(list) => list.at_least(least),
            Self::Union(union) => union.at_least(least),
            Self::Intersection(all) => {
                let mut wanted = least;
                'again: loop {
                    for postings in &mut *all {
                        match postings.at_least(wanted)? {
                            None => return Ok(None),
                            Some(found) if found > wanted => {
                                wanted = found;
                                continue 'again;
                            }
                            Some(_) => {}
                        }
                    }
                    return Ok(Some(wanted));
                }
            }
        }
    }
}

/// The series of several lists.
#[derive(Debug)]
pub(super) struct Union {
    lists: Vec<List>,
    /// The next number of each list that is not over.
    heads: BinaryHeap<Reverse<(u32, usize)>>,
}

impl Union {
    fn at_least(&mut self, least: u32) -> Result<Option<u32>, Broken> {
        while let Some(mut head) = self.heads.peek_mut() {
            let Reverse((number, at)) = *head;
            if number >= least {
                return Ok(Some(number));
            }
            match self.lists[at].at_least(least)? {
                Some(next) => *head = Reverse((next, at)),
                None => drop(PeekMut::pop(head)),
            }
        }
        Ok(None)
    }
}

/// One list of an index.
#[derive(Debug)]
pub(super) struct List {
    window: Window,
    /// Where its section begins.
    start: u64,
    /// Where what was not read yet is.
    at: u64,
    end: u64,
    /// What was read, from `current` on.
    piece: Bytes,
    current: Option<u32>,
    width: usize,
}

impl List {
    /// How many series the list at `start` says that it has.
    pub(super) fn count(window: &mut Window, start: u64) -> Result<u32, Broken> {
        let count = window
            .at(start, 2 * NUMBER)?
            .get(NUMBER..)
            .and_then(|count| count.first_chunk());
        let count = count.ok_or_else(|| outside(start))?;
        Ok(u32::from_be_bytes(*count))
    }

    /// Opens the list at `start`, whose checksum is looked at through `window`, to be read in pieces of `width` bytes.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn open(window: &mut Window, start: u64, width: usize) -> Result<Self, Broken> {
        let limit = window.file().len.saturating_sub(TOC);
        let content = section(window, start, limit, "postings")?;
        let count = u64::from(Self::count(window, start)?);
        if (content.end - content.start) != (count + 1) * NUMBER as u64 {
            return Err(bad(format_args!(
                "index is damaged: its list of series at byte {start} has another length than it says"
            )));
        }
        Ok(Self {
            window: Window::of_width(window.file(), width),
            start,
            at: content.start + NUMBER as u64,
            end: content.end,
            piece: Bytes::new(),
            current: None,
            width,
        })
    }

    #[inline]
    fn at_least(&mut self, least: u32) -> Result<Option<u32>, Broken> {
        loop {
            if let Some(current) = self.current.filter(|current| *current >= least) {
                return Ok(Some(current));
            }
            if self.piece.len() < NUMBER && !self.read()? {
                self.current = None;
                return Ok(None);
            }
            let next = self.piece.get_u32();
            if self.current.is_some_and(|current| current >= next) {
                let start = self.start;
                return Err(bad(format_args!(
                    "index is damaged: its list of series at byte {start} is not in order"
                )));
            }
            self.current = Some(next);
        }
    }

    /// Reads the next piece, if there is one.
    fn read(&mut self) -> Result<bool, Broken> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let count = left.min(self.width.next_multiple_of(NUMBER));
        self.piece = self.window.slice(self.at, count)?;
        if self.piece.len() < count {
            return Err(outside(self.start));
        }
        self.at += count as u64;
        Ok(count > 0)
    }
}

fn outside(start: u64) -> Broken {
    bad(format_args!(
        "index is damaged: it has no list of series at byte {start}, where one is due"
    ))
}
