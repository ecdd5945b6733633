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

use crate::{
    cli,
    cmd::{encodings::newer_encodings, invalid_yaml},
    objstore::{self, Bucket, config::BucketConfig},
    shipper::{AutoMinTime, ContentPolicy, Heartbeat, Metrics, Overlapping, Policy, Settings},
    storeapi::min_time::MinTime,
};

/// The time between two scans; a hint of the watcher comes sooner. Thanos' is the same.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// A broken block is looked at again after this time: a copy may have been mended.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A request to the bucket that makes no progress for so long is given up.
const STALL: Duration = Duration::from_secs(30);

/// Every state of `narthex_shipping`; all of them are shown, and one is 1.
const STATES: [&str; 3] = ["on", "not_configured", "empty_configuration"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// What the flags say of the bucket.
#[derive(Debug)]
pub(super) enum Configured {
    /// Which it is.
    Bucket(Box<BucketConfig>),
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
    pub(super) fn read(flags: &cli::Objstore) -> Result<Self> {
        let yaml = flags.content(&cli::process_env)?;
        Ok(match (yaml.trim().is_empty(), flags.given()) {
            (true, Some(flag)) => Self::Empty(flag),
            (true, None) => Self::Nothing,
            (false, _) => Self::Bucket(Box::new(
                objstore::config::parse(&yaml).with_context(|| invalid_yaml(flags))?,
            )),
        })
    }

    /// Whether blocks are shipped.
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    /// Says in the log that nothing is shipped, if that is so, and registers the metric that says it.
    pub(super) fn report(&self, registry: &mut Registry) {
        match self {
            Self::Bucket(_) => {}
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

    fn state(&self) -> &'static str {
        match self {
            Self::Bucket(_) => "on",
            Self::Nothing => "not_configured",
            Self::Empty(_) => "empty_configuration",
        }
    }

    /// The same in words, for the header of `/-/ready`.
    pub(super) fn status(&self) -> String {
        match self {
            Self::Bucket(_) => "on".to_owned(),
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
    config: &BucketConfig,
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
        rate_limit: objstore::RateLimit::default(),
    };
    let bucket = objstore::open(config, &limits, registry)
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
        look_again: LOOK_AGAIN,
        heartbeat: Some(heartbeat),
        min_time,
    };
    Ok(Shipping {
        settings,
        bucket,
        metrics: Metrics::register(registry),
    })
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
