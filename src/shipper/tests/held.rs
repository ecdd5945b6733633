//! Blocks that are deleted before they are shipped, and held until they are.

use super::*;

/// A world in which nothing can be uploaded, and a block that waits in it.
async fn waiting(limit: u64) -> (World, crate::shipper::Shipper, Made) {
    let mut world = World::new().await;
    world.hold_unshipped = limit;
    let mut shipper = world.shipper();
    let a = Made::new(&name(1), 0);
    world.seal(&mut shipper, &a);
    world.bucket.on(Op::Upload, "", .., Fault::Fail(ErrorKind::Server));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    (world, shipper, a)
}

#[tokio::test(start_paused = true)]
async fn what_retention_deletes_is_shipped_all_the_same_and_then_let_go() {
    let (world, mut shipper, a) = waiting(1 << 20).await;
    let dir = world.data.path().join(&a.name);
    let index = fs_err::read(dir.join("index")).unwrap();
    let b = Made::new(&name(2), 10);
    world.seal(&mut shipper, &b);
    world.retire(&mut shipper, &a.name);
    for _ in 0..3 {
        assert_eq!(shipper.pass().await, Outcome::Failed);
        sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(world.metrics.unuploaded.get(), 2);
    assert!(shipper.held.deleted_bytes() > index.len() as u64);
    assert_eq!(shipper.retention.deletion(id(&a.name)), None, "it is deleted already");
    world.bucket.heal();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{}/index", a.name)), Some(index));
    assert_eq!(world.stamped(&a.name).unwrap(), serde_json::json!({"replica": "a"}));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [b.name]);
    assert_eq!(shipper.held.deleted_bytes(), 0);
    assert_eq!((world.metrics.vanished.get(), world.metrics.unuploaded.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_lost_and_counted() {
    let (world, mut shipper, a) = waiting(1).await;
    world.retire(&mut shipper, &a.name);
    shipper.pass().await;
    assert_eq!(shipper.held.deleted_bytes(), 0);
    assert_eq!((world.metrics.vanished.get(), world.metrics.unuploaded.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_prometheus_withdraws_is_not_held() {
    let (world, mut shipper, a) = waiting(1 << 20).await;
    world.withdraw(&mut shipper, &a.name);
    world.bucket.heal();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert!(world.object(&format!("{}/meta.json", a.name)).is_none());
    assert_eq!((world.metrics.withdrawn(), world.metrics.vanished.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_broken_is_not_held_and_what_comes_back_is_opened_anew() {
    let (world, mut shipper, a) = waiting(1 << 20).await;
    // It comes first, so that the failures of the other one do not end the pass before.
    let broken = Made::new(&name(2), -10);
    let dir = world.seal(&mut shipper, &broken);
    fs_err::write(dir.join("index"), "no index").unwrap();
    // It is not being written any more.
    for _ in 0..2 {
        sleep(Duration::from_secs(600)).await;
        shipper.pass().await;
    }
    assert_eq!(shipper.aside(), [broken.name.clone()].into());
    world.retire(&mut shipper, &broken.name);
    // Its open files are looked at once more: it might have been broken by being deleted.
    for _ in 0..2 {
        shipper.pass().await;
    }
    assert_eq!(
        (shipper.held.is_deleted(id(&broken.name)), shipper.held.deleted_bytes()),
        (false, 0)
    );
    world.retire(&mut shipper, &a.name);
    shipper.pass().await;
    assert!(shipper.held.is_deleted(id(&a.name)) && shipper.held.deleted_bytes() > 0);
    world.seal(&mut shipper, &a);
    shipper.pass().await;
    assert_eq!(
        (shipper.held.is_deleted(id(&a.name)), shipper.held.deleted_bytes()),
        (false, 0)
    );
    assert!(shipper.held.files(id(&a.name)).is_some(), "it was opened anew");
}

#[tokio::test(start_paused = true)]
async fn what_was_half_deleted_when_it_was_seen_is_held() {
    for file in ["meta.json", "index", "chunks/000001"] {
        let (world, mut shipper, a) = waiting(1 << 20).await;
        fs_err::remove_file(world.data.path().join(&a.name).join(file)).unwrap();
        for _ in 0..2 {
            sleep(Duration::from_secs(600)).await;
            shipper.pass().await;
        }
        assert_eq!(shipper.aside(), [a.name.clone()].into(), "{file}");
        world.retire(&mut shipper, &a.name);
        world.bucket.heal();
        assert_eq!(shipper.pass().await, Outcome::Clean, "{file}");
        assert!(world.object(&format!("{}/index", a.name)).is_some(), "{file}");
        assert!(world.object(&format!("{}/meta.json", a.name)).is_some(), "{file}");
        assert_eq!(world.metrics.vanished.get(), 0, "{file}");
    }
}

/// Prometheus' `clean_tombstones` writes a block without the deleted samples, and removes the old one.
#[tokio::test(start_paused = true)]
async fn what_prometheus_writes_anew_is_not_held() {
    for limit in [0, 1 << 20] {
        let (world, mut shipper, a) = waiting(limit).await;
        let b = Made::new(&name(2), 0);
        let meta = world.seal(&mut shipper, &b).join("meta.json");
        let mut document: serde_json::Value = serde_json::from_slice(&fs_err::read(&meta).unwrap()).unwrap();
        document["compaction"]["parents"] = serde_json::json!([{"ulid": a.name, "minTime": 0, "maxTime": 10}]);
        fs_err::write(&meta, document.to_string()).unwrap();
        world.retire(&mut shipper, &a.name);
        shipper.pass().await;
        assert_eq!(shipper.held.deleted_bytes(), 0);
        world.bucket.heal();
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert!(world.object(&format!("{}/meta.json", a.name)).is_none());
        assert!(world.object(&format!("{}/meta.json", b.name)).is_some());
        assert_eq!(world.metrics.vanished.get(), 0, "its samples are in the new one");
    }
}

/// Compacted blocks name the blocks of level 1 that they were made of, and not each other.
#[tokio::test(start_paused = true)]
async fn a_compacted_block_that_is_compacted_further_is_not_held() {
    let mut world = World::new().await;
    world.hold_unshipped = 1 << 20;
    world.policy.upload_compacted = true;
    let mut shipper = world.shipper();
    let compacted = |n: u32, level: u64, sources: &[u32]| Made {
        level,
        sources: sources.iter().map(|n| name(*n)).collect(),
        ..Made::new(&name(n), 0)
    };
    let (smaller, larger) = (compacted(5, 2, &[1, 2]), compacted(6, 3, &[1, 2, 3]));
    world.seal(&mut shipper, &smaller);
    world.bucket.on(Op::Upload, "", .., Fault::Fail(ErrorKind::Server));
    assert_eq!(shipper.pass().await, Outcome::Failed);
    assert!(shipper.held.files(id(&smaller.name)).is_some());
    world.seal(&mut shipper, &larger);
    world.retire(&mut shipper, &smaller.name);
    shipper.pass().await;
    assert_eq!(shipper.held.deleted_bytes(), 0);
    world.bucket.heal();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [larger.name]);
    assert!(world.object(&format!("{}/meta.json", smaller.name)).is_none());
    assert_eq!(world.metrics.vanished.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_bucket_has_otherwise_is_not_held() {
    let (world, mut shipper, a) = waiting(1 << 20).await;
    world.bucket.heal();
    let other = world.store.path().join(&a.name);
    fs_err::create_dir_all(&other).unwrap();
    let meta = fs_err::read(world.data.path().join(&a.name).join("meta.json")).unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    document["maxTime"] = serde_json::json!(11);
    document["thanos"] =
        serde_json::json!({"labels": {"replica": "a"}, "downsample": {"resolution": 0}, "source": "x", "files": []});
    fs_err::write(other.join("meta.json"), document.to_string()).unwrap();
    shipper.pass().await;
    assert_eq!(shipper.aside(), [a.name.clone()].into());
    world.retire(&mut shipper, &a.name);
    shipper.pass().await;
    assert_eq!(shipper.held.deleted_bytes(), 0);
    assert_eq!((world.metrics.vanished.get(), world.metrics.unuploaded.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_when_we_end_is_lost_and_counted() {
    let (world, mut shipper, a) = waiting(1 << 20).await;
    world.retire(&mut shipper, &a.name);
    shipper.pass().await;
    assert_eq!(world.metrics.vanished.get(), 0);
    let vanished = world.metrics.vanished.clone();
    let report = shipper.close(false).await;
    assert_eq!(report.not_durable.into_keys().collect::<Vec<_>>(), [id(&a.name)]);
    assert_eq!(vanished.get(), 1);
}
