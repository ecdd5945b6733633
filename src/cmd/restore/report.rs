//! What a restore reports: the plan before, the report after, or both as one JSON document.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::{
    cmd::{
        job::Completion,
        output::{self, Table},
    },
    model::Labels,
    restore::{
        Applied, Outcome, Stop,
        plan::{Candidate, Decision, Plan, Refusal, Row, Sets},
    },
};

/// So many label sets, ranges or names are listed for people.
const LISTED: usize = 20;
const MS_PER_DAY: i64 = 24 * 3600 * 1000;

/// What is to be done, or why nothing is.
pub(super) struct Planned {
    found: Result<Plan, Refusal>,
    /// Blocks whose `meta.json` cannot be used: whether they are wanted is not known.
    unreadable: u64,
    skip_downsampled: bool,
}

/// How it went.
pub(super) struct Report<'a> {
    pub(super) bucket: &'a str,
    pub(super) to: &'a Path,
    pub(super) dry_run: bool,
    pub(super) planned: &'a Planned,
    pub(super) applied: Option<&'a Applied>,
    /// Bytes.
    pub(super) fetched: u64,
    pub(super) took: Duration,
    /// When it began (ms since 1970).
    pub(super) now: i64,
}

impl Planned {
    pub(super) fn new(found: Result<Plan, Refusal>, unreadable: u64, skip_downsampled: bool) -> Self {
        Self {
            found,
            unreadable,
            skip_downsampled,
        }
    }

    /// The plan, if it may be carried out.
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.found.as_ref().ok().filter(|_| self.only_downsampled().is_none())
    }

    /// The times for which the bucket has only downsampled blocks, if that stops the restore.
    fn only_downsampled(&self) -> Option<&[(i64, i64)]> {
        let missing = self.found.as_ref().map_or(&[][..], |plan| &plan.missing);
        (!missing.is_empty() && !self.skip_downsampled).then_some(missing)
    }

    pub(super) fn text(&self) -> String {
        let plan = match &self.found {
            Ok(plan) => plan,
            Err(Refusal::SeveralSets(sets)) => return several(sets),
            Err(Refusal::Nothing { others, outside }) => return nothing(others, *outside),
        };
        let mut text = format!("{}\n", table(&plan.rows));
        let count = plan.restored().count();
        let (bytes, samples) = totals(plan);
        let (all, bytes) = (plan.rows.len(), output::byte_size(bytes));
        let _ = writeln!(
            text,
            "to restore: {count} of {} of {}, {samples} samples, {bytes} to download",
            output::counted(all as u64, "block"),
            plan.labels
        );
        if let Some(ranges) = self.only_downsampled() {
            text.push_str(
                "\nRefused: of these times the bucket has only downsampled blocks, which Prometheus cannot read:\n",
            );
            list(
                &mut text,
                ranges
                    .iter()
                    .map(|(from, until)| format!("{} to {}", output::time(*from), output::time(*until))),
            );
            text.push_str("Narrow --min-time and --max-time, or leave them out with --skip-downsampled.\n");
        }
        text
    }
}

fn totals(plan: &Plan) -> (u64, u64) {
    plan.restored().fold((0, 0), |(bytes, samples): (u64, u64), block| {
        (bytes.saturating_add(block.bytes), samples.saturating_add(block.samples))
    })
}

fn table(rows: &[Row]) -> Table {
    let titles = [
        "BLOCK", "FROM", "UNTIL", ">LEVEL", ">SERIES", ">SAMPLES", ">SIZE", "DECISION", "WHY",
    ];
    let mut table = Table::new(&titles);
    for Row { block, decision, why } in rows {
        table.row(vec![
            block.id.to_string(),
            output::time(block.min_time),
            output::time(block.max_time),
            block.level.to_string(),
            block.series.to_string(),
            block.samples.to_string(),
            output::byte_size(block.bytes),
            word(*decision).replace('_', " "),
            why.clone(),
        ]);
    }
    table
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Restore => "restore",
        Decision::LeaveOut => "leave_out",
        Decision::Refuse => "refuse",
    }
}

/// Appends the first of `lines`, indented, and how many more there are.
fn list(text: &mut String, lines: impl ExactSizeIterator<Item = String>) {
    let more = lines.len().saturating_sub(LISTED);
    for line in lines.take(LISTED) {
        let _ = writeln!(text, "  {line}");
    }
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn several(sets: &Sets) -> String {
    let mut text =
        "Refused: the selected blocks have several sets of external labels. A Prometheus holds its own series \
                    only, and would mix them up. Add one of these:\n"
            .to_owned();
    list_sets(&mut text, sets);
    text
}

fn list_sets(text: &mut String, sets: &Sets) {
    text.push_str(&selectors(sets, ("BLOCKS", "block")));
}

/// A table of selectors, with how many `things` each selects: the title of the column, and one of them in a word.
pub(super) fn selectors(sets: &Sets, (title, thing): (&str, &str)) -> String {
    let mut table = Table::new(&[&format!(">{title}"), "SELECTOR"]);
    for (labels, count) in sets.counted.iter().take(LISTED) {
        let selector = in_shell(&sets.selector(labels));
        table.row(vec![count.to_string(), format!("--selector {selector}")]);
    }
    let mut text = table.to_string();
    let hidden: u64 = sets.counted.values().skip(LISTED).sum();
    if hidden + sets.more > 0 {
        let _ = writeln!(
            text,
            "and {} of further sets",
            output::counted(hidden + sets.more, thing)
        );
    }
    text
}

/// A word as a shell takes it.
pub(super) fn in_shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn nothing(others: &Sets, outside: Option<(u64, i64, i64)>) -> String {
    let mut text = match outside {
        Some((count, from, until)) => format!(
            "Refused: no sample between --min-time and --max-time in {} whose labels are selected; there are samples \
             from {} to {}.\n",
            output::counted(count, "block"),
            output::time(from),
            output::time(until)
        ),
        None => "Refused: no block in the bucket has labels that are selected.\n".to_owned(),
    };
    if !others.counted.is_empty() {
        text.push_str("There are blocks of these labels:\n");
        list_sets(&mut text, others);
    }
    text
}

impl Report<'_> {
    /// What the exit code is made of; everything is reported elsewhere.
    pub(super) fn end(&self) -> Result<Completion> {
        let (Some(plan), applied) = (self.planned.plan(), self.applied) else {
            return Ok(Completion::WithFindings);
        };
        let outcomes = || applied.iter().flat_map(|applied| applied.outcomes.values());
        let again = "; what is complete stays, run it again to continue";
        match applied.and_then(|applied| applied.stopped.as_ref()) {
            Some(Stop::Cut) => return Ok(Completion::Interrupted),
            Some(stop) => return Err(anyhow!("restored {}, then: {stop}{again}", self.done())),
            None => {}
        }
        let failed = outcomes()
            .filter(|outcome| matches!(outcome, Outcome::Failed(_)))
            .count();
        if failed > 0 {
            return Err(anyhow!(
                "the bucket failed for {}{again}",
                output::counted(failed as u64, "block")
            ));
        }
        let refused = outcomes().any(|outcome| matches!(outcome, Outcome::Refused(_)));
        Ok(if refused || plan.refuses() || self.planned.unreadable > 0 {
            Completion::WithFindings
        } else {
            Completion::Clean
        })
    }

    /// How many of how many blocks are there.
    fn done(&self) -> String {
        let there = |block: &&Candidate| matches!(self.outcome(block), Some(Outcome::Restored | Outcome::Present));
        let restored = || self.planned.plan().into_iter().flat_map(Plan::restored);
        let all = output::counted(restored().count() as u64, "block");
        format!("{} of {all}", restored().filter(there).count())
    }

    fn outcome(&self, block: &Candidate) -> Option<&Outcome> {
        self.applied.and_then(|applied| applied.outcomes.get(&block.id))
    }

    /// What cannot be judged, if there is anything.
    fn unreadable(&self) -> String {
        match self.planned.unreadable {
            0 => String::new(),
            some => format!(
                "\nleft out: {} whose meta.json cannot be used; these labels may be there, too. See narthex bucket verify.\n",
                output::counted(some, "block")
            ),
        }
    }

    /// What became of a block, in a word and a reason.
    fn result(&self, row: &Row) -> (&'static str, String) {
        match (row.decision, self.outcome(&row.block)) {
            (Decision::Refuse, _) => ("refused", row.why.clone()),
            (Decision::LeaveOut, _) => ("left_out", row.why.clone()),
            (Decision::Restore, None) => ("missing", String::new()),
            (Decision::Restore, Some(Outcome::Restored)) => ("restored", String::new()),
            (Decision::Restore, Some(Outcome::Present)) => ("present", String::new()),
            (Decision::Restore, Some(Outcome::Refused(why))) => ("refused", why.clone()),
            (Decision::Restore, Some(Outcome::Failed(why))) => ("failed", why.clone()),
        }
    }

    /// The blocks by what became of them, each with the reason.
    fn results(&self) -> BTreeMap<&'static str, Vec<(&Row, String)>> {
        let mut results: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in self.planned.plan().iter().flat_map(|plan| &plan.rows) {
            let (word, why) = self.result(row);
            results.entry(word).or_default().push((row, why));
        }
        results
    }

    pub(super) fn text(&self) -> String {
        let unreadable = self.unreadable();
        let Some(plan) = self.planned.plan() else {
            return format!("{unreadable}\nNothing was restored.\n");
        };
        if self.dry_run {
            return format!("{unreadable}\nThis was a dry run: nothing was restored.\n");
        }
        let (mut text, results) = ("\n".to_owned(), self.results());
        for (word, title) in [
            ("restored", "restored"),
            ("present", "there already"),
            ("left_out", "left out"),
            ("refused", "refused"),
            ("failed", "failed"),
            ("missing", "not done"),
        ] {
            let blocks = results.get(word).map_or(&[][..], Vec::as_slice);
            let bytes = blocks.iter().map(|(row, _)| row.block.bytes).sum();
            let size = if blocks.is_empty() {
                String::new()
            } else {
                format!(", {}", output::byte_size(bytes))
            };
            let _ = writeln!(
                text,
                "{title:<14}{}{size}",
                output::counted(blocks.len() as u64, "block")
            );
            if matches!(word, "refused" | "failed" | "missing") {
                list(
                    &mut text,
                    blocks.iter().map(|(row, why)| match why.is_empty() {
                        true => row.block.id.to_string(),
                        false => format!("{}: {why}", row.block.id),
                    }),
                );
            }
        }
        let (fetched, seconds) = (output::byte_size(self.fetched), self.took.as_secs_f64());
        let _ = writeln!(text, "{:<14}{fetched} in {seconds:.1} s", "fetched");
        text.push_str(&unreadable);
        if results.contains_key("missing") {
            text.push_str("\nNot everything is done; run the same command again to continue.\n");
        }
        if results.contains_key("restored") || results.contains_key("present") {
            text.push_str(&self.hint(plan));
        }
        text
    }

    /// How to use what was restored.
    fn hint(&self, plan: &Plan) -> String {
        let dir = in_shell(&self.to.display().to_string());
        let days = self.retention_days(plan);
        let labels = if plan.labels == Labels::default() {
            String::new()
        } else {
            format!(
                "The external labels {} are not part of the series any more.\n",
                plan.labels
            )
        };
        format!(
            "\n{labels}Start a Prometheus with\n  --storage.tsdb.path={dir} --storage.tsdb.retention.time={days}d\nWith a shorter \
             retention it deletes the oldest blocks once it has new ones.\n"
        )
    }

    /// A retention that keeps the oldest block (days), with a day to spare.
    fn retention_days(&self, plan: &Plan) -> i64 {
        let oldest = plan.restored().map(|block| block.min_time).min().unwrap_or(self.now);
        self.now.saturating_sub(oldest).max(0) / MS_PER_DAY + 2
    }

    pub(super) fn json(&self) -> Value {
        let plan = self.planned.found.as_ref().ok();
        let rows = plan.iter().flat_map(|plan| &plan.rows);
        let rows: Vec<Value> = rows.map(|row| self.row_json(row)).collect();
        let counts: BTreeMap<&str, usize> = self
            .results()
            .into_iter()
            .map(|(word, rows)| (word, rows.len()))
            .collect();
        let (bytes, samples) = plan.map_or((0, 0), totals);
        json!({
            "bucket": self.bucket,
            "to": self.to.display().to_string(),
            "dry_run": self.dry_run,
            "end": self.end_word(),
            "unreadable": self.planned.unreadable,
            "refusal": self.refusal_json(),
            "labels": plan.map(|plan| output::labels_json(&plan.labels)),
            "blocks": rows,
            "planned": { "blocks": plan.map_or(0, |plan| plan.restored().count()), "bytes": bytes, "samples": samples },
            "results": if self.applied.is_some() { json!(counts) } else { Value::Null },
            "missing_ranges": plan.map(|plan| ranges_json(&plan.missing)),
            "retention_days": plan.map(|plan| self.retention_days(plan)),
            "fetched_bytes": self.fetched,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn end_word(&self) -> &'static str {
        match self.end() {
            Ok(Completion::Clean) => "good",
            Ok(Completion::WithFindings) => "findings",
            Ok(Completion::Interrupted) => "cut",
            Err(_) => "failed",
        }
    }

    fn row_json(&self, row: &Row) -> Value {
        let block = &row.block;
        let (result, reason) = match self.applied {
            Some(_) => {
                let (word, why) = self.result(row);
                (json!(word), json!(why))
            }
            None => (Value::Null, json!(row.why)),
        };
        json!({
            "ulid": block.id.to_string(),
            "min_time": block.min_time,
            "max_time": block.max_time,
            "level": block.level,
            "resolution": block.resolution,
            "series": block.series,
            "samples": block.samples,
            "bytes": block.bytes,
            "decision": word(row.decision),
            "note": row.why,
            "result": result,
            "reason": reason,
        })
    }

    fn refusal_json(&self) -> Value {
        match &self.planned.found {
            Err(Refusal::SeveralSets(sets)) => json!({ "why": "several_label_sets", "label_sets": sets_json(sets) }),
            Err(Refusal::Nothing { others, outside }) => json!({
                "why": if outside.is_some() { "nothing_in_time_range" } else { "nothing_selected" },
                "label_sets": sets_json(others),
            }),
            Ok(_) => match self.planned.only_downsampled() {
                Some(ranges) => json!({ "why": "only_downsampled", "ranges": ranges_json(ranges) }),
                None => Value::Null,
            },
        }
    }
}

fn sets_json(sets: &Sets) -> Value {
    let set = |(labels, count): (&Labels, &u64)| json!({ "labels": output::labels_json(labels), "blocks": count, "selector": sets.selector(labels) });
    sets.counted.iter().map(set).collect()
}

fn ranges_json(ranges: &[(i64, i64)]) -> Value {
    ranges
        .iter()
        .map(|(from, until)| json!({ "min_time": from, "max_time": until }))
        .collect()
}
