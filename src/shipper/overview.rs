//! What the shipper knows of the local blocks, for whoever shows it to an operator: made anew in each pass at its beginning, after
//! each block, and at its end.
//!
//! At most [`SHOWN`] blocks are in it, those first that need somebody, then those that are not durable, so that it stays some 200
//! KiB whatever is on the disk.
//! Kept in memory only; a restart makes it anew, without what was seen of blocks before.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    Decision, Shipper, Skip, Verdict, Wait,
    durability::{OpenBlock, OpenReason, Report},
    durability_metrics::View,
    gate::WaitReason,
    ledger::now_ms,
    under_way::UnderWay,
};
use crate::tsdb::{BlockId, BlockMeta, content, content::Kind};

/// The most blocks that are shown.
const SHOWN: usize = 1000;

/// What is known of the local blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// When it was made (ms since 1970); 0 before the first pass.
    pub at_ms: i64,
    /// When the look at the data directory began from which it was made (ms since 1970): what was sealed before is in it.
    pub scanned_ms: i64,
    /// The blocks, oldest first.
    pub blocks: Vec<BlockOverview>,
    /// How many blocks there are that are not in `blocks`, and how many of them are not durable.
    pub more: (usize, usize),
    /// How many blocks are not durable.
    pub not_durable: usize,
    /// How many blocks need somebody: they are set aside or not shipped, or retention deletes them soon.
    pub need_attention: usize,
    /// What all blocks take on the disk, in bytes, as far as they were measured.
    pub bytes: u64,
    /// All samples of local blocks before this time (ms since 1970) are durable; `None` if nobody can tell.
    pub durable_until_ms: Option<i64>,
    /// What is held of deleted blocks, in bytes.
    pub held_bytes: u64,
    /// Why the last pass could not do all that is due, while that lasts.
    pub failure: Option<String>,
}

impl Overview {
    /// Where what is known to be in the bucket of samples that came in order ends (ms since 1970): a block of others may reach
    /// into times of which the head still holds samples.
    pub fn durable_in_order_until_ms(&self) -> Option<i64> {
        let metas = self.blocks.iter().filter_map(|block| block.meta.as_ref());
        let in_order = metas.filter(|meta| content::is_in_order(meta));
        self.durable_until_ms.min(in_order.map(|meta| meta.max_time).max())
    }

    /// Whether all blocks are in the bucket that were made up to this time (ms since 1970). `false` is no proof of the contrary.
    pub fn has_all_of(&self, made_ms: i64) -> bool {
        let is_older = |block: &BlockOverview| {
            // One that was merged meanwhile holds the samples of older ones.
            let sources = block.meta.iter().flat_map(|meta| &meta.sources).chain([&block.id]);
            let oldest = sources.map(|id| id.timestamp_ms()).min();
            oldest
                .and_then(|at| i64::try_from(at).ok())
                .is_none_or(|at| at <= made_ms)
        };
        self.scanned_ms > made_ms
            && self.more.1 == 0
            && !self.blocks.iter().any(|block| block.is_open() && is_older(block))
    }
}

/// What is known of one block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockOverview {
    /// Its name.
    pub id: BlockId,
    /// What its `meta.json` says, if that can be read.
    pub meta: Option<Arc<BlockMeta>>,
    /// What it takes on the disk, in bytes, if it was measured.
    pub bytes: Option<u64>,
    /// How far it is.
    pub state: BlockState,
    /// Why, in words; empty where the state says all.
    pub why: String,
    /// What readers must know of its content, as far as it was looked at.
    pub kinds: Vec<Kind>,
    /// From the rename that sealed it to its commit, if this process has seen both.
    pub seal_to_durable: Option<Duration>,
    /// When retention deletes it (ms since 1970), if it is not durable and that is known.
    pub deletion_ms: Option<i64>,
    /// Less than a quarter of its time until then is left.
    pub near_deletion: bool,
    /// Prometheus has deleted it, and its files are held open.
    pub held: bool,
}

/// How far a block is on its way to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Its samples are in the bucket.
    Durable,
    /// It waits for its turn, or is being sent.
    Due,
    /// Its data is in the bucket, and its commit waits, as it does after each seal.
    Waiting,
    /// Its data is in the bucket, and its commit waits for something that somebody has to mend.
    HeldUp,
    /// It is being copied in.
    Arriving,
    /// It is broken, or the bucket holds or answers something that keeps it out.
    SetAside,
    /// It is not shipped by decision, and its samples are not known to be in the bucket.
    NotShipped,
    /// It was compacted, and its samples go to the bucket in the blocks that it was made of.
    Merged,
    /// It has no samples.
    Empty,
}

impl BlockOverview {
    /// It does not get to the bucket unless somebody acts, or is about to be deleted.
    fn needs_attention(&self) -> bool {
        self.near_deletion || matches!(self.state, BlockState::SetAside | BlockState::NotShipped)
    }

    /// Whether its samples are on this disk alone.
    fn is_open(&self) -> bool {
        !matches!(self.state, BlockState::Durable | BlockState::Merged | BlockState::Empty)
    }
}

impl BlockState {
    /// That of a block that waits at the gate.
    fn at_gate(why: WaitReason) -> Self {
        match why {
            WaitReason::Settling | WaitReason::CopiedIn => Self::Waiting,
            WaitReason::Labels | WaitReason::ReloadFailing => Self::HeldUp,
        }
    }

    /// In one word, for a program.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Due => "due",
            Self::Waiting => "waiting",
            Self::HeldUp => "held_up",
            Self::Arriving => "arriving",
            Self::SetAside => "set_aside",
            Self::NotShipped => "not_shipped",
            Self::Merged => "merged",
            Self::Empty => "empty",
        }
    }
}

/// Where the newest overview is found, and what is being sent; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Overviews {
    newest: Arc<Mutex<Arc<Overview>>>,
    under_way: UnderWay,
}

impl Overviews {
    /// What a pass would publish that has found a block that is not durable, made at this time (ms since 1970), or none.
    #[cfg(test)]
    pub(crate) fn set_durable(&self, until_ms: i64, open: Option<u64>) {
        let block = |made_ms| BlockOverview {
            id: BlockId::new(made_ms, 0),
            meta: None,
            bytes: None,
            state: BlockState::Due,
            why: String::new(),
            kinds: Vec::new(),
            seal_to_durable: None,
            deletion_ms: None,
            near_deletion: false,
            held: false,
        };
        let overview = Overview {
            // After all that has happened in this millisecond.
            scanned_ms: now_ms() + 1,
            durable_until_ms: Some(until_ms),
            blocks: open.map(block).into_iter().collect(),
            ..Overview::default()
        };
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(overview);
    }

    /// The newest one.
    pub fn newest(&self) -> Arc<Overview> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The uploads under way.
    pub fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    fn publish(&self, overview: Overview) {
        self.change(|newest| *newest = overview);
    }

    /// Why the last pass could not do all that is due; `None` if it could.
    pub(super) fn show_failure(&self, failure: Option<String>) {
        self.change(|newest| newest.failure = failure);
    }

    /// Which blocks wait at the gate now, and for what.
    pub(super) fn show_waiting(&self, at_gate: &BTreeMap<BlockId, WaitReason>) {
        self.change(|newest| {
            for block in &mut newest.blocks {
                match (at_gate.get(&block.id), block.state) {
                    (Some(why), BlockState::Due | BlockState::Waiting | BlockState::HeldUp) => {
                        (block.state, block.why) = (BlockState::at_gate(*why), why.waits());
                    }
                    (None, BlockState::Waiting | BlockState::HeldUp) => {
                        (block.state, block.why) = (BlockState::Due, String::new());
                    }
                    _ => {}
                }
            }
        });
    }

    /// Whoever reads one at the moment keeps what there was.
    fn change(&self, change: impl FnOnce(&mut Overview)) {
        change(Arc::make_mut(
            &mut self.newest.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }
}

/// What is kept from pass to pass for the overviews.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// From seal to commit, of the local blocks that this process has shipped.
    pub(super) seal_to_durable: HashMap<BlockId, Duration>,
    /// The kinds of the local blocks that it has sent.
    pub(super) kinds: HashMap<BlockId, Vec<Kind>>,
}

impl Seen {
    /// Forgets blocks that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&BlockId) -> bool) {
        self.seal_to_durable.retain(|id, _| keep(id));
        self.kinds.retain(|id, _| keep(id));
    }
}

impl Shipper {
    /// Makes the overview anew.
    pub(super) fn publish_overview(&self, view: View<'_>, report: &Report) {
        let open: HashMap<BlockId, &OpenBlock> = report.open.iter().map(|open| (open.id, open)).collect();
        let read = view.decisions.iter().map(|decision| {
            let meta = Some(Arc::clone(&decision.block.meta));
            let id = decision.block.id;
            let (state, why) = self.state(id, Some(decision), open.get(&id).copied(), report, view);
            self.block_overview(id, meta, state, why)
        });
        let unreadable = report.open.iter().filter(|open| open.why == OpenReason::Unreadable);
        let unreadable = unreadable.map(|open| {
            let (state, why) = self.state(open.id, None, Some(open), report, view);
            self.block_overview(open.id, None, state, why)
        });
        let mut blocks: Vec<BlockOverview> = read.chain(unreadable).collect();
        let bytes = blocks.iter().filter_map(|block| block.bytes).sum();
        let need_attention = blocks.iter().filter(|block| block.needs_attention()).count();
        let mut more = (0, 0);
        if blocks.len() > SHOWN {
            let deletion = |block: &BlockOverview| block.deletion_ms.unwrap_or(i64::MAX);
            blocks.sort_by_key(|block| {
                let (first, second) = (!block.needs_attention(), !block.is_open());
                (first, second, deletion(block), Reverse(block.id))
            });
            let rest = blocks.split_off(SHOWN);
            more = (rest.len(), rest.iter().filter(|block| block.is_open()).count());
        }
        let begin = |block: &BlockOverview| block.meta.as_ref().map(|meta| meta.min_time);
        blocks.sort_by_key(|block| (begin(block).unwrap_or(i64::MAX), block.id));
        self.settings.overviews.publish(Overview {
            at_ms: now_ms(),
            scanned_ms: self.scan_began_ms,
            blocks,
            more,
            not_durable: report.open.len(),
            need_attention,
            bytes,
            durable_until_ms: report.until,
            held_bytes: self.held.deleted_bytes(),
            failure: self.settings.overviews.newest().failure.clone(),
        });
    }

    fn block_overview(
        &self,
        id: BlockId,
        meta: Option<Arc<BlockMeta>>,
        state: BlockState,
        why: String,
    ) -> BlockOverview {
        let by_meta = || meta.as_deref().map(content::by_meta).unwrap_or_default();
        BlockOverview {
            bytes: self.retention.bytes(id),
            kinds: self.seen.kinds.get(&id).cloned().unwrap_or_else(by_meta),
            seal_to_durable: self.seen.seal_to_durable.get(&id).copied(),
            deletion_ms: self.retention.deletion(id).map(|deletion| deletion.at_ms),
            near_deletion: self.retention.is_near_deletion(id),
            held: self.held.is_deleted(id),
            id,
            meta,
            state,
            why,
        }
    }

    /// How far a block is, and why.
    fn state(
        &self,
        id: BlockId,
        decision: Option<&Decision>,
        open: Option<&OpenBlock>,
        report: &Report,
        view: View<'_>,
    ) -> (BlockState, String) {
        let verdict = decision.map(|decision| &decision.verdict);
        let Some(open) = open else {
            return match verdict {
                _ if report.durable.contains(&id) => (BlockState::Durable, String::new()),
                Some(Verdict::Skip(Skip::Empty)) => (BlockState::Empty, "it holds no sample".to_owned()),
                _ => (
                    BlockState::Merged,
                    "its samples go to the bucket in the blocks that it was compacted of".to_owned(),
                ),
            };
        };
        let state = match (&open.why, verdict) {
            (OpenReason::Sources(_), _) => BlockState::NotShipped,
            _ if let Some(why) = self.at_gate.get(&id) => BlockState::at_gate(*why),
            _ if self.quarantine.is_arriving(id) => BlockState::Arriving,
            (_, Some(Verdict::Wait(Wait::Arriving(_)))) => BlockState::Arriving,
            (OpenReason::Unreadable, _) | (_, Some(Verdict::Wait(Wait::Quarantined(_)))) => BlockState::SetAside,
            // It is looked at again in this pass, and nothing has changed before that is through.
            (OpenReason::Unshipped, _) if let Some(detail) = self.quarantine.detail(id) => {
                let wait = Wait::Quarantined(detail.to_owned());
                return (BlockState::SetAside, Verdict::Wait(wait).to_string());
            }
            (OpenReason::Unshipped, _) => return (BlockState::Due, String::new()),
        };
        (state, self.why_open(open, verdict, view.scan))
    }
}
