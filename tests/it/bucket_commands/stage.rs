//! A bucket made by hand, and runs of the program on it.

use std::{path::Path, time::Duration};

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::rig::{
    BucketView,
    blocks::{Spec, generate},
    one_shot::{Ran, narthex},
    tools::temp_dir,
};

/// How long a run may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// An hour (ms).
pub(super) const H: i64 = 3_600_000;
/// The start of 2026 (ms since 1970).
pub(super) const T: i64 = 1_767_225_600_000;

/// Runs `narthex bucket <args>` on a bucket with this configuration.
#[track_caller]
pub(super) fn run_on(config: &str, args: &[&str]) -> Ran {
    narthex(&[&["bucket"], args, &[&format!("--objstore.config={config}")]].concat())
}

/// The name of the block `n`, made at the start of 2026 or so.
pub(super) fn name(n: u32) -> String {
    format!("01KDVC{n:020}")
}

/// A `meta.json` of the block `n` with an index of 512 bytes and a segment of 214.
pub(super) fn meta(n: u32, (from, until): (i64, i64), labels: Value) -> Value {
    json!({
        "ulid": name(n), "minTime": from, "maxTime": until,
        "stats": {"numSamples": 2, "numSeries": 1, "numChunks": 1},
        "compaction": {"level": 1, "sources": [name(n)]}, "version": 1,
        "thanos": {
            "labels": labels, "downsample": {"resolution": 0}, "source": "sidecar", "segment_files": ["000001"],
            "files": [
                {"rel_path": "chunks/000001", "size_bytes": 214}, {"rel_path": "index", "size_bytes": 512},
                {"rel_path": "meta.json"},
            ],
        },
    })
}

/// A bucket that is a directory.
#[derive(Debug)]
pub(super) struct Bucket {
    dir: TempDir,
}

impl Bucket {
    pub(super) fn new() -> Bucket {
        Bucket {
            dir: temp_dir("bucket"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn config(&self) -> String {
        BucketView::dir(self.path()).config()
    }

    pub(super) fn put(&self, key: &str, body: impl AsRef<[u8]>) {
        let path = self.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }

    pub(super) fn delete(&self, key: &str) {
        fs::remove_file(self.path().join(key)).unwrap();
    }

    /// Puts a block whose objects have the right sizes and no sense.
    pub(super) fn block(&self, meta: &Value) {
        let id = meta["ulid"].as_str().unwrap();
        self.put(&format!("{id}/chunks/000001"), [1; 214]);
        self.put(&format!("{id}/index"), [2; 512]);
        self.put(&format!("{id}/meta.json"), meta.to_string());
    }

    /// Puts a block with these times under `cluster="a"`.
    pub(super) fn plain(&self, n: u32, from: i64, until: i64) {
        self.block(&meta(n, (from, until), json!({"cluster": "a"})));
    }

    pub(super) fn mark_for_deletion(&self, n: u32) {
        let mark = json!({"id": name(n), "version": 1, "deletion_time": 1_767_225_600});
        self.put(&format!("{}/deletion-mark.json", name(n)), mark.to_string());
    }

    pub(super) fn run(&self, args: &[&str]) -> Ran {
        run_on(&self.config(), args)
    }
}

/// The objects of a real block, with the hashes of them in its `meta.json`; its name first.
pub(super) fn real() -> (String, Vec<(String, Vec<u8>)>) {
    let block = generate(Spec::small(0));
    let id = block.file_name().unwrap().to_str().unwrap().to_owned();
    let mut objects = Vec::new();
    let mut files = Vec::new();
    for name in ["chunks/000001", "index"] {
        let body = fs::read(block.join(name)).unwrap();
        let hash: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        files.push(json!({
            "rel_path": name, "size_bytes": body.len(), "hash": {"hashFunc": "SHA256", "value": hash},
        }));
        objects.push((format!("{id}/{name}"), body));
    }
    let mut meta: Value = serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    meta["thanos"] = json!({"labels": {"cluster": "a"}, "source": "sidecar", "files": files});
    objects.push((format!("{id}/meta.json"), meta.to_string().into_bytes()));
    (id, objects)
}
