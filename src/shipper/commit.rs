//! The commit: `meta.json`, sent last, makes a block visible.
//!
//! It is sent on the condition that there is none yet, where the store knows that condition, so that of two writers one
//! commits. That there is one already may mean another writer, or an earlier try of ours whose answer was lost: what
//! is there is judged by what it says of itself, and is never overwritten unless it is no `meta.json` at all. An answer
//! that does not tell whether the store acted (timeout, 5xx, a broken connection) is settled by reading the object back;
//! one of a directory that could not flush it to disk is not, and the commit fails until a later try has flushed it.
//! What was committed is listed once more before it counts. A crash after the commit is found by the next run, which lists
//! the block and reads its `meta.json`.

use std::time::SystemTime;

use bytes::Bytes;

use crate::{
    catalog::{self, FirstChunks, LARGEST_META, NO_COMPACT_MARK, NO_DOWNSAMPLE_MARK},
    lineage::{self, Existing},
    model::Labels,
    objstore::{self, ErrorKind, Placed, Scope},
    shipper::upload::{BlockFiles, Error, NEWER_ENCODINGS, NewerEncodings, UploadRequest, Uploader, stamps},
    tsdb::{Block, BlockId, Meta, Pinned, Stamp},
};

/// How a block became visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// By this commit.
    Now,
    /// It was, with all of its files, before.
    Before,
}

/// An object that keeps compactors from a block (version 1 of Thanos' marks).
struct Mark {
    name: &'static str,
    /// The key of the time at which it was put there.
    time: &'static str,
}

/// When a compactor does not stop at a block whose chunks it cannot read.
const UNLESS_MARKED: &str = "unless it is marked with no-compact-mark.json and no-downsample-mark.json";

const NO_COMPACT: Mark = Mark {
    name: NO_COMPACT_MARK,
    time: "no_compact_time",
};

/// Compactors downsample blocks of 40 h and more whether or not they may merge them.
const NO_DOWNSAMPLE: Mark = Mark {
    name: NO_DOWNSAMPLE_MARK,
    time: "no_downsample_time",
};

impl Uploader {
    /// Makes a block visible under `labels`, unless it is.
    pub(crate) async fn commit(
        &self,
        request: &UploadRequest,
        block_files: &BlockFiles,
        labels: &Labels,
        source: &str,
    ) -> Result<Committed, Error> {
        let block = &request.block;
        ensure_unchanged(block, block_files)?;
        if labels.is_empty() && block.meta.thanos_labels.as_ref().is_none_or(Labels::is_empty) {
            return Err(Error::NoLabels);
        }
        let stamp = Stamp {
            labels: labels.clone(),
            source: source.to_owned(),
            files: block_files.entries.clone(),
            rewritten_from: block_files.rewritten.clone(),
            upload_time: SystemTime::now(),
        };
        let meta = Bytes::from(block_files.meta.for_bucket(&stamp));
        let len = meta.len() as u64;
        if let Some(why) = &block_files.no_compact {
            self.put_mark(block.id, &NO_COMPACT, why).await?;
            if block_files.no_downsample {
                self.put_mark(block.id, &NO_DOWNSAMPLE, why).await?;
            }
        }
        self.set_unsettled(block.id, true);
        let committed = match self.put_meta(request, meta).await? {
            Placed::Created => {
                // A store may lose what it acknowledged, and who clears away old tries may have looked before the commit.
                self.prove(block.id, &block_files.entries, Some(len)).await?;
                Committed::Now
            }
            Placed::Exists => self.check_committed_before(block, labels).await?,
        };
        self.set_unsettled(block.id, false);
        Ok(committed)
    }

    /// Puts a mark that keeps compactors from a block, before they can see it. One that is there stays.
    async fn put_mark(&self, id: BlockId, mark: &Mark, why: &str) -> Result<(), objstore::Error> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let body = serde_json::json!({
            "id": id.to_string(),
            "version": 1,
            "details": format!("narthex: {why}"),
            mark.time: now,
            "reason": "manual",
        });
        let key = format!("{id}/{}", mark.name);
        self.bucket.put_new(&key, Bytes::from(body.to_string())).await.map(drop)
    }

    /// Keeps compactors from a block with chunks that they refuse: from merging it, and from downsampling it.
    pub(crate) async fn mark_newer(&self, id: BlockId) -> Result<(), objstore::Error> {
        self.put_mark(id, &NO_COMPACT, NEWER_ENCODINGS).await?;
        self.put_mark(id, &NO_DOWNSAMPLE, NEWER_ENCODINGS).await
    }

    /// Whether a block that was committed before has chunks that readers refuse: then what that means, in words. Nothing of
    /// it is overwritten, whatever the operator has chosen; with `mark` it gets its marks now.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub(super) async fn newer_in_bucket(&self, there: &Meta) -> Result<Option<String>, objstore::Error> {
        let names = match catalog::first_encodings(self.bucket.as_ref(), there).await? {
            FirstChunks::Seen(found) => found.refused(),
            FirstChunks::Refused(error) => {
                tracing::warn!(block = %there.ulid, %error, "cannot see in which encodings the chunks of this block are in the bucket");
                return Ok(None);
            }
        };
        if names.is_empty() {
            return Ok(None);
        }
        let marked = match self.content.newer_encodings {
            NewerEncodings::Mark => self.mark_newer(there.ulid).await,
            _ => Ok(()),
        };
        let then = match (self.content.newer_encodings, marked) {
            (_, Err(error)) if error.scope() == Scope::Object => {
                format!("queries over it fail, and the marks that keep compactors from it cannot be put there: {error}")
            }
            (_, Err(error)) => return Err(error),
            (NewerEncodings::Mark, _) => {
                format!(
                    "queries over it fail, and its {NO_COMPACT_MARK} and {NO_DOWNSAMPLE_MARK} keep compactors from it"
                )
            }
            (NewerEncodings::Ship, _) => {
                format!("queries over it fail, and a compactor stops at it {UNLESS_MARKED}")
            }
            (NewerEncodings::Rewrite | NewerEncodings::Hold, _) => format!(
                "queries over it fail, and a compactor stops at it {UNLESS_MARKED}. What is committed is never overwritten: see \
                 \"XOR2 is in the bucket already\" in docs/encodings.md for how to have it rewritten"
            ),
        };
        Ok(Some(format!(
            "{names} chunks, which Thanos' Store Gateway and Compactor refuse: {then}"
        )))
    }

    /// Logs it, of a block that was committed before.
    pub(super) async fn warn_of_newer_in_bucket(&self, there: &Meta) -> Result<(), objstore::Error> {
        if let Some(what) = self.newer_in_bucket(there).await? {
            tracing::warn!(block = %there.ulid, "the block was in the bucket before, as it is, with {what}");
        }
        Ok(())
    }

    async fn put_meta(&self, request: &UploadRequest, meta: Bytes) -> Result<Placed, objstore::Error> {
        let key = format!("{}/meta.json", request.block.id);
        let put = match request.replace {
            true => self
                .bucket
                .put_bytes(&key, meta.clone())
                .await
                .map(|()| Placed::Created),
            false => self.bucket.put_new(&key, meta.clone()).await,
        };
        let error = match put {
            Ok(Placed::Created) => return Ok(Placed::Created),
            Ok(Placed::Exists) => return Ok(self.is_ours(&key, &meta).await),
            Err(error) => error,
        };
        if !error.kind.is_ambiguous() && error.kind != ErrorKind::Integrity {
            return Err(error);
        }
        match self.is_ours(&key, &meta).await {
            Placed::Created => {
                tracing::info!(key, %error, "the commit failed, but the bucket has it");
                Ok(Placed::Created)
            }
            Placed::Exists => Err(error),
        }
    }

    /// Whether what stands in the place of `meta.json` is what was sent just now: the store may have taken it at a try
    /// whose answer was lost.
    async fn is_ours(&self, key: &str, meta: &Bytes) -> Placed {
        match self.bucket.get(key, LARGEST_META).await {
            Ok(there) if there == meta => Placed::Created,
            _ => Placed::Exists,
        }
    }

    /// Checks a block that was committed before: by an earlier try of ours, in an earlier run, or by another writer.
    pub(super) async fn check_committed_before(&self, block: &Block, labels: &Labels) -> Result<Committed, Error> {
        let place = self.place(&block.id.to_string());
        match lineage::existing(self.bucket.as_ref(), &block.meta, labels).await? {
            Existing::Complete(there) => {
                self.warn_of_newer_in_bucket(&there.meta).await?;
                Ok(Committed::Before)
            }
            Existing::Marked => Err(Error::Marked { place }),
            Existing::Conflict(why) => Err(Error::Conflict(format!(
                "{why}. What is committed in {place} is never overwritten"
            ))),
            Existing::Refused { error, .. } => Err(error.into()),
            // It is gone again, cut, or lacks files: the next try finds out which.
            Existing::Nothing { .. } | Existing::Torn(_) | Existing::Incomplete(..) => Err(Error::Unproven {
                place,
                wrong: "it has a meta.json, and is not whole".to_owned(),
            }),
        }
    }
}

/// Whether the files are still as long and as old as they were before they were read, and still all that the block has
/// (or gone altogether).
fn ensure_unchanged(block: &Block, block_files: &BlockFiles) -> Result<(), Error> {
    let now = stamps(&block_files.pinned)?;
    for ((file, before), now) in block_files.pinned.files.iter().zip(&block_files.stamps).zip(&now) {
        if before != now || now.len != file.len {
            return Err(Error::Changed(file.path.display().to_string()));
        }
    }
    match Pinned::segments_now(&block.dir) {
        Some(there) if there > block_files.pinned.segments().count() => {
            Err(Error::Changed(block.dir.join("chunks").display().to_string()))
        }
        _ => Ok(()),
    }
}
