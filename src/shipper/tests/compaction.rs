//! What Prometheus' own compaction waits for.

use super::*;
use crate::shipper::compaction::Blocking;

fn empty(n: u32, min: i64) -> Made {
    Made {
        samples: 0,
        ..Made::new(&name(n), min)
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_without_samples_is_listed_and_holds_no_compaction_back() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (none, a) = (empty(1, 0), Made::new(&name(2), 10));
    // One that was compacted, for which Prometheus does not ask.
    let compacted = Made {
        level: 2,
        ..empty(3, 0)
    };
    for made in [&none, &a, &compacted] {
        world.seal(&mut shipper, made);
    }
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a.name.as_str(), &none.name]);
    assert!(world.object(&format!("{}/meta.json", none.name)).is_none());
    assert_eq!(world.metrics.unuploaded.get(), 0);
    assert_eq!(world.metrics.durable_until.get(), a.range.1 as f64 / 1000.0);
    world.retire(&mut shipper, &none.name);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a.name]);
    assert_eq!(world.metrics.vanished.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_says_it_has_no_samples_and_has_series_is_shipped() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let odd = empty(1, 0);
    let dir = world.seal(&mut shipper, &odd);
    let meta = odd
        .meta()
        .replace(r#""numSamples":0"#, r#""numSamples":0,"numSeries":1"#);
    fs_err::write(dir.join("meta.json"), meta).unwrap();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [odd.name.as_str()]);
    assert!(world.object(&format!("{}/meta.json", odd.name)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_set_aside_is_named_while_prometheus_waits_for_the_ledger() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (broken, a) = (Made::new(&name(1), 0), Made::new(&name(2), 10));
    let dir = world.seal(&mut shipper, &broken);
    fs_err::write(dir.join("index"), "no index").unwrap();
    world.seal(&mut shipper, &a);
    let none = name(3);
    let dir = world.data.path().join(&none);
    fs_err::create_dir(&dir).unwrap();
    // Until it was left alone for a while it may be a copy that is on its way.
    assert!(matches!(shipper.pass().await, Outcome::Arriving(_)));
    assert_eq!(shipper.compaction_blocked, []);
    let dir = fs_err::File::open(&dir).unwrap();
    dir.file()
        .set_modified(SystemTime::now() - Duration::from_secs(600))
        .unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a.name.as_str()]);
    let unreadable = Blocking {
        id: id(&none),
        reason: "no_meta",
    };
    assert_eq!(
        shipper.compaction_blocked,
        std::slice::from_ref(&unreadable),
        "it compacts whatever the ledger lists"
    );
    world
        .prometheus
        .send_modify(|prometheus| prometheus.delays_compaction = true);
    shipper.pass().await;
    let unlisted = Blocking {
        id: id(&broken.name),
        reason: "index",
    };
    assert_eq!(shipper.compaction_blocked, [unlisted, unreadable]);
    for block in [&broken.name, &none] {
        world.retire(&mut shipper, block);
    }
    shipper.pass().await;
    assert_eq!(shipper.compaction_blocked, []);
}
