//! The steps of which histories are made.

use std::fmt;

use proptest::{prelude::*, sample::Index};

use crate::{
    objstore::{ErrorKind, Op, layers::Fault},
    shipper::Liveness,
};

/// One step of a history. Indices choose among what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Prometheus seals a block that begins at this time.
    Seal(u8),
    /// Somebody copies a block in that begins at this time.
    CopyIn(u8),
    /// Retention deletes a local block.
    Retention(Index),
    /// Prometheus withdraws a block that it has sealed a moment ago.
    Withdraw(Index),
    /// Prometheus compacts its blocks, durable or not; perhaps while no shipper runs.
    Compact(bool),
    /// Prometheus seals a block without samples.
    SealEmpty,
    /// Prometheus compacts the blocks that the ledger lists, as it knows it.
    Plan,
    /// The same after so many polls of a pass.
    PassAndPlan(u8, Index),
    /// The ledger is lost, and a segment has a tail of zeros; then a new run begins.
    PowerLoss(Index),
    /// The next calls of this kind go wrong.
    Fault(Kind, u8, Fault),
    Heal,
    Pass,
    /// Retention deletes a block after so many polls of a pass.
    PassAndRetention(u8, Index),
    /// Prometheus withdraws a block after so many polls of a pass.
    PassAndWithdraw(u8, Index),
    /// A pass begins and dies after so many polls; then a new run begins.
    Die(u8),
    /// Prometheus says so, from now on.
    Labels(Option<&'static str>, Liveness),
    LedgerGone,
    /// The ledger keeps so many hundredths of its bytes; then a new run begins.
    LedgerTorn(u8),
    /// Thanos ran here before, and left its ledger; then a new run begins.
    ThanosLedger,
    /// The compactor merges all blocks in the bucket, and deletes what it merged.
    Merge,
    /// Somebody marks a committed block for deletion.
    Mark(Index),
    /// A block appears in the bucket that was made of ours, as it says.
    Foreign(Foreign),
    /// Somebody clears an object of a half-uploaded block away.
    Clear(Index),
    Wait(u8),
}

/// Why a block does not hold what it says it was made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Foreign {
    /// It has other labels.
    Tenant,
    /// It has other times.
    Times,
    /// It is to be deleted.
    Marked,
    /// An object is missing.
    Hollow,
    /// Its `meta.json` is none.
    Garbage,
}

/// Steps, shown one a line.
#[derive(Clone)]
pub(super) struct History(pub(super) Vec<Step>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|step| write!(f, "\n    {}", format_args!("{step:?}")))
    }
}

/// What a fault strikes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Chunks,
    Index,
    Meta,
    Read,
    List,
    Abort,
}

impl Kind {
    pub(super) fn call(self) -> (Op, &'static str) {
        match self {
            Kind::Chunks => (Op::Upload, "chunks"),
            Kind::Index => (Op::Upload, "index"),
            Kind::Meta => (Op::Upload, "meta.json"),
            Kind::Read => (Op::Get, ""),
            Kind::List => (Op::Iter, ""),
            Kind::Abort => (Op::Delete, ""),
        }
    }
}

pub(super) fn histories() -> impl Strategy<Value = History> {
    let kind = prop::sample::select(vec![
        Kind::Chunks,
        Kind::Index,
        Kind::Meta,
        Kind::Meta,
        Kind::Read,
        Kind::List,
        Kind::Abort,
    ]);
    let error = prop::sample::select(vec![
        ErrorKind::Server,
        ErrorKind::Throttled,
        ErrorKind::Stalled,
        ErrorKind::Forbidden,
        ErrorKind::Integrity,
    ]);
    let fault = prop_oneof![
        3 => error.clone().prop_map(Fault::Fail),
        3 => error.prop_map(Fault::FailAfter),
        1 => Just(Fault::Hang),
        1 => Just(Fault::Lose),
        1 => Just(Fault::Truncate),
    ];
    let labels = prop::sample::select(vec![Some("a"), Some("b"), Some(""), None]);
    let liveness = prop::sample::select(vec![Liveness::Up, Liveness::Stopping, Liveness::Gone]);
    let foreign = prop::sample::select(vec![
        Foreign::Tenant,
        Foreign::Times,
        Foreign::Marked,
        Foreign::Hollow,
        Foreign::Garbage,
    ]);
    let step = prop_oneof![
        8 => (0..30_u8).prop_map(Step::Seal),
        3 => (0..30_u8).prop_map(Step::CopyIn),
        2 => any::<Index>().prop_map(Step::Retention),
        2 => any::<Index>().prop_map(Step::Withdraw),
        2 => any::<bool>().prop_map(Step::Compact),
        1 => Just(Step::SealEmpty),
        3 => Just(Step::Plan),
        2 => (1..60_u8, any::<Index>()).prop_map(|(polls, which)| Step::PassAndPlan(polls, which)),
        1 => any::<Index>().prop_map(Step::PowerLoss),
        6 => (kind, 1..6_u8, fault).prop_map(|(kind, calls, fault)| Step::Fault(kind, calls, fault)),
        2 => Just(Step::Heal),
        9 => Just(Step::Pass),
        3 => (1..60_u8, any::<Index>()).prop_map(|(polls, which)| Step::PassAndRetention(polls, which)),
        3 => (1..60_u8, any::<Index>()).prop_map(|(polls, which)| Step::PassAndWithdraw(polls, which)),
        4 => (1..60_u8).prop_map(Step::Die),
        2 => (labels, liveness).prop_map(|(labels, liveness)| Step::Labels(labels, liveness)),
        1 => Just(Step::LedgerGone),
        1 => (0..100_u8).prop_map(Step::LedgerTorn),
        1 => Just(Step::ThanosLedger),
        2 => Just(Step::Merge),
        1 => any::<Index>().prop_map(Step::Mark),
        2 => foreign.prop_map(Step::Foreign),
        2 => any::<Index>().prop_map(Step::Clear),
        2 => (1..90_u8).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..30).prop_map(History)
}
