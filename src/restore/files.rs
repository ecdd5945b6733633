//! Which objects of the bucket make up a block.

use std::collections::BTreeMap;

use crate::{
    objstore::Object,
    tsdb::{BlockId, BucketFile, segment_of_path},
};

/// The file of deleted intervals.
pub(super) const TOMBSTONES: &str = "tombstones";

/// Whether Prometheus reads a file of this name as part of a block.
fn belongs(rel_path: &str) -> bool {
    segment_of_path(rel_path).is_some() || matches!(rel_path, "index" | TOMBSTONES)
}

/// The files of the block `id` beside `meta.json`, by name: those that it says it has, or else those that the bucket
/// lists. Their sizes are those of the objects.
///
/// # Errors
/// Why the block is not whole, in words.
pub(super) fn of_block(id: BlockId, said: Option<&[BucketFile]>, listed: &[Object]) -> Result<Vec<BucketFile>, String> {
    let prefix = format!("{id}/");
    let objects = listed
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(&prefix)?, object.size)));
    let objects: BTreeMap<&str, u64> = objects.filter(|(name, _)| belongs(name)).collect();
    let mut files = BTreeMap::new();
    match said {
        Some(said) if !said.is_empty() => {
            for file in said.iter().filter(|file| belongs(&file.rel_path)) {
                files.insert(file.rel_path.as_str(), held_against(file, &objects)?);
            }
        }
        _ => {
            for (name, size) in &objects {
                let file = BucketFile {
                    rel_path: (*name).to_owned(),
                    size: Some(*size),
                    sha256: None,
                };
                files.insert(name, file);
            }
        }
    }
    if !files.contains_key("index") {
        return Err("it has no index".to_owned());
    }
    // A hole in the numbers is found by the check of the index, which refers to segments.
    if !files.keys().any(|name| segment_of_path(name).is_some()) {
        return Err("it has no chunks".to_owned());
    }
    Ok(files.into_values().collect())
}

fn held_against(file: &BucketFile, objects: &BTreeMap<&str, u64>) -> Result<BucketFile, String> {
    let name = &file.rel_path;
    match (objects.get(name.as_str()), file.size) {
        (None, _) => Err(format!("{name} is missing from the bucket")),
        (Some(there), Some(said)) if *there != said => {
            Err(format!("{name} has {there} bytes in the bucket, {said} by meta.json"))
        }
        (Some(there), _) => Ok(BucketFile {
            size: Some(*there),
            ..file.clone()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

    fn object(name: &str, size: u64) -> Object {
        Object {
            key: format!("{ID}/{name}"),
            size,
        }
    }

    fn file(name: &str, size: u64, sha256: Option<&str>) -> BucketFile {
        BucketFile {
            rel_path: name.into(),
            size: Some(size),
            sha256: sha256.map(Into::into),
        }
    }

    fn of(said: Option<&[BucketFile]>, listed: &[Object]) -> Result<Vec<BucketFile>, String> {
        of_block(BlockId::parse(ID).unwrap(), said, listed)
    }

    #[test]
    fn what_the_block_says_must_be_there() {
        let said = [file("index", 7, Some("ab")), file("chunks/000001", 9, None)];
        let mut there = vec![
            object("chunks/000001", 9),
            object("chunks/000002", 3),
            object("deletion-mark.json", 1),
            object("index", 7),
            object("meta.json", 5),
        ];
        let files = [file("chunks/000001", 9, None), file("index", 7, Some("ab"))];
        assert_eq!(of(Some(&said), &there), Ok(files.to_vec()));
        there[3].size = 8;
        assert_eq!(
            of(Some(&said), &there).unwrap_err(),
            "index has 8 bytes in the bucket, 7 by meta.json"
        );
        there.remove(0);
        there[2].size = 7;
        assert_eq!(
            of(Some(&said), &there).unwrap_err(),
            "chunks/000001 is missing from the bucket"
        );
        assert_eq!(of(Some(&said[..1]), &there).unwrap_err(), "it has no chunks");
        assert_eq!(
            of(Some(&said[1..]), &[]).unwrap_err(),
            "chunks/000001 is missing from the bucket"
        );
    }

    #[test]
    fn what_the_bucket_lists_counts_if_the_block_does_not_say() {
        let there = [
            object("chunks/000001", 9),
            object("chunks/1", 9),
            object("index", 7),
            object("index/x", 7),
            object("meta.json", 5),
            object("tombstones", 2),
        ];
        let files = [
            file("chunks/000001", 9, None),
            file("index", 7, None),
            file("tombstones", 2, None),
        ];
        for said in [None, Some(&[][..])] {
            assert_eq!(of(said, &there), Ok(files.to_vec()));
            assert_eq!(of(said, &there[1..]).unwrap_err(), "it has no chunks");
            assert_eq!(of(said, &there[..2]).unwrap_err(), "it has no index");
        }
    }
}
