//! Carries the data of one block to the bucket, and proves that it is there.
//!
//! What is done before anything counts as carried: every file is opened, the block is checked, each file is sent and
//! acknowledged with its checksum, and one listing shows exactly these objects with exactly these sizes. Dropping the
//! future stops the requests; what was acknowledged by then is remembered for this process' life and not sent again while
//! the listing still shows it. Of a block that was checked in full beforehand, what an earlier life sent is compared and not
//! sent again either.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::{
    catalog::MARKERS,
    objstore::{self, Bucket, Comparison, Object, Source},
    tsdb::{Block, BlockId, Broken, BucketFile, PinError, Pinned, PinnedFile, Reason, check},
};

/// Blocks that are read for a check at the same time.
const CHECKS_AT_ONCE: usize = 2;
/// Blocks whose files are sent at the same time: enough to keep every request slot busy, and few, so that the oldest block
/// does not share the line with all others.
const SENDS_AT_ONCE: usize = 2;
/// Objects of a block that are held against its files at the same time.
const COMPARISONS_AT_ONCE: usize = 4;
/// How often a listing that does not show what was sent is asked for again, for stores that lag.
const LISTINGS: u32 = 3;
/// The wait between two such listings.
const LISTING_WAIT: Duration = Duration::from_millis(300);

/// What was found out about a block's files before it is carried, by reading all of them.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The files as they were before they were read.
    pub(crate) stamps: Vec<Stamp>,
    /// They, with their hashes if these are to be recorded.
    pub(crate) files: Vec<BucketFile>,
}

/// One block to be carried.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) block: Block,
    /// It was seen to be sealed in this process' life and not tried yet: nothing of it can be in the bucket.
    pub(crate) fresh: bool,
    /// Its `meta.json` is in the bucket and readable.
    pub(crate) committed: bool,
    /// It was checked in full, and must still be what it was then. What an earlier life has sent of it is held against
    /// the files and not sent again.
    pub(crate) known: Option<Known>,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Carried {
    /// All data is in the bucket.
    Ready(Cargo),
    /// The block is broken.
    Broken(Broken),
    /// It was deleted locally before all of it was opened.
    Vanished,
}

/// A block whose data is in the bucket.
#[derive(Debug)]
pub(crate) struct Cargo {
    pub(crate) pinned: Pinned,
    /// The files as they were before the first byte of them was read.
    pub(crate) stamps: Vec<Stamp>,
    pub(crate) files: Vec<BucketFile>,
}

/// Why the data of a block, or its commit, is not proven to be in the bucket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] objstore::Error),
    /// This host failed.
    #[error("cannot read the block: {0}")]
    Local(#[from] io::Error),
    /// The bucket acknowledged everything, and shows something else.
    #[error(
        "the store acknowledged every object of {place} but lists something else ({wrong}); the block does not count as \
         durable, and is sent again. If this stays, another program writes to this directory, or the store loses writes"
    )]
    Unproven { place: String, wrong: String },
    /// Objects that are not of the block stand in its directory in the bucket.
    #[error("{names} in {place} does not belong to the block")]
    Foreign { place: String, names: String },
    /// The files changed while they were sent.
    #[error("{0} changed while the block was sent; it starts over")]
    Changed(String),
    /// The block cannot bear the labels.
    #[error(
        "Prometheus has no external labels any more, and a block without labels cannot be committed; set global.external_labels"
    )]
    NoLabels,
}

/// Tells a file from one that took its place, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    pub(crate) len: u64,
    modified: SystemTime,
}

/// What the process remembers of a block that it tried to carry.
#[derive(Debug, Default)]
struct Memory {
    /// The files that were checked.
    checked: Option<Vec<Stamp>>,
    /// The objects that were acknowledged, with the file as it was before it was sent.
    acknowledged: HashMap<String, Stamp>,
    /// `meta.json` was sent, and whether it is there is not known.
    unsettled: bool,
}

/// The carrier of all blocks to one bucket.
#[derive(Debug)]
pub(crate) struct Courier {
    pub(crate) bucket: Arc<dyn Bucket>,
    sha256: bool,
    checks: Semaphore,
    sends: Semaphore,
    memory: Mutex<HashMap<BlockId, Memory>>,
}

impl Courier {
    pub(crate) fn new(bucket: Arc<dyn Bucket>, sha256: bool) -> Self {
        Self {
            bucket,
            sha256,
            checks: Semaphore::new(CHECKS_AT_ONCE),
            sends: Semaphore::new(SENDS_AT_ONCE),
            memory: Mutex::default(),
        }
    }

    /// Forgets blocks that need no more carrying.
    pub(super) fn retain(&self, keep: impl Fn(BlockId) -> bool) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.retain(|id, _| keep(*id));
        memory.shrink_to_fit();
    }

    /// Whether the block may be in the bucket without our knowing.
    pub(crate) fn is_unsettled(&self, id: BlockId) -> bool {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(&id).is_some_and(|memory| memory.unsettled)
    }

    pub(super) fn set_unsettled(&self, id: BlockId, unsettled: bool) {
        self.remember(id, |memory| memory.unsettled = unsettled);
    }

    /// Carries all data of a block, but not its `meta.json`.
    pub(crate) async fn carry(&self, job: &Job) -> Result<Carried, Error> {
        let id = job.block.id;
        if let Some(known) = &job.known {
            self.remember(id, |memory| memory.checked = Some(known.stamps.clone()));
        }
        let (pinned, stamps) = match self.pin(&job.block).await? {
            Ok(pinned) => pinned,
            Err(carried) => return Ok(carried),
        };
        if job.known.as_ref().is_some_and(|known| known.stamps != stamps) {
            return Err(Error::Changed(job.block.dir.display().to_string()));
        }
        let dir = id.to_string();
        let there = if job.fresh {
            Vec::new()
        } else {
            self.bucket.list(&dir).await?
        };
        if !job.fresh
            && let Err(error) = self.bucket.abort_stale(&dir).await
        {
            tracing::debug!(%error, "what earlier uploads left behind stays");
        }
        let permit = self.sends.acquire().await.map_err(io::Error::other)?;
        if job.known.is_some() {
            self.recognize(id, &pinned, &stamps, &there).await?;
        }
        self.send(job, &pinned, &stamps, &there).await?;
        drop(permit);
        let files = match &job.known {
            Some(known) => known.files.clone(),
            None => self.describe(&pinned).await?,
        };
        self.prove(id, &pinned, None).await?;
        Ok(Carried::Ready(Cargo { pinned, stamps, files }))
    }

    /// What is wrong with the block, as far as one can see from here.
    pub(super) async fn find_broken(&self, block: &Block) -> Option<Broken> {
        match self.pin(block).await {
            Ok(Err(Carried::Broken(broken))) => Some(broken),
            // Whatever else it is shows when the block is carried.
            _ => None,
        }
    }

    /// Opens and checks the block.
    async fn pin(&self, block: &Block) -> Result<Result<(Pinned, Vec<Stamp>), Carried>, Error> {
        let _permit = self.checks.acquire().await.map_err(io::Error::other)?;
        let checked = self.remember(block.id, |memory| memory.checked.clone());
        let block = block.clone();
        let id = block.id;
        let found = tokio::task::spawn_blocking(move || open(&block, checked.as_deref()))
            .await
            .map_err(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => io::Error::other(error),
            })?;
        Ok(match found {
            Ok((pinned, stamps)) => {
                self.remember(id, |memory| memory.checked = Some(stamps.clone()));
                Ok((pinned, stamps))
            }
            Err(PinError::Vanished) => Err(Carried::Vanished),
            Err(PinError::Broken { reason, detail }) => Err(Carried::Broken(Broken { reason, detail })),
            Err(PinError::Io(error)) if exhausted(&error) => return Err(Error::Local(error)),
            Err(PinError::Io(error)) => Err(Carried::Broken(Broken {
                reason: Reason::Unreadable,
                detail: error.to_string(),
            })),
        })
    }

    /// Holds what is listed of a block against its files; what is the same counts as acknowledged.
    async fn recognize(&self, id: BlockId, pinned: &Pinned, stamps: &[Stamp], there: &[Object]) -> Result<(), Error> {
        let listed: HashMap<&str, u64> = there.iter().map(|object| (object.key.as_str(), object.size)).collect();
        let candidates = pinned.files.iter().zip(stamps).filter_map(|(file, stamp)| {
            let key = format!("{id}/{}", file.rel_path);
            (listed.get(key.as_str()) == Some(&file.len)).then_some((key, file, *stamp))
        });
        let compared = candidates.map(|(key, file, stamp)| async move {
            if let Comparison::Same(_) = self.bucket.compare(&key, &file.source()).await? {
                self.remember(id, |memory| memory.acknowledged.insert(key, stamp));
            }
            Ok::<_, Error>(())
        });
        stream::iter(compared.collect::<Vec<_>>())
            .buffer_unordered(COMPARISONS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn send(&self, job: &Job, pinned: &Pinned, stamps: &[Stamp], there: &[Object]) -> Result<(), Error> {
        let dir = job.block.id.to_string();
        let there: HashMap<&str, u64> = there.iter().map(|object| (object.key.as_str(), object.size)).collect();
        let missing = pinned.files.iter().zip(stamps).filter(|(file, stamp)| {
            let key = format!("{dir}/{}", file.rel_path);
            let acknowledged = self.remember(job.block.id, |memory| memory.acknowledged.get(&key) == Some(stamp));
            !((job.committed || acknowledged) && there.get(key.as_str()) == Some(&file.len))
        });
        let sends = missing.map(|(file, stamp)| async {
            let key = format!("{dir}/{}", file.rel_path);
            self.bucket.put_file(&key, &file.source()).await?;
            self.remember(job.block.id, |memory| memory.acknowledged.insert(key, *stamp));
            Ok::<_, Error>(())
        });
        // The bucket limits how many requests run at once; here only the number of waiting futures is bounded.
        stream::iter(sends.collect::<Vec<_>>())
            .buffer_unordered(64)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn describe(&self, pinned: &Pinned) -> Result<Vec<BucketFile>, Error> {
        let mut files = Vec::with_capacity(pinned.files.len());
        for file in &pinned.files {
            let sha256 = if self.sha256 {
                let (descriptor, len) = (Arc::clone(&file.file), file.len);
                let digest = tokio::task::spawn_blocking(move || sha256(&descriptor, len)).await;
                Some(digest.map_err(io::Error::other)??)
            } else {
                None
            };
            files.push(BucketFile {
                rel_path: file.rel_path.clone(),
                size: Some(file.len),
                sha256,
            });
        }
        Ok(files)
    }

    /// Lists the block in the bucket: exactly its files, with exactly their sizes, and its `meta.json` of `meta` bytes
    /// once that was sent.
    pub(crate) async fn prove(&self, id: BlockId, pinned: &Pinned, meta: Option<u64>) -> Result<(), Error> {
        let dir = id.to_string();
        let mut tries = 0;
        loop {
            let listed = self.bucket.list(&dir).await?;
            let (wrong, foreign) = compare(&dir, &pinned.files, meta, &listed);
            if !foreign.is_empty() {
                let (place, names) = (self.place(&dir), foreign.join(", "));
                return Err(Error::Foreign { place, names });
            }
            if wrong.is_empty() {
                return Ok(());
            }
            tries += 1;
            if tries == LISTINGS {
                self.remember(id, |memory| memory.acknowledged.clear());
                let (place, wrong) = (self.place(&dir), wrong.join(", "));
                return Err(Error::Unproven { place, wrong });
            }
            tokio::time::sleep(LISTING_WAIT).await;
        }
    }

    /// Where a directory of the bucket is, for messages.
    fn place(&self, dir: &str) -> String {
        format!("{}/{dir}", self.bucket.identity())
    }

    fn remember<T>(&self, id: BlockId, f: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        f(memory.entry(id).or_default())
    }
}

/// What differs between the files of a block and the objects listed for it, and which objects are not of it.
fn compare<'a>(
    dir: &str,
    files: &[PinnedFile],
    meta: Option<u64>,
    listed: &'a [Object],
) -> (Vec<String>, Vec<&'a str>) {
    let mut there: BTreeMap<&'a str, u64> = listed
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(dir)?.strip_prefix('/')?, object.size)))
        .collect();
    let mut wrong = Vec::new();
    let due = files.iter().map(|file| (file.rel_path.as_str(), file.len));
    for (name, len) in due.chain(meta.map(|len| ("meta.json", len))) {
        match there.remove(name) {
            Some(size) if size == len => {}
            Some(size) => wrong.push(format!("{name} has {size} bytes instead of {len}")),
            None => wrong.push(format!("{name} is missing")),
        }
    }
    let foreign = there
        .into_keys()
        .filter(|name| *name != "meta.json" && !MARKERS.contains(name))
        .collect();
    (wrong, foreign)
}

/// Opens the block and checks it, unless exactly these files were checked before.
fn open(block: &Block, checked: Option<&[Stamp]>) -> Result<(Pinned, Vec<Stamp>), PinError> {
    let pinned = Pinned::open(block)?;
    let stamps = stamps(&pinned)?;
    if checked != Some(&stamps[..]) {
        check::quick(&pinned)?;
    }
    Ok((pinned, stamps))
}

/// What each file is now. The time of change of the inode is left out: a link or a deletion moves it.
pub(crate) fn stamps(pinned: &Pinned) -> io::Result<Vec<Stamp>> {
    let stamp = |now: std::fs::Metadata| {
        Ok(Stamp {
            inode: now.ino(),
            len: now.len(),
            modified: now.modified()?,
        })
    };
    pinned
        .files
        .iter()
        .map(|file| file.file.metadata().and_then(stamp))
        .collect()
}

impl PinnedFile {
    /// The file as a bucket takes it.
    pub(crate) fn source(&self) -> Source {
        Source {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            len: self.len,
        }
    }
}

/// Whether this host has run out of something that comes back by itself: no fault of the block.
fn exhausted(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) || error.kind() == io::ErrorKind::OutOfMemory
}

fn sha256(file: &File, len: u64) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < len {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("cut at {at} of {len} bytes"),
            ));
        }
        digest.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rel_path: &str, len: u64) -> PinnedFile {
        let file = Arc::new(tempfile::tempfile().unwrap());
        PinnedFile {
            rel_path: rel_path.into(),
            path: rel_path.into(),
            file,
            len,
        }
    }

    fn object(key: &str, size: u64) -> Object {
        Object { key: key.into(), size }
    }

    #[test]
    fn a_listing_must_show_exactly_the_files() {
        let files = [file("chunks/000001", 8), file("index", 5)];
        let whole = [object("A/chunks/000001", 8), object("A/index", 5)];
        let good = (Vec::new(), Vec::new());
        assert_eq!(compare("A", &files, None, &whole), good);
        let marked = [
            &whole[..],
            &[object("A/meta.json", 3), object("A/no-compact-mark.json", 1)],
        ]
        .concat();
        assert_eq!(compare("A", &files, None, &marked), good);
        assert_eq!(compare("A", &files, Some(3), &marked), good);
        let (wrong, _) = compare("A", &files, Some(4), &marked);
        assert_eq!(wrong, ["meta.json has 3 bytes instead of 4"]);
        assert_eq!(compare("A", &files, Some(3), &whole).0, ["meta.json is missing"]);
        let (wrong, foreign) = {
            let listed = [object("A/chunks/000001", 7), object("A/chunks/000002", 8)];
            let (wrong, foreign) = compare("A", &files, None, &listed);
            (wrong, foreign.join(","))
        };
        assert_eq!(wrong, ["chunks/000001 has 7 bytes instead of 8", "index is missing"]);
        assert_eq!(foreign, "chunks/000002");
    }

    #[test]
    fn sha256_is_the_one_of_the_standard_and_a_short_file_is_an_error() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file, 3).unwrap(), expected);
        assert_eq!(sha256(&file, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
