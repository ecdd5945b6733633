//! What the help says of each command beside its flags: exit codes, and command lines to begin with.

/// A command line that somebody may want.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    /// What it is for.
    pub(super) what: &'static str,
    /// The line, as it is typed into a shell; it may go on in the next one behind a backslash.
    pub(super) line: &'static str,
}

const SIDECAR: &[Example] = &[
    Example {
        what: "Answer queries for the local Prometheus, upload nothing",
        line: "narthex sidecar --prometheus.url=http://localhost:9090 --tsdb.path=/var/lib/prometheus",
    },
    Example {
        what: "Upload its blocks, too",
        line: "narthex sidecar --tsdb.path=/var/lib/prometheus --objstore.config-file=bucket.yaml",
    },
];

const CHECK: &[Example] = &[
    Example {
        what: "Is everything ready for this sidecar?",
        line: "narthex check --tsdb.path=/var/lib/prometheus --objstore.config-file=bucket.yaml",
    },
    Example {
        what: "Before Prometheus runs, without a byte written, and for a program",
        line: "narthex check --tsdb.path=/var/lib/prometheus --objstore.config-file=bucket.yaml \\\n  \
               --no-prometheus --no-write --output=json",
    },
];

const STATUS: &[Example] = &[
    Example {
        what: "Is my data safe?",
        line: "narthex status",
    },
    Example {
        what: "The same of a sidecar elsewhere, for a program",
        line: "narthex status --url=http://prometheus-0.monitoring:10902 --output=json",
    },
];

const BACKFILL: &[Example] = &[
    Example {
        what: "See what would be sent of what promtool has made",
        line: "narthex backfill --path=blocks --label=cluster=eu --objstore.config-file=bucket.yaml --dry-run",
    },
    Example {
        what: "Send it, and read it back",
        line: "narthex backfill --path=blocks --label=cluster=eu --objstore.config-file=bucket.yaml --verify=full",
    },
    Example {
        what: "Send the blocks of a running Prometheus, with its external labels, at no more than 20 MiB a second",
        line: "narthex backfill --path=/var/lib/prometheus --prometheus.url=http://localhost:9090 \\\n  \
               --objstore.config-file=bucket.yaml --max-rate=20MiB",
    },
    Example {
        what: "Send a year, with a report for a program",
        line: "narthex backfill --path=/mnt/old --label=cluster=eu --label=replica=a \\\n  \
               --min-time=2024-01-01T00:00:00Z --max-time=2025-01-01T00:00:00Z \\\n  \
               --objstore.config-file=bucket.yaml --output=json",
    },
];

const LS: &[Example] = &[
    Example {
        what: "The names of all blocks",
        line: "narthex bucket ls --objstore.config-file=bucket.yaml",
    },
    Example {
        what: "The blocks of the last 30 days of one cluster, with times and levels",
        line: "narthex bucket ls --objstore.config-file=bucket.yaml -l '{cluster=\"eu\"}' --min-time=-30d -o wide",
    },
];

const INSPECT: &[Example] = &[
    Example {
        what: "All blocks as a table",
        line: "narthex bucket inspect --objstore.config-file=bucket.yaml",
    },
    Example {
        what: "The blocks of some clusters for a spreadsheet, sorted by their number of series",
        line: "narthex bucket inspect --objstore.config-file=bucket.yaml --selector='{cluster=~\"eu-.+\"}' \\\n  \
               --sort-by='#SERIES' --output=csv",
    },
];

const VERIFY: &[Example] = &[
    Example {
        what: "Is every block whole?",
        line: "narthex bucket verify --objstore.config-file=bucket.yaml",
    },
    Example {
        what: "Read every byte of the last week",
        line: "narthex bucket verify --objstore.config-file=bucket.yaml --full --min-time=-7d --max-rate=100MiB",
    },
];

const GAPS: &[Example] = &[
    Example {
        what: "What is missing, in slots of two hours",
        line: "narthex bucket gaps --objstore.config-file=bucket.yaml",
    },
    Example {
        what: "The same up to now, in a bucket that is still written to",
        line: "narthex bucket gaps --objstore.config-file=bucket.yaml --until=now",
    },
    Example {
        what: "The days of January of one cluster, for a program",
        line: "narthex bucket gaps --objstore.config-file=bucket.yaml -l cluster=eu --slot=1d \\\n  \
               --min-time=2026-01-01T00:00:00Z --max-time=2026-02-01T00:00:00Z -o json",
    },
];

const RESTORE: &[Example] = &[
    Example {
        what: "See what would be restored",
        line: "narthex restore --to=restored --selector='{cluster=\"eu\", replica=\"a\"}' \\\n  \
               --objstore.config-file=bucket.yaml --dry-run",
    },
    Example {
        what: "Bring January back; then start a Prometheus on it that keeps data long enough",
        line: "narthex restore --to=restored --selector='{cluster=\"eu\", replica=\"a\"}' \\\n  \
               --min-time=2026-01-01T00:00:00Z --max-time=2026-02-01T00:00:00Z --objstore.config-file=bucket.yaml\n\
               prometheus --config.file=prometheus.yml --storage.tsdb.path=restored --storage.tsdb.retention.time=10y",
    },
];

const UPLOAD_BLOCKS: &[Example] = &[
    Example {
        what: "As with Thanos",
        line: "narthex tools bucket upload-blocks --path=blocks --label='cluster=\"eu\"' \\\n  \
               --objstore.config-file=bucket.yaml",
    },
    Example {
        what: "Compacted blocks, too",
        line: "narthex tools bucket upload-blocks --path=blocks --label=cluster=eu --shipper.upload-compacted \\\n  \
               --objstore.config-file=bucket.yaml",
    },
];

/// The examples of the command that these words name.
pub(super) fn of(path: &[String]) -> &'static [Example] {
    match path.join(" ").as_str() {
        "sidecar" => SIDECAR,
        "check" => CHECK,
        "status" => STATUS,
        "backfill" => BACKFILL,
        "bucket ls" => LS,
        "bucket inspect" => INSPECT,
        "bucket verify" => VERIFY,
        "bucket gaps" => GAPS,
        "restore" => RESTORE,
        "tools bucket upload-blocks" => UPLOAD_BLOCKS,
        _ => &[],
    }
}

/// The exit codes of the command that these words name, and what they mean, if it is one that does its job and ends.
pub(super) fn exit_codes(path: &[String]) -> Option<Vec<(u8, &'static str)>> {
    let mut failed = "failed: the bucket, the disk, the configuration, an unknown command or flag, or a second signal";
    let mut interrupted = Some("interrupted by a signal; run it again to continue");
    let (good, found) = match path.join(" ").as_str() {
        "status" => {
            (failed, interrupted) = ("failed: nothing answers there, or what answers is no narthex", None);
            (
                "the sidecar is ready, and shipping is as it should be, or off",
                "somebody should look: it is not ready, shipping fails, or blocks need attention",
            )
        }
        "backfill" | "tools bucket upload-blocks" => {
            failed = "failed: bucket, last proof, disk, configuration, an unknown command or flag, or a second signal";
            (
                "all blocks are in the bucket and proven",
                "done, but blocks are refused, or others cannot be read in the bucket; each is named",
            )
        }
        "check" => ("nothing fails; warnings are shown", "something fails; it is named"),
        "bucket ls" | "bucket inspect" => ("printed", "printed, but some blocks could not be read; each is named"),
        "bucket verify" => ("every block is whole", "something is broken or missing; it is named"),
        "bucket gaps" => (
            "nothing is missing",
            "something is missing or partial, or cannot be read; it is named",
        ),
        "restore" => (
            "all blocks that were selected are there and checked",
            "done, but something is refused, broken or missing; it is named",
        ),
        _ => return None,
    };
    let bad_value = "a bad value on the command line, or a flag that is missing or given twice";
    let mut codes = vec![(0, good), (1, failed), (2, bad_value), (3, found)];
    codes.extend(interrupted.map(|meaning| (4, meaning)));
    Some(codes)
}
