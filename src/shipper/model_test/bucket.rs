//! What others do in the bucket.

use std::collections::BTreeMap;

use proptest::sample::Index;

use super::{Model, steps::Foreign, tree};
use crate::shipper::testing::Made;

impl Model {
    /// The compactor merges all blocks in the bucket, and deletes what it merged.
    pub(super) fn merge(&mut self) {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for block in self.committed.difference(&self.marked) {
            let replica = self.world.stamped(block).unwrap()["replica"]
                .as_str()
                .unwrap()
                .to_owned();
            groups.entry(replica).or_default().push(block.clone());
        }
        for (replica, sources) in groups {
            let mut made = Made::new(&self.next_name(), 0);
            let begins = sources.iter().map(|source| self.ranges[source].0);
            let ends = sources.iter().map(|source| self.ranges[source].1);
            made.range = (begins.min().unwrap(), ends.max().unwrap());
            (made.level, made.sources) = (2, sources.clone());
            self.world.merge(&made, &replica);
            for block in sources {
                self.committed.remove(&block);
                self.settled.retain(|key, _| !key.starts_with(&block));
                self.merged.insert(block, replica.clone());
            }
            self.settle(&made.name);
        }
    }

    /// What stands in a directory of the bucket now is not ours to change.
    pub(super) fn settle(&mut self, block: &str) {
        for (file, bytes) in tree(&self.world.store.path().join(block)) {
            self.settled.insert(format!("{block}/{file}"), bytes);
        }
    }

    pub(super) fn mark(&mut self, which: Index) {
        let committed: Vec<String> = self.committed.iter().cloned().collect();
        if !committed.is_empty() {
            let block = which.get(&committed);
            self.world.mark(block);
            self.settle(block);
            self.marked.insert(block.clone());
        }
    }

    /// A block in the bucket says that it was made of ours, and does not have what they hold.
    pub(super) fn foreign(&mut self, foreign: Foreign) {
        let durable = |block: &&String| self.committed.contains(*block) || self.merged.contains_key(*block);
        let sources: Vec<String> = self.begins.keys().filter(|block| !durable(block)).cloned().collect();
        let mut made = Made::new(&self.next_name(), 0);
        (made.level, made.sources, made.range) = (2, sources, (0, 1000));
        let dir = self.world.store.path().join(&made.name);
        match foreign {
            Foreign::Tenant => self.world.put_block(&made, "of another"),
            Foreign::Times => {
                made.range = (500, 1000);
                self.world.put_block(&made, "a");
            }
            Foreign::Marked => {
                self.world.put_block(&made, "a");
                self.world.mark(&made.name);
            }
            Foreign::Hollow => {
                self.world.put_block(&made, "a");
                fs_err::remove_file(dir.join("index")).unwrap();
            }
            Foreign::Garbage => {
                fs_err::create_dir(&dir).unwrap();
                fs_err::write(dir.join("meta.json"), "{").unwrap();
            }
        }
        self.settle(&made.name);
    }

    pub(super) fn clear(&self, which: Index) {
        let half: Vec<String> = tree(self.world.store.path())
            .into_keys()
            .filter(|key| !self.settled.contains_key(key))
            .collect();
        if !half.is_empty() {
            fs_err::remove_file(self.world.store.path().join(which.get(&half))).unwrap();
        }
    }
}
