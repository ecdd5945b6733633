//! What the bucket's own blocks say of themselves: read only when a block's history is in doubt.
//!
//! Two questions need it. Was a local block, which is neither in the ledger nor in the bucket, merged there by the
//! compactor already? (Sending it again would overlap the merged block and halt the compactor.) And does a block that
//! Prometheus compacted overlap what is there? Metas never change once written, so each is read once in a process'
//! life; only blocks made after the oldest one in doubt are read, side by side. A block without `meta.json` is half
//! uploaded, and no answer.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    model::Labels,
    objstore::{self, Bucket, ErrorKind},
    tsdb::{BlockId, Meta},
};

/// Metas read at once.
const AT_ONCE: usize = 16;
/// No `meta.json` is larger than this (bytes).
pub(crate) const LARGEST_META: u64 = 16 << 20;

/// What matters of one block of the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) resolution: i64,
    pub(crate) sources: BTreeSet<BlockId>,
    pub(crate) labels: Labels,
}

/// The blocks of the bucket that were read so far.
#[derive(Debug, Default)]
pub(crate) struct BucketIndex {
    entries: BTreeMap<BlockId, Entry>,
    /// Unreadable ones; they are read again the next time.
    pub(crate) unreadable: Vec<(BlockId, String)>,
}

impl BucketIndex {
    /// Reads the metas of the blocks made after `oldest` that are not yet known; forgets those that are gone.
    pub(crate) async fn refresh(&mut self, bucket: &dyn Bucket, oldest: &str) -> Result<(), objstore::Error> {
        let names = bucket.list_top(oldest).await?;
        let present: BTreeSet<BlockId> = names.iter().filter_map(|name| BlockId::parse(name)).collect();
        self.entries
            .retain(|id, _| id.to_string().as_str() <= oldest || present.contains(id));
        self.unreadable.clear();
        let missing: Vec<BlockId> = present
            .into_iter()
            .filter(|id| !self.entries.contains_key(id))
            .collect();
        let mut read = stream::iter(missing)
            .map(|id| read(bucket, id))
            .buffer_unordered(AT_ONCE);
        while let Some((id, found)) = read.try_next().await? {
            match found {
                Found::Entry(entry) => {
                    self.entries.insert(id, entry);
                }
                Found::Partial => {}
                Found::Unreadable(why) => self.unreadable.push((id, why)),
            }
        }
        Ok(())
    }

    /// Whether `id` itself is there, with a readable `meta.json`.
    pub(crate) fn contains(&self, id: BlockId) -> bool {
        self.entries.contains_key(&id)
    }

    /// The block of the bucket into which `id` was merged.
    pub(crate) fn merged_into(&self, id: BlockId) -> Option<BlockId> {
        self.entries
            .iter()
            .find(|(other, entry)| **other != id && entry.sources.contains(&id))
            .map(|(other, _)| *other)
    }

    /// Blocks of `labels` that overlap `[min_time, max_time)` with the resolution of a fresh block.
    pub(crate) fn overlapping(&self, id: BlockId, labels: &Labels, min_time: i64, max_time: i64) -> Vec<BlockId> {
        let overlaps = |entry: &Entry| {
            entry.resolution == 0 && entry.labels == *labels && entry.min_time < max_time && min_time < entry.max_time
        };
        self.entries
            .iter()
            .filter(|(other, entry)| **other != id && overlaps(entry))
            .map(|(other, _)| *other)
            .collect()
    }
}

enum Found {
    Entry(Entry),
    Partial,
    Unreadable(String),
}

async fn read(bucket: &dyn Bucket, id: BlockId) -> Result<(BlockId, Found), objstore::Error> {
    let bytes = match bucket.get(&format!("{id}/meta.json"), LARGEST_META).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok((id, Found::Partial)),
        Err(error) if error.kind == ErrorKind::TooLarge => return Ok((id, Found::Unreadable(error.to_string()))),
        Err(error) => return Err(error),
    };
    let found = match Meta::parse(&bytes) {
        Ok(meta) => Found::Entry(Entry {
            min_time: meta.min_time,
            max_time: meta.max_time,
            resolution: meta.resolution(),
            sources: meta.sources.iter().copied().collect(),
            labels: meta.thanos_labels.clone().unwrap_or_default(),
        }),
        Err(error) => Found::Unreadable(error.to_string()),
    };
    Ok((id, found))
}
