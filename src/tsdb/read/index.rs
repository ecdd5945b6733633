//! What an index is read with.

use std::sync::Arc;

use super::{
    super::{PinnedFile, window::Window},
    Progress,
    postings_table::PostingsTable,
    symbols::Symbols,
    tables::Tables,
};

/// Reads the parts of an index that lead to its series.
#[derive(Debug)]
pub(super) struct IndexReader {
    pub(super) tables: Arc<Tables>,
    pub(super) symbols: Symbols,
    pub(super) postings_table: PostingsTable,
    /// For the beginnings and the checksums of lists.
    pub(super) lists: Window,
    pub(super) progress: Progress,
}

impl IndexReader {
    /// With windows of `width` bytes.
    pub(super) fn new(index: &Arc<PinnedFile>, tables: &Arc<Tables>, width: usize, progress: &Progress) -> Self {
        Self {
            tables: Arc::clone(tables),
            symbols: Symbols::new(index, tables, width),
            postings_table: PostingsTable::new(index, tables, width),
            lists: Window::of_width(index, width),
            progress: progress.clone(),
        }
    }
}
