//! What kind of content shipped blocks have: counted by kind, and logged once for each block.
//!
//! Kept in memory only, for the blocks that are local; a restart counts anew those that it ships.

use super::{NewerEncodings, Shipper, upload::UploadRequest};
use crate::tsdb::{Block, BlockId, Encodings, content, content::Kind};

/// The local blocks that are older by their names than `block`, overlap its times, and are neither made of what it was made
/// of nor the other way round. An empty or reversed range overlaps nothing.
pub(super) fn overlapped_by(block: &Block, local: &[Block]) -> Vec<BlockId> {
    let (this, empty) = (&block.meta, block.meta.min_time >= block.meta.max_time);
    let related = |other: &Block| {
        let within = |a: &Block, b: &Block| a.meta.sources.iter().all(|source| b.meta.sources.contains(source));
        within(block, other) || within(other, block)
    };
    let overlaps = |other: &&Block| {
        other.id < block.id
            && other.meta.min_time < this.max_time.min(other.meta.max_time)
            && this.min_time < other.meta.max_time
            && !related(other)
    };
    match empty {
        true => Vec::new(),
        false => local.iter().filter(overlaps).map(|other| other.id).collect(),
    }
}

impl Shipper {
    /// Counts of which kinds a block is that was sent, and logs them, the first time.
    pub(super) fn report_content(&mut self, request: &UploadRequest, encodings: &Encodings) {
        let (block, overlapped) = (&request.block, &request.overlapped);
        if self.seen.kinds.contains_key(&block.id) {
            return;
        }
        let kinds = content::kinds(&block.meta, encodings, !overlapped.is_empty());
        self.seen.kinds.insert(block.id, kinds.clone());
        for kind in kinds {
            self.metrics.count_content(kind);
            let id = block.id;
            match kind {
                Kind::Plain => {}
                Kind::NewerEncodings => {
                    let then = match self.settings.content.newer_encodings {
                        // One that is held is set aside, and never comes here.
                        NewerEncodings::Rewrite | NewerEncodings::Hold => {
                            tracing::info!(block = %id, chunks = encodings.newer(), "the block has chunks in encodings that Thanos' Store Gateway and Compactor refuse; they were rewritten on the way to the bucket");
                            continue;
                        }
                        NewerEncodings::Ship => {
                            "the block is sent as it is (--shipper.newer-encodings=ship): queries over it fail, and a compactor stops at it"
                        }
                        NewerEncodings::Mark => {
                            "the block is sent as it is, with marks that keep compactors from it (--shipper.newer-encodings=mark): queries over it fail"
                        }
                    };
                    tracing::warn!(block = %id, chunks = encodings.newer(), "the block has chunks in encodings that Thanos' Store Gateway and Compactor refuse; {then}");
                }
                Kind::UnknownEncodings => {
                    tracing::error!(block = %id, chunks = encodings.unknown(), "the block has chunks in an encoding that is not known to this version of narthex; what reads the bucket may not know it either");
                }
                Kind::OutOfOrder | Kind::StaleSeries | Kind::Rewritten | Kind::Overlapping => {
                    tracing::info!(block = %id, kind = kind.as_str(), overlapped, "the block overlaps others by its nature; a compactor stops at overlapping blocks unless it runs with --compact.enable-vertical-compaction or --deduplication.replica-label");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::testing::block;

    #[test]
    fn a_block_overlaps_an_older_one_that_shares_a_time_and_no_history() {
        let this = block(5, (10, 20), &[5]);
        for (other, expected) in [
            (block(1, (0, 10), &[1]), false),
            (block(1, (0, 11), &[1]), true),
            (block(1, (20, 30), &[1]), false),
            (block(1, (19, 30), &[1]), true),
            (block(1, (12, 13), &[1]), true),
            (block(1, (12, 12), &[1]), false),
            (block(1, (30, 0), &[1]), false),
            // The older one is the one that is overlapped.
            (block(6, (0, 30), &[6]), false),
            // What this one was made of, or what was made of it.
            (block(1, (0, 30), &[1, 5]), false),
        ] {
            let found = overlapped_by(&this, &[other.clone(), this.clone()]);
            assert_eq!(
                !found.is_empty(),
                expected,
                "{:?}",
                (other.meta.min_time, other.meta.max_time)
            );
        }
        let empty = block(5, (15, 15), &[5]);
        assert!(overlapped_by(&empty, &[block(1, (10, 20), &[1])]).is_empty());
    }
}
