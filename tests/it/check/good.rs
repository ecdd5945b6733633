//! Nothing is wrong, and nothing is said to be.

use std::collections::BTreeSet;

use fs_err as fs;

use super::{
    files::pair,
    scene::{Found, file, found, run},
};
use crate::{
    bad_blocks::stage::{seal, sound},
    rig::{BucketView, Prometheus, Sidecar, Tools, Weed, one_shot::narthex, prometheus::Options, tools::temp_dir},
};

#[tokio::test]
async fn a_good_set_up_has_neither_a_warning_nor_a_failure() {
    let data = temp_dir("data");
    seal(&sound(0), data.path(), |_| {});
    let options = Options {
        block: "2h",
        data: Some(data.path().to_owned()),
        scrape: false,
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::newest(), options).await;
    let bucket = Weed::shared().await.bucket("check").await;
    let dir = temp_dir("files");
    pair(&dir, "tls", 90);
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(path("spill")).unwrap();
    file(
        &dir,
        "web.yml",
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n",
    );
    let mut flags = Sidecar::flags(&prometheus, &bucket.config());
    flags.extend([
        format!("--grpc-server-tls-cert={}", path("tls.crt")),
        format!("--grpc-server-tls-key={}", path("tls.key")),
        format!("--grpc-server-tls-client-ca={}", path("tls.crt")),
        format!("--http.config={}", path("web.yml")),
        format!("--store.spill-dir={}", path("spill")),
        format!("--reloader.config-file={}", prometheus.config_file().display()),
        "--tracing.config={type: OTLP, config: {client_type: http, endpoint: '127.0.0.1:1', insecure: true}}"
            .to_owned(),
        "--request.logging-config={grpc: {options: {decision: {log_start: true, log_end: true}}}}".to_owned(),
    ]);
    let ran = run(&flags, &[]);
    let Found { bad, good } = found(&ran);
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(
        !ran.stderr.contains("level=warn") && !ran.stderr.contains("level=error"),
        "{}",
        ran.stderr
    );
    let names: BTreeSet<&str> = good.iter().map(|(check, _)| check.as_str()).collect();
    let expected = [
        "bucket.config",
        "bucket.delete",
        "bucket.list",
        "bucket.multipart",
        "bucket.put",
        "bucket.read",
        "bucket.uploads",
        "bucket.writers",
        "data.directory",
        "data.ledger",
        "data.prometheus",
        "grpc.certificate",
        "grpc.client-ca",
        "grpc.logging",
        "grpc.port",
        "grpc.tls",
        "http.certificate",
        "http.config",
        "http.port",
        "prometheus.compaction",
        "prometheus.labels",
        "prometheus.lifecycle",
        "prometheus.reachable",
        "prometheus.remote-read",
        "prometheus.retention",
        "prometheus.version",
        "queries.spill-dir",
        "reloader.files",
        "tracing.config",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    let same = |check: &str, part: &str| good.iter().any(|(name, text)| name == check && text.contains(part));
    assert!(
        same("data.prometheus", "begins where Prometheus' data begins"),
        "{good:#?}"
    );
    assert!(same("prometheus.labels", r#"replica="0""#), "{good:#?}");
    nothing_stays(&bucket, &data).await;

    // For people, it says the same, and what writes nothing writes nothing.
    let words: Vec<&str> = [
        "check",
        "--no-write",
        "--http-address=127.0.0.1:0",
        "--grpc-address=127.0.0.1:0",
    ]
    .into_iter()
    .chain(flags.iter().map(String::as_str))
    .collect();
    let table = narthex(&words).ended(0);
    let last = table.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("ok: 0 checks failed, 0 warnings, "),
        "{}",
        table.stdout
    );
    assert!(
        !table.stdout.contains("bucket.put") && !table.stdout.contains("fix:"),
        "{}",
        table.stdout
    );
    nothing_stays(&bucket, &data).await;
}

/// Neither in the bucket nor in the data directory.
async fn nothing_stays(bucket: &BucketView, data: &tempfile::TempDir) {
    assert!(bucket.list().await.is_empty());
    assert!(bucket.open_uploads().await.is_empty());
    let names = fs::read_dir(data.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| name.to_string_lossy().contains("narthex"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
