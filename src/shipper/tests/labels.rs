//! Under which external labels a block is shipped.

use super::*;
use crate::{
    model::Labels,
    shipper::{
        Found, Ledger, LocalBlock,
        testing::{block, numbered},
    },
};

#[tokio::test(start_paused = true)]
async fn the_labels_that_are_recorded_are_those_that_were_stamped() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    world.copy_in(&Made::new(&a, 0));
    let (outcome, ()) = tokio::join!(shipper.pass(), async {
        sleep(Duration::from_secs(5)).await;
        world.label("b");
    });
    assert_eq!(outcome, Outcome::Clean);
    assert_eq!(world.stamped(&a).unwrap(), serde_json::json!({"replica": "a"}));
    assert_eq!(world.stamped(&a).unwrap(), world.ledger()["narthex"]["labels"]);
}

#[tokio::test(start_paused = true)]
async fn a_block_keeps_the_labels_under_which_it_was_sealed() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (a, b, c) = (name(1), name(2), name(3));
    world.seal(&mut shipper, &Made::new(&a, 0));
    world.bucket.on(Op::Upload, "", .., Fault::Fail(ErrorKind::Server));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    world.label("b");
    world.seal(&mut shipper, &Made::new(&b, 10));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    // Nor does another run of the process forget it.
    drop(shipper);
    let mut shipper = world.shipper();
    world.label("c");
    assert_eq!(shipper.pass().await, Outcome::Failed);
    let sealed_under = serde_json::json!([
        {"labels": {"replica": "a"}, "blocks": [a]},
        {"labels": {"replica": "b"}, "blocks": [b]},
    ]);
    assert_eq!(world.ledger()["narthex"]["sealed_under"], sealed_under);
    world.bucket.heal();
    world.seal(&mut shipper, &Made::new(&c, 20));
    while shipper.pass().await != Outcome::Clean {
        sleep(Duration::from_secs(10)).await;
    }
    for (block, replica) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        assert_eq!(world.stamped(block).unwrap(), serde_json::json!({"replica": replica}));
    }
    assert_eq!(world.listed(), [a, b, c]);
    assert!(world.ledger()["narthex"]["sealed_under"].is_null());
}

#[test]
fn the_labels_of_what_waits_are_kept_until_it_is_durable_or_gone() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Ledger::open(dir.path().join("thanos.shipper.json"), "file:///bucket", None);
    let (mut ledger, _) = open();
    let [a, b, c] = [1, 2, 3].map(numbered);
    let [x, y] = ["x", "y"].map(|replica| Labels::from_pairs([("replica", replica)]));
    assert!(ledger.keep_labels([a, b], &x));
    assert!(!ledger.keep_labels([a, b], &y), "they are known");
    assert!(ledger.keep_labels([a, c], &y));
    ledger.save().unwrap();
    let (mut ledger, found) = open();
    assert_eq!(found, Found::Ours);
    for (block, labels) in [(a, &x), (b, &x), (c, &y)] {
        assert_eq!(ledger.sealed_under(block), Some(labels), "{block}");
    }
    assert_eq!(ledger.listed().count(), 0);
    ledger.record(a, &x, 1000);
    assert_eq!(ledger.sealed_under(a), None);
    assert!(!ledger.keep_labels([a], &y), "it is durable");
    let local = [block(1, (0, 1000), &[1]), block(2, (1000, 2000), &[2])];
    ledger.retain(local.iter().map(LocalBlock::from));
    assert_eq!((ledger.sealed_under(b), ledger.sealed_under(c)), (Some(&x), None));
    ledger.record(b, &x, 2000);
    ledger.save().unwrap();
    assert!(!fs_err::read_to_string(ledger.path()).unwrap().contains("sealed_under"));
}
