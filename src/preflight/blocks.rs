//! The blocks of a bucket that concern this Prometheus: those of another writer under the same labels, and marks on our own.
//! Reads only, and a bounded number of objects whatever the bucket holds.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Finding, Part,
    data_dir::DataDir,
    table::{BUCKET_MARKS, BUCKET_WRITERS},
};
use crate::{
    catalog::{self, NO_COMPACT_MARK, Text},
    lineage::Entry,
    model::{Labels, few},
    objstore::{self, Bucket},
    tsdb::{Block, BlockId},
};

/// Another writer seals the same times as we do at about the same time (ms).
const NEAR_MS: u64 = 3_600_000;
/// So many blocks of the bucket are read at most, the newest.
const MOST_READ: usize = 500;
/// So many local blocks are looked for marks, the newest.
const MOST_LISTED: usize = 20;

/// Looks for blocks of others that nobody could tell from ours, where the external labels are known, and for marks on ours
/// unless we set such marks ourselves.
pub async fn look(part: &Part, bucket: &dyn Bucket, dir: &DataDir, labels: Option<&Labels>, sets_marks: bool) {
    if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
        part.waits_for(&BUCKET_WRITERS, format!("the newest blocks of {}", bucket.identity()));
        match other_writers(bucket, dir, labels).await {
            Ok(finding) => part.add(finding),
            // That the bucket cannot be read is said elsewhere.
            Err(error) => tracing::debug!(%error, "cannot look for blocks of others"),
        }
    }
    if sets_marks {
        return;
    }
    part.waits_for(
        &BUCKET_MARKS,
        format!("the objects of local blocks in {}", bucket.identity()),
    );
    match marked(bucket, dir).await {
        Ok(finding) => part.add(finding),
        Err(error) => tracing::debug!(%error, "cannot look for marks"),
    }
}

async fn other_writers(
    bucket: &dyn Bucket,
    dir: &DataDir,
    labels: &Labels,
) -> Result<Option<Finding>, objstore::Error> {
    let local: Vec<&Block> = dir
        .scan
        .blocks
        .iter()
        .filter(|block| block.meta.is_cut_from_head())
        .collect();
    let Some(newest) = local.iter().map(|block| block.id).max() else {
        return Ok(None);
    };
    let made = newest.timestamp_ms();
    let after = BlockId::first_at(made.saturating_sub(NEAR_MS)).to_string();
    let mut ids = catalog::ids(bucket, &after).await?;
    ids.retain(|id| id.timestamp_ms() <= made + NEAR_MS && !is_ours(dir, *id));
    let ids = ids.split_off(ids.len().saturating_sub(MOST_READ));
    let read = ids.len();
    let entries: Vec<Option<Entry>> = stream::iter(ids)
        .map(async |id| {
            Ok(match catalog::read_text(bucket, id).await? {
                Text::Read(text) => Entry::parse(id, &text).ok(),
                Text::Absent | Text::Refused(_) => None,
            })
        })
        .buffer_unordered(catalog::AT_ONCE)
        .try_collect()
        .await?;
    let local: Vec<Entry> = local.iter().map(|block| Entry::local(&block.meta, labels)).collect();
    let others = others(&local, entries.into_iter().flatten());
    let text = match read {
        0 => "the bucket has no other blocks of about the same time".to_owned(),
        _ => format!("none of {read} blocks of about the same time has labels and times of local ones"),
    };
    Ok(Some(match others.is_empty() {
        true => Finding::ok(&BUCKET_WRITERS, text),
        false => Finding::fail(
            &BUCKET_WRITERS,
            format!(
                "blocks in the bucket have the external labels {labels} and the times of local ones, and were not made here: \
                 {}. Another Prometheus ships under the same labels, so that their series are mixed up and a compactor may \
                 stop (if this data directory was restored or replaced, the blocks may be its own)",
                few(others.iter())
            ),
        ),
    }))
}

/// Blocks as they are sealed whose labels and times are those of local ones.
fn others(local: &[Entry], entries: impl Iterator<Item = Entry>) -> Vec<BlockId> {
    let is_other = |entry: &Entry| entry.is_as_sealed() && local.iter().any(|local| local.overlaps(entry));
    let mut found: Vec<BlockId> = entries.filter(is_other).map(|entry| entry.id).collect();
    found.sort_unstable();
    found
}

/// Whether a block is here, or was.
fn is_ours(dir: &DataDir, id: BlockId) -> bool {
    let mut local = dir.scan.blocks.iter();
    local.any(|block| block.id == id || block.meta.sources.contains(&id))
        || dir.scan.corrupt.iter().any(|corrupt| corrupt.id == id)
        || dir.ledger.as_ref().is_some_and(|ledger| ledger.knows(id))
}

async fn marked(bucket: &dyn Bucket, dir: &DataDir) -> Result<Option<Finding>, objstore::Error> {
    let mut ids: Vec<BlockId> = dir.scan.blocks.iter().map(|block| block.id).collect();
    ids.sort_unstable();
    let newest = ids.split_off(ids.len().saturating_sub(MOST_LISTED));
    let listed: Vec<Vec<objstore::Object>> = stream::iter(&newest)
        .map(async |id| bucket.list(&id.to_string()).await)
        .buffer_unordered(catalog::AT_ONCE)
        .try_collect()
        .await?;
    let keys: HashSet<String> = listed.into_iter().flatten().map(|object| object.key).collect();
    let is_marked = |id: &BlockId| keys.contains(&format!("{id}/{NO_COMPACT_MARK}"));
    let marked: Vec<BlockId> = newest.into_iter().filter(is_marked).collect();
    Ok((!marked.is_empty()).then(|| {
        Finding::warn(
            &BUCKET_MARKS,
            format!(
                "{} have a {NO_COMPACT_MARK} in the bucket, which narthex has not set: a compactor, or somebody, has \
                 excluded them",
                few(marked.iter())
            ),
        )
    }))
}

#[cfg(test)]
mod tests;
