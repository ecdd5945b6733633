//! One pass over the data directory: scan, plan, carry, commit in order, record.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    model::Labels,
    objstore::{self, ErrorKind},
    shipper::{
        Decision, Facts, QUIET, Shipper, Verdict, Wait,
        courier::{Carried, Error, Job},
        metrics::Reason,
        plan,
        quarantine::{self, Ailment},
    },
    tsdb::{Block, BlockId, Scan},
};

/// Blocks that are opened and travel at the same time; the bucket limits the requests of all of them together.
const BLOCKS_AT_ONCE: usize = 8;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All that can be durable is.
    Clean,
    /// The same, but a block is being copied in; look again soon.
    Arriving(Duration),
    /// Blocks wait for external labels; nothing but news of Prometheus helps.
    Unlabelled,
    /// Something must be tried again.
    Failed,
}

/// Why a pass did not ship all that is due.
#[derive(Debug)]
enum Held {
    Unlabelled(&'static str),
    Failed(String),
}

/// A block that is to be shipped in this pass.
#[derive(Clone, Debug)]
struct Due {
    job: Job,
    not_before: Instant,
}

impl Shipper {
    /// One pass. Its failures are logged and counted here.
    pub(super) async fn pass(&mut self) -> Outcome {
        self.watcher.ensure();
        let scan = match self.scan().await {
            Ok(scan) => scan,
            Err(error) => {
                self.metrics.dir_sync_failures.inc();
                self.save_ledger();
                let dir = self.settings.dir.display().to_string();
                self.say(format!("cannot read the data directory {dir}: {error}; is --tsdb.path right, mounted and readable? It is tried again"));
                return Outcome::Failed;
            }
        };
        // After the scan, so that a block sealed meanwhile is not taken for one that was copied in.
        self.note(None);
        let decisions = self.decide(&scan);
        let result = self.ship_due(&decisions).await;
        self.save_ledger();
        self.finish_pass(&scan, result)
    }

    fn finish_pass(&mut self, scan: &Scan, result: Result<(), Held>) -> Outcome {
        let decisions = self.decide(scan);
        self.measure(&decisions, scan);
        match result {
            Ok(()) => {}
            Err(Held::Unlabelled(why)) => {
                self.say(why.to_owned());
                return Outcome::Unlabelled;
            }
            Err(Held::Failed(failure)) => {
                self.metrics.dir_sync_failures.inc();
                self.say(failure);
                return Outcome::Failed;
            }
        }
        self.metrics.dir_syncs.inc();
        self.metrics
            .upload_compacted_done
            .set(i64::from(self.settings.policy.upload_compacted));
        if self.said.take().is_some() {
            tracing::info!("shipping goes on");
        }
        match self.quarantine.any_arriving() {
            true => Outcome::Arriving(quarantine::LOOK_SOON),
            false => Outcome::Clean,
        }
    }

    /// Says what holds the shipper up, once for as long as it is the same.
    fn say(&mut self, failure: String) {
        if self.said.as_ref() != Some(&failure) {
            tracing::warn!(
                error = failure,
                "shipping is held up; it is tried again with growing waits of up to 30 s"
            );
            self.said = Some(failure);
        }
    }

    pub(super) async fn scan(&mut self) -> Result<Scan, String> {
        let mut scanner = std::mem::take(&mut self.scanner);
        let dir = self.settings.dir.clone();
        let scanned = tokio::task::spawn_blocking(move || {
            let scan = scanner.scan(&dir);
            (scanner, scan)
        });
        let (scanner, scan) = scanned.await.map_err(|error| error.to_string())?;
        self.scanner = scanner;
        scan.map_err(|error| error.to_string())
    }

    pub(super) fn decide(&mut self, scan: &Scan) -> Vec<Decision> {
        let local: Vec<BlockId> = scan.blocks.iter().map(|block| block.id).collect();
        let present: HashSet<BlockId> = local.iter().copied().chain(scan.corrupt.iter().map(|c| c.id)).collect();
        self.ledger.retain(&local);
        self.count_vanished(&present);
        // A hint may come before the scan sees the block; keep it for a while.
        let recent = SystemTime::now() - Duration::from_secs(300);
        self.sealed.retain(|id, at| present.contains(id) || *at > recent);
        let (now, dir, sealed) = (SystemTime::now(), &self.settings.dir, &self.sealed);
        let arriving = |id: BlockId| {
            !sealed.contains_key(&id)
                && quarantine::quiet(&dir.join(id.to_string()), now).is_ok_and(|quiet| quiet < QUIET)
        };
        let broken = self.quarantine.take(&scan.corrupt, arriving);
        self.metrics.corrupted_blocks.inc_by(broken);
        let ledger = &self.ledger;
        self.quarantine
            .retain(|id| present.contains(&id) && !ledger.contains(id));
        self.courier.retain(|id| present.contains(&id) && !ledger.contains(id));
        let facts = Facts {
            quiet: self.quiet(scan),
            waiting: self.quarantine.waiting(),
        };
        plan::plan(&scan.blocks, &self.ledger, &facts, &self.settings.policy)
    }

    /// Blocks that waited and are gone; Prometheus deletes by its retention, whatever is shipped.
    fn count_vanished(&mut self, present: &HashSet<BlockId>) {
        let gone: Vec<BlockId> = self
            .pending
            .keys()
            .filter(|id| !present.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.pending.remove(&id);
            self.metrics.vanished.inc();
            tracing::warn!(block = %id, "a block was deleted before it was durable: by retention, by compaction into a larger block, or by hand");
        }
    }

    fn quiet(&self, scan: &Scan) -> HashMap<BlockId, Duration> {
        let now = SystemTime::now();
        let open = scan
            .blocks
            .iter()
            .filter(|block| !self.ledger.contains(block.id) && !self.sealed.contains_key(&block.id));
        // A block that cannot be looked at is reported when it is opened.
        open.filter_map(|block| Some((block.id, quarantine::quiet(&block.dir, now).ok()?)))
            .collect()
    }

    async fn ship_due(&mut self, decisions: &[Decision]) -> Result<(), Held> {
        let now = Instant::now();
        let due: Vec<(Block, Instant)> = decisions
            .iter()
            .filter_map(|decision| match decision.verdict {
                Verdict::Ship(hold) => Some((decision.block.clone(), now + hold)),
                _ => None,
            })
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let labels = self.origin.borrow_and_update().labels.clone();
        let Some(labels) = labels.or_else(|| self.labels_of_old()) else {
            return Err(Held::Unlabelled(
                "the external labels are not known yet: Prometheus has not answered; blocks wait for them",
            ));
        };
        if labels.is_empty() {
            return Err(Held::Unlabelled(
                "there are no external labels, and a block without labels cannot be committed: set global.external_labels in the configuration of Prometheus, or --label",
            ));
        }
        let due = self
            .look_back(due, &labels)
            .await
            .map_err(|error| Held::Failed(error.to_string()))?;
        self.convoy(due).await.map_err(Held::Failed)
    }

    /// Settles what the bucket already tells about blocks whose history this process does not know.
    async fn look_back(&mut self, due: Vec<(Block, Instant)>, labels: &Labels) -> Result<Vec<Due>, objstore::Error> {
        let compacted = due.iter().any(|(block, _)| block.meta.level > 1);
        let new = |block: &Block| block.meta.level <= 1 && self.sealed.contains_key(&block.id);
        let doubtful = due
            .iter()
            .filter(|(block, _)| !new(block))
            .map(|(block, _)| block.id)
            .min();
        if let Some(oldest) = doubtful.map(|id| id.to_string()) {
            // What sorts just before the oldest block, so that the block itself is listed.
            let after = if compacted { "" } else { &oldest[..oldest.len() - 1] };
            self.history.refresh(self.courier.bucket.as_ref(), after).await?;
            for (id, why) in &self.history.unreadable {
                tracing::warn!(block = %id, why, "a block in the bucket has an unreadable meta.json; if it is ours it is committed anew");
            }
        } else {
            self.history = Default::default();
        }
        let mut jobs = Vec::new();
        for (block, not_before) in due {
            let fresh = self.sealed.contains_key(&block.id) && !self.pending.contains_key(&block.id);
            if (fresh && block.meta.level <= 1) || self.wanted(&block, labels) {
                let committed = self.history.contains(block.id);
                jobs.push(Due {
                    job: Job {
                        block,
                        fresh,
                        committed,
                    },
                    not_before,
                });
            }
        }
        Ok(jobs)
    }

    /// Whether a block is still to be shipped in view of what the bucket holds.
    fn wanted(&mut self, block: &Block, labels: &Labels) -> bool {
        let id = block.id;
        if self.history.contains(id) {
            return true;
        }
        if let Some(merged) = self.history.merged_into(id) {
            tracing::info!(block = %id, into = %merged, "the compactor has merged this block already; it counts as durable");
            self.ledger.record(id, labels);
            return false;
        }
        if block.meta.level > 1 && !self.settings.policy.allow_out_of_order {
            let overlaps = self
                .history
                .overlapping(id, labels, block.meta.min_time, block.meta.max_time);
            if !overlaps.is_empty() {
                let detail = format!(
                    "it was compacted by Prometheus and overlaps {} of the same labels in the bucket; shipping it would halt the compactor. Delete one of them, or leave it",
                    overlaps.iter().map(BlockId::to_string).collect::<Vec<_>>().join(", ")
                );
                self.quarantine.set_aside(
                    id,
                    Ailment {
                        reason: "overlap",
                        detail,
                    },
                    false,
                );
                return false;
            }
        }
        true
    }

    /// Carries the blocks side by side, and commits them in their order.
    async fn convoy(&mut self, due: Vec<Due>) -> Result<(), String> {
        let courier = Arc::clone(&self.courier);
        let carried = stream::iter(due).map(|due| {
            let courier = Arc::clone(&courier);
            // A task of its own each, so that it goes on while another block is committed.
            let task = tokio::spawn(async move {
                let carried = courier.carry(&due.job).await;
                (due, carried)
            });
            AbortOnDropHandle::new(task)
        });
        let mut carried = std::pin::pin!(carried.buffered(BLOCKS_AT_ONCE));
        let mut failed = None;
        while let Some(done) = carried.next().await {
            let (due, carried) = done.map_err(|error| format!("carrying a block failed: {error}"))?;
            let id = due.job.block.id;
            if let Err(error) = self.arrive(&due, carried).await {
                self.metrics.upload_failures.inc();
                let failure = format!("block {id}: {error}");
                if !self.settings.policy.allow_out_of_order {
                    return Err(failure);
                }
                failed = Some(failure);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Commits and records a block that was carried, or sets it aside.
    async fn arrive(&mut self, due: &Due, carried: Result<Carried, Error>) -> Result<(), Error> {
        let block = &due.job.block;
        let held = due.not_before > Instant::now();
        let result = match carried {
            // The next scan no longer has it, and says so.
            Ok(Carried::Vanished) => return Ok(()),
            Ok(Carried::Broken(broken)) => return self.set_aside(block, broken.into(), held),
            Ok(Carried::Ready(_)) if due.job.committed => Ok(()),
            Ok(Carried::Ready(cargo)) => {
                let labels = self
                    .origin
                    .borrow()
                    .labels
                    .clone()
                    .or_else(|| self.labels_of_old())
                    .unwrap_or_default();
                let committed = self
                    .courier
                    .commit(block, &cargo, &labels, &self.settings.source, due.not_before)
                    .await;
                committed.map(|()| self.shipped(block, cargo.pinned.files.iter().map(|file| file.len).sum()))
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                let labels = self
                    .origin
                    .borrow()
                    .labels
                    .clone()
                    .unwrap_or_else(|| self.ledger.labels().clone());
                self.ledger.record(block.id, &labels);
                self.sealed.remove(&block.id);
                self.save_ledger();
                Ok(())
            }
            Err(Error::Bucket(error)) if error.kind == ErrorKind::Local => self.set_aside(
                block,
                Ailment {
                    reason: "unreadable",
                    detail: error.to_string(),
                },
                held,
            ),
            Err(Error::Foreign(names)) => {
                let detail = format!("in the bucket, {names} stands in its directory and is not of it; move that away");
                self.set_aside(
                    block,
                    Ailment {
                        reason: "foreign_object",
                        detail,
                    },
                    false,
                )
            }
            Err(Error::Changed(file)) => {
                let detail = format!("{file} is being written");
                self.set_aside(
                    block,
                    Ailment {
                        reason: "changing",
                        detail,
                    },
                    true,
                )
            }
            Err(error) => Err(error),
        }
    }

    fn set_aside(&mut self, block: &Block, ailment: Ailment, arriving: bool) -> Result<(), Error> {
        if self.quarantine.set_aside(block.id, ailment, arriving) {
            self.metrics.corrupted_blocks.inc();
        }
        Ok(())
    }

    fn shipped(&mut self, block: &Block, bytes: u64) {
        self.metrics.uploads.inc();
        let took = self.sealed.get(&block.id).and_then(|at| at.elapsed().ok());
        if let Some(took) = took {
            self.metrics.seal_to_durable.observe(took.as_secs_f64());
        }
        if block.meta.num_tombstones > 0 {
            tracing::warn!(block = %block.id, tombstones = block.meta.num_tombstones, "the block has tombstones, which are not shipped: series deleted in Prometheus are still there in the bucket");
        }
        tracing::info!(
            block = %block.id, min_time = block.meta.min_time, max_time = block.meta.max_time, level = block.meta.level,
            series = block.meta.num_series, samples = block.meta.num_samples, bytes,
            sealed_to_durable_ms = took.map(|took| took.as_millis() as u64), "block is durable"
        );
    }

    /// The labels of the last commit, for blocks found while Prometheus cannot be asked: it stopped, or replays its WAL.
    fn labels_of_old(&self) -> Option<Labels> {
        let known = self.ledger.labels();
        (!known.is_empty() && self.origin.borrow().neighbour != super::Neighbour::Up).then(|| known.clone())
    }

    pub(super) fn measure(&mut self, decisions: &[Decision], scan: &Scan) {
        let waits = |verdict: &Verdict| matches!(verdict, Verdict::Ship(_) | Verdict::Wait(_));
        let open: Vec<&Decision> = decisions.iter().filter(|decision| waits(&decision.verdict)).collect();
        let corrupt = scan.corrupt.iter().map(|corrupt| {
            let wait = match self.quarantine.is_arriving(corrupt.id) {
                true => Wait::Arriving(corrupt.detail.clone()),
                false => Wait::Quarantined(corrupt.detail.clone()),
            };
            (corrupt.id, Verdict::Wait(wait).to_string())
        });
        self.pending = open
            .iter()
            .map(|open| (open.block.id, open.verdict.to_string()))
            .chain(corrupt)
            .collect::<BTreeMap<_, _>>();
        self.metrics
            .unuploaded
            .set(i64::try_from(self.pending.len()).unwrap_or(i64::MAX));
        self.metrics.oldest.set(
            self.pending
                .keys()
                .map(|id| id.timestamp_ms())
                .min()
                .and_then(|ms| i64::try_from(ms).ok()),
        );
        self.metrics.quarantined.clear();
        for (reason, count) in self.quarantine.by_reason() {
            self.metrics
                .quarantined
                .get_or_create(&Reason { reason: reason.into() })
                .set(count);
        }
        let durable = decisions.iter().filter(|decision| decision.verdict == Verdict::Shipped);
        let until = durable.map(|decision| decision.block.meta.max_time).max();
        let first_open = open
            .iter()
            .map(|open| open.block.meta.min_time)
            .min()
            .unwrap_or(i64::MAX);
        self.metrics
            .durable_until
            .set(until.map_or(0.0, |until| until.min(first_open) as f64 / 1000.0));
    }
}
