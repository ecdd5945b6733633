//! What was shipped is there again, byte for byte, and a plain Prometheus answers from it as one does from the source.

use std::path::Path;

use fs_err as fs;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::scene::{EU, Listed, Scene};
use crate::rig::{
    Leg, Prometheus, Tools,
    blocks::{self, Spec},
    http,
    prometheus::Options,
};

/// The start of 2026, at which the slots of the blocks begin (s).
const START: i64 = 1_767_225_600;
const SLOT: i64 = 7200;

async fn opened(leg: &Leg, data: &Path, args: &[&str]) -> Prometheus {
    let options = Options {
        block: "2h",
        data: Some(data.to_owned()),
        scrape: false,
        args: args.iter().map(|&word| word.to_owned()).collect(),
        ..Options::default()
    };
    Prometheus::start(leg, options).await
}

async fn answer(prometheus: &Prometheus, path: &str) -> Value {
    let (status, body) = http::get(&format!("{}/api/v1/{path}", prometheus.url())).await.unwrap();
    assert!(status.is_success(), "{path}: {}", String::from_utf8_lossy(&body));
    let mut answer: Value = serde_json::from_slice(&body).unwrap();
    if let Some(result) = answer.pointer_mut("/data/result").and_then(Value::as_array_mut) {
        result.sort_by_key(Value::to_string);
    }
    answer["data"].take()
}

/// A query over times in which there are blocks.
fn question(rng: &mut StdRng, slots: i64) -> String {
    let n = rng.random_range(0..100);
    let query = [
        format!("rig_0000{{n=\"{n}\"}}"),
        format!("sum by (instance) (rig_0000{{n=~\"{}.*\"}})", n % 10),
        format!("rate(rig_0000{{n=\"{n}\"}}[{}m])", rng.random_range(2..30)),
        format!("topk({}, rig_0000)", 1 + n % 5),
        "count({__name__=~\".+\"})".to_owned(),
        format!("quantile_over_time(0.9, rig_0000{{n=\"{n}\"}}[1h])"),
    ];
    let query =
        url::form_urlencoded::byte_serialize(query[rng.random_range(0..query.len())].as_bytes()).collect::<String>();
    let from = START + rng.random_range(0..slots * SLOT);
    let until = from + rng.random_range(60..SLOT * 2);
    format!(
        "query_range?query={query}&start={from}&end={until}&step={}",
        rng.random_range(15..600)
    )
}

/// Restores three blocks with the flags that the report names, and asks both sides.
async fn answers_alike(scene: &Scene, leg: &Leg, listed: Listed) {
    let source = scene.other("source");
    fs::create_dir(&source).unwrap();
    let mut ids = Vec::new();
    for slot in 0..3 {
        blocks::place(&blocks::generate(Spec::small(slot)), &source);
        ids.push(scene.ship(slot, EU, listed, |_| {}).await);
    }
    let ran = scene.restore(&["--selector", "{cluster=\"eu\"}"]);
    ran.assert(0, &["to restore: 3 of 3 blocks of {cluster=\"eu\", replica=\"0\"}"]);
    ids.sort();
    assert_eq!(scene.entries(), ids);
    for id in &ids {
        scene.assert_same(id).await;
    }
    let flags = ran
        .stdout
        .lines()
        .find(|line| line.contains("--storage.tsdb.retention.time="));
    let retention = flags.unwrap().split_whitespace().nth(1).unwrap();

    let before = opened(leg, &source, &["--storage.tsdb.retention.time=100y"]).await;
    let after = opened(leg, &scene.to(), &[retention]).await;
    let mut rng = StdRng::seed_from_u64(5);
    let mut filled = 0;
    for _ in 0..60 {
        let question = question(&mut rng, 3);
        let expected = answer(&before, &question).await;
        assert_eq!(answer(&after, &question).await, expected, "{question}");
        filled += usize::from(expected["result"].as_array().is_some_and(|result| !result.is_empty()));
    }
    assert!(filled > 30, "{filled} of 60 questions had an answer");
    assert_eq!(after.blocks(), ids, "{}", after.log());
}

#[tokio::test]
async fn the_oldest_prometheus_answers_as_before() {
    answers_alike(&Scene::local(), &Tools::oldest(), Listed::Hashed).await;
}

#[tokio::test]
async fn the_newest_prometheus_answers_as_before() {
    let leg = Tools::newest();
    answers_alike(&Scene::s3().await, &leg, Listed::Hashed).await;
}

#[tokio::test]
async fn blocks_without_recorded_hashes_come_back() {
    for listed in [Listed::Sized, Listed::Not] {
        for scene in [Scene::local(), Scene::s3().await] {
            let id = scene.ship(0, EU, listed, |_| {}).await;
            scene.restore(&[]).assert(0, &["restored      1 block"]);
            scene.assert_same(&id).await;
        }
    }
}

/// Blocks of `testdata/index_issues`: Prometheus up to 2.2 wrote chunks that are outside of the block's range, up to 2.8
/// label names that are not sorted, and reads both, as it reads chunks that overlap.
#[tokio::test]
async fn blocks_that_only_a_compactor_refuses_are_restored_as_they_are_with_a_warning() {
    let scene = Scene::local();
    let mut ids = Vec::new();
    let blocks = [
        ("chunks_at_the_end", "end of the block's time range"),
        ("chunks_outside", "partly outside of the block's time range"),
        ("overlapping_chunks", "overlapping another chunk"),
        ("unsorted_chunks", "out of order"),
        ("unsorted_labels", "that are not sorted"),
    ];
    for (name, _) in blocks {
        let source = format!("{}/testdata/index_issues/{name}", env!("CARGO_MANIFEST_DIR"));
        let source = Path::new(&source);
        let id = crate::rig::prometheus::sealed(source).remove(0);
        ids.push(scene.ship_block(&source.join(id), EU, Listed::Hashed, |_| {}).await);
    }
    let said = blocks.map(|(_, said)| said);
    let ran = scene.restore(&[]);
    ran.assert(0, &said);
    ran.assert(0, &["level=warn", "restored      5 blocks"]);
    for id in &ids {
        scene.assert_same(id).await;
    }
    scene.restore(&[]).assert(0, &["there already 5 blocks"]);
    let prometheus = opened(&Tools::oldest(), &scene.to(), &["--storage.tsdb.retention.time=100y"]).await;
    ids.sort();
    assert_eq!(prometheus.blocks(), ids, "{}", prometheus.log());
    let range = format!("query=count(owls)&start={START}&end={}&step=60", START + 5 * SLOT);
    let counted = answer(&prometheus, &format!("query_range?{range}")).await;
    assert!(
        counted["result"].as_array().is_some_and(|result| !result.is_empty()),
        "{counted}"
    );
}

#[tokio::test]
async fn a_dry_run_tells_and_writes_nothing() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    scene.restore(&["--dry-run"]).assert(
        0,
        &[&id, "2026-01-01T00:00:00Z", "This was a dry run: nothing was restored."],
    );
    assert!(fs::symlink_metadata(scene.to()).is_err());
}

#[tokio::test]
async fn one_document_tells_it_all_to_programs() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let objects = scene.bucket.list_below(&id).await;
    let bytes: u64 = objects
        .iter()
        .filter(|(key, _)| !key.ends_with("meta.json"))
        .map(|(_, size)| size)
        .sum();
    let ran = scene.restore(&["--output=json"]);
    ran.assert(0, &[]);
    let told = ran.json();
    assert_eq!(told["end"], "good");
    assert_eq!(told["refusal"], Value::Null);
    assert_eq!(told["labels"], serde_json::json!({ "cluster": "eu", "replica": "0" }));
    assert_eq!(told["results"], serde_json::json!({ "restored": 1 }));
    let block = &told["blocks"][0];
    assert_eq!(
        (&block["ulid"], &block["bytes"]),
        (&Value::from(id), &Value::from(bytes))
    );
    assert_eq!(
        (&block["decision"], &block["result"]),
        (&"restore".into(), &"restored".into())
    );
    assert_eq!((&block["series"], &block["samples"]), (&100.into(), &24_000.into()));
    assert_eq!(block["min_time"], START * 1000);
}
