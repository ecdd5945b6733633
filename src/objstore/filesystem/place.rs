//! How a finished file gets its name.
//!
//! With a rename it takes the place of what bears the name. Where nothing may be replaced the system is asked for just
//! that; some file systems cannot do that, and there a second name of the same file does it, which fails when
//! the name is taken; and where there are no second names either, one look must do: two writers that come in the same
//! moment may then both believe to be the first. Each way is one step: a crash leaves the name without a file, or with
//! all of it.

use std::{io, path::Path};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::objstore::Placed;

/// What becomes of an object that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It is replaced.
    Replace,
    /// It stays.
    Keep,
}

/// Gives the file at `temp` the name `target`. `temp` may be left over.
pub(super) fn place(temp: &Path, target: &Path, existing: Existing) -> io::Result<Placed> {
    match existing {
        Existing::Replace => fs_err::rename(temp, target).map(|()| Placed::Created),
        Existing::Keep => new(temp, target, &[rename, link, check_and_rename]),
    }
}

/// A way to place a file without replacing another; `None` if it does not exist here.
type Way = fn(&Path, &Path) -> io::Result<Option<Placed>>;

fn new(temp: &Path, target: &Path, ways: &[Way]) -> io::Result<Placed> {
    for way in ways {
        if let Some(placed) = way(temp, target)? {
            return Ok(placed);
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

fn rename(temp: &Path, target: &Path) -> io::Result<Option<Placed>> {
    match renameat_with(CWD, temp, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Some(Placed::Created)),
        Err(Errno::EXIST) => Ok(Some(Placed::Exists)),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn link(temp: &Path, target: &Path) -> io::Result<Option<Placed>> {
    match rustix::fs::link(temp, target) {
        Ok(()) => Ok(Some(Placed::Created)),
        Err(Errno::EXIST) => Ok(Some(Placed::Exists)),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM | Errno::MLINK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_and_rename(temp: &Path, target: &Path) -> io::Result<Option<Placed>> {
    match fs_err::symlink_metadata(target) {
        Ok(_) => Ok(Some(Placed::Exists)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs_err::rename(temp, target)?;
            Ok(Some(Placed::Created))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_way_the_file_system_knows_nothing_is_replaced() {
        let unknown: Way = |_, _| Ok(None);
        for ways in [
            &[rename as Way][..],
            &[unknown, link],
            &[unknown, unknown, check_and_rename],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let [temp, target] = ["temp", "target"].map(|name| dir.path().join(name));
            for (text, expected) in [("first", Placed::Created), ("second", Placed::Exists)] {
                fs_err::write(&temp, text).unwrap();
                assert_eq!(new(&temp, &target, ways).unwrap(), expected);
                assert_eq!(fs_err::read_to_string(&target).unwrap(), "first");
                // A second name of the same file would change with the first.
                let _ = fs_err::remove_file(&temp);
            }
            let nowhere = dir.path().join("nowhere/target");
            fs_err::write(&temp, "").unwrap();
            let error = new(&temp, &nowhere, ways).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
