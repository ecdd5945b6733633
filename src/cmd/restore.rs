//! `narthex restore`.

mod log;
mod report;

use std::{sync::Arc, time::Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use self::report::{Planned, Report};
use super::{
    job::{self, Completion, OpenBucket},
    output,
    progress::Progress,
};
use crate::{
    cli::{self, Output},
    ops::supervisor::Outcome,
    restore::{
        self, Applied, Target, Wanted,
        plan::{self, Plan, Refusal},
    },
};

pub(super) async fn restore(flags: cli::Restore) -> Result<Outcome> {
    let transfer = &flags.transfer;
    // Where there is nothing to do it does not matter who is at work there, nor whether the bucket can be used.
    if flags.wal && flags.if_lost && log::is_there(&flags)? {
        return Ok(Outcome { code: 0 });
    }
    let store = job::open(&flags.blocks.objstore, transfer.concurrency, transfer.max_rate).await?;
    // Before the bucket is read, which may take a while.
    Target::check(&flags.to)?;
    if !flags.wal {
        return job::run(&store, |token| run(&flags, &store, token)).await;
    }
    log::is_there(&flags)?;
    job::run(&store, |token| with_log(&flags, &store, token)).await
}

/// The blocks, if they are wanted, and then the log: what it begins with depends on them.
async fn with_log(flags: &cli::Restore, store: &OpenBucket, token: CancellationToken) -> Result<Completion> {
    let blocks = match flags.blocks.selection.times.has_min_time() {
        true => run(flags, store, token.clone()).await?,
        false => Completion::Clean,
    };
    if blocks == Completion::Interrupted {
        return Ok(blocks);
    }
    Ok(match log::run(flags, store, token).await? {
        // A new Prometheus has no blocks, and is not to be kept from starting.
        Completion::Clean if !flags.if_lost => blocks,
        other => other,
    })
}

async fn run(flags: &cli::Restore, store: &OpenBucket, token: CancellationToken) -> Result<Completion> {
    let begun = Instant::now();
    let now = jiff::Timestamp::now().as_millisecond();
    let selection = &flags.blocks.selection;
    let wanted = Wanted {
        selectors: selection.selector.clone(),
        min_time: selection.times.min_time.resolve(now),
        max_time: selection.times.max_time.resolve(now),
    };
    let Some(found) = token.run_until_cancelled(find(store, &wanted)).await else {
        tracing::warn!("interrupted while the bucket was read; nothing was restored");
        return Ok(Completion::Interrupted);
    };
    let (found, unreadable) = found?;
    let planned = Planned::new(found, unreadable, flags.skip_downsampled);
    if flags.result.output == Output::Text {
        output::print(&planned.text())?;
    }
    let applied = match planned.plan() {
        Some(plan) if !flags.dry_run => Some(apply(flags, store, plan, &token).await?),
        _ => None,
    };
    let report = Report {
        bucket: store.bucket.identity(),
        to: &flags.to,
        dry_run: flags.dry_run,
        planned: &planned,
        applied: applied.as_ref(),
        fetched: store.rate_limit.received(),
        took: begun.elapsed(),
        now,
    };
    match flags.result.output {
        Output::Text => output::print(&report.text())?,
        Output::Json => output::print(&format!("{:#}\n", report.json()))?,
    }
    report.end()
}

/// Reads what the bucket holds, and decides; how many blocks could not be judged.
async fn find(store: &OpenBucket, wanted: &Wanted) -> Result<(Result<Plan, Refusal>, u64)> {
    let bucket = &*store.bucket;
    let mut survey = restore::survey(bucket, wanted).await?;
    for (block, why) in &survey.unreadable {
        tracing::warn!(%block, why, "leaving out a block whose meta.json cannot be used: its labels are not known");
    }
    if survey.unreadable_total > 0 || survey.partial > 0 {
        let (unreadable, partial) = (survey.unreadable_total, survey.partial);
        tracing::warn!(
            unreadable,
            partial,
            "left out blocks of the bucket without a meta.json that can be used"
        );
    }
    let labels = match survey.sole_set() {
        Ok(labels) => labels,
        Err(refusal) => return Ok((Err(refusal), survey.unreadable_total)),
    };
    let blocks = restore::list_objects(bucket, std::mem::take(&mut survey.blocks)).await?;
    let plan = plan::plan(labels, blocks, wanted.min_time, wanted.max_time);
    Ok((Ok(plan), survey.unreadable_total))
}

async fn apply(flags: &cli::Restore, store: &OpenBucket, plan: &Plan, token: &CancellationToken) -> Result<Applied> {
    let target = Target::open(&flags.to)?;
    if fs_err::metadata(flags.to.join("wal")).is_ok() {
        tracing::warn!(
            dir = %flags.to.display(),
            "a Prometheus has written to this directory: the restored blocks join its own"
        );
    }
    let lacks: u64 = plan.restored().map(|block| target.lacks(block.id, block.bytes)).sum();
    // A rerun after a full disk must not be refused for what it writes over.
    let cut_off: u64 = plan.restored().map(|block| target.cut_off(block.id)).sum();
    let free = target.free()?.saturating_add(cut_off);
    enough_room(
        flags,
        lacks,
        free,
        "free some space, or narrow --min-time and --max-time",
    )?;
    let _progress = progress(store, lacks);
    let blocks = plan.restored().map(|block| block.id).collect();
    let bucket = Arc::clone(&store.bucket);
    Ok(restore::apply(bucket, target, blocks, flags.transfer.concurrency, token).await)
}

/// Whether so many bytes fit where so many are free; what helps otherwise is in `help`.
///
/// # Errors
/// They do not.
fn enough_room(flags: &cli::Restore, bytes: u64, free: u64, help: &str) -> Result<()> {
    if bytes > free {
        bail!(
            "{} are to be written to {}, and its file system has {} free; {help}",
            output::byte_size(bytes),
            flags.to.display(),
            output::byte_size(free)
        );
    }
    Ok(())
}

/// Tells how much of so many bytes has come, until it is dropped.
fn progress(store: &OpenBucket, bytes: u64) -> Progress {
    let (rate_limit, before) = (store.rate_limit.clone(), store.rate_limit.received());
    let received = move || rate_limit.received().saturating_sub(before);
    Progress::start(move || bytes, received, "restoring")
}
