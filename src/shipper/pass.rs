//! One pass over the data directory: scan, plan, carry, commit in order, record.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use tokio::{task::JoinError, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    lineage::{Elsewhere, Entry, Namesake, namesake},
    model::Labels,
    objstore::{self, ErrorKind},
    shipper::{
        Decision, Facts, Neighbour, QUIET, Shipper, Verdict,
        courier::{Cargo, Carried, Error, Job},
        measure::View,
        plan,
        quarantine::{self, Ailment},
    },
    tsdb::{Block, BlockId, Scan},
};

/// Blocks that are opened and travel at the same time; the bucket limits the requests of all of them together.
pub(super) const BLOCKS_AT_ONCE: usize = 8;
/// A block that is renamed into place later than this after it was made did not come from Prometheus' hands: it may have
/// been shipped, and merged, long ago.
const YOUNG: Duration = Duration::from_secs(3600);

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
    Failed(Trouble),
}

/// A failure for the log.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) told: String,
    /// Tells one trouble from another. The words do not: stores number their answers, and of several requests now this
    /// one and now that one fails first.
    same: String,
}

impl Trouble {
    /// One whose words do not change while it lasts.
    fn new(told: String) -> Self {
        Self {
            same: told.clone(),
            told,
        }
    }

    fn of_block(id: BlockId, error: &Error) -> Self {
        let told = format!("block {id}: {error}");
        match error {
            Error::Bucket(error) => Self {
                same: format!("{id} {:?}", error.kind),
                told,
            },
            _ => Self::new(told),
        }
    }
}

impl From<objstore::Error> for Trouble {
    fn from(error: objstore::Error) -> Self {
        Self {
            told: error.to_string(),
            same: format!("{:?}", error.kind),
        }
    }
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
                self.say(Trouble::new(format!("cannot read the data directory {dir}: {error}; is --tsdb.path right, mounted and readable? It is tried again")));
                return Outcome::Failed;
            }
        };
        // After the scan, so that a block sealed meanwhile is not taken for one that was copied in.
        self.note(None);
        let decisions = self.decide(&scan);
        let view = View {
            decisions: &decisions,
            scan: &scan,
        };
        self.measure(view);
        let result = self.ship_due(view).await;
        self.save_ledger();
        self.finish_pass(&scan, result)
    }

    fn finish_pass(&mut self, scan: &Scan, result: Result<(), Held>) -> Outcome {
        let decisions = self.decide(scan);
        self.remember(View {
            decisions: &decisions,
            scan,
        });
        match result {
            Ok(()) => {
                if !self.quarantine.looks_at_bucket() {
                    self.history.forget();
                }
            }
            Err(Held::Unlabelled(why)) => {
                self.say_waiting(Trouble::new(why.to_owned()));
                return Outcome::Unlabelled;
            }
            Err(Held::Failed(trouble)) => {
                self.metrics.dir_sync_failures.inc();
                self.say(trouble);
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

    fn is_news(&self, trouble: &Trouble) -> bool {
        self.said.as_ref().is_none_or(|said| said.same != trouble.same)
    }

    /// Says what holds the shipper up, once for as long as it is the same.
    fn say(&mut self, trouble: Trouble) {
        if self.is_news(&trouble) {
            tracing::warn!(
                error = trouble.told,
                "shipping is held up; it is tried again with growing waits of up to 30 s"
            );
        }
        self.said = Some(trouble);
    }

    /// As [`Self::say`], for blocks that wait for labels. That nobody has told them yet is the way of things for a moment
    /// at each start; when it lasts, `--prometheus.ready_timeout` says so aloud.
    fn say_waiting(&mut self, trouble: Trouble) {
        if self.is_news(&trouble) {
            match self.labels() {
                None => tracing::info!(why = trouble.told, "blocks wait"),
                Some(_) => tracing::warn!(why = trouble.told, "blocks wait"),
            }
        }
        self.said = Some(trouble);
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
        let corrupt = scan.corrupt.iter().map(|corrupt| corrupt.id);
        // A block that cannot be read at the moment is not less durable.
        let local: Vec<BlockId> = scan.blocks.iter().map(|block| block.id).chain(corrupt).collect();
        let present: HashSet<BlockId> = local.iter().copied().collect();
        self.ledger.retain(&local);
        self.count_vanished(scan, &present);
        // A hint may come before the scan sees the block; keep it for a while.
        let recent = SystemTime::now() - Duration::from_secs(300);
        self.sealed.retain(|id, at| present.contains(id) || *at > recent);
        let (dir, sealed) = (&self.settings.dir, &self.sealed);
        let arriving = |id: BlockId| {
            !sealed.contains_key(&id) && quarantine::quiet(&dir.join(id.to_string())).is_ok_and(|quiet| quiet < QUIET)
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

    fn quiet(&self, scan: &Scan) -> HashMap<BlockId, Duration> {
        let open = scan
            .blocks
            .iter()
            .filter(|block| !self.ledger.contains(block.id) && !self.sealed.contains_key(&block.id));
        // A block that cannot be looked at is reported when it is opened.
        open.filter_map(|block| Some((block.id, quarantine::quiet(&block.dir).ok()?)))
            .collect()
    }

    async fn ship_due(&mut self, view: View<'_>) -> Result<(), Held> {
        let now = Instant::now();
        let due: Vec<(Block, Instant)> = view
            .decisions
            .iter()
            .filter_map(|decision| match decision.verdict {
                Verdict::Ship(hold) => Some((decision.block.clone(), now + hold)),
                _ => None,
            })
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.origin.mark_unchanged();
        let Some(labels) = self.labels() else {
            return Err(Held::Unlabelled(
                "the external labels are not known yet: Prometheus has not answered; blocks wait for them",
            ));
        };
        if labels.is_empty() {
            return Err(Held::Unlabelled(
                "there are no external labels, and a block without labels cannot be committed: set global.external_labels in the configuration of Prometheus, or --label",
            ));
        }
        let due = self.look_again(due).await;
        let due = self
            .look_back(due, &labels)
            .await
            .map_err(|error| Held::Failed(error.into()))?;
        self.convoy(due, view).await.map_err(Held::Failed)
    }

    /// Leaves out the blocks that were set aside and still are broken: they must not cost a look into the bucket each
    /// time.
    async fn look_again(&mut self, due: Vec<(Block, Instant)>) -> Vec<(Block, Instant)> {
        let mut whole = Vec::new();
        for (block, not_before) in due {
            let broken = match self.quarantine.has(block.id) {
                true => self.courier.find_broken(&block).await,
                false => None,
            };
            match broken {
                Some(broken) => self.set_aside(&block, broken.into(), not_before > Instant::now()),
                None => whole.push((block, not_before)),
            }
        }
        whole
    }

    /// Whether the block was seen to come from Prometheus' hands and was not committed since: nobody else can have
    /// shipped it, or merged it.
    fn is_new(&self, block: &Block) -> bool {
        let made = SystemTime::UNIX_EPOCH + Duration::from_millis(block.id.timestamp_ms());
        let sealed = self.sealed.get(&block.id);
        let young = sealed.is_some_and(|at| at.duration_since(made).is_ok_and(|age| age < YOUNG));
        young && block.meta.level <= 1 && !self.courier.is_unsettled(block.id)
    }

    /// Settles what the bucket already tells about blocks whose history this process does not know.
    async fn look_back(&mut self, due: Vec<(Block, Instant)>, labels: &Labels) -> Result<Vec<Due>, objstore::Error> {
        let compacted = due.iter().any(|(block, _)| block.meta.level > 1);
        let doubtful = due
            .iter()
            .filter(|(block, _)| !self.is_new(block))
            .map(|(block, _)| block.id)
            .min();
        if let Some(oldest) = doubtful.map(|id| id.to_string()) {
            // What sorts just before the oldest block, so that the block itself is listed.
            let after = if compacted { "" } else { &oldest[..oldest.len() - 1] };
            self.history.refresh(self.courier.bucket.as_ref(), after).await?;
        }
        let mut jobs = Vec::new();
        for (block, not_before) in due {
            let fresh = self.is_new(&block) && !self.pending.contains_key(&block.id);
            if fresh || self.wanted(&block, labels).await? {
                let committed = !fresh && self.history.contains(block.id);
                jobs.push(Due {
                    job: Job {
                        block,
                        fresh,
                        committed,
                        known: None,
                    },
                    not_before,
                });
            }
        }
        Ok(jobs)
    }

    /// Whether a block is still to be shipped in view of what the bucket holds.
    async fn wanted(&mut self, block: &Block, labels: &Labels) -> Result<bool, objstore::Error> {
        let id = block.id;
        if self.history.contains(id) {
            return Ok(true);
        }
        if let Some(why) = self.history.unreadable().get(&id).cloned() {
            let found = namesake(self.courier.bucket.as_ref(), &block.meta, labels).await?;
            if !matches!(found, Namesake::Nothing { .. } | Namesake::Torn(_)) {
                // It may be a committed block, which is never written over.
                return Err(objstore::Error {
                    op: objstore::Op::Get,
                    key: format!("{id}/meta.json"),
                    kind: ErrorKind::Refused,
                    detail: why,
                    source: None,
                });
            }
        }
        let (bucket, entry) = (self.courier.bucket.as_ref(), Entry::local(&block.meta, labels));
        if let Elsewhere::In(merged) = self.history.elsewhere(bucket, &entry).await? {
            let into = merged.iter().map(BlockId::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!(block = %id, into, "the compactor has merged this block already; it counts as durable");
            self.ledger.record(id, labels);
            return Ok(false);
        }
        if block.meta.level > 1 && !self.settings.policy.allow_out_of_order {
            let overlaps = self.history.overlapping(bucket, &entry).await?;
            if !overlaps.is_empty() {
                let detail = format!(
                    "it was compacted by Prometheus and overlaps {} of the same labels in the bucket; shipping it would halt the compactor. Delete one of them, or leave it",
                    overlaps.iter().map(BlockId::to_string).collect::<Vec<_>>().join(", ")
                );
                self.quarantine
                    .set_aside(id, Ailment::new(quarantine::OVERLAP, detail), false);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Carries the blocks side by side, and commits them in their order.
    async fn convoy(&mut self, due: Vec<Due>, view: View<'_>) -> Result<(), Trouble> {
        let courier = Arc::clone(&self.courier);
        let carried = stream::iter(due).map(|due| {
            let (courier, job) = (Arc::clone(&courier), due.job.clone());
            // A task of its own each, so that it goes on while another block is committed.
            let task = AbortOnDropHandle::new(tokio::spawn(async move { courier.carry(&job).await }));
            async move { (due, task.await) }
        });
        let mut carried = std::pin::pin!(carried.buffered(self.blocks_at_once));
        let mut failed = None;
        while let Some((due, carried)) = carried.next().await {
            let id = due.job.block.id;
            let arrived = match carried {
                Ok(carried) => self.arrive(&due, carried).await,
                Err(error) => {
                    self.set_aside(&due.job.block, panicked(&error), false);
                    Ok(())
                }
            };
            self.measure(view);
            if let Err(error) = arrived {
                // Eight blocks may need more descriptors than there are; one may not.
                if matches!(error, Error::Local(_)) {
                    self.blocks_at_once = 1;
                }
                self.metrics.upload_failures.inc();
                let trouble = Trouble::of_block(id, &error);
                if !self.settings.policy.allow_out_of_order {
                    return Err(trouble);
                }
                failed = Some(trouble);
            }
        }
        if failed.is_none() {
            self.blocks_at_once = BLOCKS_AT_ONCE;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Commits and records a block that was carried, or sets it aside.
    async fn arrive(&mut self, due: &Due, carried: Result<Carried, Error>) -> Result<(), Error> {
        let block = &due.job.block;
        let held = due.not_before > Instant::now();
        // Taken once: what is recorded is what was stamped.
        let labels = self.labels().unwrap_or_default();
        let result = match carried {
            // The next scan no longer has it, and says so.
            Ok(Carried::Vanished) => return Ok(()),
            Ok(Carried::Broken(broken)) => {
                self.set_aside(block, broken.into(), held);
                return Ok(());
            }
            Ok(Carried::Ready(cargo)) => self.commit(due, &cargo, &labels).await,
            Err(error) => Err(error),
        };
        let (ailment, arriving) = match result {
            Ok(()) => {
                self.ledger.record(block.id, &labels);
                self.sealed.remove(&block.id);
                self.save_ledger();
                return Ok(());
            }
            Err(Error::Bucket(error)) if error.kind == ErrorKind::Local => {
                (Ailment::new("unreadable", error.to_string()), held)
            }
            Err(Error::Foreign { place, names }) => {
                let detail = format!("{names} stands in {place} and is not of the block; move it away");
                (Ailment::new(quarantine::FOREIGN, detail), false)
            }
            Err(Error::Changed(file)) => (Ailment::new("changing", format!("{file} is being written")), true),
            Err(error) => return Err(error),
        };
        self.set_aside(block, ailment, arriving);
        Ok(())
    }

    /// Makes a block visible that was carried, unless it is.
    async fn commit(&mut self, due: &Due, cargo: &Cargo, labels: &Labels) -> Result<(), Error> {
        let block = &due.job.block;
        if !due.job.committed {
            self.courier
                .commit(block, cargo, labels, &self.settings.source, due.not_before)
                .await?;
        } else if !self.courier.is_unsettled(block.id) {
            // Shipped in an earlier life, or by another.
            return Ok(());
        }
        self.shipped(block, cargo.pinned.files.iter().map(|file| file.len).sum());
        Ok(())
    }

    fn set_aside(&mut self, block: &Block, ailment: Ailment, arriving: bool) {
        if self.quarantine.set_aside(block.id, ailment, arriving) {
            self.metrics.corrupted_blocks.inc();
        }
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

    /// The external labels of now; those of the last commit for blocks found while Prometheus, which was not yet heard
    /// of, cannot be asked: it stopped, or replays its WAL.
    fn labels(&self) -> Option<Labels> {
        // Cloned, not held: a second borrow while somebody waits to write would wait for ever.
        let origin = self.origin.borrow().clone();
        let old = self.ledger.labels();
        let usable = !old.is_empty() && origin.neighbour != Neighbour::Up;
        origin.labels.or_else(|| usable.then(|| old.clone()))
    }
}

fn panicked(error: &JoinError) -> Ailment {
    let detail = format!("carrying it failed, which is a bug in narthex: {error}");
    Ailment::new("panic", detail)
}
