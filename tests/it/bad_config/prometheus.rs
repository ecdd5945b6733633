//! A Prometheus that is not there, has no labels, or has flags that do not suit: narthex goes on, reports it, and uploads
//! what it can.

use serde_json::{Value, json};

use super::{PATIENCE, args, bucket, log_line, prometheus, seal, sound, wait_for_log};
use crate::{
    prometheus::fake::{Answer, Fake},
    rig::{BucketView, Prometheus, Sidecar, Tools, http, process::free_port, prometheus::Options, tools::temp_dir},
    series_faults::scene::Client,
};

/// Waits until it says why it is not ready in words that hold all of these, in the header and in the log.
async fn wait_for_reason(sidecar: &Sidecar, parts: &[&str]) {
    let url = format!("{}/-/ready", sidecar.url());
    let reason = async || {
        let answer = http::client().get(&url).send().await.ok()?;
        let reason = answer.headers().get("x-narthex-reason")?.to_str().ok()?.to_owned();
        (answer.status() == 503 && parts.iter().all(|part| reason.contains(part))).then_some(())
    };
    sidecar
        .wait_until(PATIENCE, format!("not ready because of {parts:?}"), reason)
        .await;
    wait_for_log(sidecar, &[&["not ready"], parts].concat()).await;
    assert!(http::ok(&format!("{}/-/healthy", sidecar.url())).await);
}

async fn wait_for_visible(sidecar: &Sidecar, bucket: &BucketView, ids: &[&str]) {
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    let visible = async || (bucket.visible().await == expected).then_some(());
    sidecar
        .wait_until(PATIENCE, format!("{ids:?} are visible"), visible)
        .await;
}

#[tokio::test]
async fn without_a_prometheus_blocks_wait_and_the_reason_is_told() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let nowhere = format!("--prometheus.url=http://127.0.0.1:{}", free_port());
    let mut words = args(prometheus().await, data.path(), &bucket, &[]);
    words[0] = nowhere.clone();
    let sidecar = Sidecar::start(words);
    let (_, url) = nowhere.split_once('=').unwrap();
    wait_for_reason(&sidecar, &[url, "connection refused", "--prometheus.url"]).await;
    // The ledger comes before any block, and without a Prometheus: that may plan a compaction as soon as it is up.
    let ledger = data.path().join("thanos.shipper.json");
    let listed = async || (crate::bad_blocks::stage::listed(&ledger) == Some(Vec::new())).then_some(());
    sidecar.wait_until(PATIENCE, "an empty ledger", listed).await;
    seal(&sound(0), data.path(), |_| {});
    let waits = async || (sidecar.metric("narthex_unuploaded_blocks").await? == 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "the block is counted", waits).await;
    wait_for_log(&sidecar, &["blocks wait", "external labels are not known yet"]).await;
    assert!(bucket.list().await.is_empty());
    assert_eq!(sidecar.metric("thanos_sidecar_prometheus_up").await, Some(0.0));
    assert!(sidecar.exited().is_none());
}

#[tokio::test]
async fn labels_may_come_late_and_change() {
    let options = Options {
        scrape: false,
        external_labels: Vec::new(),
        ..Options::default()
    };
    let mut prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let more = ["--prometheus.ready_timeout=1s"];
    let sidecar = Sidecar::start(args(&prometheus, data.path(), &bucket, &more));
    wait_for_reason(&sidecar, &["no external labels", "global.external_labels", "--label"]).await;
    let first = seal(&sound(0), data.path(), |_| {});
    let waits = async || (sidecar.metric("narthex_unuploaded_blocks").await? == 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "the block is counted", waits).await;
    // Thanos would exit here.
    wait_for_log(
        &sidecar,
        &["level=error", "still no external labels", "--prometheus.ready_timeout"],
    )
    .await;
    assert!(bucket.list().await.is_empty());
    assert_eq!(sidecar.metric("narthex_configuration_errors").await, Some(1.0));

    prometheus.set_external_labels(&[("cluster", "a")]).await;
    wait_for_visible(&sidecar, &bucket, &[&first]).await;
    sidecar.wait_ready(PATIENCE).await;

    prometheus.set_external_labels(&[("cluster", "b \"quoted\"")]).await;
    let change = [
        "level=warn",
        "external labels have changed",
        r#"old="{cluster=\"a\"}""#,
        "quoted",
    ];
    wait_for_log(&sidecar, &change).await;
    let second = seal(&sound(1), data.path(), |_| {});
    wait_for_visible(&sidecar, &bucket, &[&first, &second]).await;
    for (id, value) in [(&first, "a"), (&second, "b \"quoted\"")] {
        bucket::check(&bucket, id, &data.path().join(id)).await.unwrap();
        let meta = bucket.read_json(&format!("{id}/meta.json")).await;
        assert_eq!(meta.pointer("/thanos/labels"), Some(&json!({"cluster": value})), "{id}");
    }

    // Labels that go away again: what was sealed meanwhile waits for new ones.
    prometheus.set_external_labels(&[]).await;
    wait_for_reason(&sidecar, &["no external labels", "queries are refused"]).await;
    wait_for_log(
        &sidecar,
        &["level=warn", "external labels have changed; there are none now"],
    )
    .await;
    // Nobody could tell whose series these are.
    let refused = Client::connect(&sidecar)
        .await
        .ask("any")
        .await
        .failed("without labels");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("no external labels now"), "{refused}");
    let third = seal(&sound(2), data.path(), |_| {});
    sidecar.wait_until(PATIENCE, "the block is counted", waits).await;
    assert_eq!(bucket.visible().await.len(), 2);
    prometheus.set_external_labels(&[("cluster", "c")]).await;
    wait_for_visible(&sidecar, &bucket, &[&first, &second, &third]).await;
    assert!(sidecar.exited().is_none());
}

#[tokio::test]
async fn unequal_block_durations_make_it_not_ready_and_stop_no_block() {
    let options = Options {
        block: "2h",
        scrape: false,
        args: vec!["--storage.tsdb.max-block-duration=4h".to_owned()],
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let sidecar = Sidecar::start(args(&prometheus, data.path(), &bucket, &[]));
    let ledger = data.path().join("thanos.shipper.json").display().to_string();
    wait_for_reason(
        &sidecar,
        &[
            "--storage.tsdb.min-block-duration=2h",
            "--storage.tsdb.max-block-duration=4h",
            &format!("--storage.tsdb.delay-compact-file.path={ledger}"),
        ],
    )
    .await;
    let id = seal(&sound(0), data.path(), |_| {});
    wait_for_visible(&sidecar, &bucket, &[&id]).await;
    bucket::check(&bucket, &id, &data.path().join(&id)).await.unwrap();
    assert!(!sidecar.ready().await);
    assert_eq!(sidecar.metric("narthex_configuration_errors").await, Some(1.0));
    // As in Thanos it is up when it answers.
    assert_eq!(sidecar.metric("thanos_sidecar_prometheus_up").await, Some(1.0));
}

/// The answers of a real Prometheus, with flags of ours over its own: no version at hand has the one for the ledger.
async fn with_flags(prometheus: &Prometheus, flags: Value) -> Fake {
    with_answers(prometheus, flags, 404).await
}

/// The same with this status for everything else, the metrics page among it.
async fn with_answers(prometheus: &Prometheus, flags: Value, other: u16) -> Fake {
    let mut answers = Vec::new();
    for path in [
        "/api/v1/status/flags",
        "/api/v1/status/buildinfo",
        "/api/v1/status/config",
        "/-/ready",
    ] {
        let (status, body) = http::get(&format!("{}{path}", prometheus.url())).await.unwrap();
        assert_eq!(status, 200, "{path}");
        let mut body = body.to_vec();
        if path.ends_with("/flags") {
            let mut answer: Value = serde_json::from_slice(&body).unwrap();
            for (name, value) in flags.as_object().unwrap() {
                answer["data"][name] = value.clone();
            }
            body = serde_json::to_vec(&answer).unwrap();
        }
        answers.push((path, body));
    }
    Fake::start(move |path| match answers.iter().find(|(known, _)| *known == path) {
        Some((_, body)) => Answer::Http(200, body.clone()),
        None => Answer::Http(other, Vec::new()),
    })
}

#[tokio::test]
async fn a_guarded_metrics_page_costs_the_lowest_time_only() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let prometheus = prometheus().await;
    let fake = with_answers(prometheus, json!({}), 403).await;
    let mut words = args(prometheus, data.path(), &bucket, &[]);
    words[0] = format!("--prometheus.url={}", fake.url());
    let sidecar = Sidecar::start(words);
    sidecar.wait_ready(PATIENCE).await;
    let passed = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "a pass", passed).await;
    let id = seal(&sound(0), data.path(), |_| {});
    wait_for_visible(&sidecar, &bucket, &[&id]).await;
    assert_eq!(sidecar.metric("thanos_sidecar_prometheus_up").await, Some(1.0));
    assert!(sidecar.ready().await);
    let log = sidecar.log();
    assert_eq!(log.matches("own metrics cannot be read").count(), 1, "{log}");
    assert!(log_line(&sidecar, &["level=warn", "/metrics: status 403"]).is_some());
}

#[tokio::test]
async fn a_prometheus_that_waits_for_another_ledger_is_told() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let prometheus = prometheus().await;
    let flag = "storage.tsdb.delay-compact-file.path";
    let ledger = data.path().join("thanos.shipper.json").display().to_string();
    for (path, fits) in [
        ("/prometheus/thanos.shipper.json".to_owned(), false),
        (ledger.clone(), true),
    ] {
        let fake = with_flags(
            prometheus,
            json!({flag: path, "storage.tsdb.max-block-duration": "36h"}),
        )
        .await;
        let mut words = args(prometheus, data.path(), &bucket, &[]);
        words[0] = format!("--prometheus.url={}", fake.url());
        let sidecar = Sidecar::start(words);
        if fits {
            sidecar.wait_ready(PATIENCE).await;
            assert_eq!(log_line(&sidecar, &["level=error"]), None);
        } else {
            wait_for_reason(&sidecar, &[&path, &format!("--{flag}={ledger}"), "--tsdb.path"]).await;
            let passed = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
            sidecar.wait_until(PATIENCE, "a pass", passed).await;
            let id = seal(&sound(0), data.path(), |_| {});
            wait_for_visible(&sidecar, &bucket, &[&id]).await;
        }
    }
}
