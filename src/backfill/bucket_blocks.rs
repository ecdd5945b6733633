//! What of the bucket matters for the blocks at hand, as [`crate::lineage`] judges it: what stands under their names, where
//! their data is otherwise, and what lies near them in time.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Decision, Item};
use crate::{
    catalog,
    lineage::{Elsewhere, Entry, Existing, Lineage, existing},
    model::Labels,
    objstore::{self, Bucket, Scope},
    tsdb::{Block, BlockId},
};

/// Blocks of the bucket that are looked at, at the same time.
const AT_ONCE: usize = 16;
/// How many names a reason lists.
pub(super) const NAMES: usize = 5;

/// What of the bucket matters.
#[derive(Debug, Default)]
pub(super) struct BucketBlocks {
    lineage: Lineage,
}

/// What stands under the name of a block that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnderName {
    /// No block. It may be within others.
    Nothing,
    /// Something that is to be deleted, in words. The block may be within others.
    Marked(&'static str),
    /// The block by its `meta.json`, whole; its bytes are still to be compared.
    Same {
        /// It was rewritten on its way there.
        rewritten: bool,
    },
    /// Something else, or the block in a state that sending it does not mend; in words.
    Other(String),
}

impl UnderName {
    /// What a look under the name of a block has found.
    pub(super) fn of(found: Existing, labels: &Labels) -> Self {
        match found {
            Existing::Nothing { marked: false } => Self::Nothing,
            Existing::Nothing { marked: true } => Self::Marked(
                "a deletion-mark.json stands under its name in the bucket, so a compactor would delete it; run again once that is \
                 gone, or remove it to send the block now",
            ),
            Existing::Marked => Self::Marked(
                "it is in the bucket, but marked for deletion there; run again once it is deleted, and it is sent anew, or remove \
                 its deletion-mark.json to keep what is there",
            ),
            Existing::Torn(why) => Self::Other(format!(
                "its meta.json in the bucket cannot be used ({why}), and is not overwritten; look at it, and delete the block \
                 there if it is of no use"
            )),
            Existing::Conflict(why) => Self::Other(format!(
                "{why}; it is not overwritten. Find out which is right: narthex bucket verify --full"
            )),
            Existing::Refused { why, .. } => Self::Other(format!("{why}; nothing is overwritten")),
            Existing::Incomplete(_, missing) => Self::Other(format!(
                "it is in the bucket, but {} of its files are missing there, the first of them {}; put them back from a copy of \
                 the block, or delete its meta.json there and run again",
                missing.len(),
                missing.first().map_or("", |file| &file.rel_path)
            )),
            Existing::Complete(committed) => match committed.other_labels {
                Some(theirs) => Self::Other(format!(
                    "a block of this name is in the bucket and is another one: it has the labels {theirs} there, and would get \
                     {labels}; it is not overwritten"
                )),
                None => Self::Same {
                    rewritten: committed.meta.rewritten_from().is_some(),
                },
            },
        }
    }
}

impl UnderName {
    /// What is wrong with a block that should be there; `None` if it is, by what is known so far.
    pub(super) fn wrong(self) -> Option<String> {
        match self {
            Self::Same { .. } => None,
            Self::Nothing => Some("its meta.json is gone".to_owned()),
            Self::Marked(why) => Some(why.to_owned()),
            Self::Other(why) => Some(why),
        }
    }
}

impl BucketBlocks {
    /// Reads what all blocks of the bucket say of themselves.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub(super) async fn read(bucket: &dyn Bucket) -> Result<Self, objstore::Error> {
        let mut lineage = Lineage::default();
        lineage.refresh(bucket, "").await?;
        Ok(Self { lineage })
    }

    /// The blocks of the bucket that nobody can judge, and why.
    pub(super) fn unreadable(&self) -> BTreeMap<BlockId, String> {
        self.lineage.unreadable().clone()
    }

    /// What stands under the names of those of `items` that are to be sent, by their places.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub(super) async fn under_their_names(
        bucket: &dyn Bucket,
        items: &[Item],
    ) -> Result<Vec<(usize, UnderName)>, objstore::Error> {
        let requests = to_send(items).map(|(place, item, block)| async move {
            let found = existing(bucket, &block.meta, &item.labels).await?;
            Ok((place, UnderName::of(found, &item.labels)))
        });
        stream::iter(requests).buffered(AT_ONCE).try_collect().await
    }

    /// What becomes of a block whose data is in the bucket in other blocks; `None` if it is not, and has to be sent.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub(super) async fn within_others(
        &mut self,
        bucket: &dyn Bucket,
        block: &Block,
        labels: &Labels,
    ) -> Result<Option<Decision>, objstore::Error> {
        let found = self
            .lineage
            .elsewhere(bucket, &Entry::local(&block.meta, labels))
            .await?;
        Ok(match found {
            Elsewhere::In(blocks) => {
                let with = names(blocks.into_iter());
                Some(Decision::There(format!(
                    "its source blocks are in the bucket, merged into {with}"
                )))
            }
            Elsewhere::UnderOtherLabels { blocks, labels: theirs } => {
                let with = names(blocks.into_iter());
                Some(Decision::Refused(format!(
                    "its source blocks are in the bucket, merged into {with}, with the labels {theirs}, and it would get {labels}; give \
                     those labels, or delete what is wrong there"
                )))
            }
            // A compactor would drop what is sent for the damaged one.
            Elsewhere::Nowhere {
                not_whole: Some((id, why)),
            } => Some(Decision::Refused(format!(
                "its source blocks are in the bucket, merged into {id}, but that is not whole: {why}. If it is of no use, mark it for \
                 deletion, and run again to send this"
            ))),
            Elsewhere::Nowhere { not_whole: None } => None,
        })
    }

    /// The blocks of the bucket that lie where those of `items` do that are to be sent, under the labels of one of them; not
    /// those that are marked for deletion.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub(super) async fn nearby(&self, bucket: &dyn Bucket, items: &[Item]) -> Result<Vec<Entry>, objstore::Error> {
        let labels: BTreeSet<&Labels> = to_send(items).map(|(_, item, _)| &item.labels).collect();
        let from = to_send(items).map(|(_, _, block)| block.meta.min_time).min();
        let until = to_send(items).map(|(_, _, block)| block.meta.max_time).max();
        let (Some(from), Some(until)) = (from, until) else {
            return Ok(Vec::new());
        };
        let near = self
            .lineage
            .entries()
            .filter(|entry| entry.range.0 <= until && from <= entry.range.1 && labels.contains(&entry.labels));
        let requests = near.map(|entry| async move {
            match catalog::is_marked_for_deletion(bucket, entry.id).await {
                Ok(marked) => Ok((!marked).then(|| entry.clone())),
                // Nobody knows that it goes, so it stays.
                Err(error) if error.scope() == Scope::Object => Ok(Some(entry.clone())),
                Err(error) => Err(error),
            }
        });
        let found: Vec<Option<Entry>> = stream::iter(requests).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// The blocks that are to be sent, with their places.
pub(super) fn to_send(items: &[Item]) -> impl Iterator<Item = (usize, &Item, &Block)> {
    items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| match (&item.decision, &item.block) {
            (Decision::Send(_), Some(block)) => Some((place, item, block)),
            _ => None,
        })
}

/// Some names, and how many more.
pub(super) fn names(ids: impl Iterator<Item = BlockId>) -> String {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    match ids.len() {
        more if more > NAMES => format!("{} and others", ids[..NAMES].join(", ")),
        _ => ids.join(", "),
    }
}
