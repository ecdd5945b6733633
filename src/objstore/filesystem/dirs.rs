//! The directories between the bucket's and an object, each of them durable.
//!
//! A new directory lasts when the one that holds its name was flushed. That a directory exists does not say so: another
//! task may have made it a moment ago, or a process that was killed before it flushed. So each one is flushed once by
//! this process, whoever made it, and remembered by what tells it from one that takes its name later. How many are
//! remembered is bounded; what was forgotten is flushed once more.

use std::{
    collections::HashMap,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use rustix::io::Errno;

/// How many directories are remembered: two for each of some thousand blocks.
const REMEMBERED: usize = 4096;

/// One directory among those that have borne its name: device, inode, birth where the file system keeps it.
type Stamp = (u64, u64, Option<SystemTime>);

/// Directories that are known to last.
#[derive(Debug)]
pub(super) struct Dirs {
    /// The bucket's directory, which is not made here.
    root: PathBuf,
    durable: Mutex<HashMap<PathBuf, Stamp>>,
}

impl Dirs {
    pub(super) fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            durable: Mutex::default(),
        }
    }

    /// Makes `dir` and what is missing between the bucket's directory and it, and sees that all of them last.
    pub(super) fn make(&self, dir: &Path) -> io::Result<()> {
        self.make_with(dir, sync)
    }

    fn make_with(&self, dir: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        self.make_durable(&self.root, &sync)?;
        let below = dir
            .strip_prefix(&self.root)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let mut path = self.root.clone();
        for name in below {
            path.push(name);
            match fs_err::metadata(&path) {
                // Something has the name, and it is no directory.
                Err(_) if leads_nowhere(&path) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => match fs_err::create_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                },
                Ok(there) if !there.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            self.make_durable(&path, &sync)?;
        }
        Ok(())
    }

    /// Flushes the directory that holds the name of `path`, unless that was done.
    fn make_durable(&self, path: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let there = fs_err::metadata(path)?;
        let stamp = (there.dev(), there.ino(), there.created().ok());
        let durable = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable().get(path) == Some(&stamp) {
            return Ok(());
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| path != self.root || on_device(parent, stamp.0))
        {
            match sync(parent) {
                // What is above the bucket's directory need not be open to us.
                Err(error) if path == self.root && error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        let mut durable = durable();
        if durable.len() >= REMEMBERED {
            durable.clear();
        }
        durable.insert(path.to_owned(), stamp);
        Ok(())
    }
}

/// Whether a directory is on this device. The name of a mount point needs no flush.
fn on_device(dir: &Path, device: u64) -> bool {
    fs_err::metadata(dir).is_ok_and(|there| there.dev() == device)
}

/// Whether a symbolic link bears this name that leads to nothing, or in a circle.
pub(super) fn leads_nowhere(path: &Path) -> bool {
    matches!(rustix::fs::stat(path), Err(Errno::NOENT | Errno::LOOP))
        && fs_err::symlink_metadata(path).is_ok_and(|there| there.is_symlink())
}

/// Flushes what a directory holds of names, or the bytes of a file.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    fs_err::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tempfile::TempDir;

    use super::*;

    /// A bucket's directory below a temporary one, and what was flushed: the names below the latter.
    struct Scene {
        temp: TempDir,
        dirs: Dirs,
        flushed: RefCell<Vec<String>>,
    }

    impl Scene {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("root");
            fs_err::create_dir(&root).unwrap();
            let (dirs, flushed) = (Dirs::below(&root), RefCell::default());
            Self { temp, dirs, flushed }
        }

        fn path(&self, dir: &str) -> PathBuf {
            self.temp.path().join(dir)
        }

        fn make(&self, dir: &str) -> Vec<String> {
            self.flushed.take();
            let flush = |dir: &Path| {
                let name = dir.strip_prefix(self.temp.path()).unwrap().to_str().unwrap();
                self.flushed.borrow_mut().push(name.to_owned());
                sync(dir)
            };
            self.dirs.make_with(&self.path(dir), flush).unwrap();
            assert!(self.path(dir).is_dir());
            self.flushed.take()
        }
    }

    #[test]
    fn every_directory_up_to_the_root_is_flushed_once_whoever_made_it() {
        let scene = Scene::new();
        fs_err::create_dir_all(scene.path("root/a/b")).unwrap();
        assert_eq!(scene.make("root/a/b"), ["", "root", "root/a"]);
        assert_eq!(scene.make("root/a/b"), [""; 0]);
        assert_eq!(scene.make("root/a/c/d"), ["root/a", "root/a/c"]);
        assert_eq!(scene.make("root"), [""; 0]);
    }

    #[test]
    fn a_directory_that_was_made_anew_is_flushed_again() {
        let scene = Scene::new();
        scene.make("root/a/b");
        // The one that is kept keeps its number: the new one has another.
        fs_err::rename(scene.path("root/a"), scene.path("kept")).unwrap();
        fs_err::create_dir(scene.path("root/a")).unwrap();
        assert_eq!(scene.make("root/a/b"), ["root", "root/a"]);
    }

    #[test]
    fn what_could_not_be_flushed_is_not_taken_for_lasting() {
        let scene = Scene::new();
        let fails = |dir: &Path| match dir.ends_with("root/a") {
            true => Err(io::Error::other("the disk is broken")),
            false => Ok(()),
        };
        scene.dirs.make_with(&scene.path("root/a/b"), fails).unwrap_err();
        assert_eq!(scene.make("root/a/b"), ["root/a"]);
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        let scene = Scene::new();
        for at in 0..REMEMBERED + 10 {
            scene
                .dirs
                .make_with(&scene.path(&format!("root/{at}")), |_| Ok(()))
                .unwrap();
        }
        assert!(scene.dirs.durable.lock().unwrap().len() <= REMEMBERED);
    }

    #[test]
    fn the_root_itself_is_never_made() {
        let scene = Scene::new();
        fs_err::remove_dir(scene.path("root")).unwrap();
        let error = scene.dirs.make(&scene.path("root/a")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!scene.path("root").try_exists().unwrap());
    }
}
