//! Which blocks a data directory holds.
//!
//! A scan is cheap, for it runs every half a minute for ever: it lists the directory once and asks for the status of
//! each block's `meta.json`; only files that are new or changed are read. Prometheus replaces that file by a rename and
//! never writes into it, so that inode, size and times tell a change.
//!
//! A link to a directory is not a block, even if its name fits: Prometheus looks at the entry itself and leaves it
//! alone, so its samples are not this Prometheus'.

use std::{
    collections::HashMap,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{BlockId, Meta, Reason, stamp::META};

/// No `meta.json` is larger than this (bytes); what is larger is not read.
pub const LARGEST_META: u64 = 16 << 20;

/// A block whose metadata could be read.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its name.
    pub id: BlockId,
    /// Its own directory.
    pub dir: PathBuf,
    /// What its `meta.json` says.
    pub meta: Meta,
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

/// What a data directory holds.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The blocks, by the start of their time range, then by name.
    pub blocks: Vec<Block>,
    /// What looks like a block and cannot be read, by name.
    pub corrupt: Vec<Corrupt>,
}

/// Scans data directories and remembers what it read.
#[derive(Debug, Default)]
pub struct Scanner {
    known: HashMap<PathBuf, Known>,
}

#[derive(Debug)]
struct Known {
    version: Version,
    found: Result<Meta, Corrupt>,
}

/// Two files with the same version have the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    dev: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Tells an edit that set the time of modification back.
    changed: (i64, i64),
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
        let mut known = HashMap::new();
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
            let path = entry.path();
            let before = self.known.remove(&path);
            match read_block(id, &path, before) {
                Ok(None) => continue,
                Ok(Some(now)) => {
                    match &now.found {
                        Ok(meta) => scan.blocks.push(Block {
                            id,
                            dir: path.clone(),
                            meta: meta.clone(),
                        }),
                        Err(corrupt) => scan.corrupt.push(corrupt.clone()),
                    }
                    known.insert(path, now);
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

/// What is in the block directory `dir`, unless it is gone.
fn read_block(id: BlockId, dir: &Path, before: Option<Known>) -> io::Result<Option<Known>> {
    let path = dir.join(META);
    let status = match fs_err::metadata(&path) {
        Ok(status) => status,
        Err(error) if gone(&error) => return missing(id, dir),
        Err(error) => return Err(error),
    };
    let version = Version::of(&status);
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
    let version = Version::of(&file.metadata()?);
    let mut bytes = Vec::new();
    if version.size <= LARGEST_META {
        (&file).take(LARGEST_META + 1).read_to_end(&mut bytes)?;
    }
    let found = if version.size > LARGEST_META || bytes.len() as u64 > LARGEST_META {
        Err(corrupt(
            id,
            Reason::Meta,
            format_args!("meta.json is larger than {LARGEST_META} bytes"),
        ))
    } else {
        read(id, &bytes)
    };
    Ok(Some(Known { version, found }))
}

fn read(id: BlockId, bytes: &[u8]) -> Result<Meta, Corrupt> {
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
            let found = Err(corrupt(id, Reason::Meta, "meta.json is missing"));
            Ok(Some(Known {
                version: Version::of(&status),
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
    Corrupt {
        id,
        reason,
        detail: detail.to_string(),
    }
}

impl Version {
    fn of(status: &std::fs::Metadata) -> Self {
        Self {
            dev: status.dev(),
            inode: status.ino(),
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
