//! A block's files, held open.
//!
//! An open descriptor keeps the bytes of a file that Prometheus deletes meanwhile, as a hard link would, and needs
//! neither a place for links nor the right to make them. Everything is opened before the first byte is sent, so that a
//! block is pinned whole or not at all. A crash or a drop closes the descriptors; nothing is left behind.
//!
//! Prometheus mostly removes a block by renaming its directory first, which shows as [`PinError::Vanished`]. After a
//! failed reload it deletes file by file in place; a block met in the middle of that may show as
//! [`PinError::Broken`], and is not in the next scan.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Block, BlockId, Broken, Reason,
    scan::gone,
    segments::segment_number,
    stamp::{CHUNKS, META},
};

/// The index, relative to the block.
pub(super) const INDEX: &str = "index";

/// The open files of one block. Each holds a descriptor until it and its clones are dropped.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The block.
    pub id: BlockId,
    /// The chunk segments by name, then the index. Tombstones are not shipped, and `meta.json` is not taken from here.
    pub files: Vec<PinnedFile>,
}

/// One open file of a block.
#[derive(Clone, Debug)]
pub struct PinnedFile {
    /// Its name, relative to the block: `chunks/000001`, `index`.
    pub rel_path: String,
    /// Where it was when it was opened; for messages, since it may be gone.
    pub path: PathBuf,
    /// The file, open for reading. Its position is shared: read at offsets.
    pub file: Arc<File>,
    /// Its length (bytes). Sealed files never change.
    pub len: u64,
}

/// Why a block could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is gone, as Prometheus removes blocks. Not an error.
    #[error("the block is gone")]
    Vanished,
    /// The block itself is bad, and stays so.
    #[error("the block is broken: {detail}")]
    Broken {
        /// What is wrong, for a metric.
        reason: Reason,
        /// What is wrong, for the operator.
        detail: String,
    },
    /// The disk, rights or a limit of the process; may pass. Names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Broken> for PinError {
    fn from(broken: Broken) -> Self {
        Self::Broken {
            reason: broken.reason,
            detail: broken.detail,
        }
    }
}

impl Pinned {
    /// Opens every chunk segment and the index of `block`.
    pub fn open(block: &Block) -> Result<Self, PinError> {
        open_all(block).or_else(|error| match error {
            // What is missing is missing from a block only as long as there is a block.
            PinError::Broken { .. } if vanished(&block.dir)? => Err(PinError::Vanished),
            other => Err(other),
        })
    }

    /// How many chunk segments the block in `dir` has now; `None` if it is gone or cannot be looked at.
    pub fn segments_now(dir: &Path) -> Option<usize> {
        segment_names(dir).ok().map(|names| names.len())
    }

    /// The chunk segments, by name.
    pub fn segments(&self) -> impl Iterator<Item = &PinnedFile> {
        self.files.iter().filter(|file| file.rel_path.starts_with(CHUNKS))
    }

    /// What the files take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// The index.
    pub fn index(&self) -> Option<&PinnedFile> {
        self.files.iter().find(|file| file.rel_path == INDEX)
    }
}

fn open_all(block: &Block) -> Result<Pinned, PinError> {
    let mut files = Vec::new();
    for name in segment_names(&block.dir)? {
        files.push(open(&block.dir, format!("{CHUNKS}{name}"), Reason::MissingSegment)?);
    }
    if files.is_empty() {
        return Err(Broken::new(Reason::MissingSegment, "chunks/ holds no segment").into());
    }
    files.push(open(&block.dir, INDEX.to_owned(), Reason::Index)?);
    Ok(Pinned { id: block.id, files })
}

/// How many chunk segments the block in `dir` has now.
///
/// # Errors
/// As for [`Pinned::open`]; a block without `chunks/` is [`PinError::Broken`].
pub fn count_segments(dir: &Path) -> Result<usize, PinError> {
    Ok(segment_names(dir)?.len())
}

/// The names in `chunks/` that are those of segments, sorted. What else lies there is not part of the block.
fn segment_names(dir: &Path) -> Result<Vec<String>, PinError> {
    let entries = fs_err::read_dir(dir.join(CHUNKS)).map_err(|error| absent(error, CHUNKS, Reason::MissingSegment))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(
            name.to_str()
                .filter(|name| segment_number(name).is_some())
                .map(str::to_owned),
        );
    }
    names.sort_unstable();
    Ok(names)
}

fn open(dir: &Path, rel_path: String, reason: Reason) -> Result<PinnedFile, PinError> {
    let path = dir.join(&rel_path);
    // Opening a pipe would wait for its other end.
    if !fs_err::metadata(&path)
        .map_err(|error| absent(error, &rel_path, reason))?
        .is_file()
    {
        return Err(Broken::new(reason, format_args!("{rel_path} is not a file")).into());
    }
    let file = fs_err::File::open(&path).map_err(|error| absent(error, &rel_path, reason))?;
    let len = file.metadata()?.len();
    Ok(PinnedFile {
        rel_path,
        path,
        file: Arc::new(file.into_file()),
        len,
    })
}

fn absent(error: io::Error, rel_path: &str, reason: Reason) -> PinError {
    if gone(&error) {
        Broken::new(reason, format_args!("{rel_path} is missing")).into()
    } else {
        PinError::Io(error)
    }
}

fn vanished(dir: &Path) -> io::Result<bool> {
    match fs_err::metadata(dir.join(META)) {
        Ok(_) => Ok(false),
        Err(error) if gone(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::tsdb::testing::{self, Shape};

    const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

    fn made() -> (tempfile::TempDir, Block) {
        let data = tempfile::tempdir().unwrap();
        let block = testing::write_block(
            data.path(),
            ID,
            Shape {
                segments: 3,
                ..Shape::default()
            },
        );
        (data, block)
    }

    fn broken(block: &Block) -> (Reason, String) {
        match Pinned::open(block) {
            Err(PinError::Broken { reason, detail }) => (reason, detail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn opens_segments_and_index_and_nothing_else() {
        let (_data, block) = made();
        for other in [
            "tombstones",
            "index_tmp_p",
            "chunks/1",
            "chunks/000001.tmp",
            "chunks/0000004",
            "chunks/00000a",
        ] {
            fs_err::write(block.dir.join(other), "x").unwrap();
        }
        let pinned = Pinned::open(&block).unwrap();
        let names: Vec<&str> = pinned.files.iter().map(|file| file.rel_path.as_str()).collect();
        assert_eq!(names, ["chunks/000001", "chunks/000002", "chunks/000003", "index"]);
        assert_eq!(
            pinned.index().unwrap().len,
            fs_err::metadata(block.dir.join("index")).unwrap().len()
        );
        assert_eq!(pinned.segments().count(), 3);
    }

    #[test]
    fn what_is_pinned_outlives_the_block() {
        let (_data, block) = made();
        let pinned = Pinned::open(&block).unwrap();
        let index = fs_err::read(block.dir.join("index")).unwrap();
        fs_err::remove_dir_all(&block.dir).unwrap();
        let mut bytes = vec![0; index.len()];
        pinned.index().unwrap().file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, index);
        assert!(matches!(Pinned::open(&block), Err(PinError::Vanished)));
    }

    #[test]
    fn a_block_in_the_middle_of_its_deletion_has_vanished() {
        for gone in ["index", "chunks"] {
            let (_data, block) = made();
            fs_err::remove_file(block.dir.join(META)).unwrap();
            let path = block.dir.join(gone);
            if path.is_dir() {
                fs_err::remove_dir_all(path)
            } else {
                fs_err::remove_file(path)
            }
            .unwrap();
            assert!(matches!(Pinned::open(&block), Err(PinError::Vanished)), "{gone}");
        }
    }

    #[test]
    fn what_is_missing_or_no_file_makes_a_block_broken() {
        let (_data, block) = made();
        fs_err::remove_file(block.dir.join("index")).unwrap();
        assert_eq!(broken(&block), (Reason::Index, "index is missing".into()));
        fs_err::create_dir(block.dir.join("index")).unwrap();
        assert_eq!(broken(&block), (Reason::Index, "index is not a file".into()));
        for segment in ["000001", "000002", "000003"] {
            fs_err::remove_file(block.dir.join(CHUNKS).join(segment)).unwrap();
        }
        assert_eq!(
            broken(&block),
            (Reason::MissingSegment, "chunks/ holds no segment".into())
        );
        fs_err::remove_dir(block.dir.join(CHUNKS)).unwrap();
        assert_eq!(broken(&block), (Reason::MissingSegment, "chunks/ is missing".into()));
    }

    #[test]
    fn other_trouble_is_an_error_that_names_the_path() {
        let (_data, block) = made();
        fs_err::remove_file(block.dir.join("index")).unwrap();
        std::os::unix::fs::symlink("index", block.dir.join("index")).unwrap();
        let Err(PinError::Io(error)) = Pinned::open(&block) else {
            panic!()
        };
        assert!(
            error.to_string().contains(block.dir.join("index").to_str().unwrap()),
            "{error}"
        );
    }
}
