//! What happens between the moment that a block's data is in the bucket and its commit.

use prometheus_client::registry::Registry;

use super::*;
use crate::{
    audit::integrity::Reader,
    backfill::{CheckProgress, Overlaps, plan, prove},
    objstore::{
        Limits, Op,
        layers::{Fault, Faulty},
    },
    tsdb::testing::real_block,
};

/// A real block, a bucket in a directory, and the plan to send it.
struct Scene {
    _data: tempfile::TempDir,
    store: tempfile::TempDir,
    block: Block,
    bucket: Arc<dyn Bucket>,
    settings: Settings,
    plan: Plan,
}

async fn scene() -> Scene {
    let (data, block) = real_block();
    let store = tempfile::tempdir().unwrap();
    let yaml = format!("type: FILESYSTEM\nconfig:\n  directory: {:?}\n", store.path());
    let config = objstore::config::parse(&yaml).unwrap();
    let bucket = objstore::open(&config, &Limits::default(), &mut Registry::default()).await;
    let bucket = bucket.unwrap();
    let settings = Settings {
        path: data.path().into(),
        labels: Labels::from_pairs([("cluster", "eu")]),
        accept_label_change: true,
        overlaps: Overlaps::Refuse,
        allow_index_issues: false,
        newer_encodings: Default::default(),
        upload_compacted: true,
        min_time: i64::MIN,
        max_time: i64::MAX,
        sha256: false,
        source: "bucket.upload".into(),
        threads: 1,
        full: false,
    };
    let plan = plan(&settings, &bucket, &CheckProgress::default()).await.unwrap();
    Scene {
        _data: data,
        store,
        block,
        bucket,
        settings,
        plan,
    }
}

impl Scene {
    /// The block's data is in the bucket; then `meanwhile` happens; then it is committed.
    async fn outcome(&self, meanwhile: impl AsyncFnOnce()) -> BlockOutcome {
        let apply = Apply::new(&self.settings, &self.bucket);
        let item = self.plan.to_send().next().unwrap();
        let Ok(uploaded) = upload(&apply.uploader, &job(item).unwrap(), &item.labels).await else {
            panic!("it is not uploaded")
        };
        meanwhile().await;
        apply.commit_uploaded(item, Ok(uploaded)).await.unwrap()
    }
}

#[tokio::test]
async fn what_somebody_else_commits_meanwhile_is_not_overwritten() {
    let scene = scene().await;
    let path = scene.store.path().join(format!("{}/meta.json", scene.block.id));
    let text = fs_err::read_to_string(scene.block.dir.join("meta.json")).unwrap();
    let outcome = scene.outcome(async || fs_err::write(&path, &text).unwrap()).await;
    let BlockOutcome::Refused(why) = outcome else {
        panic!("it is not refused")
    };
    assert!(why.contains("appeared") && why.contains("labels"), "{why}");
    assert_eq!(fs_err::read_to_string(path).unwrap(), text);
}

#[tokio::test]
async fn the_same_block_from_somebody_else_is_there() {
    let scene = scene().await;
    let other = Apply::new(&scene.settings, &scene.bucket);
    let stop = CancellationToken::new();
    let outcome = scene
        .outcome(async || {
            let applied = other.run(&scene.plan, &stop, |_| {}).await;
            assert_eq!(applied.sent, [scene.block.id]);
        })
        .await;
    assert!(matches!(outcome, BlockOutcome::There));
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_checked_is_told() {
    let scene = scene().await;
    let index = scene.block.dir.join("index");
    let bytes = fs_err::read(&index).unwrap();
    fs_err::remove_file(&index).unwrap();
    fs_err::write(&index, bytes).unwrap();
    let apply = Apply::new(&scene.settings, &scene.bucket);
    let applied = apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await;
    let [(_, why)] = &applied.refused[..] else {
        panic!("{applied:?}")
    };
    assert!(why.contains("changed since it was checked; run again"), "{why}");
}

#[tokio::test]
async fn a_block_that_is_removed_here_once_it_is_sent_is_proven_all_the_same() {
    let scene = scene().await;
    let apply = Apply::new(&scene.settings, &scene.bucket);
    let applied = apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await;
    assert_eq!(applied.sent, [scene.block.id]);
    fs_err::remove_dir_all(&scene.block.dir).unwrap();
    let items: Vec<&Item> = scene.plan.to_send().collect();
    let proven = async || prove(&items, &scene.settings, &scene.bucket, &Reader::new(2)).await;
    let good = proven().await;
    assert_eq!((good.whole, good.wrong), (1, vec![]));
    let path = scene.store.path().join(format!("{}/chunks/000001", scene.block.id));
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[20] ^= 1;
    fs_err::write(path, bytes).unwrap();
    assert_eq!(proven().await.wrong.len(), 1);
}

#[tokio::test]
async fn a_mark_that_appears_after_the_plan_was_made_stops_the_commit() {
    let scene = scene().await;
    let dir = scene.store.path().join(scene.block.id.to_string());
    let mark = dir.join("deletion-mark.json");
    let outcome = scene.outcome(async || fs_err::write(&mark, "{}").unwrap()).await;
    let BlockOutcome::Refused(why) = outcome else {
        panic!("it is not refused")
    };
    assert!(why.contains("a deletion-mark.json stands under its name"), "{why}");
    assert!(!dir.join("meta.json").try_exists().unwrap(), "it is not committed");
}

/// Copies the block in `from` to a block of another name beside it that was compacted of it.
fn compacted(from: &std::path::Path, to: &str) -> std::path::PathBuf {
    let id = from.file_name().unwrap().to_str().unwrap();
    let dir = from.with_file_name(to);
    fs_err::create_dir_all(dir.join("chunks")).unwrap();
    for file in ["chunks/000001", "index"] {
        fs_err::copy(from.join(file), dir.join(file)).unwrap();
    }
    let text = fs_err::read(from.join("meta.json")).unwrap();
    let mut meta: serde_json::Value = serde_json::from_slice(&text).unwrap();
    meta["ulid"] = to.into();
    meta["compaction"] = serde_json::json!({"level": 2, "sources": [id]});
    fs_err::write(dir.join("meta.json"), meta.to_string()).unwrap();
    dir
}

/// The name of what was compacted: later than that of the real block, as a compactor gives it.
const LARGER: &str = "7ZMERGED000000000000000000";

#[tokio::test]
async fn a_block_that_a_compactor_has_merged_since_it_was_sent_is_proven_by_the_merged_one() {
    let scene = scene().await;
    let apply = Apply::new(&scene.settings, &scene.bucket);
    let applied = apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await;
    assert_eq!(applied.sent, [scene.block.id]);
    let dir = scene.store.path().join(scene.block.id.to_string());
    let merged = compacted(&dir, LARGER);
    let items: Vec<&Item> = scene.plan.to_send().collect();
    let counted = async || {
        let proven = prove(&items, &scene.settings, &scene.bucket, &Reader::new(2)).await;
        (proven.whole, proven.merged)
    };
    assert_eq!(counted().await, (1, 0), "the block itself is there");
    fs_err::write(dir.join("deletion-mark.json"), "{}").unwrap();
    assert_eq!(counted().await, (0, 1), "the block is marked");
    fs_err::remove_file(dir.join("meta.json")).unwrap();
    assert_eq!(counted().await, (0, 1), "the block is being deleted");
    fs_err::remove_dir_all(&dir).unwrap();
    assert_eq!(counted().await, (0, 1), "the block is gone");
    fs_err::remove_file(merged.join("index")).unwrap();
    assert_eq!(counted().await, (0, 0), "the merged one is not whole");
}

#[tokio::test]
async fn a_block_that_somebody_else_sent_and_a_compactor_merged_since_the_plan_was_made_is_there() {
    let scene = scene().await;
    let run = async || {
        let apply = Apply::new(&scene.settings, &scene.bucket);
        apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await
    };
    assert_eq!(run().await.sent, [scene.block.id], "as the other one does");
    let dir = scene.store.path().join(scene.block.id.to_string());
    let merged = compacted(&dir, LARGER);
    fs_err::write(dir.join("deletion-mark.json"), "{}").unwrap();
    let applied = run().await;
    assert_eq!((applied.refused, applied.there), (vec![], vec![scene.block.id]));
    // Without the merged one it is not.
    fs_err::remove_dir_all(merged).unwrap();
    let applied = run().await;
    assert_eq!((applied.refused.len(), applied.there), (1, vec![]));
}

#[tokio::test]
async fn parts_of_a_block_that_is_not_sent_are_named_with_it() {
    let mut scene = scene().await;
    let larger = compacted(&scene.block.dir, LARGER);
    scene.plan = plan(&scene.settings, &scene.bucket, &CheckProgress::default())
        .await
        .unwrap();
    let due: Vec<String> = scene.plan.to_send().map(|item| item.id.to_string()).collect();
    assert_eq!(due, [LARGER], "{:?}", scene.plan);
    let apply = Apply::new(&scene.settings, &scene.bucket);
    let stop = CancellationToken::new();
    stop.cancel();
    let applied = apply.run(&scene.plan, &stop, |_| {}).await;
    let left: Vec<String> = applied.left.iter().map(ToString::to_string).collect();
    assert_eq!(left, [LARGER, &scene.block.id.to_string()]);
    // It vanishes before it is sent.
    fs_err::remove_dir_all(larger).unwrap();
    let applied = apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await;
    let [(first, _), (part, why)] = &applied.refused[..] else {
        panic!("{applied:?}")
    };
    assert_eq!((first.to_string().as_str(), *part), (LARGER, scene.block.id));
    assert!(why.contains(LARGER) && why.contains("which is refused"), "{why}");
}

#[tokio::test]
async fn a_block_that_is_marked_once_it_is_sent_is_not_proven() {
    let scene = scene().await;
    let apply = Apply::new(&scene.settings, &scene.bucket);
    let applied = apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await;
    assert_eq!(applied.sent, [scene.block.id]);
    let dir = scene.store.path().join(scene.block.id.to_string());
    fs_err::write(dir.join("deletion-mark.json"), "{}").unwrap();
    let items: Vec<&Item> = scene.plan.to_send().collect();
    let proven = prove(&items, &scene.settings, &scene.bucket, &Reader::new(2)).await;
    let [(_, why)] = &proven.wrong[..] else {
        panic!("{proven:?}")
    };
    assert!(why.contains("marked for deletion"), "{why}");
}

#[tokio::test]
async fn what_the_proof_has_found_is_kept_when_the_bucket_fails_afterwards() {
    let scene = scene().await;
    let apply = Apply::new(&scene.settings, &scene.bucket);
    let applied = apply.run(&scene.plan, &CancellationToken::new(), |_| {}).await;
    assert_eq!(applied.sent, [scene.block.id]);
    let dir = scene.store.path().join(scene.block.id.to_string());
    fs_err::remove_file(dir.join("index")).unwrap();
    let items: Vec<&Item> = scene.plan.to_send().collect();
    // The first look reads meta.json once; the bucket fails at that, or at the second look.
    for (calls, wrong, unchecked) in [(1, 0, 1), (2, 1, 0)] {
        let faulty = Faulty::new(Arc::clone(&scene.bucket));
        faulty.on(Op::Get, "meta.json", calls.., Fault::Fail(ErrorKind::Server));
        let bucket: Arc<dyn Bucket> = faulty;
        let proven = prove(&items, &scene.settings, &bucket, &Reader::new(2)).await;
        assert_eq!(proven.wrong.len(), wrong, "{proven:?}");
        let failed = proven.failed.unwrap();
        assert_eq!(failed.error.kind, ErrorKind::Server);
        assert_eq!(failed.unchecked.len(), unchecked, "{failed:?}");
        assert_eq!(failed.merges_unknown, wrong == 1, "{failed:?}");
    }
}
