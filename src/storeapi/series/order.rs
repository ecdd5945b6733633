//! The order of the StoreAPI, restored in constant memory. Pure.
//!
//! Prometheus sends series sorted by their stored labels. Adding the same external labels to all of them changes the
//! order of two series only where one stored label set is a prefix of the other, so that a stack of at most as many
//! series as a series has labels brings them in order. A stored series that already carries one of the labels that are
//! set or removed moves freely; those are asked for apart ([`super::query`]), come first, are collected and sorted, and
//! merged in. The parts of a series that Prometheus split over frames stay together: while a longer label set may still
//! go before it, all of them are held, which [`Order::parts_bytes`] counts. A last look at each label set finds disorder:
//! it fails the call, and is never sent.

use std::{cmp::Ordering, collections::VecDeque};

use crate::prometheus::remote_read::wire::LabelBytes;

/// What has labels to be sorted by.
pub trait Labelled {
    /// The labels as they are sent.
    fn labels(&self) -> &LabelBytes;

    /// Bytes that it takes while it is held.
    fn size(&self) -> usize;
}

/// Series arrived in an order that the way they were asked for rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Prometheus sent series out of order; its external labels may just have changed: ask again, and see the log if that \
     does not help"
)]
pub struct Disorder;

/// Puts the series of one answer in order.
#[derive(Debug)]
pub struct Order<T> {
    /// Sorted once `sorted`, and then taken from the front.
    collected: VecDeque<T>,
    sorted: bool,
    stack: Vec<Entry<T>>,
    parts_bytes: usize,
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
            added: added.into(),
            last: None,
        }
    }

    /// Takes a series that may belong anywhere.
    ///
    /// # Errors
    /// When one came before that may not.
    pub fn collect(&mut self, series: T) -> Result<(), Disorder> {
        if self.sorted {
            return Err(Disorder);
        }
        self.collected.push_back(series);
        Ok(())
    }

    /// Takes the next series of those that come nearly in order, and puts those whose place is certain into `ready`.
    ///
    /// # Errors
    /// When a series belongs before one that is out already.
    pub fn push(&mut self, series: T, ready: &mut VecDeque<T>) -> Result<(), Disorder> {
        self.sort();
        while let Some(top) = self.stack.last_mut() {
            match top.first.labels().cmp(series.labels()) {
                Ordering::Greater => break,
                Ordering::Equal if may_be_overtaken(series.labels(), &self.added) => {
                    self.parts_bytes += series.size();
                    top.more.push(series);
                    return Ok(());
                }
                Ordering::Less | Ordering::Equal => self.pop(ready)?,
            }
        }
        // The stored labels of each that is held begin with all of the one below it: a longer stack is no such chain,
        // and would hold an answer in any other order whole.
        if !self.stack.is_empty() && self.stack.len() > series.labels().iter().count() {
            return Err(Disorder);
        }
        let more = Vec::new();
        self.stack.push(Entry { first: series, more });
        Ok(())
    }

    /// There are no more: puts the rest into `ready`.
    ///
    /// # Errors
    /// As [`Order::push`].
    pub fn finish(&mut self, ready: &mut VecDeque<T>) -> Result<(), Disorder> {
        self.sort();
        while !self.stack.is_empty() {
            self.pop(ready)?;
        }
        while let Some(series) = self.collected.pop_front() {
            self.emit(series, ready)?;
        }
        Ok(())
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
    fn pop(&mut self, ready: &mut VecDeque<T>) -> Result<(), Disorder> {
        let Some(Entry { first, more }) = self.stack.pop() else {
            return Ok(());
        };
        self.merge(first, ready)?;
        for part in more {
            self.parts_bytes -= part.size();
            self.merge(part, ready)?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        if !self.sorted {
            // Stable: the parts of one series stay in order.
            self.collected
                .make_contiguous()
                .sort_by(|a, b| a.labels().cmp(b.labels()));
            self.sorted = true;
        }
    }

    fn merge(&mut self, series: T, ready: &mut VecDeque<T>) -> Result<(), Disorder> {
        while let Some(first) = self.collected.pop_front_if(|first| (*first).labels() < series.labels()) {
            self.emit(first, ready)?;
        }
        self.emit(series, ready)
    }

    fn emit(&mut self, series: T, ready: &mut VecDeque<T>) -> Result<(), Disorder> {
        if self.last.as_ref().is_some_and(|last| last > series.labels()) {
            return Err(Disorder);
        }
        self.last = Some(series.labels().clone());
        ready.push_back(series);
        Ok(())
    }
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
        let (mut order, mut ready, mut most) = (Order::new(relabel.greatest_added()), VecDeque::new(), 0);
        let touched = |set: &&(Map, Range<usize>)| relabel.touched().iter().any(|name| set.0.contains_key(name));
        let parts = |(set, numbers): &(Map, Range<usize>)| {
            let labels = relabel.apply(&bytes(set));
            numbers.clone().map(move |number| Part(labels.clone(), number))
        };
        for part in stored.iter().filter(touched).flat_map(parts) {
            order.collect(part).unwrap();
        }
        for part in stored.iter().filter(|set| !touched(set)).flat_map(parts) {
            order.push(part, &mut ready).unwrap();
            most = most.max(order.held());
            let more: usize = order.stack.iter().map(|entry| entry.more.len() * 7).sum();
            assert_eq!(order.parts_bytes(), more);
        }
        order.finish(&mut ready).unwrap();
        assert_eq!(order.parts_bytes(), 0);
        (ready.into(), most)
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
        let (mut order, mut ready) = (Order::new(b""), VecDeque::new());
        for (at, value) in ["y", "x", "y"].into_iter().enumerate() {
            order.collect(Part(set(value), at)).unwrap();
        }
        for (at, value) in ["x", "x", "z", "z"].into_iter().enumerate() {
            order.push(Part(set(value), 10 + at), &mut ready).unwrap();
        }
        order.finish(&mut ready).unwrap();
        let found: Vec<usize> = ready.iter().map(|part| part.1).collect();
        assert_eq!(found, [10, 11, 1, 0, 2, 12, 13]);
    }

    #[test]
    fn an_answer_that_runs_backwards_is_not_held() {
        let (mut order, mut ready) = (Order::new(b""), VecDeque::new());
        let set = |at: u32| LabelBytes::from_sorted([(&b"a"[..], format!("{at:03}").as_bytes())]);
        let found = (0..100).rev().try_for_each(|at| order.push(set(at), &mut ready));
        assert_eq!(found, Err(Disorder));
        assert!(order.held() <= 2 && ready.is_empty(), "{} held", order.held());
    }

    #[test]
    fn disorder_is_found() {
        let set = |value: &str| LabelBytes::from_sorted([(&b"a"[..], value.as_bytes())]);
        let (mut order, mut ready) = (Order::new(b""), VecDeque::new());
        order.push(set("x"), &mut ready).unwrap();
        order.push(set("z"), &mut ready).unwrap();
        order.push(set("zz"), &mut ready).unwrap();
        let late = order.push(set("y"), &mut ready).and_then(|()| order.finish(&mut ready));
        assert_eq!(late, Err(Disorder));
        let mut order = Order::new(b"");
        order.push(set("x"), &mut ready).unwrap();
        assert_eq!(order.collect(set("y")), Err(Disorder));
    }
}
