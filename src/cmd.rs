//! One file per subcommand: flags -> configuration (everything checked) -> build (ports bound, addresses known) -> run.

mod backfill;
mod bucket;
mod check;
mod encodings;
mod job;
mod output;
mod progress;
mod restore;
pub mod sidecar;
mod status;

use std::{
    io::{Write, stderr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use url::Url;

use crate::{
    cli::{self, Bucket, Command, Common, LogFormat, LogLevel, Tools, ToolsBucket},
    ops::{
        process,
        recent::Recent,
        supervisor::Outcome,
        telemetry::{self, Format, InitError, Level},
    },
    prometheus::client::{Client, HttpClientConfig},
    spans,
};

/// Threads that do the work; one keeps a disk and a network busy, the other answers probes meanwhile.
const WORKERS: usize = 2;
/// Threads that wait for the disk.
const DISK_WORKERS: usize = 8;
/// Files that are read again while the process runs, each with a thread at most: a file system that hangs holds those.
const FOLLOWED_FILES: usize = 8;

/// Runs a command until it is done. It ends the process itself once the command was built: threads that wait for a disk
/// are not waited for.
pub fn run(command: Command) -> ExitCode {
    match start(command) {
        Ok(outcome) => outcome.exit(),
        Err(error) => {
            // Without stderr nobody can be told; the exit code remains.
            let _ = writeln!(stderr(), "narthex: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<Outcome> {
    // What checks the configuration of spans among others says itself what is wrong with it, and sends none.
    let sends_spans = !matches!(command, Command::Check(_));
    let spans = match sends_spans {
        true => spans_config(command.common())?,
        false => None,
    };
    let (layer, sender) = spans.map(spans::set_up).unzip();
    let recent = Recent::default();
    init_log(command.common(), layer, recent.clone())?;
    if sends_spans && sender.is_none() {
        warn_if_empty(
            "tracing.config-file",
            command.common().tracing_config_file.as_deref(),
            "",
        );
    }
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // An error says that there is one already: nobody else sets one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime
        .worker_threads(WORKERS)
        .max_blocking_threads(DISK_WORKERS + FOLLOWED_FILES)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let metrics = sender.as_ref().map(spans::Sender::metrics).unwrap_or_default();
        let sending = sender.map(spans::Sender::start);
        let outcome = run_command(command, &metrics, recent).await;
        if let Some(sending) = sending {
            sending.finish().await;
        }
        outcome
    });
    // Dropping it would wait for threads that wait for a disk, for ever where that hangs.
    runtime.shutdown_background();
    outcome
}

async fn run_command(command: Command, spans: &spans::Metrics, recent: Recent) -> anyhow::Result<Outcome> {
    match command {
        Command::Sidecar(flags) => {
            let config = sidecar::Config::new(*flags)?;
            sidecar::build(config, spans, recent).await?.run().await
        }
        Command::Check(flags) => check::check(*flags).await,
        Command::Status(flags) => status::status(*flags).await,
        Command::Backfill(flags) => backfill::backfill(*flags).await,
        Command::Tools(Tools::Bucket(ToolsBucket::UploadBlocks(flags))) => backfill::upload_blocks(*flags).await,
        Command::Bucket(Bucket::Ls(flags)) => bucket::ls(*flags).await,
        Command::Bucket(Bucket::Inspect(flags)) => bucket::inspect(*flags).await,
        Command::Bucket(Bucket::Verify(flags)) => bucket::verify(*flags).await,
        Command::Bucket(Bucket::Gaps(flags)) => bucket::gaps(*flags).await,
        Command::Restore(flags) => restore::restore(*flags).await,
    }
}

/// How spans are sent, if they are.
fn spans_config(flags: &Common) -> anyhow::Result<Option<spans::Config>> {
    let yaml = flags.tracing(&cli::process_env)?;
    spans::Config::parse(&yaml, cli::process_env).context("the configuration of tracing (--tracing.config) is wrong")
}

/// How Prometheus is talked to, and the YAML that says so; reads the file that a flag names.
fn http_client(flags: &cli::PrometheusClient) -> anyhow::Result<(HttpClientConfig, String)> {
    let yaml = flags.yaml()?;
    warn_if_empty("prometheus.http-client-file", flags.http_client_file.as_deref(), &yaml);
    let http = HttpClientConfig::parse(&yaml)
        .context("the configuration of the client for Prometheus (--prometheus.http-client) is wrong")?;
    Ok((http, yaml))
}

/// A client for the Prometheus at `url` that gives each call `limit`.
fn prometheus_client(url: &Url, http: &HttpClientConfig, limit: Duration) -> anyhow::Result<Client> {
    Client::new(url, http, limit).context("--prometheus.url or --prometheus.http-client cannot be used")
}

/// Where the wrong YAML of the bucket came from: the error names the line, and needs the file beside it.
fn invalid_yaml(flags: &cli::Objstore) -> String {
    let flag = flags.given().unwrap_or_else(|| "--objstore.config".to_owned());
    format!("{flag} is wrong")
}

/// Warns of a file that a flag names and that has nothing in it: the flag then has no effect, as with Thanos.
fn warn_if_empty(flag: &str, file: Option<&Path>, text: &str) {
    if let Some(file) = file.filter(|file| !file.as_os_str().is_empty() && text.trim().is_empty()) {
        tracing::warn!(file = %file.display(), "the file that --{flag} names is empty: the flag has no effect");
    }
}

fn init_log(flags: &Common, spans: Option<spans::Layer>, recent: Recent) -> Result<(), InitError> {
    let level = match flags.log_level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    let format = match flags.log_format {
        LogFormat::Logfmt => Format::Logfmt,
        LogFormat::Json => Format::Json,
        LogFormat::Journald => Format::Journald,
    };
    telemetry::init(level, format, Some(&flags.debug_name), spans, recent)
}
