//! Where each series stood and where it stands, in units of 16 bytes as postings name them.
//!
//! 8 bytes for each series, and 4 more for a table that leads near to it: the places are divided evenly into as many steps
//! as there are series, so that one is found among a few others.

/// How many places are allocated at once: nothing is copied, and little is allocated in vain.
const PAGE: usize = 1 << 14;

/// Numbers in pages.
#[derive(Default)]
struct Numbers {
    pages: Vec<Vec<u32>>,
}

impl Numbers {
    fn push(&mut self, number: u32) {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        if let Some(page) = self.pages.last_mut() {
            page.push(number);
        }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<u32> {
        self.pages.get(index / PAGE)?.get(index % PAGE).copied()
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.pages.iter().flatten().copied()
    }
}

/// The places of all series, while they are collected.
#[derive(Default)]
pub(super) struct Collected {
    old: Numbers,
    new: Numbers,
    count: usize,
}

impl Collected {
    /// One more series, which stood behind all before.
    pub(super) fn push(&mut self, old: u32, new: u32) {
        self.old.push(old);
        self.new.push(new);
        self.count += 1;
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count as u64
    }

    /// All are there: now they can be looked up.
    pub(super) fn done(self) -> Places {
        let first = self.old.get(0).unwrap_or_default();
        let last = self.count.checked_sub(1).and_then(|last| self.old.get(last));
        let span = last.unwrap_or(first) - first;
        let mut shift = 0;
        while (u64::from(span) >> shift) >= self.count.max(1) as u64 {
            shift += 1;
        }
        let mut steps = Vec::with_capacity((u64::from(span) >> shift) as usize + 2);
        for (index, old) in (0..).zip(self.old.iter()) {
            let step = (u64::from(old - first) >> shift) as usize;
            while steps.len() <= step {
                steps.push(index);
            }
        }
        steps.push(self.count as u32);
        Places {
            collected: self,
            first,
            shift,
            steps,
        }
    }
}

/// The places of all series.
pub(super) struct Places {
    collected: Collected,
    /// The old place of the first series.
    first: u32,
    /// A step is so many places wide, as a power of two.
    shift: u32,
    /// For each step the index of the first series that stood there or behind it; at the end how many there are.
    steps: Vec<u32>,
}

impl Places {
    /// Where the series stands that stood at `old`; none if there was none.
    #[inline]
    pub(super) fn new_place(&self, old: u32) -> Option<u32> {
        let step = (u64::from(old.checked_sub(self.first)?) >> self.shift) as usize;
        let (mut low, mut high) = (*self.steps.get(step)? as usize, *self.steps.get(step + 1)? as usize);
        while low < high {
            let middle = low.midpoint(high);
            match self.collected.old.get(middle)?.cmp(&old) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return self.collected.new.get(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn places(map: &BTreeMap<u32, u32>) -> Places {
        let mut collected = Collected::default();
        map.iter().for_each(|(old, new)| collected.push(*old, *new));
        assert_eq!(collected.count(), map.len() as u64);
        collected.done()
    }

    fn any_place() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), 0_u32..200, (u32::MAX - 50)..=u32::MAX]
    }

    proptest! {
        #[test]
        fn each_place_is_found_and_no_other(
            map in prop::collection::btree_map(any_place(), any::<u32>(), 0..100),
            others in prop::collection::vec(any_place(), 0..100),
        ) {
            let places = places(&map);
            for old in map.keys().chain(&others) {
                prop_assert_eq!(places.new_place(*old), map.get(old).copied());
            }
        }
    }

    #[test]
    fn many_series_take_twelve_bytes_each() {
        let map: BTreeMap<u32, u32> = (0..3 * PAGE as u32 + 5).map(|n| (7 + n * 13 + n % 5, n)).collect();
        let places = places(&map);
        assert!(map.iter().all(|(old, new)| places.new_place(*old) == Some(*new)));
        assert!((0..7 + map.len() as u32 * 14).all(|old| places.new_place(old) == map.get(&old).copied()));
        assert!(places.steps.capacity() <= map.len() + 2);
        let pages = &places.collected.old.pages;
        assert!(pages.iter().map(Vec::capacity).sum::<usize>() < map.len() + PAGE);
    }
}
