//! `deploy/dashboard.json`: it shows every metric of narthex' own, and a Prometheus that scrapes narthex answers each panel.

use std::{collections::BTreeSet, time::Duration};

use fs_err as fs;
use serde_json::Value;

use super::{pages, root, under};
use crate::{
    bad_blocks::stage::{PATIENCE, Stage, seal, sound},
    rig::{Prometheus, Tools, http, prometheus::Options, tools::temp_dir, wait::try_until},
};

/// What is there only when it has something to tell; the stage has none of it.
const ON_OCCASION: [&str; 8] = [
    "narthex_blocks_waiting",
    "narthex_compaction_blocked",
    "narthex_store_min_time_seconds",
    "narthex_tls_handshake_failures_total",
    "narthex_tracing_spans_dropped_total",
    "narthex_unuploaded_block_deletion_timestamp_seconds",
    "narthex_wal_durable_timestamp_seconds",
    "thanos_sidecar_reloader_last_reload_successful",
];

/// What the panels ask.
fn asked() -> Vec<String> {
    let text = fs::read_to_string(root().join("deploy/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut asked = Vec::new();
    under(&dashboard, "expr", &mut asked);
    assert!(asked.len() >= 60, "only {asked:?}");
    asked.into_iter().map(str::to_owned).collect()
}

#[test]
fn it_shows_every_metric_of_our_own() {
    let page = &pages()["docs/metrics.md"];
    let names: BTreeSet<&str> = page.split('`').filter(|word| word.starts_with("narthex_")).collect();
    let asked = asked().join("\n");
    let missing: Vec<_> = names.iter().filter(|name| !asked.contains(**name)).collect();
    assert!(names.len() >= 50 && missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn its_panels_do_not_overlap() {
    let text = fs::read_to_string(root().join("deploy/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y) = (place("x"), place("y"));
        for at in (y..y + place("h")).flat_map(|y| (x..x + place("w")).map(move |x| (x, y))) {
            assert!(at.0 < 24 && taken.insert(at), "{} overlaps at {at:?}", panel["title"]);
        }
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{} has no id of its own",
            panel["title"]
        );
    }
}

/// How many series Prometheus answers with; an error is told with the query.
async fn answered(prometheus: &Prometheus, query: &str) -> usize {
    let mut url = reqwest::Url::parse(&format!("{}/api/v1/query", prometheus.url())).unwrap();
    url.query_pairs_mut().append_pair("query", query);
    let answer = http::client().get(url).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{query}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["data"]["result"].as_array().unwrap().len()
}

#[tokio::test]
async fn prometheus_answers_every_panel() {
    let stage = Stage::start(&[]).await;
    seal(&sound(0), stage.dir(), |_| {});
    let durable = "narthex_durable_until_timestamp_seconds";
    stage.wait_for_metric(durable, &[], |time| time > 0.0).await;
    seal(&sound(1), stage.dir(), |dir| {
        fs::remove_file(dir.join("index")).unwrap()
    });
    let dir = temp_dir("dashboard");
    let targets = dir.path().join("targets.yml");
    let target = stage.sidecar.url().replace("http://", "");
    fs::write(&targets, format!("- targets: ['{target}']\n")).unwrap();
    let options = Options {
        scrape_configs: format!(
            "  - job_name: narthex\n    scrape_interval: 1s\n    file_sd_configs: [{{files: ['{}']}}]\n",
            targets.display()
        ),
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::newest(), options).await;
    // Two scrapes of what comes last: then all else has been there twice.
    let ready = "count_over_time(narthex_quarantined_blocks{reason=\"index\"}[1m]) >= 2";
    let scraped = async || (answered(&prometheus, ready).await > 0).then_some(());
    try_until(PATIENCE, scraped).await.expect("narthex is scraped");
    tokio::time::timeout(Duration::from_secs(120), async {
        for expr in asked() {
            let query = expr
                .replace("$__rate_interval", "1m")
                .replace("$job", ".*")
                .replace("$instance", ".*");
            let count = answered(&prometheus, &query).await;
            let may_be_empty = ON_OCCASION.iter().any(|name| expr.contains(name));
            assert!(count > 0 || may_be_empty, "no answer: {query}");
        }
    })
    .await
    .expect("in time");
}
