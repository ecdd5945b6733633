//! The gate of a commit: what must hold before a block becomes visible, decided in one place.
//!
//! The data of a block travels at once; its `meta.json` is sent only when the gate is open:
//!
//! - **Labels**: there are external labels.
//! - **Settled**: Prometheus has kept the block. When its reload fails after a block was renamed into place, it deletes
//!   the block and writes the same range again under another name; committed, both would overlap for ever. So a block that
//!   was seen to be sealed waits for [`SETTLE`] from the rename on. Then Prometheus is asked whether a reload has failed, and
//!   whether its head is emptied of what is in the block, which it does only once it keeps the block: while failures grow,
//!   or the head is not emptied, the block waits for up to [`SETTLE_IN_TROUBLE`]. One that was found waits until nothing has
//!   written to it for [`QUIET`].
//! - **Still there**: every file of it stands where it was opened. A block that was renamed away, as retention and
//!   compaction do it, is committed all the same, from its open files; so is one that was deleted long after it was sealed.
//!   One that was deleted in place soon after was withdrawn: it is neither committed nor lost. A copy that is removed before
//!   it was left alone is not committed.
//!
//! That nobody else has committed the block is the store's to say, when `meta.json` is sent ([`super::commit`]).
//!
//! A pass waits at the gate for [`PATIENCE`] at most, and no longer than until something else is sealed; then the block is
//! looked at again in the next pass. Nothing is kept on
//! disk: after a crash the block counts as found. Dropping the wait changes nothing.

use std::{collections::BTreeMap, path::Path, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Neighbour, Shipper,
    convoy::Due,
    pass::YOUNG,
    plan::QUIET,
    quiet::Quiet,
    sightings::{Departure, made_within},
};
use crate::{
    model::Labels,
    tsdb::{BlockId, Pinned},
};

/// How long after the rename a block is committed at the earliest.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// The same, while reloads of Prometheus fail: it tries once a minute.
pub(super) const SETTLE_IN_TROUBLE: Duration = Duration::from_secs(60);
/// For how long after a failed reload Prometheus counts as in trouble.
const TROUBLE: Duration = Duration::from_secs(180);
/// How often a block that waits at the gate is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// After which time Prometheus is asked again whether it has emptied its head of what is in the block; it grows by as much.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The longest that an answer of Prometheus is waited for.
const ANSWER: Duration = Duration::from_secs(4);
/// The longest that a pass waits for one block.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a commit waits for; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Why {
    /// External labels.
    Labels,
    /// It is not yet sure that Prometheus keeps the block.
    Settling,
    /// The same, and reloads fail at the moment.
    ReloadFailing,
    /// The block was written to a moment ago, and not seen to be sealed.
    CopiedIn,
}

impl Why {
    /// As a label's value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Why::Labels => "labels",
            Why::Settling => "settling",
            Why::ReloadFailing => "reload_failing",
            Why::CopiedIn => "copied_in",
        }
    }

    /// For the log.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Why::Labels => "there are no external labels",
            Why::Settling => {
                "it was sealed a moment ago, and Prometheus may take it back while its reload is not decided"
            }
            Why::ReloadFailing => {
                "reloads of Prometheus fail (prometheus_tsdb_reloads_failures_total grows), and it takes back what it seals \
                 meanwhile; see the log of Prometheus"
            }
            Why::CopiedIn => "it was written to a moment ago",
        }
    }
}

/// How the gate stands for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gate {
    /// It may be committed, under these labels.
    Open(Labels),
    /// Not before.
    Wait { why: Why, until: Instant },
    /// It is gone, and not to be committed.
    Gone { withdrawn: bool },
}

/// How the wait at the gate ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// The block may be committed, under these labels.
    Open(Labels),
    /// It takes longer than a pass.
    Later(Instant),
    /// The block is gone: Prometheus took it back, or whoever was copying it in has thought better of it.
    Gone { withdrawn: bool },
}

impl Shipper {
    /// Waits until the block whose data is in the bucket may be committed, or is not to be.
    pub(super) async fn wait_at_gate(&mut self, due: &Due, pinned: &Pinned) -> Passage {
        let begun = Instant::now();
        let (mut gone_before, mut asked, mut decided) = (false, 0_u32, false);
        loop {
            let next = match self.gate(due, pinned) {
                Gate::Open(labels) if decided => return Passage::Open(labels),
                // Whether a reload has failed since is only known when Prometheus was asked again.
                Gate::Open(_) => {
                    self.ask_prometheus(due, asked > 0).await;
                    (asked, decided) = (asked + 1, self.is_decided(due));
                    let rest = match decided {
                        true => Duration::ZERO,
                        false => (ASK_AGAIN * asked).min(PATIENCE),
                    };
                    if !decided {
                        self.tell_waiting(due.request.block.id, Why::Settling);
                    }
                    if !decided && (self.sealed_since || begun.elapsed() + rest > PATIENCE) {
                        return Passage::Later(Instant::now() + rest);
                    }
                    Instant::now() + rest
                }
                Gate::Gone { withdrawn } if gone_before => return Passage::Gone { withdrawn },
                // How it left is told by the watch, perhaps after a moment.
                Gate::Gone { .. } => {
                    gone_before = true;
                    Instant::now() + LOOK
                }
                Gate::Wait { why, until } => {
                    self.tell_waiting(due.request.block.id, why);
                    // What was sealed meanwhile is to travel at once.
                    if self.sealed_since || until > begun + PATIENCE {
                        return Passage::Later(until);
                    }
                    until.min(Instant::now() + LOOK)
                }
            };
            sleep_until(next).await;
        }
    }

    /// Asks Prometheus whether its reloads fail, if it has sealed this block a moment ago; `again`, if it was asked since. One
    /// that does not answer in time has not said so.
    async fn ask_prometheus(&mut self, due: &Due, again: bool) {
        let gone = self.origin.borrow().neighbour == Neighbour::Gone;
        let age = self.age(due).filter(|age| !gone && *age < TROUBLE);
        if let (Some(heartbeat), Some(age)) = (self.settings.heartbeat.as_mut(), age) {
            let now = Instant::now();
            // An answer of the moment when it had settled serves all blocks that were sealed together.
            let settled = now.checked_sub(age.saturating_sub(SETTLE)).unwrap_or(now);
            heartbeat.since(if again { now } else { settled }, ANSWER).await;
        }
    }

    /// Whether Prometheus has decided to keep a block: it empties its head of what is in the block only afterwards. A block
    /// whose times the head need not leave (copied in, out of order, of stale series) is not waited for, or not beyond
    /// [`SETTLE_IN_TROUBLE`]. One that does not answer has not decided; one that is gone decides nothing any more.
    fn is_decided(&self, due: &Due) -> bool {
        let meta = &due.request.block.meta;
        let age = self
            .age(due)
            .filter(|age| *age < SETTLE_IN_TROUBLE && meta.hints.is_empty());
        if age.is_none() || self.settings.heartbeat.is_none() {
            return true;
        }
        let origin = self.origin.borrow();
        let emptied = origin.head_min_time_ms.is_none_or(|min| min >= meta.max_time);
        emptied || origin.neighbour == Neighbour::Gone
    }

    /// How long ago the block was sealed: as it was seen, or, for one that was found and whose name is not old, as long as
    /// nothing has written to it. `None` for a copy.
    fn age(&self, due: &Due) -> Option<Duration> {
        let id = due.request.block.id;
        let found = due.quiet.filter(|_| made_within(id, YOUNG));
        let found = || found.map(|quiet| quiet.lasted + quiet.at.elapsed());
        self.seen.seal(id).map(|seal| seal.since.elapsed()).or_else(found)
    }

    /// Until when a block that was sealed a moment ago is not sent, since reloads of Prometheus fail: it may go again at once.
    pub(super) fn unsent_until(&self, id: BlockId) -> Option<Instant> {
        let seal = self.seen.seal(id).filter(|_| self.is_in_trouble())?;
        Some(seal.since + SETTLE).filter(|until| *until > Instant::now())
    }

    /// Whether reloads of Prometheus fail at the moment.
    fn is_in_trouble(&self) -> bool {
        let origin = self.origin.borrow();
        let failed = origin.reload_failed_at.is_some_and(|at| at.elapsed() < TROUBLE);
        failed && origin.neighbour != Neighbour::Gone
    }

    fn gate(&mut self, due: &Due, pinned: &Pinned) -> Gate {
        self.note(None);
        let (now, block) = (Instant::now(), &due.request.block);
        let (why, until) = self.settles(block.id, due.quiet);
        match stands(&block.dir, pinned) {
            true if now < until => return Gate::Wait { why, until },
            true => {}
            // What retention or compaction removed was kept before, and so was what had settled.
            false => match self.seen.departure(block.id, due.was_young) {
                Departure::Withdrawn => return Gate::Gone { withdrawn: true },
                Departure::Removed if self.seen.was_renamed_away(block.id) || now >= until => {}
                Departure::Removed => return Gate::Gone { withdrawn: false },
            },
        }
        match self.labels().filter(|labels| !labels.is_empty()) {
            Some(labels) => Gate::Open(labels),
            None => Gate::Wait {
                why: Why::Labels,
                until: now + 2 * PATIENCE,
            },
        }
    }

    /// Until when it is not sure that Prometheus keeps the block, and why. `quiet`: how long one that was not seen to be
    /// sealed has been left alone.
    pub(super) fn settles(&self, id: BlockId, quiet: Option<Quiet>) -> (Why, Instant) {
        let (at, lasted, rest, why) = match (self.seen.seal(id), quiet) {
            (Some(seal), _) => (seal.since, Duration::ZERO, SETTLE, Why::Settling),
            (None, Some(quiet)) => (quiet.at, quiet.lasted, QUIET, Why::CopiedIn),
            // It cannot be looked at; it is opened, so its files tell the rest.
            (None, None) => return (Why::CopiedIn, Instant::now()),
        };
        match self.is_in_trouble() {
            true => (Why::ReloadFailing, at + SETTLE_IN_TROUBLE.saturating_sub(lasted)),
            false => (why, at + rest.saturating_sub(lasted)),
        }
    }

    /// Says once what a block waits for, and each time that it is something else.
    fn tell_waiting(&mut self, id: BlockId, why: Why) {
        if self.at_gate.insert(id, why) == Some(why) {
            return;
        }
        self.tell_gate();
        match why {
            Why::Settling | Why::CopiedIn => {
                tracing::debug!(block = %id, why = why.in_words(), "a block's data is in the bucket, and its commit waits");
            }
            Why::Labels | Why::ReloadFailing => {
                tracing::warn!(block = %id, why = why.in_words(), "a block's data is in the bucket, and its commit waits");
            }
        }
    }

    /// Notes that a block does not wait any more.
    pub(super) fn leaves_gate(&mut self, id: BlockId) {
        self.at_gate.remove(&id);
    }

    /// Tells by metric how many blocks wait at the gate, and for what.
    pub(super) fn tell_gate(&self) {
        let mut waiting = BTreeMap::new();
        for why in self.at_gate.values() {
            *waiting.entry(why.as_str()).or_default() += 1;
        }
        self.metrics.set_waiting(waiting);
    }
}

/// Whether all of the block still stands in `dir`.
fn stands(dir: &Path, pinned: &Pinned) -> bool {
    let there = |path: &Path| fs_err::metadata(path).is_ok();
    there(&dir.join("meta.json")) && pinned.files.iter().all(|file| there(&file.path))
}
