//! What a block of the bucket was rewritten from: a key of ours in its `meta.json`, which other readers pass over.
//!
//! ```json
//! "narthex": {"rewritten_from": {"chunks": {"XOR2": 5}, "start_timestamps_dropped": 0,
//!   "files": [{"rel_path": "chunks/000001", "size_bytes": 512}, {"rel_path": "index", "size_bytes": 256}]}}
//! ```
//!
//! From it one tells a block that was rewritten on its way to the bucket from another one of its name.

use std::collections::BTreeMap;

use super::{
    Meta, Pinned,
    json::{Node, Object},
};
use crate::chunk::Encoding;

/// The key of the document.
pub(super) const KEY: &str = "narthex";
/// The key in it.
const REWRITTEN_FROM: &str = "rewritten_from";

/// What a block was before it was rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewrittenFrom {
    /// How many chunks were rewritten, by the name of the encoding that they had.
    pub chunks: BTreeMap<String, u64>,
    /// How many samples lost a start timestamp.
    pub start_timestamps_dropped: u64,
    /// The files of the block, and their sizes (bytes).
    pub files: BTreeMap<String, u64>,
}

impl RewrittenFrom {
    /// Of a block with these files, which had so many chunks of each encoding, by its byte.
    pub fn new(encodings: &BTreeMap<u8, u64>, start_timestamps_dropped: u64, block: &Pinned) -> Self {
        let rewritten = encodings.iter().filter_map(|(byte, count)| {
            let encoding = Encoding::from_prometheus(i32::from(*byte))?;
            encoding
                .storeapi()
                .is_none()
                .then(|| (encoding.name().to_owned(), *count))
        });
        Self {
            chunks: rewritten.collect(),
            start_timestamps_dropped,
            files: block
                .files
                .iter()
                .map(|file| (file.rel_path.clone(), file.len))
                .collect(),
        }
    }

    /// Whether these are the files that the block had.
    pub fn is_of(&self, block: &Pinned) -> bool {
        let files = block.files.iter().map(|file| (&file.rel_path, &file.len));
        files.eq(self.files.iter())
    }

    pub(super) fn node(&self) -> Node {
        let mut chunks = Object::new();
        for (name, count) in &self.chunks {
            chunks.push(name, Node::number(*count));
        }
        let files = self.files.iter().map(|(name, size)| {
            let mut file = Object::new();
            file.push("rel_path", Node::text(name));
            file.push("size_bytes", Node::number(*size));
            Node::Object(file)
        });
        let mut from = Object::new();
        from.push("chunks", Node::Object(chunks));
        from.push("start_timestamps_dropped", Node::number(self.start_timestamps_dropped));
        from.push("files", Node::List(files.collect()));
        let mut out = Object::new();
        out.push(REWRITTEN_FROM, Node::Object(from));
        Node::Object(out)
    }
}

impl Meta {
    /// What the block was rewritten from, if it was. What is odd there counts as nothing.
    pub fn rewritten_from(&self) -> Option<RewrittenFrom> {
        let from = object(object(self.document.get(KEY)?)?.get(REWRITTEN_FROM)?)?;
        let chunks = object(from.get("chunks")?)?.iter();
        let Node::List(files) = from.get("files")? else {
            return None;
        };
        let file = |file: &Node| {
            let file = object(file)?;
            Some((file.get("rel_path")?.as_text()?, number(file.get("size_bytes")?)?))
        };
        Some(RewrittenFrom {
            chunks: chunks
                .map(|(name, count)| Some((name.to_string(), number(count)?)))
                .collect::<Option<_>>()?,
            start_timestamps_dropped: number(from.get("start_timestamps_dropped")?)?,
            files: files.iter().map(file).collect::<Option<_>>()?,
        })
    }
}

fn object(node: &Node) -> Option<&Object> {
    match node {
        Node::Object(object) => Some(object),
        _ => None,
    }
}

fn number(node: &Node) -> Option<u64> {
    match node {
        Node::Leaf(text) => text.parse().ok(),
        _ => None,
    }
}
