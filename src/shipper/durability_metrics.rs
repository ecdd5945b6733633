//! The metrics of what is durable, and the list of what is not: kept up to date during a pass from what its scan found, so
//! that they do not stand still while a large backlog is uploaded. What durable means is defined in `durability`.

use std::collections::{BTreeMap, HashMap};

use crate::{
    model::few,
    shipper::{
        Decision, Pending, Shipper, Skip, Verdict, Wait,
        durability::{Candidate, OpenBlock, OpenReason, Report, ShippedAs},
        ledger::now_ms,
    },
    tsdb::{BlockId, Scan},
};

/// What a pass has found and decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) decisions: &'a [Decision],
    pub(super) scan: &'a Scan,
}

impl Shipper {
    /// Updates the metrics and the overview, and keeps what is not durable for the next pass.
    pub(super) fn record_pending(&mut self, view: View<'_>) {
        let report = self.update_durability_metrics(view);
        let verdicts: HashMap<BlockId, &Verdict> = view
            .decisions
            .iter()
            .map(|found| (found.block.id, &found.verdict))
            .collect();
        let mut pending = BTreeMap::new();
        for open in &report.open {
            let id = open.id;
            let why = self.why_open(open, verdicts.get(&id).copied(), view.scan);
            // Not before the bucket was asked.
            let is_new = self.pending.get(&id).map(|pending| &pending.why) != Some(&why);
            if matches!(open.why, OpenReason::Sources(_)) && is_new && self.sources_looked_up_at.is_some() {
                tracing::error!(block = %id, why, "the samples of a compacted block are not known to be in the bucket");
            }
            let is_no_block = self.quarantine.is_no_block(id);
            pending.insert(id, Pending { why, is_no_block });
        }
        self.pending = pending;
    }

    /// Why the samples of a block are not all durable, in words.
    pub(super) fn why_open(&self, open: &OpenBlock, verdict: Option<&Verdict>, scan: &Scan) -> String {
        match &open.why {
            OpenReason::Unshipped => match self.at_gate.get(&open.id) {
                Some(why) => why.waits(),
                None => verdict.map(ToString::to_string).unwrap_or_default(),
            },
            OpenReason::Unreadable => {
                let corrupt = scan.corrupt.iter().find(|corrupt| corrupt.id == open.id);
                self.unreadable(open.id, corrupt.map_or("", |corrupt| &corrupt.detail))
            }
            OpenReason::Sources(missing) => unshipped(missing),
        }
    }

    fn unreadable(&self, id: BlockId, detail: &str) -> String {
        let wait = match self.quarantine.is_arriving(id) {
            true => Wait::Arriving(detail.to_owned()),
            false => Wait::Quarantined(detail.to_owned()),
        };
        Verdict::Wait(wait).to_string()
    }

    /// Sets the metrics and the overview to what is durable by now.
    pub(super) fn update_durability_metrics(&mut self, view: View<'_>) -> Report {
        let blocks: Vec<Candidate<'_>> = view
            .decisions
            .iter()
            .map(|found| Candidate {
                block: &found.block,
                shipped_as: shipped_as(&found.verdict),
            })
            .collect();
        let unreadable = view.scan.corrupt.iter();
        // What has no meta.json is no block, unless it was one that waits: then it is being deleted, or damaged.
        let unreadable: Vec<BlockId> = unreadable
            .filter(|corrupt| corrupt.is_block() || self.durability.was_open(corrupt.id))
            .map(|corrupt| corrupt.id)
            .collect();
        let any_unreadable = !unreadable.is_empty();
        let report = self.durability.judge(&blocks, unreadable, &self.ledger, now_ms());
        self.update_min_time(view, &report, any_unreadable);
        let count = i64::try_from(report.open.len()).unwrap_or(i64::MAX);
        self.metrics.unuploaded.set(count);
        let oldest = report.open.iter().map(|open| open.id.timestamp_ms()).min();
        self.metrics.oldest.set(oldest.and_then(|ms| i64::try_from(ms).ok()));
        self.metrics.set_quarantined(self.quarantine.by_reason());
        let until = report.until.map_or(0.0, |until| until as f64 / 1000.0);
        self.metrics.durable_until.set(until);
        self.report_blocked_compaction(view);
        self.report_retention(view, &report);
        self.publish_overview(view, &report);
        report
    }
}

fn shipped_as(verdict: &Verdict) -> ShippedAs {
    match verdict {
        Verdict::Skip(Skip::Empty) => ShippedAs::Empty,
        Verdict::Skip(Skip::Compacted(_)) => ShippedAs::Sources,
        Verdict::Ship | Verdict::Shipped | Verdict::Wait(_) => ShippedAs::Itself,
    }
}

/// Why a compacted block that is not shipped is not durable, and what helps.
fn unshipped(missing: &[BlockId]) -> String {
    let what = match missing {
        [] => "it does not say which blocks it was compacted of".to_owned(),
        _ => format!(
            "it was compacted of {}, not known to be in the bucket",
            few(missing.iter())
        ),
    };
    format!(
        "{what}, and compacted blocks are not shipped: start narthex with --shipper.upload-compacted, or send it with `narthex backfill`"
    )
}
