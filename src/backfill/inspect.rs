//! Makes the plan: finds, asks the bucket, checks.
//!
//! Blocks that are not asked for, or are in the bucket already, cost no read of the disk beyond what tells that. The check
//! of the others reads everything, several files at once. Dropping the future tells the check to stop; it ends within a
//! MiB or so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Decision, Error, Item, Plan, Settings,
    find::find,
    holdings::{Holdings, Namesake},
    plan as rules,
    prove::{differs, same_files},
};
use crate::{
    audit,
    catalog::{self, Found},
    objstore::{self, Bucket},
    shipper::{FileStamp, Known},
    tsdb::{
        Block, BlockId, BucketFile, Meta, PinError, Pinned,
        check::full::{self, Checked, Options},
    },
};

/// Blocks that are held against the bucket's at the same time.
const COMPARED_AT_ONCE: usize = 2;
/// Blocks of the bucket that are relied on and looked at, at the same time.
const CONFIRMED_AT_ONCE: usize = 16;

/// How far the check has come; for whoever wants to watch.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    /// Bytes that the check has read.
    pub read: Arc<AtomicU64>,
    /// Bytes that it is to read, once that is known.
    pub due: Arc<AtomicU64>,
}

/// Finds and checks the blocks of `settings`, and decides what becomes of each. Nothing is written anywhere.
///
/// # Errors
/// No blocks, or the directory or the bucket cannot be read.
pub async fn plan(settings: &Settings, bucket: &Arc<dyn Bucket>, gauge: &Gauge) -> Result<Plan, Error> {
    let path = settings.path.clone();
    let mut items = blocking(move || find(&path)).await??;
    rules::sift(&mut items, settings);
    let holdings = Holdings::read(bucket.as_ref(), &items).await?;
    let relied = rules::pass_over_merged(&mut items, &holdings);
    confirm(&mut items, relied, bucket.as_ref()).await?;
    settle_namesakes(&mut items, &holdings, bucket).await?;
    check(&mut items, settings, gauge).await?;
    let parts = rules::pass_over_parts(&mut items);
    rules::refuse_overlaps(&mut items, &holdings, settings.overlaps);
    rules::follow(&mut items, &parts);
    Ok(Plan { items })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => std::io::Error::other(error),
        })
}

/// Looks whether the blocks that others are passed over for are whole: whoever relies on them may delete his copy.
async fn confirm(
    items: &mut [Item],
    relied: Vec<(usize, BTreeSet<BlockId>)>,
    bucket: &dyn Bucket,
) -> Result<(), objstore::Error> {
    let ids: BTreeSet<BlockId> = relied.iter().flat_map(|(_, ids)| ids).copied().collect();
    let looks = stream::iter(ids).map(|id| async move { Ok((id, not_whole(bucket, id).await?)) });
    let wrong: BTreeMap<BlockId, String> = looks
        .buffer_unordered(CONFIRMED_AT_ONCE)
        .try_filter_map(async |(id, why)| Ok(why.map(|why| (id, why))))
        .try_collect()
        .await?;
    for (place, ids) in relied {
        if let Some((id, why)) = ids.iter().find_map(|id| wrong.get_key_value(id)) {
            items[place].decision = Decision::Refused(format!(
                "what it was made of is in the bucket in {id}, but that is not whole: {why}. If it is of no use, mark it for \
                 deletion, and run again to send this"
            ));
        }
    }
    Ok(())
}

async fn not_whole(bucket: &dyn Bucket, id: BlockId) -> Result<Option<String>, objstore::Error> {
    let meta = match catalog::look(bucket, id).await? {
        Found::Block(meta) => meta,
        Found::Partial => return Ok(Some("its meta.json is gone".into())),
        Found::Unreadable(why) => return Ok(Some(why)),
    };
    Ok(audit::whole::look(bucket, &meta).await?.lost())
}

/// Decides about blocks whose names are in the bucket: the same block is there, another one is never overwritten.
async fn settle_namesakes(
    items: &mut [Item],
    holdings: &Holdings,
    bucket: &Arc<dyn Bucket>,
) -> Result<(), objstore::Error> {
    let taken = items
        .iter_mut()
        .filter(|item| matches!(item.decision, Decision::Send(_)))
        .filter_map(|item| Some((holdings.namesakes.get(&item.id)?, item)));
    stream::iter(taken.map(Ok))
        .try_for_each_concurrent(COMPARED_AT_ONCE, |(namesake, item)| async move {
            item.in_bucket = true;
            item.decision = match namesake {
                Namesake::Block(meta) => already_there(item, meta, holdings, bucket).await?,
                Namesake::Unreadable(why) => Decision::Refused(format!(
                    "its meta.json in the bucket cannot be used ({why}), and is not overwritten; look at it, and delete the block there if it is of no use"
                )),
            };
            Ok(())
        })
        .await
}

async fn already_there(
    item: &Item,
    meta: &Meta,
    holdings: &Holdings,
    bucket: &Arc<dyn Bucket>,
) -> Result<Decision, objstore::Error> {
    let Some(block) = &item.block else {
        return Ok(item.decision.clone());
    };
    if let Some(why) = differs(block, &item.labels, meta) {
        return Ok(Decision::Refused(format!(
            "a block of this name is in the bucket and is another one: {why}; it is not overwritten"
        )));
    }
    if let Some(why) = same_files(block, bucket).await? {
        return Ok(Decision::Refused(format!(
            "a block of this name is in the bucket with other bytes: {why}; it is not overwritten. Find out which is right: narthex bucket verify --full"
        )));
    }
    if holdings.is_marked(item.id) {
        return Ok(Decision::Refused(
            "it is in the bucket, but marked for deletion there; remove its deletion-mark.json to keep it".into(),
        ));
    }
    Ok(Decision::There(
        "compared with the bucket, byte for byte or by checksum".into(),
    ))
}

/// Checks in full what is to be sent; what is in the bucket already, too, if everything is to be read back.
async fn check(items: &mut [Item], settings: &Settings, gauge: &Gauge) -> Result<(), Error> {
    let wanted = |item: &Item| match item.decision {
        Decision::Send(_) => true,
        Decision::There(_) => settings.full,
        _ => false,
    };
    let places: Vec<usize> = (0..items.len()).filter(|i| wanted(&items[*i])).collect();
    let blocks: Vec<Block> = places.iter().filter_map(|i| items[*i].block.clone()).collect();
    let due: u64 = places.iter().map(|i| items[*i].bytes).sum();
    gauge.due.store(due, Ordering::Relaxed);
    let results = check_all(blocks, settings, gauge).await?;
    for (i, result) in places.into_iter().zip(results) {
        let item = &mut items[i];
        match result {
            Ok((_, checked)) if checked.facts.chunks == 0 && matches!(item.decision, Decision::Send(_)) => {
                item.decision = Decision::LeftOut("it holds no sample".into());
            }
            Ok((known, checked)) => item.checked(known, &checked),
            Err(why) => item.decision = Decision::Refused(why),
        }
    }
    Ok(())
}

/// Sets the flag when nobody waits any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the check of a block came to: what is known of it now, or why it is refused.
type Verdict = Result<(Known, Checked), String>;

async fn check_all(blocks: Vec<Block>, settings: &Settings, gauge: &Gauge) -> Result<Vec<Verdict>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let _guard = StopOnDrop(Arc::clone(&stop));
    let (threads, sha256, read) = (settings.threads, settings.sha256, Arc::clone(&gauge.read));
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
            let result = conclude(result, before.get(i).and_then(|before| before.as_ref().ok()), sha256);
            results.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(result);
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    })
    .await?;
    Ok(results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Err("it was not checked".into())))
        .collect())
}

fn conclude(result: Result<(Pinned, Checked), PinError>, before: Option<&Vec<FileStamp>>, sha256: bool) -> Verdict {
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
    Ok((Known { stamps, files }, checked))
}
