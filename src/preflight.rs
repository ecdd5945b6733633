//! What can be wrong before a sidecar runs: each thing that is looked at is a [`Check`] with a name that stays, and what is
//! found is a [`Finding`], as it is printed.
//!
//! - [`table`] has every check: its name, what it is about, and what to do.
//! - [`prometheus`] judges what Prometheus tells of itself, [`data_dir`] the data directory, [`certificates`] times; these are
//!   rules over values.
//! - [`bucket`] does in the bucket what a sidecar does there, with objects of its own; [`blocks`] looks at the blocks that are
//!   in it already.
//!
//! **Guarantees.** Each part ends with its time, and says then what it waited for. Nothing of Prometheus is changed. What is
//! written, below `narthex-check/` of the bucket and as one file without content in the data directory, is removed again, also
//! where a check fails, a store hangs or a signal comes; where that is not allowed, what stays is named. A crash leaves it
//! there, which nobody else looks at; the next run writes under another name. Secrets are in no text: those of errors come
//! from modules that keep them out.

pub mod blocks;
pub mod bucket;
pub mod certificates;
pub mod data_dir;
pub mod prometheus;
pub mod table;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use self::table::Check;

/// How good what was found is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// By which check.
    pub check: &'static Check,
    /// How good it is.
    pub verdict: Verdict,
    /// What there is, and the exact cause where it is not good.
    pub text: String,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static Check, text: impl Into<String>) -> Self {
        let (verdict, text) = (Verdict::Ok, text.into());
        Self { check, verdict, text }
    }

    /// Somebody should look at it.
    pub fn warn(check: &'static Check, text: impl Into<String>) -> Self {
        let (verdict, text) = (Verdict::Warn, text.into());
        Self { check, verdict, text }
    }

    /// It does not work.
    pub fn fail(check: &'static Check, text: impl Into<String>) -> Self {
        let (verdict, text) = (Verdict::Fail, text.into());
        Self { check, verdict, text }
    }
}

/// The worst of all verdicts.
pub fn verdict(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|finding| finding.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}

/// One part of a run: what it has found so far, and what it waits for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Part(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    findings: Vec<Finding>,
    waits_for: Option<(&'static Check, String)>,
}

impl Part {
    /// Adds what was found.
    pub fn add(&self, findings: impl IntoIterator<Item = Finding>) {
        self.state().findings.extend(findings);
    }

    /// Says what is waited for from now on, in words that go on from "waited for"; it is reported if the time ends meanwhile.
    pub fn waits_for(&self, check: &'static Check, what: impl Into<String>) {
        self.state().waits_for = Some((check, what.into()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a part until `end`, which is `limit` after the start. What it has found, and what it waited for if it did not come to
/// its end; beside that, what it gave.
pub async fn run_part<T>(
    end: Instant,
    limit: Duration,
    work: impl AsyncFnOnce(&Part) -> T,
) -> (Vec<Finding>, Option<T>) {
    let part = Part::default();
    let given = tokio::time::timeout_at(end, work(&part)).await.ok();
    let mut state = std::mem::take(&mut *part.state());
    if let (None, Some((check, what))) = (&given, state.waits_for) {
        let text = format!("no result within {limit:?} (see --timeout): waited for {what}");
        state.findings.push(Finding::fail(check, text));
    }
    (state.findings, given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_keeps_what_it_found_and_says_what_it_waited_for() {
        let limit = Duration::from_secs(5);
        let work = async |part: &Part| {
            part.add([Finding::ok(&table::BUCKET_LIST, "listed")]);
            part.waits_for(&table::BUCKET_PUT, "the store to take an object");
            std::future::pending::<()>().await;
        };
        let (findings, given) = run_part(Instant::now() + limit, limit, work).await;
        assert_eq!(given, None);
        let put = "no result within 5s (see --timeout): waited for the store to take an object";
        let expected = [
            Finding::ok(&table::BUCKET_LIST, "listed"),
            Finding::fail(&table::BUCKET_PUT, put),
        ];
        assert_eq!(findings, expected);
        assert_eq!(verdict(&findings), Verdict::Fail);
    }

    #[tokio::test]
    async fn a_part_that_ends_says_nothing_of_what_it_waited_for() {
        let limit = Duration::from_secs(5);
        let work = async |part: &Part| {
            part.waits_for(&table::BUCKET_PUT, "the store to take an object");
            part.add([Finding::warn(&table::BUCKET_PUT, "slow")]);
            7
        };
        let (findings, given) = run_part(Instant::now() + limit, limit, work).await;
        assert_eq!((findings.len(), given), (1, Some(7)));
        assert_eq!(verdict(&findings), Verdict::Warn);
        assert_eq!(verdict(&[]), Verdict::Ok);
    }
}
