//! What must be known of a block to judge others by it.

use crate::{
    catalog,
    model::Labels,
    tsdb::{BlockId, BlockMeta, Meta, Summary},
};

/// A block, as its `meta.json` has it, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: BlockId,
    /// Its time range (ms since 1970), half-open.
    pub range: (i64, i64),
    /// How far apart its samples are (ms); 0 unless it was downsampled.
    pub resolution: i64,
    /// How often its samples were compacted.
    pub level: u64,
    /// The blocks of level 1 that are in it, sorted, each once; itself if it does not say.
    pub sources: Box<[BlockId]>,
    /// Its external labels.
    pub labels: Labels,
}

impl Entry {
    /// The same with the blocks of level 1 that are said to be in it, in whatever order.
    #[must_use]
    pub fn made_of(mut self, said: Vec<BlockId>) -> Self {
        self.sources = sources(self.id, said);
        self
    }

    /// The entry of the block `id` by the text of its `meta.json`.
    ///
    /// # Errors
    /// Why the text cannot be used, in words.
    pub fn parse(id: BlockId, text: &[u8]) -> Result<Self, String> {
        match Summary::parse(text) {
            Ok(summary) if summary.ulid == id => Ok(Self::from(summary)),
            Ok(summary) => Err(catalog::wrong_name(summary.ulid)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A block of this disk, as it is or would be in the bucket: `labels` are laid over those that it carries.
    pub fn local(meta: &BlockMeta, labels: &Labels) -> Self {
        let entry = Self::from(meta);
        Self {
            labels: entry.labels.overlaid_with(labels),
            ..entry
        }
    }

    /// Whether it is as a Prometheus seals its blocks: nothing was merged into it.
    pub fn is_as_sealed(&self) -> bool {
        self.level <= 1 && *self.sources == [self.id]
    }

    /// Whether all of this block is in `other`, by what both say of themselves: the same labels and resolution, its times
    /// within those of the other, and all that it was made of among what the other was made of. A compactor has merged
    /// it into that one, or drops it for that one. A block is within itself, and two of one content within each other.
    pub fn is_within(&self, other: &Entry) -> bool {
        self.labels == other.labels
            && self.resolution == other.resolution
            && other.spans(self)
            && other.has_all_of(self)
    }

    /// Whether the times of `other` are within those of this block.
    pub(super) fn spans(&self, other: &Entry) -> bool {
        self.range.0 <= other.range.0 && other.range.1 <= self.range.1
    }

    /// Whether the times of `other` and of this block have a moment in common, or follow upon each other.
    pub(super) fn meets(&self, other: &Entry) -> bool {
        self.range.0 <= other.range.1 && other.range.0 <= self.range.1
    }

    /// Whether all that `other` was made of is in this block.
    pub(super) fn has_all_of(&self, other: &Entry) -> bool {
        other
            .sources
            .iter()
            .all(|source| self.sources.binary_search(source).is_ok())
    }

    /// Whether the block holds times that `other` holds, too, and a compactor would not see that it is the same data:
    /// the same labels and resolution, and neither within the other.
    pub fn overlaps(&self, other: &Entry) -> bool {
        let (a, b) = (self.range, other.range);
        let shared = a.0.max(b.0) < a.1.min(b.1);
        shared
            && (&self.labels, self.resolution) == (&other.labels, other.resolution)
            && !self.is_within(other)
            && !other.is_within(self)
    }
}

impl From<Summary> for Entry {
    fn from(summary: Summary) -> Self {
        Self {
            id: summary.ulid,
            range: (summary.min_time, summary.max_time),
            resolution: summary.resolution,
            level: summary.level,
            sources: sources(summary.ulid, summary.sources),
            labels: summary.thanos_labels.unwrap_or_default(),
        }
    }
}

impl From<&BlockMeta> for Entry {
    fn from(meta: &BlockMeta) -> Self {
        Self {
            id: meta.ulid,
            range: (meta.min_time, meta.max_time),
            resolution: meta.resolution(),
            level: meta.level,
            sources: sources(meta.ulid, meta.sources.clone()),
            labels: meta.thanos_labels.clone().unwrap_or_default(),
        }
    }
}

impl From<&Meta> for Entry {
    fn from(meta: &Meta) -> Self {
        let meta: &BlockMeta = meta;
        Self::from(meta)
    }
}

fn sources(id: BlockId, mut said: Vec<BlockId>) -> Box<[BlockId]> {
    if said.is_empty() {
        said.push(id);
    }
    said.sort_unstable();
    said.dedup();
    said.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::index::testing::{block, id};

    #[test]
    fn a_block_is_within_another_by_labels_resolution_times_and_sources() {
        let part = block(1, (0, 10), &[1], "eu");
        let whole = block(9, (0, 20), &[2, 1], "eu");
        assert!(part.is_within(&whole) && !whole.is_within(&part) && part.is_within(&part));
        for other in [
            block(9, (0, 20), &[1, 2], "us"),
            block(9, (0, 9), &[1, 2], "eu"),
            block(9, (1, 20), &[1, 2], "eu"),
            block(9, (0, 20), &[2, 3], "eu"),
            Entry {
                resolution: 300_000,
                ..whole.clone()
            },
        ] {
            assert!(!part.is_within(&other), "{other:?}");
        }
    }

    #[test]
    fn a_block_that_names_no_source_is_made_of_itself() {
        let text = format!(r#"{{"ulid":"{}","version":1}}"#, id(3));
        let entry = Entry::parse(id(3), text.as_bytes()).unwrap();
        assert_eq!(*entry.sources, [id(3)]);
        assert_eq!(entry, Entry::from(&Meta::parse(text.as_bytes()).unwrap()));
        let told = Entry::parse(id(4), text.as_bytes()).unwrap_err();
        assert_eq!(told, format!("meta.json is that of the block {}", id(3)));
    }

    #[test]
    fn what_a_compactor_folds_does_not_overlap() {
        let part = block(1, (0, 10), &[1], "eu");
        let whole = block(9, (0, 20), &[1, 2], "eu");
        let other = block(3, (5, 15), &[3], "eu");
        assert!(!part.overlaps(&whole) && !whole.overlaps(&part));
        assert!(other.overlaps(&whole) && whole.overlaps(&other) && part.overlaps(&other));
        assert!(!block(4, (20, 30), &[4], "eu").overlaps(&whole), "touching is none");
        assert!(
            !block(4, (5, 5), &[4], "eu").overlaps(&whole),
            "an empty range holds no times"
        );
        assert!(!block(3, (5, 15), &[3], "us").overlaps(&whole));
    }
}
