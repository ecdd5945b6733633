//! Blocks that exist already, on their way to a bucket: plan, apply, verify.
//!
//! **Guarantees.** The source is only read. Every block is checked in full, byte by byte, before anything of it is sent,
//! and what is sent is what was checked: a file that changed since is told from its inode, length and time. A block becomes
//! visible as the sidecar's do ([`crate::shipper`]): proven complete, `meta.json` last, oldest first. A block that is in the
//! bucket is never overwritten, whatever it holds; nothing is deleted. What is not sent is named, with the reason.
//!
//! **Crash.** Nothing is kept on disk. The next run finds what is there: a block with its `meta.json` is compared, objects
//! without one are compared too, by the checksum that the store keeps of them, and only what is missing is sent.
//!
//! **Retry.** A block that fails for a reason that can pass is tried again with growing waits, a few times; then the run
//! ends, since a younger block must not become visible before an older one.
//!
//! **Cancel.** Dropping the futures drops the requests; open multipart uploads are aborted when the bucket settles. A check
//! that runs on the disk is told to stop.

mod apply;
mod bucket_blocks;
mod find;
mod plan;
mod planning;
mod prove;

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    model::Labels,
    objstore,
    shipper::{CheckedFiles, NewerEncodings},
    tsdb::{
        Block, BlockId,
        check::full::{Checked, Digest, Facts, IssueKind},
        content,
    },
};

pub use apply::{Applied, Apply};
pub use planning::{CheckProgress, plan};
pub use prove::{Interrupted, Proven, prove};

/// What is to be backfilled, and how; checked by whoever makes it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory with the blocks.
    pub path: PathBuf,
    /// The external labels that they get, laid over those that they carry.
    pub labels: Labels,
    /// A label may replace one of another value that a block carries.
    pub accept_label_change: bool,
    /// What becomes of blocks that overlap others.
    pub overlaps: Overlaps,
    /// Blocks are sent although their index has what Thanos' compactor may stop at.
    pub allow_index_issues: bool,
    /// What happens with chunks that readers of the bucket refuse.
    pub newer_encodings: NewerEncodings,
    /// Blocks that were compacted (level above 1) are sent, too.
    pub upload_compacted: bool,
    /// Blocks that end at or before this are left out (ms since 1970).
    pub min_time: i64,
    /// Blocks that begin after this are left out (ms since 1970).
    pub max_time: i64,
    /// A SHA-256 of each file goes into `meta.json`.
    pub sha256: bool,
    /// What `meta.json` names as the source.
    pub source: String,
    /// How many files are checked at once.
    pub threads: usize,
    /// Whether every byte is read back at the end; blocks that are in the bucket already are checked, too.
    pub full: bool,
}

/// What becomes of blocks that overlap others of the same labels and resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlaps {
    /// They are refused.
    Refuse,
    /// Those that were compacted are refused, as Thanos does; others are sent.
    RefuseCompacted,
    /// They are sent.
    Send,
}

/// What can be done about a block whose index has issues.
const MAKE_ANEW: &str = "make the block anew with promtool 2.53 or newer (tsdb dump-openmetrics, its lines sorted by time since \
                         others are dropped without a word, then tsdb create-blocks-from openmetrics), or send it as it is with \
                         narthex backfill --allow-index-issues";
/// The same where promtool refuses the labels.
const SEND_AS_IT_IS: &str = "promtool cannot make such series anew; send the block as it is with narthex backfill \
                             --allow-index-issues if no compactor runs on the bucket";

/// What can be done about a block with these issues.
fn way_round(facts: &Facts) -> &'static str {
    let refused = [IssueKind::NoLabels, IssueKind::DoubledLabels];
    match facts.issues.iter().any(|issue| refused.contains(&issue.kind)) {
        true => SEND_AS_IT_IS,
        false => MAKE_ANEW,
    }
}

/// The issues of an index, in words.
fn index_issues(facts: &Facts) -> Option<String> {
    let issues: Vec<String> = facts.issues.iter().map(ToString::to_string).collect();
    (!issues.is_empty()).then(|| format!("its index has issues: {}", issues.join("; ")))
}

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be read. The cause is in the text, and so it is no source.
    #[error("cannot read the blocks: {0}; is --path right?")]
    Path(std::io::Error),
    /// There is nothing in it.
    #[error(
        "there is no block in {}: looked for directories named by a ULID with a meta.json, there and in its snapshots/*; is --path right?", .0.display()
    )]
    NoBlocks(PathBuf),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] objstore::Error),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Path(error)
    }
}

/// All that was found, and what becomes of it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The blocks, by the start of their time range; those without a readable `meta.json` last.
    pub items: Vec<Item>,
    /// Other blocks of the bucket that could not be judged, and why: what is in them is not known.
    pub unreadable: BTreeMap<BlockId, String>,
}

/// One block that was found, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub id: BlockId,
    /// Where it is.
    pub dir: PathBuf,
    /// What it says of itself, if that can be read.
    pub block: Option<Block>,
    /// The external labels that it has in the bucket.
    pub labels: Labels,
    /// The size of its index and segments (bytes).
    pub bytes: u64,
    /// How many files these are.
    pub files: usize,
    /// What becomes of it.
    pub decision: Decision,
    /// The bucket has it under its own name.
    pub in_bucket: bool,
    /// The bucket has it with chunks in these encodings, which readers refuse; empty if it has not.
    refused_in_bucket: String,
    /// It is left out since its samples are in this one, which is to be sent.
    pub within: Option<BlockId>,
    /// What the full check found, if there was one.
    known: Option<Found>,
}

/// What the full check found.
#[derive(Clone, Debug)]
struct Found {
    known: CheckedFiles,
    digests: Vec<Digest>,
}

/// What becomes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is sent; with what one should know of it, if anything.
    Send(Option<String>),
    /// Its samples are in the bucket; how that is known.
    There(String),
    /// It was not asked for; why.
    LeftOut(String),
    /// It is not sent although it was asked for; why, and what helps.
    Refused(String),
}

impl Decision {
    /// The decision in a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Send(_) => "send",
            Self::There(_) => "there",
            Self::LeftOut(_) => "left out",
            Self::Refused(_) => "refused",
        }
    }

    /// Adds what one should know of a block that is sent.
    fn add_remark(&mut self, more: String) {
        if let Self::Send(note) = self {
            *note = Some(match note.take() {
                Some(before) => format!("{before}; {more}"),
                None => more,
            });
        }
    }

    /// Why.
    pub fn why(&self) -> &str {
        match self {
            Self::Send(why) => why.as_deref().unwrap_or_default(),
            Self::There(why) | Self::LeftOut(why) | Self::Refused(why) => why,
        }
    }
}

impl Plan {
    /// The blocks to be sent.
    pub fn to_send(&self) -> impl Iterator<Item = &Item> {
        self.items
            .iter()
            .filter(|item| matches!(item.decision, Decision::Send(_)))
    }

    /// The blocks that are refused.
    pub fn refused(&self) -> impl Iterator<Item = &Item> {
        self.items
            .iter()
            .filter(|item| matches!(item.decision, Decision::Refused(_)))
    }
}

impl Item {
    fn new(block: Block, bytes: u64, files: usize) -> Self {
        Self {
            id: block.id,
            dir: block.dir.to_path_buf(),
            block: Some(block),
            labels: Labels::default(),
            bytes,
            files,
            decision: Decision::Send(None),
            in_bucket: false,
            refused_in_bucket: String::new(),
            within: None,
            known: None,
        }
    }

    fn broken(id: BlockId, dir: PathBuf, why: String) -> Self {
        Self {
            id,
            dir,
            block: None,
            labels: Labels::default(),
            bytes: 0,
            files: 0,
            decision: Decision::Refused(why),
            in_bucket: false,
            refused_in_bucket: String::new(),
            within: None,
            known: None,
        }
    }

    /// The sizes of its files (bytes), if it was checked.
    pub fn file_sizes(&self) -> impl Iterator<Item = u64> {
        let found = self.known.iter().flat_map(|found| &found.digests);
        found.map(|file| file.len)
    }

    /// Notes what the full check found, and what one should know of a block that is sent; refuses it if its index has
    /// issues, unless those are allowed.
    fn checked(&mut self, known: CheckedFiles, checked: &Checked, settings: &Settings) {
        if let Decision::Send(_) = self.decision {
            if let Some(issues) = index_issues(&checked.facts) {
                match settings.allow_index_issues {
                    true => self.decision.add_remark(issues),
                    false => self.decision = Decision::Refused(format!("{issues}; {}", way_round(&checked.facts))),
                }
            }
            let tombstones = self.block.as_ref().map_or(0, |block| block.meta.num_tombstones);
            if tombstones > 0 {
                self.decision.add_remark(format!(
                    "its {tombstones} tombstones are not sent, so what was deleted is there again"
                ));
            }
            for kind in self.block.iter().flat_map(|block| content::by_meta(&block.meta)) {
                self.decision.add_remark(format!(
                    "it overlaps other blocks by its nature ({kind}), so that a compactor needs vertical compaction"
                ));
            }
            self.judge_encodings(&checked.facts, settings.newer_encodings);
        }
        self.known = Some(Found {
            known,
            digests: checked.files.clone(),
        });
    }

    /// Notes what happens with chunks that readers refuse, or refuses the block.
    fn judge_encodings(&mut self, facts: &Facts, choice: NewerEncodings) {
        let newer = facts.newer_encodings();
        if newer.is_empty() || matches!(self.decision, Decision::Refused(_)) {
            return;
        }
        let what = format!("its {} chunks", newer.join(" and "));
        let refused = "Thanos' store gateway and compactor refuse";
        match choice {
            NewerEncodings::Rewrite => self.decision.add_remark(format!(
                "{what}, which {refused}, are rewritten on the way to the bucket"
            )),
            NewerEncodings::Hold => {
                self.decision = Decision::Refused(format!(
                    "{refused} {what}; --newer-encodings=rewrite sends it with these chunks rewritten"
                ));
            }
            NewerEncodings::Ship => self
                .decision
                .add_remark(format!("{what} are sent as they are, and {refused} them")),
            NewerEncodings::Mark => self.decision.add_remark(format!(
                "{what} are sent as they are, with a no-compact-mark.json, and {refused} them"
            )),
        }
    }
}
