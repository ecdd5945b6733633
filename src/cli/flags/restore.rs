//! The flags of `narthex restore`.

use std::path::PathBuf;

use clap::Args;

use super::{BucketBlocks, Common, ResultFormat, Transfer};
use crate::cli::value;

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
