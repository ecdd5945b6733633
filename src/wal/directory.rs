//! What is in the directory of a log: its segments and its checkpoints, by their final names. Reads the directory once; what
//! else is there, and what a checkpoint is called while it is written, is passed over.

use std::{collections::BTreeMap, io, os::unix::fs::MetadataExt, path::Path};

use super::layout::checkpoint_name;

/// A look at the directory of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// The segments, by number.
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The number of the newest checkpoint.
    pub(super) checkpoint: Option<u64>,
}

/// A segment, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its length (bytes); it grows as long as it is the last one.
    pub(super) len: u64,
    /// Tells it from another file of the same name.
    pub(super) inode: u64,
}

impl Directory {
    /// Looks at it. A directory that is missing holds nothing.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn look(dir: &Path) -> io::Result<Self> {
        let entries = match fs_err::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut found = Self::default();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = name.strip_prefix("checkpoint.").and_then(number) {
                if checkpoint_name(number) == name && entry.file_type()?.is_dir() {
                    found.checkpoint = found.checkpoint.max(Some(number));
                }
            } else if let Some(number) = number(name) {
                match entry.metadata() {
                    Ok(status) if status.is_file() => {
                        let (len, inode) = (status.len(), status.ino());
                        found.segments.insert(number, Segment { len, inode });
                    }
                    Ok(_) => {}
                    // Deleted since.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    /// The segment with which a copy of the log that begins now has to begin: the first one that is not in the newest checkpoint.
    pub(super) fn first(&self) -> Option<u64> {
        let from = self.checkpoint.map_or(0, |number| number + 1);
        self.segments.range(from..).next().map(|(number, _)| *number)
    }

    /// Whether no segment follows this one: then it may still grow.
    pub(super) fn is_last(&self, segment: u64) -> bool {
        self.segments.range(segment + 1..).next().is_none()
    }
}

/// A number of eight digits or more, as segments are called.
fn number(name: &str) -> Option<u64> {
    let is_number = name.len() >= 8 && name.bytes().all(|c| c.is_ascii_digit());
    name.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_whole_checkpoints_are_found_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Directory::look(&root.path().join("wal")).unwrap(), Directory::default());
        for dir in [
            "checkpoint.00000004",
            "checkpoint.00000003",
            "checkpoint.00000006.tmp",
            "00000009",
        ] {
            fs_err::create_dir(root.path().join(dir)).unwrap();
        }
        for (file, len) in [
            ("00000004", 1),
            ("00000005", 2),
            ("00000006", 3),
            ("0000007", 4),
            ("00000008x", 5),
        ] {
            fs_err::write(root.path().join(file), vec![0; len]).unwrap();
        }
        fs_err::write(root.path().join("checkpoint.00000007"), "").unwrap();
        let found = Directory::look(root.path()).unwrap();
        let segments: Vec<_> = found
            .segments
            .iter()
            .map(|(number, segment)| (*number, segment.len))
            .collect();
        assert_eq!(segments, [(4, 1), (5, 2), (6, 3)]);
        assert_eq!((found.checkpoint, found.first()), (Some(4), Some(5)));
        assert!(found.is_last(6) && !found.is_last(5));
    }
}
