//! What is wrong with the blocks of a bucket.
mod overlaps;
pub use self::overlaps::{Brief, MOST_OVERLAPS, Overlap, Span, among, overlaps};
use crate::{
    objstore::{self, Bucket},
    tsdb::{Meta, check::full::Digest},
};
use std::sync::Arc;
use tokio::sync::Semaphore;
pub async fn read_back(
    bucket: &Arc<dyn Bucket>,
    meta: &Meta,
    permits: &Arc<Semaphore>,
) -> Result<Result<Vec<Digest>, Vec<String>>, objstore::Error> {
    let _ = (bucket, meta, permits);
    Ok(Ok(vec![]))
}
