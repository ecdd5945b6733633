//! Blocks whose chunks today's readers refuse. What they are to be rewritten to was written by Prometheus' own code
//! (`testdata/rewrite/generate.go`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
};

use super::*;
use crate::{
    objstore::Bucket,
    shipper::{ContentPolicy, NewerEncodings, Overlapping},
    tsdb::{Meta, content::Kind},
};

fn testdata(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rewrite")).join(name)
}

fn file(dir: &Path, name: &str) -> Vec<u8> {
    fs_err::read(dir.join(name)).unwrap()
}

/// Whether the bucket has the block of the test data as it is written with plain encodings, and nothing else.
fn assert_rewritten(world: &World, name: &str, data: &str) {
    let plain = testdata(data).join("plain");
    for object in ["chunks/000001", "index"] {
        let there = world.object(&format!("{name}/{object}")).unwrap();
        assert!(there == file(&plain, object), "{data}: {object}");
    }
    assert_eq!(objects(world).len(), 3, "{data}");
    let meta: serde_json::Value = serde_json::from_slice(&world.object(&format!("{name}/meta.json")).unwrap()).unwrap();
    let listed: BTreeMap<&str, Option<u64>> = meta["thanos"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["rel_path"].as_str().unwrap(), file["size_bytes"].as_u64()))
        .collect();
    let size = |object: &str| Some(file(&plain, object).len() as u64);
    let expected = [
        ("chunks/000001", size("chunks/000001")),
        ("index", size("index")),
        ("meta.json", None),
    ];
    assert_eq!(listed, BTreeMap::from(expected), "{data}");
    let source = testdata(data).join("source");
    assert_eq!(
        meta["narthex"]["rewritten_from"]["files"],
        serde_json::json!([
            {"rel_path": "chunks/000001", "size_bytes": file(&source, "chunks/000001").len()},
            {"rel_path": "index", "size_bytes": file(&source, "index").len()},
        ])
    );
}

fn objects(world: &World) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![world.store.path().to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found
}

async fn world_with(newer_encodings: NewerEncodings) -> World {
    let mut world = World::new().await;
    world.content.newer_encodings = newer_encodings;
    world
}

#[tokio::test(start_paused = true)]
async fn a_block_reaches_the_bucket_with_the_encodings_that_its_readers_know() {
    for data in ["floats", "histograms", "labels"] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let name = world.seal_copy(&mut shipper, &testdata(data).join("source"));
        assert_eq!(shipper.pass().await, Outcome::Clean, "{data}");
        assert_eq!(world.listed(), [name.as_str()]);
        assert_rewritten(&world, &name, data);
        assert!(world.metrics.rewritten_chunks() > 0);
        for object in ["chunks/000001", "index", "meta.json"] {
            let here = file(&world.data.path().join(&name), object);
            assert!(
                here == file(&testdata(data).join("source"), object),
                "{data}: {object} changed here"
            );
        }
        // A new run that has to ask takes it for what it is.
        fs_err::remove_file(world.data.path().join("thanos.shipper.json")).unwrap();
        let sent = world.uploads();
        assert_eq!(world.shipper().pass().await, Outcome::Clean);
        assert_eq!((world.listed(), world.uploads()), (vec![name], sent));
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_sent_again_and_what_was_acknowledged_is_not() {
    let source = testdata("floats").join("source");
    for (object, at_first) in [("index", 2), ("chunks", 1)] {
        for fault in [Fault::Fail(ErrorKind::Server), Fault::FailAfter(ErrorKind::Stalled)] {
            let world = World::new().await;
            let mut shipper = world.shipper();
            let name = world.seal_copy(&mut shipper, &source);
            world.bucket.on(Op::Upload, object, 1..=1, fault);
            assert_eq!(shipper.pass().await, Outcome::Failed);
            assert!(world.object(&format!("{name}/meta.json")).is_none());
            assert!(world.uploads() <= at_first, "{object}");
            assert_eq!(shipper.pass().await, Outcome::Clean);
            assert_rewritten(&world, &name, "floats");
            let calls = world.bucket.calls();
            let segments = calls
                .iter()
                .filter(|(op, key)| *op == Op::Upload && key.contains("chunks"))
                .count();
            // The index comes last, so that by then the segment was acknowledged.
            assert_eq!(segments, if object == "index" { 1 } else { 2 }, "{fault:?}");
        }
    }
}

/// Dies after so many polls, as when the process is killed.
#[tokio::test(start_paused = true)]
async fn a_death_at_any_moment_leaves_nothing_visible_and_the_next_run_ends_as_an_undisturbed_one() {
    let mut cut = 0;
    for polls in 1..40 {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let name = world.seal_copy(&mut shipper, &testdata("histograms").join("source"));
        let done = {
            let (mut pass, mut left) = (pin!(shipper.pass()), polls);
            std::future::poll_fn(|cx| {
                left -= 1;
                match pass.as_mut().poll(cx) {
                    Poll::Ready(_) => Poll::Ready(true),
                    Poll::Pending if left == 0 => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        drop(shipper);
        cut += u32::from(!done);
        world.bucket.settle().await;
        if world.object(&format!("{name}/meta.json")).is_some() {
            assert_rewritten(&world, &name, "histograms");
        }
        let mut next = world.shipper();
        while next.pass().await != Outcome::Clean {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(world.listed(), [name.as_str()], "{polls} {done}");
        assert_rewritten(&world, &name, "histograms");
    }
    assert!(cut >= 3, "a pass takes more polls");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_of_a_committed_block_is_rewritten_again() {
    for object in ["index", "chunks/000001"] {
        let world = World::new().await;
        let mut shipper = world.shipper();
        let name = world.seal_copy(&mut shipper, &testdata("floats").join("source"));
        assert_eq!(shipper.pass().await, Outcome::Clean);
        fs_err::remove_file(world.store.path().join(&name).join(object)).unwrap();
        fs_err::remove_file(world.data.path().join("thanos.shipper.json")).unwrap();
        let before = world.uploads();
        assert_eq!(world.shipper().pass().await, Outcome::Clean);
        assert_eq!((world.listed(), world.uploads() - before), (vec![name.clone()], 1));
        assert_rewritten(&world, &name, "floats");
        // A file that is not what it was is no replacement.
        fs_err::remove_file(world.store.path().join(&name).join(object)).unwrap();
        fs_err::remove_file(world.data.path().join("thanos.shipper.json")).unwrap();
        let meta = world.store.path().join(&name).join("meta.json");
        let text = fs_err::read_to_string(&meta).unwrap();
        let size = file(&testdata("floats").join("plain"), object).len();
        fs_err::write(&meta, text.replace(&size.to_string(), &(size + 1).to_string())).unwrap();
        let mut shipper = world.shipper();
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!((world.listed(), world.uploads() - before), (vec![], 1));
        assert_eq!(shipper.quarantine.by_reason()["conflict"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_held_stays_here_and_holds_nobody() {
    let mut world = world_with(NewerEncodings::Hold).await;
    let mut shipper = world.shipper();
    let held = world.seal_copy(&mut shipper, &testdata("floats").join("source"));
    let plain = Made::new(&name(1), 2_000_000_000_000);
    world.seal(&mut shipper, &plain);
    assert_eq!(shipper.pass().await, Outcome::Clean);
    assert_eq!(world.listed(), [plain.name.as_str()]);
    assert_eq!(shipper.quarantine.by_reason()["encoding"], 1);
    assert_eq!(world.metrics.unuploaded.get(), 1);
    assert_eq!(world.metrics.content(Kind::NewerEncodings), 0, "it was not sent");
    assert!(
        !objects(&world)
            .iter()
            .any(|object| object.to_str().unwrap().contains(&held))
    );
    // Another choice, after a restart.
    world.content.newer_encodings = NewerEncodings::Rewrite;
    let mut next = world.shipper();
    while next.pass().await != Outcome::Clean {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.listed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_block_is_sent_as_it_is_when_that_is_wanted_and_marked_before_anybody_sees_it() {
    for (choice, marked) in [(NewerEncodings::Ship, false), (NewerEncodings::Mark, true)] {
        let world = world_with(choice).await;
        let mut shipper = world.shipper();
        let source = testdata("floats").join("source");
        let name = world.seal_copy(&mut shipper, &source);
        let key = format!("{name}/no-compact-mark.json");
        world
            .bucket
            .on(Op::Upload, "meta.json", 1..=1, Fault::Fail(ErrorKind::Server));
        assert_eq!(shipper.pass().await, Outcome::Failed);
        assert_eq!(world.object(&key).is_some(), marked, "{choice:?}");
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.listed(), [name.as_str()]);
        for object in ["chunks/000001", "index"] {
            let there = world.object(&format!("{name}/{object}")).unwrap();
            assert!(there == file(&source, object), "{choice:?}: {object}");
        }
        assert!(
            !String::from_utf8(world.object(&format!("{name}/meta.json")).unwrap())
                .unwrap()
                .contains("rewritten")
        );
        // As Thanos' metadata.NoCompactMark and NoDownsampleMark.
        for (mark, time) in [
            ("no-compact-mark.json", "no_compact_time"),
            ("no-downsample-mark.json", "no_downsample_time"),
        ] {
            let mark = world.object(&format!("{name}/{mark}"));
            assert_eq!(mark.is_some(), marked, "{choice:?}");
            let Some(mark) = mark else { continue };
            let mark: serde_json::Value = serde_json::from_slice(&mark).unwrap();
            assert_eq!((&mark["id"], &mark["version"]), (&name.as_str().into(), &1.into()));
            assert!(mark[time].as_u64().is_some() && mark["reason"] == "manual");
            assert!(
                mark["details"]
                    .as_str()
                    .unwrap()
                    .contains("encodings that compactors refuse")
            );
        }
    }
}

/// As Thanos, or `ship`, has sent it.
#[tokio::test(start_paused = true)]
async fn of_a_block_that_the_bucket_has_with_newer_encodings_it_is_said_what_that_means() {
    use NewerEncodings::*;
    for (choice, said) in [
        (Rewrite, "XOR2 is in the bucket already"),
        (Hold, "XOR2 is in the bucket already"),
        (Ship, "a compactor stops at it unless"),
        (
            Mark,
            "no-compact-mark.json and no-downsample-mark.json keep compactors from it",
        ),
    ] {
        let mut world = world_with(Ship).await;
        let mut shipper = world.shipper();
        let newer = world.seal_copy(&mut shipper, &testdata("floats").join("source"));
        let plain = Made::new(&name(1), 2_000_000_000_000);
        world.seal(&mut shipper, &plain);
        assert_eq!(shipper.pass().await, Outcome::Clean);
        fs_err::remove_file(world.data.path().join("thanos.shipper.json")).unwrap();
        world.content.newer_encodings = choice;
        let mut shipper = world.shipper();
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.listed().len(), 2, "{choice:?}");
        for (block, is_newer) in [(&newer, true), (&plain.name, false)] {
            for mark in ["no-compact-mark.json", "no-downsample-mark.json"] {
                let marked = world.object(&format!("{block}/{mark}")).is_some();
                assert_eq!(marked, is_newer && choice == Mark, "{choice:?}: {mark}");
            }
        }
        for (block, is_newer) in [(&newer, true), (&plain.name, false)] {
            let meta = world.object(&format!("{block}/meta.json")).unwrap();
            let found = shipper
                .uploader
                .newer_in_bucket(&Meta::parse(&meta).unwrap())
                .await
                .unwrap();
            let expected = found
                .as_ref()
                .is_some_and(|text| text.starts_with("XOR2 chunks") && text.contains(said));
            assert_eq!(
                (found.is_some(), expected),
                (is_newer, is_newer),
                "{choice:?}: {found:?}"
            );
        }
    }
    // What was rewritten is nothing of the kind, whatever the local block is.
    let world = World::new().await;
    let mut shipper = world.shipper();
    let name = world.seal_copy(&mut shipper, &testdata("floats").join("source"));
    assert_eq!(shipper.pass().await, Outcome::Clean);
    let meta = world.object(&format!("{name}/meta.json")).unwrap();
    let found = shipper.uploader.newer_in_bucket(&Meta::parse(&meta).unwrap()).await;
    assert_eq!(found.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_overlaps_is_marked_when_that_is_wanted() {
    for (choice, expected) in [(Overlapping::Ship, 0), (Overlapping::Mark, 2)] {
        let mut world = World::new().await;
        world.content = ContentPolicy {
            overlapping: choice,
            ..ContentPolicy::default()
        };
        let mut shipper = world.shipper();
        let plain = Made::new(&name(1), 0);
        world.seal(&mut shipper, &plain);
        // One by its hint, one in fact.
        let hinted = Made::new(&name(2), 100);
        let dir = world.seal(&mut shipper, &hinted);
        let meta = hinted
            .meta()
            .replace(r#""level":1"#, r#""level":1,"hints":["from-stale-series"]"#);
        fs_err::write(dir.join("meta.json"), meta).unwrap();
        world.seal(&mut shipper, &Made::new(&name(3), 5));
        assert_eq!(shipper.pass().await, Outcome::Clean);
        assert_eq!(world.listed().len(), 3);
        let marks = objects(&world);
        let marks: Vec<_> = marks
            .iter()
            .filter(|object| object.ends_with("no-compact-mark.json"))
            .collect();
        assert_eq!(marks.len(), expected, "{marks:?}");
        assert!(!marks.iter().any(|mark| mark.to_str().unwrap().contains(&plain.name)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_cannot_be_rewritten_to_its_end_is_set_aside_and_not_visible() {
    let world = World::new().await;
    let mut shipper = world.shipper();
    let source = testdata("floats").join("source");
    let name = world.seal_copy(&mut shipper, &source);
    // The last chunk says that it has more samples than it has, under a sound checksum.
    let path = world.data.path().join(&name).join(CHUNKS);
    let mut bytes = fs_err::read(&path).unwrap();
    let (mut at, mut last) = (8, None);
    while at < bytes.len() {
        let (mut len, mut head) = (0_usize, 0);
        loop {
            let byte = bytes[at + head];
            len |= usize::from(byte & 0x7f) << (7 * head);
            head += 1;
            if byte < 0x80 {
                break;
            }
        }
        let body = at + head;
        if bytes[body] == 4 {
            last = Some((body, len));
        }
        at = body + 1 + len + 4;
    }
    let (body, len) = last.unwrap();
    bytes[body + 1..body + 3].copy_from_slice(&[0xff, 0xff]);
    let end = body + 1 + len;
    let sum = crc32c::crc32c(&bytes[body..end]).to_be_bytes();
    bytes[end..end + 4].copy_from_slice(&sum);
    fs_err::write(&path, bytes).unwrap();
    sleep(SETTLE).await;
    shipper.pass().await;
    assert!(world.listed().is_empty());
    assert!(world.object(&format!("{name}/meta.json")).is_none());
    assert_eq!(shipper.quarantine.by_reason()["chunk"], 1);
}
