//! A label set: sorted by name, names unique, cheap to clone.

use std::{fmt, sync::Arc};

/// One label of a label set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The name, never empty.
    pub name: Box<str>,
    /// The value.
    pub value: Box<str>,
}

/// A label set, sorted bytewise by name; a clone shares the memory.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// Sorts `pairs`; of two pairs with one name the later wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let map: std::collections::BTreeMap<Box<str>, Box<str>> = pairs
            .into_iter()
            .map(|(name, value)| (name.as_ref().into(), value.as_ref().into()))
            .collect();
        Self(map.into_iter().map(|(name, value)| Label { name, value }).collect())
    }

    /// The value of `name`, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels by name.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// This set with `over` laid over it: where both have a name, `over` wins.
    pub fn overlaid_with(&self, over: &Labels) -> Labels {
        Labels::from_pairs(
            self.iter()
                .chain(over.iter())
                .map(|label| (&*label.name, &*label.value)),
        )
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}={:?}", label.name, label.value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_and_lets_the_later_pair_win() {
        let labels = Labels::from_pairs([("replica", "a"), ("cluster", "eu"), ("replica", "b")]);
        assert_eq!(labels.to_string(), r#"{cluster="eu", replica="b"}"#);
        assert_eq!(labels.get("replica"), Some("b"));
        assert_eq!(labels.get("zone"), None);
    }

    #[test]
    fn overlay_keeps_what_only_one_side_has() {
        let disk = Labels::from_pairs([("cluster", "old"), ("tier", "gold")]);
        let now = Labels::from_pairs([("cluster", "eu")]);
        assert_eq!(
            disk.overlaid_with(&now),
            Labels::from_pairs([("cluster", "eu"), ("tier", "gold")])
        );
    }
}
