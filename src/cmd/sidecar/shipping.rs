//! The half that ships: whether there is one, and what it works with.
//!
//! Without a bucket nothing is shipped, which is what some want. Others have a configuration that is empty by mistake (a
//! variable or a key of a secret without content), so that it is said in every place where one looks for it: in the log,
//! as a warning if a flag was given; in the metric `narthex_shipping`; and in a header of `/-/ready`. Nothing here speaks
//! to the bucket.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    cmd::{encodings::newer_encodings, invalid_yaml},
    model::error_text::with_causes,
    objstore::{self, Bucket, Follower, config::BucketConfig},
    shipper::{
        AutoMinTime, ContentPolicy, DrainReport, Heartbeat, Metrics, Overlapping, Overviews, Policy, PrometheusStatus,
        Settings, Shipper,
    },
    storeapi::min_time::MinTime,
    wal,
};

/// The time between two scans; a hint of the watcher comes sooner. Thanos' is the same.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// A broken block is looked at again after this time: a copy may have been mended.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A request to the bucket that makes no progress for so long is given up.
pub(in crate::cmd) const STALL: Duration = Duration::from_secs(30);
/// How long aborting what was dropped at the end may take.
const SETTLE: Duration = Duration::from_secs(10);
/// Half of the time after which the alert for blocks that are not in the bucket fires.
const LONG_JITTER: Duration = Duration::from_secs(15 * 60);

/// Every state of `narthex_shipping`; all of them are shown, and one is 1.
const STATES: [&str; 3] = ["on", "not_configured", "empty_configuration"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// What the flags say of the bucket.
#[derive(Debug)]
pub(in crate::cmd) enum Configured {
    /// Which it is, and the text that says so.
    Bucket(Box<BucketConfig>, String),
    /// Nothing: neither flag was given.
    Nothing,
    /// This flag was given, and there is nothing in it.
    Empty(String),
}

impl Configured {
    /// Reads the configuration that the flags name.
    ///
    /// # Errors
    /// The first mistake, with flag, file, key and line.
    pub(in crate::cmd) fn read(flags: &cli::Objstore) -> Result<Self> {
        let yaml = flags.content(&cli::process_env)?;
        Ok(match (yaml.trim().is_empty(), flags.given()) {
            (true, Some(flag)) => Self::Empty(flag),
            (true, None) => Self::Nothing,
            (false, _) => {
                let config = objstore::config::parse(&yaml).with_context(|| invalid_yaml(flags))?;
                Self::Bucket(Box::new(config), yaml)
            }
        })
    }

    /// Whether blocks are shipped.
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::Bucket(..))
    }

    /// Says in the log that nothing is shipped, if that is so, and registers the metric that says it.
    pub(super) fn report(&self, registry: &mut Registry) {
        match self {
            Self::Bucket(..) => {}
            Self::Nothing => tracing::info!("no object storage is configured: uploads are disabled"),
            Self::Empty(flag) => tracing::warn!(
                flag,
                "the object storage configuration is given and empty: uploads are disabled. Fill it, or leave the flag out if nothing is to be shipped"
            ),
        }
        let states = Family::<State, Gauge>::default();
        for state in STATES {
            let is = i64::from(state == self.state());
            states.get_or_create(&State { state }).set(is);
        }
        registry.register(
            "narthex_shipping",
            "Whether blocks are shipped: 1 for the current state, 0 for the others",
            states,
        );
    }

    /// The text that says which bucket it is; empty if there is none.
    pub(super) fn yaml(&self) -> &str {
        match self {
            Self::Bucket(_, yaml) => yaml,
            Self::Nothing | Self::Empty(_) => "",
        }
    }

    /// The same as the value of a metric's label.
    pub(super) fn state(&self) -> &'static str {
        match self {
            Self::Bucket(..) => "on",
            Self::Nothing => "not_configured",
            Self::Empty(_) => "empty_configuration",
        }
    }

    /// The same in words, for the header of `/-/ready`.
    pub(super) fn status(&self) -> String {
        match self {
            Self::Bucket(..) => "on".to_owned(),
            Self::Nothing => "off: no object storage is configured".to_owned(),
            Self::Empty(flag) => format!("off: {flag} is empty"),
        }
    }
}

/// What the shipper works with.
#[derive(Debug)]
pub(super) struct Shipping {
    pub(super) settings: Settings,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) metrics: Metrics,
    /// Follows the file of the configuration.
    pub(super) follower: Follower,
    pub(super) rate_limit: objstore::RateLimit,
    /// Sends the write-ahead log as well, if it is to.
    wal: Option<wal::Settings>,
    wal_metrics: wal::Metrics,
}

/// From which time on queries are answered, and what the shipper has to tell for it.
pub(super) fn min_time(flags: &cli::Store, bucket: &Configured) -> (MinTime, Option<AutoMinTime>) {
    match (flags.min_time, bucket.is_on()) {
        (cli::MinTime::Fixed(time), _) => (MinTime::Fixed(time), None),
        (cli::MinTime::Auto, false) => {
            tracing::info!(
                "--min-time=auto: there is no bucket that could have anything; everything that Prometheus holds is served"
            );
            (MinTime::EVERYTHING, None)
        }
        (cli::MinTime::Auto, true) => {
            let (served_from, proven) = watch::channel(None);
            let margin = flags.min_time_margin;
            (MinTime::Auto(proven), Some(AutoMinTime { margin, served_from }))
        }
    }
}

/// Opens the bucket, without speaking to it, and registers the metrics.
///
/// # Errors
/// A file that the configuration names and that cannot be used.
pub(super) async fn open(
    flags: &cli::Sidecar,
    (config, yaml): (&BucketConfig, String),
    heartbeat: Heartbeat,
    min_time: Option<AutoMinTime>,
    registry: &mut Registry,
) -> Result<Shipping> {
    for warning in &config.warnings {
        tracing::warn!(warning, "object storage configuration");
    }
    let limits = objstore::Limits {
        requests_at_once: flags.shipper.requests_at_once(),
        stall: STALL,
        rate_limit: objstore::RateLimit::at_most(flags.shipper.max_rate),
        ..objstore::Limits::default()
    };
    if flags.shipper.jitter > LONG_JITTER {
        tracing::warn!(
            jitter = ?flags.shipper.jitter,
            "blocks wait for up to --shipper.jitter before they are sent, and are on the local disk only meanwhile: keep it to minutes"
        );
    }
    let read = reader(&flags.objstore, &yaml);
    let (bucket, follower) = objstore::open_followed((config, yaml), read, &limits, registry)
        .await
        .context("the object storage cannot be used")?;
    tracing::info!(bucket = bucket.identity(), dir = %flags.tsdb.path.display(), "shipping blocks");
    let settings = Settings {
        dir: flags.tsdb.path.clone(),
        ledger_name: flags.shipper.meta_file_name.clone(),
        policy: Policy {
            upload_compacted: flags.shipper.upload_compacted,
            allow_out_of_order: flags.shipper.allow_out_of_order_uploads,
        },
        content: ContentPolicy {
            newer_encodings: newer_encodings(flags.shipper.newer_encodings),
            overlapping: match flags.shipper.overlapping {
                cli::Overlapping::Ship => Overlapping::Ship,
                cli::Overlapping::Mark => Overlapping::Mark,
            },
        },
        sha256: flags.shipper.hash_func == cli::HashFunc::Sha256,
        source: "sidecar".to_owned(),
        scan_interval: SCAN_INTERVAL,
        hold_unshipped: flags.shipper.hold_unshipped,
        jitter: flags.shipper.jitter,
        look_again: LOOK_AGAIN,
        heartbeat: Some(heartbeat),
        min_time,
        overviews: Overviews::default(),
    };
    let wal = flags.wal.interval().map(|interval| wal::Settings {
        dir: flags.tsdb.path.clone(),
        interval,
        overviews: settings.overviews.clone(),
        shown: wal::Shown::default(),
    });
    Ok(Shipping {
        settings,
        bucket,
        metrics: Metrics::register(registry),
        follower,
        rate_limit: limits.rate_limit,
        wal,
        wal_metrics: wal::Metrics::register(registry),
    })
}

impl Shipping {
    /// Where is shown what is known of the write-ahead log, if it is sent.
    pub(super) fn wal_shown(&self) -> Option<wal::Shown> {
        self.wal.as_ref().map(|wal| wal.shown.clone())
    }

    /// Ships until `stop`, and then for at most `grace`.
    pub(super) async fn run(
        self,
        statuses: watch::Receiver<PrometheusStatus>,
        stop: &CancellationToken,
        grace: Duration,
    ) {
        let bucket = Arc::clone(&self.bucket);
        let shipper = Shipper::new(self.settings, Arc::clone(&bucket), statuses.clone(), self.metrics);
        let shipped = CancellationToken::new();
        let ship = async {
            log_drain_report(&shipper.run(stop.clone(), grace).await);
        };
        let send_wal = async {
            let Some(wal) = self.wal else { return };
            let sender = wal::Sender::new(wal, Arc::clone(&bucket), statuses, self.wal_metrics);
            send_wal(sender, &*bucket, stop, grace).await;
        };
        let send = async {
            let _shipped = shipped.clone().drop_guard();
            tokio::join!(ship, send_wal);
        };
        let hurry = async {
            // There is no time left to spare the network.
            stop.cancelled().await;
            self.rate_limit.lift();
        };
        tokio::join!(send, self.follower.run(shipped.clone()), hurry);
    }
}

/// Sends the write-ahead log until `stop`, and then for at most `grace`.
async fn send_wal(sender: wal::Sender, bucket: &dyn Bucket, stop: &CancellationToken, grace: Duration) {
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        all = sender.run(stop.clone()) => match all {
            true => tracing::info!("the write-ahead log is in the bucket up to its end"),
            false => tracing::warn!("stopped without all of the write-ahead log in the bucket; the lines above say why"),
        },
        () = deadline => {
            tracing::warn!("the grace period (--shipper.grace-period) ended before the end of the write-ahead log was sent");
            // What it takes to abort an upload in parts.
            let _ = tokio::time::timeout(SETTLE, bucket.settle()).await;
        }
    }
}

fn log_drain_report(report: &DrainReport) {
    if !report.in_time && !report.not_durable.is_empty() {
        tracing::warn!("the grace period (--shipper.grace-period) ended before all blocks were uploaded");
    }
    if !report.not_durable.is_empty() {
        tracing::error!(
            blocks = report.not_durable.len(),
            "stopped before all blocks were uploaded; the lines above say why for each. Those that only wait, and are still on the disk, are uploaded when narthex starts again with this data directory"
        );
    }
}

/// Reads the configuration again. What comes from a pipe can be read once only, and stays as it is.
fn reader(objstore: &cli::Objstore, yaml: &str) -> objstore::ReadConfig {
    if !objstore.can_be_read_again() {
        let yaml = yaml.to_owned();
        return Arc::new(move || Ok(yaml.clone()));
    }
    let objstore = objstore.clone();
    Arc::new(move || objstore.content(&cli::process_env).map_err(|error| with_causes(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_bucket_auto_serves_everything() {
        let args = ["narthex", "sidecar", "--min-time=auto"].map(Into::into);
        let cli::Outcome::Run(cli::Command::Sidecar(flags)) = cli::parse(args) else {
            panic!("no sidecar");
        };
        for bucket in [Configured::Nothing, Configured::Empty("--objstore.config".to_owned())] {
            let (min_time, wanted) = min_time(&flags.store, &bucket);
            assert_eq!(min_time.limit_ms(), -62_167_219_200_000);
            assert!(wanted.is_none());
        }
    }
}
