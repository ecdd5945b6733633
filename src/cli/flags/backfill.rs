//! The flags of `narthex backfill`, and of `narthex tools bucket upload-blocks`, which does the same.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use url::Url;

use super::{BlockTimes, Common, NewerEncodings, Objstore, PrometheusClient, ResultFormat, label_set};
use crate::{
    cli::value::{self, HashFunc},
    model::{Label, Labels},
};

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
    /// Which blocks, as whose.
    #[command(flatten)]
    pub source: BackfillSource,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// How they travel.
    #[command(flatten)]
    pub transfer: Transfer,

    /// Show what would be done, and stop
    ///
    /// The blocks are checked in full, and the bucket is asked what it has; nothing is sent.
    #[arg(long = "dry-run", help_heading = "Result")]
    pub dry_run: bool,

    /// How the blocks are proven at the end: by sizes and the checksums that the store keeps, or by reading all back
    #[arg(
        long = "verify",
        value_name = "how",
        default_value = "checksums",
        help_heading = "Result"
    )]
    pub verify: Proof,

    /// How plan and report are printed.
    #[command(flatten)]
    pub result: ResultFormat,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
}

/// Which blocks are backfilled, and as whose.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Blocks")]
#[group(skip)]
pub struct BackfillSource {
    /// Directory with the blocks: a data directory of Prometheus (snapshots in it count, too), or one of promtool
    ///
    /// It is only read.
    #[arg(long = "path", value_name = "dir", value_parser = value::dir_parser(), default_value = "./data")]
    pub path: PathBuf,

    /// External label of the blocks; may be repeated
    ///
    /// May be left out if the blocks carry labels already, or with --prometheus.url, whose labels it is laid over. The
    /// value may stand in quotes as Go writes them.
    #[arg(long = "label", value_name = "name=value", value_parser = value::external_label)]
    pub label: Vec<Label>,

    /// Read the external labels from this Prometheus
    #[arg(long = "prometheus.url", value_name = "url", value_parser = value::url)]
    pub prometheus_url: Option<Url>,

    /// How Prometheus is talked to.
    #[command(flatten)]
    pub client: PrometheusClient,

    /// Let the labels of --label or Prometheus replace other ones that blocks carry already
    ///
    /// Without it such a block is refused: it would be somebody else's from then on.
    #[arg(long = "accept-label-change")]
    pub accept_label_change: bool,

    /// Send blocks although they overlap others of the same labels
    ///
    /// The compactor then needs vertical compaction, or it halts.
    #[arg(long = "allow-overlaps")]
    pub allow_overlaps: bool,

    /// Send blocks although their index has issues that Thanos' compactor may stop at
    ///
    /// Chunks of a series that overlap, are doubled or not in order, or lie outside of the block's time range; label names
    /// that are doubled or not sorted; series without labels or chunks. Prometheus reads such blocks, and versions up to
    /// 2.8 wrote some. promtool (2.53 or newer) makes a block anew without its native histograms: tsdb
    /// dump-openmetrics, the lines sorted by time, then tsdb create-blocks-from openmetrics; it refuses labels that are doubled
    /// or missing. While no compactor runs, thanos tools bucket verify --repair --issues=index_known_issues repairs
    /// in the bucket what is not sorted, and chunks that are wholly outside of the block's range or begin at its end.
    #[arg(long = "allow-index-issues")]
    pub allow_index_issues: bool,

    /// What to do with chunks in encodings that Thanos' Store Gateway and Compactor refuse: rewrite, hold, ship or mark
    ///
    /// As --shipper.newer-encodings of the sidecar; hold refuses such blocks.
    #[arg(
        long = "newer-encodings",
        value_name = "rewrite|hold|ship|mark",
        default_value = "rewrite",
        hide_possible_values = true
    )]
    pub newer_encodings: NewerEncodings,

    /// Also send blocks that were compacted; on unless it is turned off with --no-upload-compacted
    #[arg(
        long = "upload-compacted", value_parser = clap::value_parser!(bool), num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set
    )]
    pub upload_compacted: bool,

    /// The times of the blocks.
    #[command(flatten)]
    pub times: BlockTimes,

    /// Hash to record of each file: SHA256 or nothing
    #[arg(long = "hash-func", value_name = "name", value_parser = value::hash_func, default_value = "SHA256")]
    pub hash_func: HashFunc,
}

impl BackfillSource {
    /// The labels of `--label`.
    pub fn labels(&self) -> Labels {
        label_set(&self.label)
    }
}

/// How blocks travel.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Transfer")]
#[group(skip)]
pub struct Transfer {
    /// Requests to the bucket at once, 1 to 1024
    #[arg(long = "concurrency", value_name = "n", value_parser = value::at_once, default_value = "4")]
    pub concurrency: usize,

    /// Most bytes to move in a second, such as 50MiB; 0 means no limit
    ///
    /// Units are B, KiB, MiB, GiB, TiB, KB, MB, GB and TB; fractions are allowed: 1.5GiB.
    #[arg(long = "max-rate", value_name = "size", value_parser = value::size, default_value = "0")]
    pub max_rate: u64,
}

/// The flags of `narthex tools bucket upload-blocks`, which are those of Thanos.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct UploadBlocks {
    /// Directory with the blocks
    ///
    /// It is only read.
    #[arg(
        long = "path", value_name = "dir", value_parser = value::dir_parser(), default_value = "./data",
        help_heading = "Blocks"
    )]
    pub path: PathBuf,

    /// External label of the blocks; may be repeated
    ///
    /// May be left out if the blocks carry labels already. The quotes around the value, which are those of Go, may be left
    /// out.
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

    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
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
        label_set(&self.label)
    }
}
