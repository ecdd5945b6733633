//! What a block says of itself: `meta.json`.
//!
//! A [`Meta`] is the whole file, for as long as it is worked on: it is as large as the document. A [`BlockMeta`] is what must be
//! known of a block for as long as the block is there: some 200 bytes, and 16 for each block that it was made of, whatever else
//! the file says.
//!
//! Read as Prometheus and Thanos read it: the version must be 1 and values must have the right type, but a number that
//! is missing or `null` is 0, unknown keys are no error, and whether the times make sense is not asked (Prometheus
//! serves a block with an empty or a reversed range, and it would stay unshipped for ever). More is asked in two
//! places: the block's own name must be there, and names of blocks must be in their canonical spelling.

use std::{ops::Deref, str::FromStr, sync::Arc};

use jiff::Timestamp;

use super::{
    BlockId,
    json::{Node, Object},
};
use crate::model::Labels;

/// What must be known of a block by its `meta.json`, without the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// The block's name, which must be that of its directory.
    pub ulid: BlockId,
    /// Start of the time range (ms since 1970), inclusive; need not be aligned.
    pub min_time: i64,
    /// End of the time range (ms since 1970), exclusive.
    pub max_time: i64,
    /// How many samples the block holds, of all types.
    pub num_samples: u64,
    /// How many series the block holds.
    pub num_series: u64,
    /// How many chunks the block holds.
    pub num_chunks: u64,
    /// How many deleted intervals the block has. They are not shipped.
    pub num_tombstones: u64,
    /// How often the samples were compacted; 1 for a block cut from the head (and for some others).
    pub level: u64,
    /// The blocks of level 1 that are in it; a block of level 1 names itself.
    pub sources: Vec<BlockId>,
    /// What it was made of directly.
    pub parents: Parents,
    /// A compaction that this block took part in failed.
    pub failed: bool,
    /// Nothing is left of it: Prometheus does not serve it and deletes it with its next reload.
    pub deletable: bool,
    /// What Prometheus notes about the block's origin, such as `from-out-of-order`.
    pub hints: Vec<String>,
    /// `thanos.labels`: `None` when there is no `thanos` section, which is how Prometheus writes it.
    pub thanos_labels: Option<Labels>,
    pub(super) resolution: i64,
}

/// Of what a block was made directly, as far as that tells how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parents {
    /// It names none: it was cut from the head.
    #[default]
    None,
    /// One whose name is nothing but zeros, by which Prometheus marks what it made of a part of its head.
    Nameless,
    /// Blocks: those whose names are good.
    Blocks(Vec<BlockId>),
}

/// A whole `meta.json`: what it says of the block, and the document, which goes to the bucket. Clones share the document.
#[derive(Clone, Debug)]
pub struct Meta {
    pub(super) block: BlockMeta,
    pub(super) document: Arc<Object>,
}

impl Deref for Meta {
    type Target = BlockMeta;

    fn deref(&self) -> &BlockMeta {
        &self.block
    }
}

impl From<Meta> for Arc<BlockMeta> {
    fn from(meta: Meta) -> Self {
        Self::new(meta.block)
    }
}

/// Why a `meta.json` is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// It ends in the middle of the document.
    #[error("it is cut off: the JSON document does not end")]
    Truncated,
    /// It is no JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// A string is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// More levels than any such file has.
    #[error("it is nested too deeply")]
    TooDeep,
    /// A version that we do not know.
    #[error("{key} is {found}, and only {known} can be read")]
    Version {
        /// Which version.
        key: &'static str,
        /// What it is.
        found: i64,
        /// What it must be.
        known: &'static str,
    },
    /// The block's name is missing.
    #[error("ulid is missing")]
    NoUlid,
    /// A value has the wrong type.
    #[error("{key} must be {expected}, and is {found}")]
    Type {
        /// Where in the document.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// How what stands there begins.
        found: String,
    },
}

impl Meta {
    /// Reads the first JSON value of `bytes`; what follows it is ignored, as Thanos does.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetaError> {
        let root = Node::parse_first(bytes)?;
        let root = At {
            path: "",
            object: expect_object("the document", &root)?,
        };
        let version = root.number("version")?;
        if version != 1 {
            return Err(MetaError::Version {
                key: "version",
                found: version,
                known: "1",
            });
        }
        let stats = root.section("stats.")?;
        let compaction = root.section("compaction.")?;
        let thanos = root.object.get("thanos").map(|_| root.section("thanos.")).transpose()?;
        let ulid = root.object.get("ulid").ok_or(MetaError::NoUlid)?;
        let block = BlockMeta {
            ulid: block_id("ulid", ulid)?,
            min_time: root.number("minTime")?,
            max_time: root.number("maxTime")?,
            num_samples: stats.number("numSamples")?,
            num_series: stats.number("numSeries")?,
            num_chunks: stats.number("numChunks")?,
            num_tombstones: stats.number("numTombstones")?,
            level: compaction.number("level")?,
            sources: compaction.list("sources", block_id)?,
            parents: parents(&compaction),
            failed: compaction.object.get("failed") == Some(&Node::Leaf("true".into())),
            deletable: compaction.object.get("deletable") == Some(&Node::Leaf("true".into())),
            hints: compaction.list("hints", text)?,
            thanos_labels: thanos.as_ref().map(thanos_labels).transpose()?,
            resolution: thanos.as_ref().map(resolution).transpose()?.unwrap_or_default(),
        };
        let document = Arc::new(root.object.clone());
        Ok(Self { block, document })
    }
}

impl Meta {
    /// When the file was sent to a bucket (ms since 1970), by the clock of whoever sent it: `thanos.upload_time`. `None` if
    /// it does not say.
    pub fn upload_time(&self) -> Option<i64> {
        let Some(Node::Object(thanos)) = self.document.get("thanos") else {
            return None;
        };
        let time: Timestamp = thanos.get("upload_time")?.as_text()?.parse().ok()?;
        // Go writes a time that was not set as one of the year 1.
        Some(time.as_millisecond()).filter(|millis| *millis > 0)
    }
}

impl BlockMeta {
    /// Whether the block holds nothing at all: neither samples nor series nor chunks.
    pub fn is_empty(&self) -> bool {
        self.num_samples == 0 && self.num_series == 0 && self.num_chunks == 0
    }

    /// Whether it is as Prometheus cuts it from its head, in order.
    pub fn is_cut_from_head(&self) -> bool {
        self.level <= 1 && self.hints.is_empty()
    }

    /// How far apart the samples are (ms): 0 unless the block was downsampled.
    pub fn resolution(&self) -> i64 {
        self.resolution
    }
}

/// What `parents` says; what is odd in it is no reason to refuse a block.
fn parents(compaction: &At<'_>) -> Parents {
    let Some(Node::List(parents)) = compaction.object.get("parents") else {
        return Parents::None;
    };
    let nameless = |parent: &Node| match parent {
        Node::Object(parent) => parent
            .get("ulid")
            .and_then(Node::as_text)
            .is_some_and(|name| name.bytes().all(|byte| byte == b'0')),
        _ => false,
    };
    let named = |parent: &Node| match parent {
        Node::Object(parent) => BlockId::parse(&parent.get("ulid")?.as_text()?),
        _ => None,
    };
    match parents.is_empty() {
        true => Parents::None,
        false if parents.iter().all(nameless) => Parents::Nameless,
        false => Parents::Blocks(parents.iter().filter_map(named).collect()),
    }
}

/// Checks the parts of the `thanos` section that we keep or amend.
fn thanos_labels(thanos: &At<'_>) -> Result<Labels, MetaError> {
    let found = thanos.number("version")?;
    if !matches!(found, 0 | 1) {
        return Err(MetaError::Version {
            key: "thanos.version",
            found,
            known: "1",
        });
    }
    thanos.section("index_stats.")?;
    let labels = thanos.section("labels.")?.object;
    let pairs: Result<Vec<_>, _> = labels
        .iter()
        .map(|(name, value)| Ok((name, text(&format!("thanos.labels.{name}"), value)?)))
        .collect();
    Ok(Labels::from_pairs(pairs?))
}

fn resolution(thanos: &At<'_>) -> Result<i64, MetaError> {
    let downsample = thanos.section("downsample.")?;
    At {
        path: "thanos.downsample.",
        ..downsample
    }
    .number("resolution")
}

/// An object and where in the document it is, with a full stop at the end.
struct At<'a> {
    path: &'static str,
    object: &'a Object,
}

static NOTHING: Object = Object::new();

impl<'a> At<'a> {
    /// The object `path` (with a full stop at the end) in this one: empty if it is missing.
    fn section(&self, path: &'static str) -> Result<At<'a>, MetaError> {
        let object = match self.object.get(path.trim_end_matches('.')) {
            Some(node) => expect_object(&format!("{}{}", self.path, path.trim_end_matches('.')), node)?,
            None => &NOTHING,
        };
        Ok(At { path, object })
    }

    /// The whole number `key`: 0 if it is missing.
    fn number<T: FromStr + Default>(&self, key: &'static str) -> Result<T, MetaError> {
        let Some(node) = self.object.get(key) else {
            return Ok(T::default());
        };
        let number = match node {
            Node::Leaf(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| wrong_type(format!("{}{key}", self.path), "a whole number of at most 64 bits", node))
    }

    /// The array `key`: empty if it is missing.
    fn list<T>(&self, key: &str, item: impl Fn(&str, &Node) -> Result<T, MetaError>) -> Result<Vec<T>, MetaError> {
        let path = format!("{}{key}", self.path);
        match self.object.get(key) {
            None => Ok(Vec::new()),
            Some(Node::List(items)) => {
                let mut list = Vec::with_capacity(items.len());
                for node in items {
                    list.push(item(&path, node)?);
                }
                Ok(list)
            }
            Some(other) => Err(wrong_type(path, "an array", other)),
        }
    }
}

fn expect_object<'a>(path: &str, node: &'a Node) -> Result<&'a Object, MetaError> {
    match node {
        Node::Object(object) => Ok(object),
        other => Err(wrong_type(path.to_owned(), "an object", other)),
    }
}

fn text(path: &str, node: &Node) -> Result<String, MetaError> {
    node.as_text()
        .ok_or_else(|| wrong_type(path.to_owned(), "a string", node))
}

fn block_id(path: &str, node: &Node) -> Result<BlockId, MetaError> {
    let id = node.as_text().and_then(|name| BlockId::parse(&name));
    id.ok_or_else(|| wrong_type(path.to_owned(), "a block's name (a ULID in upper case)", node))
}

fn wrong_type(key: String, expected: &'static str, node: &Node) -> MetaError {
    MetaError::Type {
        key,
        expected,
        found: node.shown(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

    fn parse(text: &str) -> Result<Meta, String> {
        Meta::parse(text.replace("$ID", ID).as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_what_prometheus_writes() {
        let text = r#"{"ulid":"$ID","minTime":-5,"maxTime":9007199254740993,
            "stats":{"numSamples":18446744073709551615,"numFloatSamples":3,"numSeries":2,"numChunks":2,"numTombstones":1},
            "compaction":{"level":3,"sources":["$ID","00000000000000000000000000"],
              "parents":[{"ulid":"00000000000000000000000000","minTime":0,"maxTime":0}],"hints":["from-out-of-order"],"deletable":true},
            "version":1}"#;
        let meta = parse(text).unwrap();
        assert_eq!(
            (meta.ulid.to_string().as_str(), meta.min_time, meta.max_time),
            (ID, -5, 9_007_199_254_740_993)
        );
        assert_eq!(
            (meta.num_samples, meta.num_series, meta.num_tombstones),
            (u64::MAX, 2, 1)
        );
        assert_eq!(
            (meta.level, meta.sources.len(), meta.hints.clone()),
            (3, 2, vec!["from-out-of-order".to_owned()])
        );
        assert_eq!((meta.thanos_labels.clone(), meta.resolution), (None, 0));
        assert!(meta.deletable && !meta.failed);
    }

    #[test]
    fn what_is_missing_or_null_is_zero_as_in_go() {
        let meta = parse(r#"{"ulid":"$ID","version":1,"stats":null,"minTime":null,"thanos":null} trailing"#).unwrap();
        assert_eq!(
            (meta.min_time, meta.max_time, meta.num_samples, meta.level),
            (0, 0, 0, 0)
        );
        assert_eq!(meta.thanos_labels, None);
        let meta = parse(r#"{"ulid":"$ID","version":1,"thanos":{"version":0}}"#).unwrap();
        assert_eq!(meta.thanos_labels, Some(Labels::default()));
        let reversed = parse(r#"{"ulid":"$ID","version":1,"minTime":5,"maxTime":5}"#).unwrap();
        assert_eq!(reversed.min_time, reversed.max_time);
    }

    #[test]
    fn reads_the_thanos_section() {
        let text = r#"{"ulid":"$ID","version":1,"thanos":{"version":1,"labels":{"b":"2","a":"\u003c"},"downsample":{"resolution":300000}}}"#;
        let meta = parse(text).unwrap();
        assert_eq!(meta.thanos_labels, Some(Labels::from_pairs([("a", "<"), ("b", "2")])));
        assert_eq!(meta.resolution(), 300_000);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, want) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("{\"ulid\":\"01K4", "it is cut off: the JSON document does not end"),
            ("{\"ulid\":", "it is cut off: the JSON document does not end"),
            ("\0\0\0\0", "it is not JSON: expected value at line 1 column 1"),
            ("[]", "the document must be an object, and is an array"),
            ("1 ", "the document must be an object, and is 1"),
            (r#"{"ulid":"$ID"}"#, "version is 0, and only 1 can be read"),
            (r#"{"ulid":"$ID","version":2}"#, "version is 2, and only 1 can be read"),
            (r#"{"version":1}"#, "ulid is missing"),
            (
                r#"{"ulid":"nope","version":1}"#,
                "ulid must be a block's name (a ULID in upper case), and is \"nope\"",
            ),
            (
                r#"{"ulid":"$ID","version":1,"compaction":{"sources":["x"]}}"#,
                "compaction.sources must be a block's name (a ULID in upper case), and is \"x\"",
            ),
            (
                r#"{"ulid":"$ID","version":1,"compaction":{"hints":{}}}"#,
                "compaction.hints must be an array, and is an object",
            ),
            (
                r#"{"ulid":"$ID","version":1,"minTime":1.5}"#,
                "minTime must be a whole number of at most 64 bits, and is 1.5",
            ),
            (
                r#"{"ulid":"$ID","version":1,"stats":{"numSamples":-1}}"#,
                "stats.numSamples must be a whole number of at most 64 bits, and is -1",
            ),
            (
                r#"{"ulid":"$ID","version":1,"maxTime":99999999999999999999}"#,
                "maxTime must be a whole number of at most 64 bits, and is 99999999999999999999",
            ),
            (
                r#"{"ulid":"$ID","version":1,"stats":[]}"#,
                "stats must be an object, and is an array",
            ),
            (
                r#"{"ulid":"$ID","version":1,"thanos":3}"#,
                "thanos must be an object, and is 3",
            ),
            (
                r#"{"ulid":"$ID","version":1,"thanos":{"version":2}}"#,
                "thanos.version is 2, and only 1 can be read",
            ),
            (
                r#"{"ulid":"$ID","version":1,"thanos":{"labels":{"a":1}}}"#,
                "thanos.labels.a must be a string, and is 1",
            ),
            (
                r#"{"ulid":"$ID","version":1,"thanos":{"downsample":{"resolution":"5m"}}}"#,
                "thanos.downsample.resolution must be a whole number of at most 64 bits, and is \"5m\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), want, "{text}");
        }
        assert_eq!(
            Meta::parse(b"{\"a\":\"\xff\"}").unwrap_err().to_string(),
            "it is not UTF-8"
        );
    }

    #[test]
    fn the_time_of_sending_is_that_of_whoever_sent_it() {
        let sent = |thanos: &str| {
            let text = format!(r#"{{"ulid":"{ID}","version":1{thanos}}}"#);
            Meta::parse(text.as_bytes()).unwrap().upload_time()
        };
        // As Go writes it, and as we do.
        assert_eq!(
            sent(r#","thanos":{"upload_time":"2026-01-01T03:00:12.345678901Z"}"#),
            Some(1_767_236_412_345)
        );
        assert_eq!(
            sent(r#","thanos":{"upload_time":"2026-01-01T05:00:12+02:00"}"#),
            Some(1_767_236_412_000)
        );
        for nothing in [
            "",
            r#","thanos":{}"#,
            r#","thanos":{"upload_time":null}"#,
            r#","thanos":{"upload_time":"0001-01-01T00:00:00Z"}"#,
            r#","thanos":{"upload_time":"yesterday"}"#,
            r#","thanos":{"upload_time":1767236412}"#,
        ] {
            assert_eq!(sent(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn any_cut_is_found() {
        let whole = format!(r#"{{"ulid":"{ID}","minTime":1,"stats":{{"numSamples":1}},"version":1}}"#);
        for len in 0..whole.len() {
            Meta::parse(&whole.as_bytes()[..len]).unwrap_err();
        }
        Meta::parse(whole.as_bytes()).unwrap();
    }

    proptest! {
        #[test]
        fn never_panics(at in 0..200_usize, byte in any::<u8>()) {
            let mut bytes = format!(
                r#"{{"ulid":"{ID}","minTime":1,"stats":{{"numSamples":1}},"compaction":{{"level":1,"sources":["{ID}"]}},"version":1,"thanos":{{"labels":{{"a":"b"}}}}}}"#
            ).into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Meta::parse(&bytes);
        }
    }
}
