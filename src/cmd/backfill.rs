//! `narthex backfill`, and `narthex tools bucket upload-blocks`, which is the same under Thanos' name: plan, apply, verify.

mod report;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;

use self::report::{Outcome as Ended, Report};
use super::{
    encodings::newer_encodings,
    job::{self, Completion, OpenBucket},
    progress::Progress,
};
use crate::{
    audit::integrity::Reader,
    backfill::{Apply, CheckProgress, Decision, Item, Overlaps, Plan, Settings, plan, prove},
    cli,
    model::Labels,
    ops::supervisor::Outcome,
    prometheus::client::Client,
    shipper::NewerEncodings,
};

/// How long Prometheus may take to tell its labels.
const PROMETHEUS: Duration = Duration::from_secs(30);

/// What is to be done beside what the settings say.
#[derive(Debug)]
struct Task {
    settings: Settings,
    dry_run: bool,
    json: bool,
    requests_at_once: usize,
}

pub(super) async fn backfill(flags: cli::Backfill) -> Result<Outcome> {
    let store = job::open(&flags.objstore, flags.transfer.concurrency, flags.transfer.max_rate).await?;
    job::run(&store, |stop| async {
        let labels = labels(&flags.source).await?;
        let now = jiff::Timestamp::now().as_millisecond();
        let source = flags.source;
        let task = Task {
            settings: Settings {
                path: source.path,
                labels,
                accept_label_change: source.accept_label_change,
                overlaps: match source.allow_overlaps {
                    true => Overlaps::Send,
                    false => Overlaps::Refuse,
                },
                allow_index_issues: source.allow_index_issues,
                newer_encodings: newer_encodings(source.newer_encodings),
                upload_compacted: source.upload_compacted,
                min_time: source.times.min_time.resolve(now),
                max_time: source.times.max_time.resolve(now),
                sha256: source.hash_func == cli::HashFunc::Sha256,
                source: "bucket.upload".to_owned(),
                threads: threads(),
                full: flags.verify == cli::Proof::Full,
            },
            dry_run: flags.dry_run,
            json: flags.result.output == cli::Output::Json,
            requests_at_once: flags.transfer.concurrency,
        };
        execute(task, &store, stop).await
    })
    .await
}

pub(super) async fn upload_blocks(flags: cli::UploadBlocks) -> Result<Outcome> {
    let requests_at_once = flags.requests_at_once();
    let store = job::open(&flags.objstore, requests_at_once, 0).await?;
    let task = Task {
        settings: Settings {
            labels: flags.labels(),
            path: flags.path,
            // As Thanos has it: the flag wins, and blocks cut from the head may overlap.
            accept_label_change: true,
            overlaps: Overlaps::RefuseCompacted,
            allow_index_issues: false,
            newer_encodings: NewerEncodings::default(),
            upload_compacted: flags.upload_compacted,
            min_time: i64::MIN,
            max_time: i64::MAX,
            sha256: false,
            source: "bucket.upload".to_owned(),
            threads: threads(),
            full: false,
        },
        dry_run: false,
        json: false,
        requests_at_once,
    };
    job::run(&store, |stop| execute(task, &store, stop)).await
}

/// One thread for each file that is checked, and as many files at once as there are cores.
fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// The labels of Prometheus, if it is to be asked, with those of the flags laid over them.
async fn labels(source: &cli::BackfillSource) -> Result<Labels> {
    let Some(url) = &source.prometheus_url else {
        return Ok(source.labels());
    };
    let (http, _) = super::http_client(&source.client)?;
    for warning in Client::warnings(url, &http) {
        tracing::warn!(warning, "configuration of the client for Prometheus");
    }
    let client = super::prometheus_client(url, &http, PROMETHEUS)?;
    let configuration = client
        .configuration()
        .await
        .context("cannot read the external labels from --prometheus.url")?;
    let labels = configuration.labels;
    if labels.is_empty() {
        tracing::warn!(prometheus = client.url(), "this Prometheus has no external labels");
    }
    Ok(labels.overlaid_with(&source.labels()))
}

/// Plans, and unless that is all that is wanted, applies and verifies.
async fn execute(task: Task, store: &OpenBucket, stop: CancellationToken) -> Result<Completion> {
    let begun = Instant::now();
    let mut report = Report::new(&task.settings.path, task.dry_run);
    let checking = CheckProgress::default();
    let planned = {
        let (due, read) = (Arc::clone(&checking.due), Arc::clone(&checking.read));
        let _progress = Progress::start(
            move || due.load(Ordering::Relaxed),
            move || read.load(Ordering::Relaxed),
            "checking",
        );
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            planned = plan(&task.settings, &store.bucket, &checking) => Some(planned?),
        }
    };
    let Some(plan) = planned else {
        report.outcome = Ended::Cut;
        report.print(task.json)?;
        return Ok(Completion::Interrupted);
    };
    report.record_plan(&plan, &store.bucket, begun.elapsed());
    if !task.json {
        super::output::print(&report.plan_as_text())?;
    }
    if !task.dry_run {
        apply(&task, &plan, store, &stop, &mut report).await?;
    }
    report.conclude();
    report.print(task.json)?;
    match report.outcome {
        Ended::AllThere => Ok(Completion::Clean),
        Ended::SomeRefused | Ended::SomeUnreadable => Ok(Completion::WithFindings),
        Ended::Cut => Ok(Completion::Interrupted),
        Ended::Failed => bail!(
            "{}; what was uploaded stays: run it again to continue",
            report.failure()
        ),
    }
}

async fn apply(
    task: &Task,
    plan: &Plan,
    store: &OpenBucket,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<()> {
    let begun = Instant::now();
    let before = store.rate_limit.sent();
    let due = plan.to_send().map(|item| item.bytes).sum();
    let applied = {
        let rate_limit = store.rate_limit.clone();
        let _progress = Progress::start(move || due, move || rate_limit.sent() - before, "sending");
        let sent = |item: &Item| tracing::info!(block = %item.id, bytes = item.bytes, labels = %item.labels, "block is durable");
        Apply::new(&task.settings, &store.bucket).run(plan, stop, sent).await
    };
    report.record_uploads(&applied, store.rate_limit.sent() - before, begun.elapsed());
    if stop.is_cancelled() {
        report.outcome = Ended::Cut;
        return Ok(());
    }
    let there: Vec<&Item> = plan
        .items
        .iter()
        .filter(|item| match item.decision {
            Decision::Send(_) => applied.sent.contains(&item.id) || applied.there.contains(&item.id),
            _ => report::is_compared(item),
        })
        .collect();
    let begun = Instant::now();
    let proven = {
        let reader = Reader::new(task.requests_at_once);
        let read = Arc::clone(&reader.read);
        let due = match task.settings.full {
            true => there.iter().map(|item| item.bytes).sum(),
            false => 0,
        };
        let _progress = Progress::start(move || due, move || read.load(Ordering::Relaxed), "reading back");
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            proven = prove(&there, &task.settings, &store.bucket, &reader) => Some(proven),
        }
    };
    match proven {
        None => report.outcome = Ended::Cut,
        Some(proven) => report.record_proof(&proven, task.settings.full, begun.elapsed()),
    }
    Ok(())
}
