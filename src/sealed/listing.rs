//! What lies in the data directory, and which of its blocks count: those that Prometheus serves once it has reloaded.
//!
//! A block that another one names as one that it was made of does not count, whatever became of that other one since, and
//! neither does one that is marked to be deleted. A directory whose `meta.json` cannot be read is passed over by Prometheus.
//! Blocks beyond its retention are deleted by the reload that no longer counts them.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use crate::tsdb::{Block, BlockId, Corrupt, FileVersion, Parents};

/// What lies in the data directory.
#[derive(Clone, Debug)]
pub struct Listing {
    /// When all of it had been looked at.
    pub made_at: Instant,
    /// The blocks whose `meta.json` can be read, each once.
    pub blocks: Vec<Listed>,
    /// What looks like a block and cannot be read.
    pub corrupt: Vec<Corrupt>,
}

/// A block and its files.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The block.
    pub block: Block,
    /// What is known of its files.
    pub facts: BlockFacts,
}

/// What is known of a block's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// What they take (bytes): all segments, the index, the tombstones if there are any, and `meta.json`.
    pub bytes_total: u64,
    /// The file of tombstones is longer than that of none.
    pub has_tombstones: bool,
    /// The version of the index' format; `None` if a file of the block is missing or cannot be used.
    pub index_version: Option<u8>,
    /// Something was found to be wrong with the block.
    pub quarantined: bool,
    /// The versions of the same files, always in the same order.
    pub files: Arc<[FileVersion]>,
}

impl Listing {
    /// The blocks that count, ordered by the start of their ranges, then by name.
    pub(super) fn counted(&self) -> Vec<&Listed> {
        let mut replaced = HashSet::new();
        for listed in &self.blocks {
            if let Parents::Blocks(parents) = &listed.block.meta.parents {
                replaced.extend(parents.iter().copied());
            }
        }
        let counts = |listed: &&Listed| !listed.block.meta.deletable && !replaced.contains(&listed.block.id);
        let mut counted: Vec<&Listed> = self.blocks.iter().filter(counts).collect();
        counted.sort_by_key(|listed| (listed.block.meta.min_time, listed.block.id));
        counted
    }

    /// The blocks that cannot be read.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = BlockId> {
        let blocks = self.corrupt.iter().filter(|corrupt| corrupt.is_block());
        blocks.map(|corrupt| corrupt.id)
    }
}
