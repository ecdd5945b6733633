//! The gate of a commit: what must hold before a block becomes visible, decided in one place.
//!
//! The data of a block is uploaded at once; its `meta.json` is sent only when the gate is open:
//!
//! - **Labels**: there are external labels.
//! - **Settled**: Prometheus has kept the block. When its reload fails after a block was renamed into place, it deletes
//!   the block and writes the same range again under another name; committed, both would overlap for ever. So a block that
//!   was seen to be sealed waits for [`SETTLE`] from the rename on. Then Prometheus is asked whether a reload has failed, and
//!   whether its head is emptied of what is in the block, which it does only once it keeps the block: while failures grow,
//!   or the head is not emptied, the block waits for up to [`SETTLE_WHILE_FAILING`]. One that was found waits until nothing has
//!   written to it for [`QUIET`].
//! - **Still there**: every file of it stands where it was opened. A block that was renamed away, as retention and
//!   compaction do it, is committed all the same, from its open files; so is one that was deleted long after it was sealed.
//!   One that was deleted in place soon after was withdrawn: it is neither committed nor lost. A copy that is removed before
//!   it was left alone is not committed.
//!
//! Whether somebody else has committed the block is decided by the store, when `meta.json` is sent ([`super::commit`]).
//!
//! A pass waits at the gate for [`LONGEST_WAIT`] at most, and no longer than until something else is sealed; then the block is
//! tried again in the next pass. Nothing is kept on disk: after a crash the block counts as found. Dropping the wait changes
//! nothing.

use std::{collections::BTreeMap, hash::BuildHasher as _, path::Path, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Liveness, Shipper,
    block_events::{Removal, YOUNG, made_within},
    due_block::DueBlock,
    ledger::now_ms,
    plan::QUIET,
    quiet_period::QuietPeriod,
};
use crate::{
    model::Labels,
    tsdb::{BlockId, Pinned},
};

/// How long after the rename a block is committed at the earliest.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// The same, while reloads of Prometheus fail: it tries once a minute.
pub(super) const SETTLE_WHILE_FAILING: Duration = Duration::from_secs(60);
/// For how long after a failed reload Prometheus counts as failing.
const RELOADS_FAIL_FOR: Duration = Duration::from_secs(180);
/// A block that retention deletes sooner than that after the longest jitter is sent at once.
const NO_JITTER_BEFORE_DELETION: Duration = Duration::from_secs(3600);
/// How often a block that waits at the gate is checked.
const POLL: Duration = Duration::from_millis(250);
/// After which time Prometheus is asked again whether it has emptied its head of what is in the block; it grows by as much.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The longest that an answer of Prometheus is waited for.
const ANSWER: Duration = Duration::from_secs(4);
/// The longest that a pass waits for one block.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// What a commit waits for; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum WaitReason {
    /// External labels.
    Labels,
    /// It is not yet sure that Prometheus keeps the block.
    Settling,
    /// The same, and reloads fail at the moment.
    ReloadFailing,
    /// The block was written to a moment ago, and not seen to be sealed.
    CopiedIn,
}

impl WaitReason {
    /// As a label's value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            WaitReason::Labels => "labels",
            WaitReason::Settling => "settling",
            WaitReason::ReloadFailing => "reload_failing",
            WaitReason::CopiedIn => "copied_in",
        }
    }

    /// For the log.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            WaitReason::Labels => "there are no external labels",
            WaitReason::Settling => "it was sealed a moment ago, and Prometheus deletes it again if its reload fails",
            WaitReason::ReloadFailing => {
                "reloads of Prometheus fail (prometheus_tsdb_reloads_failures_total grows), and it deletes what it seals \
                 meanwhile; see the log of Prometheus"
            }
            WaitReason::CopiedIn => "it was written to a moment ago",
        }
    }

    /// The same as a sentence of its own.
    pub(super) fn waits(self) -> String {
        format!("its data is in the bucket, and its commit waits: {}", self.in_words())
    }
}

/// Whether a block may be committed now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GateState {
    /// It may be committed, under these labels.
    Open(Labels),
    /// Not before.
    Wait { why: WaitReason, until: Instant },
    /// It is gone, and not to be committed.
    Gone { withdrawn: bool },
}

/// How the wait at the gate ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GateResult {
    /// The block may be committed, under these labels.
    Open(Labels),
    /// Not in this pass; try again then.
    Later(Instant),
    /// The block is gone: Prometheus withdrew it, or whoever was copying it in has removed it.
    Gone { withdrawn: bool },
}

impl Shipper {
    /// Waits until the block whose data is in the bucket may be committed, or is not to be.
    pub(super) async fn wait_at_gate(&mut self, due: &DueBlock, pinned: &Pinned) -> GateResult {
        let begun = Instant::now();
        let (mut gone_before, mut asked, mut decided) = (false, 0_u32, false);
        loop {
            let next = match self.gate_state(due, pinned) {
                GateState::Open(labels) if decided => return GateResult::Open(labels),
                // Whether a reload has failed since is only known when Prometheus was asked again.
                GateState::Open(_) => {
                    self.refresh_prometheus_status(due, asked > 0).await;
                    (asked, decided) = (asked + 1, self.is_decided(due));
                    let rest = match decided {
                        true => Duration::ZERO,
                        false => (ASK_AGAIN * asked).min(LONGEST_WAIT),
                    };
                    if !decided {
                        self.log_waiting_block(due.request.block.id, WaitReason::Settling);
                    }
                    if !decided && (self.sealed_since || begun.elapsed() + rest > LONGEST_WAIT) {
                        return GateResult::Later(Instant::now() + rest);
                    }
                    Instant::now() + rest
                }
                GateState::Gone { withdrawn } if gone_before => return GateResult::Gone { withdrawn },
                // The watch reports how it was removed, perhaps after a moment.
                GateState::Gone { .. } => {
                    gone_before = true;
                    Instant::now() + POLL
                }
                GateState::Wait { why, until } => {
                    self.log_waiting_block(due.request.block.id, why);
                    // What was sealed meanwhile is to be uploaded at once.
                    if self.sealed_since || until > begun + LONGEST_WAIT {
                        return GateResult::Later(until);
                    }
                    until.min(Instant::now() + POLL)
                }
            };
            sleep_until(next).await;
        }
    }

    /// Asks Prometheus whether its reloads fail, if it has sealed this block a moment ago; `again`, if it was asked since. One
    /// that does not answer in time has not said so.
    async fn refresh_prometheus_status(&mut self, due: &DueBlock, again: bool) {
        let gone = self.prometheus.borrow().liveness == Liveness::Gone;
        let age = self.age(due).filter(|age| !gone && *age < RELOADS_FAIL_FOR);
        if let (Some(heartbeat), Some(age)) = (self.settings.heartbeat.as_mut(), age) {
            let now = Instant::now();
            // An answer of the moment when it had settled serves all blocks that were sealed together.
            let settled = now.checked_sub(age.saturating_sub(SETTLE)).unwrap_or(now);
            heartbeat
                .wait_answered_since(if again { now } else { settled }, ANSWER)
                .await;
        }
    }

    /// Whether Prometheus has decided to keep a block: it empties its head of what is in the block only afterwards. A block
    /// whose times the head need not leave (copied in, out of order, of stale series) is not waited for, or not beyond
    /// [`SETTLE_WHILE_FAILING`]. One that does not answer has not decided; one that is gone decides nothing any more.
    fn is_decided(&self, due: &DueBlock) -> bool {
        let meta = &due.request.block.meta;
        let age = self
            .age(due)
            .filter(|age| *age < SETTLE_WHILE_FAILING && meta.hints.is_empty());
        if age.is_none() || self.settings.heartbeat.is_none() {
            return true;
        }
        let prometheus = self.prometheus.borrow();
        let emptied = prometheus.head_min_time_ms.is_none_or(|min| min >= meta.max_time);
        emptied || prometheus.liveness == Liveness::Gone
    }

    /// How long ago the block was sealed: as it was seen, or, for one that was found and whose name is not old, as long as
    /// nothing has written to it. `None` for a copy.
    fn age(&self, due: &DueBlock) -> Option<Duration> {
        let id = due.request.block.id;
        let found = due.quiet.filter(|_| made_within(id, YOUNG));
        let found = || found.map(|quiet| quiet.lasted + quiet.at.elapsed());
        self.events.seal(id).map(|seal| seal.since.elapsed()).or_else(found)
    }

    /// Until when a block that was sealed a moment ago is not sent, since reloads of Prometheus fail: it may go again at once.
    pub(super) fn unsent_until(&self, id: BlockId) -> Option<Instant> {
        let seal = self.events.seal(id).filter(|_| self.do_reloads_fail())?;
        Some(seal.since + SETTLE).filter(|until| *until > Instant::now())
    }

    /// Until when a block that was seen to be sealed waits before it is sent, so that a fleet that seals in the same second does not
    /// send in the same second (`--shipper.jitter`). One that Prometheus is about to delete does not wait.
    pub(super) fn jitter_until(&self, id: BlockId) -> Option<Instant> {
        let longest = u64::try_from(self.settings.jitter.as_nanos()).unwrap_or(u64::MAX);
        let near = i64::try_from((self.settings.jitter + NO_JITTER_BEFORE_DELETION).as_millis()).unwrap_or(i64::MAX);
        let deletion = self.retention.deletion(id);
        if deletion.is_some_and(|deletion| deletion.at_ms < now_ms().saturating_add(near)) {
            return None;
        }
        let share = self.jitter_seed.hash_one(id).checked_rem(longest)?;
        let until = self.events.seal(id)?.since + Duration::from_nanos(share);
        Some(until).filter(|until| *until > Instant::now())
    }

    /// Whether reloads of Prometheus fail at the moment.
    fn do_reloads_fail(&self) -> bool {
        let prometheus = self.prometheus.borrow();
        let failed = prometheus
            .reload_failed_at
            .is_some_and(|at| at.elapsed() < RELOADS_FAIL_FOR);
        failed && prometheus.liveness != Liveness::Gone
    }

    fn gate_state(&mut self, due: &DueBlock, pinned: &Pinned) -> GateState {
        self.record_hints(None);
        let (now, block) = (Instant::now(), &due.request.block);
        let (why, until) = self.settles(block.id, due.quiet);
        match all_files_exist(&block.dir, pinned) {
            // It was in the data directory in an earlier pass, and Prometheus had kept it.
            false if self.held.is_deleted(block.id) => {}
            true if now < until => return GateState::Wait { why, until },
            true => {}
            // What retention or compaction removed was kept before, and so was what had settled.
            false => match self.events.removal(block.id, due.was_young) {
                Removal::Withdrawn => return GateState::Gone { withdrawn: true },
                Removal::Removed if self.events.was_renamed_away(block.id) || now >= until => {}
                Removal::Removed => return GateState::Gone { withdrawn: false },
            },
        }
        match self.labels().filter(|labels| !labels.is_empty()) {
            Some(now) => GateState::Open(self.labels_of(block.id, &now)),
            None => GateState::Wait {
                why: WaitReason::Labels,
                until: now + 2 * LONGEST_WAIT,
            },
        }
    }

    /// Until when it is not sure that Prometheus keeps the block, and why. `quiet`: how long one that was not seen to be
    /// sealed has been left alone.
    pub(super) fn settles(&self, id: BlockId, quiet: Option<QuietPeriod>) -> (WaitReason, Instant) {
        let (at, lasted, rest, why) = match (self.events.seal(id), quiet) {
            (Some(seal), _) => (seal.since, Duration::ZERO, SETTLE, WaitReason::Settling),
            (None, Some(quiet)) => (quiet.at, quiet.lasted, QUIET, WaitReason::CopiedIn),
            // It cannot be looked at; it is opened, so its files tell the rest.
            (None, None) => return (WaitReason::CopiedIn, Instant::now()),
        };
        match self.do_reloads_fail() {
            true => (
                WaitReason::ReloadFailing,
                at + SETTLE_WHILE_FAILING.saturating_sub(lasted),
            ),
            false => (why, at + rest.saturating_sub(lasted)),
        }
    }

    /// Logs what a block waits for, once and each time that it is something else.
    fn log_waiting_block(&mut self, id: BlockId, why: WaitReason) {
        if self.at_gate.insert(id, why) == Some(why) {
            return;
        }
        self.report_gate();
        match why {
            WaitReason::Settling | WaitReason::CopiedIn => {
                tracing::debug!(block = %id, why = why.in_words(), "the data of a block is uploaded, and its commit waits");
            }
            WaitReason::Labels | WaitReason::ReloadFailing => {
                tracing::warn!(block = %id, why = why.in_words(), "the data of a block is uploaded, and its commit waits");
            }
        }
    }

    /// The block does not wait any more.
    pub(super) fn remove_from_gate(&mut self, id: BlockId) {
        self.at_gate.remove(&id);
    }

    /// Sets the metric of how many blocks wait at the gate, and for what.
    pub(super) fn report_gate(&self) {
        let mut waiting = BTreeMap::new();
        for why in self.at_gate.values() {
            *waiting.entry(why.as_str()).or_default() += 1;
        }
        self.metrics.set_waiting(waiting);
        self.settings.overviews.show_waiting(&self.at_gate);
    }
}

/// Whether `meta.json` and all pinned files are still in `dir`.
fn all_files_exist(dir: &Path, pinned: &Pinned) -> bool {
    let there = |path: &Path| fs_err::metadata(path).is_ok();
    there(&dir.join("meta.json")) && pinned.files.iter().all(|file| there(&file.path))
}
