//! What must hold after a step, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};

use super::{Model, Step, tree};
use crate::{model::Labels, objstore::Op};

impl Model {
    /// What became visible in a pass are the first of those that were open, tried in their order, under the labels of
    /// when they were first seen. Blocks that were set `aside` hold nobody.
    pub(super) fn check_order(&mut self, open: &[String], begun: usize, aside: &BTreeSet<String>) {
        let store = tree(self.world.store.path());
        let calls = self.world.bucket.calls();
        let mut tried: Vec<&str> = calls[begun..]
            .iter()
            .filter(|(op, _)| *op == Op::Upload)
            .filter_map(|(_, key)| key.strip_suffix("/meta.json"))
            .collect();
        // A block that was removed meanwhile holds nobody.
        let open = open.iter();
        let open: Vec<String> = open
            .filter(|block| self.begins.contains_key(*block) || tried.contains(&block.as_str()))
            .cloned()
            .collect();
        let whole = |block: &str| {
            let meta = store.get(&format!("{block}/meta.json"));
            meta.is_some_and(|meta| serde_json::from_slice::<serde_json::Value>(meta).is_ok())
        };
        let visible: Vec<String> = open.iter().filter(|block| whole(block)).cloned().collect();
        for block in &visible {
            assert!(!self.barred.contains(block), "{block} is visible");
        }
        let skipped =
            |block: &str| aside.contains(block) || self.barred.contains(block) || self.merged.contains_key(block);
        let due: Vec<&str> = open
            .iter()
            .map(String::as_str)
            .filter(|block| !skipped(block))
            .collect();
        let first: Vec<&str> = visible
            .iter()
            .map(String::as_str)
            .filter(|block| !skipped(block))
            .collect();
        assert_eq!(first, &due[..first.len()], "of {open:?}");
        tried.retain(|block| !skipped(block));
        assert_eq!(tried, &due[..tried.len()], "commits of a pass");
        let labels = self.world.prometheus.borrow().labels.clone();
        // Blocks that were merged under other labels than those of now are sent under these.
        let back: Vec<String> = self.merged.keys().filter(|block| whole(block)).cloned().collect();
        for block in &back {
            self.merged.remove(block);
            let now = self.local.iter().filter(|(file, _)| file.starts_with(block.as_str()));
            self.truth
                .extend(now.map(|(file, bytes)| (file.clone(), bytes.clone())));
        }
        let visible = visible.into_iter().map(|block| (block, false));
        for (block, is_back) in visible.chain(back.into_iter().map(|block| (block, true))) {
            let stamped = self.world.stamped(&block).unwrap();
            let stamped: BTreeMap<String, String> = serde_json::from_value(stamped).unwrap();
            assert!(self.labels.contains(&stamped["replica"]), "labels of {block}");
            let sealed_under = self.sealed_under.remove(&block).unwrap_or_else(|| labels.clone());
            // When a block that was merged was looked for under other labels is not kept here.
            if let Some(labels) = sealed_under.filter(|_| !is_back) {
                assert_eq!(Labels::from_pairs(stamped), labels, "labels of {block}");
            }
            self.settle(&block);
            self.committed.insert(block);
        }
    }

    /// No time counts as durable from which on a local block, or what it was made of, is not in the bucket.
    pub(super) fn check_durable_until(&self) {
        let durable = |block: &String| self.committed.contains(block) || self.merged.contains_key(block);
        let open = self.begins.keys().filter(|block| !durable(block));
        let lost = self
            .compacted
            .iter()
            .filter(|(_, sources)| !sources.iter().all(durable));
        let until = self.world.metrics.durable_until.get() * 1000.0;
        for block in open.chain(lost.map(|(block, _)| block)) {
            let begin = self.ranges[block].0;
            assert!(
                until <= begin as f64,
                "durable until {until}, and {block} begins at {begin}"
            );
        }
    }

    pub(super) fn check(&self, step: &Step) {
        // P3: neither side has changed but for the ledger and what is not committed.
        let mut data = tree(self.world.data.path());
        data.retain(|file, _| !file.starts_with("thanos.shipper.json"));
        assert!(data == self.local, "the data directory changed");
        let store = tree(self.world.store.path());
        for (key, bytes) in &self.settled {
            assert!(store.get(key) == Some(bytes), "{key} changed");
        }
        // Nothing of a block that was merged comes back, unless it would get other labels, or nobody could tell.
        for key in store.keys() {
            let merged = self.merged.get(&key[..26]);
            let may = merged.is_none_or(|replica| self.labels.iter().any(|label| label != replica));
            assert!(may || self.unread, "{key} came back");
        }
        // P1: what is visible is whole.
        for block in &self.committed {
            let meta = &store[&format!("{block}/meta.json")];
            let meta: serde_json::Value = serde_json::from_slice(meta).unwrap();
            let files = meta["thanos"]["files"].as_array().unwrap();
            assert_eq!(files.len(), 3, "{block}");
            for file in files.iter().filter(|file| file["rel_path"] != "meta.json") {
                let key = format!("{block}/{}", file["rel_path"].as_str().unwrap());
                assert!(store.get(&key) == self.truth.get(&key), "{key} is not what it was");
                assert_eq!(file["size_bytes"], store[&key].len() as u64, "{key}");
            }
        }
        // P2: the ledger is whole, and lists nothing but what is durable.
        let stands = !matches!(step, Step::LedgerGone | Step::LedgerTorn(_) | Step::PowerLoss(_));
        if stands && self.ledger().try_exists().unwrap() {
            let listed: BTreeSet<String> = self.world.listed().into_iter().collect();
            // What Thanos knew is not forgotten before it was looked up, and found when it was.
            if self.labels.len() == 1 && !self.unread {
                let known = |block: &&String| self.begins.contains_key(*block) && !self.marked.contains(*block);
                let forgotten: Vec<&String> = self
                    .by_thanos
                    .iter()
                    .filter(known)
                    .filter(|block| !listed.contains(*block))
                    .collect();
                assert!(forgotten.is_empty(), "{forgotten:?} are not listed any more");
            }
            // One of Thanos that stays may list what was marked since.
            let is_ours = !self.world.ledger()["narthex"].is_null();
            for block in listed
                .into_iter()
                .filter(|block| is_ours && !self.ever_empty.contains(block))
            {
                let durable = self.committed.contains(&block) || self.merged.contains_key(&block);
                assert!(durable && !self.barred.contains(&block), "{block} is listed");
            }
        }
        // What Prometheus withdrew is not lost.
        assert!(
            self.world.metrics.vanished.get() <= self.removed,
            "more is lost than was removed"
        );
    }
}
