//! Makes the plan: finds, asks the bucket, checks.
//!
//! Blocks that are not asked for, or are in the bucket already, cost no read of the disk beyond what tells that. The check
//! of the others reads everything, several files at once. Dropping the future tells the check to stop; it ends within a
//! MiB or so.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{TryStreamExt, stream};

use super::{
    Decision, Error, Item, Plan, Settings,
    bucket_blocks::{BucketBlocks, UnderName},
    find::find,
    plan as rules,
    prove::same_files,
};
use crate::{
    objstore::{self, Bucket, Scope},
    shipper::{CheckedFiles, FileStamp, NewerEncodings},
    threads::{StopOnDrop, blocking},
    tsdb::{
        Block, BucketFile, Depth, Encodings, PinError, Pinned,
        check::{
            self,
            full::{self, Checked, Options},
        },
    },
};

/// Blocks that are held against the bucket's at the same time.
const COMPARED_AT_ONCE: usize = 2;

/// How far the check has come; for whoever wants to watch.
#[derive(Clone, Debug, Default)]
pub struct CheckProgress {
    /// Bytes that the check has read.
    pub read: Arc<AtomicU64>,
    /// Bytes that it is to read, once that is known.
    pub due: Arc<AtomicU64>,
}

/// Finds and checks the blocks of `settings`, and decides what becomes of each. Nothing is written anywhere.
///
/// # Errors
/// No blocks, or the directory or the bucket cannot be read.
pub async fn plan(settings: &Settings, bucket: &Arc<dyn Bucket>, progress: &CheckProgress) -> Result<Plan, Error> {
    let path = settings.path.clone();
    let mut items = blocking(move || find(&path)).await.map_err(std::io::Error::from)??;
    rules::select(&mut items, settings);
    let mut bucket_blocks = BucketBlocks::read(bucket.as_ref()).await?;
    decide_by_bucket(&mut items, &mut bucket_blocks, bucket, settings.newer_encodings).await?;
    check(&mut items, settings, progress).await?;
    rules::leave_out_parts(&mut items);
    let nearby = bucket_blocks.nearby(bucket.as_ref(), &items).await?;
    rules::refuse_overlaps(&mut items, &nearby, settings.overlaps);
    rules::refuse_parts_of_refused(&mut items);
    let mut unreadable = bucket_blocks.unreadable();
    unreadable.retain(|id, _| !items.iter().any(|item| item.id == *id));
    Ok(Plan { items, unreadable })
}

/// Decides about blocks whose data is in the bucket: under their own names or within others. What stands under a name and
/// is not the block is never overwritten, and what is marked for deletion is not there.
async fn decide_by_bucket(
    items: &mut [Item],
    bucket_blocks: &mut BucketBlocks,
    bucket: &Arc<dyn Bucket>,
    choice: NewerEncodings,
) -> Result<(), objstore::Error> {
    let mut same = BTreeMap::new();
    for (place, own) in BucketBlocks::under_their_names(bucket.as_ref(), items).await? {
        let item = &mut items[place];
        let Some(block) = &item.block else { continue };
        let marked = match own {
            UnderName::Nothing => None,
            UnderName::Marked(why) => Some(Decision::Refused(why.to_owned())),
            UnderName::Same { rewritten } => {
                item.in_bucket = true;
                same.insert(place, rewritten);
                continue;
            }
            UnderName::Other(why) => {
                item.in_bucket = true;
                item.decision = Decision::Refused(why);
                continue;
            }
        };
        let within = bucket_blocks
            .within_others(bucket.as_ref(), block, &item.labels)
            .await?;
        if let Some(decision) = within.or(marked) {
            item.decision = decision;
        }
    }
    let items = items.iter_mut().enumerate();
    let same = items.filter_map(|(place, item)| Some((item, *same.get(&place)?)));
    stream::iter(same.map(Ok))
        .try_for_each_concurrent(COMPARED_AT_ONCE, |(item, rewritten)| async move {
            let Some(block) = &item.block else { return Ok(()) };
            item.decision = compared(block, rewritten, bucket).await?;
            if let Decision::There(how) = &mut item.decision
                && !rewritten
            {
                item.refused_in_bucket = refused_encodings(block).await;
                if !item.refused_in_bucket.is_empty() {
                    let what = refused_in_bucket(&item.refused_in_bucket, choice);
                    tracing::warn!(block = %item.id, "the block is in the bucket as it is: {what}");
                    how.push_str("; ");
                    how.push_str(&what);
                }
            }
            Ok(())
        })
        .await
}

/// The encodings that readers refuse of the chunks of a block here, by all of them; empty if there are none. What cannot be
/// read was not compared either.
async fn refused_encodings(block: &Block) -> String {
    let block = block.clone();
    let found = blocking(move || Some(check::quick(&Pinned::open(&block).ok()?, Depth::All).ok()?.refused()));
    found.await.ok().flatten().unwrap_or_default()
}

/// What one should know of a block that is in the bucket with chunks in these encodings.
fn refused_in_bucket(names: &str, choice: NewerEncodings) -> String {
    let then = match choice {
        NewerEncodings::Mark => "the marks that keep compactors from it are put there unless they are",
        NewerEncodings::Ship => {
            "a compactor stops at it unless it is marked with no-compact-mark.json and no-downsample-mark.json"
        }
        NewerEncodings::Rewrite | NewerEncodings::Hold => {
            "it is not overwritten: mark it for deletion, and once it is deleted there, run again with \
             --newer-encodings=rewrite"
        }
    };
    format!("it has {names} chunks, which Thanos' store gateway and compactor refuse; {then}")
}

async fn compared(block: &Block, rewritten: bool, bucket: &Arc<dyn Bucket>) -> Result<Decision, objstore::Error> {
    let differs = match same_files(block, bucket).await {
        Err(error) if error.scope() == Scope::Object => {
            return Ok(Decision::Refused(format!(
                "a block of this name is in the bucket, and cannot be compared with this one: {error}"
            )));
        }
        other => other?,
    };
    Ok(match differs {
        Some(why) => Decision::Refused(format!(
            "a block of this name is in the bucket with other bytes: {why}; it is not overwritten. Find out which is right: \
             narthex bucket verify --full"
        )),
        None if rewritten => Decision::There("compared with what it is rewritten to, by sizes and checksums".into()),
        None => Decision::There("compared with the bucket, byte for byte or by checksum".into()),
    })
}

/// Checks in full what is to be sent; what is in the bucket already, too, if everything is to be read back.
async fn check(items: &mut [Item], settings: &Settings, progress: &CheckProgress) -> Result<(), Error> {
    let wanted = |item: &Item| match item.decision {
        Decision::Send(_) => true,
        Decision::There(_) => settings.full,
        _ => false,
    };
    let places: Vec<usize> = (0..items.len()).filter(|i| wanted(&items[*i])).collect();
    let blocks: Vec<Block> = places.iter().filter_map(|i| items[*i].block.clone()).collect();
    let due: u64 = places.iter().map(|i| items[*i].bytes).sum();
    progress.due.store(due, Ordering::Relaxed);
    let results = check_all(blocks, settings, progress).await?;
    for (i, result) in places.into_iter().zip(results) {
        let item = &mut items[i];
        match result {
            Ok((_, checked)) if checked.facts.chunks == 0 && matches!(item.decision, Decision::Send(_)) => {
                item.decision = Decision::LeftOut("it holds no sample".into());
            }
            Ok((known, checked)) => item.checked(known, &checked, settings),
            Err(why) => item.decision = Decision::Refused(why),
        }
    }
    Ok(())
}

/// What the check of a block came to: what is known of it now, or why it is refused.
type Verdict = Result<(CheckedFiles, Checked), String>;

async fn check_all(blocks: Vec<Block>, settings: &Settings, progress: &CheckProgress) -> Result<Vec<Verdict>, Error> {
    let guard = StopOnDrop::default();
    let stop = guard.flag();
    let (threads, sha256, read) = (settings.threads, settings.sha256, Arc::clone(&progress.read));
    let results = blocking(move || {
        // Before anything is read, so that a change while it is read shows.
        let before: Vec<Result<Vec<FileStamp>, PinError>> = blocks
            .iter()
            .take_while(|_| !stop.load(Ordering::Relaxed))
            .map(|block| Ok(crate::shipper::stamps(&Pinned::open(block)?)?))
            .collect();
        let results: Mutex<Vec<Option<Verdict>>> = Mutex::new(vec![None; blocks.len()]);
        let options = Options {
            threads,
            sha256,
            stop: &stop,
            read: &read,
        };
        full::blocks(&blocks, &options, |i, result| {
            let result = checked_block(result, before.get(i).and_then(|before| before.as_ref().ok()), sha256);
            results.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(result);
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    })
    .await
    .map_err(std::io::Error::from)?;
    Ok(results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Err("it was not checked".into())))
        .collect())
}

fn checked_block(
    result: Result<(Pinned, Checked), PinError>,
    before: Option<&Vec<FileStamp>>,
    sha256: bool,
) -> Verdict {
    let (pinned, checked) = result.map_err(|error| match error {
        PinError::Vanished => "it was deleted here meanwhile".to_owned(),
        PinError::Broken { detail, .. } => format!("it is broken: {detail}"),
        PinError::Io(error) => error.to_string(),
    })?;
    let stamps = crate::shipper::stamps(&pinned).map_err(|error| error.to_string())?;
    if before != Some(&stamps) {
        return Err("somebody writes to it; run again when that is done".into());
    }
    let files = checked
        .files
        .iter()
        .map(|file| BucketFile {
            rel_path: file.rel_path.clone(),
            size: Some(file.len),
            sha256: file.sha256.clone().filter(|_| sha256),
        })
        .collect();
    let encodings = Encodings {
        chunks: checked.facts.encodings.clone(),
        complete: true,
    };
    let known = CheckedFiles {
        stamps,
        files,
        encodings,
    };
    Ok((known, checked))
}
