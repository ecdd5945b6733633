//! A bucket in the root of a file system, where others have directories that are closed to us: `lost+found`, snapshots.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use fs_err as fs;

use super::stage::{Bucket, H, T, name};
use crate::{
    bad_blocks::stage::{Stage, args, prometheus, seal, sound, without_privileges},
    rig::{
        BucketView, Sidecar,
        blocks::{Spec, generate, place},
        one_shot::{Ran, run},
        tools::temp_dir,
    },
};

/// A directory that may not be read, and is read by nobody who lets it be. It can be removed at the end.
struct Closed<'a>(&'a Path);

impl Closed<'_> {
    fn at(path: &Path) -> Closed<'_> {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
        Closed(path)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let _ = fs::set_permissions(self.0, PermissionsExt::from_mode(0o700));
    }
}

/// Runs narthex as somebody who obeys the permissions of files.
#[track_caller]
fn obeying(words: &[&str]) -> Ran {
    let program = Sidecar::program().display().to_string();
    let mut line = without_privileges();
    line.push(program);
    line.extend(words.iter().map(|word| (*word).to_owned()));
    run(Command::new(&line[0]).args(&line[1..]))
}

#[track_caller]
fn bucket_command(bucket: &Bucket, words: &[&str]) -> Ran {
    obeying(&[&["bucket"], words, &[&format!("--objstore.config={}", bucket.config())]].concat())
}

#[test]
fn what_is_no_block_is_not_looked_into() {
    let bucket = Bucket::new();
    bucket.plain(1, T, T + 2 * H);
    bucket.plain(2, T + 2 * H, T + 4 * H);
    let dirs = ["lost+found", ".snapshot"].map(|dir| bucket.path().join(dir));
    let _closed = dirs.each_ref().map(|dir| Closed::at(dir));
    symlink("nowhere", bucket.path().join("dangling")).unwrap();
    symlink("circle", bucket.path().join("circle")).unwrap();
    symlink("circle", bucket.path().join(name(1)).join("circle")).unwrap();
    symlink(dirs[0].join("file"), bucket.path().join("into")).unwrap();
    // The lock of this test: whoever looks into one of them is refused.
    let refused = run(Command::new("sh").args(["-c", "exec \"$@\"", "sh"]).args(
        [
            without_privileges(),
            vec!["ls".to_owned(), dirs[0].display().to_string()],
        ]
        .concat(),
    ));
    assert_ne!(refused.code, Some(0), "{refused:?}");
    for words in [&["ls"][..], &["inspect"]] {
        let ran = bucket_command(&bucket, words);
        ran.assert(0, &[&name(1), &name(2)]);
        assert!(!ran.stderr.contains("level=warn"), "{ran:?}");
    }
    bucket_command(&bucket, &["verify"]).assert(0, &["2 blocks, 6 objects", "no issues"]);
    bucket_command(&bucket, &["gaps"]).assert(0, &["2 of 2 slots of 2h found"]);
}

#[test]
fn a_block_that_is_closed_is_named_and_the_others_go_on() {
    let bucket = Bucket::new();
    for n in [1, 2, 3] {
        let start = T + i64::from(n) * 2 * H;
        bucket.plain(n, start, start + 2 * H);
    }
    // Of the one nothing can be read, of the other everything but the chunks.
    let dirs = [bucket.path().join(name(1)), bucket.path().join(name(2)).join("chunks")];
    let _closed = dirs.each_ref().map(|dir| Closed::at(dir));
    let list = bucket_command(&bucket, &["ls"]);
    assert_eq!(
        (list.code, list.stdout),
        (Some(3), format!("{}\n{}\n", name(2), name(3)))
    );
    assert!(
        list.stderr.contains(&name(1)) && list.stderr.contains("ermission denied"),
        "{}",
        list.stderr
    );
    let verify = bucket_command(&bucket, &["verify"]);
    verify.assert(3, &["3 blocks"]);
    for (n, closed) in [(1, true), (2, true), (3, false)] {
        let line = format!("{}  unreadable  cannot read ", name(n));
        assert_eq!(verify.stdout.contains(&line), closed, "{n}: {verify:?}");
    }
    bucket_command(&bucket, &["gaps"]).assert(3, &[&name(1), "ermission denied"]);
}

#[test]
fn blocks_go_there_and_back_beside_directories_that_are_closed() {
    let (source, bucket, target) = (temp_dir("source"), temp_dir("bucket"), temp_dir("target"));
    fs::create_dir(source.path().join("snapshots")).unwrap();
    let dirs = [
        source.path().join("lost+found"),
        source.path().join("snapshots/lost+found"),
        bucket.path().join("lost+found"),
        target.path().join("lost+found"),
    ];
    let _closed = dirs.each_ref().map(|dir| Closed::at(dir));
    for dir in [&source, &bucket, &target] {
        symlink("nowhere", dir.path().join("dangling")).unwrap();
    }
    let id = place(&generate(Spec::small(0)), source.path());
    let objstore = format!("--objstore.config={}", BucketView::dir(bucket.path()).config());
    let path = format!("--path={}", source.path().display());
    let sent = obeying(&["backfill", &path, "--label=cluster=eu", &objstore]);
    sent.assert(0, &[&id]);
    let to = format!("--to={}", target.path().display());
    let restored = obeying(&["restore", &to, &objstore]);
    restored.assert(0, &["restored      1 block"]);
    for file in ["index", "chunks/000001"] {
        let [one, other] = [source.path(), target.path()].map(|dir| fs::read(dir.join(&id).join(file)).unwrap());
        assert_eq!(one, other, "{file}");
    }
}

#[tokio::test]
async fn shipping_goes_on_beside_directories_that_are_closed() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let [good, second] = [0, 1].map(|slot| seal(&sound(slot), data.path(), |_| {}));
    // Younger than those, also if all are made within one millisecond: an older one cannot hold them, and is not looked at.
    let other = ulid::Ulid::from_datetime(SystemTime::now() + Duration::from_secs(1)).to_string();
    let dirs = [
        data.path().join("lost+found"),
        store.path().join("lost+found"),
        // A copy that somebody made as another user: of a block that is not here, and of one that is.
        store.path().join(&other),
        store.path().join(&second),
    ];
    let _closed = dirs.each_ref().map(|dir| Closed::at(dir));
    let bucket = BucketView::dir(store.path());
    let args = args(prometheus().await, data.path(), &bucket, &[]);
    let sidecar = Sidecar::start_under(without_privileges(), args);
    let stage = Stage::of(data, bucket, sidecar);
    stage.wait_for_ledger(&[&good]).await;
    for closed in [&other, &second] {
        stage.wait_for_log(&["level=warn", closed, "ermission denied"]).await;
    }
    stage
        .wait_for_log(&["a block is left out", &second, "ermission denied"])
        .await;
    // The next block is not held up either.
    let third = seal(&sound(2), stage.dir(), |_| {});
    stage.wait_for_ledger(&[&good, &third]).await;
}
