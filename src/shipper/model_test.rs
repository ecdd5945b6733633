//! The shipper against a model of it: random histories of blocks, faults, deaths and answers of Prometheus, and after each step
//! what must hold whatever happened before.

mod bucket;
mod check;
mod labels;
mod planner;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use proptest::{prelude::*, sample::Index};
use tokio::time::{Instant, sleep, timeout};

use self::{
    planner::Planner,
    steps::{Step, histories},
};
use super::{
    Shipper,
    gate::SETTLE,
    testing::{Made, World, name},
};
use crate::{
    model::Labels,
    objstore::{Bucket, Op},
};

/// What has not ended by then never does.
const NEVER: Duration = Duration::from_secs(3600);

/// All files below a directory and what they hold.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs_err::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs_err::read(path).unwrap());
            }
        }
    }
    files
}

/// Something that befalls a block while a pass runs.
type Happening = fn(&mut Model, Index);

/// What must be true, kept beside the shipper.
struct Model {
    world: World,
    /// Taken while a pass runs.
    shipper: Option<Shipper>,
    made: u32,
    /// The files of the local blocks.
    local: BTreeMap<String, Vec<u8>>,
    /// The local blocks of level 1, and when each begins.
    begins: BTreeMap<String, i64>,
    /// The local blocks without samples.
    empty: BTreeSet<String>,
    /// All blocks without samples that ever were.
    ever_empty: BTreeSet<String>,
    planner: Planner,
    /// The range of every block that ever was.
    ranges: BTreeMap<String, (i64, i64)>,
    /// When blocks were sealed, of those that were not copied in.
    sealed: BTreeMap<String, Instant>,
    /// Local blocks that Prometheus compacted, and of what.
    compacted: BTreeMap<String, Vec<String>>,
    /// What local blocks held when they were committed, or last.
    truth: BTreeMap<String, Vec<u8>>,
    /// The objects of committed blocks and of others: not ours to change.
    settled: BTreeMap<String, Vec<u8>>,
    committed: BTreeSet<String>,
    /// Blocks that the compactor merged, and under which label.
    merged: BTreeMap<String, String>,
    /// The labels that were in force at some time.
    labels: BTreeSet<String>,
    /// The labels under which a pass has first seen a block that is not durable; `None` if nobody can tell.
    sealed_under: BTreeMap<String, Option<Labels>>,
    /// Blocks that must not become visible, nor be listed by a ledger that has to ask: withdrawn, or marked for deletion.
    barred: BTreeSet<String>,
    /// Committed blocks that somebody marked for deletion.
    marked: BTreeSet<String>,
    /// What Thanos said is durable, and a ledger must not say less.
    by_thanos: BTreeSet<String>,
    /// What the bucket says could not be read at some time, so that nothing was proven by it.
    unread: bool,
    /// How many blocks retention and compaction removed.
    removed: u64,
}

impl Model {
    async fn new() -> Self {
        let world = World::new().await;
        Self {
            shipper: Some(world.shipper()),
            world,
            made: 0,
            local: BTreeMap::new(),
            begins: BTreeMap::new(),
            empty: BTreeSet::new(),
            ever_empty: BTreeSet::new(),
            planner: Planner::default(),
            ranges: BTreeMap::new(),
            sealed: BTreeMap::new(),
            compacted: BTreeMap::new(),
            truth: BTreeMap::new(),
            settled: BTreeMap::new(),
            committed: BTreeSet::new(),
            merged: BTreeMap::new(),
            labels: BTreeSet::from(["a".to_owned()]),
            sealed_under: BTreeMap::new(),
            barred: BTreeSet::new(),
            marked: BTreeSet::new(),
            by_thanos: BTreeSet::new(),
            unread: false,
            removed: 0,
        }
    }

    fn next_name(&mut self) -> String {
        self.made += 1;
        name(self.made)
    }

    async fn apply(&mut self, step: &Step) {
        match step {
            Step::Seal(begin) => self.seal(*begin),
            Step::CopyIn(begin) => self.copy_in(*begin),
            Step::Retention(which) => self.retention(*which),
            Step::Withdraw(which) => self.withdraw(*which),
            Step::Compact(while_down) => self.compact(*while_down),
            Step::SealEmpty => self.seal_empty(),
            Step::Plan => self.plan(),
            Step::PowerLoss(which) => self.power_loss(*which),
            Step::Fault(kind, calls, fault) => {
                let (op, key) = kind.call();
                self.unread |= matches!(op, Op::Get | Op::Iter);
                self.world.bucket.on(op, key, 1..=u32::from(*calls), *fault);
            }
            Step::Heal => self.world.bucket.heal(),
            Step::Pass => self.pass(u32::MAX, None).await,
            Step::PassAndRetention(polls, which) => {
                self.pass(u32::from(*polls), Some((Self::retention, *which))).await;
            }
            Step::PassAndWithdraw(polls, which) => {
                self.pass(u32::from(*polls), Some((Self::withdraw, *which))).await;
            }
            Step::PassAndPlan(polls, which) => {
                let plan: Happening = |model, _| model.plan();
                self.pass(u32::from(*polls), Some((plan, *which))).await;
            }
            Step::Die(polls) => self.pass(u32::from(*polls), None).await,
            Step::Labels(labels, liveness) => {
                self.labels.extend(labels.map(str::to_owned));
                self.world.prometheus.send_modify(|prometheus| {
                    prometheus.labels = labels.map(|value| match value {
                        "" => Labels::default(),
                        value => Labels::from_pairs([("replica", value)]),
                    });
                    prometheus.liveness = *liveness;
                });
            }
            Step::LedgerGone => {
                self.by_thanos.clear();
                self.forget_labels();
                self.planner.ledger_gone = true;
                let _ = fs_err::remove_file(self.ledger());
            }
            Step::LedgerTorn(part) => {
                let bytes = fs_err::read(self.ledger()).unwrap_or_default();
                self.new_life_with_ledger(&bytes[..bytes.len() * usize::from(*part) / 100]);
            }
            Step::ThanosLedger => self.thanos_ledger(),
            Step::Merge => self.merge(),
            Step::Mark(which) => self.mark(*which),
            Step::Foreign(foreign) => self.foreign(*foreign),
            Step::Clear(which) => self.clear(*which),
            Step::Wait(seconds) => sleep(Duration::from_secs(u64::from(*seconds))).await,
        }
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.world.data.path().join("thanos.shipper.json")
    }

    /// A new run finds these bytes in the place of the ledger.
    fn new_life_with_ledger(&mut self, bytes: &[u8]) {
        fs_err::write(self.ledger(), bytes).unwrap();
        self.by_thanos.clear();
        self.forget_labels();
        if serde_json::from_slice::<serde_json::Value>(bytes).is_err() {
            // It has to ask, and what is marked is not durable.
            self.barred.extend(self.marked.iter().cloned());
        }
        self.shipper = Some(self.world.shipper());
    }

    fn thanos_ledger(&mut self) {
        let durable = |block: &&String| self.committed.contains(*block) || self.merged.contains_key(*block);
        let listed: BTreeSet<String> = self.begins.keys().filter(durable).cloned().collect();
        let text = serde_json::json!({"version": 1, "uploaded": listed}).to_string();
        self.new_life_with_ledger(text.as_bytes());
        // It has to ask, and what is marked is not durable.
        self.barred.extend(self.marked.iter().cloned());
        self.by_thanos = listed;
    }

    fn made(&mut self, begin: u8) -> Made {
        let mut made = Made::new(&self.next_name(), i64::from(begin));
        made.shape.series += self.made % 7;
        made
    }

    fn seal(&mut self, begin: u8) {
        let made = self.made(begin);
        self.world.seal(self.shipper.as_mut().unwrap(), &made);
        self.sealed.insert(made.name.clone(), Instant::now());
        self.begins.insert(made.name.clone(), made.range.0);
        self.record_files(&made);
    }

    fn copy_in(&mut self, begin: u8) {
        let made = self.made(begin);
        self.world.copy_in(&made);
        self.begins.insert(made.name.clone(), made.range.0);
        self.record_files(&made);
    }

    fn record_files(&mut self, made: &Made) {
        self.ranges.insert(made.name.clone(), made.range);
        for (file, bytes) in tree(&self.world.data.path().join(&made.name)) {
            let file = format!("{}/{file}", made.name);
            self.truth.insert(file.clone(), bytes.clone());
            self.local.insert(file, bytes);
        }
    }

    fn forget_local(&mut self, block: &str) {
        self.begins.remove(block);
        self.empty.remove(block);
        self.local.retain(|file, _| !file.starts_with(block));
    }

    fn choose(&self, which: Index, among: impl Fn(&str) -> bool) -> Option<String> {
        let blocks: Vec<&String> = self.begins.keys().filter(|block| among(block)).collect();
        (!blocks.is_empty()).then(|| (*which.get(&blocks)).clone())
    }

    /// Prometheus removes a block that it needs no more.
    fn retire(&mut self, block: &str) {
        match self.shipper.as_mut() {
            Some(shipper) => self.world.retire(shipper, block),
            None => self.world.retire_unseen(block),
        }
        self.removed += 1;
        self.forget_local(block);
    }

    fn retention(&mut self, which: Index) {
        if let Some(block) = self.choose(which, |_| true) {
            self.retire(&block);
        }
    }

    /// Prometheus withdraws a block that it has sealed a moment ago.
    fn withdraw(&mut self, which: Index) {
        let young = |block: &str| self.sealed.get(block).is_some_and(|at| at.elapsed() < SETTLE);
        let visible = |block: &str| self.world.object(&format!("{block}/meta.json")).is_some();
        let open = |block: &str| !visible(block) && !self.merged.contains_key(block);
        let Some(block) = self.choose(which, |block| young(block) && open(block)) else {
            return;
        };
        match self.shipper.as_mut() {
            Some(shipper) => self.world.withdraw(shipper, &block),
            None => self.world.withdraw_unseen(&block),
        }
        self.forget_local(&block);
        self.barred.insert(block);
    }

    /// Prometheus compacts all blocks; it need not have waited for them to be durable.
    fn compact(&mut self, while_down: bool) {
        let sources: Vec<String> = self.begins.keys().cloned().collect();
        if !sources.is_empty() {
            self.compact_blocks(sources);
        }
        if while_down {
            self.new_life();
        }
    }

    /// Prometheus compacts these blocks.
    fn compact_blocks(&mut self, blocks: Vec<String>) {
        let (empty, sources): (Vec<String>, Vec<String>) =
            blocks.into_iter().partition(|block| self.empty.contains(block));
        let mut made = self.made(0);
        let begins = sources.iter().map(|source| self.ranges[source].0);
        let ends = sources.iter().map(|source| self.ranges[source].1);
        made.range = (begins.min().unwrap(), ends.max().unwrap());
        (made.level, made.sources) = (2, sources.clone());
        match self.shipper.as_mut() {
            Some(shipper) => self.world.seal(shipper, &made),
            None => self.world.seal_unseen(&made),
        };
        self.record_files(&made);
        self.compacted.insert(made.name, sources.clone());
        for block in sources.iter().chain(&empty) {
            self.retire(block);
        }
    }

    /// The ledger is lost, and a segment has the tail of a file that was made larger beforehand.
    fn power_loss(&mut self, which: Index) {
        if let Some(block) = self.choose(which, |_| true) {
            let file = format!("{block}/chunks/000001");
            let path = self.world.data.path().join(&file);
            let mut bytes = fs_err::read(&path).unwrap();
            bytes.extend([0; 100]);
            fs_err::write(&path, &bytes).unwrap();
            if !self.committed.contains(&block) {
                self.truth.insert(file.clone(), bytes.clone());
            }
            self.local.insert(file, bytes);
        }
        self.new_life_with_ledger(b"");
    }

    /// One pass. After so many polls something happens to a block, or else the process dies, as it does when a call never
    /// returns.
    async fn pass(&mut self, polls: u32, then: Option<(Happening, Index)>) {
        let open = self.open();
        let begun = self.world.bucket.calls().len();
        let mut shipper = self.shipper.take().unwrap();
        let mut aside: BTreeSet<String> = shipper.aside();
        let done = {
            let mut pass = std::pin::pin!(shipper.pass());
            let early = timeout(NEVER, some_polls(pass.as_mut(), polls)).await;
            match (early, then) {
                (Ok(false), Some((happens, which))) => {
                    happens(self, which);
                    timeout(NEVER, pass).await.is_ok()
                }
                (early, _) => early.unwrap_or(false),
            }
        };
        aside.extend(shipper.aside());
        self.shipper = Some(shipper);
        if !done {
            self.new_life();
        }
        // What a pass that ended early has left on its way arrives, or not, before anybody looks.
        self.world.bucket.settle().await;
        self.check_order(&open, begun, &aside);
        self.saw(&self.open(), done);
        self.planner.ledger_gone = false;
        if done {
            self.check_durable_until();
        }
    }

    /// The local blocks that are not durable, in the order in which they must become so.
    fn open(&self) -> Vec<String> {
        let durable = |block: &String| self.committed.contains(block) || self.merged.contains_key(block);
        let mut open: Vec<String> = self.begins.keys().filter(|block| !durable(block)).cloned().collect();
        open.sort_by_key(|block| (self.begins[block], block.clone()));
        open
    }

    /// When nothing is in the way any more, all becomes durable.
    async fn end(&mut self) {
        self.world.bucket.heal();
        self.world.label("end");
        self.labels.insert("end".to_owned());
        let mut rounds = 0;
        while rounds < 3 || !self.open().is_empty() || !self.counts_what_is_lost() {
            rounds += 1;
            assert!(
                rounds < 30,
                "not durable: {:?}",
                self.shipper.as_ref().map(|shipper| &shipper.pending)
            );
            self.pass(u32::MAX, None).await;
            self.check(&Step::Pass);
            sleep(Duration::from_secs(61)).await;
        }
        let mut listed: BTreeSet<String> = self.world.listed().into_iter().collect();
        assert!(
            self.empty.is_subset(&listed),
            "Prometheus would wait for {:?}",
            self.empty
        );
        listed.retain(|block| !self.empty.contains(block));
        let due: BTreeSet<String> = self
            .begins
            .keys()
            .filter(|block| !self.barred.contains(*block))
            .cloned()
            .collect();
        assert!(listed.is_subset(&due), "{listed:?} of {due:?}");
        // A ledger that lost its newest block to the compactor asks for all of them.
        let missing: Vec<&String> = due
            .difference(&listed)
            .filter(|block| !self.marked.contains(*block))
            .collect();
        assert_eq!(missing, Vec::<&String>::new());
    }

    /// Whether the metric counts just what is nowhere but in local blocks.
    fn counts_what_is_lost(&self) -> bool {
        let durable = |block: &String| self.committed.contains(block) || self.merged.contains_key(block);
        let lost = self
            .compacted
            .values()
            .filter(|sources| !sources.iter().all(durable))
            .count();
        let barred = self.begins.keys().filter(|block| self.barred.contains(*block)).count();
        let counted = self.world.metrics.unuploaded.get();
        // A ledger that has to ask finds what was merged under the labels of then, which are no longer those of now.
        let asks = !self.marked.is_empty() || !self.merged.is_empty();
        asks || counted == (lost + barred) as i64
    }
}

/// Polls `work` at most so many times; whether it is done.
async fn some_polls<T>(mut work: Pin<&mut impl Future<Output = T>>, polls: u32) -> bool {
    let mut left = polls;
    std::future::poll_fn(|cx| match left.checked_sub(1) {
        None => Poll::Ready(false),
        Some(less) => {
            left = less;
            work.as_mut().poll(cx).map(|_| true)
        }
    })
    .await
}

fn run_history(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut model = Model::new().await;
        for step in steps {
            model.apply(step).await;
            model.check(step);
        }
        model.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose how many histories, and which.
    #[test]
    fn whatever_happens_the_promises_hold(history in histories()) {
        run_history(&history.0);
    }
}
