//! What the scenes have in common: a bucket with blocks, put there by hand as a shipper does it, and a run of the program.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::rig::{
    BucketView, Sidecar, Weed,
    blocks::{self, Spec},
    one_shot::{self, Ran},
    tools::temp_dir,
};

/// The labels of most blocks.
pub(super) const EU: &[(&str, &str)] = &[("cluster", "eu"), ("replica", "0")];

/// How the objects of a block are described in its `meta.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// With sizes and SHA-256.
    Hashed,
    /// With sizes.
    Sized,
    /// Not at all, as old versions of Thanos do.
    Not,
}

/// A bucket, and a directory to restore to.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) bucket: BucketView,
    pub(super) dir: TempDir,
}

impl Scene {
    /// With a directory as the bucket.
    pub(super) fn local() -> Scene {
        let dir = temp_dir("restore");
        let bucket = dir.path().join("bucket");
        fs_err::create_dir(&bucket).unwrap();
        let bucket = BucketView::dir(&bucket);
        Scene { bucket, dir }
    }

    /// With a bucket of SeaweedFS.
    pub(super) async fn s3() -> Scene {
        let bucket = Weed::shared().await.bucket("restore").await;
        let dir = temp_dir("restore");
        Scene { bucket, dir }
    }

    /// Where blocks are restored to.
    pub(super) fn to(&self) -> PathBuf {
        self.dir.path().join("to")
    }

    /// A directory for other purposes.
    pub(super) fn other(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts the block of a slot into the bucket under its own name, with `edit` applied to its `meta.json`; returns the
    /// name.
    pub(super) async fn ship(
        &self,
        slot: u64,
        labels: &[(&str, &str)],
        listed: Listed,
        edit: impl FnOnce(&mut Value),
    ) -> String {
        self.ship_block(&blocks::generate(Spec::small(slot)), labels, listed, edit)
            .await
    }

    /// As [`Scene::ship`], of a block on disk.
    pub(super) async fn ship_block(
        &self,
        block: &Path,
        labels: &[(&str, &str)],
        listed: Listed,
        edit: impl FnOnce(&mut Value),
    ) -> String {
        let mut meta: Value = serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
        let mut bodies = BTreeMap::new();
        for name in names(block) {
            bodies.insert(name.clone(), fs::read(block.join(name)).unwrap());
        }
        let file = |(name, body): (&String, &Vec<u8>)| {
            let mut file = json!({ "rel_path": name, "size_bytes": body.len() });
            if listed == Listed::Hashed {
                file["hash"] = json!({ "hashFunc": "SHA256", "value": hex(&Sha256::digest(body)) });
            }
            file
        };
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        meta["thanos"] = json!({ "labels": labels, "downsample": { "resolution": 0 }, "source": "sidecar" });
        if listed != Listed::Not {
            let mut files: Vec<Value> = bodies.iter().map(file).collect();
            files.push(json!({ "rel_path": "meta.json" }));
            meta["thanos"]["files"] = json!(files);
        }
        edit(&mut meta);
        let id = meta["ulid"].as_str().unwrap().to_owned();
        for (name, body) in bodies {
            self.bucket.put(&format!("{id}/{name}"), body).await;
        }
        let text = serde_json::to_vec_pretty(&meta).unwrap();
        self.bucket.put(&format!("{id}/meta.json"), text).await;
        id
    }

    /// The command line of a restore with further flags.
    pub(super) fn command(&self, more: &[&str]) -> Vec<String> {
        let mut args = vec![
            Sidecar::program().display().to_string(),
            "restore".to_owned(),
            format!("--objstore.config={}", self.bucket.config()),
            format!("--to={}", self.to().display()),
        ];
        args.extend(more.iter().map(|&word| word.to_owned()));
        args
    }

    /// Runs a restore with further flags.
    pub(super) fn restore(&self, more: &[&str]) -> Ran {
        self.restore_under(&[], more)
    }

    /// As [`Scene::restore`], below another program.
    pub(super) fn restore_under(&self, under: &[String], more: &[&str]) -> Ran {
        let words: Vec<String> = under.iter().cloned().chain(self.command(more)).collect();
        one_shot::run(Command::new(&words[0]).args(&words[1..]))
    }

    /// Whether a restored block has exactly the bytes of its objects, and no file more.
    pub(super) async fn assert_same(&self, id: &str) {
        let dir = self.to().join(id);
        let objects = self.bucket.list_below(&format!("{id}/")).await;
        let marks = |key: &&str| !key.ends_with("-mark.json");
        let objects: Vec<&str> = objects.keys().map(|key| &key[27..]).filter(marks).collect();
        let mut files = names(&dir);
        files.push("meta.json".to_owned());
        assert_eq!(files, objects, "{id}");
        for name in files {
            let same = self.bucket.same(&format!("{id}/{name}"), &dir.join(&name)).await;
            same.unwrap_or_else(|wrong| panic!("{id}/{name}: {wrong}"));
        }
    }

    /// Everything in the directory that is restored to, without what is below finished blocks.
    pub(super) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.to()).into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The chunk segments and the index of a block on disk, sorted.
pub(super) fn names(block: &Path) -> Vec<String> {
    let entries = fs::read_dir(block.join("chunks")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| format!("chunks/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    names.push("index".to_owned());
    names.sort();
    names
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
