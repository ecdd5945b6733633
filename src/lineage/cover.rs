//! Whether other blocks of the bucket hold all of a block's data, proven.

use std::collections::BTreeSet;

use super::{
    Entry, Lineage,
    existing::{Stored, cannot_be_used, read_stored},
};
use crate::{
    model::Labels,
    objstore::{self, Bucket},
    tsdb::BlockId,
};

/// The most overlaps that are named; whoever has more has enough to do.
const MOST_OVERLAPS: usize = 10;

/// Where the data of a block is in the bucket, if not under its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// In these blocks, by name; each of them is whole and not marked for deletion.
    In(Vec<BlockId>),
    /// In such blocks, but at least one of them has other labels: for readers it is somebody else's data. Not said where a
    /// block of these labels would hold all of it were it whole.
    UnderOtherLabels {
        /// The blocks, by name.
        blocks: Vec<BlockId>,
        /// The labels that one of them has.
        labels: Labels,
    },
    /// Not in the bucket, as far as that can be proven.
    Nowhere {
        /// A block that would hold all of it were it whole, and what is lost of that one. A compactor will drop the block
        /// for this one nevertheless, so the operator should know.
        not_whole: Option<(BlockId, String)>,
    },
}

/// What was found of a block that others could rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is whole.
    Whole,
    /// It is marked for deletion, or gone.
    Void,
    /// It is not whole, and why.
    Damaged(String),
}

impl Lineage {
    /// Where all that `block` was made of is in the bucket in other blocks: of the same resolution, not marked for
    /// deletion, whole by their own `meta.json`, and with times that cover those of `block`. They must have its labels, or
    /// fewer of them, as a compactor that merges replicas leaves it.
    ///
    /// For a block that Prometheus compacted, each of its sources may be there as a block of its own or within another one:
    /// that answers whether all that it was made of has reached the bucket.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub async fn elsewhere(&mut self, bucket: &dyn Bucket, block: &Entry) -> Result<Elsewhere, objstore::Error> {
        let fitting = self.candidates(block, |other| is_part(&other.labels, &block.labels));
        if let Some(blocks) = self.proven(bucket, block, &fitting).await? {
            return Ok(Elsewhere::In(blocks));
        }
        let not_whole = fitting
            .iter()
            .find_map(|id| match (self.entries.get(id), self.proofs.get(id)) {
                (Some(entry), Some(Proof::Damaged(why))) if entry.has_all_of(block) => Some((*id, why.clone())),
                _ => None,
            });
        if not_whole.is_some() {
            return Ok(Elsewhere::Nowhere { not_whole });
        }
        let all = self.candidates(block, |_| true);
        if let Some(blocks) = self.proven(bucket, block, &all).await? {
            let mut theirs = blocks.iter().filter_map(|id| Some(&self.entries.get(id)?.labels));
            if let Some(labels) = theirs.find(|theirs| !is_part(theirs, &block.labels)).cloned() {
                return Ok(Elsewhere::UnderOtherLabels { blocks, labels });
            }
        }
        Ok(Elsewhere::Nowhere { not_whole: None })
    }

    /// The blocks of the bucket that together hold all that `block` was made of, proven as in [`Lineage::elsewhere`]; `None` if
    /// there are none. Beside those with its labels, or fewer, its sources themselves count, whatever their labels: they were
    /// sent when others were in force. What a block of other labels says that it was made of does not count.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub async fn all_sources(
        &mut self,
        bucket: &dyn Bucket,
        block: &Entry,
    ) -> Result<Option<Vec<BlockId>>, objstore::Error> {
        let found = self.candidates(block, |other| {
            let is_source = *other.sources == [other.id] && block.sources.binary_search(&other.id).is_ok();
            is_source || is_part(&other.labels, &block.labels)
        });
        self.proven(bucket, block, &found).await
    }

    /// The blocks of the bucket at which a compactor would stop if `block` were there, too: those with the same labels and
    /// resolution whose times overlap, and that are not marked for deletion. What is within the other by its sources is
    /// folded by the compactor, and is none. At most ten, by name.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub async fn overlapping(&mut self, bucket: &dyn Bucket, block: &Entry) -> Result<Vec<BlockId>, objstore::Error> {
        let others = self
            .entries
            .values()
            .filter(|other| other.id != block.id && other.overlaps(block));
        let others: Vec<BlockId> = others.map(|other| other.id).collect();
        let mut found = Vec::new();
        for id in others {
            if found.len() == MOST_OVERLAPS {
                break;
            }
            if self.prove(bucket, id).await? != Proof::Void {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// The blocks whose `meta.json` says that they have some of what `block` was made of, those with all of it first, the
    /// largest before others; none if a source of `block` is in no such block.
    fn candidates(&self, block: &Entry, fits: impl Fn(&Entry) -> bool) -> Vec<BlockId> {
        let mut found: BTreeSet<BlockId> = BTreeSet::new();
        for source in &block.sources {
            let holders = self.by_source.get(source).into_iter().flatten();
            let fitting = holders.filter_map(|id| self.entries.get(id)).filter(|other| {
                // What was merged covers all times of what it was merged from; if not, its sources are not to be trusted.
                let sound = match other.has_all_of(block) {
                    true => other.spans(block),
                    false => other.meets(block),
                };
                other.id != block.id && other.resolution == block.resolution && sound && fits(other)
            });
            let mut fitting = fitting.peekable();
            if fitting.peek().is_none() {
                return Vec::new();
            }
            found.extend(fitting.map(|other| other.id));
        }
        let mut found: Vec<&Entry> = found.iter().filter_map(|id| self.entries.get(id)).collect();
        found.sort_by_key(|other| {
            (
                !other.has_all_of(block),
                std::cmp::Reverse(other.sources.len()),
                other.id,
            )
        });
        found.into_iter().map(|other| other.id).collect()
    }

    /// Those of `candidates` that together hold all of `block`, proven; `None` if they do not.
    async fn proven(
        &mut self,
        bucket: &dyn Bucket,
        block: &Entry,
        candidates: &[BlockId],
    ) -> Result<Option<Vec<BlockId>>, objstore::Error> {
        let mut whole = Vec::new();
        for id in candidates {
            if self.prove(bucket, *id).await? == Proof::Whole {
                if self.entries.get(id).is_some_and(|other| other.has_all_of(block)) {
                    return Ok(Some(vec![*id]));
                }
                whole.push(*id);
            }
        }
        let others: Vec<&Entry> = whole.iter().filter_map(|id| self.entries.get(id)).collect();
        let has = |source: &BlockId| others.iter().any(|other| other.sources.binary_search(source).is_ok());
        let from = others.iter().map(|other| other.range.0).min();
        let until = others.iter().map(|other| other.range.1).max();
        // There may be times between two sources that no sample has.
        let covered =
            from.is_some_and(|from| from <= block.range.0) && until.is_some_and(|until| block.range.1 <= until);
        whole.sort_unstable();
        Ok((covered && block.sources.iter().all(has)).then_some(whole))
    }

    /// Finds out whether a block that was read can be relied on; once between two refreshes.
    async fn prove(&mut self, bucket: &dyn Bucket, id: BlockId) -> Result<Proof, objstore::Error> {
        if let Some(proof) = self.proofs.get(&id) {
            return Ok(proof.clone());
        }
        let proof = match read_stored(bucket, id).await? {
            Stored::Nothing { .. } | Stored::Unusable { marked: true, .. } | Stored::Refused { marked: true, .. } => {
                Proof::Void
            }
            Stored::Unusable { why, torn: true, .. } => Proof::Damaged(cannot_be_used(&why)),
            Stored::Unusable { why, .. } | Stored::Refused { why, .. } => Proof::Damaged(why),
            Stored::Block(_, listed) if listed.marked => Proof::Void,
            Stored::Block(meta, _) if self.entries.get(&id) != Some(&Entry::from(&*meta)) => {
                Proof::Damaged("its meta.json is another one than before".to_owned())
            }
            Stored::Block(_, listed) => listed.missing_data().map_or(Proof::Whole, Proof::Damaged),
        };
        self.proofs.insert(id, proof.clone());
        Ok(proof)
    }
}

/// Whether `some` are labels, and all of them among `all`.
fn is_part(some: &Labels, all: &Labels) -> bool {
    !some.is_empty() && some.iter().all(|label| all.get(&label.name) == Some(&*label.value))
}

#[cfg(test)]
mod tests;
