//! What is not durable, told by the metrics and named at the end: during a pass from what its scan found, so that it does
//! not stand still while a large backlog is on its way. What durable means is `durability`'s to say.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};

use crate::{
    shipper::{
        Decision, Shipper, Skip, Verdict, Wait,
        durability::{Candidate, Open, Report, Way, Why},
    },
    tsdb::{BlockId, Scan},
};

/// So many names are told of many.
const NAMED: usize = 3;

/// What a pass goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) decisions: &'a [Decision],
    pub(super) scan: &'a Scan,
}

impl Shipper {
    /// Blocks that waited and are gone; Prometheus deletes by its retention, whatever is shipped. One that it compacted is
    /// not lost as long as the larger block is there, which is told as not durable in its place.
    pub(super) fn count_vanished(&mut self, scan: &Scan, present: &HashSet<BlockId>) {
        let gone: Vec<BlockId> = self
            .pending
            .keys()
            .filter(|id| !present.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.pending.remove(&id);
            if let Some(into) = self.durability.merged_into(id, &scan.blocks) {
                tracing::warn!(block = %id, %into, "Prometheus compacted a block before it was durable; its samples are in the larger block. Set its --storage.tsdb.max-block-duration equal to the min-block-duration, or let it wait for the ledger by --storage.tsdb.delay-compact-file.path");
                continue;
            }
            self.metrics.vanished.inc();
            tracing::warn!(block = %id, "a block was deleted before it was durable, by retention or by hand; its samples are no longer on this disk");
        }
    }

    /// Measures, and keeps what is not durable for the next pass.
    pub(super) fn remember(&mut self, view: View<'_>) {
        let report = self.measure(view);
        let verdicts: HashMap<BlockId, &Verdict> = view
            .decisions
            .iter()
            .map(|found| (found.block.id, &found.verdict))
            .collect();
        let details: HashMap<BlockId, &str> = view
            .scan
            .corrupt
            .iter()
            .map(|corrupt| (corrupt.id, corrupt.detail.as_str()))
            .collect();
        let mut pending = BTreeMap::new();
        for Open { id, why } in report.open {
            let told = match why {
                Why::Unshipped => verdicts.get(&id).map(ToString::to_string).unwrap_or_default(),
                Why::Unreadable => self.unreadable(id, details.get(&id).copied().unwrap_or_default()),
                Why::Sources(missing) => {
                    let told = unshipped(&missing);
                    if self.pending.get(&id) != Some(&told) {
                        tracing::error!(block = %id, why = told, "the samples of a compacted block are not known to be in the bucket");
                    }
                    told
                }
            };
            pending.insert(id, told);
        }
        self.pending = pending;
    }

    fn unreadable(&self, id: BlockId, detail: &str) -> String {
        let wait = match self.quarantine.is_arriving(id) {
            true => Wait::Arriving(detail.to_owned()),
            false => Wait::Quarantined(detail.to_owned()),
        };
        Verdict::Wait(wait).to_string()
    }

    /// Tells what is durable by now.
    pub(super) fn measure(&mut self, view: View<'_>) -> Report {
        let blocks: Vec<Candidate<'_>> = view
            .decisions
            .iter()
            .map(|found| Candidate {
                block: &found.block,
                way: way(&found.verdict),
            })
            .collect();
        let unreadable = view.scan.corrupt.iter().map(|corrupt| corrupt.id);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let report = self.durability.judge(&blocks, unreadable, &self.ledger, now);
        let count = i64::try_from(report.open.len()).unwrap_or(i64::MAX);
        self.metrics.unuploaded.set(count);
        let oldest = report.open.iter().map(|open| open.id.timestamp_ms()).min();
        self.metrics.oldest.set(oldest.and_then(|ms| i64::try_from(ms).ok()));
        self.metrics.set_quarantined(self.quarantine.by_reason());
        let until = report.until.map_or(0.0, |until| until as f64 / 1000.0);
        self.metrics.durable_until.set(until);
        report
    }
}

fn way(verdict: &Verdict) -> Way {
    match verdict {
        Verdict::Skip(Skip::Empty) => Way::Empty,
        Verdict::Skip(Skip::Compacted(_)) => Way::Sources,
        Verdict::Ship(_) | Verdict::Shipped | Verdict::Wait(_) => Way::Itself,
    }
}

/// Why a compacted block that is not shipped is not durable, and what helps.
fn unshipped(missing: &[BlockId]) -> String {
    let names: Vec<String> = missing.iter().take(NAMED).map(BlockId::to_string).collect();
    let what = match missing.len() {
        0 => "it does not say which blocks it was compacted of".to_owned(),
        few if few <= NAMED => format!(
            "it was compacted of {}, not known to be in the bucket",
            names.join(", ")
        ),
        many => format!(
            "it was compacted of {} and {} more, not known to be in the bucket",
            names.join(", "),
            many - NAMED
        ),
    };
    format!(
        "{what}, and compacted blocks are not shipped: start narthex with --shipper.upload-compacted, or send it with `narthex backfill`"
    )
}
