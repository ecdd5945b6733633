//! What Prometheus tells of itself, and why it does not: rules over values. Those about its flags and labels are the
//! heartbeat's own ([`checks`]).

use super::{
    Check, Finding, Verdict,
    table::{
        PROMETHEUS_BLOCK_DURATION, PROMETHEUS_CLIENT, PROMETHEUS_COMPACTION, PROMETHEUS_CREDENTIALS,
        PROMETHEUS_DELAY_FILE, PROMETHEUS_ENCODINGS, PROMETHEUS_FLAGS, PROMETHEUS_LABEL_VALUES, PROMETHEUS_LABELS,
        PROMETHEUS_LIFECYCLE, PROMETHEUS_METRICS, PROMETHEUS_MODE, PROMETHEUS_OUT_OF_ORDER, PROMETHEUS_PATH,
        PROMETHEUS_REACHABLE, PROMETHEUS_REMOTE_READ, PROMETHEUS_RETENTION, PROMETHEUS_VERSION,
    },
};
use crate::{
    model::duration_text::go_duration,
    prometheus::{
        Error, ErrorKind, Snapshot,
        checks::{self, Severity, Subject},
        version::at_least,
    },
};

/// Blocks that are kept for less time are warned of (ms): an alert comes after a quarter of an hour, and people take longer.
const SHORT_RETENTION_MS: i64 = 6 * 3_600_000;

/// What the sidecar is to do, as far as it matters for Prometheus.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// It ships blocks.
    pub ships: bool,
    /// It rewrites chunks that readers refuse.
    pub rewrites: bool,
    /// It holds blocks that Prometheus deletes before they are shipped.
    pub holds: bool,
    /// It has Prometheus reloaded by HTTP.
    pub reloads_by_http: bool,
}

/// Why Prometheus cannot be asked.
pub fn unanswered(error: &Error) -> Finding {
    let check = match &error.kind {
        ErrorKind::Status {
            code: 401 | 403 | 407, ..
        }
        | ErrorKind::UrlCredentials { .. } => &PROMETHEUS_CREDENTIALS,
        ErrorKind::Status {
            code: 300..=399 | 404 | 405,
            ..
        }
        | ErrorKind::TooLarge { .. }
        | ErrorKind::NotJson { .. }
        | ErrorKind::NotUnderstood(_) => &PROMETHEUS_PATH,
        ErrorKind::Setup(_) => &PROMETHEUS_CLIENT,
        _ => &PROMETHEUS_REACHABLE,
    };
    Finding::fail(check, error.to_string())
}

/// What there is to say of a Prometheus at `url` that has answered.
pub fn judge(url: &str, snapshot: &Snapshot, found: &[checks::Finding], wanted: Wanted) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(&PROMETHEUS_REACHABLE, format!("{url} answers"))];
    findings.push(version(&snapshot.version));
    findings.extend(found.iter().map(|finding| of_heartbeat(finding, wanted)));
    let unsaid = |subject: Subject| found.iter().all(|finding| finding.subject != subject);
    if unsaid(Subject::Labels) && unsaid(Subject::LabelValues) {
        findings.push(Finding::ok(&PROMETHEUS_LABELS, snapshot.labels.to_string()));
    }
    if snapshot.is_agent() {
        return findings;
    }
    findings.extend(remote_read(snapshot));
    if wanted.reloads_by_http {
        findings.extend(lifecycle(snapshot));
    }
    if wanted.ships {
        if [Subject::Compaction, Subject::DelayFile, Subject::Flags]
            .into_iter()
            .all(unsaid)
        {
            let how = match snapshot.delays_compaction() {
                true => "blocks are compacted once they are in the ledger",
                false => "blocks are not compacted",
            };
            findings.push(Finding::ok(&PROMETHEUS_COMPACTION, how));
        }
        findings.extend(out_of_order(snapshot));
        findings.extend(retention(snapshot, wanted.holds));
    }
    findings
}

/// A finding of the heartbeat under its name here.
fn of_heartbeat(found: &checks::Finding, wanted: Wanted) -> Finding {
    let check: &'static Check = match found.subject {
        Subject::Mode => &PROMETHEUS_MODE,
        Subject::Metrics => &PROMETHEUS_METRICS,
        Subject::Labels => &PROMETHEUS_LABELS,
        Subject::LabelValues => &PROMETHEUS_LABEL_VALUES,
        Subject::Encodings => &PROMETHEUS_ENCODINGS,
        Subject::Flags => &PROMETHEUS_FLAGS,
        Subject::DelayFile => &PROMETHEUS_DELAY_FILE,
        Subject::Compaction => &PROMETHEUS_COMPACTION,
        Subject::BlockDuration => &PROMETHEUS_BLOCK_DURATION,
    };
    let verdict = match found.severity {
        // The finding says itself that nothing is to be done then.
        Severity::Warning if found.subject == Subject::Encodings && wanted.rewrites => Verdict::Ok,
        Severity::Warning => Verdict::Warn,
        Severity::Error => Verdict::Fail,
    };
    let text = found.text.clone();
    Finding { check, verdict, text }
}

fn version(version: &str) -> Finding {
    match version {
        "0" => Finding::warn(&PROMETHEUS_VERSION, "it does not tell its version"),
        old if !at_least(old, 2, 42) => Finding::warn(
            &PROMETHEUS_VERSION,
            format!("{old} is older than 2.42, the oldest that narthex is tested with"),
        ),
        good => Finding::ok(&PROMETHEUS_VERSION, good),
    }
}

fn remote_read(snapshot: &Snapshot) -> Option<Finding> {
    const LIMIT: &str = "storage.remote.read-concurrent-limit";
    let limit = snapshot.flags.get(LIMIT)?;
    Some(match limit.parse::<i64>() {
        // Seen with 3.5: each remote read waits until its client goes.
        Ok(0) => Finding::fail(
            &PROMETHEUS_REMOTE_READ,
            format!("Prometheus runs with --{LIMIT}=0 and answers no remote read: every query of series hangs"),
        ),
        Ok(1) => Finding::warn(
            &PROMETHEUS_REMOTE_READ,
            format!(
                "Prometheus runs with --{LIMIT}=1: one query of series runs at a time, and none is left for other readers"
            ),
        ),
        _ => Finding::ok(&PROMETHEUS_REMOTE_READ, format!("{limit} remote reads at once")),
    })
}

fn lifecycle(snapshot: &Snapshot) -> Option<Finding> {
    let enabled = snapshot.flags.get("web.enable-lifecycle")?;
    Some(match enabled.as_str() {
        "false" => Finding::fail(
            &PROMETHEUS_LIFECYCLE,
            "Prometheus runs without --web.enable-lifecycle, so that it refuses to load changed files",
        ),
        _ => Finding::ok(&PROMETHEUS_LIFECYCLE, "it may be reloaded by HTTP"),
    })
}

/// Overlapping blocks are merged whatever the block durations are.
fn out_of_order(snapshot: &Snapshot) -> Option<Finding> {
    const OVERLAPPING: &str = "storage.tsdb.allow-overlapping-compaction";
    let window = snapshot.settings.out_of_order_window_ms.filter(|window| *window > 0)?;
    let window = go_duration(window);
    // Versions without the flag do so, too.
    let merges = snapshot.flags.get(OVERLAPPING).is_none_or(|value| value != "false");
    Some(match merges && !snapshot.delays_compaction() {
        true => Finding::warn(
            &PROMETHEUS_OUT_OF_ORDER,
            format!(
                "Prometheus takes samples that are up to {window} out of order, and merges blocks that overlap \
                 (--{OVERLAPPING}) without waiting until they are uploaded: what was merged is not uploaded"
            ),
        ),
        false => Finding::ok(
            &PROMETHEUS_OUT_OF_ORDER,
            format!("samples up to {window} out of order; blocks are uploaded before they are merged"),
        ),
    })
}

fn retention(snapshot: &Snapshot, holds: bool) -> Option<Finding> {
    let time_ms = snapshot.retention()?.time_ms?;
    let kept = format!("blocks are kept for {}", go_duration(time_ms));
    Some(match time_ms < SHORT_RETENTION_MS && !holds {
        true => Finding::warn(
            &PROMETHEUS_RETENTION,
            format!(
                "{kept}: what could not be uploaded by then is lost, and that leaves little time to notice and mend it"
            ),
        ),
        false => Finding::ok(&PROMETHEUS_RETENTION, kept),
    })
}

#[cfg(test)]
mod tests;
