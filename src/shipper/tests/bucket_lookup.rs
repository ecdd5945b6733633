//! What the bucket already tells of a block.

use super::*;

/// A new run without a ledger, which has to ask for everything.
fn forgetful(world: &World) -> crate::shipper::Shipper {
    let _ = fs_err::remove_file(world.data.path().join("thanos.shipper.json"));
    world.shipper()
}

/// A data directory with one block, which is in the bucket.
async fn shipped(a: &str) -> World {
    let world = World::new().await;
    let mut shipper = world.shipper();
    world.seal(&mut shipper, &Made::new(a, 1000));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    world
}

#[tokio::test(start_paused = true)]
async fn what_a_meta_json_says_it_was_merged_from_counts_only_if_it_is_proven() {
    let a = name(1);
    for (case, counts) in [
        ("whole", true),
        ("another tenant", false),
        ("other times", false),
        ("marked", false),
        ("downsampled", false),
        ("without its index", false),
    ] {
        let world = World::new().await;
        let mut merged = Made::new(&name(2), 1000);
        (merged.level, merged.sources) = (2, vec![a.clone()]);
        if case == "other times" {
            merged.range = (2000, 3000);
        }
        world.put_block(&merged, if case == "another tenant" { "b" } else { "a" });
        let dir = world.store.path().join(&merged.name);
        match case {
            "marked" => world.mark(&merged.name),
            "without its index" => fs_err::remove_file(dir.join("index")).unwrap(),
            "downsampled" => {
                let meta = fs_err::read_to_string(dir.join("meta.json")).unwrap();
                let meta = meta.replace("\"resolution\":0", "\"resolution\":300000");
                fs_err::write(dir.join("meta.json"), meta).unwrap();
            }
            _ => {}
        }
        world.copy_in(&Made::new(&a, 1000));
        let mut shipper = world.shipper();
        assert_eq!(shipper.pass().await, Outcome::Clean, "{case}");
        assert_eq!(world.listed(), [a.as_str()], "{case}");
        assert_eq!(world.stamped(&a).is_none(), counts, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_marked_for_deletion_is_not_durable_and_heals_when_the_mark_goes() {
    let a = name(1);
    for committed in [true, false] {
        let world = shipped(&a).await;
        world.mark(&a);
        if !committed {
            fs_err::remove_file(world.store.path().join(&a).join("meta.json")).unwrap();
        }
        let mut shipper = forgetful(&world);
        let uploads = world.uploads();
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert!(world.listed().is_empty());
        assert_eq!(world.uploads(), uploads, "nothing is sent to where it will be deleted");
        assert_eq!(shipper.quarantine.by_reason()["marked_for_deletion"], 1);
        assert_eq!(world.metrics.unuploaded.get(), 1);
        fs_err::remove_dir_all(world.store.path().join(&a)).unwrap();
        sleep(Duration::from_secs(61)).await;
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.listed(), [a.as_str()]);
        assert!(world.stamped(&a).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_merged_is_durable_while_it_still_stands_there_marked() {
    let a = name(1);
    let world = shipped(&a).await;
    let mut merged = Made::new(&name(2), 1000);
    (merged.level, merged.sources) = (2, vec![a.clone()]);
    world.put_block(&merged, "a");
    world.mark(&a);
    let mut shipper = forgetful(&world);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a]);
    assert_eq!(world.metrics.unuploaded.get(), 0);
    assert!(shipper.quarantine.by_reason().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_moved_away_and_back_is_not_sent_over_itself() {
    let a = name(1);
    let world = shipped(&a).await;
    let mut shipper = world.shipper();
    shipper.pass().await;
    let (dir, aside) = (world.data.path().join(&a), world.data.path().join("aside"));
    fs_err::rename(&dir, &aside).unwrap();
    shipper.pass().await;
    assert!(world.listed().is_empty());
    let before = world.object(&format!("{a}/{CHUNKS}"));
    let mut bytes = fs_err::read(aside.join(CHUNKS)).unwrap();
    bytes.push(0);
    fs_err::write(aside.join(CHUNKS), bytes).unwrap();
    fs_err::rename(&aside, &dir).unwrap();
    shipper.events.record(crate::shipper::watcher::Hint {
        id: id(&a),
        change: crate::shipper::watcher::Change::Sealed,
        at: SystemTime::now(),
    });
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{a}/{CHUNKS}")), before);
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_appears_while_a_new_block_is_sent_stops_its_commit() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let a = name(1);
    fs_err::create_dir(world.store.path().join(&a)).unwrap();
    world.mark(&a);
    world.seal(&mut shipper, &Made::new(&a, 0));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.stamped(&a), None);
    assert_eq!(shipper.quarantine.by_reason()["marked_for_deletion"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_committed_block_is_never_overwritten_whatever_the_local_one_looks_like() {
    let a = name(1);
    let world = shipped(&a).await;
    let before = world.object(&format!("{a}/{CHUNKS}"));
    // A power loss: the ledger is gone, and a segment has the tail of a file that was made larger beforehand.
    let segment = world.data.path().join(&a).join(CHUNKS);
    let mut bytes = fs_err::read(&segment).unwrap();
    bytes.resize(bytes.len() + 4096, 0);
    fs_err::write(&segment, bytes).unwrap();
    let mut shipper = forgetful(&world);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{a}/{CHUNKS}")), before);
    assert_eq!(world.listed(), [a]);
}

#[tokio::test(start_paused = true)]
async fn another_block_of_the_same_name_is_a_conflict() {
    let (a, b) = (name(1), name(2));
    let world = World::new().await;
    let mut other = Made::new(&a, 5000);
    other.sources = vec![a.clone()];
    world.put_block(&other, "a");
    let there = world.object(&format!("{a}/meta.json"));
    world.copy_in(&Made::new(&a, 1000));
    world.copy_in(&Made::new(&b, 2000));
    let mut shipper = world.shipper();
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [b.as_str()], "it holds nobody");
    assert_eq!(shipper.quarantine.by_reason()["conflict"], 1);
    assert_eq!(world.object(&format!("{a}/meta.json")), there);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_of_a_committed_block_is_sent_again_if_it_is_the_same() {
    let a = name(1);
    for same in [true, false] {
        let world = shipped(&a).await;
        let key = format!("{a}/{CHUNKS}");
        let before = world.object(&key);
        let meta = world.object(&format!("{a}/meta.json"));
        fs_err::remove_file(world.store.path().join(&key)).unwrap();
        if !same {
            let segment = world.data.path().join(&a).join(CHUNKS);
            let mut bytes = fs_err::read(&segment).unwrap();
            bytes.push(0);
            fs_err::write(&segment, bytes).unwrap();
        }
        let mut shipper = forgetful(&world);
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.object(&key), before.filter(|_| same));
        assert_eq!(world.object(&format!("{a}/meta.json")), meta);
        let (listed, conflicts) = (world.listed(), shipper.quarantine.by_reason().remove("conflict"));
        match same {
            true => assert_eq!((listed, conflicts), (vec![a.clone()], None)),
            false => assert_eq!((listed, conflicts), (vec![], Some(1))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_meta_json_that_is_none_is_replaced_and_one_that_others_may_read_is_not() {
    let a = name(1);
    for (there, replaced) in [("", true), ("{\"ulid\": \"01", true), ("{\"version\": 2}", false)] {
        let world = shipped(&a).await;
        fs_err::write(world.store.path().join(&a).join("meta.json"), there).unwrap();
        let mut shipper = forgetful(&world);
        assert_eq!(shipper.pass().await, Outcome::Clean, "{there:?}");
        let now = world.object(&format!("{a}/meta.json")).unwrap();
        assert_eq!(now != there.as_bytes(), replaced, "{there:?}");
        assert_eq!(world.listed().is_empty(), !replaced, "{there:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_was_emptied_is_noticed_at_the_start() {
    let (a, b) = (name(1), name(2));
    let world = shipped(&a).await;
    let mut shipper = world.shipper();
    world.seal(&mut shipper, &Made::new(&b, 2000));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    for block in [&a, &b] {
        fs_err::remove_dir_all(world.store.path().join(block)).unwrap();
    }
    let mut next = world.shipper();
    assert_eq!(next.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [a.as_str(), b.as_str()]);
    assert!(
        world.stamped(&a).is_some() && world.stamped(&b).is_some(),
        "they were sent again"
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_one_commits_and_the_other_sees_it() {
    let a = name(1);
    let world = shipped(&a).await;
    let meta = world.object(&format!("{a}/meta.json"));
    let mut other = forgetful(&world);
    // It saw the seal, too, and looks nothing up before it sends.
    other.events.record(crate::shipper::watcher::Hint {
        id: id(&a),
        change: crate::shipper::watcher::Change::Sealed,
        at: SystemTime::now(),
    });
    assert_eq!(other.pass().await, Outcome::Clean);
    assert_eq!(world.object(&format!("{a}/meta.json")), meta);
    assert_eq!(world.listed(), [a]);
    assert_eq!(world.metrics.uploads.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_bucket_proves_what_a_compacted_block_was_made_of() {
    let a = name(1);
    let world = shipped(&a).await;
    let mut shipper = forgetful(&world);
    let merged = compacted(3, 1000, &[&a]);
    world.seal(&mut shipper, &merged);
    world.retire(&mut shipper, &a);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.metrics.unuploaded.get(), 0);
    assert_eq!(world.ledger()["narthex"]["sources"], serde_json::json!([a]));
    // The next run knows it from the ledger.
    world.bucket.on(Op::Iter, "", .., Fault::Fail(ErrorKind::Server));
    world.shipper().pass().await;
    assert_eq!(world.metrics.unuploaded.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn sources_that_went_under_other_labels_count_whatever_another_block_says_it_was_made_of() {
    let (a, b) = (name(1), name(2));
    let world = shipped(&a).await;
    let mut shipper = world.shipper();
    world.seal(&mut shipper, &Made::new(&b, 1000));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    world.put_block(&compacted(3, 1000, &[&a, &b]), "of another");
    let mut shipper = forgetful(&world);
    world.label("b");
    world.seal(&mut shipper, &compacted(4, 1000, &[&a, &b]));
    world.retire(&mut shipper, &a);
    world.retire(&mut shipper, &b);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.metrics.unuploaded.get(), 0);
    assert_eq!(world.ledger()["narthex"]["sources"], serde_json::json!([a, b]));
}
