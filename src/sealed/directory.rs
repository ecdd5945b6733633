//! The data directory as it lies on the disk: what is listed of it, and whether that still holds. All calls block on the disk.

use std::{
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    listing::{BlockFacts, Listed, Listing},
    out_of_order::Wbl,
};
use crate::tsdb::{Block, FileVersion, PinError, Pinned, Scanner};

/// The length of a file of tombstones that holds none (bytes): magic number, format, checksum.
const NO_TOMBSTONES: u64 = 9;
/// The log of samples that came out of order.
const WBL: &str = "wbl";
/// A directory that was changed less than so long ago may change again within the same tick of its file system's clock, and look
/// the same.
const SETTLED: Duration = Duration::from_millis(100);
/// As long on a file system that knows seconds only.
const SETTLED_COARSE: Duration = Duration::from_secs(2);

/// Looks at the data directory again and again.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    scanner: Scanner,
}

/// A listing, and the version of the directory that it is of.
#[derive(Clone, Debug)]
pub(super) struct DirectoryListing {
    pub(super) listing: Listing,
    pub(super) version: FileVersion,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            scanner: Scanner::default(),
        }
    }

    /// Lists the directory; `None` if it changed meanwhile or just before, so that it must be done again.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn list(&mut self) -> io::Result<Option<DirectoryListing>> {
        let before = fs_err::metadata(&self.path)?;
        let is_settled = before.modified().is_ok_and(|at| {
            let settled = if before.mtime_nsec() == 0 {
                SETTLED_COARSE
            } else {
                SETTLED
            };
            // With a time ahead of the clock another change gives another time.
            SystemTime::now().duration_since(at).map_or(true, |age| age >= settled)
        });
        let version = FileVersion::of(&before);
        let scan = self.scanner.scan(&self.path)?;
        let mut blocks = Vec::with_capacity(scan.blocks.len());
        for block in scan.blocks {
            let Some(facts) = facts(&block)? else {
                return Ok(None);
            };
            blocks.push(Listed { block, facts });
        }
        if !is_settled || self.version()? != version {
            return Ok(None);
        }
        let listing = Listing {
            made_at: Instant::now(),
            blocks,
            corrupt: scan.corrupt,
        };
        Ok(Some(DirectoryListing { listing, version }))
    }

    /// The version of the directory now.
    pub(super) fn version(&self) -> io::Result<FileVersion> {
        version(&self.path)
    }

    /// What the log holds of samples that came out of order; `None` if it cannot be looked at.
    pub(super) fn wbl(&self) -> Option<Wbl> {
        wbl(&self.path)
    }
}

/// What is known of a block's files; `None` if the block is gone.
fn facts(block: &Block) -> io::Result<Option<BlockFacts>> {
    let (pinned, files) = match open(block) {
        Ok(found) => found,
        Err(PinError::Vanished) => return Ok(None),
        Err(PinError::Broken { .. }) => {
            return Ok(Some(BlockFacts {
                bytes_total: 0,
                has_tombstones: false,
                index_version: None,
                quarantined: false,
                files: Arc::default(),
            }));
        }
        Err(PinError::Io(error)) => return Err(error),
    };
    Ok(Some(BlockFacts {
        bytes_total: pinned.bytes() + files.other_bytes,
        has_tombstones: files.has_tombstones,
        index_version: format(&pinned),
        quarantined: false,
        files: files.versions,
    }))
}

/// The version of a data directory.
pub(super) fn version(path: &Path) -> io::Result<FileVersion> {
    Ok(FileVersion::of(&fs_err::metadata(path)?))
}

/// What is known of the files of an open block.
#[derive(Debug)]
pub(super) struct Files {
    /// Segments, index, tombstones if there are any, `meta.json`.
    pub(super) versions: Arc<[FileVersion]>,
    has_tombstones: bool,
    /// What those take that are not open (bytes).
    other_bytes: u64,
}

/// Opens segments and index of a block, and looks at its other files.
///
/// # Errors
/// As for [`Pinned::open`].
pub(super) fn open(block: &Block) -> Result<(Pinned, Files), PinError> {
    let pinned = Pinned::open(block)?;
    let mut versions = Vec::with_capacity(pinned.files.len() + 2);
    for file in &pinned.files {
        versions.push(FileVersion::of(&file.file.metadata()?));
    }
    let (mut other_bytes, mut has_tombstones) = (0, false);
    if let Some(status) = present(fs_err::metadata(block.dir.join("tombstones")))? {
        has_tombstones = status.len() > NO_TOMBSTONES;
        other_bytes += status.len();
        versions.push(FileVersion::of(&status));
    }
    let meta = present(fs_err::metadata(block.dir.join("meta.json")))?.ok_or(PinError::Vanished)?;
    other_bytes += meta.len();
    versions.push(FileVersion::of(&meta));
    Ok((
        pinned,
        Files {
            versions: versions.into(),
            has_tombstones,
            other_bytes,
        },
    ))
}

/// What the log in the data directory `path` holds; `None` if it cannot be looked at.
pub(super) fn wbl(path: &Path) -> Option<Wbl> {
    let Some(entries) = present(fs_err::read_dir(path.join(WBL))).ok()? else {
        return Some(Wbl::Empty);
    };
    let (mut numbers, mut holds_any) = (Vec::new(), false);
    for entry in entries {
        let entry = entry.ok()?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else {
            continue;
        };
        let Some(status) = present(entry.metadata()).ok()? else {
            continue;
        };
        holds_any |= status.len() > 0;
        numbers.push(number);
    }
    match (numbers.iter().min(), numbers.iter().max()) {
        (Some(&first), Some(&last)) if holds_any => Some(Wbl::Segments { first, last }),
        _ => Some(Wbl::Empty),
    }
}

/// `None` if there is no such file.
fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The format of the index by its fifth byte; `None` if it is too short for one.
fn format(pinned: &Pinned) -> Option<u8> {
    let mut header = [0; 5];
    pinned.index()?.file.read_exact_at(&mut header, 0).ok()?;
    header.last().copied()
}
