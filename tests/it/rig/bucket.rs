//! Eyes on a bucket that share no code with the program under test.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use fs_err as fs;
use reqwest::Response;
use serde_json::Value;

use super::{
    cloud::CloudClient,
    keeper::Keeper,
    prometheus::is_block,
    s3_client::S3Client,
    weed::{ACCESS_KEY, SECRET_KEY},
};

/// A bucket to be looked at. Keys are those of the bucket itself, with the prefix if narthex writes below one.
#[derive(Clone, Debug)]
pub(crate) struct BucketView {
    place: Place,
    prefix: String,
}

#[derive(Clone, Debug)]
enum Place {
    Dir(PathBuf),
    S3(S3Client),
    Cloud(CloudClient),
}

impl BucketView {
    /// A local directory (`type: FILESYSTEM`).
    pub(crate) fn dir(path: &Path) -> BucketView {
        BucketView {
            place: Place::Dir(path.to_owned()),
            prefix: String::new(),
        }
    }

    /// A bucket of an S3 server.
    pub(crate) fn s3(client: S3Client) -> BucketView {
        BucketView {
            place: Place::S3(client),
            prefix: String::new(),
        }
    }

    /// A bucket of an emulator.
    pub(crate) fn cloud(client: CloudClient) -> BucketView {
        BucketView {
            place: Place::Cloud(client),
            prefix: String::new(),
        }
    }

    /// The same place below a prefix: [`BucketView::config`] asks for it, and all keys are relative to it.
    pub(crate) fn below(mut self, prefix: &str) -> BucketView {
        self.prefix = format!("{}/", prefix.trim_matches('/'));
        self
    }

    /// The configuration that makes narthex write here.
    pub(crate) fn config(&self) -> String {
        self.config_with("")
    }

    /// The same with further keys of the section `config`, e.g. `"part_size: 5242880\n"`.
    pub(crate) fn config_with(&self, more: &str) -> String {
        let (kind, mut config) = match &self.place {
            Place::Dir(path) => ("FILESYSTEM", format!("directory: {}\n", path.display())),
            Place::S3(client) => (
                "S3",
                format!(
                    "bucket: {}\nendpoint: {}\ninsecure: true\nregion: us-east-1\naccess_key: {ACCESS_KEY}\n\
                     secret_key: {SECRET_KEY}\n",
                    client.bucket(),
                    client.host()
                ),
            ),
            Place::Cloud(client) => client.config(),
        };
        config.push_str(more);
        let config: String = config.lines().map(|line| format!("  {line}\n")).collect();
        let prefix = if self.prefix.is_empty() {
            String::new()
        } else {
            format!("prefix: {}\n", self.prefix)
        };
        format!("type: {kind}\nconfig:\n{config}{prefix}")
    }

    /// Every key with its size in bytes.
    pub(crate) async fn list(&self) -> BTreeMap<String, u64> {
        self.list_below("").await
    }

    /// Every key that begins with `start`, with its size in bytes.
    pub(crate) async fn list_below(&self, start: &str) -> BTreeMap<String, u64> {
        let full = format!("{}{start}", self.prefix);
        let found = match &self.place {
            Place::Dir(path) => {
                let mut found = BTreeMap::new();
                walk(path, "", &mut found);
                found.into_iter().filter(|(key, _)| key.starts_with(&full)).collect()
            }
            Place::S3(client) => client
                .list(&full)
                .await
                .unwrap_or_else(|error| panic!("cannot list {full}: {error}")),
            Place::Cloud(client) => client
                .list(&full)
                .await
                .unwrap_or_else(|error| panic!("cannot list {full}: {error}")),
        };
        found
            .into_iter()
            .map(|(key, size)| (key[self.prefix.len()..].to_owned(), size))
            .collect()
    }

    /// An object's bytes; `None` when there is no such key.
    pub(crate) async fn read(&self, key: &str) -> Option<Vec<u8>> {
        let full = format!("{}{key}", self.prefix);
        match &self.place {
            Place::Dir(path) => fs::read(path.join(full)).ok(),
            Place::S3(_) | Place::Cloud(_) => {
                let answer = self
                    .get(&full)
                    .await
                    .unwrap_or_else(|error| panic!("cannot read: {error}"))?;
                Some(answer.bytes().await.expect("an object can be read to its end").to_vec())
            }
        }
    }

    /// An object of a server by its full key, still to be read.
    async fn get(&self, key: &str) -> Result<Option<Response>, String> {
        match &self.place {
            Place::Dir(_) => Err("a directory is no server".to_owned()),
            Place::S3(client) => client.get(key).await,
            Place::Cloud(client) => client.get(key).await,
        }
    }

    /// An object that must be there, as JSON.
    pub(crate) async fn read_json(&self, key: &str) -> Value {
        let bytes = self
            .read(key)
            .await
            .unwrap_or_else(|| panic!("{key} is not in the bucket"));
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{key} is not JSON: {error}"))
    }

    /// Stores an object, as a compactor or a foreign sidecar would.
    pub(crate) async fn put(&self, key: &str, body: Vec<u8>) {
        let full = format!("{}{key}", self.prefix);
        match &self.place {
            Place::Dir(path) => {
                let path = path.join(full);
                fs::create_dir_all(path.parent().expect("a key has a directory")).expect("the bucket can be written");
                fs::write(path, body).expect("the bucket can be written");
            }
            Place::S3(client) => client
                .put(&full, body)
                .await
                .unwrap_or_else(|error| panic!("cannot put: {error}")),
            Place::Cloud(client) => client
                .put(&full, body)
                .await
                .unwrap_or_else(|error| panic!("cannot put: {error}")),
        }
    }

    /// Removes an object.
    pub(crate) async fn delete(&self, key: &str) {
        let full = format!("{}{key}", self.prefix);
        match &self.place {
            Place::Dir(path) => fs::remove_file(path.join(full)).expect("the object can be removed"),
            Place::S3(client) => client
                .delete(&full)
                .await
                .unwrap_or_else(|error| panic!("cannot delete: {error}")),
            Place::Cloud(client) => client
                .delete(&full)
                .await
                .unwrap_or_else(|error| panic!("cannot delete: {error}")),
        }
    }

    /// The blocks whose `meta.json` is there, sorted.
    pub(crate) async fn visible(&self) -> Vec<String> {
        let keys = self.list().await.into_keys();
        keys.filter_map(|key| {
            key.strip_suffix("/meta.json")
                .filter(|id| is_block(id))
                .map(str::to_owned)
        })
        .collect()
    }

    /// The keys of multipart uploads that are still open, without those of other prefixes.
    pub(crate) async fn open_uploads(&self) -> Vec<String> {
        match &self.place {
            // What is not complete cannot be listed.
            Place::Dir(_) | Place::Cloud(_) => Vec::new(),
            Place::S3(client) => {
                let keys = client
                    .open_uploads()
                    .await
                    .unwrap_or_else(|error| panic!("cannot list uploads: {error}"));
                keys.into_iter()
                    .filter_map(|key| key.strip_prefix(&self.prefix).map(str::to_owned))
                    .collect()
            }
        }
    }

    /// Whether an object is byte for byte the same as a file; neither is held in memory.
    pub(crate) async fn same(&self, key: &str, path: &Path) -> Result<(), String> {
        let mut file = fs::File::open(path).map_err(|error| error.to_string())?;
        let full = format!("{}{key}", self.prefix);
        let mut seen = 0;
        match &self.place {
            Place::Dir(dir) => {
                let mut object = fs::File::open(dir.join(full)).map_err(|error| error.to_string())?;
                let mut buffer = vec![0; 1 << 20];
                loop {
                    match object.read(&mut buffer).map_err(|error| error.to_string())? {
                        0 => break,
                        count => compare(&buffer[..count], &mut file, &mut seen)?,
                    }
                }
            }
            Place::S3(_) | Place::Cloud(_) => {
                let mut answer = self.get(&full).await?.ok_or("there is no such key")?;
                while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
                    compare(&chunk, &mut file, &mut seen)?;
                }
            }
        }
        match file.read(&mut [0]) {
            Ok(0) => Ok(()),
            _ => Err(format!("the object ends after {seen} bytes, the file is longer")),
        }
    }
}

fn compare(object: &[u8], file: &mut fs::File, seen: &mut u64) -> Result<(), String> {
    let mut source = vec![0; object.len()];
    file.read_exact(&mut source)
        .map_err(|_| format!("the object is longer than the file (after {seen} bytes)"))?;
    // At once: byte by byte, an unoptimized test would spend half a minute of the suite here.
    if object == source {
        *seen += object.len() as u64;
        return Ok(());
    }
    let at = object
        .iter()
        .zip(&source)
        .take_while(|(object, source)| object == source)
        .count();
    Err(format!("byte {} differs", *seen + at as u64))
}

fn walk(dir: &Path, key: &str, found: &mut BTreeMap<String, u64>) {
    // A directory that is not there is an empty bucket.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().into_string().expect("keys are text");
        let key = if key.is_empty() { name } else { format!("{key}/{name}") };
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => walk(&entry.path(), &key, found),
            Ok(metadata) => drop(found.insert(key, metadata.len())),
            // A temporary file that was renamed meanwhile.
            Err(_) => {}
        }
    }
}

/// The first promise: whatever `meta.json` is visible, every file that it lists is there with that size and with the bytes
/// of the source block, and everything that Prometheus wrote into `meta.json` is still in it. Holds at any moment, also
/// while an upload runs. Returns the visible blocks.
pub(crate) async fn assert_whole(bucket: &BucketView, sources: &Keeper) -> Vec<String> {
    let visible = bucket.visible().await;
    for id in &visible {
        let source = sources
            .block(id)
            .unwrap_or_else(|| panic!("{id} is in the bucket, but was never sealed here"));
        if let Err(wrong) = check(bucket, id, &source).await {
            panic!("{id} is visible in the bucket, but: {wrong}");
        }
    }
    visible
}

/// Every block that was ever sealed is visible, and whole.
pub(crate) async fn assert_all_shipped(bucket: &BucketView, sources: &Keeper) {
    let sealed = sources.blocks();
    assert_eq!(
        assert_whole(bucket, sources).await,
        sealed,
        "the blocks in the bucket are not those that were sealed"
    );
}

/// Compares a visible block with its source.
pub(crate) async fn check(bucket: &BucketView, id: &str, source: &Path) -> Result<(), String> {
    let meta = bucket.read_json(&format!("{id}/meta.json")).await;
    let original = fs::read(source.join("meta.json")).map_err(|error| error.to_string())?;
    let original: Value = serde_json::from_slice(&original).map_err(|error| error.to_string())?;
    for (key, value) in original.as_object().ok_or("the source's meta.json is no object")? {
        if key != "thanos" && meta.get(key) != Some(value) {
            return Err(format!(
                "meta.json has {key} = {:?}, the source has {value}",
                meta.get(key)
            ));
        }
    }
    // Listed after meta.json was read: what it lists must be there by now.
    let objects = bucket.list_below(&format!("{id}/")).await;
    let files = meta
        .pointer("/thanos/files")
        .and_then(Value::as_array)
        .ok_or("meta.json has no thanos.files")?;
    let mut listed = Vec::new();
    for file in files {
        let name = file
            .get("rel_path")
            .and_then(Value::as_str)
            .ok_or("a file without rel_path")?;
        listed.push(name.to_owned());
        let key = format!("{id}/{name}");
        let size = objects
            .get(&key)
            .ok_or_else(|| format!("{key} is listed, but not in the bucket"))?;
        if name == "meta.json" {
            continue;
        }
        // A size of zero is not written.
        let promised = file
            .get("size_bytes")
            .map_or(Some(0), Value::as_u64)
            .ok_or("a size that is no number")?;
        if *size != promised {
            return Err(format!("{key} has {size} bytes, meta.json says {promised}"));
        }
        bucket
            .same(&key, &source.join(name))
            .await
            .map_err(|wrong| format!("{key}: {wrong}"))?;
    }
    let mut expected = vec!["index".to_owned(), "meta.json".to_owned()];
    for entry in fs::read_dir(source.join("chunks"))
        .map_err(|error| error.to_string())?
        .flatten()
    {
        expected.push(format!("chunks/{}", entry.file_name().display()));
    }
    expected.sort();
    listed.sort();
    if listed == expected {
        Ok(())
    } else {
        Err(format!("meta.json lists {listed:?}, the source has {expected:?}"))
    }
}
