//! What queries may ask for and cost.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    MIN_TIME,
    value::{self, MinTime},
};

/// What queries may ask for and cost.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Queries")]
#[group(skip)]
pub struct Store {
    /// Most series in one answer; 0 means no limit
    ///
    /// A call that goes beyond it fails with ResourceExhausted.
    #[arg(
        long = "store.limits.request-series", value_name = "n", value_parser = value::uint, default_value = "0"
    )]
    pub request_series: u64,

    /// Most samples in one answer, where each chunk counts as 120; 0 means no limit
    ///
    /// A call that goes beyond it fails with ResourceExhausted.
    #[arg(
        long = "store.limits.request-samples", value_name = "n", value_parser = value::uint, default_value = "0"
    )]
    pub request_samples: u64,

    /// Answer queries with nothing older than this; uploads are not affected
    ///
    /// A time like 2026-01-31T00:00:00Z, or a duration from now: -1d is a day ago, 1d (no minus) a day ahead. With auto
    /// (narthex' own) what the bucket is proven to have is left to a Store Gateway, less --min-time-margin; whatever is not
    /// proven is served.
    #[arg(
        long = "min-time", value_name = "time", value_parser = value::min_time,
        default_value = MIN_TIME
    )]
    pub min_time: MinTime,

    /// How far --min-time=auto overlaps with the bucket, and how long a block must have been there (narthex' own)
    ///
    /// More than a Store Gateway takes to find a block: its --sync-block-duration and --consistency-delay together, and
    /// what it needs to load it.
    #[arg(
        long = "min-time-margin", value_name = "duration", value_parser = value::go_duration, default_value = "3h"
    )]
    pub min_time_margin: Duration,

    /// Read sealed blocks below --tsdb.path for queries, and ask Prometheus for the rest; on unless it is turned off with --no-store.sealed-from-disk
    ///
    /// Prometheus is asked for its head, and for whatever is in doubt: blocks that overlap, that it has not been seen to have
    /// loaded, of which something was deleted. Without its data directory, or with another one, it is asked for all.
    #[arg(
        long = "store.sealed-from-disk", value_parser = clap::value_parser!(bool), num_args = 0..=1,
        require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set
    )]
    pub sealed_from_disk: bool,

    /// Memory for answers whose clients read slowly, all calls together
    ///
    /// An open remote read keeps Prometheus from sealing blocks, so that it is read at its own speed, whatever the client
    /// does. What the client has not taken yet waits here; a client that keeps up needs none of it. It is a part of
    /// --store.memory-limit.
    #[arg(long = "store.read-ahead", value_name = "bytes", value_parser = value::size, default_value = "64MiB")]
    pub read_ahead: u64,

    /// Directory for what --store.read-ahead has no room for; without one there is none
    ///
    /// The file in it has no name and vanishes with the call. Not to be on the disk of Prometheus if that is small.
    #[arg(long = "store.spill-dir", value_name = "dir", value_parser = value::path_parser())]
    pub spill_dir: Option<PathBuf>,

    /// Most bytes on disk below --store.spill-dir, all calls together
    #[arg(long = "store.spill-limit", value_name = "bytes", value_parser = value::size, default_value = "4GiB")]
    pub spill_limit: u64,

    /// How long Prometheus may wait for a client in all, once there is no room to read ahead
    ///
    /// Beyond it the call ends with Aborted; with 0 as soon as there is no room. It is never more than a quarter of the time in which Prometheus fills a block.
    #[arg(
        long = "store.max-client-lag", value_name = "duration", value_parser = value::go_duration,
        default_value = "30s"
    )]
    pub max_client_lag: Duration,

    /// Memory that all calls together may hold: requests, what has to be sorted, what is read ahead
    ///
    /// A call that needs more fails with ResourceExhausted.
    #[arg(long = "store.memory-limit", value_name = "bytes", value_parser = value::size, default_value = "256MiB")]
    pub memory_limit: u64,

    /// How long a call without a deadline waits in queues and for Prometheus
    ///
    /// A call with a deadline waits until then.
    #[arg(long = "store.timeout", value_name = "duration", value_parser = value::go_duration, default_value = "2m")]
    pub timeout: Duration,
}
