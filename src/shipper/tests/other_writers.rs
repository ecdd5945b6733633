//! Blocks that another Prometheus ships under our labels.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_block_of_our_labels_and_times_that_was_not_made_here_is_reported_and_holds_nothing_up() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let at = |n: u32, min: i64| Made::new(&name(n), min);
    // Of other labels, of other times, compacted.
    world.put_block(&at(2, 0), "b");
    world.put_block(&at(3, 10), "a");
    let compacted = Made {
        level: 2,
        sources: vec![name(20), name(21)],
        ..at(4, 0)
    };
    world.put_block(&compacted, "a");
    let (own, other) = (at(1, 0), at(7, 5));
    world.copy_in(&own);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [own.name.as_str()]);
    assert_eq!(world.metrics.other_writers.get(), 0);

    world.put_block(&other, "a");
    let late = at(6, 8);
    world.copy_in(&late);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [own.name, late.name]);
    assert_eq!(world.metrics.other_writers.get(), 1);
    world.copy_in(&at(5, 9));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.metrics.other_writers.get(), 1, "each once");
}
