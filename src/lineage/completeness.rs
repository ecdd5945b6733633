//! Whether a block of the bucket is complete: its `meta.json` compared with a listing of its objects.
//!
//! A block that lists its files must have each of them with its size. One without a list (those of old versions of
//! Thanos) must have an index and its segments from 1 on without a gap. Pure; nothing is asked of the bucket here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    catalog::{DELETION_MARK, MARKERS},
    objstore::Object,
    tsdb::{BlockId, BucketFile, Meta, segment_of_path, segment_path},
};

const META: &str = "meta.json";
const INDEX: &str = "index";
const CHUNKS: &str = "chunks/";
/// Part of a block on disk that shippers leave behind, and that whoever copies blocks by hand does not. A store gateway
/// passes over it; a compactor leaves out of what it writes whatever the file names.
const TOMBSTONES: &str = "tombstones";
/// The length of the file without an entry: magic number, version, checksum (bytes).
const EMPTY_TOMBSTONES: u64 = 9;
/// An extract of the index, which compactors of old versions of Thanos put beside it for store gateways.
const INDEX_CACHE: &str = "index.cache.json";
/// Missing segments that are named one by one.
const MOST_GAPS: usize = 10;

/// The objects of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockObjects {
    /// What belongs to the block beside `meta.json` and is there, sorted by name: its size in the bucket, and the hash
    /// that `meta.json` has of it.
    pub files: Vec<BucketFile>,
    /// How many objects there are, of whatever kind.
    pub objects: u64,
    /// Their sizes together (bytes).
    pub bytes: u64,
    /// Whether its `meta.json` is listed: a block is deleted from it on.
    pub has_meta: bool,
    /// Whether the block is marked for deletion.
    pub marked: bool,
    /// In what they are not those of the block.
    pub faults: Vec<Fault>,
}

/// In what the objects of a block are not what its `meta.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What it says of its files cannot be right, in words.
    Meta(String),
    /// An object is missing; with the size and the hash that it should have, where that is said.
    Missing(BucketFile),
    /// An object has another size.
    Size {
        /// Which one, relative to the block.
        name: String,
        /// Its size in the bucket (bytes).
        there: u64,
        /// Its size by `meta.json` (bytes).
        said: u64,
    },
    /// An object does not belong to the block.
    Extra {
        /// Which one, relative to the block.
        name: String,
        /// Its size (bytes).
        size: u64,
    },
}

impl Fault {
    /// Whether something of the block is lost. What lies there too many takes nothing away.
    pub fn is_data_loss(&self) -> bool {
        !matches!(self, Self::Extra { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta(why) => write!(f, "meta.json: {why}"),
            Self::Missing(file) => write!(f, "{} is missing", file.rel_path),
            Self::Size { name, there, said } => write!(f, "{name} has {there} bytes, and meta.json says {said}"),
            Self::Extra { name, size } => write!(
                f,
                "{name} ({size} bytes) does not belong to the block according to its meta.json"
            ),
        }
    }
}

impl BlockObjects {
    /// What is lost of the block, in words; `None` if it is whole.
    pub fn missing_data(&self) -> Option<String> {
        const NAMED: usize = 5;
        let lost = || self.faults.iter().filter(|fault| fault.is_data_loss());
        let named: Vec<String> = lost().take(NAMED).map(Fault::to_string).collect();
        let more = lost().count().saturating_sub(NAMED);
        match (named.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(named.join("; ")),
            (false, more) => Some(format!("{}; and {more} more", named.join("; "))),
        }
    }
}

/// What must be there of a block beside its `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// These files, sorted by name; those of an unknown size may have any.
    Files(Vec<BucketFile>),
    /// An index, and the segments up to the last one that is there; one at least if it has chunks.
    Unlisted {
        /// Whether it has chunks.
        chunks: bool,
    },
}

impl Expected {
    /// What `meta` says of it.
    ///
    /// # Errors
    /// Why what it says cannot be right, in words.
    fn of(meta: &Meta) -> Result<Self, String> {
        let listed = meta.files()?.filter(|files| !files.is_empty());
        let files = match listed {
            Some(files) => files,
            None => {
                let named = meta.segment_files();
                if named.is_empty() {
                    let chunks = meta.num_chunks > 0;
                    return Ok(Self::Unlisted { chunks });
                }
                let names = named.iter().map(|name| format!("{CHUNKS}{name}"));
                names.chain([INDEX.to_owned()]).map(of_any_size).collect()
            }
        };
        consecutive(files).map(Self::Files)
    }

    /// Holds the objects of a listing, which are all below the name of the block `id`, against it.
    fn check_objects(&self, id: BlockId, objects: &[Object]) -> BlockObjects {
        let there = by_name(id, objects);
        let mut listed = totals(&there);
        let unlisted;
        let due = match self {
            Self::Files(files) => files,
            Self::Unlisted { chunks } => {
                unlisted = present(*chunks, &there);
                &unlisted
            }
        };
        for file in due {
            match (there.get(file.rel_path.as_str()), file.size) {
                (None, _) => listed.faults.push(Fault::Missing(file.clone())),
                (Some(size), Some(said)) if *size != said => listed.faults.push(Fault::Size {
                    name: file.rel_path.clone(),
                    there: *size,
                    said,
                }),
                (Some(size), _) => listed.files.push(BucketFile {
                    size: Some(*size),
                    ..file.clone()
                }),
            }
        }
        let names: BTreeSet<&str> = due.iter().map(|file| file.rel_path.as_str()).collect();
        let extra = there
            .iter()
            .filter(|(name, size)| !may_lie_beside(name, **size) && !names.contains(*name));
        listed.faults.extend(extra.map(|(name, size)| Fault::Extra {
            name: (*name).to_owned(),
            size: *size,
        }));
        listed
    }
}

/// Holds the objects of a listing, which are all below the block's name, against its `meta.json`.
pub fn check_objects(meta: &Meta, objects: &[Object]) -> BlockObjects {
    match Expected::of(meta) {
        Ok(due) => due.check_objects(meta.ulid, objects),
        Err(why) => BlockObjects {
            faults: vec![Fault::Meta(why)],
            ..count_objects(meta.ulid, objects)
        },
    }
}

/// Whether an object of this name, relative to a block, and of this size (bytes) may lie beside the block's index and
/// segments: its `meta.json`, what others say of the block, and what makes no difference to readers of the bucket. Of
/// `tombstones` that is so without an entry: with one a compactor leaves samples out.
pub fn may_lie_beside(name: &str, size: u64) -> bool {
    match name {
        TOMBSTONES => size <= EMPTY_TOMBSTONES,
        _ => [META, INDEX_CACHE].contains(&name) || MARKERS.contains(&name),
    }
}

/// Counts what a listing has below a name, whatever it is.
pub fn count_objects(id: BlockId, objects: &[Object]) -> BlockObjects {
    totals(&by_name(id, objects))
}

/// The objects by their names relative to the block, with their sizes.
fn by_name(id: BlockId, objects: &[Object]) -> BTreeMap<&str, u64> {
    let base = format!("{id}/");
    let own = objects
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(&base)?, object.size)));
    own.collect()
}

fn totals(there: &BTreeMap<&str, u64>) -> BlockObjects {
    BlockObjects {
        objects: there.len() as u64,
        bytes: there.values().sum(),
        has_meta: there.contains_key(META),
        marked: there.contains_key(DELETION_MARK),
        ..BlockObjects::default()
    }
}

/// The files by name, each once, if there is an index among them and no segment is left out: the index speaks of segments
/// by their place, which must be their number.
fn consecutive(mut files: Vec<BucketFile>) -> Result<Vec<BucketFile>, String> {
    files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    files.dedup_by(|a, b| a.rel_path == b.rel_path);
    if !files.iter().any(|file| file.rel_path == INDEX) {
        return Err("thanos.files does not name the index".to_owned());
    }
    let numbers: BTreeSet<u64> = files
        .iter()
        .filter_map(|file| segment_of_path(&file.rel_path).map(u64::from))
        .collect();
    match numbers.iter().zip(1..).find(|(number, due)| **number != *due) {
        Some((number, due)) => Err(format!(
            "it names {} as a file of the block, and not {}",
            segment_path(*number),
            segment_path(due)
        )),
        None => Ok(files),
    }
}

fn of_any_size(rel_path: String) -> BucketFile {
    BucketFile {
        rel_path,
        size: None,
        sha256: None,
    }
}

/// The files of a block that names none: the index, and the segments up to the last one that is there.
fn present(chunks: bool, there: &BTreeMap<&str, u64>) -> Vec<BucketFile> {
    let numbers = there.keys().filter_map(|name| segment_of_path(name));
    let last = u64::from(numbers.max().unwrap_or_default()).max(u64::from(chunks));
    // A stray name must not make us ask for a million of them: those there are, and the gaps up to the first few.
    let mut gaps = 0;
    let segments = (1..=last).map(segment_path).take_while(|name| {
        gaps += usize::from(!there.contains_key(name.as_str()));
        gaps <= MOST_GAPS
    });
    segments.chain([INDEX.to_owned()]).map(of_any_size).collect()
}

#[cfg(test)]
mod tests;
