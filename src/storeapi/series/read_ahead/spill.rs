//! Unnamed files below `--store.spill-dir` for answers that do not fit into memory; they are gone with the call or the
//! process. Where the file system cannot create a file without a name, it has one for a moment, in which a kill leaves it
//! behind, empty.
//!
//! All file I/O runs off the query thread, at most [`AT_ONCE`] operations at once: a directory that hangs blocks no
//! more threads than that, and not those that sort and parse for other calls. So does the close: of a file without a name
//! it deletes the data, which takes a while for some GiB, and for longer on a network. As many closes run at once, apart from
//! the operations, so that those of a directory that responds again do not wait for each other. The sum of the bytes is
//! bounded (`--store.spill-limit`); those of a file count until it is closed. A directory that is full or broken counts as none; that is logged once, until it works
//! again. One that hangs is given up by the caller, whose call ends.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use rustix::fs::{Mode, OFlags};
use tokio::runtime::Handle;

use crate::threads::BlockingPool;

/// What is written at once, in bytes, at least, and what is read at once, at most.
pub(super) const BLOCK: usize = 1 << 20;

/// Files that are worked on at once, and files that are closed at once.
const AT_ONCE: usize = 16;

/// The directory; clones share it.
#[derive(Clone, Debug)]
pub struct SpillDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limit: u64,
    used: Gauge,
    pool: BlockingPool,
    closing: BlockingPool,
    broken: AtomicBool,
    #[cfg(test)]
    probe: Probe,
}

/// What tests see of a directory, and what they do to it.
#[cfg(test)]
#[derive(Debug, Default)]
struct Probe {
    /// Files that were created for calls.
    created: std::sync::atomic::AtomicUsize,
    /// Writes that `--store.spill-limit` had no room for.
    refused: std::sync::atomic::AtomicUsize,
    /// How long an operation that begins now takes at least, in ms.
    takes_ms: AtomicU64,
    /// What happens in a close.
    on_close: std::sync::Mutex<Option<OnClose>>,
}

#[cfg(test)]
struct OnClose(Arc<dyn Fn() + Send + Sync>);

#[cfg(test)]
impl std::fmt::Debug for OnClose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnClose").finish_non_exhaustive()
    }
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpillError {
    /// All calls together have as much on disk as they may.
    #[error("--store.spill-limit is reached")]
    Full,
    /// The file system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What one call has on disk: written at one end, read at the other. It is closed off the query thread, wherever it is
/// dropped; without a runtime, or when that ends, it is closed where it is.
#[derive(Debug)]
pub(super) struct File {
    /// `None` only while it is dropped.
    open: Option<Arc<Open>>,
    spill_dir: SpillDir,
    written: u64,
    read: u64,
}

/// An open file. An operation that the end of its call overtakes has it, too, so that it may be the last to close it.
#[derive(Debug)]
struct Open {
    // Fields are dropped in this order: what is in the file counts until that is closed.
    file: std::fs::File,
    account: Account,
}

/// Bytes that count as on disk: also those of a write that the end of the call overtakes. Released when dropped.
#[derive(Debug)]
struct Account {
    spill_dir: SpillDir,
    bytes: AtomicU64,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.spill_dir.release(*self.bytes.get_mut());
    }
}

#[cfg(test)]
impl Drop for Open {
    fn drop(&mut self) {
        let on_close = {
            let on_close = self.account.spill_dir.0.probe.on_close.lock().unwrap();
            on_close.as_ref().map(|on_close| Arc::clone(&on_close.0))
        };
        if let Some(on_close) = on_close {
            on_close();
        }
    }
}

impl SpillDir {
    /// At most `limit` bytes below `dir`, in which a file is made and removed to see whether that works; `used` shows them.
    ///
    /// # Errors
    /// It does not.
    pub fn open(dir: &Path, limit: u64, used: Gauge) -> io::Result<Self> {
        let spill_dir = Self(Arc::new(Inner {
            dir: dir.to_owned(),
            limit,
            used,
            pool: BlockingPool::new(AT_ONCE),
            closing: BlockingPool::new(AT_ONCE),
            broken: AtomicBool::new(false),
            #[cfg(test)]
            probe: Probe::default(),
        }));
        create_unnamed(dir)?.write_all(b"x")?;
        Ok(spill_dir)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        u64::try_from(self.0.used.get()).unwrap_or(0)
    }

    /// An empty file.
    pub(super) async fn create_file(&self) -> io::Result<File> {
        let spill_dir = self.clone();
        // Made there, so that nobody closes it here who gave up waiting.
        let created = self.run(move || Ok(File::new(create_unnamed(&spill_dir.0.dir)?, spill_dir)));
        let file = created.await?;
        #[cfg(test)]
        self.0.probe.created.fetch_add(1, Ordering::Relaxed);
        Ok(file)
    }

    /// Runs `work` off the query thread.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        #[cfg(test)]
        if let takes_ms @ 1.. = self.0.probe.takes_ms.load(Ordering::Relaxed) {
            tokio::time::sleep(std::time::Duration::from_millis(takes_ms)).await;
        }
        self.0.pool.run(work).await?
    }

    /// Logs that it does not work and what follows from that, once until it works again.
    pub(super) fn log_failure(&self, error: &io::Error, consequence: &str) {
        if !self.0.broken.swap(true, Ordering::Relaxed) {
            let dir = self.0.dir.display();
            tracing::warn!(%dir, %error, consequence, "the directory of --store.spill-dir does not work; this is not \
                                                       logged again until a write to it succeeds");
        }
    }

    fn reserve(&self, bytes: u64) -> bool {
        let before = u64::try_from(self.0.used.inc_by(bytes as i64)).unwrap_or(0);
        let fits = before.saturating_add(bytes) <= self.0.limit;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: u64) {
        self.0.used.dec_by(bytes as i64);
    }
}

/// Shows bytes on disk, of which there are none without a directory.
pub fn register(registry: &mut Registry) -> Gauge {
    let used = Gauge::default();
    registry.register(
        "narthex_spilled_bytes",
        "Bytes on disk of answers that wait for slow clients (at most --store.spill-limit)",
        used.clone(),
    );
    used
}

/// A file without a name.
fn create_unnamed(dir: &Path) -> io::Result<std::fs::File> {
    match create_without_name(dir) {
        Ok(file) => Ok(file),
        // Not every file system can; where it fails for another reason, this does, too, and says so.
        Err(_) => create_and_unlink(dir),
    }
}

fn create_without_name(dir: &Path) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// A file that has no name any more.
fn create_and_unlink(dir: &Path) -> io::Result<std::fs::File> {
    let path = dir.join(format!(".narthex-{:016x}", rand::random::<u64>()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    fs_err::remove_file(&path)?;
    Ok(file)
}

impl File {
    fn new(file: std::fs::File, spill_dir: SpillDir) -> Self {
        let account = Account {
            spill_dir: spill_dir.clone(),
            bytes: AtomicU64::new(0),
        };
        Self {
            open: Some(Arc::new(Open { file, account })),
            spill_dir,
            written: 0,
            read: 0,
        }
    }

    fn open(&self) -> io::Result<Arc<Open>> {
        let open = self.open.as_ref().map(Arc::clone);
        open.ok_or_else(|| io::Error::other("the file is closed"))
    }

    /// Bytes that were written and not read.
    pub(super) fn unread(&self) -> u64 {
        self.written - self.read
    }

    /// Whether nothing was ever written.
    pub(super) fn is_unused(&self) -> bool {
        let bytes = |open: &Arc<Open>| open.account.bytes.load(Ordering::Relaxed);
        self.open.as_ref().is_none_or(|open| bytes(open) == 0)
    }

    /// Writes pieces behind what is there.
    pub(super) async fn write(&mut self, pieces: Vec<Bytes>) -> Result<(), SpillError> {
        let (open, at) = (self.open()?, self.written);
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if !self.spill_dir.reserve(bytes) {
            #[cfg(test)]
            self.spill_dir.0.probe.refused.fetch_add(1, Ordering::Relaxed);
            return Err(SpillError::Full);
        }
        open.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        let file = Arc::clone(&open);
        let written = self.spill_dir.run(move || {
            let mut at = at;
            for piece in pieces {
                file.file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok(())
        });
        match written.await {
            Ok(()) => {
                self.spill_dir.0.broken.store(false, Ordering::Relaxed);
                self.written += bytes;
                Ok(())
            }
            Err(error) => {
                open.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.spill_dir.release(bytes);
                Err(error.into())
            }
        }
    }

    /// Reads `length` bytes, of those that are unread, from where the last call of this ended.
    pub(super) async fn read(&mut self, length: usize) -> io::Result<Bytes> {
        let (open, at) = (self.open()?, self.read);
        let read = self.spill_dir.run(move || {
            let mut piece = BytesMut::zeroed(length);
            open.file.read_exact_at(&mut piece, at)?;
            Ok(piece.freeze())
        });
        let piece = read.await?;
        self.read += length as u64;
        Ok(piece)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            let closing = self.spill_dir.0.closing.clone();
            // As many wait as there are files.
            runtime.spawn(async move { closing.run(move || drop(open)).await });
        }
    }
}

#[cfg(test)]
impl SpillDir {
    /// How many files were created for calls.
    pub(in crate::storeapi::series) fn created(&self) -> usize {
        self.0.probe.created.load(Ordering::Relaxed)
    }

    /// How many writes had no room.
    pub(in crate::storeapi::series) fn refused(&self) -> usize {
        self.0.probe.refused.load(Ordering::Relaxed)
    }

    /// From now on an operation takes so long at least.
    pub(in crate::storeapi::series) fn slow_down(&self, takes: std::time::Duration) {
        let takes_ms = takes.as_millis() as u64;
        self.0.probe.takes_ms.store(takes_ms, Ordering::Relaxed);
    }

    /// Does this in each close from now on.
    fn on_close(&self, on_close: impl Fn() + Send + Sync + 'static) {
        *self.0.probe.on_close.lock().unwrap() = Some(OnClose(Arc::new(on_close)));
    }

    /// All files are closed in the end.
    async fn assert_released(&self) {
        let released = async {
            while self.0.used.get() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, released).await.expect("all is released");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_in_order_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let spill_dir = SpillDir::open(dir.path(), 3 * BLOCK as u64, Gauge::default()).unwrap();
        let mut file = spill_dir.create_file().await.unwrap();
        let piece = |at: usize| Bytes::from(vec![at as u8; BLOCK / 2 + at]);
        file.write(vec![piece(1), piece(2)]).await.unwrap();
        let mut all = file.read(BLOCK).await.unwrap().to_vec();
        file.write(vec![piece(3)]).await.unwrap();
        while file.unread() > 0 {
            let length = BLOCK.min(file.unread() as usize);
            all.extend_from_slice(&file.read(length).await.unwrap());
        }
        assert_eq!(all, [piece(1), piece(2), piece(3)].concat());
        // Nothing of it can be seen, and its bytes count until it is gone.
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        let refused = file.write(vec![piece(1), piece(1), piece(1)]).await.unwrap_err();
        assert!(matches!(refused, SpillError::Full));
        drop(file);
        spill_dir.assert_released().await;
    }

    #[test]
    fn a_file_has_no_name_at_any_moment_and_one_that_had_a_name_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let named = |file: &std::fs::File| {
            // What the kernel tells of a file that has no name: where it was created, and under which name if any.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
            let path = fs_err::read_link(path).unwrap();
            path.to_string_lossy().contains(".narthex-")
        };
        let (unnamed, unlinked) = (
            create_unnamed(dir.path()).unwrap(),
            create_and_unlink(dir.path()).unwrap(),
        );
        assert_eq!((named(&unnamed), named(&unlinked)), (false, true));
        for file in [unnamed, unlinked] {
            file.write_all_at(b"abc", 1).unwrap();
            let mut read = [0; 3];
            file.read_exact_at(&mut read, 1).unwrap();
            assert_eq!(&read, b"abc");
        }
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_call_was_writing_when_it_ended_counts_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let spill_dir = SpillDir::open(dir.path(), 3 * BLOCK as u64, Gauge::default()).unwrap();
        // A write may be done at the first look.
        for _ in 0..20 {
            let mut file = spill_dir.create_file().await.unwrap();
            {
                let mut writing = std::pin::pin!(file.write(vec![Bytes::from(vec![7; BLOCK])]));
                let _ = futures_util::poll!(writing.as_mut());
            }
            assert_eq!(spill_dir.0.used.get(), BLOCK as i64);
            drop(file);
            spill_dir.assert_released().await;
        }
    }

    #[tokio::test]
    async fn a_file_is_closed_on_another_thread_of_which_there_are_few_and_counts_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let spill_dir = SpillDir::open(dir.path(), 1 << 30, Gauge::default()).unwrap();
        let (goes_on, hangs) = std::sync::mpsc::channel::<()>();
        let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let (hangs, here) = (std::sync::Mutex::new(hangs), std::thread::current().id());
        spill_dir.on_close(move || {
            let thread = std::thread::current().id();
            begins.send(thread).unwrap();
            // On the thread of queries it would hang for ever.
            if thread != here {
                hangs.lock().unwrap().recv().unwrap_err();
            }
        });
        let mut files = Vec::new();
        for _ in 0..=AT_ONCE {
            let mut file = spill_dir.create_file().await.unwrap();
            file.write(vec![Bytes::from_static(b"x")]).await.unwrap();
            files.push(file);
        }
        drop(files);
        for _ in 0..AT_ONCE {
            assert_ne!(begun.recv().await.unwrap(), here);
        }
        // Files of other calls are worked on meanwhile.
        let mut other = spill_dir.create_file().await.unwrap();
        other.write(vec![Bytes::from_static(b"yz")]).await.unwrap();
        assert_eq!(other.read(2).await.unwrap(), "yz");
        assert!(begun.try_recv().is_err());
        assert_eq!(spill_dir.0.used.get(), AT_ONCE as i64 + 3);
        drop((goes_on, other));
        spill_dir.assert_released().await;
    }

    #[tokio::test]
    async fn a_directory_that_hangs_keeps_few_threads() {
        let dir = tempfile::tempdir().unwrap();
        let spill_dir = SpillDir::open(dir.path(), BLOCK as u64, Gauge::default()).unwrap();
        let (goes_on, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = Arc::new(std::sync::Mutex::new(hangs));
        let mut stuck: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let hangs = Arc::clone(&hangs);
                Box::pin(spill_dir.0.pool.run(move || hangs.lock().unwrap().recv().is_err()))
            })
            .collect();
        for one in &mut stuck {
            assert!(futures_util::poll!(one).is_pending());
        }
        // Those that wait for it do not even begin, and can be given up.
        drop(stuck);
        let mut start = std::pin::pin!(spill_dir.create_file());
        for _ in 0..100 {
            assert!(futures_util::poll!(start.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(goes_on);
        start.await.unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_told_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = SpillDir::open(&missing, 1, Gauge::default()).unwrap_err().to_string();
        assert!(error.contains("missing/.narthex-"), "{error}");
    }
}
