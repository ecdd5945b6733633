//! `narthex bucket gaps`: for which times blocks are missing.
//!
//! Blocks that are marked for deletion cover nothing: what was merged is covered by another block.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use futures_util::TryStreamExt;
use serde_json::{Value, json};

use super::{
    output,
    scan::{Scanned, Wanted, scan},
};
use crate::{
    audit::{
        Span,
        gaps::{Cover, Rules, Run, State, runs},
        may_run,
    },
    cli::Gaps,
    model::Labels,
    objstore::Bucket,
    tsdb::BlockId,
};

/// The defaults of `--min-time` and `--max-time` (ms since 1970), which say nothing of where to begin and to end.
const YEAR_0: i64 = -62_167_219_200_000;
const YEAR_9999: i64 = 253_402_300_799_000;

/// The slots of a label set.
#[derive(Debug)]
struct Stream {
    labels: Labels,
    runs: Vec<Run>,
}

/// An upload without a `meta.json`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Upload {
    block: BlockId,
    may_run: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Report {
    streams: Vec<Stream>,
    uploads: Vec<Upload>,
    /// Blocks that nobody can judge, and why: they cover nothing.
    unreadable: BTreeMap<BlockId, String>,
    slot: i64,
}

/// What the flags say about slots.
pub(super) fn rules(flags: &Gaps, wanted: &Wanted, now: i64) -> Rules {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Rules {
        slot: ms(flags.slot),
        tolerance: ms(flags.tolerance),
        seal_delay: ms(flags.seal_delay),
        from: (wanted.from > YEAR_0).then_some(wanted.from),
        until: match flags.until {
            // The blocks after --max-time are not read: their slots are not known to be missing.
            Some(until) => Some(until.resolve(now).min(wanted.until)),
            None => (wanted.until < YEAR_9999).then_some(wanted.until),
        }
        .map(|until| until.min(now)),
        now,
    }
}

/// Reads all blocks.
pub(super) async fn gaps(bucket: &dyn Bucket, wanted: &Wanted, rules: &Rules) -> Result<Report> {
    let mut covers: BTreeMap<Labels, Vec<Cover>> = BTreeMap::new();
    let (mut uploads, mut unreadable) = (Vec::new(), BTreeMap::new());
    let mut blocks = std::pin::pin!(scan(bucket, wanted, true));
    while let Some(scanned) = blocks.try_next().await? {
        match scanned {
            Scanned::Block { marked: true, .. } => {}
            Scanned::Block { meta, marked: false } => {
                let labels = meta.thanos_labels.clone().unwrap_or_default();
                covers.entry(labels).or_default().push(Cover {
                    span: Span {
                        min: meta.min_time,
                        max: meta.max_time,
                    },
                    downsampled: meta.resolution() != 0,
                });
            }
            Scanned::Partial(block) => uploads.push(Upload {
                block,
                may_run: may_run(block, rules.now),
            }),
            Scanned::Unreadable(id, why) => {
                tracing::warn!(block = %id, why, "cannot read a block and do not count it: times that only this block covers are reported as missing, or not at all after the last block");
                unreadable.insert(id, why);
            }
        }
    }
    uploads.sort_unstable();
    let stream = |(labels, covers): (Labels, Vec<Cover>)| Stream {
        labels,
        runs: runs(&covers, rules),
    };
    Ok(Report {
        // A set whose blocks are all outside the times that are asked for has nothing to say of them.
        streams: covers
            .into_iter()
            .map(stream)
            .filter(|stream| !stream.runs.is_empty())
            .collect(),
        uploads,
        unreadable,
        slot: rules.slot,
    })
}

impl Stream {
    fn slots(&self, state: State) -> i64 {
        let of_state = self.runs.iter().filter(|run| run.state == state);
        of_state.map(|run| run.slots).sum()
    }

    /// From where to where (ms since 1970).
    fn times(&self) -> (i64, i64) {
        let first = self.runs.first().map(|run| run.from);
        let last = self.runs.last().map(|run| run.until);
        (first.unwrap_or_default(), last.unwrap_or_default())
    }

    fn json(&self) -> Value {
        let run = |run: &Run| {
            json!({
                "from": run.from, "until": run.until, "state": run.state.as_str(), "slots": run.slots,
                "missing_ms": run.missing,
            })
        };
        let (from, until) = self.times();
        let listed = self.runs.iter().filter(|run| run.state != State::Found);
        json!({
            "labels": output::labels_json(&self.labels),
            "from": from,
            "until": until,
            "found": self.slots(State::Found),
            "found_downsampled": self.slots(State::Downsampled),
            "partial": self.slots(State::Partial),
            "missing": self.slots(State::Missing),
            "not_sealed_yet": self.slots(State::NotSealedYet),
            "runs": listed.map(run).collect::<Vec<_>>(),
        })
    }

    fn text(&self, slot: i64) -> String {
        let labels = match self.labels.is_empty() {
            true => "no labels".to_owned(),
            false => output::printable(&output::labels(&self.labels)),
        };
        let (from, until) = self.times();
        let mut text = format!(
            "{labels}: {} to {}, {} of {} found\n",
            output::time(from),
            output::time(until),
            self.slots(State::Found) + self.slots(State::Downsampled),
            slots(self.runs.iter().map(|run| run.slots).sum(), slot)
        );
        for run in self.runs.iter().filter(|run| run.state != State::Found) {
            let (from, until) = (output::time(run.from), output::time(run.until));
            let state = match run.state {
                State::Downsampled => "downsampled only",
                State::NotSealedYet => "not sealed yet",
                other => other.as_str(),
            };
            let missing = match run.state {
                State::Partial => format!(", {} of it missing", output::go_duration(run.missing)),
                _ => String::new(),
            };
            let slots = slots(run.slots, slot);
            text.push_str(&format!("  {state:16}  {from} .. {until}, {slots}{missing}\n"));
        }
        text
    }
}

fn slots(number: i64, slot: i64) -> String {
    let number = u64::try_from(number).unwrap_or_default();
    let each = output::go_duration(slot);
    // 2h0m0s is Go's way; people say 2h.
    let short = each
        .strip_suffix("0s")
        .filter(|rest| rest.ends_with('m'))
        .unwrap_or(&each);
    let short = short
        .strip_suffix("0m")
        .filter(|rest| rest.ends_with('h'))
        .unwrap_or(short);
    format!("{} of {short}", output::counted(number, "slot"))
}

impl Report {
    /// Nothing is missing, there is something, and all of it could be judged.
    pub(super) fn is_good(&self) -> bool {
        let lost = |stream: &Stream| stream.slots(State::Missing) + stream.slots(State::Partial) > 0;
        !self.streams.is_empty() && self.unreadable.is_empty() && !self.streams.iter().any(lost)
    }

    pub(super) fn json(&self) -> Value {
        let upload = |upload: &Upload| {
            json!({
                "block": upload.block.to_string(),
                "state": if upload.may_run { "uploading" } else { "abandoned" },
            })
        };
        let unreadable = |(id, why): (&BlockId, &String)| json!({"block": id.to_string(), "why": why});
        json!({
            "label_sets": self.streams.iter().map(Stream::json).collect::<Vec<_>>(),
            "partial_uploads": self.uploads.iter().map(upload).collect::<Vec<_>>(),
            "unreadable": self.unreadable.iter().map(unreadable).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text: String = self.streams.iter().map(|stream| stream.text(self.slot)).collect();
        for upload in &self.uploads {
            let state = match upload.may_run {
                true => "has no meta.json yet, its upload may be running",
                false => "has no meta.json: an abandoned upload, unless one is running",
            };
            text.push_str(&format!("{}: {state}\n", upload.block));
        }
        for (id, why) in &self.unreadable {
            text.push_str(&format!(
                "{id}: cannot be read and is not counted: times that only this block covers are reported as missing, or not at all after the last block: {}\n",
                output::printable(why)
            ));
        }
        if self.streams.is_empty() {
            text.push_str("no blocks were found: are these the right bucket, prefix, selector and times?\n");
        }
        text
    }
}
