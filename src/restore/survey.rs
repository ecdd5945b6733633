//! What the bucket holds of what is asked for. Reads only; errors are the bucket's; dropping it stops the requests.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    files,
    plan::{Candidate, Refusal, Sets},
};
use crate::{
    catalog::{self, DELETION_MARK, Found},
    model::{Labels, selector::Selector},
    objstore::{self, Bucket, Scope},
    tsdb::{BlockId, BucketFile, Meta},
};

/// Blocks whose objects are listed at once.
const AT_ONCE: usize = 16;
/// Blocks of no use that are named one by one.
const NAMED: usize = 100;

/// Which blocks are asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Each must match the external labels.
    pub selectors: Vec<Selector>,
    /// No sample before this (ms since 1970).
    pub min_time: i64,
    /// No sample after this (ms since 1970).
    pub max_time: i64,
}

impl Wanted {
    fn labels(&self, labels: &Labels) -> bool {
        // Patterns were compiled when the selector was read.
        let matches = |selector: &Selector| selector.matches(labels).unwrap_or(false);
        self.selectors.iter().all(matches)
    }

    /// A block whose range is empty or reversed may hold a sample at its start.
    fn times(&self, meta: &Meta) -> bool {
        let until = meta.max_time.max(meta.min_time.saturating_add(1));
        meta.min_time <= self.max_time && until > self.min_time
    }
}

/// What the bucket holds.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The selected blocks; none if they have several label sets.
    pub blocks: Vec<Candidate>,
    /// The label sets of the selected blocks.
    pub selected: Sets,
    /// The label sets that are not selected.
    pub others: Sets,
    /// Blocks whose labels are selected, but not their times: how many, from (ms), until (ms).
    pub outside: Option<(u64, i64, i64)>,
    /// The first of the blocks whose `meta.json` is of no use, and why.
    pub unreadable: Vec<(BlockId, String)>,
    /// How many there are of them.
    pub unreadable_total: u64,
    /// How many uploads run or were given up.
    pub partial: u64,
}

impl Survey {
    /// The label set that all selected blocks have.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn sole_set(&self) -> Result<Labels, Refusal> {
        let mut sets = self.selected.counted.keys();
        match (sets.next(), sets.next()) {
            (Some(labels), None) if self.selected.more == 0 => Ok(labels.clone()),
            (Some(_), _) => Err(Refusal::SeveralSets(self.selected.clone())),
            (None, _) => Err(Refusal::Nothing {
                others: self.others.clone(),
                outside: self.outside,
            }),
        }
    }

    fn add(&mut self, id: BlockId, found: Found, wanted: &Wanted) {
        match found {
            Found::Partial => self.partial += 1,
            Found::Unreadable(why) => {
                self.unreadable_total += 1;
                if self.unreadable.len() < NAMED {
                    self.unreadable.push((id, why));
                }
            }
            Found::Block(meta) => self.sort(*meta, wanted),
        }
    }

    fn sort(&mut self, meta: Meta, wanted: &Wanted) {
        let labels = meta.thanos_labels.clone().unwrap_or_default();
        if !wanted.labels(&labels) {
            return self.others.add(&labels);
        }
        if !wanted.times(&meta) {
            let (count, from, until) = self.outside.unwrap_or((0, i64::MAX, i64::MIN));
            self.outside = Some((count + 1, from.min(meta.min_time), until.max(meta.max_time)));
            return;
        }
        self.selected.add(&labels);
        // Blocks of several sets are only counted: there may be any number.
        match self.selected.counted.len() {
            1 => self.blocks.push(candidate(meta)),
            _ => self.blocks = Vec::new(),
        }
    }
}

/// Reads what every block in the bucket says of itself.
///
/// # Errors
/// The bucket's.
pub async fn survey(bucket: &dyn Bucket, wanted: &Wanted) -> Result<Survey, objstore::Error> {
    let mut survey = Survey::default();
    let mut blocks = std::pin::pin!(catalog::blocks(bucket));
    while let Some((id, found)) = blocks.try_next().await? {
        survey.add(id, found, wanted);
    }
    survey.unreadable.sort();
    Ok(survey)
}

fn candidate(meta: Meta) -> Candidate {
    let (files, wrong) = match meta.files() {
        Ok(files) => (files, None),
        Err(wrong) => (None, Some(wrong)),
    };
    let unhashed = |file: BucketFile| BucketFile { sha256: None, ..file };
    Candidate {
        id: meta.ulid,
        min_time: meta.min_time,
        max_time: meta.max_time,
        level: meta.level,
        series: meta.num_series,
        samples: meta.num_samples,
        resolution: meta.resolution(),
        tombstones: meta.num_tombstones,
        files: files.map(|files| files.into_iter().map(unhashed).collect()),
        sources: meta.sources.clone(),
        marked: false,
        bytes: 0,
        wrong,
    }
}

/// Finds out which objects the blocks have: their size, whether they are marked for deletion, and what is missing.
///
/// # Errors
/// The bucket's.
pub async fn look_at(bucket: &dyn Bucket, blocks: Vec<Candidate>) -> Result<Vec<Candidate>, objstore::Error> {
    let looked = stream::iter(blocks).map(|block| look(bucket, block));
    looked.buffer_unordered(AT_ONCE).try_collect().await
}

async fn look(bucket: &dyn Bucket, mut block: Candidate) -> Result<Candidate, objstore::Error> {
    let listed = match bucket.list(&block.id.to_string()).await {
        Ok(listed) => listed,
        Err(error) if error.scope() == Scope::Object => {
            block.wrong = Some(error.to_string());
            return Ok(block);
        }
        Err(error) => return Err(error),
    };
    let mark = format!("{}/{DELETION_MARK}", block.id);
    block.marked = listed.iter().any(|object| object.key == mark);
    let said = block.files.take();
    block.bytes = listed.iter().map(|object| object.size).sum();
    if block.wrong.is_none() {
        match files::of_block(block.id, said.as_deref(), &listed) {
            Ok(files) => block.bytes = files.iter().filter_map(|file| file.size).sum(),
            Err(wrong) => block.wrong = Some(wrong),
        }
    }
    Ok(block)
}
