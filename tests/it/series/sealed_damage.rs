//! Blocks that somebody else has changed: a byte in a file, a file, a whole directory. An answer is the right one or an error, or
//! what Prometheus itself makes of the same files.

mod scene;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;
use futures_util::future::join_all;
use narthex::pb::thanos::series_response::Result as Message;
use tonic::Code;

use self::scene::{ALL, BLOCK, EXTRA, LARGE, NAMED, SOME, Scene, differs, floats, places};
use super::stage::LIMIT;
use crate::{
    rig::{Leg, Tools, prometheus::sealed, tools::temp_dir},
    series_faults::scene::{Client, read},
};

#[tokio::test]
async fn what_is_damaged_ahead_of_a_reader_ends_its_call() {
    join_all(Tools::find().legs.iter().map(damaged_while_read)).await;
}

async fn damaged_while_read(leg: &Leg) {
    // Some 10 MB in all.
    let scene = Scene::start(leg, 1_200, 8 << 10).await;
    let block = scene.block();
    let id = block.file_name().unwrap().to_str().unwrap().to_owned();
    for place in &places(&block)[..3] {
        let what = format!("{}: {}", leg.version, place.what);
        scene.until_from_disk(async || scene.assert_right(&SOME).await).await;
        let calls = scene.calls_from_disk().await;
        let client = Client::narrow(&scene.disk.sidecar).await;
        let mut stream = client.request(scene.request(&LARGE)).await.unwrap();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(scene.calls_from_disk().await, calls + 1.0, "{what}");
        place.flip();
        let mut rest = read(stream).await;
        match first.result {
            Some(Message::Series(series)) => rest.series.push(series),
            Some(Message::Batch(batch)) => rest.series.extend(batch.series),
            other => panic!("{what}: {other:?}"),
        }
        let status = rest.end.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{what}: {status}");
        assert!(status.message().contains(&id), "{what}: {status}");
        assert_eq!(
            differs(&floats(rest.series), false, &scene.wanted(&LARGE)),
            None,
            "{what}"
        );
        // Prometheus has mapped the same bytes.
        scene.assert_right_or_its(&LARGE, &what).await;
        assert_eq!(scene.calls_from_disk().await, calls + 1.0, "{what}");
        place.flip();
        scene.assert_right(&LARGE).await;
        scene.reload().await;
    }
}

#[tokio::test]
async fn what_is_damaged_and_taken_for_good_is_no_wrong_answer() {
    join_all(Tools::find().legs.iter().map(damaged_before)).await;
}

async fn damaged_before(leg: &Leg) {
    let scene = Scene::start(leg, 100, 100).await;
    for place in places(&scene.block()) {
        let what = format!("{}: {}", leg.version, place.what);
        scene.until_from_disk(async || scene.assert_right(&ALL).await).await;
        place.flip();
        let seen = async || scene.calls_from_disk().await + scene.for_reason("damaged").await;
        // Of the same size, it is taken for what Prometheus has loaded, with the next heartbeat.
        let met = async || {
            let before = seen().await;
            for asked in [&LARGE, &ALL, &NAMED] {
                scene.assert_right_or_its(asked, &what).await;
            }
            (seen().await > before).then_some(())
        };
        scene.disk.sidecar.wait_until(LIMIT, &what, met).await;
        place.flip();
        scene.assert_right(&ALL).await;
        scene.assert_right(&NAMED).await;
        // What is known to be damaged is looked at again when a block comes or goes.
        scene.reload().await;
    }
}

#[tokio::test]
async fn blocks_that_others_take_away_and_put_there_are_answered_as_prometheus_does() {
    join_all(Tools::find().legs.iter().map(come_and_gone)).await;
}

async fn come_and_gone(leg: &Leg) {
    let scene = Scene::start(leg, 50, 10).await;
    let compare = async || scene.compare(leg).await;
    let (block, aside) = (scene.block(), temp_dir("aside"));
    for part in ["", "meta.json"] {
        scene.until_from_disk(compare).await;
        let (from, to) = (block.join(part), aside.path().join("part"));
        fs::rename(&from, &to).unwrap();
        compare().await;
        scene.reload().await;
        compare().await;
        assert_eq!(scene.alone(&ALL).await, 0, "{}: Prometheus has dropped it", leg.version);
        scene.until_from_disk(compare).await;
        fs::rename(&to, &from).unwrap();
        compare().await;
        scene.reload().await;
        compare().await;
        assert_ne!(scene.alone(&LARGE).await, 0, "{}: it is there again", leg.version);
    }
    deleted_by_hand(&scene, &block, leg).await;
    let from = made_elsewhere(&scene, leg, aside.path());
    fs::rename(&from, scene.prometheus.data().join(from.file_name().unwrap())).unwrap();
    compare().await;
    scene.reload().await;
    compare().await;
    assert_eq!(scene.alone(&EXTRA).await, 1, "{}: it is there", leg.version);
    scene.until_from_disk(compare).await;
}

/// A file of tombstones that Prometheus has not seen, which takes its own when it opens a block only.
async fn deleted_by_hand(scene: &Scene, block: &Path, leg: &Leg) {
    let compare = async || scene.compare(leg).await;
    scene.until_from_disk(compare).await;
    let (path, half, own) = (block.join("tombstones"), block.join("half"), block.join("own"));
    fs::rename(&path, &own).unwrap();
    // Magic number and format, then the series 1, and times from 0 to 64 ms as signed numbers of variable length.
    let mut bytes = vec![0x01, 0x30, 0xba, 0x30, 1, 1, 0, 0x80, 1];
    bytes.extend(crc32c::crc32c(&bytes[5..]).to_be_bytes());
    fs::write(&half, bytes).unwrap();
    fs::rename(&half, &path).unwrap();
    let seen = async || {
        compare().await;
        (scene.for_reason("tombstones").await > 0.0).then_some(())
    };
    scene.disk.sidecar.wait_until(LIMIT, "tombstones are seen", seen).await;
    fs::rename(&own, &path).unwrap();
    compare().await;
    scene.reload().await;
    scene.until_from_disk(compare).await;
    // As snapshots and some backups do: the file is the same, and its status is not.
    fs::hard_link(block.join("index"), block.with_file_name("link")).unwrap();
    fs::remove_file(block.with_file_name("link")).unwrap();
    scene.until_from_disk(compare).await;
}

/// A block that overlaps the second and the third one, with further samples of a series that they have, and another series.
fn made_elsewhere(scene: &Scene, leg: &Leg, dir: &Path) -> PathBuf {
    let (text, out) = (dir.join("text"), dir.join("out"));
    let mut page = String::new();
    for name in ["m{i=\"00003\"}", "extra"] {
        let family = name.split('{').next().unwrap();
        page.push_str(&format!("# TYPE {family} gauge\n"));
        for at in (BLOCK + 32_500..2 * BLOCK + 30_000).step_by(5_000) {
            let time = scene.start + at;
            page.push_str(&format!("{name} {at} {}.{:03}\n", time / 1000, time % 1000));
        }
    }
    fs::write(&text, page + "# EOF\n").unwrap();
    let mut promtool = Command::new(&leg.promtool);
    promtool
        .args(["tsdb", "create-blocks-from", "openmetrics", "-q"])
        .args([&text, &out]);
    let done = promtool.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // The times may lie in two ranges of two hours: of the blocks the first one begins in the second block.
    out.join(&sealed(&out)[0])
}
