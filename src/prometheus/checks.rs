//! Whether Prometheus' flags allow every block to be uploaded before it is compacted or deleted. Pure: no I/O, no
//! clock.
//!
//! Prometheus compacts small blocks into larger ones unless its two block durations are equal, or unless it waits for
//! our ledger to name them. A block that was compacted before it was uploaded arrives late, compacted, or never. So a
//! mismatch is an error that makes us not ready. It stops nothing: what can be uploaded is uploaded.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use super::{configuration::StorageSettings, error::Error};
use crate::model::{Labels, duration::parse_prometheus};

const MIN: &str = "storage.tsdb.min-block-duration";
const MAX: &str = "storage.tsdb.max-block-duration";
const DELAY: &str = "storage.tsdb.delay-compact-file.path";

/// Flags that Prometheus gives as `true` or `false`.
const SWITCHES: [&str; 2] = ["web.enable-admin-api", "web.enable-lifecycle"];

/// The block duration that readers of the bucket expect.
const USUAL: Duration = Duration::from_secs(2 * 60 * 60);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth checking.
    Warning,
    /// Blocks may be lost or come late: not ready until it is changed.
    Error,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// It runs in agent mode.
    Mode,
    /// Its own metrics cannot be read.
    Metrics,
    /// It has no external labels.
    Labels,
    /// Values of external labels.
    LabelValues,
    /// The encodings of the chunks that it writes.
    Encodings,
    /// Flags that it does not report, or not as it should.
    Flags,
    /// The file by which it knows which blocks are uploaded.
    DelayFile,
    /// It compacts blocks that may not be uploaded.
    Compaction,
    /// How long its blocks are.
    BlockDuration,
}

/// Something about Prometheus' flags that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong and what to change.
    pub text: String,
}

impl Finding {
    fn error(subject: Subject, text: String) -> Self {
        let severity = Severity::Error;
        Self {
            subject,
            severity,
            text,
        }
    }

    fn warning(subject: Subject, text: String) -> Self {
        let severity = Severity::Warning;
        Self {
            subject,
            severity,
            text,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether these are the flags of a Prometheus in agent mode: `--agent` from 3.0 on, a feature to be enabled before.
pub fn is_agent(flags: &BTreeMap<String, String>) -> bool {
    let is = |name: &str, test: &dyn Fn(&str) -> bool| flags.get(name).is_some_and(|value| test(value));
    is("agent", &|value| value == "true") || is("enable-feature", &|value| value.split(',').any(|one| one == "agent"))
}

/// Whether Prometheus waits for a list of uploaded blocks before it compacts them, by these flags.
pub fn delays_compaction(flags: &BTreeMap<String, String>) -> bool {
    flags.get(DELAY).is_some_and(|path| !path.is_empty())
}

/// The settings by which Prometheus writes chunks that Thanos' readers refuse, as they are spelled. (Known for 3.11 to
/// 3.14; the feature `st-storage` needs the first one.)
pub fn newer_encoding_settings(flags: &BTreeMap<String, String>, settings: &StorageSettings) -> Vec<&'static str> {
    let features = flags.get("enable-feature").map(String::as_str).unwrap_or_default();
    let has = |name: &str| features.split(',').any(|feature| feature.trim() == name);
    let mut found = Vec::new();
    match settings.float_encoding.as_deref() {
        Some("xor2") => found.push("storage.tsdb.chunk_encoding.floats: xor2"),
        // It wins over the feature, which only changes the default.
        Some("xor") => {}
        _ if has("xor2-encoding") => found.push("--enable-feature=xor2-encoding"),
        _ => {}
    }
    if has("histograms-st-encoding") {
        found.push("--enable-feature=histograms-st-encoding");
    }
    found
}

/// The finding for a Prometheus that writes chunks which Thanos' readers refuse.
pub(super) fn newer_encodings(flags: Option<&BTreeMap<String, String>>, settings: &StorageSettings) -> Option<Finding> {
    let nothing = BTreeMap::new();
    let found = newer_encoding_settings(flags.unwrap_or(&nothing), settings);
    (!found.is_empty()).then(|| {
        let text = format!(
            "Prometheus writes chunks in an encoding that Thanos' Store Gateway and Compactor refuse ({}): sent as they \
             are, they fail every query over their block, and stop the compactor. Unless --shipper.newer-encodings says \
             otherwise, narthex rewrites them on the way, and nothing is to be done",
            found.join(", ")
        );
        Finding::warning(Subject::Encodings, text)
    })
}

/// What is known of the flags of a Prometheus that does not report them, but is an agent.
pub(super) fn flags_of_an_agent() -> BTreeMap<String, String> {
    [("agent".to_owned(), "true".to_owned())].into()
}

/// The finding for a Prometheus in agent mode, whose other flags mean nothing.
pub(super) fn agent() -> Finding {
    Finding::warning(
        Subject::Mode,
        "Prometheus runs in agent mode: it stores no blocks and answers no queries, so that nothing is shipped, and only \
         its targets and the metadata of their metrics are offered to queriers. Run narthex beside the server that it \
         sends to (remote_write), or run Prometheus without agent mode"
            .to_owned(),
    )
}

/// The finding for a Prometheus whose metrics page is an error.
pub(super) fn guarded(error: &Error) -> Finding {
    Finding::warning(
        Subject::Metrics,
        format!(
            "Prometheus' own metrics cannot be read, so the oldest time that it holds is unknown (queriers ask narthex \
         about all times), and so is whether it fails to load blocks: allow narthex to read them ({error})"
        ),
    )
}

/// The finding for a Prometheus without external labels.
pub(super) fn unlabelled() -> Finding {
    Finding::error(
        Subject::Labels,
        "Prometheus has no external labels, so its blocks and series could not be told from those of other Prometheus \
         instances; no block is uploaded and queries are refused until it has some: set global.external_labels in its \
         configuration, or --label here"
            .to_owned(),
    )
}

/// The finding for external labels whose value looks like a variable that nobody has replaced: it is the same on all
/// replicas, so that their blocks overlap and their series are taken for one.
pub(super) fn unreplaced(labels: &Labels) -> Option<Finding> {
    let odd = labels.iter().filter(|label| has_variable(&label.value));
    let odd: Vec<String> = odd.map(|label| format!("{}={:?}", label.name, &*label.value)).collect();
    (!odd.is_empty()).then(|| {
        let text = format!(
            "external labels look like variables that nobody has replaced ({}); every replica has the same then, so that their \
             blocks, which are shipped all the same, overlap in the bucket. Have the variable replaced in Prometheus' \
             configuration (the operator's config-reloader does it for $(POD_NAME); Prometheus replaces ${{POD_NAME}} from 3.0 on, and before that with \
             --enable-feature=expand-external-labels), or in --label",
            odd.join(", ")
        );
        Finding::error(Subject::LabelValues, text)
    })
}

/// Whether a text has a `$(NAME)`, `${NAME}` or `%{NAME}` in it.
fn has_variable(text: &str) -> bool {
    [("$(", ')'), ("${", '}'), ("%{", '}')].iter().any(|(open, close)| {
        text.match_indices(open).any(|(at, _)| {
            let rest = &text[at + open.len()..];
            let name = rest.split(*close).next().unwrap_or_default();
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            name.len() < rest.len() && !name.is_empty() && name.chars().all(is_name)
        })
    })
}

/// Compares Prometheus' `flags` (`None`: it does not report them) with ours: the data directory as `--tsdb.path` spells
/// it, the ledger's file name, and whether unequal block durations are accepted.
pub fn validate(
    flags: Option<&BTreeMap<String, String>>,
    tsdb_path: &Path,
    ledger_name: &str,
    ignore_unequal: bool,
) -> Vec<Finding> {
    let Some(flags) = flags else {
        return vec![Finding::warning(
            Subject::Flags,
            format!(
                "Prometheus does not expose its flags (404), so it cannot be checked that blocks are uploaded before they \
             are compacted: make sure that its --{MIN} and --{MAX} are equal"
            ),
        )];
    };
    let mut findings = Vec::new();
    let ledger = join(&tsdb_path.to_string_lossy(), ledger_name);
    let delay = flags.get(DELAY).map(String::as_str).filter(|path| !path.is_empty());
    if let Some(delay) = delay.filter(|delay| clean(delay) != ledger) {
        let text = format!(
            "Prometheus waits for {delay} before it compacts blocks, but uploaded blocks are recorded in {ledger}, so \
             it may compact blocks that are not uploaded: set its --{DELAY}={ledger}, or change --tsdb.path and \
             --shipper.meta-file-name so that both paths are the same (both containers need the same mount path)"
        );
        findings.push(Finding::error(Subject::DelayFile, text));
    }
    let remedy = delay.is_none().then_some(Remedy { ledger, ignore_unequal });
    check_durations(flags, remedy, &mut findings);
    for switch in SWITCHES {
        if let Some(value) = flags
            .get(switch)
            .filter(|value| !matches!(value.as_str(), "true" | "false"))
        {
            findings.push(Finding::warning(
                Subject::Flags,
                format!("Prometheus reports {switch}={value:?}, which is neither true nor false"),
            ));
        }
    }
    findings
}

/// The finding for a Prometheus that compacts blocks without waiting for us.
struct Remedy {
    ledger: String,
    ignore_unequal: bool,
}

impl Remedy {
    fn finding(&self, min: &str, max: &str) -> Finding {
        if self.ignore_unequal {
            return Finding::warning(
                Subject::Compaction,
                format!(
                    "Prometheus compacts blocks (--{MIN}={min}, --{MAX}={max}), and --shipper.ignore-unequal-block-size \
                 accepts that it may do so before they are uploaded"
                ),
            );
        }
        let ledger = &self.ledger;
        Finding::error(
            Subject::Compaction,
            format!(
                "Prometheus compacts blocks (--{MIN}={min}, --{MAX}={max}) and may do so before they are uploaded: set \
             its --{MAX}={min}, or from Prometheus 3.9 on set its --{DELAY}={ledger}"
            ),
        )
    }
}

fn check_durations(flags: &BTreeMap<String, String>, remedy: Option<Remedy>, findings: &mut Vec<Finding>) {
    let (Some(min_text), Some(max_text)) = (flags.get(MIN), flags.get(MAX)) else {
        findings.push(Finding::warning(Subject::Flags, format!(
            "Prometheus does not report {MIN} and {MAX}, so it cannot be checked that blocks are uploaded before they \
             are compacted"
        )));
        return;
    };
    let mut parse = |name: &str, text: &str| match parse_prometheus(text) {
        Ok(duration) => Some(duration),
        Err(error) => {
            let text = format!(
                "Prometheus reports {name}={text:?}, which is not a duration ({error}): set its --{name} to one like \
                 2h"
            );
            findings.push(Finding::error(Subject::Flags, text));
            None
        }
    };
    let (min, max) = (parse(MIN, min_text), parse(MAX, max_text));
    let (Some(min), Some(max)) = (min, max) else { return };
    if let Some(remedy) = remedy.filter(|_| min != max) {
        findings.push(remedy.finding(min_text, max_text));
    }
    if min != USUAL {
        findings.push(Finding::warning(
            Subject::BlockDuration,
            format!("Prometheus runs with --{MIN}={min_text}, but compactors and dashboards expect 2h: set it to 2h"),
        ));
    }
}

/// `dir` and `name` as one clean path.
fn join(dir: &str, name: &str) -> String {
    match (dir, name) {
        ("", "") => String::new(),
        ("", one) | (one, "") => clean(one),
        (dir, name) => clean(&format!("{dir}/{name}")),
    }
}

/// The shortest equal path by text alone, as Go's `path.Clean` gives it: no empty and no `.` elements, no `..` except
/// at the start of a relative path, no final slash; an empty path is `.`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." if kept.last().is_some_and(|&last| last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            element => kept.push(element),
        }
    }
    match (rooted, kept.is_empty()) {
        (true, _) => format!("/{}", kept.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => kept.join("/"),
    }
}

#[cfg(test)]
mod tests;
