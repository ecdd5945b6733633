//! Opening a block, and checking it unless that was done.
//!
//! Blocks on the disk; nothing is kept but what is returned. A block that Prometheus deletes meanwhile shows as vanished until
//! all of its files are open, and is whole from then on.

#[cfg(test)]
use std::sync::{Mutex, PoisonError};
use std::{io, os::unix::fs::MetadataExt, sync::Arc, time::SystemTime};

use crate::{
    objstore::Source,
    tsdb::{Block, Depth, Encodings, Meta, PinError, Pinned, PinnedFile, check, read_meta},
};

/// Tells a file from one that took its place, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    inode: u64,
    pub(crate) len: u64,
    modified: SystemTime,
}

/// Blocks whose check panics: no block that can be made does.
#[cfg(test)]
pub(in crate::shipper) static PANICS: Mutex<Vec<crate::tsdb::BlockId>> = Mutex::new(Vec::new());

/// A block that is open and was checked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) meta: Box<Meta>,
    pub(super) pinned: Pinned,
    pub(super) stamps: Vec<FileStamp>,
    pub(super) encodings: Encodings,
}

/// The open files of a block, and its whole `meta.json`.
#[derive(Debug)]
pub(crate) struct HeldFiles {
    meta: Meta,
    pub(crate) pinned: Pinned,
}

impl HeldFiles {
    /// Opens a block.
    ///
    /// # Errors
    /// As for [`Pinned::open`].
    pub(crate) fn open(block: &Block) -> Result<Self, PinError> {
        let meta = read_meta(block)?;
        let pinned = Pinned::open(block)?;
        Ok(Self { meta, pinned })
    }

    /// What the files take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.pinned.bytes()
    }
}

/// Opens the block and checks it, unless exactly these files were checked before, as closely. One that is gone is taken from
/// the files that are `held`.
pub(super) fn open(
    block: &Block,
    held: Option<&HeldFiles>,
    checked: Option<(Vec<FileStamp>, Encodings)>,
    depth: Depth,
) -> Result<Opened, PinError> {
    #[cfg(test)]
    if PANICS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .contains(&block.id)
    {
        panic!("a panic that a test asked for");
    }
    // The meta.json before the others: once these are open, the block may be deleted.
    let opened = read_meta(block).and_then(|meta| Ok((meta, Pinned::open(block)?)));
    let (meta, pinned) = match (opened, held) {
        (Err(PinError::Vanished), Some(held)) => (held.meta.clone(), held.pinned.clone()),
        (opened, _) => opened?,
    };
    let meta = Box::new(meta);
    let stamps = stamps(&pinned)?;
    let known = checked.filter(|(before, found)| *before == stamps && (found.complete || depth == Depth::Sample));
    let encodings = match known {
        Some((_, encodings)) => encodings,
        None => check::quick(&pinned, depth)?,
    };
    Ok(Opened {
        meta,
        pinned,
        stamps,
        encodings,
    })
}

/// What each file is now. The time of change of the inode is left out: a link or a deletion moves it.
pub(crate) fn stamps(pinned: &Pinned) -> io::Result<Vec<FileStamp>> {
    let stamp = |now: std::fs::Metadata| {
        Ok(FileStamp {
            inode: now.ino(),
            len: now.len(),
            modified: now.modified()?,
        })
    };
    pinned
        .files
        .iter()
        .map(|file| file.file.metadata().and_then(stamp))
        .collect()
}

impl PinnedFile {
    /// The file as a bucket takes it.
    pub(crate) fn source(&self) -> Source {
        Source::new(Arc::clone(&self.file), self.path.clone(), self.len)
    }
}

/// Whether this host has run out of something that comes back by itself: no fault of the block.
pub(super) fn exhausted(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) || error.kind() == io::ErrorKind::OutOfMemory
}
