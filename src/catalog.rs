//! The blocks of a bucket, by their `meta.json`.
//!
//! The labels of a block stand in its `meta.json` only, so that each of them has to be read. Several are read at once and
//! passed on one by one: no more of them are in memory than the caller keeps. Nothing is written. A block that is deleted
//! between the listing and the reading is [`Found::Partial`]. One whose `meta.json` the store refuses, or that is too large,
//! is [`Found::Unreadable`] and does not affect the others: errors are those of the whole bucket. Dropping the stream
//! cancels the requests.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use crate::{
    objstore::{self, Bucket, ErrorKind, Scope},
    tsdb::{BlockId, Encodings, Meta, check::at_start_of_segment, segment_path},
};

/// Metas read at once.
pub const AT_ONCE: usize = 16;
/// No `meta.json` in a bucket is larger than this (bytes). One of a block of 4 TiB, with a hash of each of its files, has
/// about as much.
pub const LARGEST_META: u64 = 1 << 20;
/// How much of a segment [`first_encodings`] reads (bytes): a hundred chunks or so, all of their first series among them.
const FIRST_CHUNKS: u64 = 16 << 10;
/// Says that a block is to be deleted, since it was merged or is too old; beside the block's files.
pub const DELETION_MARK: &str = "deletion-mark.json";
/// The object by which compactors leave a block alone (Thanos' `metadata.NoCompactMark`, version 1).
pub const NO_COMPACT_MARK: &str = "no-compact-mark.json";
/// The object by which compactors do not downsample a block (Thanos' `metadata.NoDownsampleMark`, version 1).
pub const NO_DOWNSAMPLE_MARK: &str = "no-downsample-mark.json";
/// Objects of others that may stand beside a block's own.
pub const MARKERS: [&str; 3] = [DELETION_MARK, NO_COMPACT_MARK, NO_DOWNSAMPLE_MARK];

/// What the bucket has under a block's name.
#[derive(Clone, Debug)]
pub enum Found {
    /// A block.
    Block(Box<Meta>),
    /// Objects without a `meta.json`: an upload that is running, or was given up. Readers do not see it.
    Partial,
    /// A `meta.json` that cannot be used, and why.
    Unreadable(String),
}

/// The text of a `meta.json`.
#[derive(Debug)]
pub enum Text {
    /// All of it.
    Read(Bytes),
    /// There is none.
    Absent,
    /// The store does not give it, or it is larger than [`LARGEST_META`].
    Refused(objstore::Error),
}

/// Reads the text of the `meta.json` of one block.
///
/// # Errors
/// Those that concern the whole bucket.
pub async fn read_text(bucket: &dyn Bucket, id: BlockId) -> Result<Text, objstore::Error> {
    match bucket.get(&format!("{id}/meta.json"), LARGEST_META).await {
        Ok(bytes) => Ok(Text::Read(bytes)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(Text::Absent),
        Err(error) if error.scope() == Scope::Object => Ok(Text::Refused(error)),
        Err(error) => Err(error),
    }
}

/// Reads the `meta.json` of one block.
///
/// # Errors
/// Those that concern the whole bucket.
pub async fn read(bucket: &dyn Bucket, id: BlockId) -> Result<Found, objstore::Error> {
    let bytes = match read_text(bucket, id).await? {
        Text::Read(bytes) => bytes,
        Text::Absent => return Ok(Found::Partial),
        Text::Refused(error) => return Ok(Found::Unreadable(error.to_string())),
    };
    Ok(match parse(id, &bytes) {
        Ok(meta) => Found::Block(Box::new(meta)),
        Err(why) => Found::Unreadable(why),
    })
}

/// The `meta.json` of the block `id` from its text.
///
/// # Errors
/// Why the text cannot be used, in words.
pub fn parse(id: BlockId, text: &[u8]) -> Result<Meta, String> {
    match Meta::parse(text) {
        Ok(meta) if meta.ulid == id => Ok(meta),
        Ok(meta) => Err(wrong_name(meta.ulid)),
        Err(error) => Err(error.to_string()),
    }
}

/// The message about a `meta.json` under another block's name.
pub fn wrong_name(id: BlockId) -> String {
    format!("meta.json is that of the block {id}")
}

/// The names of the blocks of the bucket that sort after `after` (all do after the empty one), and of what was begun of
/// others, sorted. What does not bear the name of a block is not looked into.
///
/// # Errors
/// The bucket's.
pub async fn ids(bucket: &dyn Bucket, after: &str) -> Result<Vec<BlockId>, objstore::Error> {
    let names = bucket.list_top(after, |name| BlockId::parse(name).is_some()).await?;
    Ok(names.iter().filter_map(|name| BlockId::parse(name)).collect())
}

/// The blocks of the bucket, in no order. What is in flight rests while the stream is not asked: whoever has much to do
/// with each block takes the [`ids`] and [`read`]s each.
pub fn blocks(bucket: &dyn Bucket) -> impl Stream<Item = Result<(BlockId, Found), objstore::Error>> {
    stream::once(ids(bucket, ""))
        .map_ok(move |ids| {
            stream::iter(ids)
                .map(move |id| async move { Ok((id, read(bucket, id).await?)) })
                .buffer_unordered(AT_ONCE)
        })
        .try_flatten()
}

/// What a look at the first chunks of a block has shown.
#[derive(Debug)]
pub enum FirstChunks {
    /// Their encodings; none of a block that was rewritten on its way here, and of one without a first segment.
    Seen(Encodings),
    /// The store does not give them.
    Refused(objstore::Error),
}

/// Looks at the first chunks of a block, those of its first series: one request for a few KiB. It shows what Prometheus wrote
/// floats in when the block began, mostly; what only some series have (histograms), or only later chunks, it does not.
///
/// # Errors
/// Those that concern the whole bucket.
pub async fn first_encodings(bucket: &dyn Bucket, meta: &Meta) -> Result<FirstChunks, objstore::Error> {
    if meta.rewritten_from().is_some() {
        return Ok(FirstChunks::Seen(Encodings::default()));
    }
    let key = format!("{}/{}", meta.ulid, segment_path(1));
    match bucket.read_start(&key, FIRST_CHUNKS).await {
        Ok(start) => Ok(FirstChunks::Seen(at_start_of_segment(&start))),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(FirstChunks::Seen(Encodings::default())),
        Err(error) if error.scope() == Scope::Object => Ok(FirstChunks::Refused(error)),
        Err(error) => Err(error),
    }
}

/// Whether a block is marked for deletion.
///
/// # Errors
/// The bucket's.
pub async fn is_marked_for_deletion(bucket: &dyn Bucket, id: BlockId) -> Result<bool, objstore::Error> {
    let listed = bucket.list(&id.to_string()).await?;
    Ok(listed
        .iter()
        .any(|object| object.key == format!("{id}/{DELETION_MARK}")))
}
