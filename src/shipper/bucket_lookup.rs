//! Looks up in the bucket what it has of local blocks whose history this process does not know.
//!
//! A block that was seen to be sealed is new, and is sent without a lookup. Any other is judged by what [`lineage`]
//! finds: it is durable when it is there, whole, under its own name or within another block; what is missing of a committed
//! block is sent again, and nothing of it is ever overwritten; what is marked for deletion, or is another block, is set
//! aside. A ledger that proves nothing (Thanos wrote it, or its newest entry is not in the bucket) is replaced once all
//! blocks were judged so.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Shipper, Skip, Verdict,
    due_block::DueBlock,
    durability_metrics::View,
    plan::Decision,
    quarantine::{self, Problem},
    upload,
};
use crate::{
    catalog::{self, Text},
    lineage::{self, Elsewhere, Entry, Existing},
    model::{Labels, few},
    objstore,
    tsdb::{Block, BlockId, Scan},
};

/// How long the answer counts that a compacted block is not in the bucket: it may be backfilled.
const ASK_AGAIN: Duration = Duration::from_secs(600);

impl Shipper {
    /// Checks at the start whether the newest block of the ledger is in the bucket: one that was emptied, or made anew, has
    /// lost the others as well. What cannot be found out now is asked in the next pass.
    pub(super) async fn check_ledger(&mut self, scan: &Scan) {
        if self.ledger_checked {
            return;
        }
        match self.is_bucket_of_ledger(scan).await {
            Ok(true) => {}
            Ok(false) => {
                self.ledger.clear();
                self.save_ledger();
            }
            Err(error) => {
                tracing::debug!(%error, "cannot check yet whether the blocks of the ledger are in the bucket; retrying in the next pass");
                return;
            }
        }
        self.ledger_checked = true;
    }

    async fn is_bucket_of_ledger(&mut self, scan: &Scan) -> Result<bool, objstore::Error> {
        let bucket = Arc::clone(&self.uploader.bucket);
        if let Some(place) = bucket.incarnation().await?
            && !self.ledger.confirm_incarnation(&place)
        {
            tracing::warn!(
                bucket = bucket.identity(),
                "the bucket's directory is not the one that the ledger belongs to: it was mounted, unmounted, or made anew; every local block is looked up before anything is sent"
            );
            return Ok(false);
        }
        let Some(newest) = self.ledger.newest() else {
            return Ok(true);
        };
        if !matches!(catalog::read_text(bucket.as_ref(), newest).await?, Text::Absent) {
            return Ok(true);
        }
        if let Some(block) = scan.blocks.iter().find(|block| block.id == newest) {
            self.refresh_lineage(Some(newest)).await?;
            let entry = Entry::local(&block.meta, self.ledger.labels());
            if let Elsewhere::In(_) = self.lineage.elsewhere(bucket.as_ref(), &entry).await? {
                return Ok(true);
            }
        }
        tracing::warn!(block = %newest, bucket = bucket.identity(), "the newest block of the ledger is not in the bucket, which was emptied or made anew; every local block is looked up before anything is sent");
        Ok(false)
    }

    /// Decides by what the bucket holds about blocks whose history this process does not know. Returns those that are to be
    /// uploaded.
    pub(super) async fn look_up_in_bucket(
        &mut self,
        due: Vec<DueBlock>,
        labels: &Labels,
    ) -> Result<Vec<DueBlock>, objstore::Error> {
        let compacted = due.iter().any(|due| due.request.block.meta.level > 1);
        let doubtful = due
            .iter()
            .map(|due| &due.request.block)
            .filter(|block| !self.is_new(block));
        if let Some(oldest) = doubtful.map(|block| block.id).min() {
            self.refresh_lineage(Some(oldest).filter(|_| !compacted)).await?;
            self.report_other_writers(&due, labels);
        }
        let mut to_upload = Vec::new();
        for mut due in due {
            let block = due.request.block.clone();
            let new = self.is_new(&block);
            // One that was tried before may have left something open.
            due.request.fresh = new && !self.pending.contains_key(&block.id);
            let labels = self.labels_of(block.id, labels);
            if new || self.needs_upload(&mut due, &block, &labels).await? {
                to_upload.push(due);
            }
        }
        if !self.ledger.is_confirmed() {
            self.ledger.confirm();
            self.save_ledger();
        }
        Ok(to_upload)
    }

    /// Reads what the bucket's blocks say of themselves: of those made after `oldest`, or of all.
    async fn refresh_lineage(&mut self, oldest: Option<BlockId>) -> Result<(), objstore::Error> {
        let after = oldest.map(|id| id.to_string()).unwrap_or_default();
        // What sorts just before the oldest block, so that the block itself is listed.
        let after = &after[..after.len().saturating_sub(1)];
        self.lineage.refresh(self.uploader.bucket.as_ref(), after).await
    }

    /// Whether a block is still to be uploaded in view of what the bucket holds.
    async fn needs_upload(
        &mut self,
        due: &mut DueBlock,
        block: &Block,
        labels: &Labels,
    ) -> Result<bool, objstore::Error> {
        let bucket = Arc::clone(&self.uploader.bucket);
        let place = format!("{}/{}", bucket.identity(), block.id);
        let problem = match lineage::existing(bucket.as_ref(), &block.meta, labels).await? {
            Existing::Nothing { marked: false } => return self.may_be_sent(block, labels).await,
            Existing::Complete(there) => {
                if let Some(theirs) = &there.other_labels {
                    tracing::info!(block = %block.id, labels = %theirs, "the block is in the bucket under other labels than those of now; it stays as it is");
                }
                self.uploader.warn_of_newer_in_bucket(&there.meta).await?;
                // By an earlier try of ours, whose answer was lost.
                if self.uploader.is_unsettled(block.id) {
                    self.count_shipped(block, there.files.iter().filter_map(|file| file.size).sum());
                }
                self.record(block, labels);
                return Ok(false);
            }
            Existing::Incomplete(committed, missing) => {
                tracing::warn!(block = %block.id, missing = missing.len(), "the block is committed, but some of its objects are missing in the bucket; uploading them again");
                due.request.repair = Some(upload::Repair {
                    missing,
                    rewritten: committed.meta.rewritten_from().is_some(),
                });
                return Ok(true);
            }
            Existing::Torn(why) => {
                tracing::warn!(block = %block.id, why, "the meta.json of this block in the bucket cannot be used by anybody; replacing it");
                due.request.replace = true;
                return Ok(true);
            }
            // As a compactor leaves what it has merged, until it deletes it.
            Existing::Marked | Existing::Nothing { marked: true } => {
                let entry = Entry::local(&block.meta, labels);
                if let Elsewhere::In(blocks) = self.lineage.elsewhere(bucket.as_ref(), &entry).await? {
                    tracing::info!(block = %block.id, into = few(blocks.iter()), "the block is marked for deletion in the bucket, and other blocks there hold its samples and are whole; it counts as durable");
                    self.record(block, labels);
                    return Ok(false);
                }
                Problem::new(quarantine::MARKED, upload::Error::Marked { place }.to_string())
            }
            Existing::Conflict(why) => {
                let detail = format!(
                    "{why}. What is committed in {place} is never overwritten; find out which is right: narthex bucket verify --full"
                );
                Problem::new(quarantine::CONFLICT, detail)
            }
            Existing::Refused { error, .. } => Problem::of_bucket(quarantine::REFUSED, &error),
        };
        self.set_aside(block, problem, false);
        Ok(false)
    }

    /// Whether no other block of the bucket holds the samples of this one, and it may be sent.
    async fn may_be_sent(&mut self, block: &Block, labels: &Labels) -> Result<bool, objstore::Error> {
        let bucket = Arc::clone(&self.uploader.bucket);
        let entry = Entry::local(&block.meta, labels);
        match self.lineage.elsewhere(bucket.as_ref(), &entry).await? {
            Elsewhere::In(blocks) => {
                tracing::info!(block = %block.id, into = few(blocks.iter()), "other blocks in the bucket hold the samples of this block and are whole; it counts as durable");
                self.record(block, labels);
                return Ok(false);
            }
            Elsewhere::UnderOtherLabels { blocks, labels } => {
                tracing::info!(block = %block.id, into = few(blocks.iter()), %labels, "blocks in the bucket hold the samples of this block, but under other labels; uploading it");
            }
            Elsewhere::Nowhere {
                not_whole: Some((id, why)),
            } => {
                tracing::warn!(block = %block.id, into = %id, why, "a block in the bucket says that it holds the samples of this block, but is not whole; uploading this one")
            }
            Elsewhere::Nowhere { not_whole: None } => {}
        }
        if block.meta.level <= 1 || self.settings.policy.allow_out_of_order {
            return Ok(true);
        }
        let overlaps = self.lineage.overlapping(bucket.as_ref(), &entry).await?;
        if overlaps.is_empty() {
            return Ok(true);
        }
        let detail = format!(
            "it was compacted by Prometheus and overlaps {} of the same labels in the bucket; shipping it would halt the compactor. Delete one of them, or leave it",
            few(overlaps.iter())
        );
        self.set_aside(block, Problem::new(quarantine::OVERLAP, detail), false);
        Ok(false)
    }

    /// Whether it is time to look up the sources of compacted blocks.
    pub(super) fn is_time_to_look_up_sources(&self, view: View<'_>) -> bool {
        let asked = self
            .sources_looked_up_at
            .is_some_and(|asked| asked.elapsed() < ASK_AGAIN);
        !asked && view.decisions.iter().any(|decision| self.is_unproven(decision))
    }

    /// Looks up in the bucket the sources of compacted blocks that are not shipped themselves, where it is not known whether
    /// their sources were.
    pub(super) async fn look_up_sources(&mut self, view: View<'_>, labels: &Labels) -> Result<(), objstore::Error> {
        if !self.is_time_to_look_up_sources(view) {
            return Ok(());
        }
        let unproven = view.decisions.iter().filter(|decision| self.is_unproven(decision));
        let open: Vec<&Block> = unproven.map(|decision| &decision.block).collect();
        let sources = open.iter().flat_map(|block| &block.meta.sources).copied();
        self.refresh_lineage(sources.chain(open.iter().map(|block| block.id)).min())
            .await?;
        let bucket = Arc::clone(&self.uploader.bucket);
        for block in open {
            // It may have been shipped itself, when that was asked for.
            if self.lineage.contains(block.id)
                && let Existing::Complete(_) = lineage::existing(bucket.as_ref(), &block.meta, labels).await?
            {
                self.durability.proven.insert(block.id);
                continue;
            }
            let entry = Entry::local(&block.meta, labels);
            if let Some(blocks) = self.lineage.all_sources(bucket.as_ref(), &entry).await? {
                tracing::info!(block = %block.id, sources = few(blocks.iter()), "the bucket has all blocks that this compacted block was made of");
                for source in &block.meta.sources {
                    self.ledger.record_source(*source);
                }
            }
        }
        self.sources_looked_up_at = Some(Instant::now());
        Ok(())
    }

    /// Whether this is a compacted block that is not shipped, and of which some source is not known to be durable.
    pub(super) fn is_unproven(&self, decision: &Decision) -> bool {
        let sources = &decision.block.meta.sources;
        matches!(decision.verdict, Verdict::Skip(Skip::Compacted(_)))
            && !self.durability.proven.contains(&decision.block.id)
            && (sources.is_empty() || !sources.iter().all(|source| self.ledger.knows(*source)))
    }
}
