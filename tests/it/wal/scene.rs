//! What the scenes have in common: a Prometheus with short blocks that scrapes the exporter, a narthex that sends its log, and what
//! another Prometheus answers from what was brought back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;

use super::exporter::{Exporter, Series, Sorts, now_ms};
use crate::{
    rig::{
        BucketView, Leg, Prometheus, Sidecar,
        one_shot::{Ran, narthex},
        prometheus::Options,
        tools::temp_dir,
        wait_until,
    },
    series::stage::api,
};

/// The longest that anything here may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// The time between two rounds.
pub(super) const INTERVAL: &str = "--wal.interval=1s";
/// The time between two scrapes.
const SCRAPES: &str = "400ms";

/// How a Prometheus is to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Both block durations.
    pub(super) block: &'static str,
    pub(super) sorts: Sorts,
    /// Further flags of Prometheus.
    pub(super) args: &'static [&'static str],
    /// Further flags of narthex.
    pub(super) flags: &'static [&'static str],
}

/// Everything is in the log: no block is sealed.
pub(super) const ALL_IN_THE_LOG: Kind = Kind {
    block: "2h",
    sorts: Sorts {
        late: false,
        shapes: false,
    },
    args: &[],
    flags: &[],
};

impl Default for Kind {
    fn default() -> Kind {
        Kind {
            block: "3s",
            sorts: Sorts::default(),
            args: &[],
            flags: &[],
        }
    }
}

impl Kind {
    /// What it needs to run on `data`; without an `exporter` it scrapes nothing.
    pub(super) fn options(self, leg: &Leg, data: &Path, exporter: Option<&Exporter>) -> Options {
        let mut scrape_configs = exporter.map_or_else(|| "  []\n".to_owned(), |exporter| exporter.job(SCRAPES));
        let mut args: Vec<String> = self.args.iter().map(|&arg| arg.to_owned()).collect();
        if self.sorts.late {
            scrape_configs.push_str("storage:\n  tsdb:\n    out_of_order_time_window: 30m\n");
            // As the documentation says for a sidecar, where there is such a flag.
            if leg.at_least(3, 0) {
                args.push("--no-storage.tsdb.allow-overlapping-compaction".to_owned());
            }
        }
        if self.sorts.shapes {
            args.push("--enable-feature=native-histograms".to_owned());
        }
        Options {
            block: self.block,
            args,
            data: Some(data.to_owned()),
            scrape: false,
            scrape_configs,
            ..Options::default()
        }
    }
}

/// A Prometheus that lives, with a narthex beside it.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) leg: Leg,
    pub(super) kind: Kind,
    pub(super) exporter: Exporter,
    pub(super) prometheus: Prometheus,
    pub(super) sidecar: Sidecar,
    pub(super) bucket: BucketView,
    pub(super) dir: TempDir,
}

impl Scene {
    /// With a directory as the bucket.
    pub(super) async fn local(leg: &Leg, kind: Kind) -> Scene {
        let dir = temp_dir("wal");
        let bucket = BucketView::dir(&dir.path().join("bucket"));
        fs::create_dir(dir.path().join("bucket")).expect("a new directory can be written");
        Scene::start(leg, kind, dir, bucket).await
    }

    /// With this bucket.
    pub(super) async fn start(leg: &Leg, kind: Kind, dir: TempDir, bucket: BucketView) -> Scene {
        let exporter = Exporter::start(kind.sorts).await;
        let options = kind.options(leg, &dir.path().join("data"), Some(&exporter));
        let prometheus = Prometheus::start(leg, options).await;
        let mut flags = flags(&prometheus, &bucket);
        // It merges blocks that overlap before they can be sent, and has no flag against it.
        if kind.sorts.late && !leg.at_least(3, 0) {
            flags.push("--shipper.upload-compacted".to_owned());
        }
        flags.extend(kind.flags.iter().map(|&flag| flag.to_owned()));
        let sidecar = Sidecar::start(flags);
        Scene {
            leg: leg.clone(),
            kind,
            exporter,
            prometheus,
            sidecar,
            bucket,
            dir,
        }
    }

    /// A path beside the data.
    pub(super) fn other(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until so many blocks are visible in the bucket.
    pub(super) async fn wait_for_shipped(&self, count: usize) {
        let look = async || (self.bucket.visible().await.len() >= count).then_some(());
        let what = format!("{count} blocks in the bucket");
        self.sidecar.wait_until(PATIENCE, what, look).await;
    }

    /// Waits for so many more scrapes.
    pub(super) async fn wait_for_scrapes(&self, more: usize) {
        let goal = self.exporter.scrapes() + more;
        let look = async || (self.exporter.scrapes() >= goal).then_some(());
        wait_until(PATIENCE, format!("{more} more scrapes"), look).await;
    }

    /// What Prometheus has taken so far, once all of it is durable, as narthex says.
    pub(super) async fn durable(&self) -> Samples {
        let taken = samples(&self.prometheus).await;
        durable_since(&self.sidecar, now_ms()).await;
        taken
    }

    /// Kills both, the one that is asked for first, and removes the data directory.
    pub(super) fn lose(&self, sidecar_first: bool) {
        if sidecar_first {
            self.sidecar.kill9();
        }
        self.prometheus.kill();
        self.sidecar.kill9();
        fs::remove_dir_all(self.prometheus.data()).expect("nobody uses the directory");
    }

    /// Restores the log to a directory, with further flags.
    pub(super) fn restore(&self, to: &Path, more: &[&str]) -> Ran {
        restore(&self.bucket, to, more)
    }

    /// What a fresh Prometheus, which scrapes nothing, answers from a directory.
    pub(super) async fn replayed(&self, data: &Path) -> Samples {
        replayed(&self.leg, self.kind, data).await
    }
}

/// Starts a narthex that sends the log of a Prometheus.
pub(super) fn beside(prometheus: &Prometheus, bucket: &BucketView) -> Sidecar {
    Sidecar::start(flags(prometheus, bucket))
}

fn flags(prometheus: &Prometheus, bucket: &BucketView) -> Vec<String> {
    let mut flags = Sidecar::flags(prometheus, &bucket.config());
    flags.push(INTERVAL.to_owned());
    flags
}

/// Waits until a narthex says that everything before this time (ms since 1970) is durable.
pub(super) async fn durable_since(sidecar: &Sidecar, time_ms: i64) {
    let durable = async || {
        let durable = sidecar.metric("narthex_wal_durable_timestamp_seconds").await?;
        (durable * 1000.0 >= time_ms as f64).then_some(())
    };
    sidecar
        .wait_until(PATIENCE, format!("what was taken before {time_ms} is durable"), durable)
        .await;
}

/// Restores a log to a directory, with further flags.
pub(super) fn restore(bucket: &BucketView, to: &Path, more: &[&str]) -> Ran {
    let (config, to) = (
        format!("--objstore.config={}", bucket.config()),
        format!("--to={}", to.display()),
    );
    let mut words = vec!["restore", "--wal", &config, &to];
    words.extend(more);
    narthex(&words)
}

/// What a fresh Prometheus, which scrapes nothing, answers from a directory; it finds nothing to repair there.
pub(super) async fn replayed(leg: &Leg, kind: Kind, data: &Path) -> Samples {
    let prometheus = Prometheus::start(leg, kind.options(leg, data, None)).await;
    let found = samples(&prometheus).await;
    assert_content(&prometheus);
    found
}

/// A Prometheus has found nothing to complain of in its data.
pub(super) fn assert_content(prometheus: &Prometheus) {
    let log = prometheus.log();
    let bad = |line: &&str| {
        let is_error = ["level=error", "level=ERROR", "level=warn", "level=WARN"];
        let is_repair = ["read error", "attempting repair", "corruption"];
        // Blocks of samples out of order do.
        let is_usual = line.contains("Overlapping blocks found");
        !is_usual && is_error.iter().chain(&is_repair).any(|word| line.contains(word))
    };
    let bad: Vec<&str> = log.lines().filter(bad).collect();
    assert!(bad.is_empty(), "Prometheus complains: {bad:#?}");
}

/// The samples of the exporter that a Prometheus has: time (ms since 1970), and value as it was answered.
pub(super) type Samples = BTreeMap<Series, Vec<(i64, String)>>;

/// What a Prometheus answers for the last hour.
pub(super) async fn samples(prometheus: &Prometheus) -> Samples {
    let now = (now_ms() / 1000 + 60).to_string();
    let query = "{__name__=~\"plain|late|shape\"}[1h]";
    let data = api(prometheus, "query", &[("query", query), ("time", &now)]).await;
    let mut found = Samples::new();
    for series in data["result"].as_array().expect("a list of series") {
        let label = |name: &str| series["metric"][name].as_str().unwrap_or_default();
        let name = Series::of(label("__name__"), label("n")).unwrap_or_else(|| panic!("no series of ours: {series}"));
        let mut list = Vec::new();
        for pair in series["values"].as_array().into_iter().flatten() {
            list.push((time_ms(&pair[0]), pair[1].as_str().expect("a value").to_owned()));
        }
        for pair in series["histograms"].as_array().into_iter().flatten() {
            list.push((time_ms(&pair[0]), histogram(&pair[1])));
        }
        found.insert(name, list);
    }
    found
}

fn time_ms(value: &Value) -> i64 {
    (value.as_f64().expect("a time") * 1000.0).round() as i64
}

/// The count of a histogram, if its sum and its buckets fit that.
fn histogram(value: &Value) -> String {
    let number = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<f64>().ok())
            .expect("a number")
    };
    let buckets = value["buckets"].as_array().into_iter().flatten();
    let (count, sum) = (number(&value["count"]), number(&value["sum"]));
    assert_eq!(sum, count * 0.5, "{value}");
    let mut counts: Vec<f64> = buckets.map(|bucket| number(&bucket[3])).collect();
    counts.retain(|count| *count > 0.0);
    assert_eq!(counts.iter().sum::<f64>(), count, "{value}");
    count.to_string()
}

/// How many samples these are.
pub(super) fn count(samples: &Samples) -> usize {
    samples.values().map(Vec::len).sum()
}

/// All that was expected is there, each sample once and with its value, and there is none that the exporter did not serve.
pub(super) fn assert_there(expected: &Samples, found: &Samples, exporter: &Exporter, what: &str) {
    let mut wrong = Vec::new();
    for (series, list) in found {
        if let Some(pair) = list.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            wrong.push(format!("{series:?} is not in order: {pair:?}"));
        }
        for (time, value) in list {
            if !exporter.has_served(*series, *time) {
                wrong.push(format!("{series:?} was never served with the time {time}"));
            } else if *value != series.value(*time).to_string() {
                wrong.push(format!(
                    "{series:?} has {value} at {time} and not {}",
                    series.value(*time)
                ));
            }
        }
    }
    let empty = Vec::new();
    for (series, list) in expected {
        let there = found.get(series).unwrap_or(&empty);
        let lost: Vec<i64> = list
            .iter()
            .filter(|sample| !there.contains(sample))
            .map(|sample| sample.0)
            .collect();
        if !lost.is_empty() {
            wrong.push(format!(
                "{series:?} lacks {} of {} samples: {lost:?}",
                lost.len(),
                list.len()
            ));
        }
    }
    let some: Vec<&String> = wrong.iter().take(10).collect();
    assert!(wrong.is_empty(), "{what}: {} faults, such as {some:#?}", wrong.len());
}

/// Where the blocks of the bucket end, as their `meta.json` files say (ms since 1970).
pub(super) async fn blocks_end(bucket: &BucketView) -> i64 {
    let mut end = i64::MIN;
    for id in bucket.visible().await {
        let meta = bucket.read_json(&format!("{id}/meta.json")).await;
        end = end.max(meta["maxTime"].as_i64().expect("a number"));
    }
    end
}

/// A piece of a log, as its key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) key: String,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) read_ms: i64,
}

/// The pieces of a log (`wal` or `wbl`) of all generations that the bucket has, in the order of their keys.
pub(super) async fn pieces(bucket: &BucketView, log: &str) -> Vec<Piece> {
    let keys = bucket.list_below("narthex-wal/v1/").await.into_keys();
    let keys = keys.filter(|key| key.rsplit('/').nth(2) == Some(log));
    let piece = |key: String| {
        let name = key.rsplit('/').next().expect("a key has a name").to_owned();
        let fields: Vec<&str> = name.split('-').collect();
        let number = |at: usize| fields[at].parse::<u64>().expect("a number");
        Piece {
            segment: number(1),
            offset: number(2),
            len: number(3),
            read_ms: fields[4].parse().expect("a time"),
            key,
        }
    };
    keys.map(piece).collect()
}

/// The keys of the manifests, the newest of the newest generation last.
pub(super) async fn manifests(bucket: &BucketView) -> Vec<String> {
    bucket
        .list_below("narthex-wal/v1/manifests/")
        .await
        .into_keys()
        .collect()
}

/// The generations, by the directories of their pieces.
pub(super) async fn generations(bucket: &BucketView) -> BTreeSet<String> {
    let pieces = pieces(bucket, "wal").await.into_iter();
    pieces
        .map(|piece| piece.key.split("/wal/").next().unwrap_or_default().to_owned())
        .collect()
}

/// Everything that was sent of logs, with its bytes.
pub(super) async fn objects(bucket: &BucketView) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for key in bucket.list_below("narthex-wal/").await.into_keys() {
        let bytes = bucket.read(&key).await.expect("it was listed");
        found.insert(key, bytes);
    }
    found
}

/// Every file below a directory, by its path in it.
pub(super) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, name: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("the directory can be read") {
            let entry = entry.expect("the directory can be read");
            let name = format!("{name}/{}", entry.file_name().to_str().expect("names are text"));
            match entry.file_type().expect("a file has a kind").is_dir() {
                true => walk(&entry.path(), &name, found),
                false => drop(found.insert(name, fs::read(entry.path()).expect("the file can be read"))),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}
