//! The status page, `/api/v1/status` and `narthex status`, on real parts: what they say is held against Prometheus, the files of
//! the blocks and the bucket; how the page looks, against a real Chromium.

mod look;

use std::{collections::BTreeSet, path::Path, time::Duration};

use fs_err as fs;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::{
    BucketView, Prometheus, Sidecar, Tools, blocks, http, one_shot, prometheus::Options, tools::temp_dir, wait_until,
};

const SOON: Duration = Duration::from_secs(60);

/// A Prometheus that seals nothing while a test runs.
async fn quiet() -> Prometheus {
    let options = Options {
        block: "2h",
        ..Options::default()
    };
    Prometheus::start(&Tools::newest(), options).await
}

/// `None` while it does not serve yet.
async fn status(sidecar: &Sidecar) -> Option<Value> {
    let (code, body) = http::get(&format!("{}/api/v1/status", sidecar.url())).await?;
    assert_eq!(code, StatusCode::OK);
    Some(serde_json::from_slice(&body).unwrap())
}

async fn page(sidecar: &Sidecar) -> String {
    let (code, body) = http::get(&sidecar.url()).await.unwrap();
    assert_eq!(code, StatusCode::OK);
    String::from_utf8(body.into()).unwrap()
}

/// The status, once it is as `wanted`.
async fn status_when(sidecar: &Sidecar, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    sidecar
        .wait_until(SOON, what, async || status(sidecar).await.filter(&wanted))
        .await
}

fn states(status: &Value) -> Vec<&str> {
    let blocks = status["shipping"]["blocks"].as_array().unwrap();
    blocks.iter().map(|block| block["state"].as_str().unwrap()).collect()
}

/// What the files of a block take.
fn bytes_of(block: &Path) -> u64 {
    let files = |dir: &Path| -> u64 {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    files(block) + files(&block.join("chunks"))
}

#[tokio::test]
async fn it_says_of_each_block_what_its_files_say_and_where_it_is() {
    let prometheus = quiet().await;
    let (whole, bucket) = (blocks::generate(blocks::Spec::small(0)), temp_dir("bucket"));
    let id = blocks::place(&whole, prometheus.data());
    let broken = blocks::copy_without_index(&blocks::generate(blocks::Spec::small(1)), prometheus.data());
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &BucketView::dir(bucket.path()).config()));
    let mut wanted = ["durable", "set_aside"];
    wanted.sort_unstable();
    let status = status_when(&sidecar, "both blocks are judged", |status| {
        let mut states = states(status);
        states.sort_unstable();
        states == wanted && status["prometheus"]["up"] == true
    })
    .await;
    let block = |id: &str| {
        let blocks = status["shipping"]["blocks"].as_array().unwrap();
        blocks.iter().find(|block| block["id"] == id).unwrap()
    };
    let meta: Value = serde_json::from_slice(&fs::read(whole.join("meta.json")).unwrap()).unwrap();
    let found = block(&id);
    assert_eq!(found["min_time_ms"], meta["minTime"]);
    assert_eq!(found["max_time_ms"], meta["maxTime"]);
    assert_eq!(found["series"], meta["stats"]["numSeries"]);
    assert_eq!(found["samples"], meta["stats"]["numSamples"]);
    assert_eq!(found["level"], meta["compaction"]["level"]);
    assert_eq!(found["bytes"], bytes_of(&prometheus.data().join(&id)));
    assert_eq!((&found["content"], &found["reason"]), (&json!(["plain"]), &json!("")));
    let found = block(&broken);
    assert!(found["reason"].as_str().unwrap().contains("index"), "{found}");
    let shipping = &status["shipping"];
    assert_eq!(
        (&shipping["state"], &shipping["not_durable"]),
        (&json!("on"), &json!(1))
    );
    // The broken block is the later one: what is before it is safe.
    assert_eq!(shipping["durable_until_ms"], meta["maxTime"]);
    let version = status["prometheus"]["version"].as_str().unwrap();
    assert!(version.starts_with(prometheus.version()), "{version}");
    assert_eq!(
        status["prometheus"]["labels"],
        json!({"cluster": "rig", "replica": "0"})
    );
    assert_eq!(
        status["prometheus"]["flags"]["storage.remote.read-concurrent-limit"],
        "10"
    );
    assert_eq!(status["queries"]["slots"], 9, "one is left to others");
    let messages = status["messages"].as_array().unwrap();
    let of_broken = messages.iter().filter(|message| {
        let fields = message["fields"].as_array().unwrap();
        message["level"] == "error" && fields.contains(&json!(["block", broken]))
    });
    assert_eq!(of_broken.count(), 1, "{messages:#?}");
    let page = page(&sidecar).await;
    for text in [&*id, &broken, "set aside", "Blocks need your attention", "cluster"] {
        assert!(page.contains(text), "{text}");
    }
}

/// The keys of a document, on every level; those of labels, flags and fields are names of others.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                found.insert(key.clone());
                if !matches!(&**key, "labels" | "flags" | "fields") || value.is_array() {
                    keys(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_document_is_described_and_what_is_described_is_a_key() {
    let full = narthex::status::Status {
        shipping: narthex::status::Shipping {
            blocks: vec![Default::default()],
            uploads: vec![Default::default()],
            ..Default::default()
        },
        queries: narthex::status::Queries {
            calls: vec![Default::default()],
            sealed: narthex::status::Sealed {
                doubts: vec![Default::default()],
                ..Default::default()
            },
            ..Default::default()
        },
        messages: vec![Default::default()],
        flags: vec![Default::default()],
        configuration: vec![Default::default()],
        ..Default::default()
    };
    let mut wanted = BTreeSet::new();
    keys(&serde_json::from_str(&full.to_json().unwrap()).unwrap(), &mut wanted);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status.md")).unwrap();
    let (_, part) = page.split_once("| Part | Keys |").unwrap();
    let spans = part.split('`').skip(1).step_by(2);
    let is_key = |span: &&str| span.chars().all(|char| char.is_ascii_lowercase() || char == '_');
    let others = [
        "on",
        "not_configured",
        "empty_configuration",
        "null",
        "narthex_shipped_block_content_total",
        "off",
        "paused",
        "narthex_series_calls_to_prometheus_total",
    ];
    let described = spans
        .filter(is_key)
        .filter(|span| !others.contains(span))
        .map(str::to_owned);
    assert_eq!(described.collect::<BTreeSet<_>>(), wanted);
}

#[tokio::test]
async fn an_upload_under_way_is_shown_with_what_was_sent_of_it() {
    let (prometheus, bucket) = (quiet().await, temp_dir("bucket"));
    let spec = blocks::Spec {
        series: 2000,
        ..blocks::Spec::small(2)
    };
    let id = blocks::place(&blocks::generate(spec), prometheus.data());
    let mut flags = Sidecar::flags(&prometheus, &BucketView::dir(bucket.path()).config());
    // It does not end while anybody looks.
    flags.push("--shipper.max-rate=1KiB".to_owned());
    let sidecar = Sidecar::start(flags);
    let sent = |status: &Value| status["shipping"]["uploads"][0]["sent_bytes"].as_u64();
    let first = status_when(&sidecar, "some bytes are sent", |status| sent(status).unwrap_or(0) > 0).await;
    let upload = &first["shipping"]["uploads"][0];
    let meta = fs::metadata(prometheus.data().join(&id).join("meta.json"))
        .unwrap()
        .len();
    let tombstones = fs::metadata(prometheus.data().join(&id).join("tombstones"))
        .unwrap()
        .len();
    let total = bytes_of(&prometheus.data().join(&id)) - meta - tombstones;
    assert_eq!((&upload["block"], &upload["total_bytes"]), (&json!(id), &json!(total)));
    assert!(sent(&first) < Some(total), "{upload}");
    assert_eq!(states(&first), ["uploading"]);
    let later = status_when(&sidecar, "more is sent", |status| sent(status) > sent(&first)).await;
    assert!(
        later["shipping"]["uploads"][0]["bytes_per_second"].as_f64() > Some(0.0),
        "{later}"
    );
    assert!(page(&sidecar).await.contains("Uploads under way"));
}

#[tokio::test]
async fn nothing_secret_is_on_it_and_it_is_guarded_like_everything() {
    let dir = temp_dir("secrets");
    let (bucket, client, web) = (
        dir.path().join("bucket.yaml"),
        dir.path().join("client.yaml"),
        dir.path().join("web.yml"),
    );
    fs::write(
        &bucket,
        "type: S3\nconfig: {bucket: metrics, endpoint: 127.0.0.1:1, insecure: true, access_key: 8642135799, secret_key: hunter2}\n",
    )
    .unwrap();
    fs::write(&client, "basic_auth: {username: narthex, password: 86421357}\n").unwrap();
    let flags = |more: &[String]| {
        let mut flags = vec![
            "--prometheus.url=http://somebody:hunter2@127.0.0.1:1/".to_owned(),
            format!("--tsdb.path={}", dir.path().display()),
            format!("--objstore.config-file={}", bucket.display()),
            format!("--prometheus.http-client-file={}", client.display()),
        ];
        flags.extend_from_slice(more);
        flags
    };
    let sidecar = Sidecar::start(flags(&[]));
    let status = status_when(&sidecar, "it was asked", |status| status["readiness"]["ready"] == false).await;
    let page = page(&sidecar).await;
    for secret in ["hunter2", "86421357"] {
        assert!(
            !status.to_string().contains(secret) && !page.contains(secret),
            "{status:#}"
        );
    }
    for text in [
        "metrics",
        "config.secret_key",
        "&lt;redacted&gt;",
        "basic_auth.username",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // The hash of "secret", by bcrypt with the least cost.
    let hash = bcrypt::hash("secret", 4).unwrap();
    fs::write(&web, format!("basic_auth_users:\n  admin: {hash}\n")).unwrap();
    let sidecar = Sidecar::start(flags(&[format!("--http.config={}", web.display())]));
    sidecar
        .wait_until(SOON, "it serves", async || http::get(&sidecar.url()).await.map(drop))
        .await;
    for path in ["", "/api/v1/status"] {
        let (code, _) = http::get(&format!("{}{path}", sidecar.url())).await.unwrap();
        assert_eq!(code, StatusCode::UNAUTHORIZED, "{path}");
    }
    let url = format!("--url={}", sidecar.url());
    one_shot::narthex(&["status", &url]).assert(1, &["it wants a password", "--http-client"]);
    let client = "--http-client={basic_auth: {username: admin, password: secret}}";
    // It is not ready, and says so.
    one_shot::narthex(&["status", &url, client]).assert(3, &["not ready", "connection refused"]);
}

#[tokio::test]
async fn the_command_prints_what_the_page_shows_and_its_exit_code_tells_whether_to_look() {
    let (prometheus, bucket) = (quiet().await, temp_dir("bucket"));
    let id = blocks::place(&blocks::generate(blocks::Spec::small(0)), prometheus.data());
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &BucketView::dir(bucket.path()).config()));
    status_when(&sidecar, "the block is durable", |status| {
        states(status) == ["durable"] && status["readiness"]["ready"] == true
    })
    .await;
    let url = format!("--url={}", sidecar.url());
    let text = one_shot::narthex(&["status", &url]);
    text.assert(
        0,
        &["ready", "All sealed blocks are in the bucket", &id, "cluster=\"rig\""],
    );
    assert!(!text.stdout.contains('\u{1b}'), "no colours where there is no terminal");
    let document = one_shot::narthex(&["status", &url, "--output=json"]).ended(0).json();
    assert_eq!(
        (&document["version"], &document["shipping"]["blocks"][0]["id"]),
        (&json!(1), &json!(id))
    );
    blocks::copy_without_index(&blocks::generate(blocks::Spec::small(1)), prometheus.data());
    wait_until(SOON, "the broken block is seen", async || {
        (one_shot::narthex(&["status", &url]).code == Some(3)).then_some(())
    })
    .await;
    one_shot::narthex(&["status", &url]).assert(3, &["Blocks need your attention", "set_aside"]);
    let empty = Sidecar::start(vec![
        format!("--prometheus.url={}", prometheus.url()),
        "--objstore.config=".to_owned(),
    ]);
    empty.wait_ready(SOON).await;
    let empty = format!("--url={}", empty.url());
    one_shot::narthex(&["status", &empty]).assert(3, &["No blocks are shipped", "--objstore.config is empty"]);
    one_shot::narthex(&["status", "--http-client={bad"]).assert(1, &["--http-client: "]);
    one_shot::narthex(&["status", "--url=http://127.0.0.1:1"])
        .assert(1, &["connection refused: no sidecar runs there"]);
    one_shot::narthex(&["status", &format!("--url={}", prometheus.url())])
        .assert(1, &["there is no such page", "--url"]);
    one_shot::narthex(&["status", &format!("--url={}", sidecar.grpc_url())]).assert(1, &["not its --grpc-address"]);
}
