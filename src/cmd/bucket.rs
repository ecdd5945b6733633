//! `narthex bucket`: ls, inspect, verify, gaps.
//!
//! All of them only read. A signal ends them within seconds; nothing is left behind, and a run begins anew.

mod gaps;
mod inspect;
mod ls;
mod scan;
mod verify;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use self::scan::{Wanted, with_time_limit};
use super::{
    job::{self, Completion},
    output,
};
use crate::{audit::integrity::Reader, cli, ops::supervisor::Outcome};

/// Requests with a body that run at once where no flag says how many.
const AT_ONCE: usize = 16;

pub(super) async fn ls(flags: cli::Ls) -> Result<Outcome> {
    let wanted = Wanted::new(flags.blocks.selection, now());
    let store = job::open(&flags.blocks.objstore, AT_ONCE, 0).await?;
    let (bucket, wanted) = (&*store.bucket, &wanted);
    let job = async |token| {
        let list = ls::list(bucket, wanted, flags.exclude_delete, flags.output);
        print_result(with_time_limit(&token, flags.limit.timeout, list).await?)
    };
    job::run(&store, job).await
}

pub(super) async fn inspect(flags: cli::Inspect) -> Result<Outcome> {
    let wanted = Wanted::new(flags.blocks.selection, now());
    let store = job::open(&flags.blocks.objstore, AT_ONCE, 0).await?;
    let (bucket, wanted) = (&*store.bucket, &wanted);
    let job = async |token| {
        let table = inspect::table(bucket, wanted, &flags.sort_by, flags.output);
        print_result(with_time_limit(&token, flags.limit.timeout, table).await?)
    };
    job::run(&store, job).await
}

pub(super) async fn verify(flags: cli::Verify) -> Result<Outcome> {
    let now = now();
    let wanted = Wanted::new(flags.blocks.selection, now);
    let (at_once, max_rate) = (flags.transfer.concurrency, flags.transfer.max_rate);
    let store = job::open(&flags.blocks.objstore, at_once, max_rate).await?;
    let task = verify::Task {
        bucket: &store.bucket,
        wanted: &wanted,
        at_once,
        reader: flags.full.then(|| Reader::new(at_once)),
        now,
    };
    let job = async |token| {
        let (report, end) = verify::verify(&task, &token).await;
        output::print(&match flags.result.output {
            cli::Output::Text => report.text(),
            cli::Output::Json => output::json(&report.json())?,
        })?;
        end?;
        Ok(match (report.complete, report.is_good()) {
            (false, _) => Completion::Interrupted,
            (true, true) => Completion::Clean,
            (true, false) => Completion::WithFindings,
        })
    };
    job::run(&store, job).await
}

pub(super) async fn gaps(flags: cli::Gaps) -> Result<Outcome> {
    let now = now();
    let wanted = Wanted::new(flags.blocks.selection.clone(), now);
    let rules = gaps::rules(&flags, &wanted, now);
    let store = job::open(&flags.blocks.objstore, AT_ONCE, 0).await?;
    let (bucket, wanted, rules) = (&*store.bucket, &wanted, &rules);
    let job = async |token| {
        let report = with_time_limit(&token, Duration::ZERO, gaps::gaps(bucket, wanted, rules)).await?;
        let Some(report) = report else {
            return Ok(Completion::Interrupted);
        };
        output::print(&match flags.result.output {
            cli::Output::Text => report.text(),
            cli::Output::Json => output::json(&report.json())?,
        })?;
        Ok(match report.is_good() {
            true => Completion::Clean,
            false => Completion::WithFindings,
        })
    };
    job::run(&store, job).await
}

/// Prints what was found out; without it a signal came first.
fn print_result(found: Option<(String, Completion)>) -> Result<Completion> {
    let Some((text, end)) = found else {
        return Ok(Completion::Interrupted);
    };
    output::print(&text)?;
    Ok(end)
}

/// The time (ms since 1970).
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
