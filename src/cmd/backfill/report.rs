//! What a backfill reports: the plan as a table, what came of it, and all of that as one JSON document.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    backfill::{Applied, Decision, Interrupted, Item, Plan, Proven},
    cmd::output::{self, Table, byte_size, counted, time},
    objstore::Bucket,
    tsdb::BlockId,
};

/// Requests for each block beside those for its files: the looks for it, the listings, `meta.json`, and the last look.
const REQUESTS_PER_BLOCK: u64 = 8;

/// How many blocks are named that were left unchecked.
const NAMES: usize = 5;

/// How a backfill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Everything that was asked for is in the bucket, or would be after a dry run.
    AllThere,
    /// Some blocks are refused.
    SomeRefused,
    /// Everything that was asked for is in the bucket, where other blocks cannot be judged: they may hold the same times.
    SomeUnreadable,
    /// The bucket or this host failed.
    Failed,
    /// A signal came first.
    Cut,
}

/// Everything that is reported, as it stands in the JSON document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    dry_run: bool,
    path: String,
    bucket: String,
    blocks: Vec<Row>,
    /// Other blocks of the bucket that could not be judged.
    unreadable: Vec<Unreadable>,
    totals: Totals,
    #[serde(skip)]
    proof: String,
    /// What failed, other than blocks that are refused.
    failures: Vec<String>,
}

/// A block of the bucket that could not be judged.
#[derive(Clone, Debug, Serialize)]
struct Unreadable {
    ulid: String,
    why: String,
}

/// One block.
#[derive(Clone, Debug, Serialize)]
struct Row {
    ulid: String,
    dir: String,
    min_time: Option<i64>,
    max_time: Option<i64>,
    level: u64,
    resolution: i64,
    series: u64,
    samples: u64,
    bytes: u64,
    labels: BTreeMap<String, String>,
    /// What the plan said.
    decision: &'static str,
    /// What came of it: `sent`, `there`, `left_out`, `refused`, `failed`, `not_sent`; `planned` in a dry run.
    result: &'static str,
    /// Why.
    why: String,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Totals {
    to_send: u64,
    bytes_to_send: u64,
    /// Objects beside each `meta.json`.
    objects_to_send: u64,
    /// Requests that sending takes, about.
    requests: u64,
    check_seconds: f64,
    sent: u64,
    /// Bytes of bodies, those that were sent a second time included.
    bytes_sent: u64,
    send_seconds: f64,
    there: u64,
    left_out: u64,
    refused: u64,
    not_sent: u64,
    /// Blocks that were looked at anew in the bucket at the end and are whole.
    proven: u64,
    /// Blocks that a compactor has merged meanwhile into others, of which `meta.json` and sizes were looked at.
    merged: u64,
    prove_seconds: f64,
}

/// Whether the bucket holds the block under its own name, so that it can be looked at there.
pub(super) fn is_compared(item: &Item) -> bool {
    matches!(&item.decision, Decision::There(_)) && item.in_bucket
}

impl Report {
    pub(super) fn new(path: &Path, dry_run: bool) -> Self {
        Self {
            outcome: Outcome::AllThere,
            dry_run,
            path: path.display().to_string(),
            bucket: String::new(),
            blocks: Vec::new(),
            unreadable: Vec::new(),
            totals: Totals::default(),
            proof: String::new(),
            failures: Vec::new(),
        }
    }

    /// Records the plan.
    pub(super) fn record_plan(&mut self, plan: &Plan, bucket: &Arc<dyn Bucket>, took: Duration) {
        self.bucket = bucket.identity().to_owned();
        self.blocks = plan.items.iter().map(|item| row(item, self.dry_run)).collect();
        let unreadable = plan.unreadable.iter().map(|(id, why)| Unreadable {
            ulid: id.to_string(),
            why: why.clone(),
        });
        self.unreadable = unreadable.collect();
        let totals = &mut self.totals;
        totals.check_seconds = took.as_secs_f64();
        for item in plan.to_send() {
            totals.to_send += 1;
            totals.bytes_to_send += item.bytes;
            totals.objects_to_send += item.files as u64;
            totals.requests += REQUESTS_PER_BLOCK;
            totals.requests += item.file_sizes().map(|len| bucket.requests_for(len)).sum::<u64>();
        }
    }

    /// Records what was sent.
    pub(super) fn record_uploads(&mut self, applied: &Applied, bytes: u64, took: Duration) {
        self.totals.bytes_sent = bytes;
        self.totals.send_seconds = took.as_secs_f64();
        for id in &applied.sent {
            self.set(*id, "sent", None);
        }
        for id in &applied.there {
            self.set(
                *id,
                "there",
                Some("it came into the bucket meanwhile: the same block, or one that it was merged into".into()),
            );
        }
        for (id, why) in &applied.refused {
            self.set(*id, "refused", Some(why.clone()));
        }
        for id in &applied.left {
            self.set(*id, "not_sent", None);
        }
        for (id, why) in &applied.unmarked {
            self.failures.push(format!(
                "block {id} is in the bucket with chunks that compactors refuse, and cannot be marked: {why}"
            ));
        }
        if let Some((id, why)) = &applied.failed {
            self.set(*id, "failed", Some(why.clone()));
            self.failures.push(format!("block {id}: {why}"));
        }
    }

    /// Records what came of a block that was to be sent, by itself or as a part of another one. Others of its name are refused.
    fn set(&mut self, id: BlockId, result: &'static str, why: Option<String>) {
        let id = id.to_string();
        let row = self
            .blocks
            .iter_mut()
            .find(|row| row.ulid == id && matches!(row.decision, "send" | "left out"));
        if let Some(row) = row {
            row.result = result;
            row.why = why.unwrap_or_else(|| std::mem::take(&mut row.why));
        }
    }

    /// Records what was proven at the end.
    pub(super) fn record_proof(&mut self, proven: &Proven, full: bool, took: Duration) {
        self.totals.proven = proven.whole as u64;
        self.totals.merged = proven.merged as u64;
        self.totals.prove_seconds = took.as_secs_f64();
        self.proof = match full {
            true => "every byte read back".into(),
            false => "sizes and checksums compared".into(),
        };
        for (id, why) in &proven.wrong {
            self.failures.push(format!(
                "block {id} is not whole in the bucket: {why}; another program writes there, or the store loses data"
            ));
        }
        for (id, why) in &proven.unknown {
            self.failures.push(format!(
                "block {id} is in the bucket, but could not be checked afterwards: {why}"
            ));
        }
        self.failures.extend(proven.failed.iter().flat_map(left_open));
    }

    /// Counts, and says how it ended.
    pub(super) fn conclude(&mut self) {
        let count = |result: &str| self.blocks.iter().filter(|row| row.result == result).count() as u64;
        self.totals.sent = count("sent");
        self.totals.there = count("there");
        self.totals.left_out = count("left_out");
        self.totals.refused = count("refused");
        self.totals.not_sent = count("not_sent") + count("failed");
        if self.outcome == Outcome::Cut {
            return;
        }
        self.outcome = match (self.failures.is_empty(), self.totals.refused) {
            (false, _) => Outcome::Failed,
            (true, 0) if !self.unreadable.is_empty() => Outcome::SomeUnreadable,
            (true, 0) => Outcome::AllThere,
            (true, _) => Outcome::SomeRefused,
        };
    }

    /// Why it failed.
    pub(super) fn failure(&self) -> String {
        self.failures.join("; ")
    }

    /// The plan as a table, and its totals.
    pub(super) fn plan_as_text(&self) -> String {
        let mut titles = vec!["BLOCK", "FROM", "UNTIL", ">LEVEL", ">SERIES", ">SAMPLES", ">SIZE"];
        let labels: std::collections::BTreeSet<&BTreeMap<String, String>> = self
            .blocks
            .iter()
            .filter(|row| row.decision != "left out" && !row.labels.is_empty())
            .map(|row| &row.labels)
            .collect();
        let several = labels.len() > 1;
        if several {
            titles.push("LABELS");
        }
        titles.extend(["DECISION", "WHY"]);
        let mut table = Table::new(&titles);
        for row in &self.blocks {
            let moment = |ms: Option<i64>| ms.map(time).unwrap_or_else(|| "-".into());
            let mut cells = vec![
                row.ulid.clone(),
                moment(row.min_time),
                moment(row.max_time),
                row.level.to_string(),
                row.series.to_string(),
                row.samples.to_string(),
                byte_size(row.bytes),
            ];
            if several {
                cells.push(label_text(&row.labels));
            }
            cells.extend([row.decision.to_owned(), row.why.clone()]);
            table.row(cells);
        }
        let mut text = table.to_string();
        let count = |decision: &str| self.blocks.iter().filter(|row| row.decision == decision).count();
        let totals = &self.totals;
        let _ = writeln!(
            text,
            "\n{}: {} to send ({} in {} objects, about {} requests), {} there, {} left out, {} refused; checked in {:.1} s",
            counted(self.blocks.len() as u64, "block"),
            totals.to_send,
            byte_size(totals.bytes_to_send),
            totals.objects_to_send + totals.to_send,
            totals.requests,
            count("there"),
            count("left out"),
            count("refused"),
            totals.check_seconds,
        );
        let labels = labels.first().map(|labels| format!(", as {}", label_text(labels)));
        let _ = writeln!(
            text,
            "to {}{}",
            self.bucket,
            labels.filter(|_| !several).unwrap_or_default()
        );
        text
    }

    /// What came of it, for people.
    fn as_text(&self) -> String {
        let totals = &self.totals;
        let mut text = String::new();
        for block in &self.unreadable {
            let why = output::printable(&block.why);
            let _ = writeln!(text, "unreadable {} in the bucket: {why}", block.ulid);
        }
        if self.dry_run {
            let _ = writeln!(text, "nothing was sent: --dry-run");
            return text;
        }
        let rate = totals.bytes_sent as f64 / totals.send_seconds.max(0.001);
        let _ = writeln!(
            text,
            "sent {}, {} in {:.1} s ({}/s); {} already there; {} left out; {} refused; {} not sent",
            counted(totals.sent, "block"),
            byte_size(totals.bytes_sent),
            totals.send_seconds,
            byte_size(rate as u64),
            totals.there,
            totals.left_out,
            totals.refused,
            totals.not_sent,
        );
        if totals.proven > 0 {
            let _ = writeln!(
                text,
                "proven {} in {:.1} s: {}",
                counted(totals.proven, "block"),
                totals.prove_seconds,
                self.proof
            );
        }
        if totals.merged > 0 {
            let _ = writeln!(
                text,
                "merged {} by a compactor meanwhile: meta.json and sizes of the merged blocks compared, their bytes not read back",
                counted(totals.merged, "block"),
            );
        }
        for row in self
            .blocks
            .iter()
            .filter(|row| matches!(row.result, "refused" | "failed"))
        {
            let _ = writeln!(text, "{} {} ({}): {}", row.result, row.ulid, row.dir, row.why);
        }
        if self.outcome == Outcome::Cut {
            let _ = writeln!(text, "interrupted by a signal: run it again to continue");
        }
        text
    }

    /// Prints what came of it, or the whole document.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(super) fn print(&self, json: bool) -> Result<()> {
        match json {
            true => output::print(&(serde_json::to_string_pretty(self)? + "\n")),
            false => output::print(&self.as_text()),
        }
    }
}

/// What the proof left open when the bucket failed, and why.
fn left_open(failed: &Interrupted) -> Vec<String> {
    let (error, unchecked) = (&failed.error, &failed.unchecked);
    let mut open = Vec::new();
    if !unchecked.is_empty() {
        let names: Vec<String> = unchecked.iter().take(NAMES).map(ToString::to_string).collect();
        let more = if unchecked.len() > NAMES { " and others" } else { "" };
        let (count, names) = (counted(unchecked.len() as u64, "block"), names.join(", "));
        open.push(format!(
            "{count} in the bucket could not be checked afterwards ({names}{more}): {error}"
        ));
    }
    if failed.merges_unknown {
        open.push(format!(
            "whether a compactor has merged the blocks that are not whole could not be found out: {error}"
        ));
    }
    open
}

fn row(item: &Item, dry_run: bool) -> Row {
    let meta = item.block.as_ref().map(|block| &block.meta);
    let labels = item
        .labels
        .iter()
        .map(|label| (label.name.to_string(), label.value.to_string()));
    Row {
        ulid: item.id.to_string(),
        dir: item.dir.display().to_string(),
        min_time: meta.map(|meta| meta.min_time),
        max_time: meta.map(|meta| meta.max_time),
        level: meta.map_or(0, |meta| meta.level),
        resolution: meta.map_or(0, |meta| meta.resolution()),
        series: meta.map_or(0, |meta| meta.num_series),
        samples: meta.map_or(0, |meta| meta.num_samples),
        bytes: item.bytes,
        labels: labels.collect(),
        decision: item.decision.word(),
        result: match item.decision {
            Decision::Send(_) if dry_run => "planned",
            Decision::Send(_) => "not_sent",
            Decision::There(_) => "there",
            Decision::LeftOut(_) => "left_out",
            Decision::Refused(_) => "refused",
        },
        why: item.decision.why().to_owned(),
    }
}

fn label_text(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::{Error, ErrorKind, Op};

    fn report(proven: &Proven) -> (String, serde_json::Value) {
        let mut report = Report::new(Path::new("blocks"), false);
        report.record_proof(proven, true, Duration::from_secs(1));
        report.conclude();
        (report.as_text(), serde_json::to_value(&report).unwrap())
    }

    fn id(n: u32) -> BlockId {
        BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{n:05}")).unwrap()
    }

    #[test]
    fn merged_blocks_are_not_counted_among_those_that_were_read_back() {
        let proven = Proven {
            whole: 3,
            merged: 2,
            ..Proven::default()
        };
        let (text, json) = report(&proven);
        assert!(
            text.contains("proven 3 blocks in 1.0 s: every byte read back"),
            "{text}"
        );
        assert!(
            text.contains("merged 2 blocks by a compactor") && text.contains("not read back"),
            "{text}"
        );
        assert_eq!(
            (&json["totals"]["proven"], &json["totals"]["merged"]),
            (&3.into(), &2.into())
        );
        assert_eq!(json["outcome"], "all_there");
    }

    #[test]
    fn what_the_proof_found_is_named_beside_the_failure_that_ended_it() {
        let proven = Proven {
            wrong: vec![(id(1), "the index is missing".into())],
            failed: Some(crate::backfill::Interrupted {
                error: Error {
                    op: Op::Get,
                    key: "meta.json".into(),
                    kind: ErrorKind::Server,
                    detail: "the store is down".into(),
                    source: None,
                },
                unchecked: (2..=8).map(id).collect(),
                merges_unknown: true,
            }),
            ..Proven::default()
        };
        let (_, json) = report(&proven);
        assert_eq!(json["outcome"], "failed");
        let failures: Vec<&str> = json["failures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|said| said.as_str().unwrap())
            .collect();
        let [wrong, unchecked, merges] = failures[..] else {
            panic!("{failures:?}")
        };
        assert!(
            wrong.contains(&id(1).to_string()) && wrong.contains("the index is missing"),
            "{wrong}"
        );
        assert!(
            unchecked.starts_with("7 blocks in the bucket could not be checked afterwards"),
            "{unchecked}"
        );
        assert!(
            unchecked.contains(&id(6).to_string()) && unchecked.contains("the store is down"),
            "{unchecked}"
        );
        assert!(merges.starts_with("whether a compactor has merged"), "{merges}");
    }
}
