//! Memory does not grow with the size of a block.

use super::scene::{PATIENCE, all_listed, flags};
use crate::{
    bad_blocks::stage::prometheus,
    rig::{Sidecar, Weed, blocks, bucket::check},
};

/// More than all of it may take, several times over, in bytes.
const BLOCK: u64 = 400 << 20;
/// The budget, in bytes.
const MOST: u64 = 48 << 20;

#[tokio::test]
async fn a_large_block_travels_in_little_memory() {
    let (dir, block) = blocks::sparse(BLOCK);
    let bucket = Weed::shared().await.bucket("large").await;
    let sidecar = Sidecar::start(flags(prometheus().await, dir.path(), &bucket.config()));
    all_listed(&sidecar, dir.path()).await;
    let peak = sidecar.peak_memory();
    assert!(peak <= MOST, "{peak} bytes for a block of {BLOCK}");
    let id = block.file_name().unwrap().to_str().unwrap();
    check(&bucket, id, &block).await.unwrap();
    sidecar.wait_ready(PATIENCE).await;
}
