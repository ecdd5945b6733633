//! Answers of Prometheus that are large, or made to be: what they take of our memory, and of the thread that serves all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use narthex::{
    pb::thanos::{
        RulesRequest, TargetsRequest,
        info::{InfoRequest, info_client::InfoClient},
        rule,
        rules_client::RulesClient,
        rules_response,
        targets_client::TargetsClient,
        targets_response,
    },
    storeapi::budget::Budget,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{
    api::{every_service, fake, success, text},
    stage::{PATIENCE, Scene, all},
};
use crate::{
    prometheus::fake::Answer,
    rig::{Prometheus, Tools, http, limit::turn, prometheus::Options, wait_until},
};

/// Labels of a target as Kubernetes has them: more than anybody needs.
const NAMES: usize = 26;

fn name(at: usize) -> String {
    format!("__meta_kubernetes_pod_annotation_example_com_name_{at:02}")
}

fn dropped(at: usize) -> Value {
    let value = format!("{at:08}-{}", "value".repeat(16));
    let labels = (0..NAMES).map(|at| (name(at), Value::from(value.clone())));
    json!({"discoveredLabels": Value::from_iter(labels), "scrapePool": "pods"})
}

/// An answer with so many dropped targets.
fn targets(count: usize) -> Answer {
    let dropped: Vec<Value> = (0..count).map(dropped).collect();
    success(json!({"activeTargets": [], "droppedTargets": dropped, "droppedTargetCounts": {"pods": count}}))
}

fn size(answer: &Answer) -> usize {
    match answer {
        Answer::Http(_, body) => body.len(),
        other => panic!("no body: {other:?}"),
    }
}

async fn targets_of(scene: &Scene) -> Result<usize, Status> {
    let mut client = TargetsClient::new(scene.channel.clone()).max_decoding_message_size(1 << 30);
    let mut messages = all(client.targets(TargetsRequest::default()).await).await?;
    assert_eq!(messages.len(), 1);
    match messages.remove(0).result {
        Some(targets_response::Result::Targets(found)) => {
            for target in &found.dropped_targets {
                let labels = &target.discovered_labels.as_ref().unwrap().labels;
                assert!(labels.len() >= NAMES + 2, "{labels:?}");
            }
            Ok(found.dropped_targets.len())
        }
        other => panic!("no targets: {other:?}"),
    }
}

#[tokio::test]
async fn info_is_answered_again_and_again_while_more_than_64_mib_of_targets_are_read() {
    let _turn = turn().await;
    let answer = targets(20_000);
    assert!(size(&answer) > 64 << 20, "{}", size(&answer));
    let fake = fake("2.42.0", move |_| answer.clone());
    let scene = Arc::new(Scene::before(fake.url().as_str()).await);
    let ended = Arc::new(AtomicBool::new(false));
    let call = tokio::spawn({
        let (scene, ended) = (Arc::clone(&scene), Arc::clone(&ended));
        async move {
            let found = targets_of(&scene).await;
            ended.store(true, Ordering::SeqCst);
            found
        }
    });
    let mut client = InfoClient::new(scene.channel.clone());
    let mut answered = 0;
    while !ended.load(Ordering::SeqCst) {
        client.info(InfoRequest {}).await.unwrap();
        // Those before the request and after it would show nothing.
        answered += usize::from(scene.requests("others").1 == 1.0);
    }
    assert_eq!(call.await.unwrap().unwrap(), 20_000);
    // The answer is read in some 130 pieces.
    assert!(answered > 50, "Info was answered {answered} times meanwhile");
    wait_until(PATIENCE, "the memory is given back", async || {
        (scene.context.budget.used() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn twenty_thousand_targets_that_a_real_prometheus_has_dropped_are_answered() {
    let targets: Vec<String> = (0..20_000).map(|at| format!("dropped-{at}:1")).collect();
    let labels: Vec<String> = (0..NAMES)
        .map(|at| format!("{}: {}", name(at), "value".repeat(16)))
        .collect();
    let scrape_configs = format!(
        "  - job_name: pods\n    static_configs:\n      - targets: [{}]\n        labels: {{{}}}\n    relabel_configs:\n      \
         - source_labels: [__address__]\n        regex: 'dropped.*'\n        action: drop\n",
        targets.join(", "),
        labels.join(", ")
    );
    let options = Options {
        block: "2h",
        scrape: false,
        scrape_configs,
        ..Options::default()
    };
    let leg = Tools::newest();
    let prometheus = Prometheus::start(&leg, options).await;
    let scene = Scene::before(&prometheus.url()).await;
    wait_until(PATIENCE, "all targets", async || {
        (targets_of(&scene).await.unwrap() == 20_000).then_some(())
    })
    .await;
    let url = format!("{}/api/v1/targets", prometheus.url());
    let (_, answer) = http::get(&url).await.unwrap();
    assert!(answer.len() > 64 << 20, "{}", answer.len());
}

#[tokio::test]
async fn beyond_the_memory_of_all_calls_it_is_said_what_to_do() {
    let fake = fake("2.42.0", |path| {
        let many = || 0..20_000;
        match path.split('?').next().unwrap() {
            "/api/v1/targets" => targets(1000),
            "/api/v1/rules" => {
                let alerts: Vec<Value> = many().map(|at| json!({"labels": {"a": name(at)}})).collect();
                success(json!({"groups": [{"rules": [{"type": "alerting", "alerts": alerts}]}]}))
            }
            "/api/v1/metadata" => {
                let metas = many().map(|at| (name(at), json!([{"help": "h"}])));
                success(Value::from_iter(metas))
            }
            "/api/v1/query_exemplars" => {
                let series: Vec<Value> = many().map(|at| json!({"seriesLabels": {"a": name(at)}})).collect();
                success(series.into())
            }
            "/api/v1/status/tsdb" => {
                let list: Vec<Value> = many().map(|at| json!({"name": name(at), "value": 1})).collect();
                success(json!({"headStats": {}, "seriesCountByMetricName": list}))
            }
            "/api/v1/series" => success(json!([{"a": "x".repeat(1 << 20)}])),
            _ => success(many().map(name).collect::<Vec<_>>().into()),
        }
    });
    let scene = Scene::before(fake.url().as_str()).await;
    let tight = scene.but(|context| context.budget = Budget::new(1 << 20)).await;
    for (service, found) in every_service(&tight).await {
        let error = found.expect_err(service);
        assert_eq!(error.code(), Code::ResourceExhausted, "{service}: {error}");
        let told = error.message();
        assert!(
            told.contains("--store.memory-limit") && told.contains("select less"),
            "{service}: {told}"
        );
        assert_eq!(tight.context.budget.used(), 0, "{service}");
    }
    let wide = scene.but(|context| context.budget = Budget::new(64 << 20)).await;
    for (service, found) in every_service(&wide).await {
        found.unwrap_or_else(|error| panic!("{service}: {error}"));
    }
}

#[tokio::test]
async fn an_answer_without_an_end_takes_no_more_than_there_is() {
    for (path, begin) in [
        (
            "/api/v1/targets",
            r#"{"data":{"droppedTargets":[{"discoveredLabels":{""#,
        ),
        (
            "/api/v1/rules",
            r#"{"data":{"groups":[{"rules":[{"alerts":[{"labels":{""#,
        ),
        ("/api/v1/metadata", r#"{"data":{""#),
        ("/api/v1/query_exemplars", r#"{"data":[{"exemplars":[{"labels":""#),
        ("/api/v1/status/tsdb", r#"{"data":{"seriesCountByMetricName":[""#),
        ("/api/v1/labels", r#"{"data":[""#),
        ("/api/v1/label/z/values", r#"{"data":[""#),
        ("/api/v1/series", r#"{"data":[{""#),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n\r\n{begin}");
        let fake = fake("2.42.0", move |asked| match asked.starts_with(path) {
            true => Answer::Endless(head.clone().into(), Duration::ZERO),
            false => text(204, ""),
        });
        let scene = Scene::before(fake.url().as_str()).await;
        let scene = scene.but(|context| context.budget = Budget::new(4 << 20)).await;
        let failed: Vec<_> = every_service(&scene)
            .await
            .into_iter()
            .filter_map(|(service, found)| Some((service, found.err()?)))
            .collect();
        let exhausted: Vec<_> = failed
            .iter()
            .filter(|(_, error)| error.code() == Code::ResourceExhausted)
            .collect();
        assert_eq!(exhausted.len(), 1, "{path}: {failed:?}");
        assert_eq!(scene.context.budget.used(), 0, "{path}");
    }
}

#[tokio::test]
async fn elements_without_number_and_nesting_without_end_cost_the_call_only() {
    let nothing = "{},".repeat(1 << 20);
    let many = format!(r#"{{"status":"success","data":{{"droppedTargets":[{nothing}{{}}]}}}}"#);
    let deep = "[".repeat(1 << 20);
    let deep = format!(r#"{{"status":"success","data":{{"droppedTargets":[{{"discoveredLabels":{deep}"#);
    for (answer, code) in [(many, Code::ResourceExhausted), (deep, Code::Internal)] {
        let fake = fake("2.42.0", move |_| text(200, &answer));
        let scene = Scene::before(fake.url().as_str()).await;
        let scene = scene.but(|context| context.budget = Budget::new(32 << 20)).await;
        let error = targets_of(&scene).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(scene.context.budget.used(), 0);
    }
}

#[tokio::test]
async fn one_group_may_have_many_rules_and_one_rule_many_alerts() {
    let alerts: Vec<Value> = (0..30_000)
        .map(|at| json!({"labels": {"alertname": "Many", "at": at.to_string()}, "state": "firing", "value": "1e+00"}))
        .collect();
    let mut rules: Vec<Value> = (0..5000)
        .map(|at| json!({"type": "recording", "name": format!("rule:{at}"), "query": "up"}))
        .collect();
    rules.push(json!({"type": "alerting", "name": "Many", "query": "up", "alerts": alerts}));
    let answer = success(json!({"groups": [{"name": "one", "file": "f", "rules": rules, "interval": 15}]}));
    let fake = fake("3.5.0", move |_| answer.clone());
    let scene = Scene::before(fake.url().as_str()).await;
    let mut client = RulesClient::new(scene.channel.clone()).max_decoding_message_size(1 << 30);
    let mut found = all(client.rules(RulesRequest::default()).await).await.unwrap();
    assert_eq!(found.len(), 1);
    let Some(rules_response::Result::Group(group)) = found.remove(0).result else {
        panic!("no group");
    };
    assert_eq!((&*group.name, group.rules.len(), group.interval), ("one", 5001, 15.0));
    let Some(rule::Result::Alert(alert)) = &group.rules[5000].result else {
        panic!("no alert");
    };
    let last = alert.alerts[29_999].labels.as_ref().unwrap();
    let last: Vec<_> = last
        .labels
        .iter()
        .map(|label| format!("{}={}", label.name, label.value))
        .collect();
    assert_eq!(last, ["alertname=Many", "at=29999", "cluster=eu", "replica=0"]);
}
