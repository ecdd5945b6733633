//! The commands. Their documentation is their help: the first paragraph briefly, everywhere; the others for
//! `--help-long`, the manual page and `docs/commands.md`.

use clap::Subcommand;

use super::{Backfill, Check, Common, Gaps, Inspect, Ls, Restore, Sidecar, Status, UploadBlocks, Verify};

/// What narthex is asked to do.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Run beside one Prometheus: ship its blocks to object storage, answer queries for what it holds
    ///
    /// Every block that Prometheus has sealed under --tsdb.path is uploaded, checked and then made visible in the
    /// bucket; Prometheus' own files are only read. Queriers reach Prometheus' data through the StoreAPI on
    /// --grpc-address.
    Sidecar(Box<Sidecar>),

    /// Check what can be wrong before a sidecar runs: Prometheus, data directory, bucket, ports, files
    ///
    /// Takes the flags of narthex sidecar, and looks at everything that they name: one line for each thing, with ok, warn or
    /// fail, and for what is not ok the cause and what to do. All mistakes are found, not only the first. docs/check.md explains
    /// each line.
    ///
    /// Nothing of Prometheus is changed. In the bucket two objects are written below narthex-check/, read back, and removed; where
    /// they may not be removed, it is said what stays. --no-write leaves writing out. As an init container, which runs before
    /// Prometheus does, it takes the arguments of the sidecar and --no-prometheus.
    Check(Box<Check>),

    /// Show the state of a running sidecar: what is durable, what waits and why, what failed last
    ///
    /// Asks the HTTP port of the sidecar for what its status page shows, and prints it; --output=json prints the document as
    /// it is.
    Status(Box<Status>),

    /// Send blocks that exist already to a bucket: plan, apply, verify
    ///
    /// Plan: finds the blocks in --path, which may be a directory of promtool, the data directory of a Prometheus, or
    /// hold snapshots below snapshots/. Each block is checked in full before a byte is sent: index, chunks, checksums,
    /// statistics, times. A table says what will be done with each block and why; --dry-run stops there.
    ///
    /// Apply: sends what is not in the bucket yet, the oldest block first, several files at once in bounded memory. A
    /// block becomes visible when the store has confirmed every byte of it. Whatever ends the command, run it again: what
    /// is proven to be there is not sent again.
    ///
    /// Verify: holds every object against what was read, by size and by the checksum that the store keeps; --verify=full
    /// reads everything back. What is not whole then, or is not given by the store, is in the bucket already: the command
    /// ends with 1, as for a failure, and not with 3, as for blocks that are refused. A block that a compactor has merged
    /// meanwhile is proven by the merged one: by its meta.json and the sizes of its objects.
    ///
    /// Nothing is written into --path, and nothing is ever deleted. A block that is in the bucket with other bytes is
    /// never overwritten. Refused, each with its reason, are blocks that are broken; blocks that overlap others of the
    /// same labels, unless --allow-overlaps is given (the compactor then needs vertical compaction); blocks whose index has
    /// issues that Thanos' compactor may stop at, unless --allow-index-issues is given; and blocks whose own thanos.labels
    /// say something else than --label, unless --accept-label-change is given. The others are sent all the same.
    ///
    /// Blocks need external labels: those of --label, of the Prometheus at --prometheus.url, or their own.
    Backfill(Box<Backfill>),

    /// Look at the blocks of a bucket: ls, inspect, verify, gaps
    ///
    /// All of them only read.
    #[command(subcommand)]
    Bucket(Bucket),

    /// Bring blocks of a bucket back to disk, for a plain Prometheus
    ///
    /// Downloads the blocks of one label set into a directory that a plain Prometheus opens as its --storage.tsdb.path.
    /// Each block is written under a name that Prometheus ignores (ULID.tmp-for-creation), checked in full, and only
    /// then renamed. Whatever ends the command, run it again: it goes on where it was.
    ///
    /// Refused is a selection of several label sets, since Prometheus has no place for external labels in a block: narrow
    /// --selector, restore each into a directory of its own. Refused are times for which the bucket has only downsampled
    /// blocks, which Prometheus cannot read, unless --skip-downsampled leaves them out.
    ///
    /// Start that Prometheus with a --storage.tsdb.retention.time longer than the age of the data, or it deletes what was
    /// restored.
    Restore(Box<Restore>),

    /// Commands under the names that Thanos gives them: bucket upload-blocks
    ///
    /// For scripts that exist already.
    #[command(subcommand)]
    Tools(Tools),
}

/// What of a bucket is looked at.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Bucket {
    /// List the blocks of a bucket
    ///
    /// One line per block: its name, or with --output=wide also times, level, resolution and source; --output=json prints
    /// each meta.json. What has no meta.json is not a block yet, and is not listed: bucket verify finds it. A block whose
    /// meta.json cannot be read is named in the log, and the command ends with 3. Only reads.
    Ls(Box<Ls>),

    /// Show a table of the blocks of a bucket, with labels, samples and level
    ///
    /// One line per block with its times, series, samples, chunks, compaction level, labels, resolution and source, under the
    /// names of Thanos' columns, and what readers must know of its content: whether it overlaps others by its nature, and
    /// whether its first chunks have encodings that Thanos refuses. A block whose meta.json cannot be read is named in the
    /// log, and the command ends with 3. Only reads.
    Inspect(Box<Inspect>),

    /// Prove that every block of a bucket is whole
    ///
    /// Holds the objects of each block against the files that its meta.json lists: each must be there, in its size. Tells
    /// of blocks of the same labels that overlap, of uploads that never got a meta.json, and of blocks whose first chunks
    /// have encodings that Thanos refuses. --full reads every byte, and checks index and chunks, too: whether they are
    /// damaged, which encodings all of them have, and whether the index has what Thanos' compactor stops at, such as chunks
    /// of a series that overlap, or label names that are not sorted.
    ///
    /// Only reads: nothing is repaired, marked or deleted. Where Thanos' verify ends with 0 although it found something,
    /// this ends with 3.
    Verify(Box<Verify>),

    /// Show for which times blocks are missing
    ///
    /// Divides the time of each label set into slots and says of each whether its data is found, partial, missing, or
    /// not sealed yet. The time goes from the first block of the set to the end of its last one, or as far as --min-time
    /// and --max-time say; --until=now also finds what is missing after it. A compactor that merges replicas takes their label
    /// off: what it has merged is a label set of its own, and missing for each replica. Only reads.
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
    ///
    /// Does what narthex backfill does, for scripts that were written for Thanos: plan, apply, verify. Unlike with
    /// Thanos the directory need not be writable, since nothing is staged or noted in it; each block is checked before it
    /// is sent; the quotes around the value of a label may be left out; and an interrupted upload does not exit with 0.
    UploadBlocks(Box<UploadBlocks>),
}

impl Command {
    /// The flags that every command has.
    pub fn common(&self) -> &Common {
        match self {
            Self::Sidecar(flags) => &flags.common,
            Self::Check(flags) => &flags.sidecar.common,
            Self::Status(flags) => &flags.common,
            Self::Backfill(flags) => &flags.common,
            Self::Bucket(Bucket::Ls(flags)) => &flags.common,
            Self::Bucket(Bucket::Inspect(flags)) => &flags.common,
            Self::Bucket(Bucket::Verify(flags)) => &flags.common,
            Self::Bucket(Bucket::Gaps(flags)) => &flags.common,
            Self::Restore(flags) => &flags.common,
            Self::Tools(Tools::Bucket(ToolsBucket::UploadBlocks(flags))) => &flags.common,
        }
    }
}
