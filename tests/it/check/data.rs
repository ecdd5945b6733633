//! A data directory that is not there, cannot be used, or is another's.

use std::os::unix::fs::PermissionsExt as _;

use fs_err as fs;

use super::scene::{Scene, finds, on_data};
use crate::{
    bad_blocks::stage::{seal, sound},
    rig::BucketView,
};

/// Runs without a Prometheus.
const ALONE: [&str; 1] = ["--no-prometheus"];

#[test]
fn a_directory_that_is_missing_or_a_file_is_told() {
    let scene = Scene::new();
    let missing = scene.data.path().join("none");
    finds(
        &on_data(&missing),
        &ALONE,
        &[("data.directory", "fail", "No such file or directory")],
    );
    fs::write(&missing, "a file").unwrap();
    finds(
        &on_data(&missing),
        &ALONE,
        &[("data.directory", "fail", "Not a directory")],
    );
}

#[test]
fn a_directory_that_nobody_may_write_to_is_told_unless_nothing_is_shipped() {
    let scene = Scene::new();
    let bucket = format!("--objstore.config={}", BucketView::dir(scene.store.path()).config());
    // Nobody makes files there, root neither.
    let data = ["--tsdb.path=/proc".to_owned()];
    let written = [&bucket, "--no-prometheus"];
    finds(
        &data,
        &written,
        &[("data.ledger", "fail", "/proc/thanos.shipper.json cannot be written")],
    );
    finds(&data, &ALONE, &[]);
}

#[test]
fn what_stands_in_the_place_of_the_ledger_is_told() {
    let scene = Scene::new();
    let ledger = scene.data.path().join("thanos.shipper.json");
    fs::create_dir(&ledger).unwrap();
    finds(&scene.flags(), &ALONE, &[("data.ledger", "fail", "is a directory")]);
    fs::remove_dir(&ledger).unwrap();
    for (text, part) in [
        ("{", "is no ledger"),
        (
            r#"{"version": 1, "narthex": {"bucket": "s3://elsewhere/b"}}"#,
            "s3://elsewhere/b",
        ),
    ] {
        fs::write(&ledger, text).unwrap();
        finds(&scene.flags(), &ALONE, &[("data.ledger", "warn", part)]);
        assert_eq!(fs::read_to_string(&ledger).unwrap(), text, "it is only read");
    }
    fs::write(&ledger, r#"{"version": 1, "uploaded": null}"#).unwrap();
    finds(&scene.flags(), &ALONE, &[]);
    fs::set_permissions(&ledger, std::fs::Permissions::from_mode(0o600)).unwrap();
    finds(&scene.flags(), &ALONE, &[("data.ledger", "warn", "mode 0600")]);
}

#[test]
fn a_block_that_cannot_be_read_is_named() {
    let scene = Scene::new();
    let broken = seal(&sound(0), scene.data.path(), |block| {
        fs::remove_file(block.join("meta.json")).unwrap();
        fs::write(block.join("meta.json"), "{").unwrap();
    });
    finds(&scene.flags(), &ALONE, &[("data.blocks", "warn", &broken)]);
}

#[test]
fn a_log_that_is_sent_and_cannot_be_read_is_told() {
    let scene = Scene::new();
    let bucket = format!("--objstore.config={}", BucketView::dir(scene.store.path()).config());
    let data = on_data(scene.data.path());
    let more = [&*bucket, "--no-prometheus", "--wal.interval=10s"];
    let wal = scene.data.path().join("wal");
    finds(
        &data,
        &more,
        &[("data.wal", "warn", "Prometheus has written no log yet")],
    );
    fs::write(&wal, "").unwrap();
    finds(
        &data,
        &more,
        &[("data.wal", "fail", "the write-ahead log cannot be sent")],
    );
    fs::remove_file(&wal).unwrap();
    fs::create_dir(&wal).unwrap();
    fs::write(wal.join("00000000"), "").unwrap();
    finds(&data, &more, &[]);
}
