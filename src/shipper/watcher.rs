//! Hints that a block was sealed or removed: the rename that gives it its name, and how it lost it, seen by the kernel's
//! file watch.
//!
//! A hint only wakes the shipper early, dates the seal, and tells a removal by retention (a rename) from one in place (a
//! block that Prometheus withdraws); the scan is the truth. So nothing is lost when a watch cannot be set (network file
//! systems, too many watches), overflows, or dies with the directory: it is set anew before each scan, and blocks are then
//! found by the scan. Creation of a directory is no hint: a sealed block arrives by rename, a created one is being copied.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

use crate::tsdb::BlockId;

/// More hints than this wait at no time; what overflows is found by the scan.
const QUEUE: usize = 256;

/// What happened to a block's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was renamed to the block's name.
    Sealed,
    /// It was renamed to another name, as Prometheus does before it deletes a block that it needs no more.
    RenamedAway,
    /// It was deleted under the block's name.
    Deleted,
}

/// Something happened to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Which one.
    pub(crate) id: BlockId,
    /// What.
    pub(crate) change: Change,
    /// When it was seen.
    pub(crate) at: SystemTime,
}

/// A watch on the data directory.
#[derive(Debug)]
pub(crate) struct Watcher {
    dir: PathBuf,
    watch: Option<(RecommendedWatcher, (u64, u64))>,
    send: mpsc::Sender<Hint>,
    complained: bool,
}

impl Watcher {
    /// A watch on `dir`, not yet set, and where its hints come out.
    pub(crate) fn new(dir: &Path) -> (Self, mpsc::Receiver<Hint>) {
        let (send, receive) = mpsc::channel(QUEUE);
        (
            Self {
                dir: dir.to_owned(),
                watch: None,
                send,
                complained: false,
            },
            receive,
        )
    }

    /// Sets the watch if there is none on the directory that now bears the name. Call it before each scan.
    pub(crate) fn ensure(&mut self) {
        let now = fs_err::metadata(&self.dir).ok().map(|dir| (dir.dev(), dir.ino()));
        if self.watch.as_ref().map(|(_, watched)| *watched) == now {
            return;
        }
        self.watch = None;
        let Some(identity) = now else { return };
        match self.set() {
            Ok(watch) => {
                self.watch = Some((watch, identity));
                self.complained = false;
            }
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(dir = %self.dir.display(), %error, "cannot watch the data directory; blocks are found by the scan every 30 s instead");
            }
            Err(_) => {}
        }
    }

    fn set(&self) -> notify::Result<RecommendedWatcher> {
        let send = self.send.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            for (id, change) in event.iter().flat_map(change) {
                let at = SystemTime::now();
                // A full queue loses nothing: the scan that is due finds the block.
                let _ = send.try_send(Hint { id, change, at });
            }
        })?;
        watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// What `event` says happened to a block.
fn change(event: &Event) -> Option<(BlockId, Change)> {
    let (path, change) = match event.kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => (event.paths.last()?, Change::Sealed),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => (event.paths.first()?, Change::RenamedAway),
        EventKind::Remove(_) => (event.paths.first()?, Change::Deleted),
        _ => return None,
    };
    Some((BlockId::parse(path.file_name()?.to_str()?)?, change))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
    const B: &str = "01K4ABCDEFGHJKMNPQRSTVWXZ0";

    #[tokio::test]
    async fn a_rename_to_or_from_a_block_name_and_its_deletion_are_hints() {
        let dir = tempfile::tempdir().unwrap();
        let (mut watcher, mut hints) = Watcher::new(dir.path());
        watcher.ensure();
        fs_err::create_dir(dir.path().join(B)).unwrap();
        fs_err::write(dir.path().join("thanos.shipper.json.tmp"), "x").unwrap();
        fs_err::rename(
            dir.path().join("thanos.shipper.json.tmp"),
            dir.path().join("thanos.shipper.json"),
        )
        .unwrap();
        let building = dir.path().join(format!("{A}.tmp-for-creation"));
        fs_err::create_dir(&building).unwrap();
        fs_err::rename(&building, dir.path().join(A)).unwrap();
        fs_err::rename(dir.path().join(A), dir.path().join(format!("{A}.tmp-for-deletion"))).unwrap();
        fs_err::create_dir(dir.path().join("again")).unwrap();
        fs_err::rename(dir.path().join("again"), dir.path().join(B).join("in")).unwrap();
        fs_err::create_dir(&building).unwrap();
        fs_err::rename(&building, dir.path().join(A)).unwrap();
        fs_err::remove_dir_all(dir.path().join(A)).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let hint = tokio::time::timeout(Duration::from_secs(30), hints.recv()).await;
            let hint = hint.unwrap().unwrap();
            assert_eq!(hint.id.to_string(), A);
            seen.push(hint.change);
        }
        let expected = [Change::Sealed, Change::RenamedAway, Change::Sealed, Change::Deleted];
        assert_eq!(seen, expected);
        assert!(hints.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_or_anew_is_watched() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let (mut watcher, mut hints) = Watcher::new(&dir);
        watcher.ensure();
        for _ in 0..2 {
            fs_err::create_dir(&dir).unwrap();
            watcher.ensure();
            fs_err::create_dir(dir.join("x")).unwrap();
            fs_err::rename(dir.join("x"), dir.join(A)).unwrap();
            let hint = tokio::time::timeout(Duration::from_secs(30), hints.recv())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(hint.id.to_string(), A);
            // The old directory keeps its inode number while it exists, so that the new one cannot have it.
            fs_err::rename(
                &dir,
                parent
                    .path()
                    .join(format!("old-{}", fs_err::metadata(&dir).unwrap().ino())),
            )
            .unwrap();
            watcher.ensure();
        }
    }
}
