//! The flags of the commands that work on blocks which exist already: backfill, restore, and looking at a bucket.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use url::Url;

use super::{Common, Objstore};
use crate::{
    cli::{
        content::{ContentError, content},
        value::{self, HashFunc, InlineYaml},
    },
    model::{Label, Labels, duration::TimeOrDuration, selector::Selector},
};

/// What of a bucket is looked at.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Bucket {
    /// List the blocks of a bucket
    Ls(Box<Ls>),
    /// Show a table of the blocks of a bucket, with labels, samples and level
    Inspect(Box<Inspect>),
    /// Prove that every block of a bucket is whole
    Verify(Box<Verify>),
    /// Show for which times blocks are missing
    Gaps(Box<Gaps>),
}

/// Commands under the names that Thanos gives them.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Tools {
    /// What Thanos has under `tools bucket`
    #[command(subcommand)]
    Bucket(ToolsBucket),
}

/// What Thanos has under `tools bucket`.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ToolsBucket {
    /// Send blocks to a bucket, with the flags of Thanos; the same as backfill
    UploadBlocks(Box<UploadBlocks>),
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// How far a backfill is proven at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proof {
    /// Names, sizes and the checksums that the store keeps.
    Checksums,
    /// Every byte is read back.
    Full,
}

/// The flags of `narthex backfill`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Backfill {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks, as whose.
    #[command(flatten)]
    pub source: BackfillSource,
    /// How they travel.
    #[command(flatten)]
    pub transfer: Transfer,

    /// Show what would be done, and stop
    #[arg(long = "dry-run", help_heading = "Result")]
    pub dry_run: bool,

    /// How the blocks are proven at the end
    #[arg(
        long = "verify",
        value_name = "how",
        default_value = "checksums",
        help_heading = "Result"
    )]
    pub verify: Proof,

    /// How plan and report are printed
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "text",
        help_heading = "Result"
    )]
    pub output: Output,
}

/// Which blocks are backfilled, and as whose.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Blocks")]
#[group(skip)]
pub struct BackfillSource {
    /// Directory with the blocks: a data directory of Prometheus, or one of promtool
    #[arg(long = "path", value_name = "dir", value_parser = value::dir_parser(), default_value = "./data")]
    pub path: PathBuf,

    /// External label of the blocks; may be repeated
    #[arg(long = "label", value_name = "name=value", value_parser = value::external_label)]
    pub label: Vec<Label>,

    /// Read the external labels from this Prometheus
    #[arg(long = "prometheus.url", value_name = "url", value_parser = value::url)]
    pub prometheus_url: Option<Url>,

    /// Passwords, TLS and proxy for talking to Prometheus, as YAML
    #[arg(
        long = "prometheus.http-client", value_name = "yaml", value_parser = value::inline_yaml, default_value = "",
        hide_default_value = true
    )]
    pub http_client: InlineYaml,

    /// File with passwords, TLS and proxy for talking to Prometheus
    #[arg(long = "prometheus.http-client-file", value_name = "file", value_parser = value::path_parser())]
    pub http_client_file: Option<PathBuf>,

    /// Let --label replace labels of other values that blocks carry already
    #[arg(long = "accept-label-change")]
    pub accept_label_change: bool,

    /// Send blocks although they overlap others of the same labels
    #[arg(long = "allow-overlaps")]
    pub allow_overlaps: bool,

    /// Also send blocks that were compacted
    #[arg(
        long = "upload-compacted", value_parser = clap::value_parser!(bool), num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set
    )]
    pub upload_compacted: bool,

    /// Leave out blocks that end before this
    #[arg(long = "min-time", value_name = "time", value_parser = value::time_or_duration, default_value = MIN_TIME)]
    pub min_time: TimeOrDuration,

    /// Leave out blocks that begin after this
    #[arg(long = "max-time", value_name = "time", value_parser = value::time_or_duration, default_value = MAX_TIME)]
    pub max_time: TimeOrDuration,

    /// Hash to record of each file: SHA256 or nothing
    #[arg(long = "hash-func", value_name = "name", value_parser = value::hash_func, default_value = "SHA256")]
    pub hash_func: HashFunc,
}

impl BackfillSource {
    /// The labels of `--label`.
    pub fn labels(&self) -> Labels {
        Labels::from_pairs(self.label.iter().map(|label| (&*label.name, &*label.value)))
    }

    /// The YAML of `--prometheus.http-client` or its file, empty if neither is given; variables are not replaced.
    pub fn http_client(&self) -> Result<String, ContentError> {
        content(
            "prometheus.http-client",
            self.http_client.as_str(),
            self.http_client_file.as_deref(),
            None,
        )
    }
}

/// How blocks travel.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Transfer")]
#[group(skip)]
pub struct Transfer {
    /// Requests to the bucket at once
    #[arg(long = "concurrency", value_name = "n", value_parser = value::at_once, default_value = "4")]
    pub concurrency: usize,

    /// Most bytes to move in a second, such as 50MiB; 0 means no limit
    #[arg(long = "max-rate", value_name = "size", value_parser = value::size, default_value = "0")]
    pub max_rate: u64,
}

/// The flags of `narthex tools bucket upload-blocks`, which are those of Thanos.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct UploadBlocks {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,

    /// Directory with the blocks
    #[arg(
        long = "path", value_name = "dir", value_parser = value::dir_parser(), default_value = "./data",
        help_heading = "Blocks"
    )]
    pub path: PathBuf,

    /// External label of the blocks; may be repeated
    #[arg(
        long = "label", value_name = "name=\"value\"", value_parser = value::external_label, help_heading = "Blocks"
    )]
    pub label: Vec<Label>,

    /// Also send blocks that were compacted
    #[arg(long = "shipper.upload-compacted", help_heading = "Blocks")]
    pub upload_compacted: bool,

    /// Requests to the bucket at once; 0 or less means 4
    #[arg(
        long = "shipper.upload-concurrency", value_name = "n", value_parser = value::concurrency, default_value = "5",
        help_heading = "Blocks"
    )]
    pub upload_concurrency: i64,
}

impl UploadBlocks {
    /// How many requests to the bucket may be under way at once, at least 1.
    pub fn requests_at_once(&self) -> usize {
        usize::try_from(self.upload_concurrency)
            .ok()
            .filter(|n| *n > 0)
            .unwrap_or(super::REQUESTS_AT_ONCE)
    }

    /// The labels of `--label`.
    pub fn labels(&self) -> Labels {
        Labels::from_pairs(self.label.iter().map(|label| (&*label.name, &*label.value)))
    }
}

/// Which blocks of a bucket.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Selection")]
#[group(skip)]
pub struct Selection {
    /// Only blocks whose external labels match, such as '{cluster="eu"}'; may be repeated: each must match
    #[arg(long = "selector", short = 'l', value_name = "selector", value_parser = value::selector)]
    pub selector: Vec<Selector>,

    /// Leave out blocks that end before this
    #[arg(long = "min-time", value_name = "time", value_parser = value::time_or_duration, default_value = MIN_TIME)]
    pub min_time: TimeOrDuration,

    /// Leave out blocks that begin after this
    #[arg(long = "max-time", value_name = "time", value_parser = value::time_or_duration, default_value = MAX_TIME)]
    pub max_time: TimeOrDuration,
}

/// How a list of blocks is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LsOutput {
    /// The names.
    Ids,
    /// A line with columns.
    Wide,
    /// Each `meta.json`.
    Json,
}

/// The flags of `narthex bucket ls`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Ls {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks.
    #[command(flatten)]
    pub selection: Selection,

    /// Leave out blocks that are marked for deletion
    #[arg(long = "exclude-delete", help_heading = "Selection")]
    pub exclude_delete: bool,

    /// How the blocks are printed
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "ids",
        help_heading = "Result"
    )]
    pub output: LsOutput,

    /// Give up after this time; 0 means never
    #[arg(
        long = "timeout", value_name = "duration", value_parser = value::go_duration, default_value = "5m",
        help_heading = "Result"
    )]
    pub timeout: Duration,
}

/// How the table of blocks is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InspectOutput {
    /// For people.
    Table,
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// One JSON document.
    Json,
}

/// The flags of `narthex bucket inspect`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Inspect {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks.
    #[command(flatten)]
    pub selection: Selection,

    /// Column to sort by; may be repeated; FROM, then UNTIL if it is not given
    #[arg(long = "sort-by", value_name = "column", help_heading = "Result")]
    pub sort_by: Vec<InspectColumn>,

    /// How the table is printed
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "table",
        help_heading = "Result"
    )]
    pub output: InspectOutput,

    /// Give up after this time; 0 means never
    #[arg(
        long = "timeout", value_name = "duration", value_parser = value::go_duration, default_value = "5m",
        help_heading = "Result"
    )]
    pub timeout: Duration,
}

/// The columns of `bucket inspect`, by the names that Thanos gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum InspectColumn {
    #[value(name = "ULID")]
    Ulid,
    #[value(name = "FROM")]
    From,
    #[value(name = "UNTIL")]
    Until,
    #[value(name = "RANGE")]
    Range,
    #[value(name = "UNTIL-DOWN")]
    UntilDown,
    #[value(name = "#SERIES")]
    Series,
    #[value(name = "#SAMPLES")]
    Samples,
    #[value(name = "#CHUNKS")]
    Chunks,
    #[value(name = "COMP-LEVEL")]
    Level,
    #[value(name = "COMP-FAILED")]
    Failed,
    #[value(name = "LABELS")]
    Labels,
    #[value(name = "RESOLUTION")]
    Resolution,
    #[value(name = "SOURCE")]
    Source,
}

/// The flags of `narthex bucket verify`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Verify {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks.
    #[command(flatten)]
    pub selection: Selection,
    /// How they travel.
    #[command(flatten)]
    pub transfer: Transfer,

    /// Read every byte of every block and check index and chunks
    #[arg(long = "full", help_heading = "Result")]
    pub full: bool,

    /// How the result is printed
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "text",
        help_heading = "Result"
    )]
    pub output: Output,
}

/// The flags of `narthex bucket gaps`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Gaps {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks.
    #[command(flatten)]
    pub selection: Selection,

    /// The length of a slot
    #[arg(
        long = "slot", value_name = "duration", value_parser = value::go_duration, default_value = "2h",
        help_heading = "Result"
    )]
    pub slot: Duration,

    /// How much of a slot may be missing before it counts as partial
    #[arg(
        long = "tolerance", value_name = "duration", value_parser = value::go_duration, default_value = "5m",
        help_heading = "Result"
    )]
    pub tolerance: Duration,

    /// How long after its end a slot may still be waited for
    #[arg(
        long = "seal-delay", value_name = "duration", value_parser = value::go_duration, default_value = "3h",
        help_heading = "Result"
    )]
    pub seal_delay: Duration,

    /// How the result is printed
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "text",
        help_heading = "Result"
    )]
    pub output: Output,
}

/// The flags of `narthex restore`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Restore {
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks.
    #[command(flatten)]
    pub selection: Selection,
    /// How they travel.
    #[command(flatten)]
    pub transfer: Transfer,

    /// Directory to restore to; made if it is missing
    #[arg(long = "to", value_name = "dir", value_parser = value::dir_parser(), help_heading = "Restore")]
    pub to: PathBuf,

    /// Go on although times are left out for which the bucket has only downsampled blocks
    #[arg(long = "skip-downsampled", help_heading = "Restore")]
    pub skip_downsampled: bool,

    /// Show what would be done, and stop
    #[arg(long = "dry-run", help_heading = "Result")]
    pub dry_run: bool,

    /// How plan and report are printed
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "text",
        help_heading = "Result"
    )]
    pub output: Output,
}

/// The year 0.
const MIN_TIME: &str = "0000-01-01T00:00:00Z";
/// The end of the year 9999.
const MAX_TIME: &str = "9999-12-31T23:59:59Z";
