//! Which logs the bucket has, and up to where its blocks reach. Reads only.

use std::{cmp::Reverse, collections::BTreeMap};

use futures_util::TryStreamExt;

use crate::{
    catalog::{self, DELETION_MARK},
    model::{Labels, selector::Selector},
    objstore::{self, Bucket},
    restore::{
        log::choose::{Found, InBlocks},
        plan::Sets,
    },
    tsdb::{BlockId, content},
    wal::{
        generations,
        layout::{Generation, Log, Manifest, Piece, manifests},
        newest_manifest, pieces,
    },
};

/// So many of the newest blocks are looked at for the end of those that are not marked for deletion.
const NEWEST: usize = 64;

/// Why there is no log to choose from.
#[derive(Debug)]
pub enum NoLog {
    /// No log has labels that are selected; those that there are.
    Nothing(Sets),
    /// The selected logs have several sets of labels.
    SeveralSets(Sets),
}

/// The logs of one label set.
#[derive(Debug)]
pub struct LogSurvey {
    /// The labels.
    pub labels: Labels,
    /// The generations, newest first, with their manifests.
    pub(super) generations: Vec<(Generation, Manifest)>,
    /// Which times are in blocks of exactly these labels.
    pub blocks: InBlocks,
    /// Manifests and blocks that cannot be used, and why.
    pub unreadable: Vec<String>,
}

/// Finds the logs whose labels match all `selectors`, and the end of the blocks with the same labels.
///
/// # Errors
/// The bucket's.
pub async fn survey(bucket: &dyn Bucket, selectors: &[Selector]) -> Result<Result<LogSurvey, NoLog>, objstore::Error> {
    let (mut sets, mut others) = (Sets::default(), Sets::default());
    let mut found: BTreeMap<Labels, Vec<(Generation, Manifest)>> = BTreeMap::new();
    let mut unreadable = Vec::new();
    let mut generations: Vec<_> = generations(bucket, &manifests()).await?.into_iter().collect();
    generations.sort_by_key(|(generation, _)| Reverse(generation.name.clone()));
    for (generation, written) in generations {
        let Some(manifest) = newest_manifest(bucket, &generation, &written, &mut unreadable).await? else {
            continue;
        };
        let labels = manifest.label_set();
        let is_wanted = selectors
            .iter()
            .all(|selector| selector.matches(&labels).unwrap_or(false));
        match is_wanted {
            true => sets.add(&labels),
            false => others.add(&labels),
        }
        if is_wanted {
            found.entry(labels).or_default().push((generation, manifest));
        }
    }
    if found.len() > 1 {
        return Ok(Err(NoLog::SeveralSets(sets)));
    }
    let Some((labels, generations)) = found.pop_first() else {
        return Ok(Err(NoLog::Nothing(others)));
    };
    let blocks = in_blocks(bucket, &labels, &mut unreadable).await?;
    Ok(Ok(LogSurvey {
        labels,
        generations,
        blocks,
        unreadable,
    }))
}

/// The pieces from the oldest beginning on of which there is something: a rule of the bucket may have removed what is older.
async fn wal_pieces(
    bucket: &dyn Bucket,
    generation: &Generation,
    manifest: &Manifest,
) -> Result<Vec<Piece>, objstore::Error> {
    for first in manifest.beginnings() {
        let found = pieces(bucket, generation, Log::Wal, first).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// A generation with its pieces.
pub(super) async fn read(
    bucket: &dyn Bucket,
    generation: &Generation,
    manifest: &Manifest,
) -> Result<Found, objstore::Error> {
    Ok(Found {
        wal: wal_pieces(bucket, generation, manifest).await?,
        wbl: match manifest.first_wbl_segment {
            Some(first) => pieces(bucket, generation, Log::Wbl, first).await?,
            None => Vec::new(),
        },
        generation: generation.clone(),
        manifest: manifest.clone(),
    })
}

/// Which times are in the raw blocks of exactly these labels. One that is marked for deletion was merged, or its samples are not
/// wanted; one of samples that came out of order says nothing of those that did not.
async fn in_blocks(
    bucket: &dyn Bucket,
    labels: &Labels,
    unreadable: &mut Vec<String>,
) -> Result<InBlocks, objstore::Error> {
    let mut newest: Vec<(i64, i64, BlockId)> = Vec::new();
    let mut blocks = std::pin::pin!(catalog::blocks(bucket));
    while let Some((id, found)) = blocks.try_next().await? {
        match found {
            catalog::Found::Block(meta) => {
                let is_ours = meta.thanos_labels.as_ref() == Some(labels) && meta.resolution() == 0;
                if is_ours && content::is_in_order(&meta) {
                    newest.push((meta.max_time, meta.min_time, id));
                    newest.sort_by_key(|block| Reverse(*block));
                    newest.truncate(NEWEST);
                }
            }
            catalog::Found::Unreadable(why) => unreadable.push(format!("{id}: {why}")),
            catalog::Found::Partial => {}
        }
    }
    let mut ranges = Vec::new();
    for (end, begin, id) in newest {
        if bucket.stat(&format!("{id}/{DELETION_MARK}")).await?.is_none() {
            ranges.push((begin, end));
        }
    }
    Ok(InBlocks::of(ranges))
}
