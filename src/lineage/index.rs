//! The blocks of the bucket, each read once.
//!
//! Metas never change once written, so each is read once in a process' life; only blocks made after a given name are read,
//! side by side. A block without `meta.json` is half uploaded, and no answer. A `meta.json` that cannot be used is read
//! again with each refresh, and logged once, and again when the reason changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Entry, cover::Proof};
use crate::{
    catalog::{self, Text},
    model::Labels,
    objstore::{self, Bucket},
    tsdb::BlockId,
};

/// What the bucket says of its blocks, as far as it was read.
#[derive(Debug, Default)]
pub struct Lineage {
    pub(super) entries: BTreeMap<BlockId, Entry>,
    /// Which of them were made of what.
    pub(super) by_source: HashMap<BlockId, Vec<BlockId>>,
    /// Each label set once: most blocks share theirs with others.
    labels: HashSet<Labels>,
    /// What was found of blocks that others could rely on, since the last refresh.
    pub(super) proofs: HashMap<BlockId, Proof>,
    unreadable: BTreeMap<BlockId, String>,
    /// Which unreadable ones the log has, and by what reason.
    logged: BTreeMap<BlockId, String>,
}

/// What was read of one block.
enum Read {
    Block(Entry),
    Partial,
    Unreadable {
        why: String,
        /// The reason without what the store numbers.
        same: String,
    },
}

impl Lineage {
    /// Reads the metas of the blocks made after `after` (a name; all sort after the empty one) that are not yet known;
    /// forgets those that are gone, and what was proven of others. Whoever asks where the data of a block is must have
    /// refreshed from before its sources on: what has them is never older than they are.
    ///
    /// # Errors
    /// Those that concern the whole bucket; what was read until then is kept.
    pub async fn refresh(&mut self, bucket: &dyn Bucket, after: &str) -> Result<(), objstore::Error> {
        let present: BTreeSet<BlockId> = catalog::ids(bucket, after).await?.into_iter().collect();
        let gone: Vec<BlockId> = self
            .entries
            .keys()
            .filter(|id| id.to_string().as_str() > after && !present.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.remove(id);
        }
        self.proofs.clear();
        self.unreadable.clear();
        self.logged
            .retain(|id, _| id.to_string().as_str() <= after || present.contains(id));
        let missing: Vec<BlockId> = present
            .into_iter()
            .filter(|id| !self.entries.contains_key(id))
            .collect();
        let mut reads = stream::iter(missing)
            .map(|id| async move { Ok::<_, objstore::Error>((id, read(bucket, id).await?)) })
            .buffer_unordered(catalog::AT_ONCE);
        while let Some((id, found)) = reads.try_next().await? {
            match found {
                Read::Block(entry) => self.insert(entry),
                Read::Partial => {}
                Read::Unreadable { why, same } => self.record_unreadable(id, why, same),
            }
        }
        Ok(())
    }

    /// Whether `id` itself was read, with a `meta.json` that can be used; whether it is whole or marked was not asked.
    pub fn contains(&self, id: BlockId) -> bool {
        self.entries.contains_key(&id)
    }

    /// The blocks that were read, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The blocks whose `meta.json` could not be used at the last refresh, and why.
    pub fn unreadable(&self) -> &BTreeMap<BlockId, String> {
        &self.unreadable
    }

    /// Gives back the memory of what was read. What the log has already is not logged again.
    pub fn forget(&mut self) {
        *self = Self {
            logged: std::mem::take(&mut self.logged),
            ..Self::default()
        };
    }

    /// Adds a block that was read.
    fn insert(&mut self, mut entry: Entry) {
        self.logged.remove(&entry.id);
        match self.labels.get(&entry.labels) {
            Some(labels) => entry.labels = labels.clone(),
            None => {
                self.labels.insert(entry.labels.clone());
            }
        }
        for source in &entry.sources {
            self.by_source.entry(*source).or_default().push(entry.id);
        }
        self.entries.insert(entry.id, entry);
    }

    fn remove(&mut self, id: BlockId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        for source in &entry.sources {
            if let Some(holders) = self.by_source.get_mut(source) {
                holders.retain(|holder| *holder != id);
                if holders.is_empty() {
                    self.by_source.remove(source);
                }
            }
        }
    }

    /// Whether the log does not yet have that a block is unreadable for this reason.
    fn is_new_reason(&self, id: BlockId, same: &str) -> bool {
        self.logged.get(&id).is_none_or(|logged| logged != same)
    }

    fn record_unreadable(&mut self, id: BlockId, why: String, same: String) {
        if self.is_new_reason(id, &same) {
            tracing::warn!(
                block = %id, why,
                "cannot use the meta.json of a block in the bucket; what it holds is not known, so blocks that it may contain are uploaded"
            );
            self.logged.insert(id, same);
        }
        self.unreadable.insert(id, why);
    }
}

async fn read(bucket: &dyn Bucket, id: BlockId) -> Result<Read, objstore::Error> {
    Ok(match catalog::read_text(bucket, id).await? {
        Text::Read(text) => match Entry::parse(id, &text) {
            Ok(entry) => Read::Block(entry),
            Err(why) => Read::Unreadable { same: why.clone(), why },
        },
        Text::Absent => Read::Partial,
        Text::Refused(error) => Read::Unreadable {
            same: format!("{:?}", error.kind),
            why: error.to_string(),
        },
    })
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
