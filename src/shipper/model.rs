//! The shipper against a model of it: random histories of blocks, faults, deaths and neighbours, and after each step
//! what must hold whatever happened before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use proptest::{prelude::*, sample::Index};
use tokio::time::{sleep, timeout};

use super::{
    Neighbour, Shipper,
    testing::{Made, World, name},
};
use crate::{
    model::Labels,
    objstore::{Bucket, ErrorKind, Op, layers::Fault},
};

/// What has not ended by then never does.
const NEVER: Duration = Duration::from_secs(3600);

/// One step of a history. Indices choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    /// Prometheus seals a block that begins at this time.
    Seal(u8),
    /// Somebody copies a block in that begins at this time.
    CopyIn(u8),
    /// Retention deletes a local block.
    Retention(Index),
    /// The next calls of this kind go wrong.
    Fault(Kind, u8, Fault),
    Heal,
    Pass,
    /// Retention deletes a block after so many polls of a pass.
    PassAndRetention(u8, Index),
    /// A pass begins and dies after so many polls; then a new life begins.
    Die(u8),
    /// Prometheus says so, from now on.
    Labels(Option<&'static str>, Neighbour),
    LedgerGone,
    /// The ledger keeps so many hundredths of its bytes; then a new life begins.
    LedgerTorn(u8),
    /// The compactor merges all blocks in the bucket, and deletes what it merged.
    Merge,
    /// Somebody clears an object of a half-uploaded block away.
    Clear(Index),
    Wait(u8),
}

/// Steps, shown one a line.
#[derive(Clone)]
struct History(Vec<Step>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|step| write!(f, "\n    {}", format_args!("{step:?}")))
    }
}

/// What a fault strikes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Chunks,
    Index,
    Meta,
    Read,
    List,
    Abort,
}

impl Kind {
    fn call(self) -> (Op, &'static str) {
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

fn histories() -> impl Strategy<Value = History> {
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
    let neighbour = prop::sample::select(vec![Neighbour::Up, Neighbour::Stopping, Neighbour::Gone]);
    let step = prop_oneof![
        8 => (0..30_u8).prop_map(Step::Seal),
        3 => (0..30_u8).prop_map(Step::CopyIn),
        2 => any::<Index>().prop_map(Step::Retention),
        6 => (kind, 1..6_u8, fault).prop_map(|(kind, calls, fault)| Step::Fault(kind, calls, fault)),
        2 => Just(Step::Heal),
        9 => Just(Step::Pass),
        3 => (1..60_u8, any::<Index>()).prop_map(|(polls, which)| Step::PassAndRetention(polls, which)),
        4 => (1..60_u8).prop_map(Step::Die),
        2 => (labels, neighbour).prop_map(|(labels, neighbour)| Step::Labels(labels, neighbour)),
        1 => Just(Step::LedgerGone),
        1 => (0..100_u8).prop_map(Step::LedgerTorn),
        2 => Just(Step::Merge),
        2 => any::<Index>().prop_map(Step::Clear),
        2 => (1..90_u8).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..30).prop_map(History)
}

/// The labels of a replica; what a compactor merges of several has those of the cluster.
fn labels_of(replica: &str) -> Labels {
    Labels::from_pairs([("cluster", "eu"), ("replica", replica)])
}

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

/// What must be true, kept beside the shipper.
struct Model {
    world: World,
    /// Taken while a pass runs.
    shipper: Option<Shipper>,
    made: u32,
    /// The files of the local blocks, and when each begins.
    local: BTreeMap<String, Vec<u8>>,
    begins: BTreeMap<String, i64>,
    /// All that local blocks ever held.
    truth: BTreeMap<String, Vec<u8>>,
    /// The objects of committed blocks and of others: not ours to change.
    settled: BTreeMap<String, Vec<u8>>,
    committed: BTreeSet<String>,
    merged: BTreeSet<String>,
}

impl Model {
    async fn new() -> Self {
        let world = World::new().await;
        world.origin.send_modify(|origin| origin.labels = Some(labels_of("a")));
        Self {
            shipper: Some(world.shipper()),
            world,
            made: 0,
            local: BTreeMap::new(),
            begins: BTreeMap::new(),
            truth: BTreeMap::new(),
            settled: BTreeMap::new(),
            committed: BTreeSet::new(),
            merged: BTreeSet::new(),
        }
    }

    fn next_name(&mut self) -> String {
        self.made += 1;
        name(self.made)
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Seal(begin) | Step::CopyIn(begin) => {
                let mut made = Made::new(&self.next_name(), i64::from(*begin));
                made.shape.series += self.made % 7;
                match step {
                    Step::Seal(_) => self.world.seal(self.shipper.as_mut().unwrap(), &made),
                    _ => self.world.copy_in(&made),
                };
                self.begins.insert(made.name.clone(), made.range.0);
                for (file, bytes) in tree(&self.world.data.path().join(&made.name)) {
                    let file = format!("{}/{file}", made.name);
                    self.truth.insert(file.clone(), bytes.clone());
                    self.local.insert(file, bytes);
                }
            }
            Step::Retention(which) => self.delete(*which),
            Step::Fault(kind, calls, fault) => {
                let (op, key) = kind.call();
                self.world.bucket.on(op, key, 1..=u32::from(*calls), *fault);
            }
            Step::Heal => self.world.bucket.heal(),
            Step::Pass => self.pass(u32::MAX, None).await,
            Step::PassAndRetention(polls, which) => self.pass(u32::from(*polls), Some(*which)).await,
            Step::Die(polls) => self.pass(u32::from(*polls), None).await,
            Step::Labels(labels, neighbour) => self.world.origin.send_modify(|origin| {
                origin.labels = labels.map(|value| match value {
                    "" => Labels::default(),
                    value => labels_of(value),
                });
                origin.neighbour = *neighbour;
            }),
            Step::LedgerGone => {
                let _ = fs_err::remove_file(self.ledger());
            }
            Step::LedgerTorn(part) => {
                let bytes = fs_err::read(self.ledger()).unwrap_or_default();
                fs_err::write(self.ledger(), &bytes[..bytes.len() * usize::from(*part) / 100]).unwrap();
                self.shipper = Some(self.world.shipper());
            }
            Step::Merge => self.merge(),
            Step::Clear(which) => self.clear(*which),
            Step::Wait(seconds) => sleep(Duration::from_secs(u64::from(*seconds))).await,
        }
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.world.data.path().join("thanos.shipper.json")
    }

    fn merge(&mut self) {
        if self.committed.is_empty() {
            return;
        }
        let merged = self.next_name();
        let sources: Vec<&str> = self.committed.iter().map(String::as_str).collect();
        // As a compactor leaves it that merges replicas.
        let labels = serde_json::json!({"cluster": "eu"});
        self.world.put_merged(&merged, (0, 1000), &sources, labels);
        let store = self.world.store.path();
        for block in std::mem::take(&mut self.committed) {
            fs_err::remove_dir_all(store.join(&block)).unwrap();
            self.settled.retain(|key, _| !key.starts_with(&block));
            self.merged.insert(block);
        }
        let objects = tree(&store.join(&merged));
        self.settled.extend(
            objects
                .into_iter()
                .map(|(file, bytes)| (format!("{merged}/{file}"), bytes)),
        );
    }

    fn clear(&self, which: Index) {
        let half: Vec<String> = tree(self.world.store.path())
            .into_keys()
            .filter(|key| !self.settled.contains_key(key))
            .collect();
        if !half.is_empty() {
            fs_err::remove_file(self.world.store.path().join(which.get(&half))).unwrap();
        }
    }

    fn delete(&mut self, which: Index) {
        if self.begins.is_empty() {
            return;
        }
        let block = which.get(&self.begins.keys().cloned().collect::<Vec<_>>()).clone();
        fs_err::remove_dir_all(self.world.data.path().join(&block)).unwrap();
        self.begins.remove(&block);
        self.local.retain(|file, _| !file.starts_with(&block));
    }

    /// One pass. After so many polls retention deletes a block, or else the process dies, as it does when a call never
    /// returns.
    async fn pass(&mut self, polls: u32, delete: Option<Index>) {
        let open = self.open();
        let begun = self.world.bucket.calls().len();
        let mut shipper = self.shipper.take().unwrap();
        let done = {
            let mut pass = std::pin::pin!(shipper.pass());
            let early = timeout(NEVER, some_polls(pass.as_mut(), polls)).await;
            match (early, delete) {
                (Ok(false), Some(which)) => {
                    self.delete(which);
                    timeout(NEVER, pass).await.is_ok()
                }
                (early, _) => early.unwrap_or(false),
            }
        };
        if !done {
            shipper = self.world.shipper();
        }
        // What a pass that ended early has left on its way arrives, or not, before anybody looks.
        self.world.bucket.settle().await;
        self.shipper = Some(shipper);
        self.check_order(open, begun);
    }

    /// The local blocks that are not durable, in the order in which they must become so.
    fn open(&self) -> Vec<String> {
        let durable = |block: &String| self.committed.contains(block) || self.merged.contains(block);
        let mut open: Vec<String> = self.begins.keys().filter(|block| !durable(block)).cloned().collect();
        open.sort_by_key(|block| (self.begins[block], block.clone()));
        open
    }

    /// What became visible in a pass are the first of those that were open, tried in their order, under the labels of
    /// now.
    fn check_order(&mut self, mut open: Vec<String>, begun: usize) {
        let store = tree(self.world.store.path());
        let calls = self.world.bucket.calls();
        let tried: Vec<&str> = calls[begun..]
            .iter()
            .filter(|(op, _)| *op == Op::Upload)
            .filter_map(|(_, key)| key.strip_suffix("/meta.json"))
            .collect();
        // A block that was deleted meanwhile holds nobody.
        open.retain(|block| self.begins.contains_key(block) || tried.contains(&block.as_str()));
        let whole = |block: &&String| {
            let meta = store.get(&format!("{block}/meta.json"));
            meta.is_some_and(|meta| serde_json::from_slice::<serde_json::Value>(meta).is_ok())
        };
        let visible: Vec<&String> = open.iter().filter(whole).collect();
        assert_eq!(
            visible,
            open.iter().take(visible.len()).collect::<Vec<_>>(),
            "of {open:?}"
        );
        let due: Vec<&str> = open.iter().map(String::as_str).take(tried.len()).collect();
        assert_eq!(tried, due, "commits of a pass");
        let labels = self.world.origin.borrow().labels.clone();
        for block in visible {
            let stamped = self.world.stamped(block).unwrap();
            let stamped: BTreeMap<String, String> = serde_json::from_value(stamped).unwrap();
            assert!(!stamped.is_empty(), "no labels on {block}");
            if let Some(labels) = &labels {
                assert_eq!(&Labels::from_pairs(stamped), labels, "labels of {block}");
            }
            let files = store.iter().filter(|(key, _)| key.starts_with(block.as_str()));
            self.settled
                .extend(files.map(|(key, bytes)| (key.clone(), bytes.clone())));
            self.committed.insert(block.clone());
        }
    }

    fn check(&self, step: &Step) {
        // P3: neither side has changed but for the ledger and what is not committed.
        let mut data = tree(self.world.data.path());
        data.retain(|file, _| !file.starts_with("thanos.shipper.json"));
        assert!(data == self.local, "the data directory changed");
        let store = tree(self.world.store.path());
        for (key, bytes) in &self.settled {
            assert!(store.get(key) == Some(bytes), "{key} changed");
        }
        // No block that was merged comes back.
        for key in store.keys() {
            assert!(!self.merged.contains(&key[..26]), "{key} came back");
        }
        // P1: what is visible is whole.
        for block in &self.committed {
            let meta = &store[&format!("{block}/meta.json")];
            let meta: serde_json::Value = serde_json::from_slice(meta).unwrap();
            let files = meta["thanos"]["files"].as_array().unwrap();
            assert_eq!(files.len(), 3, "{block}");
            for file in files.iter().filter(|file| file["rel_path"] != "meta.json") {
                let key = format!("{block}/{}", file["rel_path"].as_str().unwrap());
                assert!(store.get(&key) == self.truth.get(&key), "{key} is not what it was");
                assert_eq!(file["size_bytes"], store[&key].len() as u64, "{key}");
            }
        }
        // P2: the ledger is whole, and lists nothing but what is durable.
        if !matches!(step, Step::LedgerGone) && self.ledger().try_exists().unwrap() {
            for block in self.world.listed() {
                let durable = self.committed.contains(&block) || self.merged.contains(&block);
                assert!(durable, "{block} is listed");
            }
        }
    }

    /// When nothing is in the way any more, all becomes durable.
    async fn end(&mut self) {
        self.world.bucket.heal();
        self.world
            .origin
            .send_modify(|origin| origin.labels = Some(labels_of("end")));
        for _ in 0..3 {
            self.pass(u32::MAX, None).await;
            self.check(&Step::Pass);
            sleep(Duration::from_secs(61)).await;
        }
        assert_eq!(self.open(), Vec::<String>::new());
        let listed: BTreeSet<String> = self.world.listed().into_iter().collect();
        assert_eq!(listed, self.begins.keys().cloned().collect());
        assert_eq!(self.world.metrics.unuploaded.get(), 0);
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

fn live(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut model = Model::new().await;
        for step in steps {
            model.take(step).await;
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
        live(&history.0);
    }
}
