//! What of the bucket matters for the blocks at hand: blocks of their names, of their labels, and those that were made of
//! what they were made of.
//!
//! The labels of a block stand in its `meta.json`, so each of them is read, side by side; no more is kept than matters.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{TryStreamExt, stream};

use super::Item;
use crate::{
    catalog::{self, Found},
    model::Labels,
    objstore::{self, Bucket},
    tsdb::{BlockId, Meta},
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
