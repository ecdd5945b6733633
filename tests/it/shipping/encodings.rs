//! Blocks with chunks that Thanos' readers refuse, through the program itself. The blocks and what they are rewritten to were
//! written by Prometheus' own code (`testdata/rewrite/generate.go`), and are read here by Prometheus' own tools.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fs_err as fs;
use serde_json::Value;

use crate::{
    bad_blocks::stage::{Stage, edit_meta},
    rig::{BucketView, Tools, one_shot::narthex, tools::temp_dir},
};

fn testdata(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rewrite")).join(name)
}

/// The blocks of the test data with segments of the usual size, each of which has a twin of plain encodings.
const ALL: [&str; 3] = ["floats", "histograms", "labels"];

/// One of the blocks, by number.
pub(super) fn source(number: usize) -> PathBuf {
    testdata(ALL[number % ALL.len()]).join("source")
}

/// What Prometheus' own code wrote of the samples of a copy of one of the blocks, in plain encodings.
pub(super) fn plain_twin(copy: &Path) -> PathBuf {
    let index = fs::read(copy.join("index")).unwrap();
    let mut all = ALL.iter();
    let data = all.find(|data| fs::read(testdata(data).join("source/index")).unwrap() == index);
    let data = data.expect("it is a copy of one of the blocks");
    testdata(data).join("plain")
}

/// Panics unless a block of the bucket is, byte for byte, the twin of the local copy.
pub(super) async fn assert_is_a_twin(bucket: &BucketView, name: &str, copy: &Path) {
    let twin = plain_twin(copy);
    let segments = fs::read_dir(twin.join("chunks")).unwrap();
    let segments = segments.map(|segment| format!("chunks/{}", segment.unwrap().file_name().display()));
    let mut files: Vec<String> = segments.collect();
    files.sort();
    files.push("index".to_owned());
    for file in &files {
        let (there, expected) = (
            bucket.read(&format!("{name}/{file}")).await,
            fs::read(twin.join(file)).unwrap(),
        );
        assert!(
            there.as_deref() == Some(&*expected),
            "{name}/{file} is not that of the twin"
        );
    }
    let meta = bucket.read_json(&format!("{name}/meta.json")).await;
    let listed = meta["thanos"]["files"].as_array().unwrap();
    let listed: Vec<&str> = listed.iter().map(|file| file["rel_path"].as_str().unwrap()).collect();
    files.push("meta.json".to_owned());
    assert_eq!(listed, files);
}

/// Puts a copy of a block of the test data there as Prometheus does, under a name of now; the name.
pub(super) fn seal(source: &Path, data: &Path) -> String {
    let name = ulid::Ulid::generate().to_string();
    let aside = data.join(format!("{name}.tmp-for-creation"));
    copy(source, &aside);
    edit_meta(&aside, |meta| {
        meta["ulid"] = name.as_str().into();
        meta["compaction"]["sources"] = serde_json::json!([name]);
    });
    fs::rename(aside, data.join(&name)).unwrap();
    name
}

fn copy(source: &Path, to: &Path) {
    fs::create_dir_all(to.join("chunks")).unwrap();
    for segment in fs::read_dir(source.join("chunks")).unwrap() {
        let segment = segment.unwrap();
        fs::copy(segment.path(), to.join("chunks").join(segment.file_name())).unwrap();
    }
    for file in ["index", "meta.json"] {
        fs::copy(source.join(file), to.join(file)).unwrap();
    }
}

/// All samples of the blocks in a directory, by the newest promtool that there is.
fn dump(data: &Path) -> Vec<String> {
    let legs = Tools::find().legs;
    let promtool = &legs.last().unwrap().promtool;
    let done = Command::new(promtool)
        .args(["tsdb", "dump"])
        .arg(data)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut lines: Vec<String> = String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert!(!lines.is_empty());
    lines
}

/// The block of a bucket, and Prometheus' own block with the same samples in plain encodings, hold the same samples.
async fn holds_the_samples_of(bucket: &BucketView, name: &str, plain: &Path) {
    let (there, expected) = (temp_dir("there"), temp_dir("expected"));
    for (dir, from) in [(&there, None), (&expected, Some(plain))] {
        let block = dir.path().join(name);
        match from {
            Some(plain) => copy(plain, &block),
            None => {
                fs::create_dir_all(block.join("chunks")).unwrap();
                for file in ["chunks/000001", "index", "meta.json"] {
                    fs::write(block.join(file), bucket.read(&format!("{name}/{file}")).await.unwrap()).unwrap();
                }
            }
        }
        edit_meta(&block, |meta| meta["ulid"] = name.into());
        // promtool opens a data directory only.
        fs::create_dir(dir.path().join("wal")).unwrap();
    }
    assert_eq!(dump(there.path()), dump(expected.path()));
}

fn verify(bucket: &BucketView) -> (Option<i32>, Vec<(String, String)>) {
    let config = format!("--objstore.config={}", bucket.config());
    let ran = narthex(&["bucket", "verify", "--full", "-o", "json", &config]);
    let issues = ran.json()["issues"].as_array().unwrap().clone();
    let text = |issue: &Value, key: &str| issue[key].as_str().unwrap().to_owned();
    let issues = issues.iter().map(|issue| (text(issue, "block"), text(issue, "kind")));
    (ran.code, issues.collect())
}

#[tokio::test]
async fn what_readers_refuse_is_rewritten_or_named() {
    for data in ["floats", "histograms"] {
        let stage = Stage::start(&[]).await;
        let name = seal(&testdata(data).join("source"), stage.dir());
        stage.wait_for_ledger(&[&name]).await;
        stage
            .wait_for_log(&["level=info", &name, "were rewritten on the way to the bucket"])
            .await;
        assert_eq!(verify(&stage.bucket), (Some(0), vec![]), "{data}");
        let config = format!("--objstore.config={}", stage.bucket.config());
        let table = narthex(&["bucket", "inspect", "-o", "json", &config]);
        assert_eq!(
            table.json()[0]["content"],
            serde_json::json!(["rewritten_encodings"]),
            "{table:?}"
        );
        holds_the_samples_of(&stage.bucket, &name, &testdata(data).join("plain")).await;
        let metrics = stage.metrics().await;
        let kind = [("kind", "newer_encodings")];
        assert_eq!(metrics.value("narthex_shipped_block_content_total", &kind), Some(1.0));
        for name in [
            "narthex_rewritten_chunks_total",
            "narthex_dropped_start_timestamps_total",
        ] {
            assert!(metrics.value(name, &[]).unwrap() > 0.0, "{data}: {name}");
        }
    }
    let stage = Stage::start(&["--shipper.newer-encodings=ship"]).await;
    let name = seal(&testdata("floats").join("source"), stage.dir());
    stage.wait_for_ledger(&[&name]).await;
    stage.assert_shipped(&[&name]).await;
    assert_eq!(
        verify(&stage.bucket),
        (Some(3), vec![(name.clone(), "encoding".to_owned())])
    );
    // Without reading all of it, too, and in the table.
    let config = format!("--objstore.config={}", stage.bucket.config());
    let quick = narthex(&["bucket", "verify", "-o", "json", &config]);
    assert_eq!(quick.code, Some(3), "{quick:?}");
    assert_eq!(quick.json()["issues"][0]["kind"], "encoding", "{quick:?}");
    let table = narthex(&["bucket", "inspect", "-o", "json", &config]);
    assert_eq!(
        table.json()[0]["content"],
        serde_json::json!(["newer_encodings"]),
        "{table:?}"
    );
}

#[tokio::test]
async fn what_is_in_the_bucket_with_newer_encodings_is_told_by_backfill_and_marked_if_that_is_wanted() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let name = seal(&testdata("floats").join("source"), data.path());
    let backfill = |choice: &str, more: &[&str]| {
        let (path, config) = (format!("--path={}", data.path().display()), bucket.config());
        let (config, choice) = (
            format!("--objstore.config={config}"),
            format!("--newer-encodings={choice}"),
        );
        let args = ["backfill", "--label=replica=a", &choice, &path, &config];
        narthex(&[&args[..], more].concat())
    };
    assert_eq!(backfill("ship", &[]).code, Some(0));
    let sent = bucket.list().await;
    for (choice, said) in [
        (
            "rewrite",
            "mark it for deletion, and once it is deleted there, run again",
        ),
        ("hold", "run again with --newer-encodings=rewrite"),
        ("ship", "a compactor stops at it unless"),
    ] {
        let again = backfill(choice, &[]);
        assert_eq!(again.code, Some(0), "{again:?}");
        assert!(
            again.stdout.contains("XOR2 chunks") && again.stdout.contains(said),
            "{again:?}"
        );
        assert_eq!(bucket.list().await, sent, "{choice}");
    }
    let planned = backfill("mark", &["--dry-run"]);
    assert_eq!(
        (planned.code, bucket.list().await),
        (Some(0), sent.clone()),
        "{planned:?}"
    );
    let marked = backfill("mark", &[]);
    assert_eq!(marked.code, Some(0), "{marked:?}");
    for mark in ["no-compact-mark.json", "no-downsample-mark.json"] {
        let mark = bucket.read_json(&format!("{name}/{mark}")).await;
        assert_eq!(mark["id"], name.as_str());
    }
    assert_eq!(bucket.list().await.len(), sent.len() + 2);
    // A mark that cannot be put leaves no other block unmarked.
    let other = seal(&testdata("histograms").join("source"), data.path());
    assert_eq!(backfill("ship", &["--allow-overlaps"]).code, Some(0));
    for mark in ["no-compact-mark.json", "no-downsample-mark.json"] {
        fs::remove_file(store.path().join(&name).join(mark)).unwrap();
    }
    fs::create_dir(store.path().join(&name).join("no-compact-mark.json")).unwrap();
    let failed = backfill("mark", &[]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    failed.assert(1, &[&name, "cannot be marked"]);
    assert!(bucket.read(&format!("{other}/no-downsample-mark.json")).await.is_some());
}

#[tokio::test]
async fn what_is_rewritten_by_backfill_is_known_again() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let name = seal(&testdata("floats").join("source"), data.path());
    let backfill = |more: &[&str]| {
        let (path, config) = (format!("--path={}", data.path().display()), bucket.config());
        let config = format!("--objstore.config={config}");
        let args = ["backfill", "--label=replica=a", "--output=json", &path, &config];
        narthex(&[&args[..], more].concat())
    };
    let refused = backfill(&["--newer-encodings=hold"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused.stdout.contains("XOR2") && refused.stdout.contains("--newer-encodings=rewrite"),
        "{refused:?}"
    );
    assert_eq!(bucket.visible().await, Vec::<String>::new());
    let sent = backfill(&["--verify=full"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(
        sent.stdout.contains("are rewritten on the way to the bucket"),
        "{sent:?}"
    );
    assert_eq!(bucket.visible().await, [name.as_str()]);
    holds_the_samples_of(&bucket, &name, &testdata("floats").join("plain")).await;
    assert_eq!(verify(&bucket), (Some(0), vec![]));
    // Nothing is sent again, whatever is proven at the end.
    let before = bucket.list().await;
    for more in [&[][..], &["--verify=full"]] {
        let again = backfill(more);
        assert_eq!(again.code, Some(0), "{again:?}");
        assert!(again.json()["totals"]["sent"] == 0, "{again:?}");
    }
    assert_eq!(bucket.list().await, before);
    // Another block of that name is told from it.
    fs::remove_dir_all(data.path().join(&name)).unwrap();
    let other = data.path().join(&name);
    copy(&testdata("labels").join("source"), &other);
    edit_meta(&other, |meta| meta["ulid"] = name.as_str().into());
    let clash = backfill(&[]);
    assert_eq!(clash.code, Some(3), "{clash:?}");
    assert_eq!(bucket.list().await, before);
}
