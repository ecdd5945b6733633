//! What Prometheus tells of its storage: by name, and on its page.

use std::time::Duration;

use narthex::prometheus::{Storage, version::at_least};
use serde_json::json;

use super::{
    LONG,
    client::{client, plain},
    fake::{Answer, Fake},
};
use crate::rig::{Prometheus, Tools, prometheus::Options};

#[tokio::test]
async fn looks_a_metrics_page_through_without_holding_it() {
    let sample =
        "# TYPE prometheus_tsdb_lowest_timestamp_seconds gauge\nprometheus_tsdb_lowest_timestamp_seconds 1.5\n";
    let failures = "prometheus_tsdb_reloads_failures_total 3\n";
    let page = format!(
        "{}{sample}{}{failures}{}",
        "a{b=\"c\"} 1\n".repeat(100_000),
        "d 1\n".repeat(100_000),
        "x".repeat(100_000)
    );
    let fake = Fake::start(move |_| Answer::Http(200, page.clone().into()));
    let told = Storage {
        lowest_time_ms: 1_500,
        reload_failures: Some(3),
        ..Storage::default()
    };
    assert_eq!(plain(&fake).storage("3.11.9").await.unwrap(), told);
    let head = fake.last_head().to_lowercase();
    assert!(
        head.starts_with("get /metrics http/1.1\r\n") && !head.contains("openmetrics") && !head.contains("protobuf"),
        "{head}"
    );
    assert_eq!(fake.heads().len(), 1, "both are read from one answer");
    fake.answer(|_| Answer::Http(404, Vec::new()));
    assert_eq!(plain(&fake).storage("3.11.9").await.unwrap(), Storage::default());
    let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{sample}");
    for answer in [Answer::Http(503, Vec::new()), Answer::Raw(cut.into())] {
        fake.answer(move |_| answer.clone());
        assert!(plain(&fake).storage("3.11.9").await.is_err());
    }
}

/// What one tells of metrics by name.
const BY_NAME: &str = "/api/v1/status/self_metrics?metric_name_pattern=prometheus_tsdb_lowest_timestamp_seconds%7C\
                       prometheus_tsdb_head_min_time%7Cprometheus_tsdb_head_max_time%7C\
                       prometheus_tsdb_blocks_loaded%7Cprometheus_tsdb_storage_blocks_bytes%7C\
                       prometheus_tsdb_reloads_failures_total";

fn page() -> Answer {
    let text = "# TYPE prometheus_tsdb_lowest_timestamp_seconds gauge\nprometheus_tsdb_lowest_timestamp_seconds 2.5\n";
    Answer::Http(200, text.into())
}

#[tokio::test]
async fn from_3_12_on_metrics_are_asked_for_by_name_and_the_page_is_left_alone() {
    let answer = |path: &str| {
        let family = |name: &str, kind: &str, value: u32| json!({"name": name, "metric": [{kind: {"value": value}}]});
        let data = [
            family("prometheus_tsdb_blocks_loaded", "gauge", 2),
            family("prometheus_tsdb_head_max_time", "gauge", 1900),
            family("prometheus_tsdb_head_min_time", "gauge", 1700),
            family("prometheus_tsdb_lowest_timestamp_seconds", "gauge", 1),
            family("prometheus_tsdb_reloads_failures_total", "counter", 3),
            family("prometheus_tsdb_storage_blocks_bytes", "gauge", 4096),
        ];
        match path {
            BY_NAME => Answer::Http(200, json!({"status": "success", "data": data}).to_string().into()),
            _ => page(),
        }
    };
    let fake = Fake::start(answer);
    let told = Storage {
        lowest_time_ms: 1000,
        head_min_time_ms: Some(1700),
        head_max_time_ms: Some(1900),
        blocks_loaded: Some(2),
        blocks_bytes: Some(4096),
        reload_failures: Some(3),
    };
    assert_eq!(plain(&fake).storage("3.12.0").await.unwrap(), told);
    assert_eq!(fake.heads().len(), 1);
    assert_eq!(plain(&fake).storage("3.11.9").await.unwrap().lowest_time_ms, 2500);
    assert_eq!(fake.heads().len(), 2);
}

#[tokio::test]
async fn where_metrics_cannot_be_had_by_name_the_page_is_read() {
    for refusal in [
        Answer::Http(404, Vec::new()),
        Answer::Http(403, Vec::new()),
        Answer::Http(500, Vec::new()),
        Answer::Http(200, b"<html>".to_vec()),
        Answer::Http(200, vec![b' '; 2 << 20]),
    ] {
        let fake = Fake::start(move |path| if path == "/metrics" { page() } else { refusal.clone() });
        assert_eq!(plain(&fake).storage("3.14.0").await.unwrap().lowest_time_ms, 2500);
        assert_eq!(fake.heads().len(), 2);
    }
    // One that does not answer is asked once.
    let fake = Fake::start(|_| Answer::Stall);
    let error = client(&fake.url(), "", Duration::from_millis(200))
        .storage("3.14.0")
        .await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("/self_metrics: no complete answer")
    );
    assert_eq!(fake.heads().len(), 1);
}

#[tokio::test]
async fn a_real_prometheus_tells_the_same_by_name_and_on_its_page() {
    for leg in Tools::find().legs {
        let options = Options {
            scrape: false,
            block: "2h",
            ..Options::default()
        };
        let server = Prometheus::start(&leg, options).await;
        let client = client(&server.url().parse().unwrap(), "", LONG);
        let version = client.build_version().await.unwrap();
        let (told, page) = (
            client.storage(&version).await.unwrap(),
            client.storage("0").await.unwrap(),
        );
        let empty = Storage {
            lowest_time_ms: i64::MIN,
            head_min_time_ms: Some(i64::MAX),
            head_max_time_ms: Some(i64::MIN),
            blocks_loaded: Some(0),
            blocks_bytes: Some(0),
            reload_failures: Some(0),
        };
        assert_eq!(
            (told, page),
            (empty, empty),
            "{version}, by name: {}",
            at_least(&version, 3, 12)
        );
    }
}
