//! What of the blocks in a bucket is restored, and why not the others; pure.
//!
//! A directory of Prometheus holds one Prometheus' samples at full resolution, each once. So blocks of several label sets
//! are refused together, downsampled ones are left out, and of a block and the one that it was merged into the larger
//! one is taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    lineage::Entry,
    model::Labels,
    tsdb::{BlockId, BucketFile},
};

/// Label sets that are counted one by one; the blocks of further ones are counted together.
const COUNTED: usize = 1000;

/// A block that was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub id: BlockId,
    /// Start of its time range (ms since 1970), inclusive.
    pub min_time: i64,
    /// End of its time range (ms since 1970), exclusive.
    pub max_time: i64,
    /// How often its samples were compacted.
    pub level: u64,
    /// How many series it holds.
    pub series: u64,
    /// How many samples it holds.
    pub samples: u64,
    /// How far apart its samples are (ms) if it was downsampled, else 0.
    pub resolution: i64,
    /// How many deleted intervals its maker had, which no bucket keeps.
    pub tombstones: u64,
    /// The blocks of level 1 that are in it.
    pub sources: Vec<BlockId>,
    /// The files that it says it has, without hashes; `None` if it does not say.
    pub files: Option<Vec<BucketFile>>,
    /// It is marked for deletion.
    pub marked: bool,
    /// What its files take (bytes).
    pub bytes: u64,
    /// Why it is not whole, if it is not.
    pub wrong: Option<String>,
}

/// Label sets, and how many blocks have each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// The blocks of each set.
    pub counted: BTreeMap<Labels, u64>,
    /// Blocks of further sets.
    pub more: u64,
}

impl Sets {
    /// Counts a block.
    pub(super) fn add(&mut self, labels: &Labels) {
        if let Some(count) = self.counted.get_mut(labels) {
            *count += 1;
        } else if self.counted.len() < COUNTED {
            self.counted.insert(labels.clone(), 1);
        } else {
            self.more += 1;
        }
    }

    /// A selector that of these sets selects only `labels`, as PromQL writes it.
    pub fn selector(&self, labels: &Labels) -> String {
        let names: BTreeSet<&str> = self.counted.keys().flat_map(Labels::iter).map(|l| &*l.name).collect();
        let matchers = names.into_iter().map(|name| {
            // A label that only others have is to be empty.
            format!("{}={}", quoted_name(name), quoted(labels.get(name).unwrap_or_default()))
        });
        format!("{{{}}}", matchers.collect::<Vec<_>>().join(", "))
    }
}

/// A name as it stands in a selector: in quotes if it is none of the old kind.
fn quoted_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            _ => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Why nothing is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No block is selected.
    Nothing {
        /// Those whose labels are not selected.
        others: Sets,
        /// Those whose labels are selected, but not their times: how many, from (ms), until (ms).
        outside: Option<(u64, i64, i64)>,
    },
    /// The selected blocks are not all of one Prometheus.
    SeveralSets(Sets),
}

/// What is done with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is restored.
    Restore,
    /// It is not needed.
    LeaveOut,
    /// It should be restored, and cannot.
    Refuse,
}

/// A block and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The block.
    pub block: Candidate,
    /// What is done with it.
    pub decision: Decision,
    /// Why, or what else is to be known; may be empty.
    pub why: String,
}

/// What is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The external labels that all blocks have.
    pub labels: Labels,
    /// Every selected block, by time.
    pub rows: Vec<Row>,
    /// Times that are missing, since there are only downsampled blocks of them: from (ms), until (ms), exclusive.
    pub missing: Vec<(i64, i64)>,
}

impl Plan {
    /// The blocks that are restored, oldest first.
    pub fn restored(&self) -> impl Iterator<Item = &Candidate> {
        let rows = self.rows.iter().filter(|row| row.decision == Decision::Restore);
        rows.map(|row| &row.block)
    }

    /// Whether some block that should be restored cannot be.
    pub fn refuses(&self) -> bool {
        self.rows.iter().any(|row| row.decision == Decision::Refuse)
    }
}

/// Decides on blocks of one label set, of which those with `min_time <= t <= max_time` (ms) are asked for.
pub fn plan(labels: Labels, mut blocks: Vec<Candidate>, min_time: i64, max_time: i64) -> Plan {
    blocks.sort_by_key(|block| (block.min_time, block.max_time, block.id));
    let decisions: Vec<(Decision, String)> = {
        let families = Families::of(&blocks);
        blocks.iter().map(|block| decide(block, &families)).collect()
    };
    let kept = blocks.iter().zip(&decisions);
    let kept: Vec<&Candidate> = kept
        .filter(|(_, (decision, _))| *decision == Decision::Restore)
        .map(|(block, _)| block)
        .collect();
    let missing = missing(&blocks, &kept, min_time, max_time);
    let rows = blocks.into_iter().zip(decisions);
    let rows = rows.map(|(block, (decision, why))| Row { block, decision, why });
    Plan {
        labels,
        rows: rows.collect(),
        missing,
    }
}

fn decide(block: &Candidate, families: &Families<'_>) -> (Decision, String) {
    if block.resolution > 0 {
        let why = format!(
            "downsampled to {} s: Prometheus cannot read it",
            block.resolution / 1000
        );
        return (Decision::LeaveOut, why);
    }
    if let Some(larger) = families.cover(block) {
        return (Decision::LeaveOut, format!("merged into {}", larger.id));
    }
    if let Some(wrong) = &block.wrong {
        return (Decision::Refuse, wrong.clone());
    }
    let mut notes = Vec::new();
    if block.marked {
        notes.push("marked for deletion".to_owned());
    }
    if block.tombstones > 0 {
        notes.push("samples that were deleted, but not compacted away, are there again".to_owned());
    }
    (Decision::Restore, notes.join("; "))
}

/// Blocks by what they were made of.
struct Families<'a> {
    members: Vec<(Entry, &'a Candidate)>,
    by_source: HashMap<BlockId, Vec<usize>>,
}

impl<'a> Families<'a> {
    fn of(blocks: &'a [Candidate]) -> Self {
        let members: Vec<(Entry, &Candidate)> = blocks
            .iter()
            .filter(|block| block.resolution == 0)
            .map(|block| (block.entry(), block))
            .collect();
        let mut by_source: HashMap<BlockId, Vec<usize>> = HashMap::new();
        for (place, (entry, _)) in members.iter().enumerate() {
            for source in &entry.sources {
                by_source.entry(*source).or_default().push(place);
            }
        }
        Self { members, by_source }
    }

    /// The largest whole block that holds all of `block`; none if that is the block itself.
    fn cover(&self, block: &Candidate) -> Option<&'a Candidate> {
        let entry = block.entry();
        let relatives = self.by_source.get(entry.sources.first()?)?;
        let covers = relatives
            .iter()
            .filter_map(|place| self.members.get(*place))
            .filter(|(larger, other)| entry.is_within(larger) && other.is_better_than(block));
        covers.map(|(_, other)| *other).max_by_key(|larger| larger.rank())
    }
}

impl Candidate {
    /// What lineage judges it by. All candidates have the same labels, which are left out here.
    fn entry(&self) -> Entry {
        let entry = Entry {
            id: self.id,
            range: (self.min_time, self.max_time),
            resolution: self.resolution,
            level: self.level,
            sources: Box::default(),
            labels: Labels::default(),
        };
        entry.made_of(self.sources.clone())
    }

    /// Which of two blocks with the same content is preferred.
    fn rank(&self) -> (usize, bool, u64, BlockId) {
        (self.sources.len().max(1), !self.marked, self.level, self.id)
    }

    /// Whether nothing is lost with `smaller`, which is within this block, when this one is there.
    fn is_better_than(&self, smaller: &Candidate) -> bool {
        // Nobody deletes a block for another that is to be deleted itself.
        let lasting = !self.marked || smaller.marked;
        self.id != smaller.id && self.wrong.is_none() && lasting && self.rank() > smaller.rank()
    }
}

/// The times within the window that only downsampled blocks have.
fn missing(blocks: &[Candidate], kept: &[&Candidate], min_time: i64, max_time: i64) -> Vec<(i64, i64)> {
    let origins: BTreeSet<BlockId> = kept.iter().flat_map(|block| block.entry().sources).collect();
    let mut missing: Vec<(i64, i64)> = Vec::new();
    for block in blocks.iter().filter(|block| block.resolution > 0) {
        // Times alone would find the moments between two blocks that no sample has.
        if block.entry().sources.iter().all(|origin| origins.contains(origin)) {
            continue;
        }
        let mut from = block.min_time.max(min_time);
        let until = block.max_time.min(max_time.saturating_add(1));
        // They are sorted by their start.
        for whole in kept {
            if from < until && whole.min_time.min(until) > from {
                missing.push((from, whole.min_time.min(until)));
            }
            from = from.max(whole.max_time);
        }
        if from < until {
            missing.push((from, until));
        }
    }
    joined(missing)
}

/// The same times in ranges that neither overlap nor touch.
fn joined(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (from, until) in ranges {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => joined.push((from, until)),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
