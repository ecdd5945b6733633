//! Every check: a name that stays, what it is about, and what to do where it is not good. `docs/check.md` shows this table.

/// Something that is looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// The name; it is part of the output and does not change.
    pub name: &'static str,
    /// What is looked at, and what it means if it is not good.
    pub meaning: &'static str,
    /// What to do then, beside what the finding itself says.
    pub fix: &'static str,
}

macro_rules! checks {
    ($($id:ident $name:literal, $meaning:literal, $fix:literal;)*) => {
        $(
            #[doc = $meaning]
            pub static $id: Check = Check { name: $name, meaning: $meaning, fix: $fix };
        )*

        /// All of them, in the order in which they are shown.
        pub static ALL: &[&Check] = &[$(&$id),*];
    };
}

checks! {
    PROMETHEUS_CLIENT "prometheus.client",
        "`--prometheus.url` and `--prometheus.http-client`: YAML, certificates, keys",
        "correct what the text names in --prometheus.url or --prometheus.http-client";
    PROMETHEUS_REACHABLE "prometheus.reachable",
        "Prometheus answers at `--prometheus.url`",
        "start Prometheus, or correct --prometheus.url; in an init container, which runs before it, give --no-prometheus";
    PROMETHEUS_PATH "prometheus.path",
        "What answers there is Prometheus' API, and not something else at another path",
        "append the path of Prometheus' --web.route-prefix or --web.external-url to --prometheus.url";
    PROMETHEUS_CREDENTIALS "prometheus.credentials",
        "Prometheus, or a proxy before it, takes the credentials (401, 403, 407)",
        "give user and password, a token or a certificate with --prometheus.http-client-file";
    PROMETHEUS_VERSION "prometheus.version",
        "Its version is one that narthex is tested with, 2.42 or later",
        "upgrade Prometheus to a version that is still maintained";
    PROMETHEUS_MODE "prometheus.mode",
        "It runs as a server: an agent has neither blocks nor answers",
        "run narthex beside the server that the agent sends to";
    PROMETHEUS_FLAGS "prometheus.flags",
        "It reports its flags, in a form that is understood",
        "let narthex read /api/v1/status/flags";
    PROMETHEUS_METRICS "prometheus.metrics",
        "Its own metrics can be read: they tell the oldest time that it holds, and whether it fails to load blocks",
        "let narthex read /metrics of Prometheus";
    PROMETHEUS_LABELS "prometheus.labels",
        "There are external labels, without which nothing is uploaded and no query is answered",
        "set global.external_labels in Prometheus' configuration, or --label";
    PROMETHEUS_LABEL_VALUES "prometheus.label-values",
        "No external label looks like a variable that nobody has replaced: all replicas would have the same",
        "have $(POD_NAME) or ${POD_NAME} replaced where the configuration is written";
    PROMETHEUS_COMPACTION "prometheus.compaction",
        "Prometheus does not compact blocks before they are uploaded",
        "set its --storage.tsdb.max-block-duration to that of --storage.tsdb.min-block-duration, or --storage.tsdb.delay-compact-file.path from 3.9 on";
    PROMETHEUS_DELAY_FILE "prometheus.delay-file",
        "The file that it waits for before it compacts is the one that narthex writes",
        "mount the data at one path in both containers, and name this file in --storage.tsdb.delay-compact-file.path";
    PROMETHEUS_OUT_OF_ORDER "prometheus.out-of-order",
        "With an out-of-order window, it does not merge overlapping blocks before they are uploaded",
        "give Prometheus --no-storage.tsdb.allow-overlapping-compaction, or --storage.tsdb.delay-compact-file.path from 3.9 on";
    PROMETHEUS_BLOCK_DURATION "prometheus.block-duration",
        "Its blocks are 2h long, as readers of the bucket expect",
        "set its --storage.tsdb.min-block-duration and --storage.tsdb.max-block-duration to 2h";
    PROMETHEUS_RETENTION "prometheus.retention",
        "It keeps blocks for 6h at least, so that there is time to notice that uploads fail",
        "raise its --storage.tsdb.retention.time, or let blocks that wait be held by --shipper.hold-unshipped";
    PROMETHEUS_ENCODINGS "prometheus.encodings",
        "It writes no chunks that readers of the bucket refuse (XOR2, histograms with start timestamps), or they are rewritten",
        "leave --shipper.newer-encodings at rewrite, or set storage.tsdb.chunk_encoding.floats to xor";
    PROMETHEUS_REMOTE_READ "prometheus.remote-read",
        "It answers more than one remote read at once: with a limit of 0 it answers none",
        "leave its --storage.remote.read-concurrent-limit at 10";
    PROMETHEUS_LIFECYCLE "prometheus.lifecycle",
        "It can be reloaded by HTTP, where files are followed for it",
        "start Prometheus with --web.enable-lifecycle, or give --reloader.method=signal";
    DATA_DIRECTORY "data.directory",
        "`--tsdb.path` is a directory that can be read",
        "mount Prometheus' data into narthex' container, and name it in --tsdb.path";
    DATA_PROMETHEUS "data.prometheus",
        "It is the directory of the Prometheus that answers: by its path, its lock and its blocks",
        "give --tsdb.path the directory of Prometheus' --storage.tsdb.path, on the same volume";
    DATA_BLOCKS "data.blocks",
        "Every block in it can be read",
        "restore or delete the blocks that the text names; Prometheus does not load them either";
    DATA_LEDGER "data.ledger",
        "The ledger can be written, and read by Prometheus' user; one that is there is of this bucket",
        "let narthex' user write into the data directory (fsGroup on Kubernetes), and see that nothing else has the ledger's name";
    DATA_WAL "data.wal",
        "The write-ahead log can be read, where it is sent (`--wal.interval`)",
        "let narthex' user read the directory wal in the data directory";
    BUCKET_CONFIG "bucket.config",
        "The YAML of the bucket, and the files that it names; without a bucket nothing is shipped",
        "correct what the text names; an empty one is mostly a missing key of a Secret";
    BUCKET_REACHABLE "bucket.reachable",
        "The store answers",
        "check `endpoint`, `insecure`, certificates, DNS, proxies and network policies";
    BUCKET_EXISTS "bucket.exists",
        "There is such a bucket, container or directory",
        "create it, or correct its name";
    BUCKET_CREDENTIALS "bucket.credentials",
        "The store knows the credentials",
        "correct the keys, or what gives them to this pod (service account, role, instance)";
    BUCKET_REGION "bucket.region",
        "The bucket is in the region that requests are signed for",
        "set `region` and `endpoint` to those of the bucket";
    BUCKET_CLOCK "bucket.clock",
        "The clocks of the store and of this host agree within 5 minutes: beyond 15, requests are refused",
        "have the host's clock synchronized (NTP)";
    BUCKET_LIST "bucket.list",
        "The bucket may be listed",
        "grant s3:ListBucket, storage.objects.list, or the role Storage Blob Data Contributor";
    BUCKET_PUT "bucket.put",
        "Objects may be written as the configuration says, with its encryption, storage class and headers",
        "grant s3:PutObject (and the use of the KMS key), storage.objects.create, or the role Storage Blob Data Contributor";
    BUCKET_MULTIPART "bucket.multipart",
        "Objects of more than 5 MiB may be written in parts",
        "grant s3:AbortMultipartUpload, and kms:Decrypt for the KMS key, or set `disable_multipart: true`";
    BUCKET_READ "bucket.read",
        "What was written can be read back, and is the same",
        "grant s3:GetObject (and kms:Decrypt), storage.objects.get; where bytes differ, look at what is between narthex and the store";
    BUCKET_DELETE "bucket.delete",
        "What this check wrote is removed again, or what stays is named: the sidecar itself deletes no objects",
        "remove what is left below `narthex-check/` by hand, or by a rule of the store";
    BUCKET_UPLOADS "bucket.uploads",
        "Whether the store clears unfinished uploads away by itself, where its rules can be read",
        "add a rule with AbortIncompleteMultipartUpload";
    BUCKET_WRITERS "bucket.writers",
        "No other Prometheus ships under the same external labels",
        "give each Prometheus its own labels, such as replica";
    BUCKET_MARKS "bucket.marks",
        "No compactor has excluded a local block by a no-compact mark",
        "see the reason in the mark, and what `narthex bucket verify --full` says of the block";
    HTTP_CONFIG "http.config",
        "The file of `--http.config`, and those that it names",
        "correct what the text names";
    HTTP_CERTIFICATE "http.certificate",
        "The certificate of the HTTP server is valid, for 30 days at least",
        "renew the certificate; narthex reads it again without a restart";
    HTTP_CLIENT_CA "http.client-ca",
        "The CA of the HTTP server's clients is valid, for 30 days at least",
        "renew the CA's certificate; narthex reads it again without a restart";
    HTTP_PORT "http.port",
        "`--http-address` can be listened on",
        "stop what holds the port (another narthex?), or choose another --http-address";
    GRPC_TLS "grpc.tls",
        "Certificate, key and client CA of the gRPC server can be read and fit",
        "correct what the text names";
    GRPC_CERTIFICATE "grpc.certificate",
        "The certificate of the gRPC server is valid, for 30 days at least",
        "renew the certificate; narthex reads it again without a restart";
    GRPC_CLIENT_CA "grpc.client-ca",
        "The CA of the gRPC server's clients is valid, for 30 days at least",
        "renew the CA's certificate; narthex reads it again without a restart";
    GRPC_PORT "grpc.port",
        "`--grpc-address` can be listened on",
        "stop what holds the port (another narthex?), or choose another --grpc-address";
    GRPC_LOGGING "grpc.logging",
        "The YAML of `--request.logging-config`",
        "correct what the text names";
    QUERIES_FLAGS "queries.flags",
        "Flags of queries that do what they seem to",
        "change the flags that the text names";
    QUERIES_SPILL_DIR "queries.spill-dir",
        "`--store.spill-dir` can be written to",
        "mount a directory there that narthex' user may write to, such as an emptyDir";
    RELOADER_FILES "reloader.files",
        "The files that the reloader follows can be read and are YAML, and what it writes can be written",
        "correct what the text names";
    TRACING_CONFIG "tracing.config",
        "The YAML of `--tracing.config`",
        "correct what the text names";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_one_of_its_own() {
        let names: BTreeSet<&str> = ALL.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
