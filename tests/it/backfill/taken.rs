//! What the bucket holds already: the same blocks, others of their names, halves, merged ones; and buckets that fail.

use std::{collections::BTreeMap, path::Path, time::Duration, time::SystemTime};

use fs_err as fs;
use serde_json::json;

use super::scene::{LABEL, backfill, blocks_of, edit_meta, flip, is_all_there, results, row, words};
use crate::rig::{
    BucketView, Fault, Rule, S3Server, Weed,
    one_shot::{self, narthex},
    prometheus::sealed,
    tools::temp_dir,
    wait_until,
};

/// Every file below a directory, with its size and when it was changed.
fn tree(dir: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let status = fs::metadata(&path).unwrap();
        if status.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path.display().to_string(), (status.len(), status.modified().unwrap()));
    }
    found
}

#[tokio::test]
async fn a_second_run_sends_nothing_and_the_source_is_only_read() {
    let (dir, bucket) = (blocks_of(3), Weed::shared().await.bucket("twice").await);
    let before = tree(dir.path());
    let report = backfill(dir.path(), &bucket, &["--dry-run"]).ended(0).json();
    assert!(bucket.list().await.is_empty(), "a dry run sends nothing");
    assert_eq!(
        (&report["totals"]["to_send"], &report["totals"]["sent"]),
        (&json!(3), &json!(0))
    );
    let report = backfill(dir.path(), &bucket, &[]).ended(0).json();
    assert_eq!(
        (&report["totals"]["sent"], &report["totals"]["proven"]),
        (&json!(3), &json!(3))
    );
    is_all_there(&bucket, dir.path()).await;
    let objects = bucket.list().await;
    for more in [&[][..], &["--verify=full"][..]] {
        let report = backfill(dir.path(), &bucket, more).ended(0).json();
        let totals = &report["totals"];
        assert_eq!(
            (&totals["there"], &totals["bytes_sent"], &totals["proven"]),
            (&json!(3), &json!(0), &json!(3)),
            "{report:#}"
        );
    }
    assert_eq!(bucket.list().await, objects);
    assert_eq!(tree(dir.path()), before, "the source is only read");
}

#[tokio::test]
async fn a_block_of_the_same_name_with_other_bytes_is_never_overwritten() {
    let (dir, bucket) = (blocks_of(1), Weed::shared().await.bucket("other").await);
    backfill(dir.path(), &bucket, &[]).ended(0);
    let id = sealed(dir.path()).remove(0);
    for key in ["chunks/000001", "index"] {
        let key = format!("{id}/{key}");
        let good = bucket.read(&key).await.unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        bucket.put(&key, bad.clone()).await;
        let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
        let why = row(&report, &id)["why"].as_str().unwrap();
        assert!(why.contains("other bytes") && why.contains("not overwritten"), "{why}");
        assert_eq!(bucket.read(&key).await.unwrap(), bad, "it is as it was");
        bucket.put(&key, good).await;
    }
    backfill(dir.path(), &bucket, &[]).ended(0);
    // One that is longer here, as nothing that was sent is.
    let index = dir.path().join(&id).join("index");
    let good = fs::read(&index).unwrap();
    fs::write(&index, [&good[..], b"x"].concat()).unwrap();
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let why = row(&report, &id)["why"].as_str().unwrap();
    let (there, here) = (good.len(), good.len() + 1);
    let said = format!("with other bytes: index has {there} bytes instead of {here}; it is not overwritten");
    assert!(why.contains(&said), "{why}");
    fs::write(&index, good).unwrap();
    let key = format!("{id}/meta.json");
    bucket.put(&key, b"{".to_vec()).await;
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert!(
        row(&report, &id)["why"].as_str().unwrap().contains("cannot be used"),
        "{report:#}"
    );
    assert_eq!(bucket.read(&key).await.unwrap(), b"{");
}

#[tokio::test]
async fn a_byte_that_is_flipped_in_the_bucket_is_found_by_reading_all_back() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    backfill(dir.path(), &bucket, &["--verify=full"]).ended(0);
    let id = sealed(dir.path()).remove(0);
    for (key, at) in [
        ("chunks/000001", 4000),
        ("chunks/000001", -1),
        ("index", 7),
        ("index", 3000),
    ] {
        let path = store.path().join(&id).join(key);
        flip(&path, at);
        let report = backfill(dir.path(), &bucket, &["--verify=full"]).ended(3).json();
        assert!(row(&report, &id)["why"].as_str().unwrap().contains(key), "{report:#}");
        flip(&path, at);
    }
    backfill(dir.path(), &bucket, &["--verify=full"]).ended(0);
}

#[tokio::test]
async fn a_block_that_cannot_be_compared_is_refused_as_that_and_not_as_another() {
    let (dir, server) = (blocks_of(2), S3Server::start());
    let bucket = server.bucket("archived");
    let [first, second] = &sealed(dir.path())[..] else {
        panic!("two blocks")
    };
    backfill(dir.path(), &bucket, &[]).ended(0);
    for method in ["GET", "HEAD"] {
        let fault = Fault::Answer(403, "AccessDenied");
        server.fault(Rule::on(method, &format!("{first}/index*"), fault));
    }
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let why = row(&report, first)["why"].as_str().unwrap();
    assert!(why.contains("cannot be compared with this one"), "{why}");
    assert!(!why.contains("other bytes"), "{why}");
    assert_eq!(row(&report, second)["result"], "there", "{report:#}");
}

#[tokio::test]
async fn halves_of_an_earlier_try_are_completed_and_only_what_is_missing_is_sent() {
    let (dir, server) = (blocks_of(1), S3Server::start());
    let bucket = server.bucket("half");
    let id = sealed(dir.path()).remove(0);
    let segment = fs::read(dir.path().join(&id).join("chunks/000001")).unwrap();
    bucket.put(&format!("{id}/chunks/000001"), segment).await;
    // Of the right size, with other bytes.
    let index = vec![0; fs::metadata(dir.path().join(&id).join("index")).unwrap().len() as usize];
    bucket.put(&format!("{id}/index"), index).await;
    let before = server.seen().len();
    backfill(dir.path(), &bucket, &[]).ended(0);
    let sent: Vec<String> = server
        .seen()
        .split_off(before)
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .map(|seen| seen.key)
        .collect();
    assert_eq!(sent, [format!("{id}/index"), format!("{id}/meta.json")]);
    is_all_there(&bucket, dir.path()).await;
}

#[tokio::test]
async fn objects_of_others_in_a_half_block_stop_it_and_are_named() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let id = sealed(dir.path()).remove(0);
    bucket.put(&format!("{id}/chunks/000002"), b"x".to_vec()).await;
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert!(
        row(&report, &id)["why"].as_str().unwrap().contains("chunks/000002"),
        "{report:#}"
    );
    assert!(bucket.visible().await.is_empty());
}

#[tokio::test]
async fn what_readers_pass_over_beside_a_block_makes_it_no_other_block() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let id = sealed(dir.path()).remove(0);
    // As somebody leaves them who copies a block by hand, and a compactor of an old version of Thanos.
    let beside = ["tombstones", "index.cache.json"].map(|name| format!("{id}/{name}"));
    for more in [&[][..], &["--verify=full"]] {
        for key in &beside {
            bucket.put(key, b"x".to_vec()).await;
        }
        for result in ["sent", "there"] {
            let report = backfill(dir.path(), &bucket, more).ended(0).json();
            assert_eq!(row(&report, &id)["result"], result, "{report:#}");
        }
        for key in &beside {
            assert_eq!(bucket.read(key).await.unwrap(), b"x", "{key} is as it was");
        }
        fs::remove_dir_all(store.path().join(&id)).unwrap();
    }
}

#[tokio::test]
async fn what_the_compactor_has_merged_is_there() {
    let (dir, store) = (blocks_of(2), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    backfill(dir.path(), &bucket, &[]).ended(0);
    // As a compactor leaves it: the parts are gone, a block of another name has them as its sources.
    let parts = sealed(dir.path());
    let merged = "01KEMERGED0000000000000000";
    merge(store.path(), &parts, merged);
    for part in &parts {
        fs::remove_dir_all(store.path().join(part)).unwrap();
    }
    let report = backfill(dir.path(), &bucket, &[]).ended(0).json();
    for (result, why) in results(&report) {
        assert_eq!(result, "there");
        assert!(why.contains(merged), "{why}");
    }
    assert_eq!(bucket.visible().await, [merged]);
}

/// As a compactor leaves it: a block of another name that has `parts` as its sources, the first of them under its own name
/// and marked for deletion.
fn merge(store: &Path, parts: &[String], merged: &str) {
    let (from, to) = (store.join(&parts[0]), store.join(merged));
    fs::create_dir_all(to.join("chunks")).unwrap();
    for file in ["chunks/000001", "index", "meta.json"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let times: Vec<i64> = parts
        .iter()
        .flat_map(|part| {
            let text = fs::read(store.join(part).join("meta.json")).unwrap();
            let meta: serde_json::Value = serde_json::from_slice(&text).unwrap();
            ["minTime", "maxTime"].map(|key| meta[key].as_i64().unwrap())
        })
        .collect();
    edit_meta(&to, |meta| {
        meta["ulid"] = merged.into();
        meta["minTime"] = (*times.iter().min().unwrap()).into();
        meta["maxTime"] = (*times.iter().max().unwrap()).into();
        meta["compaction"] = json!({"level": 2, "sources": parts});
    });
    fs::write(from.join("deletion-mark.json"), "{}").unwrap();
}

#[tokio::test]
async fn a_block_that_was_merged_and_marked_is_there_as_long_as_the_merged_one_is_whole() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    backfill(dir.path(), &bucket, &[]).ended(0);
    let merged = "01KEMERGED0000000000000000";
    merge(store.path(), &sealed(dir.path()), merged);
    let report = backfill(dir.path(), &bucket, &[]).ended(0).json();
    let [(result, why)] = &results(&report)[..] else {
        panic!("{report:#}")
    };
    assert!(result == "there" && why.contains(merged), "{report:#}");
    fs::remove_file(store.path().join(merged).join("chunks/000001")).unwrap();
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let [(result, why)] = &results(&report)[..] else {
        panic!("{report:#}")
    };
    assert!(
        result == "refused" && why.contains("chunks/000001 is missing"),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_part_of_a_block_that_the_store_refuses_is_refused_with_it() {
    let (dir, server) = (blocks_of(1), S3Server::start());
    let bucket = server.bucket("part");
    // A later name, as a compactor gives it.
    let (part, larger) = (sealed(dir.path()).remove(0), "7ZMERGED000000000000000000");
    merge(dir.path(), std::slice::from_ref(&part), larger);
    let refused = Fault::Answer(413, "EntityTooLarge");
    server.fault(Rule::on("PUT", &format!("{larger}/index*"), refused));
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert_eq!(row(&report, larger)["result"], "refused", "{report:#}");
    let row = row(&report, &part);
    assert_eq!(
        (&row["decision"], &row["result"]),
        (&json!("left out"), &json!("refused"))
    );
    let why = row["why"].as_str().unwrap();
    assert!(
        why.contains(larger) && why.contains("move it away to send this"),
        "{why}"
    );
    assert_eq!(report["totals"]["refused"], 2, "{report:#}");
    server.heal();
    let report = backfill(dir.path(), &bucket, &[]).ended(0).json();
    assert_eq!(bucket.visible().await, [larger], "{report:#}");
}

#[tokio::test]
async fn what_is_not_whole_at_the_end_is_told_in_the_report() {
    let (dir, server) = (blocks_of(1), S3Server::start());
    let bucket = server.bucket("lost");
    backfill(dir.path(), &bucket, &[]).ended(0);
    // The plan asks twice: what there is, and what stands under this name. What comes after it is the proof.
    server.fault(Rule::on("GET", "*/meta.json*", Fault::Answer(403, "AccessDenied")).skip(2));
    let ran = backfill(dir.path(), &bucket, &[]).ended(1);
    let report = ran.json();
    assert_eq!(report["outcome"], "failed", "{report:#}");
    let said = report["failures"][0].as_str().unwrap();
    assert!(
        said.contains("is in the bucket, but could not be checked afterwards"),
        "it was there before: {said}"
    );
}

#[tokio::test]
async fn a_block_marked_for_deletion_is_not_taken_for_safe() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    backfill(dir.path(), &bucket, &[]).ended(0);
    let id = sealed(dir.path()).remove(0);
    bucket.put(&format!("{id}/deletion-mark.json"), b"{}".to_vec()).await;
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert!(
        row(&report, &id)["why"]
            .as_str()
            .unwrap()
            .contains("marked for deletion"),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_mark_under_the_name_of_a_block_is_refused_before_anything_is_sent() {
    let (dir, store) = (blocks_of(2), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let ids = sealed(dir.path());
    let mark = format!("{}/deletion-mark.json", ids[0]);
    bucket.put(&mark, b"{}".to_vec()).await;
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let why = row(&report, &ids[0])["why"].as_str().unwrap();
    assert!(why.contains("deletion-mark.json stands under its name"), "{why}");
    let there = bucket.list_below(&format!("{}/", ids[0])).await;
    assert_eq!(
        there.into_keys().collect::<Vec<_>>(),
        [mark],
        "nothing was sent beside it"
    );
    assert_eq!(bucket.visible().await, [ids[1].as_str()]);
}

#[tokio::test]
async fn what_is_marked_for_deletion_is_in_nobodys_way() {
    let (dir, store) = (blocks_of(1), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    backfill(dir.path(), &bucket, &[]).ended(0);
    let (id, other) = (sealed(dir.path()).remove(0), "01KEMERGED0000000000000000");
    fs::rename(store.path().join(&id), store.path().join(other)).unwrap();
    edit_meta(&store.path().join(other), |meta| {
        meta["ulid"] = other.into();
        meta["compaction"]["sources"] = json!([other]);
    });
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert!(
        row(&report, &id)["why"].as_str().unwrap().contains("overlaps"),
        "{report:#}"
    );
    bucket.put(&format!("{other}/deletion-mark.json"), b"{}".to_vec()).await;
    backfill(dir.path(), &bucket, &[]).ended(0);
    assert!(bucket.visible().await.contains(&id));
}

#[tokio::test]
async fn a_meta_that_the_store_refuses_is_named_and_stops_nothing() {
    let (dir, server) = (blocks_of(2), S3Server::start());
    let bucket = server.bucket("refused");
    let foreign = "01K4ABCDEFGHJKMNPQRSTVWXYZ";
    bucket.put(&format!("{foreign}/meta.json"), b"{}".to_vec()).await;
    let refused = format!("{foreign}/meta.json*");
    server.fault(Rule::on("GET", &refused, Fault::Answer(403, "AccessDenied")));
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    assert_eq!(report["outcome"], "some_unreadable", "{report:#}");
    assert_eq!(report["unreadable"][0]["ulid"], foreign, "{report:#}");
    assert!(
        report["unreadable"][0]["why"]
            .as_str()
            .unwrap()
            .contains("AccessDenied"),
        "{report:#}"
    );
    assert_eq!(report["totals"]["proven"], 2, "{report:#}");
    // The same under the name of one of ours.
    server.heal();
    let ids = sealed(dir.path());
    let refused = format!("{}/meta.json*", ids[0]);
    server.fault(Rule::on("GET", &refused, Fault::Answer(403, "AccessDenied")));
    let report = backfill(dir.path(), &bucket, &[]).ended(3).json();
    let why = row(&report, &ids[0])["why"].as_str().unwrap();
    assert!(
        why.contains("AccessDenied") && why.contains("nothing is overwritten"),
        "{why}"
    );
    assert_eq!(row(&report, &ids[1])["result"], "there", "{report:#}");
}

#[test]
fn the_meta_of_a_block_is_read_once_in_each_step() {
    let (dir, server) = (blocks_of(1), S3Server::start());
    let bucket = server.bucket("requests");
    let key = format!("{}/meta.json", sealed(dir.path())[0]);
    let reads = || server.count(|seen| seen.method == "GET" && seen.key.ends_with(&key));
    backfill(dir.path(), &bucket, &[]).ended(0);
    let before = reads();
    backfill(dir.path(), &bucket, &[]).ended(0);
    // What the bucket holds, what stands under the name of the block, and the proof at the end.
    assert_eq!(reads() - before, 3);
}

#[test]
fn a_bucket_that_fails_half_way_is_told_and_the_next_run_goes_on() {
    let (dir, server) = (blocks_of(3), S3Server::start());
    let bucket = server.bucket("fails");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Six objects are taken, then nobody may write any more.
    server.fault(Rule::on("PUT", "*", Fault::Answer(403, "AccessDenied")).skip(6));
    let ran = backfill(dir.path(), &bucket, &[]).ended(1);
    let report = ran.json();
    assert_eq!(report["outcome"], "failed", "{report:#}");
    assert!(
        ran.stderr.contains("AccessDenied") || ran.stderr.contains("s3:PutObject"),
        "{}",
        ran.stderr
    );
    assert_eq!(report["totals"]["sent"], report["totals"]["proven"], "{report:#}");
    server.heal();
    // What was under way when another was refused was cut.
    let stored = runtime.block_on(bucket.list()).len();
    let before = server.seen().len();
    backfill(dir.path(), &bucket, &[]).ended(0);
    let again = server
        .seen()
        .split_off(before)
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .count();
    assert!(
        stored > 0 && again <= 9 - stored,
        "{stored} were there, {again} were sent"
    );
    runtime.block_on(is_all_there(&bucket, dir.path()));
}

#[tokio::test]
async fn a_signal_cuts_it_and_the_exit_code_says_so() {
    let (dir, server, log) = (blocks_of(3), S3Server::start(), temp_dir("log"));
    let bucket = server.bucket("signal");
    server.fault(Rule::on("PUT", "*/index", Fault::Hang).skip(1));
    let log = log.path().join("log");
    let process = one_shot::start(&words(dir.path(), &bucket.config(), &[LABEL]), &log);
    let hanging =
        async || (server.count(|seen| seen.method == "PUT" && seen.key.ends_with("/index")) > 1).then_some(());
    wait_until(Duration::from_secs(60), "a request that hangs", hanging).await;
    process.signal("TERM");
    assert_eq!(
        process.wait(Duration::from_secs(60)).await.code(),
        Some(4),
        "{}",
        process.log()
    );
    assert!(process.log().contains("\"outcome\": \"cut\""), "{}", process.log());
    server.heal();
    backfill(dir.path(), &bucket, &[]).ended(0);
    is_all_there(&bucket, dir.path()).await;
}

#[tokio::test]
async fn the_words_of_thanos_do_the_same() {
    let (dir, store) = (blocks_of(2), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let (path, config) = (
        format!("--path={}", dir.path().display()),
        format!("--objstore.config={}", bucket.config()),
    );
    let words = ["tools", "bucket", "upload-blocks", &path, &config];
    let ran = narthex(&words).ended(3);
    assert!(ran.stdout.contains("give --label"), "{ran:?}");
    narthex(&[&words[..], &["--label=cluster=\"eu\"", "--label", "replica=\"a\""]].concat()).ended(0);
    is_all_there(&bucket, dir.path()).await;
    let id = sealed(dir.path()).remove(0);
    let meta = bucket.read_json(&format!("{id}/meta.json")).await;
    assert_eq!(meta["thanos"]["labels"], json!({"cluster": "eu", "replica": "a"}));
    assert_eq!(meta["thanos"]["source"], "bucket.upload");
    assert!(
        !dir.path().join("thanos.shipper.json").try_exists().unwrap(),
        "the source is only read"
    );
}
