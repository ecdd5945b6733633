//! Whether a block of a bucket is whole.
//!
//! [`look`] holds the objects of a block against what its `meta.json` lists: one request. [`read_back`] reads all of
//! them and checks the content. A block without a list (those of old versions of Thanos) must have an index and its
//! segments from 1 on without a gap.

mod read_back;

use std::collections::{BTreeMap, BTreeSet};

pub use self::read_back::{Reader, read_back};
use super::{Issue, Kind};
use crate::{
    catalog::{DELETION_MARK, MARKERS},
    objstore::{self, Bucket, Object},
    tsdb::{BlockId, BucketFile, Meta},
};

const META: &str = "meta.json";
const INDEX: &str = "index";
const CHUNKS: &str = "chunks/";
/// Part of a block on disk that shippers leave behind, and that whoever copies blocks by hand does not; readers of the
/// bucket pass over it.
const TOMBSTONES: &str = "tombstones";
/// An extract of the index, which compactors of old versions of Thanos put beside it for store gateways.
const INDEX_CACHE: &str = "index.cache.json";
/// Missing segments that are named one by one.
const MOST_GAPS: usize = 10;
/// What helps when something of a block is lost.
const LOST: &str = "put it back from a copy of the block, or mark the block for deletion";

/// The objects of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What belongs to the block beside `meta.json` and is there, sorted by name: its size in the bucket, and the hash
    /// that `meta.json` has of it.
    pub files: Vec<BucketFile>,
    /// How many objects there are, of whatever kind.
    pub objects: u64,
    /// Their sizes together (bytes).
    pub bytes: u64,
    /// Whether its `meta.json` is there: a block is deleted from it on.
    pub visible: bool,
    /// Whether the block is marked for deletion.
    pub marked: bool,
    /// What is wrong with them.
    pub issues: Vec<Issue>,
}

/// Lists the objects of a block and holds them against its `meta.json`.
///
/// # Errors
/// The bucket's.
pub async fn look(bucket: &dyn Bucket, meta: &Meta) -> Result<Held, objstore::Error> {
    let objects = bucket.list(&meta.ulid.to_string()).await?;
    Ok(hold(meta, &objects))
}

/// Lists what there is of a block without a `meta.json`.
///
/// # Errors
/// The bucket's.
pub async fn rest(bucket: &dyn Bucket, id: BlockId) -> Result<Held, objstore::Error> {
    let objects = bucket.list(&id.to_string()).await?;
    Ok(count(&by_name(id, &objects)))
}

/// The objects by their names relative to the block, with their sizes.
fn by_name(id: BlockId, objects: &[Object]) -> BTreeMap<&str, u64> {
    let base = format!("{id}/");
    let own = objects
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(&base)?, object.size)));
    own.collect()
}

fn count(there: &BTreeMap<&str, u64>) -> Held {
    Held {
        objects: there.len() as u64,
        bytes: there.values().sum(),
        visible: there.contains_key(META),
        marked: there.contains_key(DELETION_MARK),
        ..Held::default()
    }
}

/// Holds `objects`, which are all below the block's name, against its `meta.json`.
pub fn hold(meta: &Meta, objects: &[Object]) -> Held {
    let there = by_name(meta.ulid, objects);
    let mut held = count(&there);
    let issue = |kind, detail: String| Issue::new(meta.ulid, kind, detail);
    let due = match due(meta, &there) {
        Ok(due) => due,
        Err(why) => {
            held.issues.push(issue(Kind::Meta, format!("meta.json: {why}")));
            return held;
        }
    };
    for file in &due {
        let name = &file.rel_path;
        match (there.get(name.as_str()), file.size) {
            (None, _) => held
                .issues
                .push(issue(Kind::Missing, format!("{name} is missing; {LOST}"))),
            (Some(size), Some(due)) if *size != due => held.issues.push(issue(
                Kind::Size,
                format!("{name} has {size} bytes, and meta.json says {due}; {LOST}"),
            )),
            (Some(size), _) => held.files.push(BucketFile {
                size: Some(*size),
                ..file.clone()
            }),
        }
    }
    let names: BTreeSet<&str> = due.iter().map(|file| file.rel_path.as_str()).collect();
    let known =
        |name: &str| [META, TOMBSTONES, INDEX_CACHE].contains(&name) || MARKERS.contains(&name) || names.contains(name);
    for (name, size) in there.iter().filter(|(name, _)| !known(name)) {
        let what = format!("{name} ({size} bytes) does not belong to the block by meta.json; look who wrote it");
        held.issues.push(issue(Kind::Extra, what));
    }
    held
}

/// What must be there beside `meta.json`, sorted by name; an error is a `meta.json` that cannot be right.
fn due(meta: &Meta, there: &BTreeMap<&str, u64>) -> Result<Vec<BucketFile>, String> {
    let mut due = match meta.files()? {
        Some(files) => files,
        None => {
            let named = meta.segment_files();
            let segments = match named.is_empty() {
                true => segments_due(meta, there),
                false => named.iter().map(|name| format!("{CHUNKS}{name}")).collect(),
            };
            let names = segments.into_iter().chain([INDEX.to_owned()]);
            names.map(of_any_size).collect()
        }
    };
    due.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    due.dedup_by(|a, b| a.rel_path == b.rel_path);
    if !due.iter().any(|file| file.rel_path == INDEX) {
        return Err("thanos.files does not name the index".to_owned());
    }
    // The index speaks of segments by their place, which must be their number.
    let numbers: BTreeSet<u32> = due.iter().filter_map(|file| segment(&file.rel_path)).collect();
    match numbers.iter().zip(1..).find(|(number, due)| **number != *due) {
        Some((number, due)) => Err(format!(
            "it names {CHUNKS}{number:06} as a file of the block, and not {CHUNKS}{due:06}"
        )),
        None => Ok(due),
    }
}

fn of_any_size(rel_path: String) -> BucketFile {
    BucketFile {
        rel_path,
        size: None,
        sha256: None,
    }
}

/// The segments of a block that names none: up to the last one that is there, and one at least if it has chunks.
fn segments_due(meta: &Meta, there: &BTreeMap<&str, u64>) -> Vec<String> {
    let numbers = there.keys().filter_map(|name| segment(name));
    let last = numbers.max().unwrap_or_default().max(u32::from(meta.num_chunks > 0));
    // A stray name must not make us ask for a million of them: those there are, and the gaps up to the first few.
    let due = (1..=last).map(|number| format!("{CHUNKS}{number:06}"));
    let mut gaps = 0;
    due.take_while(|name| {
        gaps += usize::from(!there.contains_key(name.as_str()));
        gaps <= MOST_GAPS
    })
    .collect()
}

/// The number of the segment with this name, relative to the block.
fn segment(rel_path: &str) -> Option<u32> {
    rel_path.strip_prefix(CHUNKS).and_then(number)
}

/// The number that the name of a segment is.
fn number(name: &str) -> Option<u32> {
    let plain = name.len() == 6 && name.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| name.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
