//! A sidecar before a store that can fall ill.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{PATIENCE, seal, sound};
use crate::{
    bad_blocks::stage::{Stage, args_for, listed, prometheus},
    rig::{BucketView, Fault, Rule, S3Server, Sidecar, tools::temp_dir, weed::SECRET_KEY},
};

/// The bucket's name.
const BUCKET: &str = "sick";

/// A way of being ill.
pub(super) struct Case {
    pub(super) rule: Rule,
    /// The operation that fails, as the metrics call it; `None` when all are acknowledged.
    pub(super) operation: Option<&'static str>,
    /// What the log says of it.
    pub(super) said: &'static [&'static str],
}

impl Case {
    /// An upload of what fits the pattern fails.
    pub(super) fn put(pattern: &str, fault: Fault, said: &'static [&'static str]) -> Case {
        Case {
            rule: Rule::on("PUT", pattern, fault),
            operation: Some("upload"),
            said,
        }
    }

    /// Every listing fails.
    pub(super) fn list(fault: Fault, said: &'static [&'static str]) -> Case {
        Case {
            rule: Rule::on("GET", "*list-type=2*", fault),
            operation: Some("iter"),
            said,
        }
    }
}

/// A data directory, a sidecar, and an S3 server with a script. The view of the bucket is on the server's files: it is
/// never ill.
pub(super) struct Sick {
    pub(super) stage: Stage,
    pub(super) server: S3Server,
}

impl Sick {
    /// Starts a sidecar with further keys of the section `config`, and waits until it has looked at its empty data
    /// directory.
    pub(super) async fn start(more: &str) -> Sick {
        let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
        Sick::start_as(|config| format!("{config}{more}"), &[]).await
    }

    /// The same with a configuration that `change` changes, and with these flags.
    pub(super) async fn start_as(change: impl FnOnce(String) -> String, flags: &[&str]) -> Sick {
        let (data, server) = (temp_dir("data"), S3Server::start());
        let objstore = change(server.bucket(BUCKET).config());
        let files = BucketView::dir(&server.file(BUCKET, ""));
        let sidecar = Sidecar::start(args_for(prometheus().await, data.path(), &objstore, flags));
        let stage = Stage::of(data, files, sidecar);
        stage.wait_for_pass().await;
        Sick { stage, server }
    }

    /// For each case seals a block while the store is ill in that way, looks how it is told and counted, and that the
    /// block arrives when the store is well again.
    pub(super) async fn falls_ill_and_recovers(&self, cases: &[Case]) {
        let mut shipped: Vec<String> = Vec::new();
        for (slot, case) in (0..).zip(cases) {
            let before = self.failures().await;
            self.server.fault(case.rule.clone());
            let id = seal(&sound(slot), self.stage.dir(), |_| {});
            let said = [case.said, &[id.as_str()]].concat();
            let good: Vec<&str> = shipped.iter().map(String::as_str).collect();
            self.fails(&said, &good).await;
            self.counted(case, before).await;
            self.server.heal();
            shipped.push(id);
            let good: Vec<&str> = shipped.iter().map(String::as_str).collect();
            self.arrive(&good).await;
        }
        assert_eq!(self.committed(), shipped);
    }

    /// Waits until the log tells of what is wrong in words that hold all of these; meanwhile all is well but for the
    /// blocks that fail to upload: only those of `good` are visible and in the ledger.
    pub(super) async fn fails(&self, said: &[&str], good: &[&str]) {
        let always = ["level=warn", "upload failed, retrying", &self.place()];
        let line = self.stage.wait_for_log(&[&always, said].concat()).await;
        assert!(!line.contains(SECRET_KEY) && !line.contains("Signature="), "{line}");
        self.assert_only(good).await;
        assert!(self.stage.sidecar.ready().await, "readiness is about Prometheus");
        for name in ["narthex_quarantined_blocks", "thanos_shipper_corrupted_blocks_total"] {
            let found = self.stage.metrics().await.value(name, &[]).unwrap_or_default();
            assert_eq!(found, 0.0, "{name}: no block is broken because the store is");
        }
    }

    fn ledger(&self) -> PathBuf {
        self.stage.dir().join("thanos.shipper.json")
    }

    /// Whatever is visible is whole, at any moment.
    async fn assert_whole(&self) {
        for id in self.stage.bucket.visible().await {
            self.stage.assert_same(&id, &self.stage.dir().join(&id)).await;
        }
    }

    /// Only these blocks are visible, and in the ledger.
    async fn assert_only(&self, good: &[&str]) {
        let mut good = good.to_vec();
        good.sort_unstable();
        assert_eq!(self.stage.bucket.visible().await, good);
        assert_eq!(listed(&self.ledger()).unwrap(), good);
    }

    /// Waits until these blocks are all that is in the bucket, whole, and in the ledger, and that the log says that the
    /// trouble is over, if it told of any.
    pub(super) async fn arrive(&self, ids: &[&str]) {
        let mut expected = ids.to_vec();
        expected.sort_unstable();
        let arrived = async || {
            self.assert_whole().await;
            (listed(&self.ledger())? == expected).then_some(())
        };
        let what = format!("the ledger lists {ids:?}");
        self.stage.sidecar.wait_until(PATIENCE, what, arrived).await;
        let quiet = async || {
            let log = self.stage.sidecar.log();
            let (held, on) = (log.rfind("upload failed, retrying"), log.rfind("shipping works again"));
            (held <= on).then_some(())
        };
        self.stage
            .sidecar
            .wait_until(PATIENCE, "shipping works again", quiet)
            .await;
        self.stage.assert_shipped(ids).await;
        for (name, value) in [
            ("thanos_shipper_uploads_total", ids.len() as f64),
            ("narthex_unuploaded_blocks", 0.0),
        ] {
            self.stage.wait_for_metric(name, &[], |found| found == value).await;
        }
    }

    /// Puts an object of somebody else's below the name of a block that is being made in `dir`.
    pub(super) fn put_other(&self, dir: &Path, name: &str) {
        let id = dir.file_stem().unwrap().display();
        let object = self.server.file(BUCKET, &format!("{id}/{name}"));
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(object, "other").unwrap();
    }

    /// The blocks in the order in which their `meta.json` was sent, each once.
    pub(super) fn committed(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for seen in self.server.seen() {
            if let Some(id) = seen.key.strip_suffix("/meta.json")
                && seen.method == "PUT"
                && !ids.iter().any(|known| known == id)
            {
                ids.push(id.to_owned());
            }
        }
        ids
    }

    /// Where the log says that the bucket is.
    fn place(&self) -> String {
        format!("s3://{}/{BUCKET}", self.server.host())
    }

    /// The counters of failures: blocks, passes, and the operations `upload`, `iter` and `get`.
    async fn failures(&self) -> [f64; 5] {
        let metrics = self.stage.metrics().await;
        let operation = |operation| {
            let labels = [("operation", operation), ("bucket", BUCKET)];
            metrics
                .value("thanos_objstore_bucket_operation_failures_total", &labels)
                .unwrap()
        };
        [
            metrics.value("thanos_shipper_upload_failures_total", &[]).unwrap(),
            metrics.value("thanos_shipper_dir_sync_failures_total", &[]).unwrap(),
            operation("upload"),
            operation("iter"),
            operation("get"),
        ]
    }

    /// The failure of a case is counted as what it is, and as nothing else.
    async fn counted(&self, case: &Case, before: [f64; 5]) {
        let operations = [(2, "upload"), (3, "iter"), (4, "get")];
        // The log may be ahead of the counters.
        let counted = async || {
            let after = self.failures().await;
            let failed = operations.iter().find(|(_, name)| case.operation == Some(*name));
            let due = [Some(0), Some(1), failed.map(|(at, _)| *at)];
            due.into_iter()
                .flatten()
                .all(|at| after[at] > before[at])
                .then_some(after)
        };
        let what = format!("{:?} is counted, beyond {before:?}", case.said);
        let after = self.stage.sidecar.wait_until(PATIENCE, what, counted).await;
        let more = |at: usize| after[at] > before[at];
        for (at, operation) in operations {
            let expected = case.operation == Some(operation);
            assert_eq!(more(at), expected, "{operation}, {:?}: {before:?} {after:?}", case.said);
        }
    }
}
