//! The flags of `narthex bucket`: ls, inspect, verify, gaps.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Common, MAX_TIME, MIN_TIME, Objstore, Transfer};
use crate::{
    cli::value,
    model::{duration::TimeOrDuration, selector::Selector},
};

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// From when blocks are wanted.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct BlockTimes {
    /// Leave out blocks that end before this
    ///
    /// A block that overlaps the range counts in. A time like 2026-01-31T00:00:00Z, or a duration from now: -30d is 30
    /// days ago.
    #[arg(long = "min-time", value_name = "time", value_parser = value::time_or_duration, default_value = MIN_TIME)]
    pub min_time: TimeOrDuration,

    /// Leave out blocks that begin after this
    ///
    /// A block that overlaps the range counts in. A time like 2026-01-31T00:00:00Z, or a duration from now: -30d is 30
    /// days ago.
    #[arg(long = "max-time", value_name = "time", value_parser = value::time_or_duration, default_value = MAX_TIME)]
    pub max_time: TimeOrDuration,
}

impl BlockTimes {
    /// Whether blocks are wanted from some time on only.
    pub fn has_min_time(self) -> bool {
        value::time_or_duration(MIN_TIME).is_ok_and(|least| self.min_time != least)
    }
}

/// Which blocks of a bucket.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Selection")]
#[group(skip)]
pub struct Selection {
    /// Only blocks whose external labels match, such as '{cluster="eu"}'; may be repeated: each must match
    ///
    /// Matchers as in PromQL (=, !=, =~, !~) with commas between them. Braces may be left out, and so may the quotes around
    /// a plain value: cluster=eu.
    #[arg(long = "selector", short = 'l', value_name = "selector", value_parser = value::selector)]
    pub selector: Vec<Selector>,

    /// Their times.
    #[command(flatten)]
    pub times: BlockTimes,
}

/// Which blocks of which bucket: what every command has that reads a bucket.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
pub struct BucketBlocks {
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// Which blocks.
    #[command(flatten)]
    pub selection: Selection,
}

/// How the result of a command is printed, where there is one document for programs.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Result")]
#[group(skip)]
pub struct ResultFormat {
    /// How the result is printed
    ///
    /// json is one document on stdout, for programs.
    #[arg(long = "output", short = 'o', value_name = "format", default_value = "text")]
    pub output: Output,
}

/// How long a list may take.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Result")]
#[group(skip)]
pub struct TimeLimit {
    /// Give up after this time; 0 means never
    #[arg(long = "timeout", value_name = "duration", value_parser = value::go_duration, default_value = "5m")]
    pub timeout: Duration,
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
    /// Which blocks of which bucket.
    #[command(flatten)]
    pub blocks: BucketBlocks,

    /// Leave out blocks that are marked for deletion
    #[arg(long = "exclude-delete", help_heading = "Selection")]
    pub exclude_delete: bool,

    /// How the blocks are printed: names, a line with columns, or each meta.json
    #[arg(
        long = "output",
        short = 'o',
        value_name = "format",
        default_value = "ids",
        help_heading = "Result"
    )]
    pub output: LsOutput,

    /// How long it may take.
    #[command(flatten)]
    pub limit: TimeLimit,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
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
    /// Which blocks of which bucket.
    #[command(flatten)]
    pub blocks: BucketBlocks,

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

    /// How long it may take.
    #[command(flatten)]
    pub limit: TimeLimit,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
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
    /// Which blocks of which bucket.
    #[command(flatten)]
    pub blocks: BucketBlocks,
    /// How they travel.
    #[command(flatten)]
    pub transfer: Transfer,

    /// Read every byte of every block and check index and chunks
    #[arg(long = "full", help_heading = "Result")]
    pub full: bool,

    /// How the result is printed.
    #[command(flatten)]
    pub result: ResultFormat,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
}

/// The flags of `narthex bucket gaps`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Gaps {
    /// Which blocks of which bucket.
    #[command(flatten)]
    pub blocks: BucketBlocks,

    /// Look for gaps up to this time, and not only up to the last block of each label set
    ///
    /// now, a time like 2026-01-31T00:00:00Z, or a duration from now: -1d is a day ago. Without it --max-time is the end
    /// if that is given. What is after now is not looked at.
    #[arg(long = "until", value_name = "time", value_parser = value::until, help_heading = "Selection")]
    pub until: Option<TimeOrDuration>,

    /// The length of a slot, at least 1s
    #[arg(
        long = "slot", value_name = "duration", value_parser = value::go_duration, default_value = "2h",
        help_heading = "Result"
    )]
    pub slot: Duration,

    /// How much of a slot may be missing before it counts as partial
    ///
    /// Blocks seldom begin and end exactly at the ends of a slot: scrapes fall where they fall.
    #[arg(
        long = "tolerance", value_name = "duration", value_parser = value::go_duration, default_value = "5m",
        help_heading = "Result"
    )]
    pub tolerance: Duration,

    /// How long after its end a slot may still be waited for
    ///
    /// Within this time a missing slot is not missing, but not sealed yet: Prometheus cuts a block half its length after
    /// its end, and it has to be shipped.
    #[arg(
        long = "seal-delay", value_name = "duration", value_parser = value::go_duration, default_value = "3h",
        help_heading = "Result"
    )]
    pub seal_delay: Duration,

    /// How the result is printed.
    #[command(flatten)]
    pub result: ResultFormat,

    /// Logging and the process.
    #[command(flatten)]
    pub common: Common,
}
