//! The blocks of a bucket that the flags select, one by one.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::Completion;
use crate::{
    catalog::{self, Found},
    cli::Selection,
    objstore::{Bucket, Scope},
    tsdb::{BlockId, Meta},
};

/// Blocks that are asked for at once.
const AT_ONCE: usize = 16;

/// After this time a store that does not answer has been given up, with the reason.
const TELLS_WHY: Duration = Duration::from_secs(180);

/// Which blocks, with the offsets from now resolved.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    selection: Selection,
    /// The times that the blocks must touch (ms since 1970), both inclusive.
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Wanted {
    /// What `selection` means at `now` (ms since 1970).
    pub(super) fn new(selection: Selection, now: i64) -> Self {
        Self {
            from: selection.times.min_time.resolve(now),
            until: selection.times.max_time.resolve(now),
            selection,
        }
    }

    /// Whether a block is selected.
    ///
    /// # Errors
    /// A selector that cannot be used.
    pub(super) fn has(&self, meta: &Meta) -> Result<bool> {
        if meta.max_time < self.from || meta.min_time > self.until {
            return Ok(false);
        }
        let labels = meta.thanos_labels.clone().unwrap_or_default();
        for selector in &self.selection.selector {
            if !selector.matches(&labels).context("--selector cannot be used")? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What the bucket has under a block's name.
#[derive(Debug)]
pub(super) enum Scanned {
    /// A block that is selected.
    Block {
        meta: Box<Meta>,
        /// It is marked for deletion; false as well if that was not asked for.
        marked: bool,
    },
    /// Objects without a `meta.json`.
    Partial(BlockId),
    /// A block that cannot be read: its `meta.json`, or whether it is marked for deletion.
    Unreadable(BlockId, String),
}

/// What of the bucket is selected, in no order. `marks` says whether deletion marks are looked for, which takes a
/// request for each block.
pub(super) fn scan<'a>(
    bucket: &'a dyn Bucket,
    wanted: &'a Wanted,
    marks: bool,
) -> impl Stream<Item = Result<Scanned>> + 'a {
    stream::once(catalog::ids(bucket, ""))
        .map_err(anyhow::Error::new)
        .map_ok(move |ids| {
            let reads = stream::iter(ids).map(move |id| scan_block(bucket, id, wanted, marks));
            reads.buffer_unordered(AT_ONCE)
        })
        .try_flatten()
        .try_filter_map(async |scanned| Ok(scanned))
}

/// Reads one block; `None` if it is not selected.
async fn scan_block(bucket: &dyn Bucket, id: BlockId, wanted: &Wanted, marks: bool) -> Result<Option<Scanned>> {
    Ok(match catalog::read(bucket, id).await? {
        Found::Block(meta) if wanted.has(&meta)? => {
            let marked = match marks {
                true => catalog::is_marked_for_deletion(bucket, id).await,
                false => Ok(false),
            };
            match marked {
                Ok(marked) => Some(Scanned::Block { meta, marked }),
                Err(error) if error.scope() == Scope::Object => Some(Scanned::Unreadable(id, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Found::Block(_) => None,
        Found::Partial => Some(Scanned::Partial(id)),
        Found::Unreadable(why) => Some(Scanned::Unreadable(id, why)),
    })
}

/// What is left out of a list of blocks, and logged.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    partial: usize,
    unreadable: usize,
}

impl LeftOut {
    /// The block that was read and whether it is marked for deletion; what is no block, or cannot be read, is logged and counted.
    pub(super) fn accept(&mut self, scanned: Scanned) -> Option<(Box<Meta>, bool)> {
        match scanned {
            Scanned::Block { meta, marked } => return Some((meta, marked)),
            Scanned::Partial(id) => {
                tracing::debug!(block = %id, "there is no meta.json");
                self.partial += 1;
            }
            Scanned::Unreadable(id, why) => {
                tracing::warn!(block = %id, why, "cannot read a block; leaving it out");
                self.unreadable += 1;
            }
        }
        None
    }

    /// How a list ends from which they are left out: a block that cannot be judged may have belonged there.
    pub(super) fn end(&self) -> Completion {
        match self.unreadable {
            0 => Completion::Clean,
            _ => Completion::WithFindings,
        }
    }

    /// Logs how many uploads without a `meta.json` there were.
    pub(super) fn log_counts(&self) {
        if self.partial > 0 {
            tracing::info!(
                blocks = self.partial,
                "blocks without meta.json are left out: uploads that are running or were abandoned; bucket verify lists them"
            );
        }
    }
}

/// Waits for `work` until the signal or the time limit of `--timeout`, 0 being none; `None` if the signal came.
///
/// # Errors
/// Those of the work; that the time is up.
pub(super) async fn with_time_limit<T>(
    token: &CancellationToken,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let late = async {
        match limit.is_zero() {
            true => std::future::pending().await,
            false => tokio::time::sleep(limit).await,
        }
    };
    tokio::select! {
        biased;
        () = token.cancelled() => Ok(None),
        done = work => done.map(Some),
        () = late => bail!(
            "the blocks of the bucket could not be read within {limit:?}; --timeout sets another limit{}",
            match limit < TELLS_WHY {
                true => ", and one of 3m or more ends with the reason where the store does not answer",
                false => "",
            }
        ),
    }
}
