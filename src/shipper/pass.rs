//! One pass over the data directory: scan, plan, look up in the bucket, upload, commit in order, record.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::{
    model::{Labels, few},
    shipper::{
        Decision, Facts, Liveness, LocalBlock, QUIET, Shipper, Skip, Verdict,
        block_events::{MAY_BE_WITHDRAWN, YOUNG, made, made_within},
        content,
        due_block::DueBlock,
        durability_metrics::View,
        failure::Failure,
        plan,
        quarantine::{self, Problem},
        upload::UploadRequest,
    },
    threads::blocking,
    tsdb::{Block, BlockId, Depth, Scan},
};

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All that can be durable is.
    Clean,
    /// The same, but a block is being copied in; look again soon.
    Arriving(Duration),
    /// The data of a block is in the bucket, and its commit waits; try again then.
    Waiting(Duration),
    /// Blocks wait for external labels; nothing but news of Prometheus helps.
    Unlabelled,
    /// Something must be tried again.
    Failed,
}

/// Why a pass has not shipped all that is due.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// There are no external labels; why. That they are not known yet is normal at a start.
    Unlabelled { why: &'static str, known: bool },
    /// Commits wait at the gate until then.
    AtGate(Instant),
    /// Something failed.
    Failed(Failure),
}

/// What has worked in the bucket in a pass.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// A block was found or made durable.
    shipped: bool,
    /// The sources of compacted blocks were looked up.
    sources: bool,
}

impl Shipper {
    /// One pass. Its failures are logged and counted here.
    pub(super) async fn pass(&mut self) -> Outcome {
        self.watcher.ensure();
        self.record_hints(None);
        self.has_news = false;
        let mut scan = match self.scan().await {
            Ok(scan) => scan,
            Err(error) => {
                self.metrics.dir_sync_failures.inc();
                self.save_ledger();
                self.lose_sight_of_blocks();
                let dir = self.settings.dir.display().to_string();
                self.log_failure(Failure::of_scan(format!(
                    "cannot read the data directory {dir}: {error}; is --tsdb.path right, mounted and readable?"
                )));
                return Outcome::Failed;
            }
        };
        self.sealed_since = false;
        // After the scan, so that a block sealed meanwhile is not taken for one that was copied in.
        self.record_hints(None);
        self.wait_for_removal_hints(&scan).await;
        self.hold_blocks(&mut scan).await;
        self.check_ledger(&scan).await;
        self.keep_labels(&scan);
        self.measure_disk(&scan).await;
        let decisions = self.decide(&scan);
        let view = View {
            decisions: &decisions,
            scan: &scan,
        };
        self.update_durability_metrics(view);
        let durable: HashSet<BlockId> = self.ledger.listed().collect();
        let sources = self.sources_looked_up_at;
        let result = self.ship_due(view).await;
        self.save_ledger();
        // Not before: nothing is shipped later for it.
        self.measure_blocks(&scan).await;
        let shown = Shown {
            shipped: self.ledger.listed().any(|id| !durable.contains(&id)),
            sources: self.sources_looked_up_at != sources,
        };
        self.finish_pass(&scan, result, shown)
    }

    fn finish_pass(&mut self, scan: &Scan, result: Result<(), Unfinished>, shown: Shown) -> Outcome {
        let decisions = self.decide(scan);
        self.record_pending(View {
            decisions: &decisions,
            scan,
        });
        self.report_gate();
        let opens = match result {
            Ok(()) => {
                let unproven = decisions.iter().any(|decision| self.is_unproven(decision));
                if !self.quarantine.has_bucket_problem() && !unproven {
                    self.lineage.forget();
                }
                None
            }
            Err(Unfinished::AtGate(opens)) => Some(opens),
            Err(Unfinished::Unlabelled { why, known }) => {
                self.log_waiting(why, known);
                return Outcome::Unlabelled;
            }
            Err(Unfinished::Failed(trouble)) => {
                self.metrics.dir_sync_failures.inc();
                self.log_failure(trouble);
                return Outcome::Failed;
            }
        };
        self.metrics.dir_syncs.inc();
        self.metrics
            .upload_compacted_done
            .set(i64::from(self.settings.policy.upload_compacted));
        let nothing_open = !decisions
            .iter()
            .any(|decision| matches!(decision.verdict, Verdict::Ship | Verdict::Wait(_)));
        self.log_recovery(shown.shipped || nothing_open && shown.sources, nothing_open);
        match (opens, self.quarantine.any_arriving()) {
            (Some(opens), arriving) => {
                let wait = opens.saturating_duration_since(Instant::now());
                Outcome::Waiting(if arriving {
                    wait.min(quarantine::RECHECK_ARRIVING)
                } else {
                    wait
                })
            }
            (None, true) => Outcome::Arriving(quarantine::RECHECK_ARRIVING),
            (None, false) => Outcome::Clean,
        }
    }

    pub(super) async fn scan(&mut self) -> Result<Scan, String> {
        let mut scanner = std::mem::take(&mut self.scanner);
        let began_ms = super::ledger::now_ms();
        let dir = self.settings.dir.clone();
        let scanned = blocking(move || {
            let scan = scanner.scan(&dir);
            (scanner, scan)
        });
        let (scanner, scan) = scanned.await.map_err(|error| error.to_string())?;
        self.scanner = scanner;
        let scan = scan.map_err(|error| error.to_string())?;
        self.scan_began_ms = began_ms;
        let corrupt = scan.corrupt.iter().map(|corrupt| corrupt.id);
        self.scanned = scan.blocks.iter().map(|block| block.id).chain(corrupt).collect();
        Ok(scan)
    }

    /// What becomes of each block that was scanned; forgets what is kept of others.
    pub(super) fn decide(&mut self, scan: &Scan) -> Vec<Decision> {
        // A block that cannot be read at the moment is not less durable, nor is one that is being deleted.
        let corrupt = scan.corrupt.iter();
        let corrupt = corrupt.filter(|corrupt| corrupt.is_block() || self.ledger.contains(corrupt.id));
        let corrupt = corrupt.map(|corrupt| LocalBlock {
            id: corrupt.id,
            meta: None,
        });
        let local: Vec<LocalBlock<'_>> = scan.blocks.iter().map(LocalBlock::from).chain(corrupt).collect();
        let present: HashSet<BlockId> = (scan.blocks.iter().map(|block| block.id))
            .chain(scan.corrupt.iter().map(|corrupt| corrupt.id))
            .collect();
        self.report_removed_blocks(scan, &present);
        self.events.record_durable(self.ledger.listed());
        self.ledger.retain(local);
        self.events.retain(|id| present.contains(&id));
        let arriving: HashSet<BlockId> = scan
            .corrupt
            .iter()
            .map(|corrupt| corrupt.id)
            .filter(|id| {
                let dir = self.settings.dir.join(id.to_string());
                self.quiet_periods
                    .observe(*id, &dir)
                    .is_ok_and(|quiet| quiet.lasted < QUIET)
            })
            .collect();
        let broken = self
            .quarantine
            .record_corrupt(&scan.corrupt, |id| arriving.contains(&id));
        self.metrics.corrupted_blocks.inc_by(broken);
        let policy = &self.settings.policy;
        // An entry of the quarantine, and whatever else is kept of a block, lasts as long as the block is to be shipped, or cannot be read.
        let wanted = scan
            .blocks
            .iter()
            .filter(|block| plan::is_wanted(block, &self.ledger, policy));
        let open: HashSet<BlockId> = wanted
            .map(|block| block.id)
            .chain(scan.corrupt.iter().map(|corrupt| corrupt.id))
            .collect();
        self.quarantine.retain(|id| open.contains(&id));
        self.uploader.retain(|id| open.contains(&id));
        self.quiet_periods.retain(|id| open.contains(&id));
        self.at_gate.retain(|id, _| open.contains(id));
        self.durability.proven.retain(|id| present.contains(id));
        self.seen.retain(|id| present.contains(id));
        let facts = Facts {
            waiting: self.quarantine.waiting(),
        };
        let decisions = plan::plan(&scan.blocks, &self.ledger, &facts, policy);
        // Of level 1 only: Prometheus does not ask for others.
        let skipped = decisions
            .iter()
            .filter(|decision| decision.verdict == Verdict::Skip(Skip::Empty) && decision.block.meta.level <= 1);
        self.ledger.list_skipped(skipped.map(|decision| decision.block.id));
        decisions
    }

    async fn ship_due(&mut self, view: View<'_>) -> Result<(), Unfinished> {
        let due: Vec<Block> = view
            .decisions
            .iter()
            .filter(|decision| decision.verdict == Verdict::Ship)
            .map(|decision| decision.block.clone())
            .collect();
        if due.is_empty() {
            // No local block is in doubt, so there is nothing that the ledger of Thanos would add.
            self.ledger.confirm();
            if !self.is_time_to_look_up_sources(view) {
                return Ok(());
            }
        }
        self.prometheus.mark_unchanged();
        let Some(labels) = self.labels() else {
            return Err(Unfinished::Unlabelled {
                why: "the external labels are not known yet: Prometheus has not answered; blocks wait for them",
                known: false,
            });
        };
        if labels.is_empty() {
            return Err(Unfinished::Unlabelled {
                why: "there are no external labels, and a block without labels cannot be committed: set global.external_labels in the configuration of Prometheus, or --label",
                known: true,
            });
        }
        let (due, unsent) = self.check_quiet(due, view);
        let due = self.recheck_quarantined(due).await;
        let due = self
            .look_up_in_bucket(due, &labels)
            .await
            .map_err(|error| Unfinished::Failed(error.into()))?;
        let opens = self
            .upload_and_commit(due, view, unsent)
            .await
            .map_err(Unfinished::Failed)?;
        self.look_up_sources(view, &labels)
            .await
            .map_err(|error| Unfinished::Failed(error.into()))?;
        opens.map_or(Ok(()), |opens| Err(Unfinished::AtGate(opens)))
    }

    /// Finds out how long the blocks have been left alone; leaves out those that Prometheus may delete at once, and says until
    /// when.
    fn check_quiet(&mut self, due: Vec<Block>, view: View<'_>) -> (Vec<DueBlock>, Option<Instant>) {
        let (mut sent, mut unsent) = (Vec::new(), None);
        let depth = match self.prometheus.borrow().newer_encodings {
            true => Depth::All,
            false => Depth::Sample,
        };
        let ordered = !self.settings.policy.allow_out_of_order;
        for block in due {
            if let Some(until) = self.unsent_until(block.id).max(self.jitter_until(block.id)) {
                unsent = Some(unsent.map_or(until, |earlier: Instant| earlier.min(until)));
                if ordered {
                    // Those behind it would only wait for it, with their files open.
                    break;
                }
                continue;
            }
            // One that cannot be read is reported when it is opened.
            let quiet = self.quiet_periods.observe(block.id, &block.dir).ok();
            let found_young =
                quiet.is_some_and(|quiet| quiet.lasted < MAY_BE_WITHDRAWN) && made_within(block.id, YOUNG);
            sent.push(DueBlock {
                quiet,
                was_young: self.events.is_young(block.id) || found_young,
                request: UploadRequest {
                    overlapped: few(content::overlapped_by(&block, &view.scan.blocks).iter()),
                    depth,
                    held: self.held.files(block.id),
                    ..UploadRequest::new(block)
                },
            });
        }
        (sent, unsent)
    }

    /// Leaves out the blocks that were set aside and still are broken: they must not cost a request to the bucket each time, nor
    /// a read of what has not changed.
    async fn recheck_quarantined(&mut self, due: Vec<DueBlock>) -> Vec<DueBlock> {
        let mut whole = Vec::new();
        for due in due {
            let id = due.request.block.id;
            if self.quarantine.is_as_before(id, due.quiet.map(|quiet| quiet.signature)) {
                continue;
            }
            let broken = match self.quarantine.has(id) {
                true => self.uploader.find_broken(&due.request).await,
                false => Ok(None),
            };
            match broken {
                Ok(None) => whole.push(due),
                Ok(Some(broken)) => self.set_aside_broken(&due, broken),
                Err(panic) => self.set_aside(&due.request.block, Problem::new("panic", panic.to_string()), false),
            }
        }
        whole
    }

    /// Whether the block was seen to be sealed by Prometheus and was not committed since: nobody else can have
    /// shipped it, or merged it.
    pub(super) fn is_new(&self, block: &Block) -> bool {
        let seal = self.events.seal(block.id);
        let young = seal.is_some_and(|seal| seal.at.duration_since(made(block.id)).is_ok_and(|age| age < YOUNG));
        young && block.meta.level <= 1 && !self.uploader.is_unsettled(block.id) && !self.events.was_durable(block.id)
    }

    /// Keeps under which labels blocks were sealed that are seen for the first time: a later change does not concern them.
    fn keep_labels(&mut self, scan: &Scan) {
        let Some(labels) = self.labels().filter(|labels| !labels.is_empty()) else {
            return;
        };
        let blocks = scan.blocks.iter();
        let wanted = blocks.filter(|block| plan::is_wanted(block, &self.ledger, &self.settings.policy));
        let wanted: Vec<BlockId> = wanted.map(|block| block.id).collect();
        if self.ledger.keep_labels(wanted, &labels) {
            self.save_ledger();
        }
    }

    /// The labels under which a block was sealed, as far as that is known; else these.
    pub(super) fn labels_of(&self, id: BlockId, now: &Labels) -> Labels {
        self.ledger.sealed_under(id).unwrap_or(now).clone()
    }

    /// The current external labels; those of the last commit for blocks found while Prometheus, which has not answered yet,
    /// cannot be asked: it stopped, or replays its WAL.
    pub(super) fn labels(&self) -> Option<Labels> {
        // Cloned, not held: a second borrow while somebody waits to write would wait for ever.
        let prometheus = self.prometheus.borrow().clone();
        let old = self.ledger.labels();
        let usable = !old.is_empty() && prometheus.liveness != Liveness::Up;
        prometheus.labels.or_else(|| usable.then(|| old.clone()))
    }
}
