//! The program with every flag of `thanos sidecar`, and each of its own, set to something that is not its default.

use std::collections::BTreeSet;

use fs_err as fs;
use narthex::cli::flag_table;
use serde_json::Value;

use crate::{
    bad_blocks::stage::{PATIENCE, seal, sound},
    rig::{BucketView, Prometheus, Sidecar, Tools, http, prometheus::Options, tools::temp_dir},
};

/// Flags that print something and end.
const PRINT: [&str; 7] = [
    "help",
    "version",
    "help-long",
    "help-man",
    "completion-bash",
    "completion-script-bash",
    "completion-script-zsh",
];

/// What stands for itself; `DIR` is the directory with the files, `URL` Prometheus, `DATA` its data.
const FLAGS: &str = "
--log.level=debug
--log.format=json
--debug.name=every
--enable-auto-gomemlimit
--auto-gomemlimit.ratio=0.5
--http-address=[127.0.0.1]:PORT
--http-grace-period=1s
--http.config=DIR/web.yml
--grpc-address=[127.0.0.1]:PORT
--grpc-grace-period=1s
--grpc-server-max-connection-age=5m
--grpc-server-tls-cert=DIR/tls.crt
--grpc-server-tls-key=DIR/tls.key
--grpc-server-tls-client-ca=DIR/tls.crt
--grpc-server-tls-min-version=1.2
--grpc-server-tls-ciphers=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
--grpc-server-tls-curves=X25519
--prometheus.url=URL
--prometheus.ready_timeout=1m
--prometheus.get_config_interval=1s
--prometheus.get_config_timeout=5s
--label=extra=\"one\"
--tsdb.path=DATA
--shipper.upload-compacted
--shipper.ignore-unequal-block-size
--shipper.allow-out-of-order-uploads
--shipper.skip-corrupted-blocks
--shipper.newer-encodings=mark
--shipper.overlapping=mark
--shipper.hold-unshipped=1MiB
--hash-func=SHA256
--shipper.meta-file-name=every.json
--shipper.upload-concurrency=2
--no-store.sealed-from-disk
--shipper.grace-period=1m
--shipper.max-rate=10MiB
--shipper.jitter=1s
--wal.interval=10s
--reloader.config-file=DIR/prometheus.yml
--reloader.config-envsubst-file=DIR/out.yml
--reloader.rule-dir=DIR/rules
--reloader.watch-interval=1m
--reloader.retry-interval=1s
--reloader.method=signal
--reloader.process-name=no-such-process
--store.limits.request-series=1000000
--store.limits.request-samples=100000000
--min-time=-30d
--min-time-margin=4h
--store.read-ahead=8MiB
--store.spill-dir=DIR/spill
--store.spill-limit=64MiB
--store.max-client-lag=20s
--store.memory-limit=128MiB
--store.timeout=1m
";

/// Pairs of a flag and one for a file, and the YAML; `BUCKET` is a directory.
const YAML: [(&str, &str); 4] = [
    (
        "tracing.config",
        "{type: OTLP, config: {client_type: http, endpoint: '127.0.0.1:1', insecure: true}}",
    ),
    ("prometheus.http-client", "{transport_config: {max_idle_conns: 7}}"),
    (
        "request.logging-config",
        "{grpc: {options: {decision: {log_start: true, log_end: true}}}}",
    ),
    ("objstore.config", "{type: FILESYSTEM, config: {directory: BUCKET}}"),
];

/// The names of all flags of the program, without those that only print.
fn known() -> BTreeSet<String> {
    let table = flag_table("sidecar");
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
    let word = |row: &str| row.split('`').next().unwrap_or_default().to_owned();
    let name = |word: String| {
        let long = word.rsplit("--").next().unwrap_or_default();
        let long = long.split('=').next().unwrap_or_default();
        long.trim_start_matches("[no-]").to_owned()
    };
    let names = rows.map(word).map(name);
    names.filter(|name| !PRINT.contains(&name.as_str())).collect()
}

fn name(arg: &str) -> &str {
    let arg = arg.trim_start_matches("--");
    // A switch that is on by default.
    let arg = arg.trim_start_matches("no-");
    arg.split_once('=').map_or(arg, |(name, _)| name)
}

#[tokio::test]
async fn it_runs_with_every_flag_at_a_value_that_is_not_its_default() {
    let leg = Tools::newest();
    let options = Options {
        block: "2h",
        ..Options::default()
    };
    let prometheus = Prometheus::start(&leg, options).await;
    let dir = temp_dir("every-flag");
    let at = |name: &str| dir.path().join(name);
    for name in ["rules", "spill", "bucket-0", "bucket-1"] {
        fs::create_dir(at(name)).unwrap();
    }
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(at("tls.crt"), pair.cert.pem()).unwrap();
    fs::write(at("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(
        at("web.yml"),
        "http_server_config: {headers: {X-Frame-Options: deny}}\n",
    )
    .unwrap();
    fs::copy(prometheus.config_file(), at("prometheus.yml")).unwrap();
    let mut tried = BTreeSet::new();
    for (turn, in_files) in [false, true].into_iter().enumerate() {
        let bucket_dir = at(&format!("bucket-{turn}"));
        let bucket = BucketView::dir(&bucket_dir);
        let mut args: Vec<String> = FLAGS
            .split_whitespace()
            .map(|arg| {
                arg.replace("DIR", &dir.path().display().to_string())
                    .replace("URL", &prometheus.url())
                    .replace("DATA", &prometheus.data().display().to_string())
            })
            .collect();
        for (flag, yaml) in YAML {
            let yaml = yaml.replace("BUCKET", &bucket_dir.display().to_string());
            args.push(match in_files {
                false => format!("--{flag}={yaml}"),
                true => {
                    let file = at(&format!("{flag}.yml"));
                    fs::write(&file, yaml).unwrap();
                    format!("--{flag}-file={}", file.display())
                }
            });
        }
        tried.extend(args.iter().map(|arg| name(arg).to_owned()));
        let sidecar = Sidecar::start(args);
        sidecar.wait_ready(PATIENCE).await;
        let answer = http::client()
            .get(format!("{}/-/healthy", sidecar.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers()["x-frame-options"], "deny");
        let block = seal(&sound(0), prometheus.data(), |_| {});
        let visible = async || bucket.visible().await.contains(&block).then_some(());
        sidecar.wait_until(PATIENCE, "the block", visible).await;
        assert!(at("out.yml").is_file() && prometheus.data().join("every.json").is_file());
        let log = sidecar.log();
        let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(line["name"], "every");
        assert!(sidecar.stop().await.success());
        let unused: Vec<&str> = log.lines().filter(|line| line.contains("panic")).collect();
        assert!(unused.is_empty(), "{unused:?}");
        fs::remove_file(prometheus.data().join("every.json")).unwrap();
    }
    assert_eq!(tried, known(), "a flag is left out here, or there is none of that name");
}
