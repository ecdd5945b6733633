//! There and back: what promtool made is sent, verified, restored, and a fresh Prometheus on it answers as one on the source
//! does.

use std::path::Path;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::scene::{LABEL, backfill, is_all_there};
use crate::rig::{
    Prometheus, Weed,
    blocks::{self, Spec},
    http,
    keeper::link_tree,
    one_shot::narthex,
    prometheus::{Options, sealed},
    tools::{Tools, temp_dir},
};

/// 10,000 series over a day: a sample each ten minutes.
const DAY: Spec = Spec {
    series: 10_000,
    samples: 144,
    step: 600,
    slot: 0,
};
/// When it begins (seconds since 1970): the start of 2026.
const BEGIN: u64 = 1_767_225_600;
const SECONDS: u64 = 24 * 3600;
const QUERIES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_ten_thousand_series_comes_back_as_it_was() {
    let source = blocks::generate_all(DAY);
    assert_eq!(sealed(&source).len(), 12);
    let bucket = Weed::shared().await.bucket("round-trip").await;
    let report = backfill(&source, &bucket, &["--verify=full"]).ended(0).json();
    assert_eq!(report["totals"]["proven"], 12, "{report:#}");
    is_all_there(&bucket, &source).await;
    let config = format!("--objstore.config={}", bucket.config());
    narthex(&["bucket", "verify", "--full", &config]).ended(0);
    let back = temp_dir("restored");
    let to = format!("--to={}", back.path().join("data").display());
    narthex(&["restore", &config, &to, "--selector={cluster=\"eu\"}"]).ended(0);
    // Prometheus may compact what it finds, so it gets a copy of the source.
    let copy = temp_dir("source");
    link_tree(&source, &copy.path().join("data")).unwrap();
    answers_are_equal(&copy.path().join("data"), &back.path().join("data")).await;
    narthex(&["backfill", LABEL, &config, &format!("--path={}", source.display())]).ended(0);
}

async fn answers_are_equal(source: &Path, restored: &Path) {
    let start = async |data: &Path| {
        let options = Options {
            block: "2h",
            data: Some(data.to_owned()),
            scrape: false,
            ..Options::default()
        };
        Prometheus::start(&Tools::oldest(), options).await
    };
    let (source, restored) = (start(source).await, start(restored).await);
    let mut random = StdRng::seed_from_u64(5);
    let mut filled = 0;
    for _ in 0..QUERIES {
        let query = query(&mut random);
        let (here, there) = (ask(&source, &query).await, ask(&restored, &query).await);
        assert_eq!(here, there, "{query}");
        filled += usize::from(here["result"].as_array().is_some_and(|result| !result.is_empty()));
    }
    assert!(filled > QUERIES / 2, "only {filled} queries have an answer");
}

/// Path and parameters of a query, instant or over a range.
fn query(random: &mut StdRng) -> String {
    let family = format!("rig_{:04}", random.random_range(0..20));
    let instance = format!("instance=~\"10.0.0.{}.*\"", random.random_range(1..25));
    let text = match random.random_range(0..6) {
        0 => format!("{family}{{{instance}}}"),
        1 => format!("sum by (instance) ({family})"),
        2 => format!("rate({family}{{{instance}}}[1h])"),
        3 => format!("topk(5, max_over_time({family}[3h]))"),
        4 => format!("count({{__name__=~\"{family}|rig_0001\"}})"),
        _ => format!("quantile(0.9, {family} - {family} offset 1h)"),
    };
    let moment = BEGIN + random.random_range(0..SECONDS);
    let query: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    match random.random_range(0..3) {
        0 => format!("query?query={query}&time={moment}"),
        _ => {
            let end = moment + random.random_range(600..14_400);
            format!(
                "query_range?query={query}&start={moment}&end={end}&step={}",
                random.random_range(60..1200)
            )
        }
    }
}

async fn ask(prometheus: &Prometheus, query: &str) -> Value {
    let url = format!("{}/api/v1/{query}", prometheus.url());
    let (status, body) = http::get(&url).await.expect("Prometheus answers");
    assert!(status.is_success(), "{url}: {status}");
    let answer: Value = serde_json::from_slice(&body).expect("it is JSON");
    answer["data"].clone()
}
