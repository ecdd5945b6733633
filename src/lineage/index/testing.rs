//! Blocks, and a bucket in a directory with faults on the way there.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::{
    lineage::Entry,
    model::Labels,
    objstore::{self, Limits, layers::Faulty},
    tsdb::{BlockId, Meta},
};

pub(in crate::lineage) fn id(n: u32) -> BlockId {
    BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{n:05}")).unwrap()
}

/// A block of level 1, or of level 2 if it has more sources than one.
pub(in crate::lineage) fn block(n: u32, range: (i64, i64), sources: &[u32], cluster: &str) -> Entry {
    let mut sources: Vec<BlockId> = sources.iter().map(|n| id(*n)).collect();
    sources.sort();
    Entry {
        id: id(n),
        range,
        resolution: 0,
        level: if sources.len() > 1 { 2 } else { 1 },
        sources: sources.into(),
        labels: Labels::from_pairs([("cluster", cluster)]),
    }
}

/// The `meta.json` of a block of the bucket with a segment of 3 bytes and an index of 2.
pub(in crate::lineage) fn meta(entry: &Entry) -> serde_json::Value {
    let labels: serde_json::Map<String, serde_json::Value> = entry
        .labels
        .iter()
        .map(|label| (label.name.to_string(), (*label.value).into()))
        .collect();
    let sources: Vec<String> = entry.sources.iter().map(ToString::to_string).collect();
    serde_json::json!({
        "ulid": entry.id.to_string(), "minTime": entry.range.0, "maxTime": entry.range.1, "version": 1,
        "stats": {"numSamples": 5, "numSeries": 2, "numChunks": 2},
        "compaction": {"level": entry.level, "sources": sources},
        "thanos": {
            "labels": labels, "downsample": {"resolution": entry.resolution},
            "files": [
                {"rel_path": "chunks/000001", "size_bytes": 3}, {"rel_path": "index", "size_bytes": 2},
                {"rel_path": "meta.json"},
            ],
        },
    })
}

pub(in crate::lineage) fn parsed(entry: &Entry) -> Meta {
    Meta::parse(meta(entry).to_string().as_bytes()).unwrap()
}

/// A bucket.
pub(in crate::lineage) struct Store {
    dir: tempfile::TempDir,
    pub(in crate::lineage) bucket: Arc<Faulty>,
}

impl Store {
    pub(in crate::lineage) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {:?}\n", dir.path());
        let config = objstore::config::parse(&yaml).unwrap();
        let bucket = objstore::open(&config, &Limits::default(), &mut Registry::default()).await;
        Self {
            dir,
            bucket: Faulty::new(bucket.unwrap()),
        }
    }

    /// Puts an object of a block.
    pub(in crate::lineage) fn put(&self, id: BlockId, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.dir.path().join(id.to_string()).join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }

    /// Puts a whole block.
    pub(in crate::lineage) fn put_block(&self, entry: &Entry) {
        self.put(entry.id, "chunks/000001", "abc");
        self.put(entry.id, "index", "ab");
        self.put(entry.id, "meta.json", meta(entry).to_string());
    }

    pub(in crate::lineage) fn mark(&self, id: BlockId) {
        self.put(id, "deletion-mark.json", "{}");
    }

    pub(in crate::lineage) fn remove(&self, id: BlockId, name: &str) {
        fs_err::remove_file(self.dir.path().join(id.to_string()).join(name)).unwrap();
    }

    pub(in crate::lineage) fn remove_block(&self, id: BlockId) {
        fs_err::remove_dir_all(self.dir.path().join(id.to_string())).unwrap();
    }

    /// How often the store was asked.
    pub(in crate::lineage) fn asked(&self) -> usize {
        self.bucket.calls().len()
    }
}
