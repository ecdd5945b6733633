//! A Prometheus that does not suit, or does not answer.

use serde_json::json;

use super::scene::{Scene, finds};
use crate::{
    bad_blocks::stage,
    prometheus::{
        agent,
        fake::{Answer, Fake},
    },
    rig::{Prometheus, Tools, prometheus::Options, tools::temp_dir},
};

/// The flags of a Prometheus that suits.
const FLAGS: [(&str, &str); 2] = [
    ("storage.tsdb.min-block-duration", "2h"),
    ("storage.tsdb.max-block-duration", "2h"),
];

/// A server that answers as a Prometheus of this version, with these flags beside [`FLAGS`] and this configuration.
fn server(version: &'static str, more: &[(&str, String)], yaml: &'static str) -> (Fake, Vec<String>) {
    let mut flags: serde_json::Map<String, serde_json::Value> = FLAGS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    flags.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str().into())),
    );
    let fake = Fake::start(move |path| {
        let data = match path {
            "/api/v1/status/flags" => json!(flags),
            "/api/v1/status/buildinfo" => json!({"version": version}),
            "/api/v1/status/config" => json!({"yaml": yaml}),
            _ => return Answer::Http(404, Vec::new()),
        };
        Answer::Http(200, json!({"status": "success", "data": data}).to_string().into_bytes())
    });
    let url = vec![format!("--prometheus.url=http://{}", fake.address)];
    (fake, url)
}

const LABELLED: &str = "global: {external_labels: {a: b}}\n";

fn with(scene: &Scene, more: &[String]) -> Vec<String> {
    [scene.flags(), more.to_vec()].concat()
}

#[tokio::test]
async fn what_does_not_answer_as_prometheus_does_is_told_by_how_it_answers() {
    let scene = Scene::new();
    finds(
        &scene.flags(),
        &["--prometheus.url=http://127.0.0.1:1"],
        &[("prometheus.reachable", "fail", "connection refused")],
    );
    for (code, check) in [
        (401, "prometheus.credentials"),
        (403, "prometheus.credentials"),
        (404, "prometheus.path"),
    ] {
        let fake = Fake::start(move |_| Answer::Http(code, Vec::new()));
        let url = format!("--prometheus.url=http://{}", fake.address);
        finds(&scene.flags(), &[&url], &[(check, "fail", &format!("status {code}"))]);
    }
    let page = Fake::start(|_| Answer::Http(200, b"<html>".to_vec()));
    let url = format!("--prometheus.url=http://{}", page.address);
    finds(&scene.flags(), &[&url], &[("prometheus.path", "fail", "not JSON")]);
    let mute = Fake::start(|_| Answer::Stall);
    let url = format!("--prometheus.url=http://{}", mute.address);
    finds(
        &scene.flags(),
        &["--prometheus.get_config_timeout=1s", &url],
        &[("prometheus.reachable", "fail", "no complete answer within 1s")],
    );
}

#[tokio::test]
async fn files_of_the_client_are_told_by_their_flag() {
    let scene = Scene::new();
    for (flag, part) in [
        ("--prometheus.http-client=basic_auth: [", "--prometheus.http-client"),
        ("--prometheus.http-client={tls_config: {ca_file: /none}}", "/none"),
        ("--prometheus.http-client-file=/none.yml", "/none.yml"),
    ] {
        finds(
            &scene.flags(),
            &[flag, "--no-prometheus"],
            &[("prometheus.client", "fail", part)],
        );
    }
}

#[tokio::test]
async fn versions_encodings_and_files_that_do_not_suit_are_told_by_name() {
    let scene = Scene::new();
    let delay = "storage.tsdb.delay-compact-file.path";
    let (_old, url) = server("2.30.0", &[], LABELLED);
    finds(&with(&scene, &url), &[], &[("prometheus.version", "warn", "2.30.0")]);
    let (_delayed, url) = server(
        "3.9.0",
        &[(delay, "/elsewhere/thanos.shipper.json".to_owned())],
        LABELLED,
    );
    finds(
        &with(&scene, &url),
        &[],
        &[("prometheus.delay-file", "fail", "/elsewhere/thanos.shipper.json")],
    );
    let ours = scene.data.path().join("thanos.shipper.json").display().to_string();
    let (_suits, url) = server("3.9.0", &[(delay, ours)], LABELLED);
    finds(&with(&scene, &url), &[], &[]);
    let xor2 = "global: {external_labels: {a: b}}\nstorage:\n  tsdb:\n    chunk_encoding: {floats: xor2}\n";
    let (_encodes, url) = server("3.13.0", &[], xor2);
    let flags = with(&scene, &url);
    finds(
        &flags,
        &["--shipper.newer-encodings=ship"],
        &[("prometheus.encodings", "warn", "xor2")],
    );
    // They are rewritten, and nothing is to be done.
    finds(&flags, &[], &[]);
}

#[tokio::test]
async fn flags_of_a_real_prometheus_that_do_not_suit_are_all_found_at_once() {
    let options = Options {
        block: "2h",
        external_labels: Vec::new(),
        scrape: false,
        lifecycle: false,
        scrape_configs: "  - job_name: none\nstorage:\n  tsdb:\n    out_of_order_time_window: 30m\n".to_owned(),
        args: [
            "--storage.tsdb.max-block-duration=4h",
            "--storage.tsdb.retention.time=5h",
            "--storage.remote.read-concurrent-limit=0",
        ]
        .map(str::to_owned)
        .into(),
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::newest(), options).await;
    let scene = Scene::new();
    let mut flags = with(&scene, &[format!("--prometheus.url={}", prometheus.url())]);
    // Another directory, which no Prometheus holds.
    let held = scene.data.path().display().to_string();
    flags.push(format!("--reloader.config-file={}", prometheus.config_file().display()));
    finds(
        &flags,
        &[],
        &[
            ("prometheus.labels", "fail", "no external labels"),
            ("prometheus.compaction", "fail", "max-block-duration=4h"),
            ("prometheus.retention", "warn", "5h"),
            ("prometheus.remote-read", "fail", "read-concurrent-limit=0"),
            ("prometheus.lifecycle", "fail", "--web.enable-lifecycle"),
            ("prometheus.out-of-order", "warn", "allow-overlapping-compaction"),
            ("data.prometheus", "fail", &held),
        ],
    );
    // What is told by a flag of ours is no fault of Prometheus', and labels come from us.
    let mended = [
        "--reloader.method=signal",
        "--shipper.hold-unshipped=1GiB",
        "--shipper.ignore-unequal-block-size",
        "--label=replica=$(POD_NAME)",
    ];
    finds(
        &flags,
        &mended,
        &[
            ("prometheus.label-values", "fail", "$(POD_NAME)"),
            ("prometheus.compaction", "warn", "ignore-unequal-block-size"),
            ("prometheus.remote-read", "fail", "read-concurrent-limit=0"),
            ("prometheus.out-of-order", "warn", "30m"),
            ("data.prometheus", "fail", "lock"),
        ],
    );
}

#[tokio::test]
async fn a_path_below_that_of_prometheus_and_one_remote_read_are_told() {
    let good = stage::prometheus().await;
    let scene = Scene::new();
    finds(
        &scene.flags(),
        &[&format!("--prometheus.url={}/prefix", good.url())],
        &[("prometheus.path", "fail", "status 404")],
    );
    let one = ("storage.remote.read-concurrent-limit", "1".to_owned());
    let (_one, url) = server("3.5.0", &[one], LABELLED);
    finds(
        &with(&scene, &url),
        &[],
        &[("prometheus.remote-read", "warn", "read-concurrent-limit=1")],
    );
}

#[tokio::test]
async fn an_agent_is_told() {
    let dir = temp_dir("agent");
    let (_agent, url) = agent::start(&Tools::oldest(), dir.path()).await;
    let scene = Scene::new();
    finds(
        &scene.flags(),
        &[&format!("--prometheus.url={url}")],
        &[("prometheus.mode", "warn", "agent mode")],
    );
}
