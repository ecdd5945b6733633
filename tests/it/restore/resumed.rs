//! A restore that was cut goes on with what is missing, and trusts nothing that it finds.

use std::{process::Command, time::Duration};

use fs_err as fs;

use super::scene::{EU, Listed, Scene};
use crate::rig::{process::Process, wait_until};

/// What lies there of a block whose restore was killed: all of `index`, half of the chunks.
async fn half_done(scene: &Scene, id: &str) {
    let dir = scene.to().join(format!("{id}.tmp-for-creation"));
    fs::create_dir_all(dir.join("chunks")).unwrap();
    let chunks = scene.bucket.read(&format!("{id}/chunks/000001")).await.unwrap();
    fs::write(dir.join("chunks/000001.part"), &chunks[..chunks.len() / 2]).unwrap();
    let index = scene.bucket.read(&format!("{id}/index")).await.unwrap();
    fs::write(dir.join("index"), index).unwrap();
}

#[tokio::test]
async fn complete_files_are_taken_again() {
    for listed in [Listed::Hashed, Listed::Sized] {
        let scene = Scene::s3().await;
        let id = scene.ship(0, EU, listed, |_| {}).await;
        let sizes = scene.bucket.list_below(&id).await;
        half_done(&scene, &id).await;
        let ran = scene.restore(&["--output=json"]);
        ran.assert(0, &[]);
        scene.assert_same(&id).await;
        assert_eq!(scene.entries(), [id.as_str()]);
        if listed == Listed::Hashed {
            let fetched = ran.json()["fetched_bytes"].as_u64().unwrap();
            // The chunks, and meta.json, which is read for the plan and for the restore.
            let most = sizes[&format!("{id}/chunks/000001")] + 2 * sizes[&format!("{id}/meta.json")];
            assert!(fetched <= most, "{fetched} > {most}");
        }
    }
}

#[tokio::test]
async fn a_complete_file_with_other_bytes_is_fetched_again() {
    for listed in [Listed::Hashed, Listed::Sized] {
        let scene = Scene::local();
        let id = scene.ship(0, EU, listed, |_| {}).await;
        half_done(&scene, &id).await;
        let index = scene.to().join(format!("{id}.tmp-for-creation/index"));
        let mut bytes = fs::read(&index).unwrap();
        bytes[200] ^= 1;
        fs::write(&index, bytes).unwrap();
        scene.restore(&[]).assert(0, &["restored      1 block"]);
        scene.assert_same(&id).await;
    }
}

#[tokio::test]
async fn what_does_not_belong_to_an_unfinished_block_goes_and_other_things_stay() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    half_done(&scene, &id).await;
    let dir = scene.to().join(format!("{id}.tmp-for-creation"));
    fs::write(dir.join("chunks/000002"), "not of this block").unwrap();
    fs::write(dir.join("tombstones"), "not of this block").unwrap();
    let other = "01KDTTTTTTTTTTTTTTTTTTTTTT.tmp-for-creation";
    fs::create_dir(scene.to().join(other)).unwrap();
    scene.restore(&[]).assert(0, &[]);
    scene.assert_same(&id).await;
    let mut expected = [id, other.to_owned()];
    expected.sort();
    assert_eq!(scene.entries(), expected);
}

#[tokio::test]
async fn a_signal_cuts_it_and_the_next_run_goes_on() {
    let scene = Scene::local();
    let mut ids = Vec::new();
    for slot in 0..3 {
        ids.push(scene.ship(slot, EU, Listed::Hashed, |_| {}).await);
    }
    // At this pace it would take minutes.
    let words = scene.command(&["--max-rate=10000"]);
    let mut command = Command::new(&words[0]);
    let log = scene.other("log");
    let process = Process::spawn("narthex", command.args(&words[1..]), &log, None);
    let patience = Duration::from_secs(60);
    wait_until(patience, "a block is begun", async || {
        (!scene.entries().is_empty()).then_some(())
    })
    .await;
    let status = process.stop(patience).await;
    assert_eq!(status.code(), Some(4), "{}", process.log());
    assert!(
        process.log().contains("run the same command again to continue"),
        "{}",
        process.log()
    );
    scene.restore(&[]).assert(0, &[]);
    ids.sort();
    assert_eq!(scene.entries(), ids);
    for id in &ids {
        scene.assert_same(id).await;
    }
}

#[tokio::test]
async fn a_second_run_finds_all_there() {
    let scene = Scene::s3().await;
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    scene.restore(&[]).assert(0, &["restored      1 block"]);
    let before = fs::metadata(scene.to().join(&id).join("index"))
        .unwrap()
        .modified()
        .unwrap();
    let ran = scene.restore(&["--output=json"]);
    ran.assert(0, &[]);
    let told = ran.json();
    assert_eq!(told["blocks"][0]["result"], "present");
    let meta = scene.bucket.read(&format!("{id}/meta.json")).await.unwrap().len() as u64;
    assert!(told["fetched_bytes"].as_u64().unwrap() <= 2 * meta, "{told}");
    let after = fs::metadata(scene.to().join(&id).join("index"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_a_run_has_restored_the_next_one_does_not_fetch_to_prove_it() {
    // Neither the meta.json nor this store keeps a hash that the files could be held against.
    for listed in [Listed::Sized, Listed::Not] {
        let scene = Scene::local();
        let id = scene.ship(0, EU, listed, |_| {}).await;
        scene.restore(&[]).assert(0, &["restored      1 block"]);
        let ran = scene.restore(&["--output=json"]);
        ran.assert(0, &[]);
        let told = ran.json();
        assert_eq!(told["blocks"][0]["result"], "present");
        let meta = scene.bucket.read(&format!("{id}/meta.json")).await.unwrap().len() as u64;
        assert!(told["fetched_bytes"].as_u64().unwrap() <= 2 * meta, "{told}");
        // Files that something else has changed are still found.
        let path = scene.to().join(&id).join("index");
        let mut bytes = fs::read(&path).unwrap();
        bytes[200] ^= 1;
        fs::write(&path, bytes).unwrap();
        scene.restore(&[]).assert(3, &["is not the block of the bucket"]);
    }
}
