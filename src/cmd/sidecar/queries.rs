//! The half that answers queries: the StoreAPI over gRPC, in a thread of its own.
//!
//! One thread reads Prometheus and writes to the client: a hop between threads for each piece of an answer would cost
//! more than the work itself. The port is reserved at the start, and opens when the first heartbeat has brought labels: a
//! server that answered without them would be asked for everything.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    cli,
    ops::{connections, grpc},
    pb,
    prometheus::heartbeat::Snapshot,
    storeapi::{
        self, Context,
        series::{
            Series, SlowClients,
            limits::Limits,
            read_ahead::{
                memory::Memory,
                spill::{self, SpillDir},
            },
        },
    },
};

/// The default of `--min-time-margin`.
const MIN_TIME_MARGIN: Duration = Duration::from_secs(3 * 3600);
/// A shorter margin may leave a gap: Store Gateways sync each 15 minutes, and the head is emptied a while after its end.
const LEAST_MARGIN: Duration = Duration::from_secs(3600);
/// The default of `--store.spill-limit`, in bytes.
const SPILL_LIMIT: u64 = 4 << 30;
/// Answers are spilled in blocks of so many bytes.
const SPILL_LEAST: u64 = 1 << 20;

/// The query half, whose port is reserved.
#[derive(Debug)]
pub(super) struct Queries {
    port: grpc::Bound,
    routes: Routes,
    series: Series,
    settings: grpc::Settings,
    grace: Duration,
    snapshots: watch::Receiver<Snapshot>,
}

/// What the flags of the gRPC server name, read and checked.
#[derive(Debug)]
pub(super) struct Config {
    tls: Option<grpc::Tls>,
    log: Option<grpc::CallLog>,
    /// The YAML that says which calls are logged.
    pub(super) logging: String,
}

impl Config {
    /// Reads certificates and YAML.
    ///
    /// # Errors
    /// The first mistake, with flag and file.
    pub(super) fn new(flags: &cli::Grpc) -> Result<Self> {
        let (tls, (log, logging)) = (tls(flags)?, call_log(flags)?);
        Ok(Self { tls, log, logging })
    }
}

/// The TLS of the server; reads certificates.
///
/// # Errors
/// The first mistake, with flag and file.
pub(in crate::cmd) fn tls(flags: &cli::Grpc) -> Result<Option<grpc::Tls>, grpc::TlsError> {
    let file = |path: &Option<PathBuf>| cli::named(path.as_deref()).map(Path::to_owned);
    grpc::Tls::load(grpc::TlsFlags {
        cert: file(&flags.tls_cert),
        key: file(&flags.tls_key),
        client_ca: file(&flags.tls_client_ca),
        min_version: match flags.tls_min_version {
            cli::TlsVersion::V1_0 => grpc::TlsVersion::V1_0,
            cli::TlsVersion::V1_1 => grpc::TlsVersion::V1_1,
            cli::TlsVersion::V1_2 => grpc::TlsVersion::V1_2,
            cli::TlsVersion::V1_3 => grpc::TlsVersion::V1_3,
        },
        ciphers: flags.tls_ciphers.clone(),
        curves: flags.tls_curves.clone(),
    })
}

/// Which calls are logged, and the YAML that says so.
///
/// # Errors
/// The first mistake, with flag and file.
pub(in crate::cmd) fn call_log(flags: &cli::Grpc) -> Result<(Option<grpc::CallLog>, String)> {
    let yaml = flags.logging(&cli::process_env)?;
    crate::cmd::warn_if_empty(
        "request.logging-config-file",
        flags.request_logging_file.as_deref(),
        &yaml,
    );
    let log = match yaml.trim().is_empty() {
        true => None,
        false => grpc::CallLog::parse(&yaml).with_context(|| invalid_yaml(flags))?,
    };
    Ok((log, yaml))
}

/// Where the wrong YAML came from.
fn invalid_yaml(flags: &cli::Grpc) -> String {
    match &flags.request_logging_file {
        Some(path) if !path.as_os_str().is_empty() => {
            format!("--request.logging-config-file={} is wrong", path.display())
        }
        _ => "--request.logging-config is wrong".to_owned(),
    }
}

/// Reserves the port and registers the metrics.
///
/// # Errors
/// A port in use.
pub(super) async fn build(
    flags: &cli::Sidecar,
    config: Config,
    context: Context,
    (connections, running, at_once): (connections::Metrics, grpc::Running, usize),
    registry: &mut Registry,
) -> Result<Queries> {
    let port = grpc::bind(flags.grpc.address.to_socket().as_str(), "--grpc-address").await?;
    let methods = grpc::methods(pb::FILE_DESCRIPTOR_SET).context("the descriptors of the services cannot be read")?;
    let settings = grpc::Settings {
        max_connection_age: flags.grpc.max_connection_age,
        metrics: grpc::Metrics::register(registry, methods),
        connections,
        running,
        log: config.log,
        tls: config.tls,
        limits: grpc::Limits {
            connections: at_once,
            ..grpc::Limits::default()
        },
    };
    let limits = Limits {
        series: flags.store.request_series,
        samples: flags.store.request_samples,
    };
    let snapshots = context.snapshots.clone();
    context.min_time.register(&snapshots, registry);
    let probe = context.probe.clone();
    context.client.register_metrics(registry);
    let series = Series::new(
        context.clone(),
        limits,
        slow_clients(flags, &context, registry)?,
        registry,
    );
    let routes = storeapi::routes(&context, series.clone(), grpc::MESSAGE_MAX);
    let (reflection, reflection_alpha) = grpc::reflection(pb::FILE_DESCRIPTOR_SET)?;
    let routes = routes
        .add_service(grpc::health(&probe))
        .add_service(reflection)
        .add_service(reflection_alpha);
    Ok(Queries {
        port,
        routes,
        series,
        settings,
        grace: flags.grpc.grace_period,
        snapshots,
    })
}

/// Settings that are accepted and do not do what they seem to, in words for the log.
pub(in crate::cmd) fn without_effect(store: &cli::Store) -> Vec<&'static str> {
    let has_dir = cli::named(store.spill_dir.as_deref()).is_some();
    let mut found = Vec::new();
    let is_auto = store.min_time == cli::MinTime::Auto;
    if !is_auto && store.min_time_margin != MIN_TIME_MARGIN {
        found.push("--min-time-margin has no effect without --min-time=auto");
    }
    if is_auto && store.min_time_margin < LEAST_MARGIN {
        found.push("--min-time-margin is below 1h: a Store Gateway looks for new blocks each 15m unless told otherwise, and until it has found one, nobody may answer for its samples");
    }
    if !has_dir && store.spill_limit != SPILL_LIMIT {
        found.push(
            "--store.spill-limit has no effect without --store.spill-dir: answers of slow clients wait in memory only",
        );
    }
    if has_dir && store.spill_limit < SPILL_LEAST {
        found.push("--store.spill-dir is hardly ever used: --store.spill-limit is below 1MiB, and answers are written in blocks of that size");
    }
    if store.read_ahead > store.memory_limit {
        found.push(
            "--store.read-ahead is larger than --store.memory-limit, of which it is a part: the smaller one counts",
        );
    }
    found
}

/// What is done for clients that read slowly.
fn slow_clients(flags: &cli::Sidecar, context: &Context, registry: &mut Registry) -> Result<SlowClients> {
    for warning in without_effect(&flags.store) {
        tracing::warn!("{warning}");
    }
    context.budget.register(registry);
    let bytes = usize::try_from(flags.store.read_ahead).unwrap_or(usize::MAX);
    let memory = Memory::new(context.budget.clone(), bytes);
    memory.register(registry);
    Ok(SlowClients {
        memory,
        spill_dir: spill_dir(&flags.store, spill::register(registry))?,
        patience: flags.store.max_client_lag,
    })
}

/// Where answers that wait for slow clients are put, if anywhere.
///
/// # Errors
/// The directory cannot be written to.
pub(in crate::cmd) fn spill_dir(store: &cli::Store, used: Gauge) -> Result<Option<SpillDir>> {
    let dir = cli::named(store.spill_dir.as_deref());
    dir.map(|dir| SpillDir::open(dir, store.spill_limit, used))
        .transpose()
        .context("--store.spill-dir cannot be used: it must be a directory that narthex may write to")
}

impl Queries {
    /// What answers Series calls.
    pub(super) fn series(&self) -> Series {
        self.series.clone()
    }

    /// Serves until `token` is cancelled, and for the grace period beyond that.
    ///
    /// # Errors
    /// The port cannot be listened on; the thread cannot be started.
    pub(super) async fn run(self, token: CancellationToken) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the thread for queries")?;
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new()
            .name("queries".to_owned())
            .spawn(move || {
                let result = runtime.block_on(self.serve(token));
                // What still runs there is cut; nobody waits for it.
                runtime.shutdown_background();
                // Nobody listens any more when the process ends in haste.
                let _ = ended.send(result);
            })
            .context("cannot start the thread for queries")?;
        end.await.context("the thread for queries has panicked")?
    }

    async fn serve(mut self, token: CancellationToken) -> Result<()> {
        let known = self
            .snapshots
            .wait_for(|snapshot| snapshot.seen && !snapshot.labels.is_empty());
        tokio::select! {
            // The heartbeat ends with us, and that is no failure.
            biased;
            () = token.cancelled() => return Ok(()),
            known = known => {
                known.context("the heartbeat has ended")?;
            }
        }
        let server = self.port.listen()?;
        server.serve(self.routes, self.settings, token, self.grace).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flags: &[&str]) -> Vec<&'static str> {
        let args = ["narthex", "sidecar"].iter().chain(flags).map(Into::into);
        match cli::parse(args) {
            cli::Outcome::Run(cli::Command::Sidecar(flags)) => without_effect(&flags.store),
            other => panic!("no sidecar: {other:?}"),
        }
    }

    #[test]
    fn a_margin_without_auto_and_one_that_may_leave_a_gap_are_warned_of() {
        assert_eq!(found(&["--min-time=auto"]), Vec::<&str>::new());
        assert_eq!(found(&["--min-time=auto", "--min-time-margin=1h"]), Vec::<&str>::new());
        for (flags, part) in [
            (&["--min-time-margin=6h"][..], "no effect without --min-time=auto"),
            (
                &["--min-time-margin=6h", "--min-time=-1d"],
                "no effect without --min-time=auto",
            ),
            (&["--min-time=auto", "--min-time-margin=59m59s"], "below 1h"),
        ] {
            let found = found(flags);
            assert!(
                matches!(&found[..], [one] if one.contains(part)),
                "{flags:?}: {found:?}"
            );
        }
    }

    #[test]
    fn settings_for_slow_clients_that_do_nothing_are_warned_of() {
        assert_eq!(found(&[]), Vec::<&str>::new());
        let dir = "--store.spill-dir=/var/tmp";
        assert_eq!(found(&[dir, "--store.spill-limit=1GiB"]), Vec::<&str>::new());
        for (flags, part) in [
            (&["--store.spill-limit=1GiB"][..], "no effect without --store.spill-dir"),
            (
                &["--store.spill-limit=1GiB", "--store.spill-dir="],
                "no effect without --store.spill-dir",
            ),
            (&[dir, "--store.spill-limit=0"], "is hardly ever used"),
            (&["--store.read-ahead=512MiB"], "larger than --store.memory-limit"),
        ] {
            let found = found(flags);
            assert!(
                matches!(&found[..], [one] if one.contains(part)),
                "{flags:?}: {found:?}"
            );
        }
    }
}
