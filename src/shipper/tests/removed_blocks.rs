//! Blocks that are gone from the data directory, where the watch tells late, or not at all.

use super::{compacted, *};
use crate::shipper::watcher::{Change, Hint};

#[tokio::test(start_paused = true)]
async fn how_a_young_block_was_removed_may_be_told_after_the_scan() {
    for (change, expected) in [
        (Some(Change::RenamedAway), (0, 1)),
        (Some(Change::Deleted), (1, 0)),
        (None, (1, 0)),
    ] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let a = name(1);
        world.bucket.on(Op::Upload, &a, .., Fault::Fail(ErrorKind::Server));
        world.seal(&mut shipper, &Made::new(&a, 0));
        assert_eq!(shipper.pass().await, Outcome::Failed);
        world.retire_unseen(&a);
        let (outcome, ()) = tokio::join!(shipper.pass(), async {
            sleep(Duration::from_millis(300)).await;
            if let Some(change) = change {
                let (id, at) = (id(&a), SystemTime::now());
                world.hints().send(Hint { id, change, at }).await.unwrap();
            }
        });
        assert_eq!(outcome, Outcome::Clean);
        let counted = (world.metrics.withdrawn(), world.metrics.vanished.get());
        assert_eq!(counted, expected, "{change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_prometheus_compacted_soon_after_the_commit_was_not_withdrawn() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b) = (name(1), name(2));
    for (block, min) in [(&a, 0), (&b, 5)] {
        world.seal(&mut shipper, &Made::new(block, min));
    }
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a.as_str(), b.as_str()]);
    // As it does with blocks that overlap.
    world.seal(&mut shipper, &compacted(3, 0, &[&a, &b]));
    for block in [&a, &b] {
        world.retire_unseen(block);
    }
    shipper.pass().await;
    assert_eq!((world.metrics.withdrawn(), world.metrics.vanished.get()), (0, 0));
}
