//! A data directory that is missing, no directory, read-only or full: blocks go on, the log and the metrics say what is
//! wrong, and all is well again when it is mended.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod ledger;

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;
use tempfile::TempDir;

use crate::{
    bad_blocks::stage::{PATIENCE, Stage, args, listed, prometheus, seal, sound, wait_for_log, without_privileges},
    rig::{BucketView, Sidecar, bucket, tools::temp_dir},
};

/// Starts a sidecar whose data directory cannot be read, calls `mend`, and looks that all goes well from then on.
async fn unusable_then_mended(data: &Path, said: &str, mend: impl FnOnce()) {
    let store = temp_dir("bucket");
    let bucket = BucketView::dir(store.path());
    let sidecar = Sidecar::start(args(prometheus().await, data, &bucket, &[]));
    let line = wait_for_log(&sidecar, &["cannot read the data directory", said]).await;
    assert!(
        line.contains(&data.display().to_string()) && line.contains("--tsdb.path"),
        "{line}"
    );
    wait_for_log(&sidecar, &["cannot write the ledger", "thanos.shipper.json"]).await;
    // Readiness is about Prometheus.
    sidecar.wait_ready(PATIENCE).await;
    for name in [
        "narthex_ledger_write_failures_total",
        "thanos_shipper_dir_sync_failures_total",
    ] {
        let failures = async || (sidecar.metric(name).await? >= 1.0).then_some(());
        sidecar.wait_until(PATIENCE, name, failures).await;
    }

    mend();
    let ledger = data.join("thanos.shipper.json");
    sidecar
        .wait_until(PATIENCE, "there is a ledger", async || listed(&ledger))
        .await;
    let id = seal(&sound(0), data, |_| {});
    let shipped = async || (listed(&ledger)? == [id.as_str()]).then_some(());
    sidecar
        .wait_until(PATIENCE, "the block is in the ledger", shipped)
        .await;
    bucket::check(&bucket, &id, &data.join(&id)).await.unwrap();
    assert!(sidecar.ready().await);
}

#[tokio::test]
async fn a_data_directory_may_come_later() {
    let parent = temp_dir("parent");
    let data = parent.path().join("data");
    unusable_then_mended(&data, "No such file or directory", || fs::create_dir(&data).unwrap()).await;
}

#[tokio::test]
async fn a_file_in_place_of_the_data_directory_is_told() {
    let parent = temp_dir("parent");
    let data = parent.path().join("data");
    fs::write(&data, "a file").unwrap();
    let mend = || {
        fs::remove_file(&data).unwrap();
        fs::create_dir(&data).unwrap();
    };
    unusable_then_mended(&data, "Not a directory", mend).await;
}

#[tokio::test]
async fn blocks_are_shipped_from_a_directory_that_may_not_be_written() {
    let data = temp_dir("data");
    let first = seal(&sound(0), data.path(), |_| {});
    fs::set_permissions(data.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let stage = Stage::open(data, &without_privileges(), &[]).await;
    stage
        .wait_for_metric("thanos_shipper_uploads_total", &[], |uploads| uploads == 1.0)
        .await;
    stage.wait_for_pass().await;
    stage.assert_shipped(&[&first]).await;
    assert_without_ledger(&stage).await;

    fs::set_permissions(stage.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let second = seal(&sound(1), stage.dir(), |_| {});
    stage.wait_for_ledger(&[&first, &second]).await;
    stage.assert_shipped(&[&first, &second]).await;
    // What could not be noted was remembered.
    assert_eq!(stage.metric("thanos_shipper_uploads_total").await, 2.0);
}

async fn assert_without_ledger(stage: &Stage) {
    assert_eq!(listed(&stage.dir().join("thanos.shipper.json")), None);
    stage
        .wait_for_metric("narthex_ledger_write_failures_total", &[], |count| count >= 1.0)
        .await;
    let line = stage.wait_for_log(&["level=error", "cannot write the ledger"]).await;
    let path = stage.dir().join("thanos.shipper.json").display().to_string();
    assert!(
        line.contains(&path) && line.contains("retrying in every pass"),
        "{line}"
    );
    assert_eq!(stage.metric("thanos_shipper_dir_sync_failures_total").await, 0.0);
}

/// The program below which a command runs with mounts of its own, after this script; `None` if that is not allowed here.
pub(crate) fn with_mounts(script: &str) -> Option<Vec<String>> {
    let under = |flags: &[&str]| {
        let allowed = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", "mount -t tmpfs none /tmp"])
            .output()
            .is_ok_and(|done| done.status.success());
        let script = format!("{{ {script}\n}} && exec \"$0\" \"$@\"");
        let shell = ["sh", "-c", &script];
        let words = ["unshare"].iter().chain(flags).chain(&shell);
        allowed.then(|| words.map(|&word| word.to_owned()).collect())
    };
    let found = under(&["--mount"]).or_else(|| under(&["--user", "--map-root-user", "--mount"]));
    if found.is_none() {
        // Not by a macro: what those print is shown of failed tests only.
        let _ = std::io::stderr()
            .write_all(b"NOT TESTED: this user may not mount anything, not even in a namespace of its own\n");
    }
    found
}

#[tokio::test]
async fn blocks_are_shipped_from_a_read_only_mount() {
    let data = temp_dir("data");
    let path = data.path().display().to_string();
    let script = format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}");
    let Some(under) = with_mounts(&script) else { return };
    let stage = Stage::open(data, &under, &[]).await;
    stage.wait_for_pass().await;
    // Only the sidecar sees it read-only; Prometheus writes.
    let ids = [
        seal(&sound(0), stage.dir(), |_| {}),
        seal(&sound(1), stage.dir(), |_| {}),
    ];
    stage
        .wait_for_metric("thanos_shipper_uploads_total", &[], |uploads| uploads == 2.0)
        .await;
    stage.assert_shipped(&[&ids[0], &ids[1]]).await;
    assert_without_ledger(&stage).await;
    stage
        .wait_for_log(&["cannot write the ledger", "Read-only file system"])
        .await;
}

/// A data directory on a small file system that only the sidecar has mounted, and where to find it from outside.
struct Small {
    stage: Stage,
    inside: PathBuf,
    _blocks: TempDir,
}

/// Starts a sidecar on a full file system with a ledger and one block; `None` if that cannot be had here.
async fn full(ledger: &str) -> Option<(Small, String)> {
    let (data, blocks) = (temp_dir("data"), temp_dir("blocks"));
    let id = seal(&sound(0), blocks.path(), |_| {});
    fs::write(blocks.path().join("thanos.shipper.json"), ledger).unwrap();
    let (path, from) = (data.path().display(), blocks.path().display());
    let script = format!(
        "mount -t tmpfs -o size=2m none {path} && cp -r {from}/. {path} && (cat /dev/zero > {path}/filler || true)"
    );
    let under = with_mounts(&script)?;
    let stage = Stage::open(data, &under, &[]).await;
    stage.sidecar.wait_ready(PATIENCE).await;
    let root = PathBuf::from(format!("/proc/{}/root", stage.sidecar.id()));
    let inside = root.join(stage.dir().strip_prefix("/").unwrap());
    assert!(fs::metadata(inside.join("filler")).unwrap().len() > 1 << 20);
    let small = Small {
        stage,
        inside,
        _blocks: blocks,
    };
    Some((small, id))
}

#[tokio::test]
async fn a_full_disk_stops_the_ledger_and_not_the_blocks() {
    let old = "{\"version\": 1, \"uploaded\": null}";
    let Some((small, first)) = full(old).await else { return };
    let (stage, inside) = (&small.stage, &small.inside);
    stage
        .wait_for_metric("thanos_shipper_uploads_total", &[], |uploads| uploads == 1.0)
        .await;
    stage.assert_same(&first, &inside.join(&first)).await;
    stage
        .wait_for_metric("narthex_ledger_write_failures_total", &[], |count| count >= 1.0)
        .await;
    stage
        .wait_for_log(&["cannot write the ledger", "No space left on device"])
        .await;
    // Never torn: Prometheus would take half a ledger for none, and compact what is not durable.
    assert_eq!(fs::read_to_string(inside.join("thanos.shipper.json")).unwrap(), old);

    fs::remove_file(inside.join("filler")).unwrap();
    let second = seal(&sound(1), inside, |_| {});
    let ledger = inside.join("thanos.shipper.json");
    let mut both = vec![first, second];
    both.sort();
    let listed = async || (listed(&ledger)? == both).then_some(());
    stage
        .sidecar
        .wait_until(PATIENCE, "the ledger lists both", listed)
        .await;
    assert_eq!(stage.metric("thanos_shipper_uploads_total").await, 2.0);
    assert!(stage.sidecar.ready().await);
}
