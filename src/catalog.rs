//! What a bucket holds, as its blocks say of themselves.
//!
//! Every block's `meta.json` must be read to know its labels; they are read side by side and handed on one by one, so
//! that no more of them are in memory than the caller keeps. Nothing is written. A block that vanishes between the
//! listing and the reading is [`Found::Partial`]. Errors are the bucket's; dropping the stream stops the requests.

use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use crate::{
    objstore::{self, Bucket, ErrorKind},
    tsdb::{BlockId, LARGEST_META, Meta},
};

/// Metas read at once.
const AT_ONCE: usize = 16;
/// Says that a block is to be deleted, since it was merged or is too old; beside the block's files.
pub const DELETION_MARK: &str = "deletion-mark.json";
/// Objects of others that may stand beside a block's own.
pub const MARKERS: [&str; 3] = [DELETION_MARK, "no-compact-mark.json", "no-downsample-mark.json"];

/// What stands under a block's name.
#[derive(Clone, Debug)]
pub enum Found {
    /// A block.
    Block(Box<Meta>),
    /// Objects without a `meta.json`: an upload that runs, or that was given up. Readers do not see it.
    Partial,
    /// A `meta.json` that is of no use, and why.
    Unreadable(String),
}

/// Reads the `meta.json` of one block.
///
/// # Errors
/// The bucket's, other than that there is no such object.
pub async fn look(bucket: &dyn Bucket, id: BlockId) -> Result<Found, objstore::Error> {
    let bytes = match bucket.get(&format!("{id}/meta.json"), LARGEST_META).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(Found::Partial),
        Err(error) if error.kind == ErrorKind::TooLarge => return Ok(Found::Unreadable(error.to_string())),
        Err(error) => return Err(error),
    };
    Ok(match Meta::parse(&bytes) {
        Ok(meta) if meta.ulid == id => Found::Block(Box::new(meta)),
        Ok(meta) => Found::Unreadable(format!("meta.json is that of the block {}", meta.ulid)),
        Err(error) => Found::Unreadable(error.to_string()),
    })
}

/// The names of the blocks of the bucket, and of what was begun of others, sorted; what does not bear the name of a
/// block is passed over.
///
/// # Errors
/// The bucket's.
pub async fn ids(bucket: &dyn Bucket) -> Result<Vec<BlockId>, objstore::Error> {
    let names = bucket.list_top("").await?;
    Ok(names.iter().filter_map(|name| BlockId::parse(name)).collect())
}

/// The blocks of the bucket, in no order. What is in flight rests while the stream is not asked: whoever has much to do
/// with each block takes the [`ids`] and [`look`]s himself.
pub fn blocks(bucket: &dyn Bucket) -> impl Stream<Item = Result<(BlockId, Found), objstore::Error>> {
    stream::once(ids(bucket))
        .map_ok(move |ids| {
            stream::iter(ids)
                .map(move |id| async move { Ok((id, look(bucket, id).await?)) })
                .buffer_unordered(AT_ONCE)
        })
        .try_flatten()
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
