//! The tables of indices that were read last, for all calls together.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::tsdb::{BlockId, FileVersion, read::Tables};

/// What they may take in all (bytes).
const BUDGET: usize = 12 << 20;

/// Tables by blocks and the versions of their files.
#[derive(Debug, Default)]
pub(super) struct TablesCache(Mutex<VecDeque<Cached>>);

#[derive(Debug)]
struct Cached {
    block: BlockId,
    files: Arc<[FileVersion]>,
    tables: Arc<Tables>,
}

impl TablesCache {
    /// The tables of a block with these files, if they are there; they are the last to be dropped then.
    pub(super) fn get(&self, block: BlockId, files: &[FileVersion]) -> Option<Arc<Tables>> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cached
            .iter()
            .position(|one| one.block == block && *one.files == *files)?;
        let found = cached.remove(at)?;
        let tables = Arc::clone(&found.tables);
        cached.push_back(found);
        Some(tables)
    }

    /// Keeps tables, and drops those that were not used for the longest time where there is no room for all.
    pub(super) fn insert(&self, block: BlockId, files: Arc<[FileVersion]>, tables: Arc<Tables>) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|one| one.block != block);
        cached.push_back(Cached { block, files, tables });
        let mut bytes: usize = cached.iter().map(|one| one.tables.bytes()).sum();
        while bytes > BUDGET
            && let Some(oldest) = cached.pop_front()
        {
            bytes -= oldest.tables.bytes();
        }
    }

    /// What all take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.iter().map(|one| one.tables.bytes()).sum()
    }
}
