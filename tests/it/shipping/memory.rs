//! Memory does not grow with the size of a block, nor with what its `meta.json` says.

use fs_err as fs;
use serde_json::json;

use super::scene::{PATIENCE, all_listed, flags, watches};
use crate::{
    bad_blocks::stage::prometheus,
    rig::{Sidecar, Weed, blocks, bucket::check, limit::turn, tools::temp_dir},
};

/// More than all of it may take, several times over, in bytes.
const BLOCK: u64 = 400 << 20;
/// The budget, in bytes.
const MOST: u64 = 24 << 20;

#[tokio::test]
async fn a_large_block_is_shipped_in_little_memory() {
    let _turn = turn().await;
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

/// Local blocks, each compacted of so many others, of which nothing is in the bucket.
const BLOCKS: u64 = 1000;
const SOURCES: u64 = 100;
/// The budget for each of them at the worst moment, in bytes: some 16 KiB are the names of its sources as they are kept and
/// compared, what else is known of it, and what the allocator adds. A whole `meta.json` that is kept takes 60 KiB more.
const MOST_FOR_ONE: u64 = 32 << 10;

#[tokio::test]
async fn a_local_block_takes_little_memory_whatever_its_meta_json_says() {
    let (data, bucket) = (temp_dir("data"), Weed::shared().await.bucket("many").await);
    let sidecar = Sidecar::start(flags(prometheus().await, data.path(), &bucket.config()));
    watches(&sidecar).await;
    let before = sidecar.peak_memory();
    let name = |made: u64, number: u64| ulid::Ulid::from_parts(made, u128::from(number)).to_string();
    for number in 0..BLOCKS {
        let id = name(1_700_000_000_000, number);
        let sources = |source| name(1_600_000_000_000, number * SOURCES + source);
        let parent = |source| json!({"ulid": sources(source), "minTime": source, "maxTime": source + 1});
        let meta = json!({
            "ulid": id, "minTime": number, "maxTime": number + 1, "version": 1,
            "stats": {"numSamples": 1, "numSeries": 1, "numChunks": 1},
            "compaction": {
                "level": 3,
                "sources": (0..SOURCES).map(sources).collect::<Vec<_>>(),
                "parents": (0..SOURCES).map(parent).collect::<Vec<_>>(),
            },
        });
        let half = data.path().join(format!("{id}.tmp-for-creation"));
        fs::create_dir(&half).unwrap();
        fs::write(half.join("meta.json"), serde_json::to_vec_pretty(&meta).unwrap()).unwrap();
        fs::rename(half, data.path().join(id)).unwrap();
    }
    let all = async || (sidecar.metric("narthex_unuploaded_blocks").await? == BLOCKS as f64).then_some(());
    sidecar.wait_until(PATIENCE, "all blocks are known", all).await;
    let passes = sidecar.metric("thanos_shipper_dir_syncs_total").await.unwrap();
    let another = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? > passes).then_some(());
    sidecar.wait_until(PATIENCE, "another pass is through", another).await;
    let one = sidecar.peak_memory().saturating_sub(before) / BLOCKS;
    assert!(one <= MOST_FOR_ONE, "{one} bytes for each block");
}
