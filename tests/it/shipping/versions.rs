//! Every Prometheus at hand, into every kind of bucket: what arrives is what was sealed, and is described as Thanos'
//! readers expect it.

use std::{collections::BTreeSet, path::Path, process::Command, time::SystemTime};

use fs_err as fs;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    metrics,
    scene::{LEDGER, LedgerWatch, PATIENCE, by_time, json, strings, watches},
};
use crate::rig::{
    BucketView, Emulator, Keeper, Kind, Leg, Prometheus, S3Server, Sidecar, Tools, Weed, assert_all_shipped,
    prometheus::Options, tools::temp_dir, wait_until,
};

/// One narthex with its bucket.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) sidecar: Sidecar,
    pub(super) bucket: BucketView,
    /// The `bucket` label of the metrics.
    pub(super) name: String,
    ledger: String,
    sha256: bool,
    /// The blocks that were sealed before it was seen to watch.
    pub(super) early: usize,
    watch: Option<LedgerWatch>,
}

#[tokio::test]
async fn every_block_of_every_prometheus_arrives_in_every_bucket() {
    let legs = Tools::find().legs;
    // The newer ones need not wait for long.
    join_all(
        legs.iter()
            .enumerate()
            .map(|(at, leg)| ships(leg, if at == 0 { 3 } else { 1 })),
    )
    .await;
}

async fn ships(leg: &Leg, blocks: usize) {
    let (dir, server) = (temp_dir("versions"), S3Server::start());
    let data = dir.path().join("data");
    let held_back = delays_compaction(leg);
    let mut options = Options {
        data: Some(data.clone()),
        ..Options::default()
    };
    if held_back {
        let flag = format!("--storage.tsdb.delay-compact-file.path={}", data.join(LEDGER).display());
        options.args.push(flag);
    }
    let labels: Vec<(String, String)> = options.external_labels.clone();
    let prometheus = Prometheus::start(leg, options).await;
    let keeper = Keeper::watch(&data);

    let weed = Weed::shared().await.bucket("versions").await;
    let local = dir.path().join("bucket");
    fs::create_dir(&local).unwrap();
    let mut stands = vec![stand(&prometheus, weed, LEDGER, None)];
    // A ledger of another name is not what that flag points to.
    if !held_back {
        stands.push(stand(&prometheus, server.bucket("versions"), "ledger-of-s3.json", None));
        stands.push(stand(
            &prometheus,
            BucketView::dir(&local),
            "ledger-of-files.json",
            Some(&local),
        ));
        for (kind, ledger) in [
            (Kind::Gcs, "ledger-of-google.json"),
            (Kind::Azure, "ledger-of-azure.json"),
        ] {
            let bucket = Emulator::shared(kind).await.bucket("versions").await;
            stands.push(stand(&prometheus, bucket, ledger, None));
        }
    }
    for stand in &mut stands {
        begins(stand, &prometheus, &local).await;
    }
    prometheus.wait_for_blocks(blocks, PATIENCE).await;
    for stand in &stands {
        metrics::tell_that_prometheus_is_up(stand).await;
    }
    assert!(prometheus.stop().await.success());
    for stand in &stands {
        metrics::tell_what_was_shipped(stand, &prometheus).await;
    }
    let sealed = prometheus.blocks();
    let kept = async || (keeper.blocks() == sealed).then_some(());
    wait_until(PATIENCE, "copies of all blocks", kept).await;
    for stand in stands {
        ends(stand, &data, &keeper, &labels).await;
    }
}

/// Whether this Prometheus asks the ledger before it compacts (from 3.9 on).
fn delays_compaction(leg: &Leg) -> bool {
    let help = Command::new(&leg.prometheus).arg("--help").output().unwrap();
    [help.stdout, help.stderr]
        .iter()
        .any(|text| String::from_utf8_lossy(text).contains("delay-compact-file.path"))
}

fn stand(prometheus: &Prometheus, bucket: BucketView, ledger: &str, local: Option<&Path>) -> Stand {
    let mut flags = Sidecar::flags(prometheus, &bucket.config());
    flags.push(format!("--shipper.meta-file-name={ledger}"));
    flags.extend(local.map(|_| "--hash-func=SHA256".to_owned()));
    let name = match local {
        Some(path) => format!("fs: {}", path.display()),
        None => {
            let config = bucket.config();
            let name = |line: &str| {
                let line = line.trim();
                let name = line
                    .strip_prefix("bucket: ")
                    .or_else(|| line.strip_prefix("container: "));
                name.map(str::to_owned)
            };
            config.lines().find_map(name).expect("it has a name")
        }
    };
    Stand {
        sidecar: Sidecar::start(flags),
        bucket,
        name,
        ledger: ledger.to_owned(),
        sha256: local.is_some(),
        early: 0,
        watch: None,
    }
}

/// Waits until it watches the data directory, and sets a watch on its ledger.
async fn begins(stand: &mut Stand, prometheus: &Prometheus, local: &Path) {
    watches(&stand.sidecar).await;
    stand.early = prometheus.blocks().len();
    let bucket = stand.sha256.then(|| local.to_owned());
    stand.watch = Some(LedgerWatch::start(prometheus.data().join(&stand.ledger), bucket));
}

async fn ends(mut stand: Stand, data: &Path, keeper: &Keeper, labels: &[(String, String)]) {
    let ledger = data.join(&stand.ledger);
    let all = async || (strings(&json(&ledger)["uploaded"]) == by_time(data)).then_some(());
    stand
        .sidecar
        .wait_until(PATIENCE, "the ledger lists all blocks", all)
        .await;
    assert!(stand.sidecar.stop().await.success(), "{}", stand.sidecar.log());
    let watched = stand.watch.take().expect("it was set").end();
    // The list grows block by block, and was read many times while it did.
    assert!(watched.lists >= 2 && watched.reads > 300, "{watched:?}");
    assert_all_shipped(&stand.bucket, keeper).await;
    for id in keeper.blocks() {
        let source = keeper.block(&id).expect("it was just listed");
        is_described(&stand.bucket, &id, &source, labels, stand.sha256).await;
    }
    let text = fs::read_to_string(&ledger).unwrap();
    assert!(
        text.starts_with("{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"") && text.ends_with("}\n"),
        "{text}"
    );
}

/// The objects of a block are its chunks, its index and a `meta.json` like Thanos'.
async fn is_described(bucket: &BucketView, id: &str, source: &Path, labels: &[(String, String)], sha256: bool) {
    let mut segments: Vec<String> = fs::read_dir(source.join("chunks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    segments.sort();
    let mut names: Vec<String> = segments.iter().map(|name| format!("chunks/{name}")).collect();
    names.extend(["index".to_owned(), "meta.json".to_owned()]);
    let keys: BTreeSet<String> = bucket.list_below(&format!("{id}/")).await.into_keys().collect();
    let expected = names.iter().map(|name| format!("{id}/{name}"));
    assert_eq!(keys, expected.collect::<BTreeSet<_>>());

    let text = bucket
        .read(&format!("{id}/meta.json"))
        .await
        .expect("it was just listed");
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    let mut meta: Value = serde_json::from_str(&text).unwrap();
    let time = meta["thanos"].as_object_mut().unwrap().remove("upload_time");
    is_the_time_of_the_upload(time.as_ref().and_then(Value::as_str).expect("it is a string"), source);
    let original = json(&source.join("meta.json"));
    let mut expected = original.clone();
    expected["thanos"] = json!({
        "labels": labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "downsample": { "resolution": 0 },
        "source": "sidecar",
        "segment_files": segments,
        "files": names.iter().map(|name| described(name, source, sha256)).collect::<Vec<_>>(),
        "index_stats": {},
    });
    assert_eq!(meta, expected);
    is_laid_out(&text, &original);
}

fn described(name: &str, source: &Path, sha256: bool) -> Value {
    if name == "meta.json" {
        return json!({ "rel_path": name });
    }
    let bytes = fs::read(source.join(name)).unwrap();
    let mut file = json!({ "rel_path": name, "size_bytes": bytes.len() });
    if sha256 {
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        file["hash"] = json!({ "hashFunc": "SHA256", "value": hash });
    }
    file
}

/// Tabs, Prometheus' keys in their order, then ours in that of Thanos, and a final newline.
fn is_laid_out(text: &str, original: &Value) {
    let keys = |indent: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(indent)?.strip_prefix('"'));
        lines
            .filter_map(|line| Some(line.split_once("\": ")?.0.to_owned()))
            .collect()
    };
    let mut top: Vec<String> = original.as_object().unwrap().keys().cloned().collect();
    top.push("thanos".to_owned());
    assert_eq!(keys("\t"), top);
    let ours = [
        "labels",
        "downsample",
        "source",
        "segment_files",
        "files",
        "index_stats",
        "upload_time",
    ];
    assert!(keys("\t\t").ends_with(&ours.map(str::to_owned)), "{text}");
    assert!(text.starts_with("{\n\t\"ulid\": ") && text.ends_with("\n}\n"), "{text}");
}

/// RFC 3339 in UTC as Go writes it; not before the index was written, not after now.
fn is_the_time_of_the_upload(text: &str, source: &Path) {
    let shape = text.strip_suffix('Z').expect("UTC is written as Z");
    assert!(
        shape
            .split_once('.')
            .is_none_or(|(_, fraction)| !fraction.ends_with('0')),
        "{text}"
    );
    let time = SystemTime::from(text.parse::<jiff::Timestamp>().expect("RFC 3339"));
    let written = fs::metadata(source.join("index")).unwrap().modified().unwrap();
    assert!(written <= time && time <= SystemTime::now(), "{text}");
}
