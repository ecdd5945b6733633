//! `meta.json` as it goes to the bucket: the file on disk, with what Thanos wants to know beside it.

use std::time::SystemTime;

use jiff::Timestamp;

use super::{
    Meta, RewrittenFrom,
    json::{Node, Object},
    rewritten_from,
};
use crate::model::Labels;

/// Where chunk segments are, relative to the block.
pub(super) const CHUNKS: &str = "chunks/";
/// The metadata, relative to the block.
pub(super) const META: &str = "meta.json";

/// The members that the document begins with.
const FIRST: [&str; 6] = ["ulid", "minTime", "maxTime", "stats", "compaction", "version"];
/// The members that the `thanos` section begins with.
const THANOS: [&str; 10] = [
    "version",
    "labels",
    "downsample",
    "source",
    "segment_files",
    "files",
    "rewrites",
    "index_stats",
    "extensions",
    "upload_time",
];

/// What the shipper adds to a block's metadata.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The external labels; they win over labels that are in the file already.
    pub labels: Labels,
    /// Who ships: `sidecar` or `bucket.upload`.
    pub source: String,
    /// What is in the bucket beside `meta.json`.
    pub files: Vec<BucketFile>,
    /// What the files were rewritten from, if they were.
    pub rewritten_from: Option<RewrittenFrom>,
    /// When `meta.json` is sent. Readers wait for a while after this moment.
    pub upload_time: SystemTime,
}

/// One file of a block in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketFile {
    /// Its name, relative to the block: `chunks/000001`, `index`.
    pub rel_path: String,
    /// Its size (bytes).
    pub size: Option<u64>,
    /// The SHA-256 of its content in lower-case hex, if it was asked for.
    pub sha256: Option<String>,
}

impl Meta {
    /// The file for the bucket: the six members of Prometheus, those that we do not know, and the `thanos` section with
    /// `stamp`. What is in that section already and is not the stamp's stays. An entry for `meta.json` itself, without
    /// size and hash, is added to the files.
    pub fn for_bucket(&self, stamp: &Stamp) -> Vec<u8> {
        let mut out = Object::new();
        for name in FIRST {
            out.push(name, self.document.get(name).cloned().unwrap_or_else(|| absent(name)));
        }
        let ours: &[&str] = match &stamp.rewritten_from {
            Some(from) => {
                out.push(rewritten_from::KEY, from.node());
                &[rewritten_from::KEY]
            }
            None => &[],
        };
        out.push_others(&self.document, &[&FIRST[..], &["thanos"], ours].concat());
        let nothing = Object::new();
        let on_disk = match self.document.get("thanos") {
            Some(Node::Object(object)) => object,
            _ => &nothing,
        };
        out.push("thanos", Node::Object(self.thanos(on_disk, stamp)));
        Node::Object(out).to_file()
    }

    fn thanos(&self, on_disk: &Object, stamp: &Stamp) -> Object {
        let labels = self
            .thanos_labels
            .clone()
            .unwrap_or_default()
            .overlaid_with(&stamp.labels);
        let segments = segment_files(&stamp.files);
        let mut out = Object::new();
        for name in THANOS {
            let value = match name {
                "version" => on_disk
                    .get(name)
                    .filter(|version| **version != Node::number(0))
                    .cloned(),
                "labels" => Some(labels_node(&labels)),
                "downsample" => Some(downsample(on_disk.get(name))),
                "source" => Some(Node::text(&stamp.source)),
                "segment_files" => (!segments.is_empty()).then(|| Node::List(segments.clone())),
                "files" => Some(files(&stamp.files)),
                "index_stats" => Some(on_disk.get(name).cloned().unwrap_or(Node::Object(Object::new()))),
                "upload_time" => Some(Node::text(&rfc3339(stamp.upload_time))),
                _ => on_disk.get(name).cloned(),
            };
            if let Some(value) = value {
                out.push(name, value);
            }
        }
        out.push_others(on_disk, &THANOS);
        out
    }
}

/// What stands for a member that readers of the bucket always find.
fn absent(name: &str) -> Node {
    let mut object = Object::new();
    match name {
        "stats" => Node::Object(object),
        "compaction" => {
            object.push("level", Node::number(0));
            Node::Object(object)
        }
        _ => Node::number(0),
    }
}

fn labels_node(labels: &Labels) -> Node {
    let mut object = Object::new();
    for label in labels.iter() {
        object.push(&label.name, Node::text(&label.value));
    }
    Node::Object(object)
}

/// The section as it is on disk, with a resolution in any case.
fn downsample(on_disk: Option<&Node>) -> Node {
    let mut object = Object::new();
    let nothing = Object::new();
    let on_disk = match on_disk {
        Some(Node::Object(object)) => object,
        _ => &nothing,
    };
    object.push(
        "resolution",
        on_disk.get("resolution").cloned().unwrap_or_else(|| Node::number(0)),
    );
    object.push_others(on_disk, &["resolution"]);
    Node::Object(object)
}

fn segment_files(files: &[BucketFile]) -> Vec<Node> {
    let mut names: Vec<&str> = files
        .iter()
        .filter_map(|file| file.rel_path.strip_prefix(CHUNKS))
        .collect();
    names.sort_unstable();
    names.into_iter().map(Node::text).collect()
}

fn files(files: &[BucketFile]) -> Node {
    let own = BucketFile {
        rel_path: META.to_owned(),
        size: None,
        sha256: None,
    };
    let mut all: Vec<&BucketFile> = files
        .iter()
        .filter(|file| file.rel_path != META)
        .chain([&own])
        .collect();
    all.sort_unstable_by(|a, b| a.rel_path.cmp(&b.rel_path));
    Node::List(all.into_iter().map(file_node).collect())
}

fn file_node(file: &BucketFile) -> Node {
    let mut object = Object::new();
    object.push("rel_path", Node::text(&file.rel_path));
    if let Some(size) = file.size.filter(|size| *size != 0) {
        object.push("size_bytes", Node::number(size));
    }
    if let Some(sha256) = &file.sha256 {
        let mut hash = Object::new();
        hash.push("hashFunc", Node::text("SHA256"));
        hash.push("value", Node::text(sha256));
        object.push("hash", Node::Object(hash));
    }
    Node::Object(object)
}

/// UTC with as many digits as the fraction has, at most nine. A clock beyond the year 9999 is taken for its end.
fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn file(rel_path: &str, size: u64) -> BucketFile {
        BucketFile {
            rel_path: rel_path.into(),
            size: Some(size),
            sha256: None,
        }
    }

    fn stamp(labels: Labels) -> Stamp {
        Stamp {
            labels,
            source: "sidecar".into(),
            files: vec![file("index", 512), file("chunks/000001", 214)],
            rewritten_from: None,
            upload_time: UNIX_EPOCH + Duration::new(1_767_236_412, 345_678_901),
        }
    }

    /// `testdata/meta/<name>.in.json`, stamped, is `<name>.out.json` to the byte.
    fn golden(name: &str, stamp: &Stamp) {
        let read = |kind: &str| {
            let path = format!("{}/testdata/meta/{name}.{kind}.json", env!("CARGO_MANIFEST_DIR"));
            fs_err::read(path).unwrap()
        };
        let out = Meta::parse(&read("in")).unwrap().for_bucket(stamp);
        let (out, want) = (String::from_utf8(out).unwrap(), String::from_utf8(read("out")).unwrap());
        assert_eq!(out, want, "{name}");
        assert_eq!(
            Meta::parse(out.as_bytes()).unwrap().for_bucket(stamp),
            want.as_bytes(),
            "{name}, once more"
        );
    }

    #[test]
    fn a_fresh_block_is_as_in_the_contract() {
        golden(
            "fresh",
            &stamp(Labels::from_pairs([("replica", "0"), ("cluster", "a")])),
        );
    }

    #[test]
    fn unknown_keys_and_large_numbers_survive() {
        golden("unknown", &stamp(Labels::from_pairs([("cluster", "a")])));
    }

    #[test]
    fn a_thanos_section_is_kept_and_amended() {
        let mut stamp = stamp(Labels::from_pairs([("cluster", "new"), ("replica", "0")]));
        stamp.files = vec![
            file("chunks/000002", 0),
            BucketFile {
                sha256: Some("ab12".into()),
                ..file("chunks/000001", 536_870_912)
            },
            BucketFile {
                sha256: Some("cd34".into()),
                ..file("index", u64::MAX)
            },
        ];
        stamp.upload_time = UNIX_EPOCH + Duration::from_millis(1_767_236_412_500);
        stamp.source = "bucket.upload".into();
        golden("thanos", &stamp);
    }

    #[test]
    fn labels_are_escaped_as_go_does() {
        golden(
            "escapes",
            &stamp(Labels::from_pairs([
                ("expr", "a<b && c>d"),
                ("odd", "\u{2028}\"\\\n\u{2029}é"),
            ])),
        );
    }

    #[test]
    fn the_time_loses_its_trailing_zeros() {
        for (nanos, want) in [
            (0, "2026-01-01T03:00:12Z"),
            (500_000_000, "2026-01-01T03:00:12.5Z"),
            (120_000, "2026-01-01T03:00:12.00012Z"),
            (1, "2026-01-01T03:00:12.000000001Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(1_767_236_412, nanos)), want);
        }
        assert_eq!(
            rfc3339(UNIX_EPOCH - Duration::from_millis(500)),
            "1969-12-31T23:59:59.5Z"
        );
        rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 45));
    }

    proptest! {
        #[test]
        fn nothing_but_the_section_changes(key in "[a-z<&]{1,8}", number in any::<i64>(), label in any::<String>()) {
            let key = format!("x{key}");
            let text = serde_json::json!({
                "ulid": "01K4ABCDEFGHJKMNPQRSTVWXYZ", key.clone(): [number, {key.clone(): label}],
                "stats": {"numSamples": 1, key.clone(): null}, "version": 1, "minTime": number, "maxTime": 7,
                "compaction": {"level": 1}, "thanos": {key.clone(): number, "labels": {"disk": label}},
            }).to_string();
            let out = Meta::parse(text.as_bytes()).unwrap().for_bucket(&stamp(Labels::from_pairs([(&key, &label)])));
            let (mut was, mut is): (Value, Value) =
                (serde_json::from_str(&text).unwrap(), serde_json::from_slice(&out).unwrap());
            prop_assert_eq!(&is["thanos"]["labels"]["disk"], &was["thanos"]["labels"]["disk"]);
            prop_assert_eq!(is["thanos"]["labels"][&key].as_str(), Some(label.as_str()));
            prop_assert_eq!(&is["thanos"][&key], &was["thanos"][&key]);
            was.as_object_mut().unwrap().remove("thanos");
            is.as_object_mut().unwrap().remove("thanos");
            prop_assert_eq!(was, is);
        }
    }
}
