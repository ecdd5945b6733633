//! What the tests of backfill have in common.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{
    BucketView,
    blocks::{self, Spec},
    bucket::check,
    one_shot::{Ran, narthex},
    prometheus::sealed,
    tools::temp_dir,
};

/// The label that blocks get.
pub(super) const LABEL: &str = "--label=cluster=eu";

/// A directory of `count` blocks, one after another in time, that may be changed.
pub(super) fn blocks_of(count: u64) -> TempDir {
    let dir = temp_dir("blocks");
    for slot in 0..count {
        copy(&blocks::generate(Spec::small(slot)), dir.path());
    }
    dir
}

/// Copies a block, file by file, and returns its place.
pub(super) fn copy(block: &Path, into: &Path) -> PathBuf {
    let to = into.join(block.file_name().unwrap());
    fs::create_dir_all(to.join("chunks")).unwrap();
    for file in ["chunks/000001", "index", "meta.json", "tombstones"] {
        if block.join(file).try_exists().unwrap() {
            fs::copy(block.join(file), to.join(file)).unwrap();
        }
    }
    to
}

/// Runs a backfill of `dir` to `bucket` under [`LABEL`], with further words.
#[track_caller]
pub(super) fn backfill(dir: &Path, bucket: &BucketView, more: &[&str]) -> Ran {
    narthex(&words(dir, &bucket.config(), &[&[LABEL], more].concat()))
}

/// The words of a backfill that prints JSON.
pub(super) fn words<'a>(dir: &Path, config: &str, more: &[&'a str]) -> Vec<&'a str> {
    let leak = |text: String| &*Box::leak(text.into_boxed_str());
    let mut words = vec!["backfill", "--output=json"];
    words.push(leak(format!("--path={}", dir.display())));
    words.push(leak(format!("--objstore.config={config}")));
    words.extend(more);
    words
}

/// The row of a block in a report.
#[track_caller]
pub(super) fn row<'a>(report: &'a Value, id: &str) -> &'a Value {
    let rows = report["blocks"].as_array().unwrap();
    rows.iter()
        .find(|row| row["ulid"] == id)
        .unwrap_or_else(|| panic!("no row of {id} in {report:#}"))
}

/// What became of each block, with its reason, in the order of the report.
pub(super) fn results(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = report["blocks"].as_array().unwrap().iter();
    rows.map(|row| (text(&row["result"]), text(&row["why"]))).collect()
}

/// Every block of `dir` is in the bucket, byte for byte, and nothing else is.
pub(super) async fn is_all_there(bucket: &BucketView, dir: &Path) {
    let blocks = sealed(dir);
    assert_eq!(bucket.visible().await, blocks);
    for id in &blocks {
        check(bucket, id, &dir.join(id))
            .await
            .unwrap_or_else(|wrong| panic!("{id} is visible, but: {wrong}"));
    }
    let dirs: std::collections::BTreeSet<String> = bucket
        .list()
        .await
        .into_keys()
        .filter_map(|key| Some(key.split_once('/')?.0.to_owned()))
        .collect();
    assert_eq!(dirs.into_iter().collect::<Vec<_>>(), blocks);
}

/// Flips all bits of the byte at `at`; from the end if it is negative.
pub(super) fn flip(path: &Path, at: i64) {
    let mut bytes = fs::read(path).unwrap();
    let at = match usize::try_from(at) {
        Ok(at) => at,
        Err(_) => bytes.len() - at.unsigned_abs() as usize,
    };
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

/// Changes `meta.json` of the block in `dir`.
pub(super) fn edit_meta(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut meta);
    fs::write(path, serde_json::to_vec_pretty(&meta).unwrap()).unwrap();
}
