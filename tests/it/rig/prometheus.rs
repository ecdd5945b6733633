//! A real Prometheus that scrapes itself and seals small blocks.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use fs_err as fs;
use tempfile::TempDir;

use super::{
    http,
    metrics::Metrics,
    process::{Process, free_port},
    tools::{Leg, temp_dir},
    wait::try_until,
};

/// How a Prometheus is to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Both block durations. With `5s` the first block is sealed 13 to 14 s after the start, then one each 5 s.
    pub block: &'static str,
    pub external_labels: Vec<(String, String)>,
    /// Further flags, e.g. `--storage.tsdb.retention.time=15s`. They come last, so that they may repeat one of ours.
    pub args: Vec<String>,
    /// Where the data is; a directory of the rig's own if not given.
    pub data: Option<PathBuf>,
    /// Whether it scrapes itself each second.
    pub scrape: bool,
    /// Whether it may be reloaded by HTTP.
    pub lifecycle: bool,
    /// Further entries of `scrape_configs`: YAML, indented by two spaces.
    pub scrape_configs: String,
    /// A file of rules, if it is not empty.
    pub rules: String,
    /// The collector that it sends its spans to, by gRPC without TLS.
    pub tracing: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            block: "5s",
            external_labels: vec![
                ("cluster".to_owned(), "rig".to_owned()),
                ("replica".to_owned(), "0".to_owned()),
            ],
            args: Vec::new(),
            data: None,
            scrape: true,
            lifecycle: true,
            scrape_configs: String::new(),
            rules: String::new(),
            tracing: None,
        }
    }
}

/// A running Prometheus; killed when dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    leg: Leg,
    options: Options,
    port: u16,
    data: PathBuf,
    process: Process,
    dir: TempDir,
}

impl Prometheus {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(leg: &Leg, options: Options) -> Prometheus {
        let dir = temp_dir("prometheus");
        let data = options.data.clone().unwrap_or_else(|| dir.path().join("data"));
        fs::write(dir.path().join("rules.yml"), &options.rules).expect("a new directory can be written");
        for _ in 0..5 {
            let port = free_port();
            fs::write(dir.path().join("prometheus.yml"), config(&options, port))
                .expect("a new directory can be written");
            let process = spawn(leg, &options, port, &data, dir.path());
            if ready(&process, port).await {
                return Prometheus {
                    leg: leg.clone(),
                    options,
                    port,
                    data,
                    process,
                    dir,
                };
            }
            let log = process.log();
            assert!(
                log.contains("address already in use"),
                "Prometheus did not get ready; its log:\n{log}"
            );
        }
        panic!("no free port for Prometheus after five tries");
    }

    /// Its version, e.g. `2.42.0`.
    pub(crate) fn version(&self) -> &str {
        &self.leg.version
    }

    /// Its address, e.g. `http://127.0.0.1:1234`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The file with its configuration.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("prometheus.yml")
    }

    /// How often it has loaded its configuration, with success, over all its starts.
    pub(crate) fn loads(&self) -> usize {
        self.log().matches("Completed loading of configuration file").count()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The names of the blocks that are sealed and not deleted, sorted.
    pub(crate) fn blocks(&self) -> Vec<String> {
        sealed(&self.data)
    }

    /// Waits for `count` sealed blocks; panics with the log when they do not come.
    pub(crate) async fn wait_for_blocks(&self, count: usize, within: Duration) -> Vec<String> {
        let found = try_until(within, async || {
            Some(self.blocks()).filter(|blocks| blocks.len() >= count)
        })
        .await;
        found.unwrap_or_else(|| {
            panic!(
                "no {count} blocks within {within:?}; the log:\n{}",
                self.process.log_tail()
            )
        })
    }

    /// The sum of all series of this name on its own metrics page; `None` when there are none or it does not answer.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = http::get(&format!("{}/metrics", self.url())).await?;
        Metrics::parse(&String::from_utf8_lossy(&page)).value(name, &[])
    }

    /// Changes the external labels of the running process.
    pub(crate) async fn set_external_labels(&mut self, labels: &[(&str, &str)]) {
        self.options.external_labels = labels
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let text = config(&self.options, self.port);
        fs::write(self.dir.path().join("prometheus.yml"), text).expect("the directory can be written");
        let answer = http::client()
            .post(format!("{}/-/reload", self.url()))
            .send()
            .await
            .expect("Prometheus answers");
        assert!(answer.status().is_success(), "reload: {}", answer.status());
    }

    /// Ends it with SIGTERM; the head is not sealed by that.
    pub(crate) async fn stop(&self) -> ExitStatus {
        self.process.stop(Duration::from_secs(30)).await
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&self) -> ExitStatus {
        self.process.kill()
    }

    /// Sends a signal by name, e.g. `STOP` and `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Starts it again on the same address and data, after [`Prometheus::stop`] or [`Prometheus::kill`].
    pub(crate) async fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn(&self.leg, &self.options, self.port, &self.data, self.dir.path());
        assert!(
            ready(&self.process, self.port).await,
            "not ready again; the log:\n{}",
            self.process.log_tail()
        );
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

fn spawn(leg: &Leg, options: &Options, port: u16, data: &Path, dir: &Path) -> Process {
    let mut command = Command::new(&leg.prometheus);
    command
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--web.enable-admin-api")
        .current_dir(dir);
    if options.lifecycle {
        command.arg("--web.enable-lifecycle");
    }
    let given = |flag: &str| options.args.iter().any(|arg| arg.starts_with(flag));
    for (flag, value) in [
        ("--storage.tsdb.min-block-duration", options.block),
        ("--storage.tsdb.max-block-duration", options.block),
        // Blocks of test data are old: by less than this Prometheus deletes them whenever it reads its blocks anew.
        ("--storage.tsdb.retention.time", "100y"),
    ] {
        // Prometheus refuses a flag that comes twice.
        if !given(flag) {
            command.arg(format!("{flag}={value}"));
        }
    }
    command.args(&options.args);
    Process::spawn("prometheus", &mut command, &dir.join("prometheus.log"), Some(dir))
}

async fn ready(process: &Process, port: u16) -> bool {
    let url = format!("http://127.0.0.1:{port}/-/ready");
    let probe = async || match process.exited() {
        Some(_) => Some(false),
        None => http::ok(&url).await.then_some(true),
    };
    try_until(Duration::from_secs(60), probe).await.unwrap_or(false)
}

fn config(options: &Options, port: u16) -> String {
    let mut text = "global:\n  scrape_interval: 1s\n".to_owned();
    if !options.external_labels.is_empty() {
        text.push_str("  external_labels:\n");
    }
    for (name, value) in &options.external_labels {
        // A JSON string is a YAML string, whatever is in it.
        let value = serde_json::to_string(value).expect("a string can be written as JSON");
        text.push_str(&format!("    {name}: {value}\n"));
    }
    if !options.rules.is_empty() {
        text.push_str("rule_files: [rules.yml]\n");
    }
    if let Some(collector) = &options.tracing {
        text.push_str(&format!(
            "tracing: {{endpoint: '{collector}', client_type: grpc, insecure: true, sampling_fraction: 1}}\n"
        ));
    }
    text.push_str("scrape_configs:\n");
    text.push_str(&options.scrape_configs);
    if options.scrape {
        text.push_str(&format!(
            "  - job_name: prometheus\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
        ));
    }
    text
}

/// The names of the sealed blocks in a data directory, sorted.
pub(crate) fn sealed(data: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(data) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| is_block(name) && data.join(name).is_dir())
        .collect();
    names.sort();
    names
}

/// Whether a name is that of a sealed block.
pub(crate) fn is_block(name: &str) -> bool {
    name.len() == 26
        && name
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}
