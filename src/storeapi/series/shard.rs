//! Which series belong to a shard: XXH64 over the chosen labels of the final label set. Pure.

use std::{collections::BTreeSet, sync::Arc};

use twox_hash::XxHash64;

use crate::{model::LabelBytes, pb::thanos::ShardInfo};

/// Follows each name and each value.
const SEPARATOR: u8 = 0xff;

/// A shard of a query.
#[derive(Clone, Debug)]
pub struct Shard {
    /// `None` if there is no such shard.
    index: Option<u64>,
    total: u64,
    by: bool,
    /// Sorted, each once: a request may list many, and each label of each series is looked for.
    names: Arc<[Box<[u8]>]>,
    hashed: Vec<u8>,
}

impl Shard {
    /// The shard that a request asks for; `None` if it asks for everything.
    pub fn new(info: Option<&ShardInfo>) -> Option<Self> {
        let info = info?;
        let total = u64::try_from(info.total_shards).ok().filter(|total| *total > 0)?;
        let names: BTreeSet<_> = info.labels.iter().map(String::as_bytes).collect();
        Some(Self {
            index: u64::try_from(info.shard_index).ok(),
            total,
            by: info.by,
            names: names.into_iter().map(Box::from).collect(),
            hashed: Vec::new(),
        })
    }

    /// Whether a series with these final labels belongs to the shard.
    pub fn keeps(&mut self, labels: &LabelBytes) -> bool {
        let hash = self.hash(labels);
        self.index == Some(hash % self.total)
    }

    fn hash(&mut self, labels: &LabelBytes) -> u64 {
        self.hashed.clear();
        for (name, value) in labels.iter() {
            let listed = self.names.binary_search_by(|listed| (**listed).cmp(name)).is_ok();
            if listed == self.by {
                for part in [name, value] {
                    self.hashed.extend_from_slice(part);
                    self.hashed.push(SEPARATOR);
                }
            }
        }
        XxHash64::oneshot(0, &self.hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(by: bool, labels: &[&str], index: i64, total: i64) -> Option<Shard> {
        Shard::new(Some(&ShardInfo {
            shard_index: index,
            total_shards: total,
            by,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        }))
    }

    fn up() -> LabelBytes {
        let pairs = [
            ("__name__", "up"),
            ("instance", "a:9090"),
            ("job", "node"),
            ("region", "eu"),
        ];
        LabelBytes::from_sorted(pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// The vectors of the contract, section 3.9.
    #[test]
    fn hashes_and_shards_are_those_of_thanos() {
        for (by, labels, hash, shards) in [
            (true, &["job"][..], 10040509516775809331, [1, 2, 3]),
            (false, &["job"], 4486848674922022156, [0, 1, 0]),
            (true, &[], 17241709254077376921, [1, 0, 1]),
            (true, &["pod"], 17241709254077376921, [1, 0, 1]),
            (false, &[], 5203125953060665769, [1, 2, 1]),
            // In any order, and more than once.
            (true, &["job", "none", "job"], 10040509516775809331, [1, 2, 3]),
        ] {
            assert_eq!(shard(by, labels, 0, 1).unwrap().hash(&up()), hash, "{by} {labels:?}");
            for (total, wanted) in (2..).zip(shards) {
                for index in 0..total {
                    let keeps = shard(by, labels, index, total).unwrap().keeps(&up());
                    assert_eq!(keeps, index == wanted, "{by} {labels:?} {index} of {total}");
                }
            }
        }
    }

    #[test]
    fn without_shards_everything_belongs_and_an_index_outside_has_nothing() {
        assert!(Shard::new(None).is_none());
        assert!(shard(true, &[], 0, 0).is_none());
        assert!(shard(true, &[], 0, -1).is_none());
        for index in [-1, 2, i64::MAX] {
            assert!(!shard(true, &["job"], index, 2).unwrap().keeps(&up()));
        }
    }
}
