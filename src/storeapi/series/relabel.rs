//! From stored labels to those that are sent: external labels over them, replica labels removed. Pure.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use crate::model::{LabelBytes, Labels, label_bytes::put_label};

/// What a label is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    name: Box<[u8]>,
    /// Empty, if the label is removed.
    value: Box<[u8]>,
    /// As it is sent.
    encoded: Bytes,
}

/// Label sets that had to be written anew share memory of this size (bytes).
const SHARED: usize = 16 << 10;

/// What is done to the labels of each series of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relabel {
    /// Set over what is stored, sorted by name.
    set: Vec<Setting>,
    /// The names of all labels that a stored series must not have for its order to stay: sorted.
    touched: Vec<String>,
}

impl Relabel {
    /// External labels are set, external labels with an empty value and those of `without` are removed.
    pub fn new(external: &Labels, without: &[String]) -> Self {
        // An empty name is that of no label, and nothing may be asked about it.
        let named = without.iter().map(String::as_str).filter(|name| !name.is_empty());
        let without: BTreeSet<&str> = named.collect();
        let mut touched: BTreeSet<&str> = without.clone();
        touched.extend(external.iter().map(|label| &*label.name));
        let set = touched.iter().map(|&name| {
            let value = external
                .get(name)
                .filter(|_| !without.contains(name))
                .unwrap_or_default();
            let mut encoded = BytesMut::new();
            put_label(&mut encoded, name.as_bytes(), value.as_bytes());
            Setting {
                name: name.as_bytes().into(),
                value: value.as_bytes().into(),
                encoded: encoded.freeze(),
            }
        });
        Self {
            set: set.collect(),
            touched: touched.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// The names of the labels that are set or removed, sorted.
    pub fn touched(&self) -> &[String] {
        &self.touched
    }

    /// The greatest name of the labels that are added to each series; empty, if there are none.
    pub fn greatest_added(&self) -> &[u8] {
        let added = self.set.iter().rev().find(|setting| !setting.value.is_empty());
        added.map_or(&[], |setting| &setting.name)
    }

    /// The labels to be sent: the same memory, if nothing has to change, else some of `shared`.
    pub fn apply(&self, stored: &LabelBytes, shared: &mut BytesMut) -> LabelBytes {
        if self.holds(stored) {
            return stored.clone();
        }
        let bytes = stored.as_bytes();
        let most = bytes.len() + self.set.iter().map(|setting| setting.encoded.len()).sum::<usize>();
        if shared.capacity() < most {
            *shared = BytesMut::with_capacity(SHARED.max(most));
        }
        let mut set = self.set.iter().peekable();
        // Up to where what is stored was copied or left out.
        let mut done = 0;
        for (place, name) in stored.places() {
            while let Some(setting) = set.next_if(|setting| *setting.name < *name) {
                shared.extend_from_slice(&bytes[done..place.start]);
                shared.extend_from_slice(&setting.encoded);
                done = place.start;
            }
            if let Some(setting) = set.next_if(|setting| *setting.name == *name) {
                shared.extend_from_slice(&bytes[done..place.start]);
                shared.extend_from_slice(&setting.encoded);
                done = place.end;
            }
            if set.peek().is_none() {
                break;
            }
        }
        shared.extend_from_slice(&bytes[done..]);
        for setting in set {
            shared.extend_from_slice(&setting.encoded);
        }
        LabelBytes::from_encoded(shared.split().freeze())
    }

    /// Whether the labels are as they shall be already: Prometheus adds its external labels itself.
    fn holds(&self, stored: &LabelBytes) -> bool {
        let mut set = self.set.iter();
        let mut next = set.next();
        for (name, value) in stored.iter() {
            while let Some(wanted) = next
                && *wanted.name <= *name
            {
                let there = *wanted.name == *name;
                let good = match there {
                    true => *wanted.value == *value,
                    false => wanted.value.is_empty(),
                };
                if !good {
                    return false;
                }
                next = set.next();
            }
        }
        let is_removed = |setting: &Setting| setting.value.is_empty();
        next.is_none_or(is_removed) && set.all(is_removed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn bytes(pairs: &BTreeMap<String, String>) -> LabelBytes {
        LabelBytes::from_sorted(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn what_prometheus_has_done_already_costs_nothing() {
        let external = Labels::from_pairs([("cluster", "eu"), ("empty", "")]);
        let relabel = Relabel::new(&external, &["replica".to_owned()]);
        let stored: BTreeMap<_, _> = [("__name__", "up"), ("cluster", "eu"), ("job", "x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let stored = bytes(&stored);
        assert_eq!(
            relabel.apply(&stored, &mut BytesMut::new()).as_bytes().as_ptr(),
            stored.as_bytes().as_ptr()
        );
        assert_eq!(relabel.touched(), ["cluster", "empty", "replica"]);
    }

    #[test]
    fn an_empty_name_is_no_label() {
        let relabel = Relabel::new(&Labels::from_pairs([("cluster", "eu")]), &[String::new()]);
        assert_eq!(relabel.touched(), ["cluster"]);
    }

    fn labels(names: &'static str) -> impl Strategy<Value = BTreeMap<String, String>> {
        proptest::collection::btree_map(names, "[xy]{0,2}", 0..5)
    }

    proptest! {
        /// Against the plain reading of the contract on maps.
        #[test]
        fn external_labels_win_and_replica_labels_go(
            stored in labels("[a-e]"),
            external in labels("[a-f]"),
            without in proptest::collection::vec("[a-f]", 0..3),
        ) {
            let mut wanted = stored.clone();
            wanted.extend(external.clone());
            wanted.retain(|name, value| !value.is_empty() && !without.contains(name));
            let relabel = Relabel::new(&Labels::from_pairs(&external), &without);
            prop_assert_eq!(relabel.apply(&bytes(&stored), &mut BytesMut::new()), bytes(&wanted));
        }
    }
}
