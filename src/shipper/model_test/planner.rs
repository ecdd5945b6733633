//! Prometheus' own compaction with `--storage.tsdb.delay-compact-file.path` (3.9 and later): how it reads the ledger, and what
//! it merges by it.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::Model;
use crate::shipper::testing::Made;

/// For how long it goes by what it has read.
const CACHED: Duration = Duration::from_secs(60);

/// What it has read, and when.
#[derive(Default)]
pub(super) struct Planner {
    read: Option<(Instant, BTreeSet<String>)>,
    /// Somebody removed the ledger, and no pass was through since: it then compacts without asking.
    pub(super) ledger_gone: bool,
}

impl Model {
    /// Prometheus seals a block without samples. (It makes none by itself; others do.)
    pub(super) fn seal_empty(&mut self) {
        let mut made = Made::new(&self.next_name(), 0);
        made.samples = 0;
        self.world.seal(self.shipper.as_mut().unwrap(), &made);
        self.record_files(&made);
        self.ever_empty.insert(made.name.clone());
        self.empty.insert(made.name);
    }

    /// Prometheus plans a compaction, and merges what it may: its blocks of level 1 in the order of their names, up to the
    /// first that the ledger does not list.
    pub(super) fn plan(&mut self) {
        let Some(listed) = self.read_by_prometheus() else {
            assert!(self.planner.ledger_gone, "there is no ledger that Prometheus can read");
            return;
        };
        let local: BTreeSet<String> = self.begins.keys().chain(&self.empty).cloned().collect();
        let merged: Vec<String> = local.into_iter().take_while(|block| listed.contains(block)).collect();
        for block in &merged {
            // In the middle of a pass nobody has counted what was committed in it.
            let visible = self.world.object(&format!("{block}/meta.json")).is_some();
            let durable = visible || self.committed.contains(block) || self.merged.contains_key(block);
            assert!(durable || self.empty.contains(block), "Prometheus merges {block}");
        }
        if merged.iter().any(|block| self.begins.contains_key(block)) {
            self.compact_blocks(merged);
        }
    }

    /// The blocks that are listed, as Prometheus knows them; `None` if it cannot read the file.
    fn read_by_prometheus(&mut self) -> Option<BTreeSet<String>> {
        if let Some((at, listed)) = &self.planner.read
            && at.elapsed() < CACHED
        {
            return Some(listed.clone());
        }
        let file: serde_json::Value = serde_json::from_slice(&fs_err::read(self.ledger()).ok()?).ok()?;
        let listed: BTreeSet<String> = serde_json::from_value(file.get("uploaded")?.clone()).ok()?;
        self.planner.read = Some((Instant::now(), listed.clone()));
        Some(listed)
    }
}
