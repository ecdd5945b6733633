//! A bucket that is a directory: what only that one does.

use std::{
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use narthex::objstore::{Bucket, Error, ErrorKind, Object, Proof, Scope};
use tempfile::TempDir;

use super::{
    conformance::{ALL, conforms, is_strict},
    limits, open,
    reading::compares,
    unlinked,
};

/// A bucket in this directory.
async fn bucket_in(dir: &Path) -> Arc<dyn Bucket> {
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.display());
    open(&yaml, limits()).await
}

/// A bucket in a directory of its own, below the temporary one.
async fn bucket() -> (TempDir, Arc<dyn Bucket>) {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir(dir.path().join("root")).unwrap();
    let bucket = bucket_in(&dir.path().join("root")).await;
    (dir, bucket)
}

#[tokio::test]
async fn a_directory_conforms() {
    let (dir, bucket) = bucket().await;
    let root = dir.path().join("root");
    assert_eq!(bucket.name(), format!("fs: {}", root.display()));
    assert_eq!(bucket.identity(), format!("file://{}", root.display()));
    compares(&*bucket, Proof::ReadBack).await;
    drop(fs_err::remove_dir_all(root.join("k")));
    conforms(Arc::clone(&bucket)).await;
    is_strict(&*bucket).await;
}

#[tokio::test]
async fn a_directory_with_a_prefix_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!(
        "type: FILESYSTEM\nconfig:\n  directory: {}\nprefix: /a/b/\n",
        dir.path().display()
    );
    let bucket = open(&yaml, limits()).await;
    assert_eq!(bucket.name(), format!("fs: {}", dir.path().display()));
    assert_eq!(bucket.identity(), format!("file://{}/a/b", dir.path().display()));
    conforms(bucket).await;
    assert_eq!(fs_err::read(dir.path().join("a/b/l/a")).unwrap(), b"l/a");
}

#[tokio::test]
async fn a_directory_hides_what_a_killed_process_left_and_removes_it_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = bucket_in(dir.path()).await;
    bucket.put_bytes("b/chunks/1", Bytes::from_static(b"x")).await.unwrap();
    let left = dir.path().join("b/chunks/.000001.narthex-0123456789abcdef.tmp");
    let foreign = dir.path().join("b/chunks/.other.tmp");
    let only = dir.path().join("c/.000001.narthex-0123456789abcdef.tmp");
    fs_err::create_dir_all(dir.path().join("c/empty")).unwrap();
    let young = dir.path().join("b/chunks/.000002.narthex-0123456789abcdef.tmp");
    for (file, days) in [(&left, 2), (&only, 2), (&foreign, 2), (&young, 0)] {
        fs_err::write(file, "half").unwrap();
        let then = SystemTime::now() - days * Duration::from_secs(24 * 3600);
        let file = fs_err::OpenOptions::new().write(true).open(file).unwrap();
        file.set_modified(then).unwrap();
    }
    symlink(dir.path(), dir.path().join("b/loop")).unwrap();
    symlink("gone", dir.path().join("b/broken")).unwrap();

    let keys = |objects: Vec<Object>| objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
    assert_eq!(
        keys(bucket.list("b").await.unwrap()),
        ["b/chunks/.other.tmp", "b/chunks/1"]
    );
    assert_eq!(bucket.list_top("", |_| true).await.unwrap(), ["b"], "c holds no object");
    bucket.abort_stale("b").await.unwrap();
    assert!(!left.try_exists().unwrap() && foreign.try_exists().unwrap());
    assert!(only.try_exists().unwrap(), "it is not below b");
    assert!(young.try_exists().unwrap(), "another process may be writing it");
}

#[tokio::test]
async fn a_directory_takes_no_key_that_leads_out_of_it() {
    let (_dir, bucket) = bucket().await;
    for key in ["../x", "a/../x", "/x", "a//x", "a/", "", "."] {
        let error = bucket.put_bytes(key, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{key:?}: {error}");
    }
    bucket.put_bytes("a", Bytes::new()).await.unwrap();
    bucket.put_bytes("d/x", Bytes::new()).await.unwrap();
    assert_eq!(
        bucket.get("d", ALL).await.unwrap_err().kind,
        ErrorKind::NotFound,
        "a directory is no object"
    );
    let error = bucket.put_bytes("a/b", Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

/// What every operation comes to.
async fn all(bucket: &dyn Bucket) -> Vec<Result<(), Error>> {
    let body = Bytes::from_static(b"abc");
    let file = unlinked(b"abc");
    vec![
        bucket.put_file("a/file", &file).await,
        bucket.put_bytes("a/bytes", body.clone()).await,
        bucket.put_new("a/new", body).await.map(drop),
        bucket.stat("a/bytes").await.map(drop),
        bucket.get("a/bytes", ALL).await.map(drop),
        bucket.read("a/bytes", 0).await.map(drop),
        bucket.compare("a/bytes", &file).await.map(drop),
        bucket.list("").await.map(drop),
        bucket.list("a").await.map(drop),
        bucket.list_top("", |_| true).await.map(drop),
        bucket.abort_stale("a").await,
        bucket.incarnation().await.map(drop),
    ]
}

/// Every operation fails since there is no bucket, in these words.
async fn there_is_none(bucket: &dyn Bucket, root: &Path, words: &str) {
    for result in all(bucket).await {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind, error.scope()),
            (ErrorKind::NoBucket, Scope::Bucket),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains(&*root.to_string_lossy()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_no_bucket_and_is_never_made() {
    let (dir, bucket) = bucket().await;
    let root = dir.path().join("root");
    fs_err::remove_dir(&root).unwrap();
    there_is_none(&*bucket, &root, "make it, or mount what belongs there").await;
    assert!(!root.try_exists().unwrap(), "it was made");
    fs_err::write(&root, "a file").unwrap();
    there_is_none(&*bucket, &root, "make it, or mount what belongs there").await;
    fs_err::remove_file(&root).unwrap();

    fs_err::create_dir(&root).unwrap();
    assert_eq!(
        bucket.list_top("", |_| true).await.unwrap(),
        [""; 0],
        "an empty one is an empty bucket"
    );
    for result in all(&*bucket).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_directory_in_the_place_of_another_is_no_bucket_until_that_is_back_or_a_restart() {
    let (dir, bucket) = bucket().await;
    let [root, aside] = ["root", "aside"].map(|name| dir.path().join(name));
    bucket.put_bytes("a/bytes", Bytes::from_static(b"abc")).await.unwrap();
    let first = bucket.incarnation().await.unwrap().unwrap();

    // What an unmount does: the same path is another directory, and an empty one.
    fs_err::rename(&root, &aside).unwrap();
    fs_err::create_dir(&root).unwrap();
    there_is_none(&*bucket, &root, "is not the one that was there before").await;
    assert_eq!(fs_err::read_dir(&root).unwrap().count(), 0, "nothing was written there");
    let restarted = bucket_in(&root).await;
    let other = restarted.incarnation().await.unwrap().unwrap();
    assert_ne!(other, first);

    fs_err::rename(&root, dir.path().join("other")).unwrap();
    fs_err::rename(&aside, &root).unwrap();
    for result in all(&*bucket).await {
        result.unwrap();
    }
    let restarted = bucket_in(&root).await;
    assert_eq!(
        restarted.incarnation().await.unwrap().unwrap(),
        first,
        "it survives a restart"
    );
}

#[tokio::test]
async fn a_directory_of_the_name_is_no_object_that_exists() {
    let (_dir, bucket) = bucket().await;
    bucket.put_bytes("a/b", Bytes::new()).await.unwrap();
    let error = bucket.put_new("a", Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn a_link_of_the_name_that_leads_nowhere_is_refused_for_that_object_alone() {
    let (dir, bucket) = bucket().await;
    let root = dir.path().join("root");
    bucket.put_bytes("a/chunks", Bytes::new()).await.unwrap();
    for (key, link, leads_to) in [
        ("a/meta.json", "a/meta.json", "gone"),
        ("a/loop.json", "a/loop.json", "loop.json"),
        ("b/meta.json", "b", "gone"),
        ("c/meta.json", "c", "c"),
    ] {
        symlink(leads_to, root.join(link)).unwrap();
        let error = bucket.put_new(key, Bytes::new()).await.unwrap_err();
        assert_eq!(
            (error.kind, error.scope()),
            (ErrorKind::Refused, Scope::Object),
            "{key}: {error}"
        );
        fs_err::remove_file(root.join(link)).unwrap();
        bucket.put_new(key, Bytes::new()).await.unwrap();
    }
}

/// A reading of `a/meta.json` is refused, for that object alone, in these words.
fn is_refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(
        (error.kind, error.scope()),
        (ErrorKind::Refused, Scope::Object),
        "{text}"
    );
    for words in words {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn what_is_no_file_is_refused_for_that_object_alone_and_never_waited_for() {
    let (dir, bucket) = bucket().await;
    let meta = dir.path().join("root/a/meta.json");
    bucket.put_bytes("a/index", Bytes::new()).await.unwrap();
    let pipe = || assert!(Command::new("mkfifo").arg(&meta).status().unwrap().success());
    let socket = || drop(UnixListener::bind(&meta).unwrap());
    let link = |to: &'static str| {
        let meta = &meta;
        move || symlink(to, meta).unwrap()
    };
    let cases: [(&dyn Fn(), &str); 5] = [
        (&pipe, "is a named pipe (FIFO)"),
        (&socket, "is a socket"),
        (&link("/dev/null"), "is a device"),
        (&link("gone"), "is a symbolic link that leads nowhere"),
        (
            &link("meta.json"),
            "is a symbolic link that leads nowhere or in a circle",
        ),
    ];
    for (make, what) in cases {
        make();
        let file = unlinked(b"");
        let path = meta.display().to_string();
        let words = [path.as_str(), what, "move it away"];
        is_refused(bucket.compare("a/meta.json", &file).await, &words);
        is_refused(bucket.read("a/meta.json", 0).await, &words);
        is_refused(bucket.get("a/meta.json", ALL).await, &words);
        is_refused(bucket.put_new("a/meta.json", Bytes::new()).await, &words);
        assert!(meta.symlink_metadata().is_ok(), "{what}: it was replaced");
        assert_eq!(bucket.list_top("", |_| true).await.unwrap(), ["a"], "{what}");
        assert_eq!(bucket.list("a").await.unwrap().len(), 1, "{what}");
        fs_err::remove_file(&meta).unwrap();
    }
}

#[tokio::test]
async fn a_file_or_directory_that_cannot_be_read_concerns_its_objects_alone() {
    let (dir, bucket) = bucket().await;
    let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join("root").join(name));
    bucket.put_bytes("a/index", Bytes::new()).await.unwrap();
    fs_err::create_dir_all(&b).unwrap();
    // The system opens this file, and reading its first byte is an I/O error, as of a bad sector.
    symlink("/proc/self/mem", a.join("meta.json")).unwrap();
    // Nothing can tell what this leads to.
    symlink("x".repeat(300), b.join("meta.json")).unwrap();
    symlink("c", &c).unwrap();
    is_refused(
        bucket.get("a/meta.json", ALL).await,
        &["a/meta.json", "check the file system"],
    );
    is_refused(bucket.get("c/meta.json", ALL).await, &["c/meta.json"]);
    is_refused(bucket.stat("c/meta.json").await, &["c/meta.json"]);
    is_refused(bucket.compare("c/meta.json", &unlinked(b"")).await, &["c/meta.json"]);
    is_refused(bucket.list("b").await, &["root/b"]);
    assert_eq!(
        bucket.list_top("", |_| true).await.unwrap(),
        ["a", "b"],
        "whoever reads b gets its error"
    );
}
