//! Which blocks Prometheus has shown to have loaded.
//!
//! With each heartbeat it tells how many blocks it has loaded, where the oldest begins and what they take. If the directory as
//! it was listed before holds just as many, from the same second on and of the same size to the byte, and has not changed
//! since, then it is Prometheus' own, and these are the blocks that it has loaded. Of those, each that ends before its head
//! begins is confirmed: the head takes nothing that is older than itself, but out of order ([`super::out_of_order`]).
//!
//! | the heartbeat | what follows |
//! |---|---|
//! | agrees in all | what was known is replaced: all blocks of the listing are known, and what no block holds is empty |
//! | agrees in number and oldest time only | what is known stays; a block into which the head now reaches is not confirmed |
//! | differs in number or oldest time | nothing is known |
//! | does not tell the number or the oldest time | nothing is known |
//!
//! Prometheus counts its bytes when it reloads, once a minute and with each block: they may lag behind. Its oldest time is cut
//! to seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    listing::{Listed, Listing},
    out_of_order::{Bound, OutOfOrder},
    reason::Reason,
};
use crate::{
    prometheus::Snapshot,
    tsdb::{BlockId, FileVersion},
};

/// What Prometheus has told of its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The moment before it was asked.
    pub asked_at: Instant,
    /// How many blocks it has loaded.
    pub blocks_loaded: Option<u64>,
    /// Where the oldest begins (ms since 1970, cut to seconds).
    pub lowest_time_ms: Option<i64>,
    /// What they take (bytes).
    pub blocks_bytes: Option<u64>,
    /// The oldest time of its head (ms since 1970); `i64::MAX` if the head is empty.
    pub head_min_time_ms: Option<i64>,
    /// The newest time of its head (ms since 1970); `i64::MIN` if the head is empty.
    pub head_max_time_ms: Option<i64>,
}

impl Evidence {
    /// What the last heartbeat that was answered has told; `None` if it has told nothing of the storage.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        Some(Self {
            asked_at: snapshot.storage_asked_at?,
            blocks_loaded: snapshot.blocks_loaded,
            lowest_time_ms: Some(snapshot.lowest_time_ms).filter(|time| *time != 0),
            blocks_bytes: snapshot.blocks_bytes,
            head_min_time_ms: snapshot.head_min_time_ms,
            head_max_time_ms: snapshot.head_max_time_ms,
        })
    }
}

/// What is known of the blocks that Prometheus has loaded.
#[derive(Debug)]
pub struct Confirmed {
    agreed: Result<Agreed, Reason>,
    out_of_order: Bound,
}

/// The blocks as of the last heartbeat that agreed with the listing in all.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) blocks: BTreeMap<BlockId, Known>,
    /// What could not be read then, and was not loaded.
    pub(super) unreadable: BTreeSet<BlockId>,
}

/// A block that Prometheus had loaded.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) files: Arc<[FileVersion]>,
    /// Its range (ms), without the end.
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// The head holds something of its range.
    pub(super) overlaps_head: bool,
}

impl Default for Confirmed {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            agreed: Err(Reason::Unknown),
            out_of_order: Bound::default(),
        }
    }
}

impl Confirmed {
    /// Takes in what a heartbeat has told. The `listing` is that of the directory as it was at the end of this heartbeat and of
    /// the looks that it made necessary; `None` if there is none, or if the directory has changed since. One that was not
    /// complete before Prometheus was asked proves nothing, and changes nothing.
    pub fn heartbeat(&mut self, evidence: &Evidence, out_of_order: &OutOfOrder, listing: Option<&Listing>) {
        let listing = listing.filter(|listing| listing.made_at <= evidence.asked_at);
        self.out_of_order
            .heartbeat(evidence.head_max_time_ms, out_of_order, listing.is_some());
        let Some(listing) = listing else { return };
        let counted = listing.counted();
        let head_min = evidence.head_min_time_ms;
        match (agreement(evidence, &counted), head_min) {
            (Ok(true), Some(head_min)) => self.agreed = Ok(Agreed::new(listing, &counted, head_min)),
            (Err(reason), _) => self.agreed = Err(reason),
            (Ok(same_bytes), _) => match &mut self.agreed {
                Ok(agreed) => agreed.head_reaches(head_min),
                Err(reason) if same_bytes || evidence.blocks_bytes.is_none() => *reason = Reason::Unknown,
                Err(reason) => *reason = Reason::Differs,
            },
        }
    }

    /// Forgets everything: this is another process of Prometheus, or another data directory.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The blocks that Prometheus had loaded, or why that is not known.
    pub(super) fn agreed(&self) -> Result<&Agreed, Reason> {
        self.agreed.as_ref().map_err(|reason| *reason)
    }

    /// Up to which time nothing comes from the head out of order (ms, exclusive); `None` if that is not known.
    pub(super) fn out_of_order_limit_ms(&self) -> Option<i64> {
        self.out_of_order.limit_ms()
    }
}

/// Whether Prometheus has loaded as many blocks as `counted`, from the same time on, and whether of the same size; else the
/// reason why these are not known to be its own.
fn agreement(evidence: &Evidence, counted: &[&Listed]) -> Result<bool, Reason> {
    let (Some(loaded), Some(lowest)) = (evidence.blocks_loaded, evidence.lowest_time_ms) else {
        return Err(Reason::Unknown);
    };
    // Both are cut to seconds in the same way, towards 0.
    let oldest = counted.first().map(|listed| listed.block.meta.min_time / 1000);
    if loaded != counted.len() as u64 || oldest.is_some_and(|oldest| oldest != lowest / 1000) {
        return Err(Reason::Differs);
    }
    let sizes = counted.iter().map(|listed| listed.facts.bytes_total);
    let bytes = sizes.fold(0_u64, u64::saturating_add);
    Ok(evidence.blocks_bytes == Some(bytes))
}

impl Agreed {
    fn new(listing: &Listing, counted: &[&Listed], head_min: i64) -> Self {
        let known = |listed: &&Listed| {
            let meta = &listed.block.meta;
            let known = Known {
                files: Arc::clone(&listed.facts.files),
                min_time: meta.min_time,
                max_time: meta.max_time,
                overlaps_head: meta.max_time > head_min,
            };
            (listed.block.id, known)
        };
        Self {
            blocks: counted.iter().map(known).collect(),
            unreadable: listing.unreadable().collect(),
        }
    }

    fn head_reaches(&mut self, head_min: Option<i64>) {
        let Some(head_min) = head_min else { return };
        for known in self.blocks.values_mut() {
            known.overlaps_head |= known.max_time > head_min;
        }
    }
}

#[cfg(test)]
mod tests;
