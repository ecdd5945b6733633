//! What the tests of bad local input stand on: a data directory that a test writes into the way Prometheus does, a real
//! sidecar beside it, and a bucket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::rig::{
    BucketView, Metrics, Prometheus, Sidecar, Tools,
    blocks::{self, Spec},
    bucket,
    prometheus::Options,
    tools::temp_dir,
};

/// How long anything may take. What is waited for mostly comes within a second, or after the ten that a copied block is
/// held; the rest is for busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The Prometheus that tells its labels to all these tests. It scrapes nothing and seals nothing: the blocks are made by
/// the tests, elsewhere.
pub(crate) async fn prometheus() -> &'static Prometheus {
    static SHARED: OnceCell<Prometheus> = OnceCell::const_new();
    let start = || async {
        let options = Options {
            scrape: false,
            ..Options::default()
        };
        Prometheus::start(&Tools::oldest(), options).await
    };
    SHARED.get_or_init(start).await
}

/// A sidecar between a data directory and a bucket.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) data: TempDir,
    pub(crate) bucket: BucketView,
    pub(crate) sidecar: Sidecar,
    /// Holds the bucket, when that is a directory of ours.
    _store: Option<TempDir>,
}

impl Stage {
    /// Starts a sidecar with an empty data directory, and waits until it is ready and has looked into it: blocks that
    /// are renamed into place from now on are seen to be sealed.
    pub(crate) async fn start(flags: &[&str]) -> Stage {
        let stage = Stage::open(temp_dir("data"), &[], flags).await;
        stage.wait_for_pass().await;
        stage
    }

    /// Starts a sidecar beside what is in `data` already, below the program `under` if there is one.
    pub(crate) async fn open(data: TempDir, under: &[String], flags: &[&str]) -> Stage {
        let store = temp_dir("bucket");
        let bucket = BucketView::dir(store.path());
        let args = args(prometheus().await, data.path(), &bucket, flags);
        let sidecar = Sidecar::start_under(under.to_vec(), args);
        Stage {
            data,
            bucket,
            sidecar,
            _store: Some(store),
        }
    }

    /// A sidecar that runs already, beside `data` and before a bucket that others keep.
    pub(crate) fn of(data: TempDir, bucket: BucketView, sidecar: Sidecar) -> Stage {
        Stage {
            data,
            bucket,
            sidecar,
            _store: None,
        }
    }

    /// The data directory.
    pub(crate) fn dir(&self) -> &Path {
        self.data.path()
    }

    /// Waits until it is ready and one pass is through.
    pub(crate) async fn wait_for_pass(&self) {
        self.sidecar.wait_ready(PATIENCE).await;
        self.wait_for_metric("thanos_shipper_dir_syncs_total", &[], |syncs| syncs >= 1.0)
            .await;
    }

    /// Waits until the ledger lists exactly these blocks, in any order.
    pub(crate) async fn wait_for_ledger(&self, ids: &[&str]) {
        let ledger = self.dir().join("thanos.shipper.json");
        let what = format!("{} lists {ids:?}", ledger.display());
        let mut expected = ids.to_vec();
        expected.sort_unstable();
        self.sidecar
            .wait_until(PATIENCE, what, async || (listed(&ledger)? == expected).then_some(()))
            .await;
    }

    /// Waits until `good` holds for the sum of the series of this name that carry these labels.
    pub(crate) async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], good: impl Fn(f64) -> bool) {
        let probe = async || {
            self.sidecar
                .metrics()
                .await?
                .value(name, labels)
                .filter(|value| good(*value))
        };
        self.sidecar
            .wait_until(PATIENCE, format!("{name}{labels:?}"), probe)
            .await;
    }

    /// All metrics of a sidecar that must answer.
    pub(crate) async fn metrics(&self) -> Metrics {
        self.sidecar.metrics().await.expect("the sidecar answers")
    }

    /// The value of a metric that must be there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metrics()
            .await
            .value(name, &[])
            .unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Waits until a line of the log holds all these parts, and gives it.
    pub(crate) async fn wait_for_log(&self, parts: &[&str]) -> String {
        wait_for_log(&self.sidecar, parts).await
    }

    /// The bucket holds exactly these blocks and nothing else, each equal to the block in the data directory, and the
    /// sidecar is well.
    pub(crate) async fn assert_shipped(&self, ids: &[&str]) {
        let mut expected = ids.to_vec();
        expected.sort_unstable();
        let mut found: Vec<String> = self.bucket.list().await.into_keys().collect();
        found.retain(|key| !expected.iter().any(|id| key.starts_with(&format!("{id}/"))));
        assert!(found.is_empty(), "in the bucket, and should not be: {found:?}");
        assert_eq!(self.bucket.visible().await, expected);
        for id in expected {
            self.assert_same(id, &self.dir().join(id)).await;
        }
        assert!(self.sidecar.ready().await, "not ready:\n{}", self.sidecar.log());
    }

    /// The block in the bucket is whole and equal to `source`.
    pub(crate) async fn assert_same(&self, id: &str, source: &Path) {
        bucket::check(&self.bucket, id, source)
            .await
            .unwrap_or_else(|wrong| panic!("{id}: {wrong}"));
    }
}

/// The flags that point a sidecar at these three.
pub(crate) fn args(prometheus: &Prometheus, data: &Path, bucket: &BucketView, more: &[&str]) -> Vec<String> {
    args_for(prometheus, data, &bucket.config(), more)
}

/// The same with a configuration of the bucket (YAML of `--objstore.config`).
pub(crate) fn args_for(prometheus: &Prometheus, data: &Path, objstore: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec![
        format!("--prometheus.url={}", prometheus.url()),
        "--prometheus.get_config_interval=1s".to_owned(),
        format!("--tsdb.path={}", data.display()),
        format!("--objstore.config={objstore}"),
    ];
    args.extend(more.iter().map(|&flag| flag.to_owned()));
    args
}

/// Waits until a line of the sidecar's log holds all these parts, and gives it.
pub(crate) async fn wait_for_log(sidecar: &Sidecar, parts: &[&str]) -> String {
    let probe = async || log_line(sidecar, parts);
    sidecar
        .wait_until(PATIENCE, format!("a line with {parts:?}"), probe)
        .await
}

/// The first line of the log that holds all these parts.
pub(crate) fn log_line(sidecar: &Sidecar, parts: &[&str]) -> Option<String> {
    let log = sidecar.log();
    let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    line.map(str::to_owned)
}

/// The blocks that a ledger lists, sorted; `None` if there is no ledger or it is not one.
pub(crate) fn listed(ledger: &Path) -> Option<Vec<String>> {
    let json: Value = serde_json::from_slice(&fs::read(ledger).ok()?).ok()?;
    let names = json.get("uploaded")?.as_array()?;
    let mut names: Vec<String> = names
        .iter()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect();
    names.sort();
    Some(names)
}

/// A good block for so many ranges of two hours after the start of 2026; only to be copied.
pub(crate) fn sound(slot: u64) -> PathBuf {
    blocks::generate(Spec::small(slot))
}

/// Copies a block under a new name, lets `change` change it, and renames it into place as Prometheus seals a block.
pub(crate) fn seal(source: &Path, data: &Path, change: impl FnOnce(&Path)) -> String {
    let id = ulid::Ulid::generate().to_string();
    let half = data.join(format!("{id}.tmp-for-creation"));
    copy(source, &half, &id);
    change(&half);
    fs::rename(half, data.join(&id)).unwrap();
    id
}

/// Copies a block to `to`, and gives it the name `id`.
pub(crate) fn copy(source: &Path, to: &Path, id: &str) {
    copy_tree(source, to);
    edit_meta(to, |meta| {
        meta["ulid"] = id.into();
        meta["compaction"]["sources"] = vec![id].into();
    });
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes the `meta.json` of a block that nobody else looks at yet.
pub(crate) fn edit_meta(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut meta);
    fs::write(path, serde_json::to_vec_pretty(&meta).unwrap()).unwrap();
}

/// Changes the bytes of a file.
pub(crate) fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Below which program a sidecar obeys the permissions of files: root may do all, unless it gives that up.
pub(crate) fn without_privileges() -> Vec<String> {
    let root = fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    match root {
        true => vec![
            "setpriv".to_owned(),
            "--bounding-set=-dac_override,-dac_read_search".to_owned(),
        ],
        false => Vec::new(),
    }
}
