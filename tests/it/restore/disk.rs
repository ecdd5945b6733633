//! A directory that cannot be restored to, or only in part.

use std::{path::Path, process::Command};

use fs_err as fs;

use super::scene::{EU, Listed, Scene};
use crate::{
    bad_data_dir::with_mounts,
    rig::{
        blocks::{self, Spec},
        keeper::link_tree,
        one_shot,
        prometheus::{Options, Prometheus},
        tools::Tools,
    },
};

#[tokio::test]
async fn another_block_of_the_same_name_is_refused_and_left_alone() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let good = scene.ship(1, EU, Listed::Hashed, |_| {}).await;
    let dir = scene.to().join(&id);
    // The bytes of another block under this name.
    link_tree(&blocks::generate(Spec::small(2)), &dir).unwrap();
    let before = fs::read(dir.join("index")).unwrap();
    scene.restore(&[]).assert(
        3,
        &[
            "is there already, and is not the block of the bucket",
            "move it away",
            "restored      1 block",
        ],
    );
    assert_eq!(fs::read(dir.join("index")).unwrap(), before);
    scene.assert_same(&good).await;

    // The right block with one byte changed.
    fs::remove_dir_all(&dir).unwrap();
    scene.restore(&[]).assert(0, &[]);
    let path = dir.join("chunks/000001");
    let mut bytes = fs::read(&path).unwrap();
    bytes[500] ^= 1;
    fs::write(&path, &bytes).unwrap();
    scene
        .restore(&[])
        .assert(3, &["is there already, and is not the block of the bucket"]);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn the_block_of_the_prometheus_that_made_it_counts_as_restored() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    // Without the section of the bucket in meta.json, and with tombstones.
    link_tree(&blocks::generate(Spec::small(0)), &scene.to().join(&id)).unwrap();
    scene.restore(&[]).assert(0, &["there already 1 block"]);
}

#[tokio::test]
async fn a_directory_that_is_none_or_in_use_is_told() {
    let scene = Scene::local();
    scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let to = scene.to();
    fs::write(&to, "a file").unwrap();
    scene
        .restore(&[])
        .assert(1, &[&format!("{} is not a directory", to.display())]);
    fs::remove_file(&to).unwrap();
    fs::create_dir(&to).unwrap();

    let held = fs::File::create(to.join("lock")).unwrap().into_parts().0;
    held.try_lock().unwrap();
    scene
        .restore(&[])
        .assert(1, &["a Prometheus uses", "stop it, or restore to an empty directory"]);
    // Dropping it may leave the lock to a process that another test starts in this moment.
    held.unlock().unwrap();
    let held = fs::File::open(&to).unwrap().into_parts().0;
    held.try_lock().unwrap();
    scene.restore(&[]).assert(1, &["another narthex restores to"]);
    assert_eq!(scene.entries(), ["lock"]);
    held.unlock().unwrap();
    // A lock that nobody holds is what a killed Prometheus leaves behind.
    scene.restore(&[]).assert(0, &[]);
}

#[tokio::test]
async fn a_prometheus_that_runs_or_ran_a_moment_ago_is_seen() {
    let scene = Scene::local();
    scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let options = Options {
        data: Some(scene.to()),
        ..Options::default()
    };
    // Old ones of some distributions make no lock.
    let newest = Tools::newest();
    let prometheus = Prometheus::start(&newest, options).await;
    scene
        .restore(&[])
        .assert(1, &["a Prometheus uses", "it holds its lock on the file lock"]);
    // Nobody holds the lock any more, as it seems from another pid namespace while it runs.
    prometheus.kill();
    scene
        .restore(&[])
        .assert(1, &["written within the last two minutes", "remove the file lock"]);
    fs::remove_file(scene.to().join("lock")).unwrap();
    scene.restore(&[]).assert(0, &["restored      1 block"]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told_with_its_path() {
    let scene = Scene::local();
    scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    fs::create_dir(scene.to()).unwrap();
    let path = scene.to().display().to_string();
    let script = format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}");
    let Some(under) = with_mounts(&script) else { return };
    scene.restore_under(&under, &[]).assert(
        1,
        &[
            "restored 0 of 1 block",
            &path,
            "Read-only file system",
            "the file system must be writable",
        ],
    );
    assert_eq!(scene.entries(), [""; 0]);
}

#[tokio::test]
async fn too_little_space_is_told_before_anything_is_fetched() {
    let scene = Scene::local();
    scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    fs::create_dir(scene.to()).unwrap();
    let script = format!("mount -t tmpfs -o size=8k none {}", scene.to().display());
    let Some(under) = with_mounts(&script) else { return };
    scene
        .restore_under(&under, &[])
        .assert(1, &["are to be written to", "its file system has 8.0 KiB free"]);
}

/// What lies in a directory that was copied out of the mount.
fn finished(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.len() == 26).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_disk_that_fills_up_stops_it_and_more_space_lets_it_go_on() {
    let scene = Scene::local();
    let mut ids = Vec::new();
    for slot in 0..3 {
        ids.push(scene.ship(slot, EU, Listed::Hashed, |_| {}).await);
    }
    ids.sort();
    fs::create_dir(scene.to()).unwrap();
    // There is space for all bytes, but not for all files: nobody can tell that beforehand.
    let (to, first, second) = (scene.to(), scene.other("first"), scene.other("second"));
    let (to, keep, last) = (to.display(), first.display(), second.display());
    let mount = format!("mount -t tmpfs -o size=100m,nr_inodes=10 none {to}");
    let Some(mut words) = with_mounts(&mount) else { return };
    let script = format!(
        "\"$@\" >&2; echo $?; cp -r {to} {keep}; mount -o remount,nr_inodes=100 {to}; \"$@\" >&2; echo $?; cp -r {to} {last}"
    );
    words.extend(["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]);
    words.extend(scene.command(&[]));
    let ran = one_shot::run(Command::new(&words[0]).args(&words[1..]));
    assert_eq!(ran.stdout, "1\n0\n", "{ran:?}");
    ran.assert(
        0,
        &["No space left on device", "free some space", "run it again to continue"],
    );
    let before = finished(&first);
    assert!(before.len() < 3, "{before:?}");
    for (dir, names) in [(&first, &before), (&second, &ids)] {
        assert_eq!(&finished(dir), names);
        for id in names {
            for name in ["chunks/000001", "index", "meta.json"] {
                let same = scene
                    .bucket
                    .same(&format!("{id}/{name}"), &dir.join(id).join(name))
                    .await;
                same.unwrap_or_else(|wrong| panic!("{id}/{name}: {wrong}"));
            }
        }
    }
}
