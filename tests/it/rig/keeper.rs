//! Copies of sealed blocks, to compare with after Prometheus has deleted its own.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use fs_err as fs;
use tempfile::TempDir;

use super::{prometheus::sealed, tools::temp_dir};

/// Hard-links every block of a data directory into a safe place as soon as it appears; ends when dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    data: PathBuf,
    safe: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Watches `data`, which need not exist yet and must be on the file system of the target directory.
    pub(crate) fn watch(data: &Path) -> Keeper {
        let safe = temp_dir("keeper");
        let stop = Arc::new(AtomicBool::new(false));
        let (from, to, flag) = (data.to_owned(), safe.path().to_owned(), Arc::clone(&stop));
        let watch = move || {
            while !flag.load(Ordering::Relaxed) {
                keep(&from, &to);
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let thread = std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(watch)
            .expect("a thread can be started");
        Keeper {
            data: data.to_owned(),
            safe,
            stop,
            thread: Some(thread),
        }
    }

    /// Every block that was seen so far, sorted.
    pub(crate) fn blocks(&self) -> Vec<String> {
        sealed(self.safe.path())
    }

    /// The copy of a block.
    pub(crate) fn block(&self, id: &str) -> Option<PathBuf> {
        let path = self.safe.path().join(id);
        path.is_dir().then_some(path)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed and must not become a second one here.
            let _ = thread.join();
        }
    }
}

fn keep(data: &Path, safe: &Path) {
    for id in sealed(data) {
        let copy = safe.join(&id);
        if !copy.is_dir() {
            let half = safe.join(format!("{id}.half"));
            // An error means that the block is being deleted.
            if link_tree(&data.join(&id), &half).is_ok() {
                fs::rename(half, copy).expect("a rename within one directory works");
            } else {
                let _ = fs::remove_dir_all(half);
            }
        }
    }
}

/// Makes `to` a copy of the directory `from` by hard links.
pub(crate) fn link_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}
