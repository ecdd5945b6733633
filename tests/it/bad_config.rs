//! Wrong command lines, YAML and surroundings, through the program itself: exit codes, what is said, and where.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod grpc;
mod prometheus;

use std::{net::TcpListener, path::Path};

use fs_err as fs;

use crate::{
    bad_blocks::stage::{PATIENCE, args, log_line, prometheus, seal, sound, wait_for_log},
    rig::{BucketView, Prometheus, Sidecar, Tools, bucket, http, prometheus::Options, tools::temp_dir},
};

/// What a run of the program that ends by itself has left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Run {
    run_with(args, &[])
}

fn run_with(args: &[&str], env: &[(&str, &str)]) -> Run {
    let done = assert_cmd::Command::new(Sidecar::program())
        .args(args)
        .env_remove("NARTHEX_TEST_UNSET")
        .envs(env.iter().copied())
        .timeout(PATIENCE)
        .output()
        .unwrap();
    Run {
        code: done.status.code(),
        stdout: String::from_utf8(done.stdout).unwrap(),
        stderr: String::from_utf8(done.stderr).unwrap(),
    }
}

impl Run {
    /// It ended with exit code 1 after one line about a mistake, which holds all these parts.
    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("narthex: error: "))
            .collect();
        assert_eq!((lines.len(), self.stderr.lines().count()), (1, 1), "{self:?}");
        for part in parts {
            assert!(lines[0].contains(part), "{part:?}: {}", lines[0]);
        }
    }
}

/// Wrong YAML, and what must be said of it.
const YAML: [(&str, &[&str]); 14] = [
    (
        "type: S3\nconfig:\n  bucket: b\n  endpoint: e:1\n  bukcet: c\n",
        &["line 5", "bukcet", "unknown key"],
    ),
    ("typ: S3\n", &["line 1", "typ", "unknown key"]),
    (
        "type: S3\nconfig:\n  bucket: b\n  bucket: c\n  endpoint: e:1\n",
        &["line 4", "bucket", "occurs twice"],
    ),
    ("type: S3\ntype: FILESYSTEM\n", &["line 2", "type", "occurs twice"]),
    (
        "type: S3\nconfig:\n  bucket: b\n  endpoint: e:1\n  insecure: maybe\n",
        &["line 5", "insecure", "true or false"],
    ),
    (
        "type: S3\nconfig:\n  bucket: b\n  endpoint: e:1\n  http_config:\n    idle_conn_timeout: soon\n",
        &["line 6", "idle_conn_timeout"],
    ),
    ("type: S3\nconfig: everything\n", &["line 2", "config", "mapping"]),
    ("type: S3\nconfig:\n  endpoint: e:1\n", &["config.bucket"]),
    ("type: S3\nconfig:\n  bucket: b\n", &["config.endpoint"]),
    ("type: FILESYSTEM\nconfig: {}\n", &["config.directory", "missing"]),
    (
        "config:\n  bucket: b\n",
        &["type", "missing", "S3, GCS, AZURE and FILESYSTEM"],
    ),
    (
        "type: OBS\nconfig:\n  bucket: b\n",
        &[
            "line 1",
            "type OBS is not supported as such",
            "obs.<region>.myhuaweicloud.com",
        ],
    ),
    (
        "type: FLOPPY\n",
        &[
            "line 1",
            "\"FLOPPY\" is unknown",
            "supported are S3, GCS, AZURE and FILESYSTEM",
        ],
    ),
    ("type: [S3\n", &["line"]),
];

#[test]
fn wrong_yaml_is_refused_with_line_and_key() {
    let dir = temp_dir("config");
    let path = dir.path().join("bucket.yml");
    for (yaml, parts) in YAML {
        let inline = run(&["sidecar", &format!("--objstore.config={yaml}")]);
        inline.refused(&[&["--objstore.config is wrong"], parts].concat());
        fs::write(&path, yaml).unwrap();
        let flag = format!("--objstore.config-file={}", path.display());
        let from_file = run(&["sidecar", &flag]);
        from_file.refused(&[&[flag.as_str()], parts].concat());
    }
}

#[test]
fn a_mistake_beside_a_secret_does_not_tell_the_secret() {
    let yaml = "type: S3\nconfig:\n  bucket: b\n  endpoint: e:1\n  access_key: hunter1\n  secret_key: hunter2\n  secret_kye: hunter3\n";
    let refused = run(&["sidecar", &format!("--objstore.config={yaml}")]);
    refused.refused(&["line 7", "secret_kye"]);
    assert!(!refused.stderr.contains("hunter"), "{refused:?}");
}

#[test]
fn where_yaml_comes_from_must_be_clear() {
    let dir = temp_dir("config");
    let missing = dir.path().join("none.yml").display().to_string();
    run(&["sidecar", &format!("--objstore.config-file={missing}")])
        .refused(&["--objstore.config-file cannot be read", &missing]);
    run(&[
        "sidecar",
        "--objstore.config=type: S3",
        &format!("--objstore.config-file={missing}"),
    ])
    .refused(&["--objstore.config and --objstore.config-file are both set"]);
    run(&["sidecar", "--objstore.config=type: $(NARTHEX_TEST_UNSET)"])
        .refused(&["--objstore.config refers to $(NARTHEX_TEST_UNSET)", "not set"]);
    let path = dir.path().join("bucket.yml");
    fs::write(&path, "type: $(NARTHEX_TEST_UNSET)").unwrap();
    let flag = format!("--objstore.config-file={}", path.display());
    run(&["sidecar", &flag]).refused(&["--objstore.config-file refers to $(NARTHEX_TEST_UNSET)", "not set"]);
    let set = run_with(&["sidecar", &flag], &[("NARTHEX_TEST_UNSET", "FLOPPY")]);
    set.refused(&["\"FLOPPY\" is unknown"]);
    run(&["sidecar", "--prometheus.http-client=basic_auth: {username: [}"]).refused(&["--prometheus.http-client"]);
}

#[test]
fn a_port_in_use_is_refused_by_address_and_flag() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    for flag in ["--http-address", "--grpc-address"] {
        let mut args = vec!["sidecar".to_owned(), format!("{flag}={address}")];
        if flag == "--grpc-address" {
            args.push("--http-address=127.0.0.1:0".to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let refused = run(&args);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let last = refused.stderr.lines().last().unwrap();
        for part in ["narthex: error: ", &address, flag, "in use", "choose another port"] {
            assert!(last.contains(part), "{part:?}: {refused:?}");
        }
    }
}

#[test]
fn command_lines_end_as_with_thanos() {
    run(&["sidecar", "--nope"]).refused(&["unknown flag --nope"]);
    run(&["sidecar", "--shipper.upload-compacted=true"]).refused(&["--shipper.upload-compacted takes no value"]);
    run(&["store"]).refused(&["expected a command"]);
    run(&["sidecar", "--tsdb.path"]).refused(&["--tsdb.path needs a value"]);

    for bad in [
        "--prometheus.get_config_interval=soon",
        "--prometheus.ready_timeout=1y",
        "--log.level=loud",
    ] {
        let value = run(&["sidecar", bad]);
        assert_eq!((value.code, value.stdout.as_str()), (Some(2), ""), "{value:?}");
        let lines: Vec<&str> = value.stderr.lines().collect();
        let (flag, _) = bad.split_once('=').unwrap();
        assert!(
            lines.len() == 2 && lines[0].starts_with("usage: narthex sidecar") && lines[1].contains(flag),
            "{value:?}"
        );
    }
    for (words, part) in [
        (&["--help"][..], "sidecar"),
        (&["sidecar", "--help"], "--tsdb.path"),
        (&["help"], "sidecar"),
        (&[], "sidecar"),
        (&["--version"], "narthex, version "),
        (&["sidecar", "--version"], "narthex, version "),
    ] {
        let asked = run(words);
        assert_eq!(
            (asked.code, asked.stdout.as_str()),
            (Some(0), ""),
            "{words:?}: {asked:?}"
        );
        assert!(asked.stderr.contains(part), "{words:?}: {asked:?}");
    }
}

#[test]
fn a_collector_that_cannot_be_meant_is_refused_by_every_command() {
    for (flag, parts) in [
        (
            "--tracing.config=type: OTLP",
            ["--tracing.config", "config.client_type must be grpc or http"],
        ),
        (
            "--tracing.config=type: JAEGER",
            [
                "type JAEGER is not supported, only OTLP",
                "type: OTLP, config: {client_type",
            ],
        ),
        ("--tracing.config=typ: OTLP", ["--tracing.config", "typ"]),
        (
            "--tracing.config=type: $(NO_SUCH_TYPE)",
            ["--tracing.config", "NO_SUCH_TYPE is not set"],
        ),
        (
            "--tracing.config-file=/no/such/tracing.yml",
            ["--tracing.config-file", "/no/such/tracing.yml"],
        ),
    ] {
        for command in [&["sidecar"][..], &["bucket", "ls"]] {
            run(&[command, &[flag]].concat()).refused(&parts);
        }
    }
}

#[test]
fn what_this_version_cannot_do_is_refused_and_not_ignored() {
    run(&["sidecar", "--prometheus.get_config_interval=0s"]).refused(&["--prometheus.get_config_interval"]);
    run(&["sidecar", "--auto-gomemlimit.ratio=2"]).refused(&["--auto-gomemlimit.ratio"]);
}

#[tokio::test]
async fn an_empty_configuration_switches_uploads_off() {
    let dir = temp_dir("config");
    let file = dir.path().join("bucket.yml");
    fs::write(&file, " \n").unwrap();
    // The operator gives no --tsdb.path then, and there is no such directory.
    let prometheus = prometheus().await;
    let sidecar = Sidecar::start(vec![
        format!("--prometheus.url={}", prometheus.url()),
        format!("--objstore.config-file={}", file.display()),
    ]);
    sidecar.wait_ready(PATIENCE).await;
    let line = wait_for_log(&sidecar, &["the object storage configuration is given and empty"]).await;
    let flag = format!("--objstore.config-file={}", file.display());
    assert!(
        line.contains("level=warn") && line.contains("uploads are disabled") && line.contains(&flag),
        "{line}"
    );
    assert_eq!(log_line(&sidecar, &["level=error"]), None);
    let metrics = sidecar.metrics().await.unwrap();
    assert_eq!(metrics.value("thanos_sidecar_prometheus_up", &[]), Some(1.0));
    assert!(!metrics.has("thanos_shipper_uploads_total"));
    assert_eq!(
        shipping(&sidecar).await,
        ("empty_configuration", format!("off: {flag} is empty"))
    );
}

/// Whether blocks are shipped: the state in the metric, and the header of `/-/ready`.
async fn shipping(sidecar: &Sidecar) -> (&'static str, String) {
    let metrics = sidecar.metrics().await.unwrap();
    let states = ["on", "not_configured", "empty_configuration"];
    let is = |state: &&str| metrics.value("narthex_shipping", &[("state", state)]).unwrap() == 1.0;
    let found: Vec<&str> = states.into_iter().filter(is).collect();
    let [state] = found[..] else { panic!("{found:?}") };
    let ready = format!("{}/-/ready", sidecar.url());
    let answer = http::client().get(ready).send().await.unwrap();
    (
        state,
        answer.headers()["x-narthex-shipping"].to_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn without_a_bucket_nothing_is_shipped_and_that_is_said_and_no_warning() {
    let url = format!("--prometheus.url={}", prometheus().await.url());
    let sidecar = Sidecar::start(vec![url.clone()]);
    let line = wait_for_log(&sidecar, &["no object storage is configured", "uploads are disabled"]).await;
    assert!(line.contains("level=info"), "{line}");
    sidecar.wait_ready(PATIENCE).await;
    let off = "off: no object storage is configured".to_owned();
    assert_eq!(shipping(&sidecar).await, ("not_configured", off));
    assert_eq!(log_line(&sidecar, &["level=warn", "object storage"]), None);
    // A flag whose variable is empty is given all the same.
    for flag in ["--objstore.config", "--objstore.config-file"] {
        let sidecar = Sidecar::start(vec![url.clone(), format!("{flag}=")]);
        wait_for_log(&sidecar, &["level=warn", "uploads are disabled", flag]).await;
        assert_eq!(
            shipping(&sidecar).await,
            ("empty_configuration", format!("off: {flag} is empty"))
        );
    }
}

#[test]
fn a_command_on_an_empty_configuration_names_the_flag() {
    let dir = temp_dir("config");
    let file = dir.path().join("bucket.yml");
    fs::write(&file, "").unwrap();
    let flag = format!("--objstore.config-file={}", file.display());
    run(&["bucket", "ls", &flag]).refused(&[&format!("{flag} is empty"), "no bucket is configured"]);
    run(&["bucket", "ls", "--objstore.config="]).refused(&["--objstore.config is empty", "no bucket is configured"]);
    run(&["bucket", "ls"]).refused(&["narthex: error: no bucket is configured"]);
}

/// The words that the operator starts the sidecar with by default, when Prometheus is to wait for it before it compacts.
fn operators_words(prometheus: &Prometheus, data: &Path, http_client: &Path, bucket: &BucketView) -> Vec<String> {
    vec![
        format!("--prometheus.url={}/", prometheus.url()),
        format!("--prometheus.http-client-file={}", http_client.display()),
        "--grpc-address=[127.0.0.1]:PORT".to_owned(),
        "--http-address=:PORT".to_owned(),
        format!("--objstore.config={}", bucket.config()),
        format!("--tsdb.path={}", data.display()),
        "--log.level=info".to_owned(),
        "--log.format=logfmt".to_owned(),
        "--shipper.meta-file-name=thanos.shipper.json".to_owned(),
        "--shipper.ignore-unequal-block-size".to_owned(),
    ]
}

#[tokio::test]
async fn the_words_of_the_operator_work() {
    let options = Options {
        block: "2h",
        scrape: false,
        args: vec!["--storage.tsdb.max-block-duration=36h".to_owned()],
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let (dir, store) = (temp_dir("config"), temp_dir("bucket"));
    let http_client = dir.path().join("prometheus.http-client-file.yaml");
    fs::write(&http_client, "tls_config:\n  insecure_skip_verify: true\n").unwrap();
    let bucket = BucketView::dir(store.path());
    let sidecar = Sidecar::start(operators_words(&prometheus, prometheus.data(), &http_client, &bucket));
    sidecar.wait_ready(PATIENCE).await;
    let passed = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "a pass", passed).await;
    let id = seal(&sound(0), prometheus.data(), |_| {});
    let visible = async || (bucket.visible().await == [id.as_str()]).then_some(());
    sidecar.wait_until(PATIENCE, "the block is visible", visible).await;
    bucket::check(&bucket, &id, &prometheus.data().join(&id)).await.unwrap();
    wait_for_log(&sidecar, &["level=warn", "--shipper.ignore-unequal-block-size accepts"]).await;
    assert_eq!(log_line(&sidecar, &["level=error"]), None);
    assert_eq!(shipping(&sidecar).await, ("on", "on".to_owned()));
    assert!(sidecar.stop().await.success());
}
