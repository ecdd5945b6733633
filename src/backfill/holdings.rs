//! What of the bucket matters for the blocks at hand: blocks of their names, of their labels, and those that were made of
//! what they were made of.
//!
//! The labels of a block stand in its `meta.json`, so each of them is read, side by side; no more is kept than matters.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::{TryStreamExt, stream};

use super::{Decision, Item};
use crate::{
    catalog::{self, Found},
    model::Labels,
    objstore::{self, Bucket},
    tsdb::{Block, BlockId, Meta},
};

/// Blocks that are looked at for a mark at the same time.
const AT_ONCE: usize = 16;

/// One block of the bucket.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: BlockId,
    pub(super) labels: Labels,
    pub(super) resolution: i64,
    /// The time range (ms since 1970), half-open.
    pub(super) range: (i64, i64),
    pub(super) sources: BTreeSet<BlockId>,
    /// The compactor is to delete it.
    pub(super) marked: bool,
}

/// What a block of a local one's name is in the bucket.
#[derive(Clone, Debug)]
pub(super) enum Namesake {
    Block(Box<Meta>),
    Unreadable(String),
}

/// What of the bucket matters.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    /// By name.
    pub(super) held: Vec<Held>,
    /// Blocks of the same names.
    pub(super) namesakes: BTreeMap<BlockId, Namesake>,
}

/// Which blocks of the bucket were made of what; those that are to be deleted count for nothing.
#[derive(Debug)]
pub(super) struct Origins<'a> {
    by_source: HashMap<BlockId, Vec<&'a Held>>,
}

/// Where the samples of a block are in the bucket, if not under its own name.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    /// The blocks that have them.
    pub(super) ids: BTreeSet<BlockId>,
    /// What becomes of the block, if those are whole.
    pub(super) decision: Decision,
}

impl<'a> Origins<'a> {
    fn of(held: &'a [Held]) -> Self {
        let mut by_source: HashMap<BlockId, Vec<&Held>> = HashMap::new();
        for held in held.iter().filter(|held| !held.marked) {
            for source in &held.sources {
                by_source.entry(*source).or_default().push(held);
            }
        }
        Self { by_source }
    }

    /// Where all that `block` was made of is in the bucket in other blocks. Under `labels`, or without some of them, as
    /// a compactor that merges replicas leaves it, its samples are there; under others they are somebody else's.
    pub(super) fn cover(&self, block: &Block, labels: &Labels) -> Option<Cover> {
        if let Some(with) = self.made_of(block, |held| is_part(&held.labels, labels)) {
            let names = names(with.keys().copied());
            let why = format!("what it was made of is in the bucket in {names}");
            return Some(Cover {
                ids: with.into_keys().collect(),
                decision: Decision::There(why),
            });
        }
        let with = self.made_of(block, |_| true)?;
        let names = names(with.keys().copied());
        let mut theirs = with.values().map(|held| &held.labels);
        let theirs = theirs.find(|theirs| !is_part(theirs, labels))?;
        let why = format!(
            "what it was made of is in the bucket in {names} with the labels {theirs}, and it would get {labels}; give \
             those labels, or delete what is wrong there"
        );
        Some(Cover {
            ids: with.into_keys().collect(),
            decision: Decision::Refused(why),
        })
    }

    fn made_of(&self, block: &Block, fits: impl Fn(&Held) -> bool) -> Option<BTreeMap<BlockId, &'a Held>> {
        let resolution = block.meta.resolution();
        let mut with = BTreeMap::new();
        for source in sources(&block.meta) {
            let all = self.by_source.get(&source)?.iter();
            let mut found = all
                .filter(|held| held.id != block.id && held.resolution == resolution && fits(held))
                .peekable();
            found.peek()?;
            with.extend(found.map(|held| (held.id, *held)));
        }
        // What was merged covers all times of what it was merged from; if not, the names of the sources are not to be
        // trusted.
        let from = with.values().map(|held| held.range.0).min()?;
        let until = with.values().map(|held| held.range.1).max()?;
        (from <= block.meta.min_time && block.meta.max_time <= until).then_some(with)
    }
}

/// Whether `some` are labels, and all of them among `all`.
fn is_part(some: &Labels, all: &Labels) -> bool {
    !some.is_empty() && some.iter().all(|label| all.get(&label.name) == Some(&*label.value))
}

/// How many names a reason lists.
pub(super) const NAMES: usize = 5;

/// Some names, and how many more.
pub(super) fn names(ids: impl Iterator<Item = BlockId>) -> String {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    match ids.len() {
        more if more > NAMES => format!("{} and others", ids[..NAMES].join(", ")),
        _ => ids.join(", "),
    }
}

impl Held {
    pub(super) fn new(meta: &Meta) -> Self {
        Self {
            id: meta.ulid,
            labels: meta.thanos_labels.clone().unwrap_or_default(),
            resolution: meta.resolution(),
            range: (meta.min_time, meta.max_time),
            sources: sources(meta),
            marked: false,
        }
    }
}

/// The blocks that a block was made of; itself, if it does not say.
pub(super) fn sources(meta: &Meta) -> BTreeSet<BlockId> {
    match meta.sources.is_empty() {
        true => BTreeSet::from([meta.ulid]),
        false => meta.sources.iter().copied().collect(),
    }
}

impl Holdings {
    /// Which blocks were made of what.
    pub(super) fn origins(&self) -> Origins<'_> {
        Origins::of(&self.held)
    }

    /// Whether a block is marked for deletion.
    pub(super) fn is_marked(&self, id: BlockId) -> bool {
        let at = self.held.binary_search_by_key(&id, |held| held.id);
        at.is_ok_and(|at| self.held[at].marked)
    }

    /// Reads what matters for `items`.
    ///
    /// # Errors
    /// The bucket's.
    pub(super) async fn read(bucket: &dyn Bucket, items: &[Item]) -> Result<Self, objstore::Error> {
        let labels: BTreeSet<&Labels> = items.iter().map(|item| &item.labels).collect();
        let names: BTreeSet<BlockId> = items.iter().map(|item| item.id).collect();
        let metas = items.iter().filter_map(|item| Some(&item.block.as_ref()?.meta));
        let origins: BTreeSet<BlockId> = metas.flat_map(sources).collect();
        let mut holdings = Self::default();
        let mut blocks = std::pin::pin!(catalog::blocks(bucket));
        while let Some((id, found)) = blocks.try_next().await? {
            match found {
                Found::Block(meta) => {
                    let held = Held::new(&meta);
                    if labels.contains(&held.labels) || !held.sources.is_disjoint(&origins) {
                        holdings.held.push(held);
                    }
                    if names.contains(&id) {
                        holdings.namesakes.insert(id, Namesake::Block(meta));
                    }
                }
                Found::Unreadable(why) if names.contains(&id) => {
                    holdings.namesakes.insert(id, Namesake::Unreadable(why));
                }
                Found::Unreadable(why) => {
                    tracing::warn!(block = %id, why, "a block in the bucket has an unreadable meta.json and is passed over");
                }
                Found::Partial => {}
            }
        }
        holdings.held.sort_by_key(|held| held.id);
        holdings.read_marks(bucket, items).await?;
        Ok(holdings)
    }

    /// Looks which blocks are marked for deletion, of those that lie where `items` do.
    async fn read_marks(&mut self, bucket: &dyn Bucket, items: &[Item]) -> Result<(), objstore::Error> {
        let ranges: Vec<(i64, i64)> = items
            .iter()
            .filter_map(|item| {
                item.block
                    .as_ref()
                    .map(|block| (block.meta.min_time, block.meta.max_time))
            })
            .collect();
        let from = ranges.iter().map(|range| range.0).min().unwrap_or(i64::MAX);
        let until = ranges.iter().map(|range| range.1).max().unwrap_or(i64::MIN);
        let near = self
            .held
            .iter_mut()
            .filter(|held| held.range.0 <= until && from <= held.range.1);
        stream::iter(near.map(Ok))
            .try_for_each_concurrent(AT_ONCE, |held| async move {
                held.marked = catalog::is_marked_for_deletion(bucket, held.id).await?;
                Ok(())
            })
            .await
    }
}
