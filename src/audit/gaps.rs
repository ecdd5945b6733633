//! For which times a stream of blocks has no blocks.
//!
//! Time is cut into slots of one length, aligned to 1970, as Prometheus aligns its blocks. Each slot of a label set is
//! given a [`State`]. The work grows with the number of blocks and not with the number of slots, so that a block with
//! nonsense for its times costs nothing: slots between two ends of blocks are alike and are looked at once.

use std::collections::BTreeSet;

use super::Span;

/// Times beyond this (ms) are taken for it: no calendar has them, and sums of them must fit.
const FARTHEST: i64 = 1 << 60;

/// What of a slot is in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// All of it, but for what is tolerated.
    Found,
    /// All of it, but some of it only in downsampled blocks.
    Downsampled,
    /// Some of it.
    Partial,
    /// None of it.
    Missing,
    /// Not all of it, and it is too early to miss it.
    NotSealedYet,
}

impl State {
    /// The state in a word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Downsampled => "found_downsampled",
            Self::Partial => "partial",
            Self::Missing => "missing",
            Self::NotSealedYet => "not_sealed_yet",
        }
    }
}

/// The times of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Its times.
    pub span: Span,
    /// Its samples were downsampled.
    pub downsampled: bool,
}

/// How slots are judged; all in ms.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The length of a slot; at least 1.
    pub slot: i64,
    /// How much of a slot may be missing.
    pub tolerance: i64,
    /// How long after its end a slot is waited for.
    pub seal_delay: i64,
    /// Where to begin; if that is not said, where the first block begins.
    pub from: Option<i64>,
    /// Where to end; if that is not said, where the last block ends, and not after now.
    pub until: Option<i64>,
    /// The time.
    pub now: i64,
}

/// Slots of one state that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The start of the first of them (ms since 1970).
    pub from: i64,
    /// The end of the last of them (ms since 1970).
    pub until: i64,
    /// Their state.
    pub state: State,
    /// How many there are.
    pub slots: i64,
    /// How much of them is missing from the bucket altogether (ms).
    pub missing: i64,
}

/// The slots of a label set from the first to the last, in runs; none if it has no blocks and the rules do not say both
/// ends. Of the first and of the last slot only what lies between the start and the end counts: a Prometheus seldom begins with a
/// slot.
pub fn runs(covers: &[Cover], rules: &Rules) -> Vec<Run> {
    let slot = rules.slot.clamp(1, FARTHEST);
    let plain = union(covers.iter().filter(|cover| !cover.downsampled));
    let all = union(covers);
    let first = rules.from.or(all.first().map(|span| span.min));
    let last = rules.until.or(all.last().map(|span| span.max.min(rules.now)));
    let (Some(from), Some(until)) = (first, last) else {
        return Vec::new();
    };
    let clamp = |time: i64| time.clamp(-FARTHEST, FARTHEST);
    let (from, until) = (clamp(from), clamp(until));
    if from >= until {
        return Vec::new();
    }
    let classifier = SlotClassifier {
        slot,
        tolerance: rules.tolerance,
        // The first slot that is still waited for: its end is later than this.
        sealed: clamp(rules.now).saturating_sub(rules.seal_delay.clamp(0, FARTHEST)),
        bounds: Span { min: from, max: until },
        plain: &plain,
        all: &all,
    };
    let index = |time: i64| time.div_euclid(slot);
    let (first, last) = (index(from), index(until - 1));
    // Slots that may differ from the one before: those with the end of a block in them, and the one after.
    let mut turns: BTreeSet<i64> = [first, first + 1, last, index(classifier.sealed)].into();
    for span in plain.iter().chain(&all) {
        turns.extend([span.min, span.max].map(index).map(|i| [i, i + 1]).as_flattened());
    }
    let turns: Vec<i64> = turns.into_iter().filter(|i| (first..=last).contains(i)).collect();
    let ends = turns.iter().skip(1).copied().chain([last + 1]);
    let mut runs: Vec<Run> = Vec::new();
    for (start, end) in turns.iter().copied().zip(ends) {
        let (state, missing) = classifier.state(start);
        let run = Run {
            from: start * slot,
            until: end * slot,
            state,
            slots: end - start,
            missing: missing * (end - start),
        };
        match runs.last_mut() {
            Some(before) if before.state == state => {
                before.until = run.until;
                before.slots += run.slots;
                before.missing += run.missing;
            }
            _ => runs.push(run),
        }
    }
    runs
}

/// The times of blocks, sorted, without overlaps and without touching each other.
fn union<'a>(covers: impl IntoIterator<Item = &'a Cover>) -> Vec<Span> {
    let clamped = covers.into_iter().map(|cover| Span {
        min: cover.span.min.clamp(-FARTHEST, FARTHEST),
        max: cover.span.max.clamp(-FARTHEST, FARTHEST),
    });
    let mut spans: Vec<Span> = clamped.filter(|span| span.min < span.max).collect();
    spans.sort_unstable_by_key(|span| span.min);
    spans.dedup_by(|next, before| {
        let joined = next.min <= before.max;
        if joined {
            before.max = before.max.max(next.max);
        }
        joined
    });
    spans
}

/// What is needed to classify a slot.
#[derive(Debug)]
struct SlotClassifier<'a> {
    slot: i64,
    tolerance: i64,
    sealed: i64,
    bounds: Span,
    plain: &'a [Span],
    all: &'a [Span],
}

impl SlotClassifier<'_> {
    /// The state of the slot with this number, and how much of it is missing altogether.
    fn state(&self, index: i64) -> (State, i64) {
        let end = (index + 1) * self.slot;
        let counted = Span {
            min: (index * self.slot).max(self.bounds.min),
            max: end.min(self.bounds.max),
        };
        let due = counted.max - counted.min;
        let (plain, all) = (covered(self.plain, counted), covered(self.all, counted));
        let enough = |there: i64| there > 0 && due - there <= self.tolerance;
        let state = if enough(plain) {
            State::Found
        } else if enough(all) {
            State::Downsampled
        } else if end > self.sealed {
            State::NotSealedYet
        } else if all > 0 {
            State::Partial
        } else {
            State::Missing
        };
        (state, due - all)
    }
}

/// How much of `of` (ms) lies in `spans`.
fn covered(spans: &[Span], of: Span) -> i64 {
    let first = spans.partition_point(|span| span.max <= of.min);
    let within = spans[first..].iter().take_while(|span| span.min < of.max);
    within.map(|span| span.max.min(of.max) - span.min.max(of.min)).sum()
}

#[cfg(test)]
mod tests;
