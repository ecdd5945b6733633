//! The flags of `narthex check`: those of the sidecar that it looks ahead for, and a few of its own.

use std::time::Duration;

use clap::Args;

use super::{ResultFormat, Sidecar};
use crate::cli::value;

/// The flags of `narthex check`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Check {
    /// What is to run.
    #[command(flatten)]
    pub sidecar: Sidecar,
    /// How it is checked.
    #[command(flatten)]
    pub check: CheckFlags,
}

/// How a sidecar is checked.
#[derive(Args, Clone, Copy, Debug, PartialEq)]
#[command(next_help_heading = "Check")]
#[group(skip)]
pub struct CheckFlags {
    /// How the result is printed.
    #[command(flatten)]
    pub result: ResultFormat,

    /// How long all of it may take
    ///
    /// What has no result by then fails, and says what was waited for. Must be above 0.
    #[arg(
        id = "check.timeout", long = "timeout", value_name = "duration", value_parser = value::go_duration,
        default_value = "30s"
    )]
    pub timeout: Duration,

    /// Write objects into the bucket, and a file into the data directory; on unless it is turned off with --no-write
    ///
    /// Two objects below narthex-check/ of the bucket, of 5 MiB together, are written, read back and removed.
    #[arg(
        long = "write", value_parser = clap::value_parser!(bool), num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set
    )]
    pub write: bool,

    /// Ask Prometheus; on unless it is turned off with --no-prometheus
    ///
    /// Off in an init container, which runs before Prometheus does: what only it can tell is left out.
    #[arg(
        long = "prometheus", value_parser = clap::value_parser!(bool), num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set
    )]
    pub prometheus: bool,
}
