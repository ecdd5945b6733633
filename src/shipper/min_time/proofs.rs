//! Whether the bucket has the local blocks now, and since when.
//!
//! A block that was durable once may be gone: a compactor's retention marks it for deletion and deletes it, an operator or a
//! rule of the store removes it. It counts as there when its own `meta.json` is, unmarked, with all files and the labels
//! of now; or when other blocks that are whole hold its samples (see `lineage`). Under other labels it does not count: for a
//! querier these are other series.
//!
//! **Since when** is the time at which the last of these blocks was sent, by its `meta.json`; where that does not say, when
//! it was first seen here; for what was missing or marked meanwhile, when it was found again, as a Store Gateway has to find
//! it anew. A proof goes on when a compactor has merged the block into another one: as long as what proved it
//! before still stands there, marked or not, a Store Gateway reads that one. It ends once that is gone, and then the merged
//! block is as old as it is.
//!
//! **Cost.** What is proven is kept for [`LASTS`] and asked again after [`CHECK_EVERY`]: two requests for a block, as marks are
//! not seen in a listing of names. A look between asks once for the `meta.json` of each block that proves something: a deletion
//! begins with that. For blocks that were merged, `lineage` reads the `meta.json` of each block of the bucket
//! that is younger than the oldest of them, whoever's it is: one request for each, once, and some 0.4 KiB of memory for as
//! long as a local block needs it; and for each block that has merged ones two requests in [`CHECK_EVERY`]. Where there are
//! more than [`MOST_BLOCKS`] such blocks, merged ones are not looked for and count as missing.
//!
//! **Cancel.** A look may be dropped at any moment: what it has found by then is kept.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    catalog::{self, Found},
    lineage::{Elsewhere, Entry, Existing, Lineage, existing},
    model::Labels,
    objstore::{self, Bucket, Scope},
    shipper::ledger::now_ms,
    tsdb::{Block, BlockId, Meta},
};

/// How long it is before a proof is asked for again. Readers leave marked blocks in use for hours.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(3600);
/// How long a proof counts when it cannot be had again.
const LASTS: Duration = Duration::from_secs(2 * 3600);
/// The most blocks of the bucket whose `meta.json` is kept in mind.
const MOST_BLOCKS: usize = 100_000;

/// That the bucket has a block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proof {
    /// When it was found.
    checked: Instant,
    /// The blocks that show it: all must be there.
    holders: Vec<BlockId>,
    /// Since when the bucket has it (ms since 1970).
    since: i64,
}

/// What is proven of the local blocks.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    by_block: HashMap<BlockId, Proof>,
    /// When the names of the bucket were last listed.
    listed_at: Option<Instant>,
    /// When blocks were first seen that do not say when they were sent (ms since 1970).
    first_seen: HashMap<BlockId, i64>,
    /// Blocks that the bucket did not have when they were looked for, and which of the blocks that proved them were gone from
    /// the listing; none if nothing proved them.
    missing: HashMap<BlockId, Vec<BlockId>>,
    /// It was logged that the bucket has lost a block, and that is still so for some block.
    loss_logged: bool,
    /// What the bucket's blocks say of themselves, while a local block is only within others.
    lineage: Lineage,
}

/// What one look has found of the bucket.
struct Listing {
    /// The names of its blocks.
    present: HashSet<BlockId>,
    /// What sorts just before all that matters.
    after: String,
    /// Their metas were read.
    lineage_is_fresh: bool,
}

impl Proofs {
    /// When the names of the bucket were last listed: what was not there is not proven since.
    pub(super) fn listed_at(&self) -> Option<Instant> {
        self.listed_at
    }

    /// Since when the bucket has a block (ms since 1970); `None` if that is not proven.
    pub(super) fn since(&self, id: BlockId) -> Option<i64> {
        let proof = self.by_block.get(&id)?;
        (proof.checked.elapsed() < LASTS).then_some(proof.since)
    }

    /// Finds out which of these durable blocks, the oldest first, the bucket has; up to the first one that it has not.
    ///
    /// # Errors
    /// Those that concern the whole bucket.
    pub(super) async fn look(
        &mut self,
        bucket: &dyn Bucket,
        blocks: &[Block],
        labels: &Labels,
    ) -> Result<(), objstore::Error> {
        let begun = Instant::now();
        let oldest = blocks
            .iter()
            .flat_map(|block| block.meta.sources.iter().chain([&block.id]))
            .min();
        let mut listing = Listing {
            present: HashSet::new(),
            after: before(oldest),
            lineage_is_fresh: false,
        };
        // Without any there is nothing to ask for.
        if oldest.is_some() {
            listing.present = catalog::ids(bucket, &listing.after).await?.into_iter().collect();
        }
        self.keep_present(blocks, &listing.present);
        self.listed_at = Some(begun);
        let (mut standing, mut all_proven) = (HashSet::new(), true);
        for block in blocks {
            let proof = self.by_block.get(&block.id);
            if let Some(proof) = proof.filter(|proof| proof.checked.elapsed() < CHECK_EVERY) {
                let mut holders = proof.holders.clone();
                holders.retain(|holder| !standing.contains(holder));
                if all_stand(bucket, &holders).await? {
                    standing.extend(holders);
                    continue;
                }
            }
            let proof = self.prove(bucket, block, labels, &mut listing).await?;
            all_proven = self.keep(block.id, proof);
            if !all_proven {
                self.log_loss(block.id, &listing);
                break;
            }
        }
        self.loss_logged &= !all_proven;
        let within_others = |(id, proof): (&BlockId, &Proof)| proof.holders != [*id];
        if !listing.lineage_is_fresh && !self.by_block.iter().any(within_others) {
            self.lineage.forget();
        }
        Ok(())
    }

    /// Says that the bucket has lost a block, and what else it may have lost, once.
    fn log_loss(&mut self, id: BlockId, listing: &Listing) {
        let is_lost = !listing.present.contains(&id) && listing.present.len() <= MOST_BLOCKS;
        if is_lost && !self.loss_logged {
            tracing::warn!(block = %id, "the bucket has lost a block that was shipped, and has none that it was merged into; younger ones may be lost as well. Queries over them are answered from here as long as Prometheus has them. If nobody meant to delete them (as a compactor does by its retention), send them again with narthex backfill");
        }
        self.loss_logged |= is_lost;
    }

    /// Keeps what was found out of a block; whether it is proven.
    fn keep(&mut self, id: BlockId, proof: Option<Proof>) -> bool {
        let Some(mut proof) = proof else {
            self.by_block.remove(&id);
            self.missing.insert(id, Vec::new());
            return false;
        };
        let gone = self.missing.remove(&id);
        if gone.is_some_and(|gone| gone.is_empty() || proof.holders.iter().any(|holder| gone.contains(holder))) {
            proof.since = now_ms();
        }
        self.by_block.insert(id, proof);
        true
    }

    /// Forgets what was proven by blocks that are gone, and of blocks that are not local any more.
    fn keep_present(&mut self, blocks: &[Block], present: &HashSet<BlockId>) {
        let local: HashSet<BlockId> = blocks.iter().map(|block| block.id).collect();
        self.missing.retain(|id, _| local.contains(id));
        let missing = &mut self.missing;
        self.by_block.retain(|id, proof| {
            if !local.contains(id) {
                return false;
            }
            let gone = proof.holders.iter().filter(|holder| !present.contains(holder));
            let gone: Vec<BlockId> = gone.copied().collect();
            let stands = gone.is_empty();
            if !stands {
                missing.insert(*id, gone);
            }
            stands
        });
        self.first_seen.retain(|id, _| present.contains(id));
    }

    /// Whether the bucket has the samples of `block`.
    async fn prove(
        &mut self,
        bucket: &dyn Bucket,
        block: &Block,
        labels: &Labels,
        listing: &mut Listing,
    ) -> Result<Option<Proof>, objstore::Error> {
        if listing.present.contains(&block.id)
            && let Existing::Complete(there) = existing(bucket, &block.meta, labels).await?
            && there.other_labels.is_none()
        {
            return Ok(Some(Proof {
                checked: Instant::now(),
                holders: vec![block.id],
                since: self.sent_at(block.id, Some(&there.meta)),
            }));
        }
        if listing.present.len() > MOST_BLOCKS {
            tracing::debug!(block = %block.id, "too many blocks in the bucket to look for the one that this was merged into");
            return Ok(None);
        }
        if !listing.lineage_is_fresh {
            self.lineage.refresh(bucket, &listing.after).await?;
            listing.lineage_is_fresh = true;
        }
        let entry = Entry::local(&block.meta, labels);
        let Elsewhere::In(mut holders) = self.lineage.elsewhere(bucket, &entry).await? else {
            return Ok(None);
        };
        let mut since = i64::MIN;
        for holder in &holders {
            let meta = match catalog::read(bucket, *holder).await? {
                Found::Block(meta) => Some(*meta),
                Found::Partial | Found::Unreadable(_) => None,
            };
            since = since.max(self.sent_at(*holder, meta.as_ref()));
        }
        if let Some(before) = self.by_block.get(&block.id).cloned()
            && before.since < since
            && all_stand(bucket, &before.holders).await?
        {
            since = before.since;
            holders.extend(before.holders);
            holders.sort_unstable();
            holders.dedup();
        }
        Ok(Some(Proof {
            checked: Instant::now(),
            holders,
            since,
        }))
    }

    /// When a block was sent, or first seen here (ms since 1970).
    fn sent_at(&mut self, id: BlockId, meta: Option<&Meta>) -> i64 {
        let said = meta.and_then(Meta::upload_time);
        said.unwrap_or_else(|| *self.first_seen.entry(id).or_insert_with(now_ms))
    }
}

/// What sorts just before the name of a block; before all if there is none.
fn before(id: Option<&BlockId>) -> String {
    let mut name = id.map(ToString::to_string).unwrap_or_default();
    name.pop();
    name
}

/// Whether these blocks are still there, marked or not.
async fn all_stand(bucket: &dyn Bucket, blocks: &[BlockId]) -> Result<bool, objstore::Error> {
    for id in blocks {
        match bucket.stat(&format!("{id}/meta.json")).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(error) if error.scope() == Scope::Object => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
