//! From stored labels to those that are sent: external labels over them, replica labels removed. Pure.

use std::collections::BTreeSet;

use crate::model::{LabelBytes, Labels};

/// A label's name and its value.
type Setting = (Box<[u8]>, Box<[u8]>);

/// What is done to the labels of each series of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relabel {
    /// Set over what is stored, sorted by name; with an empty value the label is removed.
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
            let value = external.get(name).filter(|_| !without.contains(name));
            (name.as_bytes().into(), value.unwrap_or_default().as_bytes().into())
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
        let added = self.set.iter().rev().find(|(_, value)| !value.is_empty());
        added.map_or(&[], |(name, _)| name)
    }

    /// The labels to be sent: the same memory, if nothing has to change.
    pub fn apply(&self, stored: &LabelBytes) -> LabelBytes {
        if self.holds(stored) {
            return stored.clone();
        }
        let mut merged: Vec<(&[u8], &[u8])> = Vec::new();
        let mut set = self.set.iter().map(|(name, value)| (&**name, &**value)).peekable();
        for (name, value) in stored.iter() {
            while let Some(label) = set.next_if(|label| label.0 < name) {
                merged.push(label);
            }
            merged.push(set.next_if(|label| label.0 == name).unwrap_or((name, value)));
        }
        merged.extend(set);
        LabelBytes::from_sorted(merged)
    }

    /// Whether the labels are as they shall be already: Prometheus adds its external labels itself.
    fn holds(&self, stored: &LabelBytes) -> bool {
        let mut set = self.set.iter();
        let mut next = set.next();
        for (name, value) in stored.iter() {
            while let Some((wanted, wanted_value)) = next
                && **wanted <= *name
            {
                let there = **wanted == *name;
                let good = match there {
                    true => **wanted_value == *value,
                    false => wanted_value.is_empty(),
                };
                if !good {
                    return false;
                }
                next = set.next();
            }
        }
        next.is_none_or(|(_, value)| value.is_empty()) && set.all(|(_, value)| value.is_empty())
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
        assert_eq!(relabel.apply(&stored).as_bytes().as_ptr(), stored.as_bytes().as_ptr());
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
            prop_assert_eq!(relabel.apply(&bytes(&stored)), bytes(&wanted));
        }
    }
}
