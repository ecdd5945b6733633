//! Blocks that are open for one call.

use tokio::sync::OwnedSemaphorePermit;

use crate::tsdb::read::{ReadError, Wanted};

/// What reading takes beside its blocks, at most (bytes): frames that wait for the client, most of it.
const READER: usize = 2 << 20;
/// What each block takes: windows, a part of a series, labels (bytes). Parts and labels are fewer where blocks are more.
const BLOCK: usize = 192 << 10;

/// Open blocks with their ranges, in the order of time. Closing a file that has no name any more frees its space, which may take
/// long: it is done on a thread that may block.
#[derive(Debug, Default)]
pub struct OpenBlocks {
    wanted: Vec<Wanted>,
    /// How many descriptors they take.
    _files: Option<OwnedSemaphorePermit>,
}

impl OpenBlocks {
    pub(super) fn new(wanted: Vec<Wanted>, files: Option<OwnedSemaphorePermit>) -> Self {
        Self { wanted, _files: files }
    }

    /// For tests, which hold no more descriptors than there are.
    #[cfg(test)]
    pub(crate) fn of(wanted: Vec<Wanted>) -> Self {
        Self::new(wanted, None)
    }

    /// The blocks.
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What reading them takes, at most (bytes); 0 if there is none.
    pub fn memory(&self) -> usize {
        match self.wanted.len() {
            0 => 0,
            blocks => READER + blocks * BLOCK,
        }
    }

    /// Looks whether somebody has written into one of them since it was opened.
    ///
    /// # Errors
    /// What was read of it may be wrong.
    pub fn check_unwritten(&self) -> Result<(), ReadError> {
        self.wanted.iter().try_for_each(|wanted| wanted.block.check_unwritten())
    }

    /// Whether one of them has no name any more.
    pub fn has_deleted(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.block.is_deleted())
    }
}

impl Drop for OpenBlocks {
    fn drop(&mut self) {
        if !self.has_deleted() {
            return;
        }
        let left = (std::mem::take(&mut self.wanted), self._files.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(left));
        }
    }
}
