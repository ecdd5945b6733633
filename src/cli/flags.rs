//! The flags, one struct per group. A field's documentation is the flag's help: the first line briefly, for `--help`
//! and the tables; what follows a blank line only for `--help-long` and the manual page.
//!
//! All names and defaults are those of the Thanos sidecar unless a flag is said to be narthex' own.

mod backfill;
mod bucket;
mod check;
mod command;
mod common;
mod prometheus;
mod restore;
mod setting;
mod status;
mod store;
mod wal;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    content::{ContentError, Env, content, named},
    value::{self, Address, HashFunc, InlineYaml, ReloadMethod, TlsVersion},
};
use crate::model::{Label, Labels};

pub use backfill::{Backfill, BackfillSource, Proof, Transfer, UploadBlocks};
pub use bucket::{
    BlockTimes, BucketBlocks, Gaps, Inspect, InspectColumn, InspectOutput, Ls, LsOutput, Output, ResultFormat,
    Selection, TimeLimit, Verify,
};
pub use check::{Check, CheckFlags};
pub use command::{Bucket, Command, Tools, ToolsBucket};
pub use common::Common;
pub use prometheus::{Prometheus, PrometheusClient};
pub use restore::Restore;
pub use setting::Setting;
pub use status::Status;
pub use store::Store;
pub use wal::Wal;

/// The flags of `narthex sidecar`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// Logging, tracing and the process.
    #[command(flatten)]
    pub common: Common,
    /// The HTTP server.
    #[command(flatten)]
    pub http: Http,
    /// The gRPC server.
    #[command(flatten)]
    pub grpc: Grpc,
    /// The Prometheus that narthex runs beside.
    #[command(flatten)]
    pub prometheus: Prometheus,
    /// Its data directory.
    #[command(flatten)]
    pub tsdb: Tsdb,
    /// The bucket.
    #[command(flatten)]
    pub objstore: Objstore,
    /// How blocks are shipped.
    #[command(flatten)]
    pub shipper: Shipper,
    /// The write-ahead log.
    #[command(flatten)]
    pub wal: Wal,
    /// The reloader.
    #[command(flatten)]
    pub reloader: Reloader,
    /// What queries may ask for.
    #[command(flatten)]
    pub store: Store,
    /// All of them as they may be shown.
    #[arg(skip)]
    pub settings: Vec<Setting>,
}

/// The HTTP server: metrics and probes.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "HTTP")]
#[group(skip)]
pub struct Http {
    /// Address to serve metrics and probes on
    ///
    /// A missing host, or one of only zeros, means every interface, IPv4 and IPv6.
    #[arg(
         id = "http-address", long = "http-address", value_name = "host:port", value_parser = Address::parse,
        default_value = "0.0.0.0:10902"
    )]
    pub address: Address,

    /// How long requests under way may still take after a signal to stop; 0 cuts them off
    ///
    /// A Prometheus duration: whole numbers with units, 1m30s.
    #[arg(
         id = "http-grace-period", long = "http-grace-period", value_name = "duration",
        value_parser = value::prometheus_duration, default_value = "2m"
    )]
    pub grace_period: Duration,

    /// File with TLS, passwords, headers and a limit of requests for the HTTP server
    ///
    /// In the format of Prometheus' own web.config.file. It holds for every path, probes included, and is read again when it or a
    /// file that it names changes.
    #[arg(id = "http.config", long = "http.config", value_name = "file", value_parser = value::path_parser())]
    pub config: Option<PathBuf>,
}

/// The gRPC server.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "gRPC")]
#[group(skip)]
pub struct Grpc {
    /// Address to serve the StoreAPI on, once Prometheus' external labels are known
    ///
    /// A missing host, or one of only zeros, means every interface, IPv4 and IPv6.
    #[arg(
         id = "grpc-address", long = "grpc-address", value_name = "host:port", value_parser = Address::parse,
        default_value = "0.0.0.0:10901"
    )]
    pub address: Address,

    /// How long gRPC calls under way may still take after a signal to stop; 0 cuts them off
    #[arg(
         id = "grpc-grace-period", long = "grpc-grace-period", value_name = "duration",
        value_parser = value::go_duration, default_value = "2m"
    )]
    pub grace_period: Duration,

    /// Close a connection at this age, give or take 10 %, so that clients spread anew; 0 means never
    ///
    /// Calls that run on it may finish.
    #[arg(
        long = "grpc-server-max-connection-age", value_name = "duration", value_parser = value::go_duration,
        default_value = "60m"
    )]
    pub max_connection_age: Duration,

    /// File with the server's certificate; without one TLS is off
    ///
    /// This file, the key and the client CA are read again when they change.
    #[arg(long = "grpc-server-tls-cert", value_name = "file", value_parser = value::path_parser())]
    pub tls_cert: Option<PathBuf>,

    /// File with the key of the server's certificate
    #[arg(long = "grpc-server-tls-key", value_name = "file", value_parser = value::path_parser())]
    pub tls_key: Option<PathBuf>,

    /// File with the CA that clients' certificates must come from; without one clients need none
    #[arg(long = "grpc-server-tls-client-ca", value_name = "file", value_parser = value::path_parser())]
    pub tls_client_ca: Option<PathBuf>,

    /// Lowest TLS version; without a certificate it has no effect
    ///
    /// 1.0 and 1.1 mean 1.2: older versions are not spoken.
    #[arg(long = "grpc-server-tls-min-version", value_name = "version", default_value = "1.3")]
    pub tls_min_version: TlsVersion,

    /// Cipher suite of TLS 1.2 to offer; may be repeated; without a certificate it has no effect
    ///
    /// By the names that Go uses. Those of TLS 1.3 are always offered.
    #[arg(long = "grpc-server-tls-ciphers", value_name = "name")]
    pub tls_ciphers: Vec<String>,

    /// Curve to offer; may be repeated; without a certificate it has no effect
    ///
    /// By the names that Go uses: X25519, CurveP256, CurveP384, X25519MLKEM768, SecP256r1MLKEM768.
    #[arg(long = "grpc-server-tls-curves", value_name = "name")]
    pub tls_curves: Vec<String>,

    /// Which gRPC calls are logged, as YAML
    ///
    /// Lines about calls are at level debug; those of calls that failed through our fault at level error.
    /// $(NAME) is replaced by the environment variable NAME, which must be set.
    #[arg(
        long = "request.logging-config", value_name = "yaml", value_parser = value::inline_yaml, default_value = "",
        hide_default_value = true
    )]
    pub request_logging: InlineYaml,

    /// File that says which gRPC calls are logged
    ///
    /// $(NAME) is replaced by the environment variable NAME, which must be set.
    #[arg(long = "request.logging-config-file", value_name = "file", value_parser = value::path_parser())]
    pub request_logging_file: Option<PathBuf>,
}

impl Grpc {
    /// The YAML of `--request.logging-config` or its file with `$(NAME)` replaced, empty if neither is given.
    pub fn logging(&self, env: &Env<'_>) -> Result<String, ContentError> {
        content(
            "request.logging-config",
            self.request_logging.as_str(),
            self.request_logging_file.as_deref(),
            Some(env),
        )
    }
}

/// The data directory.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Blocks")]
#[group(skip)]
pub struct Tsdb {
    /// Prometheus' data directory
    #[arg(long = "tsdb.path", value_name = "dir", value_parser = value::dir_parser(), default_value = "./data")]
    pub path: PathBuf,
}

/// The bucket.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Blocks")]
#[group(skip)]
pub struct Objstore {
    /// The bucket, as YAML; without one nothing is shipped
    ///
    /// $(NAME) is replaced by the environment variable NAME, which must be set.
    #[arg(
        id = "objstore.config", long = "objstore.config", value_name = "yaml",
        value_parser = value::inline_yaml
    )]
    pub config: Option<InlineYaml>,

    /// File that describes the bucket; without one nothing is shipped
    ///
    /// $(NAME) is replaced by the environment variable NAME, which must be set.
    #[arg(
        id = "objstore.config-file", long = "objstore.config-file", value_name = "file",
        value_parser = value::path_parser()
    )]
    pub config_file: Option<PathBuf>,
}

impl Objstore {
    /// The YAML of `--objstore.config` or its file with `$(NAME)` replaced; empty means that nothing is shipped.
    pub fn content(&self, env: &Env<'_>) -> Result<String, ContentError> {
        content(
            "objstore.config",
            self.config.as_ref().map_or("", InlineYaml::as_str),
            self.config_file.as_deref(),
            Some(env),
        )
    }

    /// Whether [`Objstore::content`] can be asked for again: not where the file is a pipe.
    pub fn can_be_read_again(&self) -> bool {
        let file = named(self.config_file.as_deref());
        file.is_none_or(|file| fs_err::metadata(file).is_ok_and(|found| found.is_file()))
    }

    /// Which of the flags was given, with the name of the file and without the YAML, even if there is nothing in it;
    /// `None` if neither was.
    pub fn given(&self) -> Option<String> {
        match (&self.config_file, &self.config) {
            (Some(file), _) if !file.as_os_str().is_empty() => {
                Some(format!("--objstore.config-file={}", file.display()))
            }
            (_, Some(_)) => Some("--objstore.config".to_owned()),
            (Some(_), None) => Some("--objstore.config-file".to_owned()),
            (None, None) => None,
        }
    }
}

/// What happens with chunks that readers of the bucket refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewerEncodings {
    /// They are rewritten on the way to the bucket.
    Rewrite,
    /// The block stays here.
    Hold,
    /// The block is sent as it is.
    Ship,
    /// The same, with a mark for compactors.
    Mark,
}

/// What happens with blocks that overlap others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overlapping {
    /// They are sent.
    Ship,
    /// They are sent with a mark for compactors.
    Mark,
}

/// How blocks are shipped.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Blocks")]
#[group(skip)]
pub struct Shipper {
    /// Also ship blocks that Prometheus has compacted
    ///
    /// For a first upload of old data: compaction must be off in Prometheus meanwhile.
    #[arg(long = "shipper.upload-compacted")]
    pub upload_compacted: bool,

    /// Ship although Prometheus compacts blocks locally
    #[arg(long = "shipper.ignore-unequal-block-size", hide = true)]
    pub ignore_unequal_block_size: bool,

    /// Let a younger block be visible before an older one whose upload failed
    #[arg(long = "shipper.allow-out-of-order-uploads", hide = true)]
    pub allow_out_of_order_uploads: bool,

    /// Without effect: a broken block never delays the others
    #[arg(long = "shipper.skip-corrupted-blocks", hide = true)]
    pub skip_corrupted_blocks: bool,

    /// What to do with chunks in encodings that Thanos' Store Gateway and Compactor refuse: rewrite, hold, ship or mark
    ///
    /// XOR2 (storage.tsdb.chunk_encoding.floats: xor2 in Prometheus 3.13 and later) and histograms with start timestamps. rewrite
    /// sends the block with these chunks as XOR and plain histograms, sample for sample, without start timestamps; nothing changes on
    /// the local disk. hold keeps such blocks on the local disk. ship sends them as they are: queries over them fail, and a
    /// compactor stops at them. mark does the same with no-compact-mark.json and no-downsample-mark.json, so that the compactor
    /// passes over them. What the bucket has already is never rewritten; with mark, it gets the marks when it is looked at.
    /// An encoding that is not known here is never rewritten: with rewrite, such a block is held.
    #[arg(
        long = "shipper.newer-encodings",
        value_name = "rewrite|hold|ship|mark",
        default_value = "rewrite",
        hide_possible_values = true
    )]
    pub newer_encodings: NewerEncodings,

    /// What to do with blocks that overlap others by their nature: ship, or mark
    ///
    /// Blocks of samples that came out of order, of stale series, or rewritten after a deletion. A compactor stops at blocks that
    /// overlap, marked or not, unless it runs with --compact.enable-vertical-compaction or --deduplication.replica-label. mark
    /// sends such a block with a no-compact-mark.json, so that a compactor with these does not merge it.
    #[arg(
        long = "shipper.overlapping",
        value_name = "ship|mark",
        default_value = "ship",
        hide_possible_values = true
    )]
    pub overlapping: Overlapping,

    /// How much of blocks that Prometheus deletes before they are shipped is held open until they are; 0: nothing
    ///
    /// Retention asks nobody whether a block was shipped. Blocks that wait are opened, at no cost; once deleted, they take their
    /// space on the disk until they are shipped, beyond what Prometheus counts; one that does not fit any more is lost. Blocks
    /// that are set aside, as by --shipper.newer-encodings=hold, are not kept. When narthex ends, what it holds is lost.
    #[arg(long = "shipper.hold-unshipped", value_name = "size", value_parser = value::size, default_value = "0")]
    pub hold_unshipped: u64,

    /// Hash to record for each uploaded file: SHA256, or empty for none
    #[arg(
        long = "hash-func", value_name = "name", value_parser = value::hash_func, default_value = "",
        hide_default_value = true
    )]
    pub hash_func: HashFunc,

    /// Name of the file in --tsdb.path that lists what is shipped
    ///
    /// Prometheus' --storage.tsdb.delay-compact-file.path must name the same file.
    #[arg(
        long = "shipper.meta-file-name", value_name = "name", value_parser = value::file_name,
        default_value = "thanos.shipper.json"
    )]
    pub meta_file_name: String,

    /// Requests to the bucket at once; 0 or less means 4
    #[arg(
        long = "shipper.upload-concurrency", value_name = "n", value_parser = value::concurrency, default_value = "0"
    )]
    pub upload_concurrency: i64,

    /// Most bytes to send in a second, such as 50MiB; 0 means no limit (narthex' own)
    ///
    /// All requests to the bucket share it. A block of 2h must be through before the next one is sealed, so leave room.
    #[arg(long = "shipper.max-rate", value_name = "size", value_parser = value::size, default_value = "0")]
    pub max_rate: u64,

    /// Wait up to this time, by chance, before a block that was just sealed is sent (narthex' own)
    ///
    /// For fleets whose blocks are all sealed in the same second. What was sealed before the start, and what is sealed while the
    /// process stops, is sent at once.
    #[arg(
        long = "shipper.jitter", value_name = "duration", value_parser = value::go_duration, default_value = "0s"
    )]
    pub jitter: Duration,

    /// How long shipping may go on after a signal to stop; 0 stops at once (narthex' own)
    ///
    /// Within this time the blocks that are sealed already are finished. Keep it below the grace period of the pod
    /// or unit.
    #[arg(
         id = "shipper.grace-period", long = "shipper.grace-period", value_name = "duration",
        value_parser = value::go_duration, default_value = "4m"
    )]
    pub grace_period: Duration,
}

/// Requests at once when `--shipper.upload-concurrency` leaves it to narthex.
pub const REQUESTS_AT_ONCE: usize = 4;

impl Shipper {
    /// How many requests to the bucket may be under way at once, at least 1.
    pub fn requests_at_once(&self) -> usize {
        match usize::try_from(self.upload_concurrency) {
            Ok(0) | Err(_) => REQUESTS_AT_ONCE,
            Ok(n) => n,
        }
    }
}

/// The reloader.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Reloader")]
#[group(skip)]
pub struct Reloader {
    /// Have Prometheus load its configuration anew when this file changes
    ///
    /// It may be packed with gzip if --reloader.config-envsubst-file is given. What is empty, or no YAML, is logged and not
    /// passed on.
    #[arg(
        id = "reloader.config-file", long = "reloader.config-file", value_name = "file",
        value_parser = value::path_parser()
    )]
    pub config_file: Option<PathBuf>,

    /// Write that file here, where Prometheus reads it, with variables replaced
    ///
    /// $(NAME) is replaced by the environment variable NAME, which must be set. Without --reloader.config-file it has no effect.
    #[arg(long = "reloader.config-envsubst-file", value_name = "file", value_parser = value::path_parser())]
    pub envsubst_file: Option<PathBuf>,

    /// Have Prometheus load its rules anew when a file in this directory changes; may be repeated
    #[arg(long = "reloader.rule-dir", value_name = "dir", value_parser = value::path_parser())]
    pub rule_dirs: Vec<PathBuf>,

    /// How often these files are read again, beside the times when the kernel tells of a change
    ///
    /// 0: they are read once, at the start, and Prometheus is not told.
    #[arg(
        long = "reloader.watch-interval", value_name = "duration", value_parser = value::go_duration,
        default_value = "3m"
    )]
    pub watch_interval: Duration,

    /// How soon a failed reload is tried again
    ///
    /// What Prometheus refuses is tried again after twice this time, then four times and so on, up to --reloader.watch-interval.
    #[arg(
        long = "reloader.retry-interval", value_name = "duration", value_parser = value::go_duration,
        default_value = "5s"
    )]
    pub retry_interval: Duration,

    /// How Prometheus is asked to reload: by HTTP, which it must allow (--web.enable-lifecycle), or by SIGHUP
    #[arg(long = "reloader.method", value_name = "method", default_value = "http")]
    pub method: ReloadMethod,

    /// Name of the process that gets SIGHUP with --reloader.method=signal
    #[arg(long = "reloader.process-name", value_name = "name", default_value = "prometheus")]
    pub process_name: String,
}

/// The default of every `--min-time`: the year 0.
const MIN_TIME: &str = "0000-01-01T00:00:00Z";
/// The default of every `--max-time`: the end of the year 9999.
const MAX_TIME: &str = "9999-12-31T23:59:59Z";

/// The labels of the flag `--label`, which may be repeated.
fn label_set(flags: &[Label]) -> Labels {
    Labels::from_pairs(flags.iter().map(|label| (&*label.name, &*label.value)))
}
