//! Which blocks a data directory holds.
//!
//! A scan is cheap, for it runs every half a minute for ever: it lists the directory once and asks for the status of
//! each block's `meta.json`; only files that are new or changed are read. Prometheus replaces that file by a rename and
//! never writes into it, so that inode, size and times tell a change. What is kept of a file is a [`BlockMeta`], whatever
//! else it says; clones of a [`Block`] share it.
//!
//! A link to a directory is not a block, even if its name fits: Prometheus looks at the entry itself and leaves it
//! alone, so its samples are not this Prometheus'.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{BlockId, BlockMeta, Broken, FileVersion, Meta, PinError, Reason, stamp::META};
use crate::model::Labels;

/// No `meta.json` is larger than this (bytes); what is larger is not read.
pub const LARGEST_META: u64 = 16 << 20;
/// No description of what is wrong is longer than this (bytes): it is kept, logged and shown.
const LONGEST_DETAIL: usize = 500;

/// A block whose metadata could be read. Clones share what is known of it.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its name.
    pub id: BlockId,
    /// Its own directory.
    pub dir: Arc<Path>,
    /// What its `meta.json` says.
    pub meta: Arc<BlockMeta>,
}

/// A directory with a block's name that is not a block one can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The name.
    pub id: BlockId,
    /// What is wrong, for a metric.
    pub reason: Reason,
    /// What is wrong, for the operator.
    pub detail: String,
}

impl Corrupt {
    /// Whether it is a block, though one that cannot be read. What has no `meta.json` is none: a crash or an interrupted
    /// deletion left it, and Prometheus does not serve it.
    pub fn is_block(&self) -> bool {
        self.reason != Reason::NoMeta
    }
}

/// What a data directory holds.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The blocks, by the start of their time range, then by name.
    pub blocks: Vec<Block>,
    /// What looks like a block and cannot be read, by name.
    pub corrupt: Vec<Corrupt>,
}

/// Scans a data directory and remembers what it read.
#[derive(Debug, Default)]
pub struct Scanner {
    dir: PathBuf,
    known: HashMap<BlockId, Known>,
}

#[derive(Debug)]
struct Known {
    version: FileVersion,
    found: Result<Block, Corrupt>,
}

/// Scans `dir` once. Use a [`Scanner`] to do so again and again.
pub fn scan(dir: &Path) -> io::Result<Scan> {
    Scanner::default().scan(dir)
}

impl Scanner {
    /// The blocks in `dir`. Blocks that vanish meanwhile, because Prometheus removes them, are not listed.
    ///
    /// Errors are those of `dir` itself, and a process without free file descriptors or memory; they name the path.
    /// Nothing is known then: it does not mean that there is no block.
    pub fn scan(&mut self, dir: &Path) -> io::Result<Scan> {
        let mut scan = Scan::default();
        if self.dir != dir {
            dir.clone_into(&mut self.dir);
            self.known.clear();
        }
        let mut known = HashMap::with_capacity(self.known.len());
        let mut labels: HashSet<Labels> = self.known.values().filter_map(Known::labels).cloned().collect();
        for entry in fs_err::read_dir(dir)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(BlockId::parse) else {
                continue;
            };
            // The type is that of the entry itself, and mostly comes with the listing.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {}
                Ok(_) => continue,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            }
            let before = self.known.remove(&id);
            match read_block(id, &entry.path(), before, &mut labels) {
                Ok(None) => continue,
                Ok(Some(now)) => {
                    match &now.found {
                        Ok(block) => scan.blocks.push(block.clone()),
                        Err(corrupt) => scan.corrupt.push(corrupt.clone()),
                    }
                    known.insert(id, now);
                }
                Err(error) => {
                    // Without free descriptors or memory nothing can be opened, and that says nothing of the block.
                    fs_err::File::open(dir)?;
                    scan.corrupt.push(corrupt(id, Reason::Unreadable, error));
                }
            }
        }
        self.known = known;
        scan.blocks.sort_by_key(|block| (block.meta.min_time, block.id));
        scan.corrupt.sort_by_key(|corrupt| corrupt.id);
        Ok(scan)
    }
}

/// What is in the block directory `dir`, unless it is gone. Equal `labels` share their memory.
fn read_block(
    id: BlockId,
    dir: &Path,
    before: Option<Known>,
    labels: &mut HashSet<Labels>,
) -> io::Result<Option<Known>> {
    let path = dir.join(META);
    let status = match fs_err::metadata(&path) {
        Ok(status) => status,
        Err(error) if gone(&error) => return missing(id, dir),
        Err(error) => return Err(error),
    };
    let version = FileVersion::of(&status);
    if let Some(known) = before.filter(|known| known.version == version) {
        return Ok(Some(known));
    }
    if !status.is_file() {
        // Opening a pipe would wait for its other end.
        return Ok(Some(Known {
            version,
            found: Err(corrupt(id, Reason::Meta, "meta.json is not a file")),
        }));
    }
    let file = match fs_err::File::open(&path) {
        Ok(file) => file,
        Err(error) if gone(&error) => return missing(id, dir),
        Err(error) => return Err(error),
    };
    let version = FileVersion::of(&file.metadata()?);
    let found = read(id, &file)?.map(|meta| {
        let mut meta = meta.block;
        if let Some(own) = &mut meta.thanos_labels {
            match labels.get(own) {
                Some(known) => *own = known.clone(),
                None => drop(labels.insert(own.clone())),
            }
        }
        Block {
            id,
            dir: dir.into(),
            meta: Arc::new(meta),
        }
    });
    Ok(Some(Known { version, found }))
}

/// Reads the whole `meta.json` of `block` once more: as it is now, which may be another than it was when the directory was
/// scanned.
///
/// # Errors
/// As for [`Pinned::open`](super::Pinned::open).
pub fn read_meta(block: &Block) -> Result<Meta, PinError> {
    let path = block.dir.join(META);
    let absent = |error: io::Error| match gone(&error) {
        true => PinError::Vanished,
        false => PinError::Io(error),
    };
    // Opening a pipe would wait for its other end.
    if !fs_err::metadata(&path).map_err(absent)?.is_file() {
        return Err(Broken::new(Reason::Meta, "meta.json is not a file").into());
    }
    let file = fs_err::File::open(&path).map_err(absent)?;
    read(block.id, &file)?.map_err(|corrupt| PinError::Broken {
        reason: corrupt.reason,
        detail: corrupt.detail,
    })
}

/// The `meta.json` that is open as `file`, which must be that of `id`.
fn read(id: BlockId, file: &fs_err::File) -> io::Result<Result<Meta, Corrupt>> {
    let mut bytes = Vec::new();
    let size = file.metadata()?.len();
    if size <= LARGEST_META {
        file.take(LARGEST_META + 1).read_to_end(&mut bytes)?;
    }
    if size > LARGEST_META || bytes.len() as u64 > LARGEST_META {
        return Ok(Err(corrupt(
            id,
            Reason::Meta,
            format_args!("meta.json is larger than {LARGEST_META} bytes"),
        )));
    }
    Ok(parse(id, &bytes))
}

fn parse(id: BlockId, bytes: &[u8]) -> Result<Meta, Corrupt> {
    let meta = Meta::parse(bytes)
        .map_err(|error| corrupt(id, Reason::Meta, format_args!("meta.json cannot be used: {error}")))?;
    if meta.ulid != id {
        return Err(corrupt(
            id,
            Reason::Meta,
            format_args!("meta.json is that of the block {}", meta.ulid),
        ));
    }
    Ok(meta)
}

/// There is no `meta.json`: the block is gone, or it is none (yet).
fn missing(id: BlockId, dir: &Path) -> io::Result<Option<Known>> {
    match fs_err::metadata(dir) {
        Ok(status) if status.is_dir() => {
            let found = Err(corrupt(id, Reason::NoMeta, "meta.json is missing"));
            Ok(Some(Known {
                version: FileVersion::of(&status),
                found,
            }))
        }
        Ok(_) => Ok(None),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `error` says that there is no such file (any more).
pub(super) fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn corrupt(id: BlockId, reason: Reason, detail: impl std::fmt::Display) -> Corrupt {
    let mut detail = detail.to_string();
    // It may quote a file that was made to be long.
    if detail.len() > LONGEST_DETAIL {
        detail.truncate(detail.floor_char_boundary(LONGEST_DETAIL));
        detail.push_str("...");
        detail.shrink_to_fit();
    }
    Corrupt { id, reason, detail }
}

impl Known {
    /// The labels that the block carries.
    fn labels(&self) -> Option<&Labels> {
        self.found.as_ref().ok()?.meta.thanos_labels.as_ref()
    }
}

#[cfg(test)]
mod tests;
