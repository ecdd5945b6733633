//! `narthex bucket verify`: whether every block is whole.
//!
//! Blocks are looked at several at once, each from its `meta.json` on to its last object, and only what is needed to
//! find overlaps is kept of each. What was found is printed also when a signal or a failure of the bucket ends the work
//! early. Of the overlaps of a label set only the first ten thousand are told.

use std::sync::Arc;

use anyhow::Result;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{scan::Wanted, show};
use crate::{
    audit::{
        self, Issue, Kind, Overlap,
        whole::{self, Held, Reader},
    },
    catalog::{self, Text},
    lineage::Entry,
    objstore::{self, Bucket, Scope},
    tsdb::{BlockId, Meta},
};

/// Issues of one block that are told one by one.
const MOST_ISSUES: usize = 50;

/// How blocks are looked at.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) bucket: &'a Arc<dyn Bucket>,
    pub(super) wanted: &'a Wanted,
    /// Blocks that are looked at at once.
    pub(super) at_once: usize,
    /// Reads all objects, if that is wanted.
    pub(super) reader: Option<Reader>,
    /// The time (ms since 1970).
    pub(super) now: i64,
}

/// Something about a block that is worth knowing, and no issue.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    block: BlockId,
    detail: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    blocks: u64,
    objects: u64,
    bytes: u64,
    issues: Vec<Issue>,
    notes: Vec<Note>,
    /// All there is was looked at.
    pub(super) complete: bool,
}

impl Report {
    /// Nothing is wrong, and there is something.
    pub(super) fn is_good(&self) -> bool {
        self.issues.is_empty() && self.blocks > 0
    }

    pub(super) fn json(&self) -> Value {
        let issue = |issue: &Issue| json!({"block": issue.block.to_string(), "kind": issue.kind.to_string(), "detail": issue.detail});
        let note = |note: &Note| json!({"block": note.block.to_string(), "detail": note.detail});
        json!({
            "blocks": self.blocks,
            "objects": self.objects,
            "bytes": self.bytes,
            "complete": self.complete,
            "issues": self.issues.iter().map(issue).collect::<Vec<_>>(),
            "notes": self.notes.iter().map(note).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for issue in &self.issues {
            text.push_str(&format!("{}\n", show::plain(&issue.to_string())));
        }
        for note in &self.notes {
            let detail = show::plain(&note.detail);
            text.push_str(&format!("{}  {:8}  {detail}\n", note.block, "note"));
        }
        if self.blocks == 0 && self.complete {
            text.push_str("no blocks were found: are these the right bucket, prefix, selector and times?\n");
        }
        let issues = match self.issues.len() {
            0 => "no issues".to_owned(),
            some => show::count(some as u64, "issue"),
        };
        text.push_str(&format!(
            "{}, {}, {}: {issues}{}\n",
            show::count(self.blocks, "block"),
            show::count(self.objects, "object"),
            show::size(self.bytes),
            if self.complete { "" } else { "; not all was looked at" }
        ));
        text
    }

    fn add(&mut self, seen: Seen, entries: &mut Vec<Entry>) {
        self.blocks += u64::from(seen.is_block);
        self.objects += seen.objects;
        self.bytes += seen.bytes;
        let more = seen.issues.len().saturating_sub(MOST_ISSUES);
        let last = seen.issues.last().filter(|_| more > 0).map(|last| {
            let what = format!("and {more} more issues of this block");
            Issue::new(last.block, last.kind, what)
        });
        self.issues.extend(seen.issues.into_iter().take(MOST_ISSUES));
        self.issues.extend(last);
        self.notes.extend(seen.note);
        entries.extend(seen.entry);
    }

    fn add_overlap(&mut self, overlap: &Overlap<'_>) {
        let (block, other) = (overlap.block, overlap.other);
        let shared = format!(
            "has times in common with {}: {} to {}, labels {}, resolution {}",
            other.id,
            show::time(block.range.0.max(other.range.0)),
            show::time(block.range.1.min(other.range.1)),
            show::labels(&block.labels),
            show::go_duration(block.resolution)
        );
        match overlap.merged {
            true => self.notes.push(Note {
                block: block.id,
                detail: format!("{shared}; it was merged into that one, and the compactor will delete it"),
            }),
            false => self.issues.push(Issue::new(
                block.id,
                Kind::Overlap,
                format_args!(
                    "{shared}; a compactor stops at that: find out who sends under these labels, and delete one"
                ),
            )),
        }
    }
}

/// What was found under one name.
#[derive(Debug, Default)]
struct Seen {
    is_block: bool,
    objects: u64,
    bytes: u64,
    issues: Vec<Issue>,
    note: Option<Note>,
    /// To be held against other blocks.
    entry: Option<Entry>,
}

/// Looks at all blocks, or at as many as there is time for; an error is what ended it early.
pub(super) async fn verify(task: &Task<'_>, token: &CancellationToken) -> (Report, Result<()>) {
    let (mut report, mut entries) = (Report::default(), Vec::new());
    let end = look_at_all(task, token, &mut report, &mut entries).await;
    for overlap in audit::among(&entries) {
        report.add_overlap(&overlap);
    }
    report.issues.sort_unstable();
    report.notes.sort_unstable();
    (report, end)
}

async fn look_at_all(
    task: &Task<'_>,
    token: &CancellationToken,
    report: &mut Report,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let ids = tokio::select! {
        biased;
        () = token.cancelled() => return Ok(()),
        ids = catalog::ids(&**task.bucket) => ids?,
    };
    tracing::info!(
        blocks = ids.len(),
        full = task.reader.is_some(),
        "looking at the blocks of the bucket"
    );
    let looks = stream::iter(ids)
        .map(|id| look_at(task, id))
        .buffer_unordered(task.at_once);
    let mut looks = std::pin::pin!(looks);
    loop {
        let seen = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            seen = looks.next() => seen,
        };
        match seen {
            Some(seen) => report.add(seen?, entries),
            None => {
                report.complete = true;
                return Ok(());
            }
        }
    }
}

async fn look_at(task: &Task<'_>, id: BlockId) -> Result<Seen> {
    let bucket = &**task.bucket;
    let mut seen = match catalog::text(bucket, id).await? {
        Text::There(text) => match catalog::parsed(id, &text) {
            Ok(meta) if !task.wanted.has(&meta)? => return Ok(Seen::default()),
            Ok(meta) => or_issue(id, block(task, &meta).await)?,
            Err(why) => {
                let what = format!("meta.json is of no use: {why}; put it back from a copy of the block");
                bad_meta(bucket, Issue::new(id, Kind::Meta, what)).await?
            }
        },
        Text::Absent => or_issue(
            id,
            whole::rest(bucket, id).await.map(|rest| partial(&rest, id, task.now)),
        )?,
        Text::Refused(error) => bad_meta(bucket, Issue::new(id, Kind::Unreadable, error)).await?,
    };
    let lost = seen.issues.iter().any(|issue| issue.kind == Kind::Missing);
    if lost && matches!(catalog::text(bucket, id).await?, Text::Absent) {
        seen = deleted(id);
    }
    if task.reader.is_some() && seen.is_block {
        tracing::info!(block = %id, bytes = seen.bytes, issues = seen.issues.len(), "a block was read");
    }
    Ok(seen)
}

/// What is under the name of a block whose `meta.json` is of no use.
async fn bad_meta(bucket: &dyn Bucket, issue: Issue) -> Result<Seen, objstore::Error> {
    let id = issue.block;
    let rest = whole::rest(bucket, id).await.map(|rest| counted(&rest));
    let mut seen = or_issue(id, rest)?;
    seen.is_block = true;
    seen.issues.push(issue);
    Ok(seen)
}

/// What the store does not give of one block is an issue of that block.
fn or_issue(id: BlockId, seen: Result<Seen, objstore::Error>) -> Result<Seen, objstore::Error> {
    match seen {
        Err(error) if error.scope() == Scope::Object => Ok(Seen {
            is_block: true,
            issues: vec![Issue::new(id, Kind::Unreadable, error)],
            ..Seen::default()
        }),
        other => other,
    }
}

fn counted(held: &Held) -> Seen {
    Seen {
        objects: held.objects,
        bytes: held.bytes,
        ..Seen::default()
    }
}

fn deleted(id: BlockId) -> Seen {
    Seen {
        note: Some(Note {
            block: id,
            detail: "was deleted while it was looked at".to_owned(),
        }),
        ..Seen::default()
    }
}

async fn block(task: &Task<'_>, meta: &Meta) -> Result<Seen, objstore::Error> {
    let held = whole::look(&**task.bucket, meta).await?;
    if !held.visible {
        return Ok(deleted(meta.ulid));
    }
    let mut seen = Seen {
        is_block: true,
        ..counted(&held)
    };
    match held.marked {
        true => {
            let detail = "is marked for deletion".to_owned();
            seen.note = Some(Note {
                block: meta.ulid,
                detail,
            });
        }
        false => seen.entry = Some(Entry::from(meta)),
    }
    seen.issues = whole::issues(meta.ulid, &held);
    let all_there = seen.issues.iter().all(|issue| issue.kind == Kind::Extra);
    if let Some(reader) = task.reader.as_ref().filter(|_| all_there) {
        match whole::read_back(task.bucket, meta, &held.files, reader).await? {
            Ok(read) => seen.issues.extend(read.index_issues),
            Err(issues) => seen.issues.extend(issues),
        }
    }
    Ok(seen)
}

fn partial(held: &Held, id: BlockId, now: i64) -> Seen {
    let mut seen = counted(held);
    let note = |detail: &str| {
        Some(Note {
            block: id,
            detail: detail.to_owned(),
        })
    };
    if held.objects == 0 {
        // It was deleted since the listing.
    } else if held.marked {
        seen.note = note("is being deleted: it is marked, and its meta.json is gone");
    } else if audit::may_run(id, now) {
        seen.note = note("has no meta.json yet: its upload may be running");
    } else {
        let what = format!(
            "{} and no meta.json: an upload that was given up; send the block again, or delete what is there",
            show::count(held.objects, "object")
        );
        seen.issues.push(Issue::new(id, Kind::Partial, what));
    }
    seen
}
