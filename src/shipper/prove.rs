//! The proof that the objects of a block are in the bucket: exactly its files, with exactly their sizes. What lineage takes
//! for no part of a block, as the empty `tombstones` of whoever copied it by hand, may lie beside them.
//!
//! One listing shows it. What a listing lacks or shows with another size is asked for by its key, since a store's listing
//! may lag behind what it acknowledged; only what is still wrong then is waited for, and proves after a few tries that
//! something is lost. Nothing is written.

use std::{collections::BTreeMap, time::Duration};

use super::upload::{Error, Uploader};
use crate::{
    catalog::DELETION_MARK,
    lineage::may_lie_beside,
    model::few,
    objstore::Object,
    tsdb::{BlockId, BucketFile},
};

/// How often the bucket is asked for what it does not show.
const TRIES: u32 = 3;
/// The wait between two such tries.
const WAIT: Duration = Duration::from_millis(300);

/// What differs in a listing of a block from what is due.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences<'a> {
    /// What is missing or has another size: its name, and the size that is due.
    wrong: Vec<(&'a str, u64)>,
    /// What is not of the block.
    foreign: Vec<&'a str>,
    /// Whether the block is marked for deletion.
    marked: bool,
}

impl Uploader {
    /// Proves that the bucket has the block: exactly its files, with exactly their sizes, and its `meta.json` of `meta` bytes
    /// once that was sent.
    pub(crate) async fn prove(&self, id: BlockId, files: &[BucketFile], meta: Option<u64>) -> Result<(), Error> {
        let dir = id.to_string();
        for attempt in 1.. {
            let listed = self.bucket.list(&dir).await?;
            let found = compare(&dir, files, meta, &listed);
            if found.marked {
                return Err(Error::Marked {
                    place: self.place(&dir),
                });
            }
            if !found.foreign.is_empty() {
                let (place, names) = (self.place(&dir), few(found.foreign.iter()));
                return Err(Error::Foreign { place, names });
            }
            let wrong = self.still_wrong(&dir, found.wrong).await?;
            if wrong.is_empty() {
                return Ok(());
            }
            if attempt == TRIES {
                self.with_state(id, |state| {
                    let is_wrong = |file: &String| wrong.iter().any(|(name, _)| file == name);
                    state.acknowledged.retain(|file, _| !is_wrong(file));
                    state.rewritten.retain(|file, _| !is_wrong(file));
                });
                let (place, wrong) = (self.place(&dir), few(wrong.iter().map(|(_, described)| described)));
                return Err(Error::Unproven { place, wrong });
            }
            tokio::time::sleep(WAIT).await;
        }
        Ok(())
    }

    /// What of `wrong` is so when it is asked for by its key: its name, and what is wrong in words.
    async fn still_wrong<'a>(&self, dir: &str, wrong: Vec<(&'a str, u64)>) -> Result<Vec<(&'a str, String)>, Error> {
        let mut described = Vec::new();
        for (name, due) in wrong {
            match self.bucket.stat(&format!("{dir}/{name}")).await? {
                Some(size) if size == due => {}
                Some(size) => described.push((name, format!("{name} has {size} bytes instead of {due}"))),
                None => described.push((name, format!("{name} is missing"))),
            }
        }
        Ok(described)
    }
}

/// What differs between the files of a block and the objects listed for it.
fn compare<'a>(dir: &str, files: &'a [BucketFile], meta: Option<u64>, listed: &'a [Object]) -> Differences<'a> {
    let mut there: BTreeMap<&'a str, u64> = listed
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(dir)?.strip_prefix('/')?, object.size)))
        .collect();
    let due = files
        .iter()
        .map(|file| (file.rel_path.as_str(), file.size.unwrap_or_default()));
    let mut wrong = Vec::new();
    for (name, len) in due.chain(meta.map(|len| ("meta.json", len))) {
        if there.remove(name) != Some(len) {
            wrong.push((name, len));
        }
    }
    let marked = there.contains_key(DELETION_MARK);
    let foreign = there
        .into_iter()
        .filter(|(name, size)| !may_lie_beside(name, *size))
        .map(|(name, _)| name)
        .collect();
    Differences { wrong, foreign, marked }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rel_path: &str, len: u64) -> BucketFile {
        BucketFile {
            rel_path: rel_path.into(),
            size: Some(len),
            sha256: None,
        }
    }

    fn object(key: &str, size: u64) -> Object {
        Object { key: key.into(), size }
    }

    #[test]
    fn a_listing_must_show_exactly_the_files() {
        let files = [file("chunks/000001", 8), file("index", 5)];
        let whole = [object("A/chunks/000001", 8), object("A/index", 5)];
        assert_eq!(compare("A", &files, None, &whole), Differences::default());
        let marked = [
            &whole[..],
            &[object("A/meta.json", 3), object("A/no-compact-mark.json", 1)],
        ]
        .concat();
        assert_eq!(compare("A", &files, None, &marked), Differences::default());
        assert_eq!(compare("A", &files, Some(3), &marked), Differences::default());
        let found = compare("A", &files, Some(4), &marked);
        assert_eq!(found.wrong, [("meta.json", 4)]);
        assert_eq!(compare("A", &files, Some(3), &whole).wrong, [("meta.json", 3)]);
        let listed = [object("A/chunks/000001", 7), object("A/chunks/000002", 8)];
        let found = compare("A", &files, None, &listed);
        assert_eq!(found.wrong, [("chunks/000001", 8), ("index", 5)]);
        assert_eq!(found.foreign, ["chunks/000002"]);
        let copied = [object("A/tombstones", 9), object("A/index.cache.json", 7)];
        let copied = [&whole[..], &copied].concat();
        assert_eq!(compare("A", &files, None, &copied), Differences::default());
        let deletes = [&whole[..], &[object("A/tombstones", 10)]].concat();
        assert_eq!(compare("A", &files, None, &deletes).foreign, ["tombstones"]);
        let deleted = [&whole[..], &[object("A/deletion-mark.json", 9)]].concat();
        assert!(compare("A", &files, None, &deleted).marked);
    }
}
