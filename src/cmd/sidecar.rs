//! `narthex sidecar`: the only place where the bucket, Prometheus and the shipper meet.
//!
//! [`Config`] holds what was checked, [`build`] binds the port and opens the bucket, [`Sidecar::run`] runs until a signal.
//! No failure of Prometheus or the bucket ends the process: it is reported in the log, the metrics and the readiness.

pub(super) mod queries;
mod relay;
pub(super) mod reloading;
pub(super) mod shipping;
mod shown;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    ops::{
        connections,
        grpc::{self, Running},
        http,
        probe::Probe,
        process,
        recent::Recent,
        supervisor::{self, Outcome, Supervisor},
        web::Web,
    },
    prometheus::{
        client::{Client, HttpClientConfig},
        heartbeat::{self, Settings as PeerSettings, Validation},
    },
    reloader::Reloader,
    sealed::{Looker, Sealed},
    shipper::{Heartbeat, PrometheusStatus},
    spans,
    storeapi::{self, budget::Budget, patterns::Patterns},
    threads::BlockingPool,
};

use self::{
    queries::Queries,
    relay::StatusRelay,
    shipping::{Configured, Shipping},
};

/// Pieces of work of the query half that take the processor, at once.
const HEAVY_AT_ONCE: usize = 2;
/// The most running calls that SIGQUIT writes to the log.
const CALLS_LOGGED: usize = 200;
/// The part of all descriptors that blocks which are read for queries may have, and the most.
const BLOCK_FILES: u64 = 8;
const MOST_BLOCK_FILES: usize = 4096;
/// What cleaning up may take beyond a task's own grace period.
const MARGIN: Duration = Duration::from_secs(15);

/// The checked configuration of the sidecar.
#[derive(Debug)]
pub struct Config {
    flags: cli::Sidecar,
    bucket: Configured,
    http_client: HttpClientConfig,
    web: Option<Web>,
    queries: queries::Config,
    /// What may be shown of the YAML that flags name.
    configuration: Vec<crate::status::Configuration>,
}

impl Config {
    /// Checks what the flags name: YAML, files, variables.
    ///
    /// # Errors
    /// The first mistake, with flag, file, key and line.
    pub fn new(flags: cli::Sidecar) -> Result<Self> {
        let bucket = Configured::read(&flags.objstore)?;
        let (http_client, client_yaml) = super::http_client(&flags.prometheus.client)?;
        let queries = queries::Config::new(&flags.grpc)?;
        let web = cli::named(flags.http.config.as_deref()).map(Web::load).transpose()?;
        let (client_file, logging_file) = (
            &flags.prometheus.client.http_client_file,
            &flags.grpc.request_logging_file,
        );
        let configuration = shown::configuration([
            (flags.objstore.given().unwrap_or_default(), bucket.yaml()),
            (
                shown::named("prometheus.http-client", client_file.as_deref()),
                &*client_yaml,
            ),
            (
                shown::named("request.logging-config", logging_file.as_deref()),
                &*queries.logging,
            ),
        ]);
        Ok(Self {
            flags,
            bucket,
            http_client,
            web,
            queries,
            configuration,
        })
    }
}

/// A sidecar whose port is bound.
#[derive(Debug)]
pub struct Sidecar {
    flags: cli::Sidecar,
    server: http::Server,
    registry: Registry,
    probe: Probe,
    client: Client,
    peer: heartbeat::Heartbeat,
    reloader: Reloader,
    looker: Option<Looker>,
    queries: Queries,
    connections: connections::Metrics,
    running: Running,
    http_limits: http::Limits,
    web: Option<Web>,
    shipping: Option<Shipping>,
    /// Whether blocks are shipped, in words.
    shipping_status: String,
    /// The status page.
    pages: http::MorePages,
    /// When the last heartbeat began whose result the shipper has.
    passed_on: watch::Sender<Option<Instant>>,
}

/// Binds the port, opens the bucket (without speaking to it) and registers all metrics.
///
/// # Errors
/// A port in use; a file that the configuration names and that cannot be used.
pub async fn build(config: Config, spans: &spans::Metrics, recent: Recent) -> Result<Sidecar> {
    let started_ms = Timestamp::now().as_millisecond();
    let Config {
        flags,
        bucket,
        http_client,
        web,
        queries,
        configuration,
    } = config;
    let server = http::bind(flags.http.address.to_socket().as_str(), "--http-address").await?;
    let mut registry = Registry::default();
    process::register(&mut registry);
    spans.register(&mut registry);
    let probe = Probe::register("sidecar", &mut registry);
    for warning in Client::warnings(&flags.prometheus.url, &http_client) {
        tracing::warn!(warning, "configuration of the client for Prometheus");
    }
    let client = new_client(&flags, &http_client)?;
    let peer = heartbeat::Heartbeat::new(client.clone(), peer_settings(&flags, bucket.is_on()), &mut registry);
    let reloader = reloading::reloader(
        &flags.reloader,
        new_client(&flags, &http_client)?,
        peer.trigger(),
        &mut registry,
    );
    let passed_on = watch::Sender::new(None);
    bucket.report(&mut registry);
    if !bucket.is_on() && flags.wal.interval().is_some() {
        tracing::warn!("--wal.interval has no effect without a bucket: the write-ahead log is not sent");
    }
    let (shipping_state, shipping_status) = (bucket.state(), bucket.status());
    let (min_time, wanted) = shipping::min_time(&flags.store, &bucket);
    let served_from = min_time.clone();
    let shipping = match bucket {
        Configured::Nothing | Configured::Empty(_) => None,
        Configured::Bucket(bucket, yaml) => {
            let heartbeat = Heartbeat::new(peer.trigger(), passed_on.subscribe());
            Some(shipping::open(&flags, (&bucket, yaml), heartbeat, wanted, &mut registry).await?)
        }
    };
    // Connections of its own: they live in the thread that answers queries.
    let asked = new_client(&flags, &http_client)?;
    let pool = BlockingPool::new(HEAVY_AT_ONCE);
    let files = process::open_files();
    let sealed_files = usize::try_from(files.unwrap_or(u64::MAX) / BLOCK_FILES).unwrap_or(usize::MAX);
    let sealed_files = sealed_files.min(MOST_BLOCK_FILES);
    let is_on = flags.store.sealed_from_disk;
    let sealed = is_on.then(|| Sealed::new(flags.tsdb.path.clone(), sealed_files));
    let context = storeapi::Context {
        client: asked,
        sealed: sealed.clone(),
        snapshots: peer.snapshots(),
        probe: probe.clone(),
        min_time,
        stored_names: peer.stored_names(),
        budget: Budget::new(usize::try_from(flags.store.memory_limit).unwrap_or(usize::MAX)),
        patterns: Patterns::new(pool.clone()),
        pool,
        timeout: flags.store.timeout,
    };
    let connections = connections::Metrics::register(&mut registry);
    let running = Running::register(&mut registry);
    let most = (grpc::Limits::default().connections, http::Limits::default().connections);
    let at_once = connections::within(files.map(|files| files - sealed_files as u64), most.0, most.1);
    let calls = (connections.clone(), running.clone(), at_once.0);
    let queries = queries::build(&flags, queries, context, calls, &mut registry).await?;
    let sources = shown::Sources {
        flags: flags.settings.clone(),
        configuration,
        started_ms,
        probe: probe.clone(),
        url: client.url().to_owned(),
        snapshots: peer.snapshots(),
        shipping: (shipping_state, shipping_status.clone()),
        bucket: shipping
            .as_ref()
            .map(|shipping| shipping.bucket.identity().to_owned())
            .unwrap_or_default(),
        dir: flags.tsdb.path.display().to_string(),
        overviews: shipping
            .as_ref()
            .map(|shipping| shipping.settings.overviews.clone())
            .unwrap_or_default(),
        wal: shipping
            .as_ref()
            .and_then(|shipping| Some((shipping.wal_shown()?, flags.wal.interval()?))),
        min_time: served_from,
        series: queries.series(),
        sealed: sealed.clone(),
        running: running.clone(),
        recent,
    };
    Ok(Sidecar {
        flags,
        server,
        registry,
        probe,
        client,
        looker: sealed.map(|sealed| Looker::new(sealed, peer.snapshots(), peer.answered(), peer.trigger())),
        peer,
        reloader,
        queries,
        connections,
        running,
        http_limits: http::Limits {
            connections: at_once.1,
            ..http::Limits::default()
        },
        web,
        shipping,
        shipping_status,
        pages: sources.pages(),
        passed_on,
    })
}

/// A client with connections of its own.
fn new_client(flags: &cli::Sidecar, http: &HttpClientConfig) -> Result<Client> {
    super::prometheus_client(&flags.prometheus.url, http, flags.prometheus.get_config_timeout)
}

/// What the heartbeat of a sidecar works with.
pub(super) fn peer_settings(flags: &cli::Sidecar, uploads: bool) -> PeerSettings {
    PeerSettings {
        interval: flags.prometheus.get_config_interval,
        extra_labels: flags.prometheus.labels(),
        validation: uploads.then(|| Validation {
            tsdb_path: flags.tsdb.path.clone(),
            ledger_name: flags.shipper.meta_file_name.clone(),
            ignore_unequal: flags.shipper.ignore_unequal_block_size,
        }),
    }
}

impl Sidecar {
    /// Runs until a signal, or until a part fails.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub async fn run(self) -> Result<Outcome> {
        let signals = supervisor::signals().context("cannot listen for signals")?;
        let running = self.running.clone();
        supervisor::on_quit(move || running.log(CALLS_LOGGED)).context("cannot listen for signals")?;
        let mut tasks = Supervisor::new();
        let token = tasks.token();
        let shipping_grace = self.flags.shipper.grace_period + MARGIN;
        let http_grace = self.flags.http.grace_period;

        let (status, statuses) = watch::channel(PrometheusStatus::default());
        let relay = StatusRelay {
            snapshots: self.peer.snapshots(),
            answered: self.peer.answered(),
            status,
            passed_on: self.passed_on,
            ready: self.probe.condition("prometheus"),
            client: self.client,
            ready_timeout: self.flags.prometheus.ready_timeout,
        };
        // The heartbeat, metrics and probes go on until the shipper is through: it asks whether Prometheus keeps its last
        // blocks, and its end can be watched.
        let serving = CancellationToken::new();
        let following = shipping_grace + MARGIN;
        tasks.spawn("heartbeat", following, infallible(self.peer.run(serving.clone())));
        tasks.spawn("status", following, infallible(relay.run(token.clone())));

        if let Some(looker) = self.looker {
            tasks.spawn("sealed blocks", MARGIN, infallible(looker.run(token.clone())));
        }
        tasks.spawn("reloader", MARGIN, infallible(self.reloader.run(token.clone())));

        let grpc_grace = self.flags.grpc.grace_period + MARGIN;
        let queries = self.queries.run(token.clone());
        tasks.spawn("grpc", grpc_grace, queries);

        tasks.spawn("shipper", shipping_grace, {
            let (serving, probe, token) = (serving.clone().drop_guard(), self.probe.clone(), token.clone());
            let shipping = self.shipping.map(|shipping| (shipping, statuses));
            let grace = self.flags.shipper.grace_period;
            infallible(async move {
                let ship = async {
                    if let Some((shipping, statuses)) = shipping {
                        shipping.run(statuses, &token, grace).await;
                    }
                };
                let stop = async {
                    token.cancelled().await;
                    probe.shutdown();
                };
                tokio::join!(ship, stop);
                drop(serving);
            })
        });
        let pages = http::Pages {
            probe: self.probe,
            registry: Arc::new(self.registry),
            connections: self.connections,
            running: Some(self.running),
            shipping: self.shipping_status,
            web: self.web,
            more: Some(self.pages),
        };
        let serve = self.server.serve(pages, self.http_limits, serving, http_grace);
        tasks.spawn("http", shipping_grace + http_grace + MARGIN, infallible(serve));
        Ok(tasks.run(signals).await)
    }
}

async fn infallible(task: impl Future<Output = ()>) -> Result<(), supervisor::TaskError> {
    task.await;
    Ok(())
}
