//! Uploads the data of one block, and proves that it is in the bucket.
//!
//! What is done before a block counts as uploaded: every file is opened, the block is checked, each file is sent and
//! acknowledged with its checksum, and the bucket shows exactly these objects with exactly these sizes. Dropping the
//! future stops the requests; what was acknowledged by then is remembered for this run of the process and not sent again unless
//! the proof fails. Of a block that was checked in full beforehand, what an earlier run sent is compared and not
//! sent again either.
//!
//! What an earlier run left open in the bucket (multipart uploads, temporary files) is aborted beside the data path,
//! once for each block; this may fail or hang, and no block waits for it.

mod describe;
mod open;
mod policy;
mod rewritten;
mod send;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;
use tracing::{Instrument as _, info_span};

#[cfg(test)]
pub(super) use self::open::PANICS;
pub(super) use self::policy::NEWER_ENCODINGS;
pub use self::policy::{ContentPolicy, NewerEncodings, Overlapping};
use self::{
    describe::described,
    open::{Opened, exhausted, open},
    policy::Treatment,
};
pub(crate) use self::{
    open::{FileStamp, HeldFiles, stamps},
    rewritten::rewritten_files,
};
use super::under_way::UnderWay;
use crate::{
    lineage::may_repair,
    objstore::{self, Bucket},
    spans,
    threads::blocking,
    tsdb::{Block, BlockId, Broken, BucketFile, Depth, Encodings, Meta, PinError, Pinned, Reason, RewrittenFrom},
};

/// Blocks that are read for a check at the same time.
const CHECKS_AT_ONCE: usize = 2;
/// Blocks whose files are sent at the same time: enough to keep every request slot busy, and few, so that the oldest block
/// does not share the bandwidth with all others.
const SENDS_AT_ONCE: usize = 2;

/// What was found out about a block's files before it is uploaded, by reading all of them.
#[derive(Clone, Debug)]
pub(crate) struct CheckedFiles {
    /// The files as they were before they were read.
    pub(crate) stamps: Vec<FileStamp>,
    /// They, with their hashes if these are to be recorded.
    pub(crate) files: Vec<BucketFile>,
    /// Of which encodings their chunks are.
    pub(crate) encodings: Encodings,
}

/// What is missing of a block that is committed.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    pub(crate) missing: Vec<BucketFile>,
    /// The block was rewritten on its way to the bucket.
    pub(crate) rewritten: bool,
}

/// One block to be uploaded.
#[derive(Clone, Debug)]
pub(crate) struct UploadRequest {
    pub(crate) block: Block,
    /// It was seen to be sealed in this run of the process and not tried yet: nothing of it can be in the bucket.
    pub(crate) fresh: bool,
    /// Objects that are missing of a block that is committed: nothing else of it is sent.
    pub(crate) repair: Option<Repair>,
    /// What stands in the place of its `meta.json` is none, and is to be replaced.
    pub(crate) replace: bool,
    /// Blocks whose times it overlaps, in words; empty if there are none.
    pub(crate) overlapped: String,
    /// Its files, where they are held open in case it is deleted.
    pub(crate) held: Option<Arc<HeldFiles>>,
    /// How closely its chunks are looked at, unless it was checked in full.
    pub(crate) depth: Depth,
    /// It was checked in full, and must still be what it was then. What an earlier run has sent of it is compared
    /// with the files and not sent again.
    pub(crate) checked: Option<CheckedFiles>,
}

impl UploadRequest {
    /// A block of which nothing is known.
    pub(crate) fn new(block: Block) -> Self {
        Self {
            block,
            fresh: false,
            repair: None,
            replace: false,
            overlapped: String::new(),
            held: None,
            depth: Depth::Sample,
            checked: None,
        }
    }
}

/// What became of an upload.
#[derive(Debug)]
pub(crate) enum UploadOutcome {
    /// All of its data is in the bucket.
    Uploaded(Box<BlockFiles>),
    /// What was missing of a block that is committed is there.
    Repaired,
    /// Its content is not for the bucket, by the operator's choice or since it cannot be rewritten.
    Held { why: String },
    /// The block is broken.
    Broken(Broken),
    /// It was deleted locally before all of it was opened.
    Vanished,
}

/// The files of a block whose data is in the bucket.
#[derive(Debug)]
pub(crate) struct BlockFiles {
    /// Its whole `meta.json`, read before the files were opened.
    pub(crate) meta: Box<Meta>,
    pub(crate) pinned: Pinned,
    /// The files as they were before the first byte of them was read.
    pub(crate) stamps: Vec<FileStamp>,
    /// As `meta.json` lists them.
    pub(crate) entries: Vec<BucketFile>,
    /// Of which encodings the chunks are on the local disk, as far as was looked.
    pub(crate) encodings: Encodings,
    /// What was rewritten on the way to the bucket.
    pub(crate) rewritten: Option<RewrittenFrom>,
    /// Why a compactor must leave the block alone, if it must.
    pub(crate) no_compact: Option<String>,
    /// It must not be downsampled either.
    pub(crate) no_downsample: bool,
}

/// Why the data of a block, or its commit, is not proven to be in the bucket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] objstore::Error),
    /// This host has run out of something, and other blocks fare no better.
    #[error("cannot read the block: {0}")]
    Local(io::Error),
    /// A file of this block is there and cannot be read, as on a disk that fails in places; other blocks may be read.
    #[error("cannot read the block: {0}")]
    Unreadable(String),
    /// The bucket acknowledged everything, and shows something else.
    #[error(
        "the store acknowledged every object of {place} but lists something else ({wrong}); the block does not count as \
         durable, and is sent again. If this stays, another program writes to this directory, or the store loses writes"
    )]
    Unproven { place: String, wrong: String },
    /// Objects that are not of the block stand in its directory in the bucket.
    #[error("{names} in {place} does not belong to the block")]
    Foreign { place: String, names: String },
    /// The block is marked for deletion in the bucket: whatever is sent there will be deleted.
    #[error(
        "{place} is marked for deletion, so that what is sent there would be deleted; if the block is to be kept, remove its \
         deletion-mark.json, or wait until it is deleted: then it is sent again"
    )]
    Marked { place: String },
    /// A block of this name is committed in the bucket and is another one, or differs; it is never overwritten.
    #[error("{0}")]
    Conflict(String),
    /// A bug, met in this block.
    #[error("{0}")]
    Panicked(String),
    /// The files changed while they were sent.
    #[error("{0} changed while the block was sent; it starts over")]
    Changed(String),
    /// The block cannot bear the labels.
    #[error(
        "Prometheus has no external labels any more, and a block without labels cannot be committed; set global.external_labels"
    )]
    NoLabels,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match exhausted(&error) {
            true => Self::Local(error),
            false => Self::Unreadable(error.to_string()),
        }
    }
}

/// What the process remembers of a block that it tried to upload.
#[derive(Debug, Default)]
pub(super) struct BlockState {
    /// The files that were checked, and of which encodings their chunks are.
    checked: Option<(Vec<FileStamp>, Encodings)>,
    /// The files that were acknowledged, by their names in the block, as they were before they were sent.
    pub(super) acknowledged: HashMap<String, FileStamp>,
    /// The rewritten files that were acknowledged, and their lengths (bytes); of the files that were checked.
    pub(super) rewritten: HashMap<String, u64>,
    /// `meta.json` was sent, and whether it is there is not known.
    unsettled: bool,
    /// What an earlier run left open of it was looked for.
    aborted_stale: bool,
}

/// Uploads blocks to one bucket.
#[derive(Debug)]
pub(crate) struct Uploader {
    pub(crate) bucket: Arc<dyn Bucket>,
    sha256: bool,
    pub(super) content: ContentPolicy,
    checks: Semaphore,
    sends: Semaphore,
    rewrites: Semaphore,
    cleanups: Arc<Semaphore>,
    states: Mutex<HashMap<BlockId, BlockState>>,
    under_way: UnderWay,
}

impl Uploader {
    pub(crate) fn new(bucket: Arc<dyn Bucket>, sha256: bool, content: ContentPolicy) -> Self {
        Self {
            bucket,
            sha256,
            content,
            checks: Semaphore::new(CHECKS_AT_ONCE),
            sends: Semaphore::new(SENDS_AT_ONCE),
            rewrites: Semaphore::new(1),
            cleanups: Arc::new(Semaphore::new(1)),
            states: Mutex::default(),
            under_way: UnderWay::default(),
        }
    }

    /// The same, with this list of what is being sent.
    pub(super) fn listing(self, under_way: UnderWay) -> Self {
        Self { under_way, ..self }
    }

    /// Forgets blocks that need no more uploading.
    pub(super) fn retain(&self, keep: impl Fn(BlockId) -> bool) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|id, _| keep(*id));
        states.shrink_to_fit();
    }

    /// Whether the block may be in the bucket without our knowing.
    pub(crate) fn is_unsettled(&self, id: BlockId) -> bool {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.get(&id).is_some_and(|state| state.unsettled)
    }

    pub(super) fn set_unsettled(&self, id: BlockId, unsettled: bool) {
        self.with_state(id, |state| state.unsettled = unsettled);
    }

    /// Uploads all data of a block, but not its `meta.json`.
    pub(crate) async fn upload(&self, request: &UploadRequest) -> Result<UploadOutcome, Error> {
        let id = request.block.id;
        if let Some(known) = &request.checked {
            let checked = (known.stamps.clone(), known.encodings.clone());
            self.with_state(id, |state| state.checked = Some(checked));
        }
        let Opened {
            meta,
            pinned,
            stamps,
            encodings,
        } = match self
            .pin(request, request.depth)
            .instrument(info_span!(target: spans::TARGET, "check"))
            .await?
        {
            Ok(opened) => opened,
            Err(outcome) => return Ok(outcome),
        };
        if request.checked.as_ref().is_some_and(|known| known.stamps != stamps) {
            return Err(Error::Changed(request.block.dir.display().to_string()));
        }
        if **meta != *request.block.meta {
            return Err(Error::Changed(
                request.block.dir.join("meta.json").display().to_string(),
            ));
        }
        if let Some(repair) = &request.repair {
            match repair.rewritten {
                true => self.repair_rewritten(id, &pinned, &repair.missing).await?,
                false => self.repair(id, &pinned, &repair.missing).await?,
            }
            return Ok(UploadOutcome::Repaired);
        }
        let Treatment {
            rewrite,
            no_compact,
            no_downsample,
        } = match self.content.treatment(request, &encodings) {
            Ok(treatment) => treatment,
            Err(why) => return Ok(UploadOutcome::Held { why }),
        };
        if !request.fresh {
            self.abort_stale_uploads(id);
        }
        let permit = self.sends.acquire().await.map_err(io::Error::other)?;
        let sending = info_span!(target: spans::TARGET, "send");
        let (entries, rewritten) = match rewrite {
            true => match self.send_rewritten(id, &pinned).instrument(sending).await {
                Ok((entries, from)) => (entries, Some(from)),
                Err(rewritten::Error::Broken(broken)) => return Ok(UploadOutcome::Broken(broken)),
                Err(rewritten::Error::Refused(why)) => return Ok(UploadOutcome::Held { why }),
                Err(rewritten::Error::Upload(error)) => return Err(error),
            },
            false => {
                let sent = self.send_as_it_is(request, &pinned, &stamps).instrument(sending);
                (sent.await?, None)
            }
        };
        drop(permit);
        self.prove(id, &entries, None)
            .instrument(info_span!(target: spans::TARGET, "prove"))
            .await?;
        Ok(UploadOutcome::Uploaded(Box::new(BlockFiles {
            meta,
            pinned,
            stamps,
            entries,
            encodings,
            rewritten,
            no_compact,
            no_downsample,
        })))
    }

    /// Aborts what an earlier run left open of a block, beside the data path.
    fn abort_stale_uploads(&self, id: BlockId) {
        if self.with_state(id, |state| std::mem::replace(&mut state.aborted_stale, true)) {
            return;
        }
        let (bucket, one) = (Arc::clone(&self.bucket), Arc::clone(&self.cleanups));
        tokio::spawn(async move {
            let _one = one.acquire_owned().await;
            if let Err(error) = bucket.abort_stale(&id.to_string()).await {
                tracing::debug!(block = %id, %error, "cannot abort multipart uploads that an earlier run left open; a lifecycle rule of the bucket should");
            }
        });
    }

    /// What is wrong with the block, as far as one can see from here.
    ///
    /// # Errors
    /// Only that looking for it panicked.
    pub(super) async fn find_broken(&self, request: &UploadRequest) -> Result<Option<Broken>, Error> {
        match self.pin(request, Depth::Sample).await {
            Ok(Err(UploadOutcome::Broken(broken))) => Ok(Some(broken)),
            Err(Error::Panicked(why)) => Err(Error::Panicked(why)),
            // Whatever else it is shows when the block is uploaded.
            _ => Ok(None),
        }
    }

    /// Opens and checks the block.
    async fn pin(&self, request: &UploadRequest, depth: Depth) -> Result<Result<Opened, UploadOutcome>, Error> {
        let _permit = self.checks.acquire().await.map_err(io::Error::other)?;
        let (block, held) = (request.block.clone(), request.held.clone());
        let id = block.id;
        let checked = self.with_state(id, |state| state.checked.clone());
        let found = blocking(move || open(&block, held.as_deref(), checked, depth))
            .await
            .map_err(|lost| Error::Panicked(format!("checking it: {lost}")))?;
        Ok(match found {
            Ok(opened) => {
                let checked = (opened.stamps.clone(), opened.encodings.clone());
                self.with_state(id, |state| {
                    if state.checked.as_ref().is_some_and(|(before, _)| *before != checked.0) {
                        state.rewritten.clear();
                    }
                    state.checked = Some(checked);
                });
                Ok(opened)
            }
            Err(PinError::Vanished) => Err(UploadOutcome::Vanished),
            Err(PinError::Broken { reason, detail }) => Err(UploadOutcome::Broken(Broken { reason, detail })),
            Err(PinError::Io(error)) if exhausted(&error) => return Err(Error::Local(error)),
            Err(PinError::Io(error)) => Err(UploadOutcome::Broken(Broken {
                reason: Reason::Unreadable,
                detail: error.to_string(),
            })),
        })
    }

    /// Sends what is missing of a block that is committed: only files of which its `meta.json` in the bucket says the same.
    async fn repair(&self, id: BlockId, pinned: &Pinned, missing: &[BucketFile]) -> Result<(), Error> {
        for due in missing {
            let name = &due.rel_path;
            let conflict = |how: String| {
                Error::Conflict(format!(
                    "the block is committed in {}, but {name} is missing there, and {how}; it is not repaired from here. Put the \
                     object back from a copy, or mark the block for deletion",
                    self.place(&id.to_string())
                ))
            };
            let Some(file) = pinned.files.iter().find(|file| file.rel_path == *name) else {
                return Err(conflict("there is no such file here".to_owned()));
            };
            // One of another length is refused without reading it.
            let hashed = due.sha256.is_some() && due.size == Some(file.len);
            may_repair(due, &described(file, hashed).await?).map_err(conflict)?;
            self.bucket.put_file(&format!("{id}/{name}"), &file.source()).await?;
        }
        Ok(())
    }

    /// Where a directory of the bucket is, for messages.
    pub(super) fn place(&self, dir: &str) -> String {
        format!("{}/{dir}", self.bucket.identity())
    }

    pub(super) fn with_state<T>(&self, id: BlockId, f: impl FnOnce(&mut BlockState) -> T) -> T {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        f(states.entry(id).or_default())
    }
}
