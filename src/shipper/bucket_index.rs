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
    catalog::{self, Found},
    model::Labels,
    objstore::{self, Bucket},
    tsdb::{BlockId, Meta},
};

/// Metas read at once.
const AT_ONCE: usize = 16;

/// What matters of one block of the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) resolution: i64,
    pub(crate) sources: BTreeSet<BlockId>,
    pub(crate) labels: Labels,
}

impl Entry {
    fn of(meta: &Meta) -> Self {
        Self {
            min_time: meta.min_time,
            max_time: meta.max_time,
            resolution: meta.resolution(),
            sources: meta.sources.iter().copied().collect(),
            labels: meta.thanos_labels.clone().unwrap_or_default(),
        }
    }
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
            .map(|id| async move { Ok::<_, objstore::Error>((id, catalog::look(bucket, id).await?)) })
            .buffer_unordered(AT_ONCE);
        while let Some((id, found)) = read.try_next().await? {
            match found {
                Found::Block(meta) => {
                    self.entries.insert(id, Entry::of(&meta));
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

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::shipper::testing::{Made, World, id, name};

    fn put(world: &World, block: &str, bytes: &[u8]) {
        let dir = world.store.path().join(block);
        fs_err::create_dir_all(&dir).unwrap();
        fs_err::write(dir.join("meta.json"), bytes).unwrap();
    }

    fn merged(of: &[&str], into: &str) -> Made {
        let mut made = Made::new(into, 0);
        made.sources = of.iter().map(ToString::to_string).collect();
        made
    }

    #[tokio::test]
    async fn reads_each_meta_once_and_forgets_what_is_gone() {
        let world = World::new().await;
        let (a, b, c) = (name(1), name(2), name(3));
        put(&world, &c, merged(&[&a, &b], &c).meta().as_bytes());
        put(&world, &a, b"{");
        let half = world.store.path().join(&b);
        fs_err::create_dir(&half).unwrap();
        fs_err::write(half.join("index"), "x").unwrap();
        let mut index = BucketIndex::default();
        index.refresh(world.bucket.as_ref(), "").await.unwrap();
        assert!(index.contains(id(&c)) && !index.contains(id(&a)) && !index.contains(id(&b)));
        assert_eq!(index.merged_into(id(&a)), Some(id(&c)));
        assert_eq!(index.merged_into(id(&c)), None, "its own name is no merge");
        assert_eq!(index.unreadable.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(&a)]);
        let before = world.bucket.calls().len();
        index.refresh(world.bucket.as_ref(), &a).await.unwrap();
        let calls: Vec<String> = world
            .bucket
            .calls()
            .split_off(before)
            .into_iter()
            .map(|call| call.1)
            .collect();
        assert_eq!(
            calls,
            [String::new(), format!("{b}/meta.json")],
            "only what is not known"
        );
        fs_err::remove_dir_all(world.store.path().join(&c)).unwrap();
        index.refresh(world.bucket.as_ref(), &a).await.unwrap();
        assert_eq!(index.merged_into(id(&a)), None);
    }

    proptest! {
        /// The metas of others are not ours to trust.
        #[test]
        fn no_meta_in_the_bucket_is_too_strange(
            bytes in any::<Vec<u8>>(), from in any::<Index>(), to in any::<Index>(), whole in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (a, b, c) = (name(1), name(2), name(3));
            let good = merged(&[&a], &b).meta().into_bytes();
            let (from, to) = (from.index(good.len() + 1), to.index(good.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            let strange = if whole { bytes } else { [&good[..from], &bytes, &good[to..]].concat() };
            let found = runtime.block_on(async {
                let world = World::new().await;
                put(&world, &b, &strange);
                put(&world, &c, merged(&[&a], &c).meta().as_bytes());
                let mut index = BucketIndex::default();
                index.refresh(world.bucket.as_ref(), "").await.unwrap();
                (index.contains(id(&b)), index.unreadable.len(), index.contains(id(&c)))
            });
            prop_assert_eq!(usize::from(found.0) + found.1, 1);
            prop_assert!(found.2, "one bad meta hides no other");
        }
    }
}
