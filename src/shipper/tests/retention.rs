//! When retention takes a block that is not durable.

use super::*;
use crate::model::Retention;

/// Now, in ms since 1970: the names of the blocks are of today.
fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

const DAY: i64 = 86_400_000;

/// A block of ten ms that ended so many days ago.
fn ended(n: u32, days: i64) -> Made {
    Made::new(&name(n), now() - days * DAY - 10)
}

#[tokio::test(start_paused = true)]
async fn a_block_that_waits_is_named_with_the_moment_at_which_retention_takes_it() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let keep = |time_ms| {
        world.prometheus.send_modify(|prometheus| {
            prometheus.retention = Some(Retention {
                time_ms: Some(time_ms),
                ..Retention::default()
            });
        });
    };
    let (broken, whole) = (ended(1, 10), ended(2, 1));
    let dir = world.seal(&mut shipper, &broken);
    let index = fs_err::read(dir.join("index")).unwrap();
    fs_err::write(dir.join("index"), "no index").unwrap();
    world.seal(&mut shipper, &whole);
    shipper.pass().await;
    assert_eq!(shipper.retention.deletion(id(&broken.name)), None, "it has not told");
    keep(30 * DAY);
    shipper.pass().await;
    let found = shipper.retention.deletion(id(&broken.name)).unwrap();
    assert_eq!((found.at_ms, found.limit), (broken.range.1 + 30 * DAY, "time"));
    // It is a minute old, and twenty days are left.
    assert_eq!(world.metrics.near_deletion.get(), 0);
    assert_eq!(shipper.retention.deletion(id(&whole.name)), None, "it is durable");
    keep(9 * DAY);
    shipper.pass().await;
    assert_eq!(world.metrics.near_deletion.get(), 1, "it goes at any moment");
    fs_err::write(dir.join("index"), index).unwrap();
    for _ in 0..3 {
        sleep(Duration::from_secs(600)).await;
        shipper.pass().await;
    }
    assert_eq!(world.listed().len(), 2);
    assert_eq!(shipper.retention.deletion(id(&broken.name)), None);
    assert_eq!(world.metrics.near_deletion.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_may_hold_is_a_limit_as_well() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let (broken, whole) = (ended(1, 2), ended(2, 1));
    let dir = world.seal(&mut shipper, &broken);
    fs_err::write(dir.join("index"), "no index").unwrap();
    world.seal(&mut shipper, &whole);
    let size = |bytes| {
        world.prometheus.send_modify(|prometheus| {
            prometheus.retention = Some(Retention {
                bytes: Some(bytes),
                ..Retention::default()
            });
        });
    };
    size(1 << 40);
    shipper.pass().await;
    let found = shipper.retention.deletion(id(&broken.name)).unwrap();
    assert_eq!(found.limit, "size");
    assert_eq!(world.metrics.near_deletion.get(), 0);
    size(1);
    shipper.pass().await;
    let found = shipper.retention.deletion(id(&broken.name)).unwrap();
    assert!(found.at_ms <= now(), "{found:?}");
    assert_eq!(world.metrics.near_deletion.get(), 1);
}
