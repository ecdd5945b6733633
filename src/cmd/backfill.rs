//! `narthex backfill`, and `narthex tools bucket upload-blocks`, which is the same under Thanos' name: plan, apply, verify.

mod report;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;

use self::report::{Outcome as Said, Report};
use super::{
    progress::Progress,
    single::{self, End, Store},
};
use crate::{
    audit::whole::Reader,
    backfill::{Apply, CheckProgress, Decision, Item, Overlaps, Plan, Settings, plan, prove},
    cli,
    model::Labels,
    ops::supervisor::Outcome,
    prometheus::client::{Client, HttpClientConfig},
};

/// How long Prometheus may take to tell its labels.
const PROMETHEUS: Duration = Duration::from_secs(30);

/// What is to be done beside what the settings say.
#[derive(Debug)]
struct Order {
    settings: Settings,
    dry_run: bool,
    json: bool,
    requests_at_once: usize,
}

pub(super) async fn backfill(flags: cli::Backfill) -> Result<Outcome> {
    let store = single::open(&flags.objstore, flags.transfer.concurrency, flags.transfer.max_rate).await?;
    single::run(&store, |stop| async {
        let labels = labels(&flags.source).await?;
        let now = jiff::Timestamp::now().as_millisecond();
        let source = flags.source;
        let order = Order {
            settings: Settings {
                path: source.path,
                labels,
                accept_label_change: source.accept_label_change,
                overlaps: match source.allow_overlaps {
                    true => Overlaps::Send,
                    false => Overlaps::Refuse,
                },
                allow_index_issues: source.allow_index_issues,
                upload_compacted: source.upload_compacted,
                min_time: source.min_time.resolve(now),
                max_time: source.max_time.resolve(now),
                sha256: source.hash_func == cli::HashFunc::Sha256,
                source: "bucket.upload".to_owned(),
                threads: threads(),
                full: flags.verify == cli::Proof::Full,
            },
            dry_run: flags.dry_run,
            json: flags.output == cli::Output::Json,
            requests_at_once: flags.transfer.concurrency,
        };
        carry_out(order, &store, stop).await
    })
    .await
}

pub(super) async fn upload_blocks(flags: cli::UploadBlocks) -> Result<Outcome> {
    let requests_at_once = flags.requests_at_once();
    let store = single::open(&flags.objstore, requests_at_once, 0).await?;
    let order = Order {
        settings: Settings {
            labels: flags.labels(),
            path: flags.path,
            // As Thanos has it: the flag wins, and blocks cut from the head may overlap.
            accept_label_change: true,
            overlaps: Overlaps::RefuseCompacted,
            allow_index_issues: false,
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
    single::run(&store, |stop| carry_out(order, &store, stop)).await
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
    let http = HttpClientConfig::parse(&source.http_client()?)
        .context("the configuration of the client for Prometheus (--prometheus.http-client) is wrong")?;
    for warning in http.warnings() {
        tracing::warn!(warning, "configuration of the client for Prometheus");
    }
    let client =
        Client::new(url, &http, PROMETHEUS).context("--prometheus.url or --prometheus.http-client cannot be used")?;
    let labels = client
        .external_labels()
        .await
        .context("cannot read the external labels from --prometheus.url")?;
    if labels.is_empty() {
        tracing::warn!(prometheus = client.url(), "this Prometheus has no external labels");
    }
    Ok(labels.overlaid_with(&source.labels()))
}

/// Plans, and unless that is all that is wanted, applies and verifies.
async fn carry_out(order: Order, store: &Store, stop: CancellationToken) -> Result<End> {
    let begun = Instant::now();
    let mut report = Report::new(&order.settings.path, order.dry_run);
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
            planned = plan(&order.settings, &store.bucket, &checking) => Some(planned?),
        }
    };
    let Some(plan) = planned else {
        report.outcome = Said::Cut;
        report.print(order.json)?;
        return Ok(End::Cut);
    };
    report.planned(&plan, &store.bucket, begun.elapsed());
    if !order.json {
        super::show::print(&report.plan_as_text())?;
    }
    if !order.dry_run {
        apply(&order, &plan, store, &stop, &mut report).await?;
    }
    report.conclude();
    report.print(order.json)?;
    match report.outcome {
        Said::AllThere => Ok(End::Good),
        Said::SomeRefused | Said::SomeUnreadable => Ok(End::Findings),
        Said::Cut => Ok(End::Cut),
        Said::Failed => bail!(
            "{}; what was sent stays, and running it again goes on from there",
            report.failure()
        ),
    }
}

async fn apply(order: &Order, plan: &Plan, store: &Store, stop: &CancellationToken, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let before = store.pace.sent();
    let due = plan.to_send().map(|item| item.bytes).sum();
    let applied = {
        let pace = store.pace.clone();
        let _progress = Progress::start(move || due, move || pace.sent() - before, "sending");
        let sent = |item: &Item| tracing::info!(block = %item.id, bytes = item.bytes, labels = %item.labels, "block is durable");
        Apply::new(&order.settings, &store.bucket).run(plan, stop, sent).await
    };
    report.applied(&applied, store.pace.sent() - before, begun.elapsed());
    if stop.is_cancelled() {
        report.outcome = Said::Cut;
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
        let reader = Reader::new(order.requests_at_once);
        let read = Arc::clone(&reader.read);
        let due = match order.settings.full {
            true => there.iter().map(|item| item.bytes).sum(),
            false => 0,
        };
        let _progress = Progress::start(move || due, move || read.load(Ordering::Relaxed), "reading back");
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            proven = prove(&there, &order.settings, &store.bucket, &reader) => Some(proven),
        }
    };
    match proven {
        None => report.outcome = Said::Cut,
        Some(Ok(proven)) => report.proven(&proven, order.settings.full, begun.elapsed()),
        Some(Err(error)) => report.not_proven(&error),
    }
    Ok(())
}
