//! Proves at the end that the blocks are in the bucket: asks the bucket anew, whatever was acknowledged before.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::{
    Decision, Item, Settings,
    bucket_blocks::{BucketBlocks, UnderName},
};
use crate::{
    audit::{self, Issue, integrity::Reader},
    catalog::{self, Text},
    lineage::{Existing, existing, may_repair},
    objstore::{self, Bucket, Comparison, Scope},
    shipper::{ContentPolicy, UploadError, Uploader, rewritten_files},
    tsdb::{Block, BlockId, BucketFile, Meta, PinError, Pinned, PinnedFile, RewrittenFrom},
};

/// Blocks that are proven at the same time.
const BLOCKS_AT_ONCE: usize = 4;
/// Objects of one block that are compared at the same time.
const OBJECTS_AT_ONCE: usize = 4;

/// What came of it.
#[derive(Debug, Default)]
pub struct Proven {
    /// Blocks that are there, whole.
    pub whole: usize,
    /// Blocks that a compactor has merged meanwhile into others. Of these others `meta.json` and the sizes of the objects
    /// were looked at, and no byte was read, whatever was asked for.
    pub merged: usize,
    /// Blocks that are not what they should be, and why.
    pub wrong: Vec<(BlockId, String)>,
    /// Blocks of which the store gives nothing, and why.
    pub unknown: Vec<(BlockId, String)>,
    /// What ended the proof early. What was found by then stands above.
    pub failed: Option<Interrupted>,
}

/// The bucket failed before all blocks were looked at.
#[derive(Debug)]
pub struct Interrupted {
    /// Why.
    pub error: objstore::Error,
    /// Blocks of which nothing was found out.
    pub unchecked: Vec<BlockId>,
    /// It was not found out whether a compactor has merged those blocks that are not whole.
    pub merges_unknown: bool,
}

/// Looks at each of `items` in the bucket: exactly its objects, their sizes and checksums, and its `meta.json`; with
/// `settings.full`, and when the block is gone here, every byte is read back and held against what the check found here.
/// A compactor may run beside a backfill of hours, and merge the first blocks, and mark or delete them: such a block is
/// proven if all of its samples are proven to be in others. A failure that concerns the whole bucket ends the proof, and
/// what was found by then is returned with it.
pub async fn prove(items: &[&Item], settings: &Settings, bucket: &Arc<dyn Bucket>, reader: &Reader) -> Proven {
    let mut proven = Proven::default();
    let mut doubtful = Vec::new();
    let mut unchecked: BTreeSet<BlockId> = items.iter().map(|item| item.id).collect();
    let mut failed = None;
    let mut proofs = stream::iter(items.iter().copied())
        .map(|item| async move { (item, wrong(item, settings, bucket, reader).await) })
        .buffer_unordered(BLOCKS_AT_ONCE);
    while let Some((item, wrong)) = proofs.next().await {
        match wrong {
            Ok(None) => proven.whole += 1,
            Ok(Some(why)) => {
                doubtful.push(item);
                proven.wrong.push((item.id, why));
            }
            Err(error) if error.scope() == Scope::Object => {
                doubtful.push(item);
                proven.unknown.push((item.id, error.to_string()));
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        unchecked.remove(&item.id);
    }
    drop(proofs);
    let mut merged = BTreeSet::new();
    // A bucket that has just failed is not asked again. Without doubtful blocks the second look asks for nothing.
    if failed.is_none() {
        failed = merged_meanwhile(&doubtful, bucket.as_ref(), &mut merged).await.err();
    }
    proven.failed = failed.map(|error| Interrupted {
        error,
        unchecked: unchecked.into_iter().collect(),
        merges_unknown: !doubtful.is_empty(),
    });
    proven.merged = merged.len();
    proven.wrong.retain(|(id, _)| !merged.contains(id));
    proven.unknown.retain(|(id, _)| !merged.contains(id));
    proven.wrong.sort_by_key(|(id, _)| *id);
    proven.unknown.sort_by_key(|(id, _)| *id);
    proven
}

/// Adds to `merged` those of `items` that are not in the bucket any more, or are marked for deletion, and whose samples are in
/// others.
///
/// # Errors
/// Those that concern the whole bucket; what was found by then is in `merged`.
pub(super) async fn merged_meanwhile(
    items: &[&Item],
    bucket: &dyn Bucket,
    merged: &mut BTreeSet<BlockId>,
) -> Result<(), objstore::Error> {
    let mut gone = Vec::new();
    for item in items {
        let Some(block) = &item.block else { continue };
        // Asked once more: it may have gone while it was looked at.
        let found = existing(bucket, &block.meta, &item.labels).await?;
        if let UnderName::Nothing | UnderName::Marked(_) = UnderName::of(found, &item.labels) {
            gone.push((block, &item.labels));
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    // What was read for the plan does not have what was merged since.
    let mut bucket_blocks = BucketBlocks::read(bucket).await?;
    for (block, labels) in gone {
        if let Some(Decision::There(how)) = bucket_blocks.within_others(bucket, block, labels).await? {
            tracing::info!(block = %block.id, how, "a compactor has merged this block since it was uploaded");
            merged.insert(block.id);
        }
    }
    Ok(())
}

/// What is wrong with one block in the bucket.
async fn wrong(
    item: &Item,
    settings: &Settings,
    bucket: &Arc<dyn Bucket>,
    reader: &Reader,
) -> Result<Option<String>, objstore::Error> {
    let Some(block) = &item.block else {
        return Ok(None);
    };
    let committed = match existing(bucket.as_ref(), &block.meta, &item.labels).await? {
        Existing::Complete(committed) if committed.other_labels.is_none() => committed,
        // What the store does not show says nothing about the block.
        Existing::Refused { error, .. } => return Err(error),
        other => return Ok(UnderName::of(other, &item.labels).wrong()),
    };
    // Prometheus may remove a block that was sent; then it is read back and held against what the check found.
    let gone = matches!(Pinned::open(block), Err(PinError::Vanished));
    if !settings.full && !gone {
        return same_files(block, bucket).await;
    }
    let held = audit::integrity::list(bucket.as_ref(), &committed.meta).await?;
    let issues = audit::integrity::issues(item.id, &held);
    if !issues.is_empty() {
        return Ok(Some(in_words(&issues)));
    }
    let Some(found) = &item.known else {
        // One that was there before was compared when the plan was made.
        let why = "it was not checked here, so nothing is known to compare it with";
        return Ok((!gone).then(|| why.into()));
    };
    if committed.meta.rewritten_from().is_some() {
        // Every byte is held against the hashes of the commit, and these against what the files here are rewritten to.
        return match audit::integrity::read_back(bucket, &committed.meta, &committed.files, reader).await? {
            Ok(_) if gone => Ok(None),
            Ok(_) => same_files(block, bucket).await,
            Err(issues) => Ok(Some(in_words(&issues))),
        };
    }
    let digests = match audit::integrity::read_back(bucket, &committed.meta, &found.known.files, reader).await? {
        Ok(read) => read.digests,
        Err(issues) => return Ok(Some(in_words(&issues))),
    };
    let pairs = found.digests.iter().map(|own| {
        let there = digests.iter().find(|there| there.rel_path == own.rel_path);
        (own, there)
    });
    for (own, there) in pairs {
        if there.is_none_or(|there| (there.len, there.crc32c) != (own.len, own.crc32c)) {
            return Ok(Some(format!(
                "{} has other bytes in the bucket than here",
                own.rel_path
            )));
        }
    }
    Ok(None)
}

fn in_words(issues: &[Issue]) -> String {
    let details: Vec<&str> = issues.iter().map(|issue| issue.detail.as_str()).collect();
    details.join("; ")
}

/// In what the objects of a block are not its files: names, sizes, checksums. A block that was rewritten on its way to the
/// bucket is held against what it is rewritten to now.
///
/// # Errors
/// The bucket's, and those of a local file.
pub(super) async fn same_files(block: &Block, bucket: &Arc<dyn Bucket>) -> Result<Option<String>, objstore::Error> {
    let pinned = match Pinned::open(block) {
        Ok(pinned) => pinned,
        Err(PinError::Vanished) => return Ok(Some("it was deleted here meanwhile, and cannot be compared".into())),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let differs = same_as_they_are(&pinned, bucket).await?;
    if differs.is_none() {
        return Ok(None);
    }
    let Text::Read(text) = catalog::read_text(bucket.as_ref(), block.id).await? else {
        return Ok(differs);
    };
    match Meta::parse(&text) {
        Ok(there) => match there.rewritten_from() {
            Some(from) => same_rewritten(&pinned, bucket, &there, &from).await,
            None => Ok(differs),
        },
        Err(_) => Ok(differs),
    }
}

/// In what the objects of a block that was rewritten are not what its files are rewritten to; compared by their sizes and,
/// where `meta.json` has them, by their hashes.
async fn same_rewritten(
    pinned: &Pinned,
    bucket: &Arc<dyn Bucket>,
    there: &Meta,
    from: &RewrittenFrom,
) -> Result<Option<String>, objstore::Error> {
    if !from.is_of(pinned) {
        return Ok(Some("it was rewritten from other files than those here".into()));
    }
    let listed = audit::integrity::list(bucket.as_ref(), there).await?;
    let issues = audit::integrity::issues(pinned.id, &listed);
    if !issues.is_empty() {
        return Ok(Some(in_words(&issues)));
    }
    let hashed = listed.files.iter().any(|file| file.sha256.is_some());
    let files = match rewritten_files(pinned, hashed).await {
        Ok(files) => files,
        Err(why) => return Ok(Some(why)),
    };
    let differs = files.iter().find(|own| {
        let there = listed.files.iter().find(|there| there.rel_path == own.rel_path);
        there.is_none_or(|there| may_repair(there, own).is_err())
    });
    Ok(differs.map(|own| format!("{} was rewritten to other bytes than it would be now", own.rel_path)))
}

async fn same_as_they_are(pinned: &Pinned, bucket: &Arc<dyn Bucket>) -> Result<Option<String>, objstore::Error> {
    let entries: Vec<BucketFile> = pinned.files.iter().map(entry).collect();
    if let Err(error) = Uploader::new(Arc::clone(bucket), false, ContentPolicy::default())
        .prove(pinned.id, &entries, None)
        .await
    {
        return match error {
            UploadError::Bucket(error) => Err(error),
            // Its own words are about a block that was just sent: this one is held against what was there before.
            UploadError::Unproven { wrong, .. } => Ok(Some(wrong)),
            other => Ok(Some(other.to_string())),
        };
    }
    let requests: Vec<_> = pinned
        .files
        .iter()
        .map(|file| compare(bucket, pinned.id, file).boxed())
        .collect();
    let found: Vec<Option<String>> = stream::iter(requests).buffered(OBJECTS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().next())
}

/// A file as a listing shows it.
fn entry(file: &PinnedFile) -> BucketFile {
    BucketFile {
        rel_path: file.rel_path.clone(),
        size: Some(file.len),
        sha256: None,
    }
}

async fn compare(bucket: &Arc<dyn Bucket>, id: BlockId, file: &PinnedFile) -> Result<Option<String>, objstore::Error> {
    let name = &file.rel_path;
    Ok(match bucket.compare(&format!("{id}/{name}"), &file.source()).await? {
        Comparison::Same(_) => None,
        Comparison::Different(why) => Some(format!("{name}: {why}")),
        Comparison::Absent => Some(format!("{name} is missing")),
    })
}
