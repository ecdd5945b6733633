//! Finds blocks: in a directory, and in the snapshots of a Prometheus whose data directory it is.

use std::{
    collections::HashMap,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Decision, Error, Item};
use crate::{
    objstore::missing,
    tsdb::{BlockId, Scan, scan},
};

/// Where Prometheus' snapshots are, below its data directory.
const SNAPSHOTS: &str = "snapshots";

/// The blocks in `path` and in `path/snapshots/*`, by the start of their time range; what looks like a block and cannot be
/// read comes last, as refused. `path` may also be one block. A block that is found twice with the same files, as a
/// snapshot and its origin are, is taken once.
///
/// # Errors
/// The directory cannot be read, or there is nothing in it.
pub(super) fn find(path: &Path) -> Result<Vec<Item>, Error> {
    let (scan, links) = (scan_all(path)?, links(path)?);
    if scan.is_empty() && links.is_empty() {
        return Err(Error::NoBlocks(path.to_owned()));
    }
    let mut items: Vec<Item> = Vec::new();
    let mut broken = Vec::new();
    let mut first: HashMap<BlockId, usize> = HashMap::new();
    for (place, scan) in scan {
        for corrupt in scan.corrupt {
            let dir = place.join(corrupt.id.to_string());
            broken.push(Item::broken(corrupt.id, dir, corrupt.detail));
        }
        for block in scan.blocks {
            let (bytes, files) = measure(&block.dir);
            let (id, at) = (block.id, items.len());
            match first.get(&id) {
                None => {
                    first.insert(id, at);
                    items.push(Item::new(block, bytes, files));
                }
                Some(earlier) => {
                    let earlier = &mut items[*earlier];
                    if !same_files(&earlier.dir, &block.dir) {
                        let both = format!("{} and {}", earlier.dir.display(), block.dir.display());
                        let why = format!("there are two blocks of this name, {both}; move one of them away");
                        earlier.decision = Decision::Refused(why);
                    }
                }
            }
        }
    }
    for (id, dir) in links {
        let taken = first.get(&id).map(|at| &items[*at].dir);
        if taken.is_none_or(|taken| fs_err::canonicalize(taken).ok() != fs_err::canonicalize(&dir).ok()) {
            let why = "it is a link to a directory, and those are not followed; put the directory there, or give it as --path";
            broken.push(Item::broken(id, dir, why.into()));
        }
    }
    items.sort_by_key(|item| (item.block.as_ref().map(|block| block.meta.min_time), item.id));
    broken.sort_by_key(|item| item.id);
    items.extend(broken);
    Ok(items)
}

/// Links in `path` and its snapshots that lead to directories and have names of blocks: Prometheus does not follow them,
/// whoever collects blocks for a bucket may think that we do.
fn links(path: &Path) -> io::Result<Vec<(BlockId, PathBuf)>> {
    let mut links = Vec::new();
    if is_block(&fs_err::canonicalize(path)?).is_some() {
        return Ok(links);
    }
    for place in places(path)? {
        for entry in fs_err::read_dir(place)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(BlockId::parse);
            let Some(id) = id.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_symlink())) else {
                continue;
            };
            match status(&entry.path())? {
                Some(status) if status.is_dir() => links.push((id, entry.path())),
                Some(_) => {}
                None => tracing::warn!(
                    path = %entry.path().display(),
                    "skipping a broken symbolic link with the name of a block"
                ),
            }
        }
    }
    links.sort_unstable();
    Ok(links)
}

/// What is at `path`, or where it points to; `None` if there is nothing.
fn status(path: &Path) -> io::Result<Option<Metadata>> {
    match fs_err::metadata(path) {
        Ok(status) => Ok(Some(status)),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn scan_all(path: &Path) -> io::Result<Vec<(PathBuf, Scan)>> {
    if let Some(scan) = one_block(path)? {
        return Ok(vec![scan]);
    }
    let mut found = Vec::new();
    for place in places(path)? {
        let scan = scan(&place)?;
        if !scan.blocks.is_empty() || !scan.corrupt.is_empty() {
            found.push((place, scan));
        }
    }
    Ok(found)
}

/// Where blocks may be: `path`, and its snapshots by name.
fn places(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut places = vec![path.to_owned()];
    match fs_err::read_dir(path.join(SNAPSHOTS)) {
        Ok(entries) => {
            let mut snapshots = Vec::new();
            for entry in entries {
                let path = entry?.path();
                // What the file system has in its root, when a file system of its own holds the snapshots.
                if path.ends_with("lost+found") {
                    continue;
                }
                // A link to a snapshot is one, too.
                if status(&path)?.is_some_and(|status| status.is_dir()) {
                    snapshots.push(path);
                }
            }
            snapshots.sort_unstable();
            places.extend(snapshots);
        }
        Err(error) if missing(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(places)
}

/// The block that `path` itself is.
fn one_block(path: &Path) -> io::Result<Option<(PathBuf, Scan)>> {
    let path = fs_err::canonicalize(path)?;
    let (Some(id), Some(parent)) = (is_block(&path), path.parent()) else {
        return Ok(None);
    };
    let mut scan = scan(parent)?;
    scan.blocks.retain(|block| block.id == id);
    scan.corrupt.retain(|corrupt| corrupt.id == id);
    Ok(Some((parent.to_owned(), scan)))
}

/// The block whose name a path ends with.
fn is_block(path: &Path) -> Option<BlockId> {
    path.file_name().and_then(|name| BlockId::parse(name.to_str()?))
}

/// The size of index and segments, and how many files they are; what cannot be looked at counts for nothing, and is told
/// when the block is checked.
fn measure(dir: &Path) -> (u64, usize) {
    let sizes: Vec<u64> = data_files(dir)
        .into_iter()
        .filter_map(|path| Some(fs_err::metadata(path).ok()?.len()))
        .collect();
    (sizes.iter().sum(), sizes.len())
}

/// The index and whatever is among the segments.
fn data_files(dir: &Path) -> Vec<PathBuf> {
    let mut paths = vec![dir.join("index")];
    if let Ok(entries) = fs_err::read_dir(dir.join("chunks")) {
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    paths.sort_unstable();
    paths
}

/// Whether two directories hold the very same files, by hard links.
fn same_files(one: &Path, other: &Path) -> bool {
    let inodes = |dir: &Path| -> Vec<Option<(u64, u64)>> {
        let inode = |path: PathBuf| fs_err::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        data_files(dir).into_iter().map(inode).collect()
    };
    let (one, other) = (inodes(one), inodes(other));
    one == other && one.iter().all(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::testing::{Shape, write_block};

    const A: &str = "01K4ABCDEFGHJKMNPQRSTVWXYA";
    const B: &str = "01K4ABCDEFGHJKMNPQRSTVWXYB";

    fn link(from: &Path, to: &Path) {
        fs_err::create_dir_all(to.join("chunks")).unwrap();
        for file in ["chunks/000001", "index", "meta.json"] {
            fs_err::hard_link(from.join(file), to.join(file)).unwrap();
        }
    }

    #[test]
    fn finds_blocks_in_a_data_directory_and_its_snapshots_once() {
        let data = tempfile::tempdir().unwrap();
        let block = write_block(data.path(), A, Shape::default());
        let snapshot = data.path().join("snapshots/20260101T000000Z-abc");
        link(&block.dir, &snapshot.join(A));
        write_block(&snapshot, B, Shape::default());
        fs_err::create_dir(data.path().join("wal")).unwrap();
        let found = find(data.path()).unwrap();
        assert_eq!(found.iter().map(|item| item.id.to_string()).collect::<Vec<_>>(), [A, B]);
        assert_eq!((found[0].dir.as_path(), found[0].files), (&*block.dir, 2));
        assert!(found.iter().all(|item| item.decision == Decision::Send(None)));
        let one = find(&data.path().join(A)).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].id, block.id);
    }

    #[test]
    fn two_blocks_of_one_name_are_refused_and_what_cannot_be_read_comes_last() {
        let data = tempfile::tempdir().unwrap();
        write_block(data.path(), A, Shape::default());
        write_block(&data.path().join("snapshots/s"), A, Shape::default());
        fs_err::create_dir(data.path().join(B)).unwrap();
        let found = find(data.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].decision.why().contains("two blocks of this name"), "{found:?}");
        assert_eq!(found[1].decision, Decision::Refused("meta.json is missing".into()));
    }

    #[test]
    fn links_are_told_and_a_linked_snapshot_is_one() {
        let (data, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, data.path().join(at)).unwrap();
        let a = write_block(away.path(), A, Shape::default());
        link(&a.dir, A);
        let found = find(data.path()).unwrap();
        let [item] = &found[..] else { panic!("{found:?}") };
        assert_eq!((item.id, item.decision.word()), (a.id, "refused"));
        assert!(item.decision.why().contains("link"), "{found:?}");
        // One that leads to what is found anyway needs no word.
        fs_err::create_dir(data.path().join("snapshots")).unwrap();
        link(away.path(), "snapshots/s");
        link("nowhere".as_ref(), "snapshots/t");
        let found = find(data.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].decision, Decision::Send(None));
    }

    #[test]
    fn links_that_lead_round_in_a_circle_are_not_looked_into() {
        let data = tempfile::tempdir().unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, data.path().join(at)).unwrap();
        write_block(data.path(), A, Shape::default());
        link(B, B);
        link("snapshots", "snapshots");
        let ids = || -> Vec<String> {
            find(data.path())
                .unwrap()
                .iter()
                .map(|item| item.id.to_string())
                .collect()
        };
        assert_eq!(ids(), [A]);
        fs_err::remove_file(data.path().join("snapshots")).unwrap();
        fs_err::create_dir(data.path().join("snapshots")).unwrap();
        link("s", "snapshots/s");
        assert_eq!(ids(), [A]);
    }

    #[test]
    fn nothing_to_find_is_an_error_that_says_where() {
        let data = tempfile::tempdir().unwrap();
        let said = find(data.path()).unwrap_err().to_string();
        assert!(
            said.contains(&format!("no block in {}", data.path().display())),
            "{said}"
        );
        let file = data.path().join("file");
        fs_err::write(&file, "x").unwrap();
        for path in [file, data.path().join("nowhere")] {
            let said = find(&path).unwrap_err().to_string();
            assert!(said.contains(path.to_str().unwrap()), "{said}");
        }
    }
}
