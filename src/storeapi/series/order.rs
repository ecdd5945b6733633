//! Restores the order of the StoreAPI in constant memory. Pure.
//!
//! Prometheus sends series sorted by their stored labels. Adding the same external labels to all of them changes the
//! order of two series only where one stored label set is a prefix of the other, so that a stack of at most as many
//! series as a series has labels brings them in order. A stored series that already carries one of the labels that are
//! set or removed may be anywhere; those are queried separately ([`super::query`]), come first, are collected and
//! sorted, and merged in. The parts of a series that Prometheus split over frames stay together: while a longer label
//! set may still go before it, all of them are held, which [`Order::parts_bytes`] counts. A final check of each label
//! set detects disorder: it fails the call, and is never sent.

use std::{cmp::Ordering, collections::VecDeque};

use crate::model::LabelBytes;

/// What has labels to be sorted by.
pub trait Labelled {
    /// The labels as they are sent.
    fn labels(&self) -> &LabelBytes;

    /// Bytes that it takes while it is held.
    fn size(&self) -> usize;
}

/// Series arrived in an order that cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Prometheus sent series out of order; its external labels may just have changed: retry, and see the log if that \
     does not help"
)]
pub struct OutOfOrder;

/// A series at its place.
#[derive(Debug)]
pub struct Placed<T> {
    /// The series.
    pub series: T,
    /// Whether it was collected, so that its memory is free from now on.
    pub was_collected: bool,
}

/// Puts the series of one answer in order.
#[derive(Debug)]
pub struct Order<T> {
    /// In any order until `sorted`, then taken from the front.
    collected: VecDeque<T>,
    sorted: bool,
    stack: Vec<Entry<T>>,
    parts_bytes: usize,
    /// Off the stack: nothing that still comes in order belongs before these.
    certain: VecDeque<T>,
    finished: bool,
    /// The greatest name of a label that is added to all series; empty, if none is.
    added: Box<[u8]>,
    last: Option<LabelBytes>,
}

/// A series on the stack, and its further parts.
#[derive(Debug)]
struct Entry<T> {
    first: T,
    more: Vec<T>,
}

impl<T: Labelled> Order<T> {
    /// An order of series to all of which labels are added, the greatest of them with this name.
    pub fn new(added: &[u8]) -> Self {
        Self {
            collected: VecDeque::new(),
            sorted: false,
            stack: Vec::new(),
            parts_bytes: 0,
            certain: VecDeque::new(),
            finished: false,
            added: added.into(),
            last: None,
        }
    }

    /// Takes a series that may belong anywhere.
    ///
    /// # Errors
    /// When one came before that may not.
    pub fn collect(&mut self, series: T) -> Result<(), OutOfOrder> {
        if self.sorted {
            return Err(OutOfOrder);
        }
        self.collected.push_back(series);
        Ok(())
    }

    /// How many were collected and are not sorted: they must be before the next [`Order::push`] or [`Order::finish`].
    pub fn unsorted(&self) -> usize {
        match self.sorted {
            true => 0,
            false => self.collected.len(),
        }
    }

    /// What was collected, to be sorted on another thread ([`sort`]) and put back.
    pub fn take_collected(&mut self) -> Vec<T> {
        std::mem::take(&mut self.collected).into()
    }

    /// What was collected, now sorted.
    pub fn put_sorted(&mut self, sorted: Vec<T>) {
        self.collected = sorted.into();
        self.sorted = true;
    }

    /// Takes the next series of those that come nearly in order.
    ///
    /// # Errors
    /// When they are in no such order.
    pub fn push(&mut self, series: T) -> Result<(), OutOfOrder> {
        self.sort();
        while let Some(top) = self.stack.last_mut() {
            match top.first.labels().cmp(series.labels()) {
                Ordering::Greater => break,
                Ordering::Equal if may_be_overtaken(series.labels(), &self.added) => {
                    self.parts_bytes += series.size();
                    top.more.push(series);
                    return Ok(());
                }
                Ordering::Less | Ordering::Equal => self.pop(),
            }
        }
        // The stored labels of each that is held begin with all of the one below it: a longer stack is no such chain,
        // and would hold an answer in any other order whole.
        if !self.stack.is_empty() && self.stack.len() > series.labels().iter().count() {
            return Err(OutOfOrder);
        }
        let more = Vec::new();
        self.stack.push(Entry { first: series, more });
        Ok(())
    }

    /// There are no more.
    pub fn finish(&mut self) {
        self.sort();
        while !self.stack.is_empty() {
            self.pop();
        }
        self.finished = true;
    }

    /// The next series, if its place is certain; `None` when more must come first, and for ever once all are out.
    ///
    /// # Errors
    /// When it belongs before one that is out already.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is no iterator: after None there may be more"
    )]
    pub fn next(&mut self) -> Result<Option<Placed<T>>, OutOfOrder> {
        let was_collected = match (self.certain.front(), self.collected.front()) {
            (Some(certain), Some(collected)) => collected.labels() < certain.labels(),
            (Some(_), None) => false,
            (None, Some(_)) if self.finished => true,
            (None, _) => return Ok(None),
        };
        let from = if was_collected {
            &mut self.collected
        } else {
            &mut self.certain
        };
        let Some(series) = from.pop_front() else {
            return Ok(None);
        };
        if self.last.as_ref().is_some_and(|last| last > series.labels()) {
            return Err(OutOfOrder);
        }
        self.last = Some(series.labels().clone());
        Ok(Some(Placed { series, was_collected }))
    }

    /// How many series are held back on the stack.
    pub fn held(&self) -> usize {
        self.stack.len()
    }

    /// Bytes of the further parts of those on the stack.
    pub fn parts_bytes(&self) -> usize {
        self.parts_bytes
    }

    /// Takes the top of the stack off, if there is one.
    fn pop(&mut self) {
        let Some(Entry { first, more }) = self.stack.pop() else {
            return;
        };
        self.certain.push_back(first);
        for part in more {
            self.parts_bytes -= part.size();
            self.certain.push_back(part);
        }
    }

    fn sort(&mut self) {
        if !self.sorted {
            sort(self.collected.make_contiguous());
            self.sorted = true;
        }
    }
}

/// Sorts series by their labels; the parts of one series stay in order.
pub fn sort<T: Labelled>(series: &mut [T]) {
    series.sort_by(|a, b| a.labels().cmp(b.labels()));
}

/// Whether a series whose stored labels begin with all of this one's may go before it: not where the last label is a
/// stored one behind all that are added.
fn may_be_overtaken(labels: &LabelBytes, added: &[u8]) -> bool {
    labels.iter().last().is_none_or(|(name, _)| name <= added)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::Range};

    use proptest::prelude::*;

    use super::*;
    use crate::{model::Labels, storeapi::series::relabel::Relabel};

    type Map = BTreeMap<String, String>;

    impl Labelled for LabelBytes {
        fn labels(&self) -> &LabelBytes {
            self
        }

        fn size(&self) -> usize {
            0
        }
    }

    fn bytes(pairs: &Map) -> LabelBytes {
        LabelBytes::from_sorted(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// Label sets over few names and values, so that prefixes and equal sets are common.
    fn stored() -> impl Strategy<Value = Vec<Map>> {
        let set = proptest::collection::btree_map("[a-g]", "[xy]", 0..6);
        proptest::collection::btree_set(set, 0..30).prop_map(|sets| {
            let mut sets: Vec<Map> = sets.into_iter().collect();
            sets.sort_by_key(bytes);
            sets
        })
    }

    /// A part of a series and its number.
    #[derive(Debug)]
    struct Part(LabelBytes, usize);

    impl Labelled for Part {
        fn labels(&self) -> &LabelBytes {
            &self.0
        }

        fn size(&self) -> usize {
            7
        }
    }

    /// The parts in order, and the greatest number of series that were held.
    fn run(stored: &[(Map, Range<usize>)], relabel: &Relabel) -> (Vec<Part>, usize) {
        let (mut order, mut ready, mut most) = (Order::new(relabel.greatest_added()), Vec::new(), 0);
        let touched = |set: &&(Map, Range<usize>)| relabel.touched().iter().any(|name| set.0.contains_key(name));
        let parts = |(set, numbers): &(Map, Range<usize>)| {
            let labels = relabel.apply(&bytes(set), &mut bytes::BytesMut::new());
            numbers.clone().map(move |number| Part(labels.clone(), number))
        };
        for part in stored.iter().filter(touched).flat_map(parts) {
            order.collect(part).unwrap();
        }
        for part in stored.iter().filter(|set| !touched(set)).flat_map(parts) {
            order.push(part).unwrap();
            drain(&mut order, &mut ready).unwrap();
            most = most.max(order.held());
            let more: usize = order.stack.iter().map(|entry| entry.more.len() * 7).sum();
            assert_eq!(order.parts_bytes(), more);
        }
        order.finish();
        drain(&mut order, &mut ready).unwrap();
        assert_eq!(order.parts_bytes(), 0);
        (ready, most)
    }

    /// Takes all whose place is certain.
    fn drain<T: Labelled>(order: &mut Order<T>, ready: &mut Vec<T>) -> Result<(), OutOfOrder> {
        while let Some(placed) = order.next()? {
            ready.push(placed.series);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Against a full sort of the final label sets, by the order of the contract: pairs, and the shorter first.
        #[test]
        fn equals_a_full_sort_and_holds_few(
            stored in stored(),
            parts in proptest::collection::vec(1_usize..4, 30),
            external in proptest::collection::btree_map("[a-g]|__x|zz", "[wxyz]?", 0..3),
            without in proptest::collection::vec("[a-g]|zz", 0..2),
        ) {
            let relabel = Relabel::new(&Labels::from_pairs(&external), &without);
            let numbers = parts.iter().enumerate().map(|(at, parts)| at * 10..at * 10 + parts);
            let stored: Vec<(Map, Range<usize>)> = stored.into_iter().zip(numbers).collect();
            let mut wanted: Vec<(Vec<(String, String)>, usize)> = stored.iter().flat_map(|(set, numbers)| {
                let mut set = set.clone();
                set.extend(external.clone());
                set.retain(|name, value| !value.is_empty() && !without.contains(name));
                let set: Vec<_> = set.into_iter().collect();
                numbers.clone().map(move |number| (set.clone(), number))
            }).collect();
            wanted.sort();
            let (found, most) = run(&stored, &relabel);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let mut found: Vec<(Vec<(String, String)>, usize)> = found.iter().map(|Part(set, number)| {
                (set.iter().map(|(name, value)| (text(name), text(value))).collect(), *number)
            }).collect();
            // Stored series that become the same one may come in any order, the parts of each in theirs only.
            prop_assert!(found.is_sorted_by(|a, b| a.0 <= b.0));
            found.sort_by(|a, b| (&a.0, a.1 / 10).cmp(&(&b.0, b.1 / 10)));
            prop_assert_eq!(found, wanted);
            // A series has at most 5 labels here, and the empty set is a prefix of all.
            prop_assert!(most <= 6, "{} held", most);
        }
    }

    #[test]
    fn the_parts_of_a_split_series_stay_together_and_in_order() {
        let set = |value: &str| LabelBytes::from_sorted([(&b"a"[..], value.as_bytes())]);
        let (mut order, mut ready) = (Order::new(b""), Vec::new());
        for (at, value) in ["y", "x", "y"].into_iter().enumerate() {
            order.collect(Part(set(value), at)).unwrap();
        }
        assert_eq!(order.unsorted(), 3);
        // As it is done elsewhere.
        let mut collected = order.take_collected();
        sort(&mut collected);
        order.put_sorted(collected);
        assert_eq!(order.unsorted(), 0);
        for (at, value) in ["x", "x", "z", "z"].into_iter().enumerate() {
            order.push(Part(set(value), 10 + at)).unwrap();
        }
        order.finish();
        let mut collected = Vec::new();
        while let Some(placed) = order.next().unwrap() {
            ready.push(placed.series.1);
            collected.push(placed.was_collected);
        }
        assert_eq!(ready, [10, 11, 1, 0, 2, 12, 13]);
        assert_eq!(collected, [false, false, true, true, true, false, false]);
    }

    #[test]
    fn an_answer_that_runs_backwards_is_not_held() {
        let mut order = Order::new(b"");
        let set = |at: u32| LabelBytes::from_sorted([(&b"a"[..], format!("{at:03}").as_bytes())]);
        let found = (0..100).rev().try_for_each(|at| order.push(set(at)));
        assert_eq!(found, Err(OutOfOrder));
        assert!(order.held() <= 2, "{} held", order.held());
        assert!(order.next().unwrap().is_none());
    }

    #[test]
    fn disorder_is_found() {
        let set = |value: &str| LabelBytes::from_sorted([(&b"a"[..], value.as_bytes())]);
        let (mut order, mut ready) = (Order::new(b""), Vec::new());
        for value in ["x", "z", "zz", "y"] {
            order.push(set(value)).unwrap();
        }
        order.finish();
        assert_eq!(drain(&mut order, &mut ready), Err(OutOfOrder));
        let mut order = Order::new(b"");
        order.push(set("x")).unwrap();
        assert_eq!(order.collect(set("y")), Err(OutOfOrder));
    }
}
