//! A shipper with a directory as its bucket and faults on the way there, for tests of whole passes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use super::{
    AutoMinTime, ContentPolicy, Liveness, Metrics, Overviews, Policy, PrometheusStatus, Settings, Shipper,
    watcher::{Change, Hint},
};
use crate::{
    model::Labels,
    objstore::{self, Limits, Op, layers::Faulty},
    tsdb::{
        Block, BlockId, Meta,
        testing::{Shape, write_block},
    },
};

/// A data directory, a bucket and what Prometheus says.
pub(super) struct World {
    pub(super) data: tempfile::TempDir,
    pub(super) store: tempfile::TempDir,
    pub(super) bucket: Arc<Faulty>,
    pub(super) prometheus: watch::Sender<PrometheusStatus>,
    pub(super) policy: Policy,
    pub(super) content: ContentPolicy,
    pub(super) min_time: Option<AutoMinTime>,
    pub(super) hold_unshipped: u64,
    pub(super) metrics: Metrics,
    /// Takes the place of the watch of the last shipper.
    hints: Mutex<Option<mpsc::Sender<Hint>>>,
}

/// What a block is to be.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) name: String,
    pub(super) range: (i64, i64),
    pub(super) level: u64,
    pub(super) sources: Vec<String>,
    /// What `meta.json` says.
    pub(super) samples: u64,
    pub(super) shape: Shape,
}

/// The name of the `n`th block of a test; they are a little older than the test.
pub(super) fn name(n: u32) -> String {
    static BEGUN: OnceLock<u64> = OnceLock::new();
    let begun = *BEGUN.get_or_init(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 - 60_000);
    ulid::Ulid::from_parts(begun + u64::from(n), u128::from(n)).to_string()
}

/// A directory in memory, if there are such and `TMPDIR` asks for no other place: much is flushed to it.
fn memory_dir() -> tempfile::TempDir {
    match std::env::var_os("TMPDIR") {
        Some(_) => tempfile::tempdir().unwrap(),
        None => tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()),
    }
}

/// The name of the `n`th block of a test that needs no block on the disk.
pub(super) fn numbered(n: u32) -> BlockId {
    id(&format!("01K4ABCDEFGHJKMNPQRST{n:05}"))
}

/// The `n`th block, of this range and these sources, as its `meta.json` tells; there is none on the disk.
pub(super) fn block(n: u32, range: (i64, i64), sources: &[u32]) -> Block {
    let sources: Vec<String> = sources.iter().map(|n| format!("\"{}\"", numbered(*n))).collect();
    let meta = format!(
        r#"{{"ulid":"{}","minTime":{},"maxTime":{},"stats":{{"numSamples":1}},"compaction":{{"level":1,"sources":[{}]}},"version":1}}"#,
        numbered(n),
        range.0,
        range.1,
        sources.join(",")
    );
    Block {
        id: numbered(n),
        dir: Path::new("data").into(),
        meta: Meta::parse(meta.as_bytes()).unwrap().into(),
    }
}

pub(super) fn id(name: &str) -> BlockId {
    BlockId::parse(name).unwrap()
}

impl Made {
    pub(super) fn new(name: &str, min: i64) -> Self {
        Self {
            name: name.into(),
            range: (min, min + 10),
            level: 1,
            sources: vec![name.into()],
            samples: 5,
            shape: Shape::default(),
        }
    }

    pub(super) fn meta(&self) -> String {
        let sources = self.sources.join("\",\"");
        format!(
            r#"{{"ulid":"{}","minTime":{},"maxTime":{},"stats":{{"numSamples":{}}},"compaction":{{"level":{},"sources":["{sources}"]}},"version":1}}"#,
            self.name, self.range.0, self.range.1, self.samples, self.level
        )
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let (data, store) = (memory_dir(), memory_dir());
        let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {:?}\n", store.path());
        let config = objstore::config::parse(&yaml).unwrap();
        let mut registry = Registry::default();
        let bucket = objstore::open(&config, &Limits::default(), &mut registry)
            .await
            .unwrap();
        let labels = Some(Labels::from_pairs([("replica", "a")]));
        let liveness = Liveness::Up;
        Self {
            data,
            store,
            bucket: Faulty::new(bucket),
            prometheus: watch::Sender::new(PrometheusStatus {
                labels,
                liveness,
                out_of_order_window_ms: Some(0),
                ..PrometheusStatus::default()
            }),
            policy: Policy::default(),
            content: ContentPolicy::default(),
            min_time: None,
            hold_unshipped: 0,
            metrics: Metrics::register(&mut registry),
            hints: Mutex::default(),
        }
    }

    /// A new run of the shipper, without a watch: the kernel tells in real time, which paused time leaves behind. What happens to
    /// blocks is told by the methods here and by [`World::hints`].
    pub(super) fn shipper(&self) -> Shipper {
        let mut shipper = self.watching_shipper();
        let (send, hints) = mpsc::channel(256);
        *self.hints.lock().unwrap() = Some(send);
        shipper.hints = hints;
        shipper
    }

    /// Where hints for the last shipper are put in.
    pub(super) fn hints(&self) -> mpsc::Sender<Hint> {
        self.hints.lock().unwrap().clone().unwrap()
    }

    /// A new run of the shipper with a watch.
    pub(super) fn watching_shipper(&self) -> Shipper {
        let settings = Settings {
            dir: self.data.path().into(),
            ledger_name: "thanos.shipper.json".into(),
            policy: self.policy,
            content: self.content,
            sha256: false,
            source: "sidecar".into(),
            scan_interval: Duration::from_secs(30),
            hold_unshipped: self.hold_unshipped,
            jitter: Duration::ZERO,
            look_again: Duration::from_secs(60),
            heartbeat: None,
            min_time: self.min_time.clone(),
            overviews: Overviews::default(),
        };
        let bucket = Arc::clone(&self.bucket);
        Shipper::new(settings, bucket, self.prometheus.subscribe(), self.metrics.clone())
    }

    pub(super) fn label(&self, value: &str) {
        let labels = Labels::from_pairs([("replica", value)]);
        self.prometheus
            .send_modify(|prometheus| prometheus.labels = Some(labels));
    }

    /// Makes a block in place, as a copy does: nobody is told.
    pub(super) fn copy_in(&self, made: &Made) -> PathBuf {
        let block = write_block(self.data.path(), &made.name, made.shape);
        fs_err::write(block.dir.join("meta.json"), made.meta()).unwrap();
        block.dir.to_path_buf()
    }

    /// Makes a block as Prometheus does; the shipper that is running learns of it at once.
    pub(super) fn seal(&self, shipper: &mut Shipper, made: &Made) -> PathBuf {
        let dir = self.seal_unseen(made);
        self.hint(shipper, &made.name, Change::Sealed);
        dir
    }

    /// Puts a copy of a block there as Prometheus does; its name. The shipper that is running learns of it at once.
    pub(super) fn seal_copy(&self, shipper: &mut Shipper, source: &Path) -> String {
        let aside = tempfile::tempdir_in(self.data.path()).unwrap();
        let meta = fs_err::read_to_string(source.join("meta.json")).unwrap();
        let name = serde_json::from_str::<serde_json::Value>(&meta).unwrap()["ulid"]
            .as_str()
            .unwrap()
            .to_owned();
        let dir = aside.path().join(&name);
        fs_err::create_dir_all(dir.join("chunks")).unwrap();
        let segments = fs_err::read_dir(source.join("chunks"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let segments = segments.map(|name| Path::new("chunks").join(name));
        for file in segments.chain(["index".into(), "meta.json".into()]) {
            fs_err::copy(source.join(&file), dir.join(&file)).unwrap();
        }
        fs_err::rename(&dir, self.data.path().join(&name)).unwrap();
        self.hint(shipper, &name, Change::Sealed);
        name
    }

    /// The same, and only a watch may tell the shipper.
    pub(super) fn seal_unseen(&self, made: &Made) -> PathBuf {
        let aside = tempfile::tempdir_in(self.data.path()).unwrap();
        let block = write_block(aside.path(), &made.name, made.shape);
        fs_err::write(block.dir.join("meta.json"), made.meta()).unwrap();
        let dir = self.data.path().join(&made.name);
        fs_err::rename(&block.dir, &dir).unwrap();
        dir
    }

    /// Removes a block as retention and compaction do; the shipper that is running learns of it at once.
    pub(super) fn retire(&self, shipper: &mut Shipper, name: &str) {
        self.retire_unseen(name);
        self.hint(shipper, name, Change::RenamedAway);
    }

    /// The same, and only a watch may tell the shipper.
    pub(super) fn retire_unseen(&self, name: &str) {
        let aside = self.data.path().join(format!("{name}.tmp-for-deletion"));
        fs_err::rename(self.data.path().join(name), &aside).unwrap();
        fs_err::remove_dir_all(aside).unwrap();
    }

    /// Removes a block in place, as Prometheus does after a failed reload; the shipper that is running learns of it at
    /// once.
    pub(super) fn withdraw(&self, shipper: &mut Shipper, name: &str) {
        self.withdraw_unseen(name);
        self.hint(shipper, name, Change::Deleted);
    }

    /// The same, and only a watch may tell the shipper.
    pub(super) fn withdraw_unseen(&self, name: &str) {
        fs_err::remove_dir_all(self.data.path().join(name)).unwrap();
    }

    fn hint(&self, shipper: &mut Shipper, name: &str, change: Change) {
        let (id, at) = (id(name), SystemTime::now());
        shipper.events.record(Hint { id, change, at });
    }

    /// What a compactor leaves of blocks that it merged: a block of `labels`, whole, and without them their own.
    pub(super) fn merge(&self, made: &Made, replica: &str) {
        self.put_block(made, replica);
        for source in &made.sources {
            let _ = fs_err::remove_dir_all(self.store.path().join(source));
        }
    }

    /// Puts a block into the bucket that is whole by its own `meta.json`.
    pub(super) fn put_block(&self, made: &Made, replica: &str) {
        let dir = self.store.path().join(&made.name);
        fs_err::create_dir_all(dir.join("chunks")).unwrap();
        for (file, bytes) in [("chunks/000001", "chunks"), ("index", "an index")] {
            fs_err::write(dir.join(file), bytes).unwrap();
        }
        let mut meta: serde_json::Value = serde_json::from_str(&made.meta()).unwrap();
        meta["thanos"] = serde_json::json!({
            "labels": {"replica": replica},
            "downsample": {"resolution": 0},
            "source": "compactor",
            "files": [
                {"rel_path": "chunks/000001", "size_bytes": 6},
                {"rel_path": "index", "size_bytes": 8},
                {"rel_path": "meta.json"},
            ],
        });
        fs_err::write(dir.join("meta.json"), meta.to_string()).unwrap();
    }

    /// Marks a block of the bucket for deletion.
    pub(super) fn mark(&self, name: &str) {
        let mark = self.store.path().join(name).join("deletion-mark.json");
        fs_err::write(mark, r#"{"id":"","version":1,"deletion_time":1}"#).unwrap();
    }

    /// An object of the bucket, if it is there.
    pub(super) fn object(&self, key: &str) -> Option<Vec<u8>> {
        fs_err::read(self.store.path().join(key)).ok()
    }

    /// The labels with which a block was committed.
    pub(super) fn stamped(&self, name: &str) -> Option<serde_json::Value> {
        let meta = self.object(&format!("{name}/meta.json"))?;
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        Some(meta["thanos"]["labels"].clone())
    }

    /// The ledger on disk.
    pub(super) fn ledger(&self) -> serde_json::Value {
        let text = fs_err::read_to_string(self.data.path().join("thanos.shipper.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// How many uploads were tried so far.
    pub(super) fn uploads(&self) -> usize {
        let calls = self.bucket.calls();
        calls.iter().filter(|(op, _)| *op == Op::Upload).count()
    }

    /// What blocks wait for at the gate, by the metric.
    pub(super) fn waiting(&self) -> Vec<&'static str> {
        self.metrics.waiting().into_keys().collect()
    }

    pub(super) fn listed(&self) -> Vec<String> {
        serde_json::from_value(self.ledger()["uploaded"].clone()).unwrap()
    }
}

impl Shipper {
    /// The names of the blocks that are set aside.
    pub(super) fn aside(&self) -> BTreeSet<String> {
        self.quarantine.ids().map(|id| id.to_string()).collect()
    }
}
