//! Blocks that are no good, or not alone: each is found before a byte of it is sent, named with its reason, and the others
//! go their way.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use super::scene::{backfill, blocks_of, copy, edit_meta, flip, is_all_there, results, row};
use crate::rig::{
    BucketView,
    blocks::{self, Spec},
    one_shot::narthex,
    prometheus::sealed,
    tools::temp_dir,
};

#[test]
fn a_directory_without_blocks_and_no_directory_are_errors() {
    let (dir, store) = (temp_dir("empty"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    fs::write(dir.path().join("file"), "x").unwrap();
    for (path, said) in [
        (dir.path().to_owned(), "there is no block in"),
        (dir.path().join("nowhere"), "No such file or directory"),
        (dir.path().join("file"), "is --path right?"),
    ] {
        let ran = backfill(&path, &bucket, &[]).ended(1);
        assert_eq!(ran.stderr.matches(said).count(), 1, "{ran:?}");
        assert!(ran.stderr.contains(path.to_str().unwrap()), "{ran:?}");
    }
}

#[tokio::test]
async fn a_link_in_a_circle_under_the_name_of_a_block_is_named_and_the_others_are_sent() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let (id, name) = (sealed(dir.path()).remove(0), "01K4ABCDEFGHJKMNPQRSTVWXYZ");
    let link = dir.path().join(name);
    std::os::unix::fs::symlink(name, &link).unwrap();
    let ran = backfill(dir.path(), &bucket, &[]).ended(0);
    let warned =
        |line: &str| line.contains("level=warn") && line.contains(name) && line.contains("broken symbolic link");
    assert!(ran.stderr.lines().any(warned), "{ran:?}");
    assert_eq!(bucket.visible().await, [id]);
}

/// The blocks of `testdata/index_issues`, each with a part of the reason why it is refused.
const INDEX_ISSUES: [(&str, &str); 9] = [
    (
        "overlapping_chunks",
        "2 chunks in 1 series overlapping another chunk (Thanos' compactor stops at it); first: series {__name__=\"owls\", \
         forest=\"f1\"} at byte 80 of the index, chunk 2 from 1767227400000 to 1767230940000 (ms) after chunk 1 from \
         1767225600000 to 1767229140000 (ms)",
    ),
    (
        "doubled_chunks",
        "1 chunk in 1 series with the times of the chunk before",
    ),
    ("unsorted_chunks", "1 chunk out of order in 1 series"),
    (
        "unsorted_labels",
        "1 series with label names that are not sorted (Thanos' compactor stops at it); first: series {__name__=\"owls\", \
         forest=\"f1\", zone=\"z\", branch=\"b\"}",
    ),
    (
        "doubled_labels",
        "1 series with the same label name twice (Thanos' compactor stops at it); first: series {__name__=\"owls\", \
         forest=\"f1\", forest=\"f9\"}",
    ),
    (
        "chunks_outside",
        "2 chunks in 1 series partly outside of the block's time range",
    ),
    (
        "chunks_at_the_end",
        "1 chunk in 1 series from the end of the block's time range on",
    ),
    ("no_chunks", "1 series without chunks"),
    ("no_labels", "1 series without labels"),
];

#[tokio::test]
async fn blocks_at_which_a_compactor_stops_are_refused_with_what_is_wrong_unless_that_is_wanted() {
    let (dir, store) = (blocks_of(0), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let blocks = INDEX_ISSUES.map(|(name, said)| {
        let source = format!("{}/testdata/index_issues/{name}", env!("CARGO_MANIFEST_DIR"));
        let [id] = &sealed(source.as_ref())[..] else {
            panic!("{source}")
        };
        copy(&Path::new(&source).join(id), dir.path());
        (id.clone(), said)
    });
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert_eq!(report["totals"]["refused"], 9, "{report:#}");
    for (id, said) in &blocks {
        let why = row(&report, id)["why"].as_str().unwrap();
        assert!(why.contains(said), "{why:?} does not say {said:?}");
        // Promtool refuses such labels.
        let way = match said.contains("without labels") || said.contains("label name twice") {
            true => "promtool cannot make such series anew",
            false => "tsdb dump-openmetrics, its lines sorted by time",
        };
        for help in [way, "--allow-index-issues"] {
            assert!(why.contains(help), "{why}");
        }
    }
    assert!(fs::read_dir(store.path()).unwrap().next().is_none(), "nothing is sent");
    // As they are, and told all the same; reading them back finds nothing that was not known.
    let flags = ["--allow-index-issues", "--verify=full"];
    let report = backfill(dir.path(), &bucket, &flags).ended(0).json();
    assert_eq!(
        (&report["totals"]["sent"], &report["totals"]["proven"]),
        (&json!(9), &json!(9))
    );
    for (id, said) in &blocks {
        let why = row(&report, id)["why"].as_str().unwrap();
        assert!(why.contains(said), "{why:?} does not say {said:?}");
    }
    is_all_there(&bucket, dir.path()).await;
    // The bucket's own check names them, too.
    let verify = |more: &[&str]| {
        let config = format!("--objstore.config={}", bucket.config());
        narthex(&[&["bucket", "verify", "--output=json", &config], more].concat())
    };
    verify(&[]).ended(0);
    let found = verify(&["--full"]).ended(3).json();
    let issues = found["issues"].as_array().unwrap();
    assert_eq!(issues.len(), 10, "one for each kind in a block: {found:#}");
    for (id, said) in &blocks {
        let of_block = issues.iter().filter(|issue| issue["block"] == **id);
        let details: Vec<&str> = of_block
            .inspect(|issue| assert_eq!(issue["kind"], "index", "{issue}"))
            .map(|issue| issue["detail"].as_str().unwrap())
            .collect();
        assert!(
            details.iter().any(|detail| detail.contains(said)),
            "{details:?} do not say {said:?}"
        );
    }
}

#[test]
fn upload_blocks_refuses_them_as_well() {
    let store = temp_dir("bucket");
    let path = concat!(
        "--path=",
        env!("CARGO_MANIFEST_DIR"),
        "/testdata/index_issues/overlapping_chunks"
    );
    let config = format!("--objstore.config={}", BucketView::dir(store.path()).config());
    let ran = narthex(&[
        "tools",
        "bucket",
        "upload-blocks",
        path,
        "--label=cluster=\"eu\"",
        &config,
    ])
    .ended(3);
    assert!(ran.stdout.contains("narthex backfill --allow-index-issues"), "{ran:?}");
}

/// Damages the middle one of three blocks, and expects it to be refused with `said`, and the others to be sent.
#[track_caller]
fn refused(damage: impl FnOnce(&Path), said: &str) {
    let (dir, store) = (blocks_of(3), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let bad = sealed(dir.path())
        .into_iter()
        .find(|id| first_time(&dir.path().join(id)) == first_time(&blocks::generate(Spec::small(1))))
        .unwrap();
    damage(&dir.path().join(&bad));
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert_eq!(report["outcome"], "some_refused", "{report:#}");
    let row = row(&report, &bad);
    assert_eq!(row["result"], "refused", "{report:#}");
    let why = row["why"].as_str().unwrap();
    assert!(why.contains(said), "{why:?} does not say {said:?}");
    assert!(!store.path().join(&bad).try_exists().unwrap(), "nothing of it was sent");
    fs::remove_dir_all(dir.path().join(&bad)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(is_all_there(&bucket, dir.path()));
}

fn first_time(block: &Path) -> Value {
    let meta: Value = serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    meta["minTime"].clone()
}

#[test]
fn a_damaged_index_is_refused() {
    refused(|block| flip(&block.join("index"), 2000), "index");
    refused(|block| flip(&block.join("index"), -10), "table of contents");
    refused(
        |block| fs::remove_file(block.join("index")).unwrap(),
        "index is missing",
    );
}

#[test]
fn a_flipped_bit_in_any_chunk_is_refused() {
    refused(|block| flip(&block.join("chunks/000001"), 5000), "chunks/000001");
    refused(|block| flip(&block.join("chunks/000001"), -1), "chunks/000001");
}

#[test]
fn a_missing_or_short_segment_is_refused() {
    refused(
        |block| fs::remove_file(block.join("chunks/000001")).unwrap(),
        "chunks/ holds no segment",
    );
    let cut = |block: &Path| {
        let path = block.join("chunks/000001");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    };
    refused(cut, "chunks/000001");
}

#[test]
fn wrong_statistics_and_times_are_refused() {
    let wrong =
        |key: &'static str, value: u64| move |block: &Path| edit_meta(block, |meta| meta["stats"][key] = value.into());
    refused(wrong("numSeries", 99), "counts 99 series, and the block has 100");
    refused(
        wrong("numSamples", 23_999),
        "counts 23999 samples, and the block has 24000",
    );
    refused(wrong("numChunks", 1), "counts 1 chunks, and the block has ");
    let nothing = |block: &Path| edit_meta(block, |meta| meta["stats"] = json!({}));
    refused(nothing, "counts 0 series, and the block has 100");
    let later = |block: &Path| {
        edit_meta(block, |meta| {
            meta["minTime"] = (meta["minTime"].as_i64().unwrap() + 60_000).into()
        });
    };
    refused(later, "outside of the block's time range");
}

#[test]
fn metadata_of_no_use_is_refused() {
    refused(
        |block| fs::write(block.join("meta.json"), "{").unwrap(),
        "meta.json cannot be used",
    );
    refused(
        |block| fs::remove_file(block.join("meta.json")).unwrap(),
        "meta.json is missing",
    );
}

#[test]
fn overlapping_blocks_are_refused_unless_that_is_wanted() {
    let (dir, store) = (blocks_of(2), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    // The same time once more, under another name and with other series.
    let other = Spec {
        series: 7,
        ..Spec::small(1)
    };
    let other = copy(&blocks::generate(other), dir.path());
    let other = other.file_name().unwrap().to_str().unwrap().to_owned();
    let report = backfill(dir.path(), &bucket, &["--dry-run"]).ended(3).json();
    assert_eq!(
        results(&report)
            .iter()
            .filter(|(result, _)| result == "refused")
            .count(),
        2,
        "{report:#}"
    );
    assert!(
        row(&report, &other)["why"].as_str().unwrap().contains("overlaps"),
        "{report:#}"
    );
    assert!(
        fs::read_dir(store.path()).unwrap().next().is_none(),
        "a dry run sends nothing"
    );
    let report = backfill(dir.path(), &bucket, &["--allow-overlaps"]).ended(0).json();
    assert_eq!(report["totals"]["sent"], 3, "{report:#}");
    assert!(
        row(&report, &other)["why"].as_str().unwrap().contains("overlaps"),
        "it is told all the same"
    );
}

#[test]
fn what_overlaps_the_bucket_is_refused() {
    let (old, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    backfill(old.path(), &bucket, &[]).ended(0);
    let dir = temp_dir("blocks");
    copy(
        &blocks::generate(Spec {
            series: 7,
            ..Spec::small(0)
        }),
        dir.path(),
    );
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let [(result, why)] = &results(&report)[..] else {
        panic!("{report:#}")
    };
    assert_eq!(result, "refused");
    assert!(
        why.contains(&format!(
            "overlaps {} of the same labels in the bucket",
            sealed(old.path())[0]
        )),
        "{why}"
    );
    // Of other labels there is nothing to overlap with.
    let us = super::scene::words(dir.path(), &bucket.config(), &["--label=cluster=us"]);
    narthex(&us).ended(0);
}
