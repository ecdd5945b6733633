use std::sync::atomic::Ordering;

use prometheus_client::registry::Registry;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::{
    audit::integrity,
    objstore::{
        Limits, RateLimit,
        config::{BucketConfig, FilesystemConfig, Provider},
        layers::{Fault, Faulty},
    },
    tsdb::{
        Meta, read_meta,
        testing::{Shape, write_block},
    },
};

const ID: &str = "01K4ABCDEFGHJKMNPQRSTVWXYZ";

/// A bucket with a block of five segments, of which one object at a time can be read.
struct Scene {
    dir: TempDir,
    meta: Meta,
    bucket: Arc<dyn Bucket>,
    files: Vec<BucketFile>,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape {
            series: 40,
            segments: 5,
            ..Shape::default()
        };
        let meta = read_meta(&write_block(dir.path(), ID, shape)).unwrap();
        let config = BucketConfig {
            provider: Provider::Filesystem(FilesystemConfig {
                directory: dir.path().to_owned(),
            }),
            prefix: String::new(),
            warnings: Vec::new(),
        };
        let limits = Limits {
            requests_at_once: 1,
            rate_limit: RateLimit::default(),
            ..Limits::default()
        };
        let bucket = objstore::open(&config, &limits, &mut Registry::default())
            .await
            .unwrap();
        let listed = integrity::list(&*bucket, &meta).await.unwrap();
        assert_eq!((listed.faults, listed.files.len(), listed.objects), (vec![], 6, 7));
        Self {
            dir,
            meta,
            bucket,
            files: listed.files,
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.dir.path().join(ID).join(name);
        let mut bytes = fs_err::read(&path).unwrap();
        change(&mut bytes);
        fs_err::write(path, bytes).unwrap();
    }

    async fn read(&self) -> Result<ReadBack, Vec<Issue>> {
        let reader = Reader::new(4);
        read_back(&self.bucket, &self.meta, &self.files, &reader).await.unwrap()
    }

    /// Kind and beginning of the one issue.
    async fn issue(&self) -> (Kind, String) {
        let issues = self.read().await.unwrap_err();
        assert_eq!(issues.len(), 1, "{issues:?}");
        let what = issues[0].detail.split(';').next().unwrap_or_default();
        (issues[0].kind, what.to_owned())
    }
}

#[tokio::test]
async fn a_whole_block_is_told_byte_for_byte() {
    let scene = Scene::new().await;
    let reader = Reader {
        sha256: true,
        ..Reader::new(4)
    };
    let found = read_back(&scene.bucket, &scene.meta, &scene.files, &reader).await;
    let ReadBack { digests, reader_issues } = found.unwrap().unwrap();
    assert_eq!(reader_issues, []);
    let mut total = 0;
    for (digest, name) in digests.iter().zip([
        "chunks/000001",
        "chunks/000002",
        "chunks/000003",
        "chunks/000004",
        "chunks/000005",
        "index",
    ]) {
        let bytes = fs_err::read(scene.dir.path().join(ID).join(name)).unwrap();
        let sha256: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!((digest.rel_path.as_str(), digest.len), (name, bytes.len() as u64));
        assert_eq!(
            (digest.crc32c, digest.sha256.as_deref()),
            (crc32c::crc32c(&bytes), Some(sha256.as_str()))
        );
        total += bytes.len() as u64;
    }
    assert_eq!((digests.len(), reader.read.load(Ordering::Relaxed)), (6, total));
}

#[tokio::test]
async fn a_changed_byte_is_found() {
    let scene = Scene::new().await;
    for (name, at) in [
        ("chunks/000001", 0),
        ("chunks/000003", 60),
        ("index", 5),
        ("index", 400),
    ] {
        scene.change(name, |bytes| bytes[at] ^= 0x10);
        let (kind, what) = scene.issue().await;
        assert!(kind == Kind::Content && what.contains(name), "{name} {at}: {what}");
        scene.change(name, |bytes| bytes[at] ^= 0x10);
    }
    scene.read().await.unwrap();
}

#[tokio::test]
async fn what_changed_since_it_was_listed_is_found() {
    let scene = Scene::new().await;
    let len = scene.files[1].size.unwrap();
    scene.change("chunks/000002", |bytes| bytes.truncate(20));
    let want = format!("chunks/000002 had {len} bytes, and has 20 now");
    assert_eq!(scene.issue().await, (Kind::Size, want));
    scene.change("index", |bytes| bytes.truncate(10));
    assert_eq!(scene.read().await.unwrap_err().len(), 2);
    fs_err::remove_file(scene.dir.path().join(ID).join("index")).unwrap();
    assert_eq!(scene.read().await.unwrap_err()[1].kind, Kind::Missing);
    let scene = Scene::new().await;
    fs_err::remove_file(scene.dir.path().join(ID).join("chunks/000002")).unwrap();
    let want = "chunks/000002 was deleted during the check".to_owned();
    assert_eq!(scene.issue().await, (Kind::Missing, want));
}

#[tokio::test]
async fn sound_bytes_of_another_hash_are_found() {
    let mut scene = Scene::new().await;
    scene.files[0].sha256 = Some("ab".repeat(32));
    let (kind, what) = scene.issue().await;
    assert_eq!(kind, Kind::Checksum);
    assert!(
        what.starts_with("chunks/000001 has the SHA-256 ") && what.ends_with(&"ab".repeat(32)),
        "{what}"
    );
}

#[tokio::test]
async fn sound_objects_of_two_blocks_do_not_agree() {
    let scene = Scene::new().await;
    let other = tempfile::tempdir().unwrap();
    let shape = Shape {
        series: 30,
        segments: 5,
        ..Shape::default()
    };
    write_block(other.path(), ID, shape);
    let strange = fs_err::read(other.path().join(ID).join("index")).unwrap();
    scene.change("index", |bytes| *bytes = strange);
    let listed = integrity::list(&*scene.bucket, &scene.meta).await.unwrap();
    let scene = Scene {
        files: listed.files,
        ..scene
    };
    assert_eq!(scene.issue().await.0, Kind::Content);
}

#[tokio::test]
async fn errors_of_the_bucket_are_told_apart() {
    let scene = Scene::new().await;
    for (kind, want) in [
        (ErrorKind::Forbidden, Ok(Kind::Unreadable)),
        (ErrorKind::Credentials, Err(ErrorKind::Credentials)),
        (ErrorKind::Network, Err(ErrorKind::Network)),
        (ErrorKind::Integrity, Ok(Kind::Checksum)),
        (ErrorKind::NotFound, Ok(Kind::Missing)),
    ] {
        let faulty = Faulty::new(Arc::clone(&scene.bucket));
        faulty.on(Op::Get, "chunks/000004", .., Fault::Fail(kind));
        let bucket: Arc<dyn Bucket> = faulty;
        let found = read_back(&bucket, &scene.meta, &scene.files, &Reader::new(1)).await;
        let found = found.map(|issues| issues.unwrap_err()[0].kind);
        assert_eq!(found.map_err(|error| error.kind), want);
    }
}
