//! `--shipper.max-rate`: what uploads take of the network.

use std::time::{Duration, Instant};

use crate::bad_blocks::stage::{Stage, seal, sound};

#[tokio::test]
async fn a_block_is_sent_no_faster_than_the_rate() {
    let stage = Stage::start(&["--shipper.max-rate=4KiB"]).await;
    let block = sound(0);
    let bytes: u64 = ["index", "chunks/000001"]
        .iter()
        .map(|file| fs_err::metadata(block.join(file)).unwrap().len())
        .sum();
    let begun = Instant::now();
    let id = seal(&block, stage.dir(), |_| {});
    stage.wait_for_ledger(&[&id]).await;
    stage.assert_shipped(&[&id]).await;
    // The first piece waits for nobody; an eighth of a second's worth, or a KiB, moves at once.
    let least = Duration::from_secs_f64((bytes.saturating_sub(4 << 10)) as f64 / 4096.0);
    assert!(begun.elapsed() >= least, "{bytes} bytes in {:?}", begun.elapsed());
}
