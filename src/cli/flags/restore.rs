//! The flags of `narthex restore`.

use std::path::PathBuf;

use clap::Args;

use super::{BucketBlocks, Common, ResultFormat, Transfer};
use crate::{cli::value, model::duration::TimeOrDuration};

/// The flags of `narthex restore`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Restore {
    /// Directory to restore to; made if it is missing
    ///
    /// A Prometheus must not run on it meanwhile.
    #[arg(long = "to", value_name = "dir", value_parser = value::dir_parser(), help_heading = "Restore")]
    pub to: PathBuf,

    /// Go on although times are left out for which the bucket has only downsampled blocks
    #[arg(long = "skip-downsampled", help_heading = "Restore")]
    pub skip_downsampled: bool,

    /// Bring back the write-ahead log that --wal.interval of the sidecar has sent, with the samples of the last hours
    ///
    /// A Prometheus that is started on the directory replays it. With --min-time, blocks are restored as well. What it seals
    /// afterwards does not overlap the blocks of the bucket.
    #[arg(long = "wal", help_heading = "Write-ahead log")]
    pub wal: bool,

    /// Bring the log back as it was at this time, instead of its end
    ///
    /// A time like 2026-01-31T00:00:00Z, or a duration from now: -1h is an hour ago.
    #[arg(
        long = "until", value_name = "time", value_parser = value::until, help_heading = "Write-ahead log"
    )]
    pub until: Option<TimeOrDuration>,

    /// Succeed without doing anything where the directory has a log already, or the bucket has none that could be restored
    ///
    /// For an init container that runs before each start of Prometheus: it acts after the loss of the volume only.
    #[arg(long = "if-lost", help_heading = "Write-ahead log")]
    pub if_lost: bool,

    /// Which blocks of which bucket.
    #[command(flatten)]
    pub blocks: BucketBlocks,
    /// How they travel.
    #[command(flatten)]
    pub transfer: Transfer,

    /// Show what would be done, and stop
    #[arg(long = "dry-run", help_heading = "Result")]
    pub dry_run: bool,

    /// How plan and report are printed.
    #[command(flatten)]
    pub result: ResultFormat,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
}
