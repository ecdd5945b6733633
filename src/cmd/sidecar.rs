//! `narthex sidecar`: the only place where the bucket, Prometheus and the shipper meet.
//!
//! [`Config`] holds what was checked, [`build`] binds the port and opens the bucket, [`Sidecar::run`] runs until a signal.
//! No failure of Prometheus or the bucket ends the process: it is reported in the log, the metrics and the readiness.

mod queries;
mod reloading;
mod shipping;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use prometheus_client::registry::Registry;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    model::Labels,
    ops::{
        connections,
        grpc::{self, Running},
        http,
        probe::{Condition, Probe},
        process,
        supervisor::{self, Outcome, Supervisor},
        web::Web,
    },
    prometheus::{
        client::{Alive, Client, HttpClientConfig},
        heartbeat::{self, Settings as PeerSettings, Snapshot, Validation},
    },
    reloader::Reloader,
    shipper::{Heartbeat, Liveness, PrometheusStatus},
    spans,
    storeapi::{self, budget::Budget, patterns::Patterns},
    threads::BlockingPool,
};

use self::{
    queries::Queries,
    shipping::{Configured, Shipping},
};

/// Pieces of work of the query half that take the processor, at once.
const HEAVY_AT_ONCE: usize = 2;
/// How often Prometheus is polled during shutdown.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The most running calls that SIGQUIT writes to the log.
const CALLS_LOGGED: usize = 200;
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
}

impl Config {
    /// Checks what the flags name: YAML, files, variables.
    ///
    /// # Errors
    /// The first mistake, with flag, file, key and line.
    pub fn new(flags: cli::Sidecar) -> Result<Self> {
        let bucket = Configured::read(&flags.objstore)?;
        let yaml = flags.prometheus.client.yaml()?;
        super::warn_if_empty(
            "prometheus.http-client-file",
            flags.prometheus.client.http_client_file.as_deref(),
            &yaml,
        );
        let http_client = HttpClientConfig::parse(&yaml)
            .context("the configuration of the client for Prometheus (--prometheus.http-client) is wrong")?;
        let queries = queries::Config::new(&flags.grpc)?;
        let web = cli::named(flags.http.config.as_deref()).map(Web::load).transpose()?;
        Ok(Self {
            flags,
            bucket,
            http_client,
            web,
            queries,
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
    queries: Queries,
    connections: connections::Metrics,
    running: Running,
    http_limits: http::Limits,
    web: Option<Web>,
    shipping: Option<Shipping>,
    /// Whether blocks are shipped, in words.
    shipping_status: String,
    /// When the last heartbeat began whose result the shipper has.
    passed_on: watch::Sender<Option<Instant>>,
}

/// Binds the port, opens the bucket (without speaking to it) and registers all metrics.
///
/// # Errors
/// A port in use; a file that the configuration names and that cannot be used.
pub async fn build(config: Config, spans: &spans::Metrics) -> Result<Sidecar> {
    let Config {
        flags,
        bucket,
        http_client,
        web,
        queries,
    } = config;
    let server = http::bind(flags.http.address.to_socket().as_str(), "--http-address").await?;
    let mut registry = Registry::default();
    process::register(&mut registry);
    spans.register(&mut registry);
    let probe = Probe::register("sidecar", &mut registry);
    for warning in Client::warnings(&flags.prometheus.url, &http_client) {
        tracing::warn!(warning, "configuration of the client for Prometheus");
    }
    let client = Client::new(&flags.prometheus.url, &http_client, flags.prometheus.get_config_timeout)
        .context("--prometheus.url or --prometheus.http-client cannot be used")?;
    let peer = heartbeat::Heartbeat::new(client.clone(), peer_settings(&flags, bucket.is_on()), &mut registry);
    let reloader = reloading::reloader(&flags, &http_client, peer.trigger(), &mut registry)?;
    let passed_on = watch::Sender::new(None);
    bucket.report(&mut registry);
    let shipping_status = bucket.status();
    let (min_time, wanted) = shipping::min_time(&flags.store, &bucket);
    let shipping = match bucket {
        Configured::Nothing | Configured::Empty(_) => None,
        Configured::Bucket(bucket, yaml) => {
            let heartbeat = Heartbeat::new(peer.trigger(), passed_on.subscribe());
            Some(shipping::open(&flags, (&bucket, yaml), heartbeat, wanted, &mut registry).await?)
        }
    };
    // Connections of its own: they live in the thread that answers queries.
    let asked = Client::new(&flags.prometheus.url, &http_client, flags.prometheus.get_config_timeout)
        .context("--prometheus.url or --prometheus.http-client cannot be used")?;
    let pool = BlockingPool::new(HEAVY_AT_ONCE);
    let context = storeapi::Context {
        client: asked,
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
    let at_once = connections::within(process::open_files(), most.0, most.1);
    let calls = (connections.clone(), running.clone(), at_once.0);
    let queries = queries::build(&flags, queries, context, calls, &mut registry).await?;
    Ok(Sidecar {
        flags,
        server,
        registry,
        probe,
        client,
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
        passed_on,
    })
}

fn peer_settings(flags: &cli::Sidecar, uploads: bool) -> PeerSettings {
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

/// Passes what the heartbeat learns on to the probe and the shipper; during shutdown, watches whether Prometheus stops, too.
struct StatusRelay {
    snapshots: watch::Receiver<Snapshot>,
    /// When the last heartbeat began that was answered.
    answered: watch::Receiver<Option<Instant>>,
    status: watch::Sender<PrometheusStatus>,
    /// The same, once `status` holds its result.
    passed_on: watch::Sender<Option<Instant>>,
    ready: Condition,
    client: Client,
    /// After so long without labels an error is logged.
    ready_timeout: Duration,
}

impl StatusRelay {
    async fn run(mut self, token: CancellationToken) {
        let mut ready_timeout = std::pin::pin!(tokio::time::sleep(self.ready_timeout));
        let mut reported = false;
        while !token.is_cancelled() {
            let labelled = self.publish();
            tokio::select! {
                () = token.cancelled() => break,
                () = &mut ready_timeout, if !reported && !labelled => {
                    reported = true;
                    tracing::error!(after = ?self.ready_timeout, "still no external labels after --prometheus.ready_timeout; uploads begin once there are some");
                }
                () = changed(&mut self.snapshots) => {}
                () = changed(&mut self.answered) => {}
            }
        }
        self.watch_shutdown().await;
    }

    /// Passes the newest snapshot on; whether there are labels.
    fn publish(&mut self) -> bool {
        // Read first: the snapshot is not older than this heartbeat then.
        let answered = *self.answered.borrow_and_update();
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.ready.set(snapshot.problem.clone().map_or(Ok(()), Err));
        let mut old_labels = None;
        update(&self.status, |status| {
            old_labels = std::mem::replace(&mut status.labels, snapshot.seen.then(|| snapshot.labels.clone()));
            status.liveness = liveness(&snapshot);
            status.reload_failed_at = snapshot.reload_failed_at;
            status.head_min_time_ms = snapshot.head_min_time_ms;
            status.out_of_order_window_ms = snapshot.settings.out_of_order_window_ms;
            status.delays_compaction = snapshot.delays_compaction();
            status.retention = snapshot.retention();
            // A block may hold what was written before the setting was changed.
            status.newer_encodings |= snapshot.writes_newer_encodings();
        });
        self.passed_on.send_replace(answered);
        // Not before: the shipper stamps blocks with the new ones by now.
        if let Some(old) = old_labels.filter(|old| *old != snapshot.labels) {
            log_changed_labels(&old, &snapshot.labels, self.client.url());
        }
        !snapshot.labels.is_empty()
    }

    /// Polls whether Prometheus still runs, until the shipper has ended.
    async fn watch_shutdown(self) {
        while !self.status.is_closed() {
            let alive = self.client.alive().await;
            let answered = *self.answered.borrow();
            let snapshot = self.snapshots.borrow().clone();
            update(&self.status, |status| {
                status.liveness = match alive {
                    Alive::Ready => Liveness::Up,
                    Alive::NotReady => Liveness::Stopping,
                    Alive::Gone => Liveness::Gone,
                };
                status.reload_failed_at = snapshot.reload_failed_at;
                status.head_min_time_ms = snapshot.head_min_time_ms;
            });
            self.passed_on.send_replace(answered);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn log_changed_labels(old: &Labels, new: &Labels, url: &str) {
    let then = match new.is_empty() {
        true => "there are none now: no block is uploaded and queries are refused until there are some",
        false => "blocks that are sealed from now on carry the new ones",
    };
    tracing::warn!(prometheus = url, %old, %new, "external labels have changed; {then}");
}

/// Waits for a change; for ever when there will be none.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn liveness(snapshot: &Snapshot) -> Liveness {
    match (snapshot.up, snapshot.gone) {
        (true, _) => Liveness::Up,
        (false, true) => Liveness::Gone,
        // Not asked yet is no reason to take old labels.
        (false, false) if !snapshot.asked => Liveness::Up,
        (false, false) => Liveness::Stopping,
    }
}

fn update(status: &watch::Sender<PrometheusStatus>, change: impl FnOnce(&mut PrometheusStatus)) {
    let mut next = status.borrow().clone();
    change(&mut next);
    status.send_if_modified(|now| {
        let is_new = *now != next;
        *now = next;
        is_new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unasked() -> Snapshot {
        Snapshot {
            labels: Labels::default(),
            version: String::new(),
            flags: Default::default(),
            settings: Default::default(),
            lowest_time_ms: 0,
            head_min_time_ms: None,
            reload_failures: None,
            reload_failed_at: None,
            up: false,
            problem: Some("it was not asked yet".into()),
            asked: false,
            seen: false,
            gone: false,
        }
    }

    #[test]
    fn old_labels_count_only_once_prometheus_was_asked_and_does_not_answer() {
        let unasked = unasked();
        assert_eq!(liveness(&unasked), Liveness::Up);
        let asked = Snapshot { asked: true, ..unasked };
        assert_eq!(liveness(&asked), Liveness::Stopping);
        let gone = Snapshot { gone: true, ..asked };
        assert_eq!(liveness(&gone), Liveness::Gone);
        assert_eq!(liveness(&Snapshot { up: true, ..gone }), Liveness::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_heartbeat_tells_of_reloads_reaches_the_shipper_with_it_also_while_we_stop() {
        let (snapshots, answered) = (watch::Sender::new(unasked()), watch::Sender::new(None));
        let (status, mut statuses) = watch::channel(PrometheusStatus::default());
        let passed_on = watch::Sender::new(None);
        let mut heartbeat = Heartbeat::new(Arc::default(), passed_on.subscribe());
        // Nothing listens there, and the port is none that anybody is given.
        let url = "http://127.0.0.1:1".parse().expect("an address");
        let relay = StatusRelay {
            snapshots: snapshots.subscribe(),
            answered: answered.subscribe(),
            status,
            passed_on,
            ready: Probe::register("test", &mut Registry::default()).condition("prometheus"),
            client: Client::new(&url, &HttpClientConfig::default(), POLL_INTERVAL).expect("an address"),
            ready_timeout: Duration::from_secs(3600),
        };
        let stop = CancellationToken::new();
        let following = tokio::spawn(relay.run(stop.clone()));
        for stopping in [false, false, true] {
            if stopping {
                stop.cancel();
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            let failed = Instant::now();
            let emptied = statuses.borrow().head_min_time_ms.unwrap_or_default() + 1;
            snapshots.send_modify(|snapshot| {
                snapshot.reload_failed_at = Some(failed);
                snapshot.head_min_time_ms = Some(emptied);
            });
            answered.send_replace(Some(failed));
            assert!(heartbeat.wait_answered_since(failed, Duration::from_secs(60)).await);
            let told = statuses.borrow_and_update().clone();
            assert_eq!(
                (told.reload_failed_at, told.head_min_time_ms),
                (Some(failed), Some(emptied))
            );
            // The next one has nothing new to tell, and is an answer all the same.
            tokio::time::advance(Duration::from_secs(1)).await;
            let fine = Instant::now();
            answered.send_replace(Some(fine));
            assert!(heartbeat.wait_answered_since(fine, Duration::from_secs(60)).await);
            assert_eq!(statuses.borrow_and_update().reload_failed_at, Some(failed));
        }
        drop(statuses);
        following.await.expect("it does not panic");
    }
}
