//! `narthex bucket verify`: whether every block is whole.
//!
//! Several blocks are checked at once, each from its `meta.json` on to its last object, and only what is needed to
//! find overlaps is kept of each. What was found is printed also when a signal or a failure of the bucket ends the work
//! early. Of the overlaps of a label set only the first ten thousand are listed.

use std::sync::Arc;

use anyhow::Result;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{output, scan::Wanted};
use crate::{
    audit::{
        self, Issue, Kind, Overlap,
        integrity::{self, BlockObjects, Reader},
    },
    catalog::{self, FirstChunks, Text},
    lineage::Entry,
    objstore::{self, Bucket, Scope},
    tsdb::{BlockId, Meta},
};

/// Issues of one block that are listed one by one.
const MOST_ISSUES: usize = 50;

/// How blocks are checked.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) bucket: &'a Arc<dyn Bucket>,
    pub(super) wanted: &'a Wanted,
    /// Blocks that are checked at once.
    pub(super) at_once: usize,
    /// Reads all objects, if that is wanted.
    pub(super) reader: Option<Reader>,
    /// The time (ms since 1970).
    pub(super) now: i64,
}

/// Something about a block that is worth knowing, but is no issue.
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
    /// All blocks were checked.
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
            text.push_str(&format!("{}\n", output::printable(&issue.to_string())));
        }
        for note in &self.notes {
            let detail = output::printable(&note.detail);
            text.push_str(&format!("{}  {:8}  {detail}\n", note.block, "note"));
        }
        if self.blocks == 0 && self.complete {
            text.push_str("no blocks were found: are these the right bucket, prefix, selector and times?\n");
        }
        let issues = match self.issues.len() {
            0 if self.blocks == 0 && self.complete => "nothing was checked".to_owned(),
            0 if !self.complete => "no issues so far".to_owned(),
            0 => "no issues".to_owned(),
            some => output::counted(some as u64, "issue"),
        };
        text.push_str(&format!(
            "{}, {}, {}: {issues}{}\n",
            output::counted(self.blocks, "block"),
            output::counted(self.objects, "object"),
            output::byte_size(self.bytes),
            if self.complete {
                ""
            } else {
                "; not all blocks were checked"
            }
        ));
        text
    }

    fn add(&mut self, checked: Checked, entries: &mut Vec<Entry>) {
        self.blocks += u64::from(checked.is_block);
        self.objects += checked.objects;
        self.bytes += checked.bytes;
        let more = checked.issues.len().saturating_sub(MOST_ISSUES);
        let last = checked.issues.last().filter(|_| more > 0).map(|last| {
            let what = format!("and {more} more issues of this block");
            Issue::new(last.block, last.kind, what)
        });
        self.issues.extend(checked.issues.into_iter().take(MOST_ISSUES));
        self.issues.extend(last);
        self.notes.extend(checked.note);
        entries.extend(checked.entry);
    }

    fn add_overlap(&mut self, overlap: &Overlap<'_>) {
        let (block, other) = (overlap.block, overlap.other);
        let shared = format!(
            "has times in common with {}: {} to {}, labels {}, resolution {}",
            other.id,
            output::time(block.range.0.max(other.range.0)),
            output::time(block.range.1.min(other.range.1)),
            output::labels(&block.labels),
            output::go_duration(block.resolution)
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
                    "{shared}; the compactor halts on this unless it runs with --compact.enable-vertical-compaction or \
                     --deduplication.replica-label. If bucket inspect calls one of the two out_of_order or stale_series, both \
                     are needed; else find out what else uploads under these labels, and delete \
                     one only if it is a copy of the other"
                ),
            )),
        }
    }
}

/// What was found under one name.
#[derive(Debug, Default)]
struct Checked {
    is_block: bool,
    objects: u64,
    bytes: u64,
    issues: Vec<Issue>,
    note: Option<Note>,
    /// To be held against other blocks.
    entry: Option<Entry>,
}

/// Checks all blocks, or as many as there is time for; an error is what ended it early.
pub(super) async fn verify(task: &Task<'_>, token: &CancellationToken) -> (Report, Result<()>) {
    let (mut report, mut entries) = (Report::default(), Vec::new());
    let end = check_all(task, token, &mut report, &mut entries).await;
    for overlap in audit::among(&entries) {
        report.add_overlap(&overlap);
    }
    report.issues.sort_unstable();
    report.notes.sort_unstable();
    (report, end)
}

async fn check_all(
    task: &Task<'_>,
    token: &CancellationToken,
    report: &mut Report,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let ids = tokio::select! {
        biased;
        () = token.cancelled() => return Ok(()),
        ids = catalog::ids(&**task.bucket, "") => ids?,
    };
    tracing::info!(
        blocks = ids.len(),
        full = task.reader.is_some(),
        "checking the blocks of the bucket"
    );
    let checks = stream::iter(ids)
        .map(|id| check_block(task, id))
        .buffer_unordered(task.at_once);
    let mut checks = std::pin::pin!(checks);
    loop {
        let checked = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            checked = checks.next() => checked,
        };
        match checked {
            Some(checked) => report.add(checked?, entries),
            None => {
                report.complete = true;
                return Ok(());
            }
        }
    }
}

async fn check_block(task: &Task<'_>, id: BlockId) -> Result<Checked> {
    let bucket = &**task.bucket;
    let mut text = catalog::read_text(bucket, id).await?;
    if matches!(text, Text::Absent) {
        let listed = integrity::list_without_meta(bucket, id).await;
        if !listed.as_ref().is_ok_and(|listed| listed.has_meta) {
            return Ok(as_issue(id, listed.map(|rest| check_upload(&rest, id, task.now)))?);
        }
        // It was committed between the two requests.
        text = catalog::read_text(bucket, id).await?;
    }
    let mut checked = match text {
        Text::Read(text) => match catalog::parse(id, &text) {
            Ok(meta) if !task.wanted.has(&meta)? => return Ok(Checked::default()),
            Ok(meta) => as_issue(id, check_objects(task, &meta).await)?,
            Err(why) => {
                let what = format!("meta.json cannot be used: {why}; put it back from a copy of the block");
                bad_meta(bucket, Issue::new(id, Kind::Meta, what)).await?
            }
        },
        Text::Absent => deleted(id),
        Text::Refused(error) => bad_meta(bucket, Issue::new(id, Kind::Unreadable, error)).await?,
    };
    let lost = checked.issues.iter().any(|issue| issue.kind == Kind::Missing);
    if lost && matches!(catalog::read_text(bucket, id).await?, Text::Absent) {
        checked = deleted(id);
    }
    if task.reader.is_some() && checked.is_block {
        tracing::info!(block = %id, bytes = checked.bytes, issues = checked.issues.len(), "checked a block");
    }
    Ok(checked)
}

/// What is under the name of a block whose `meta.json` cannot be used.
async fn bad_meta(bucket: &dyn Bucket, issue: Issue) -> Result<Checked, objstore::Error> {
    let id = issue.block;
    let rest = integrity::list_without_meta(bucket, id)
        .await
        .map(|rest| counted(&rest));
    let mut checked = as_issue(id, rest)?;
    checked.is_block = true;
    checked.issues.push(issue);
    Ok(checked)
}

/// What the store does not give of one block is an issue of that block.
fn as_issue(id: BlockId, checked: Result<Checked, objstore::Error>) -> Result<Checked, objstore::Error> {
    match checked {
        Err(error) if error.scope() == Scope::Object => Ok(Checked {
            is_block: true,
            issues: vec![Issue::new(id, Kind::Unreadable, error)],
            ..Checked::default()
        }),
        other => other,
    }
}

fn counted(listed: &BlockObjects) -> Checked {
    Checked {
        objects: listed.objects,
        bytes: listed.bytes,
        ..Checked::default()
    }
}

fn deleted(id: BlockId) -> Checked {
    Checked {
        note: Some(Note {
            block: id,
            detail: "was deleted during the check".to_owned(),
        }),
        ..Checked::default()
    }
}

async fn check_objects(task: &Task<'_>, meta: &Meta) -> Result<Checked, objstore::Error> {
    let listed = integrity::list(&**task.bucket, meta).await?;
    if !listed.has_meta {
        return Ok(deleted(meta.ulid));
    }
    let mut checked = Checked {
        is_block: true,
        ..counted(&listed)
    };
    match listed.marked {
        true => {
            let detail = "is marked for deletion".to_owned();
            checked.note = Some(Note {
                block: meta.ulid,
                detail,
            });
        }
        false => checked.entry = Some(Entry::from(meta)),
    }
    checked.issues = integrity::issues(meta.ulid, &listed);
    let all_there = checked.issues.iter().all(|issue| issue.kind == Kind::Extra);
    match &task.reader {
        _ if !all_there => {}
        Some(reader) => match integrity::read_back(task.bucket, meta, &listed.files, reader).await? {
            Ok(read) => checked.issues.extend(read.reader_issues),
            Err(issues) => checked.issues.extend(issues),
        },
        None => match catalog::first_encodings(&**task.bucket, meta).await? {
            FirstChunks::Seen(found) => checked.issues.extend(integrity::of_encodings(meta.ulid, &found)),
            FirstChunks::Refused(error) => {
                let detail =
                    format!("its first chunks cannot be looked at, whose encodings readers may refuse: {error}");
                let block = meta.ulid;
                checked.note.get_or_insert(Note { block, detail });
            }
        },
    }
    if listed.marked {
        // Whoever followed the advice has nothing left to do.
        checked.issues.retain(|issue| issue.kind != Kind::Encoding);
    }
    Ok(checked)
}

/// What is under a name without a `meta.json`. How old the block is by its name does not say whether an upload runs: a
/// backfill sends old blocks under the names that they have.
fn check_upload(listed: &BlockObjects, id: BlockId, now: i64) -> Checked {
    let mut checked = counted(listed);
    let note = |detail: &str| {
        Some(Note {
            block: id,
            detail: detail.to_owned(),
        })
    };
    if listed.objects == 0 {
        // It was deleted since the listing.
    } else if listed.marked {
        checked.note = note("is being deleted: it is marked, and its meta.json is gone");
    } else if audit::may_run(id, now) {
        checked.note = note("has no meta.json yet: its upload may be running");
    } else {
        let what = format!(
            "{} and no meta.json: an abandoned upload, unless one is running (backfill keeps the old names of blocks); if \
             none is, upload the block again, or delete these objects",
            output::counted(listed.objects, "object")
        );
        checked.issues.push(Issue::new(id, Kind::Partial, what));
    }
    checked
}
