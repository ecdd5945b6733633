//! `narthex restore`.

mod report;

use std::{sync::Arc, time::Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use self::report::{Planned, Report};
use super::{
    progress::Progress,
    show,
    single::{self, End, Store},
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
    let store = single::open(&flags.objstore, transfer.concurrency, transfer.max_rate).await?;
    // Before the bucket is read, which may take a while.
    Target::check(&flags.to)?;
    single::run(&store, |token| job(&flags, &store, token)).await
}

async fn job(flags: &cli::Restore, store: &Store, token: CancellationToken) -> Result<End> {
    let begun = Instant::now();
    let now = jiff::Timestamp::now().as_millisecond();
    let selection = &flags.selection;
    let wanted = Wanted {
        selectors: selection.selector.clone(),
        min_time: selection.min_time.resolve(now),
        max_time: selection.max_time.resolve(now),
    };
    let Some(found) = token.run_until_cancelled(find(store, &wanted)).await else {
        tracing::warn!("cut while the bucket was read; nothing was restored");
        return Ok(End::Cut);
    };
    let (found, unreadable) = found?;
    let planned = Planned::new(found, unreadable, flags.skip_downsampled);
    if flags.output == Output::Text {
        show::print(&planned.text())?;
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
        fetched: store.pace.received(),
        took: begun.elapsed(),
        now,
    };
    match flags.output {
        Output::Text => show::print(&report.text())?,
        Output::Json => show::print(&format!("{:#}\n", report.json()))?,
    }
    report.end()
}

/// Reads what the bucket holds, and decides; how many blocks could not be judged.
async fn find(store: &Store, wanted: &Wanted) -> Result<(Result<Plan, Refusal>, u64)> {
    let bucket = &*store.bucket;
    let mut survey = restore::survey(bucket, wanted).await?;
    for (block, why) in &survey.unreadable {
        tracing::warn!(%block, why, "passed over: its meta.json is of no use, so that nobody knows whose block it is");
    }
    if survey.unreadable_total > 0 || survey.partial > 0 {
        let (unreadable, partial) = (survey.unreadable_total, survey.partial);
        tracing::warn!(
            unreadable,
            partial,
            "the bucket holds what is no block, or not yet; it was passed over"
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

async fn apply(flags: &cli::Restore, store: &Store, plan: &Plan, token: &CancellationToken) -> Result<Applied> {
    let target = Target::open(&flags.to)?;
    if fs_err::metadata(flags.to.join("wal")).is_ok() {
        tracing::warn!(
            dir = %flags.to.display(),
            "a Prometheus has worked in this directory; what is restored joins its own blocks"
        );
    }
    let lacks: u64 = plan.restored().map(|block| target.lacks(block.id, block.bytes)).sum();
    // A rerun after a full disk must not be refused for what it writes over.
    let cut_off: u64 = plan.restored().map(|block| target.cut_off(block.id)).sum();
    let free = target.free()?.saturating_add(cut_off);
    if lacks > free {
        bail!(
            "{} are to come to {}, and its file system has {} free; free some space, or narrow --min-time and --max-time",
            show::size(lacks),
            flags.to.display(),
            show::size(free)
        );
    }
    let (pace, before) = (store.pace.clone(), store.pace.received());
    let _progress = Progress::start(
        move || lacks,
        move || pace.received().saturating_sub(before),
        "restoring",
    );
    let blocks = plan.restored().map(|block| block.id).collect();
    let bucket = Arc::clone(&store.bucket);
    Ok(restore::apply(bucket, target, blocks, flags.transfer.concurrency, token).await)
}
