//! A bucket that cannot be used, or not for all that a sidecar does: with a real store where it can show that, with a scripted
//! one where not.

use fs_err as fs;
use serde_json::Value;

use super::scene::{Found, Scene, finds, found, on_data, run};
use crate::{
    bad_blocks::stage::{self, seal, sound},
    rig::{
        BucketView, Fault, Rule, S3Client, S3Server, Weed,
        weed::{ACCESS_KEY, SECRET_KEY},
    },
};

/// The flags of an empty data directory and of this bucket.
fn flags(scene: &Scene, config: &str) -> Vec<String> {
    let mut flags = on_data(scene.data.path());
    flags.extend([format!("--objstore.config={config}"), "--no-prometheus".to_owned()]);
    flags
}

#[tokio::test]
async fn what_a_real_store_refuses_is_told_by_name() {
    let (scene, weed) = (Scene::new(), Weed::shared().await);
    let good = weed.bucket("check").await.config();
    let missing = BucketView::s3(S3Client::new(format!("http://{}", weed.host()), "check-missing")).config();
    finds(
        &flags(&scene, &missing),
        &[],
        &[("bucket.exists", "fail", "NoSuchBucket")],
    );
    for (from, said) in [
        (ACCESS_KEY, "InvalidAccessKeyId"),
        (SECRET_KEY, "SignatureDoesNotMatch"),
    ] {
        let wrong = good.replace(from, "hunter2-hunter2");
        let ran = finds(&flags(&scene, &wrong), &[], &[("bucket.credentials", "fail", said)]);
        assert!(
            !ran.stdout.contains("hunter2") && !ran.stderr.contains("hunter2"),
            "{ran:?}"
        );
    }
    // A port that nobody is given.
    let nowhere = good.replace(&weed.host(), "127.0.0.1:1") + "  max_retries: 1\n";
    finds(
        &flags(&scene, &nowhere),
        &[],
        &[("bucket.reachable", "fail", "127.0.0.1:1")],
    );
}

#[test]
fn configurations_are_told_by_line_and_an_empty_one_is_a_warning() {
    let scene = Scene::new();
    for (config, verdict, part) in [
        ("type: S3\nconfig: {bucket: b, bukcet: c}\n", "fail", "bukcet"),
        (
            "type: S3\nconfig: {bucket: b, endpoint: h, sse_config: {type: SSE-C, encryption_key: /none}}\n",
            "fail",
            "/none",
        ),
        (" ", "warn", "--objstore.config is empty"),
    ] {
        finds(&flags(&scene, config), &[], &[("bucket.config", verdict, part)]);
    }
    let gone = BucketView::dir(&scene.store.path().join("gone")).config();
    finds(&flags(&scene, &gone), &[], &[("bucket.exists", "fail", "gone")]);
}

/// Uploads in parts were begun, and each of them was aborted.
fn assert_aborted(store: &S3Server) {
    let begun = store.count(|seen| seen.method == "POST" && seen.query.contains("uploads"));
    let aborted = store.count(|seen| seen.method == "DELETE" && seen.query.contains("uploadId="));
    assert!(begun > 0 && aborted == begun, "{begun} begun, {aborted} aborted");
}

/// What of the scripted store's answers is found by which check.
const ANSWERS: [(&str, &str, u16, &str, &str); 7] = [
    ("GET", "*list-type=2*", 403, "AccessDenied", "bucket.list"),
    ("GET", "*list-type=2*", 403, "RequestTimeTooSkewed", "bucket.clock"),
    ("PUT", "*/whole*", 403, "AccessDenied", "bucket.put"),
    ("PUT", "*/whole*", 400, "KMS.DisabledException", "bucket.put"),
    (
        "POST",
        "*/parts?*uploads*",
        400,
        "KMS.DisabledException",
        "bucket.multipart",
    ),
    ("POST", "*/parts?*uploads*", 403, "AccessDenied", "bucket.multipart"),
    ("GET", "*/parts*", 403, "AccessDenied", "bucket.read"),
];

#[tokio::test]
async fn each_thing_that_a_store_forbids_is_told_by_its_own_name() {
    let (scene, store) = (Scene::new(), S3Server::start());
    let bucket = store.bucket("check");
    let config = bucket.config_with("max_retries: 1\n");
    for (method, pattern, status, code, check) in ANSWERS {
        store.fault(Rule::on(method, pattern, Fault::Answer(status, code)));
        finds(&flags(&scene, &config), &[], &[(check, "fail", code)]);
        store.heal();
        assert!(bucket.list().await.is_empty(), "{check}: {:?}", bucket.list().await);
    }
    store.fault(Rule::on(
        "*",
        "*",
        Fault::Elsewhere(301, "PermanentRedirect", "eu-north-1"),
    ));
    finds(&flags(&scene, &config), &[], &[("bucket.region", "fail", "eu-north-1")]);
    store.heal();
    // Nothing was stored, though it was acknowledged.
    store.fault(Rule::on("PUT", "*/whole*", Fault::Swallow));
    finds(&flags(&scene, &config), &[], &[("bucket.read", "fail", "/whole")]);
}

#[tokio::test]
async fn where_nothing_may_be_deleted_what_stays_is_named_and_all_is_well() {
    let (scene, store) = (Scene::new(), S3Server::start());
    let bucket = store.bucket("check");
    store.fault(Rule::on("DELETE", "*", Fault::Answer(403, "AccessDenied")));
    let ran = finds(&flags(&scene, &bucket.config()), &[], &[]);
    let good = found(&ran).good;
    let text = |check: &str| good.iter().find(|(name, _)| name == check).unwrap().1.clone();
    let objects = bucket.list().await;
    assert!(objects.values().all(|size| *size == 0), "{objects:?}");
    let stays: Vec<String> = objects.into_keys().collect();
    assert_eq!(stays.len(), 2, "{stays:?}");
    for key in &stays {
        assert!(key.starts_with("narthex-check/"), "{key}");
        assert!(
            text("bucket.delete").contains(key.as_str()),
            "{}",
            text("bucket.delete")
        );
    }
    // The next run tells of it, and writes elsewhere.
    store.heal();
    let ran = finds(&flags(&scene, &bucket.config()), &[], &[]);
    assert!(
        found(&ran)
            .good
            .iter()
            .any(|(_, text)| text.contains("have left 2 objects")),
        "{ran:?}"
    );
    assert_eq!(bucket.list().await.into_keys().collect::<Vec<_>>(), stays);
}

#[tokio::test]
async fn a_store_that_hangs_fails_in_time_and_says_what_was_waited_for() {
    let (scene, store) = (Scene::new(), S3Server::start());
    let bucket = store.bucket("check");
    store.fault(Rule::on("GET", "*list-type=2*", Fault::Hang));
    let ran = run(&flags(&scene, &bucket.config()), &["--timeout=3s"]);
    let (verdict, text) = &found(&ran).bad["bucket.list"];
    assert_eq!(verdict, "fail");
    assert!(
        text.contains("(see --timeout): waited for a listing of s3://"),
        "{text}"
    );
}

#[tokio::test]
async fn blocks_of_another_writer_and_marks_of_a_compactor_are_told() {
    let scene = Scene::new();
    let bucket = BucketView::dir(scene.store.path());
    let own = seal(&sound(0), scene.data.path(), |_| {});
    let meta = scene.data.path().join(&own).join("meta.json");
    let meta: Value = serde_json::from_slice(&fs::read(meta).unwrap()).unwrap();
    let prometheus = stage::prometheus().await;
    let mut asking = scene.flags();
    asking.push(format!("--prometheus.url={}", prometheus.url()));
    // The directory is none that this Prometheus holds, and its blocks are short.
    let besides = [
        ("data.prometheus", "warn", "nothing shows"),
        ("prometheus.block-duration", "warn", "5s"),
    ];
    let other = format!("{}ZZZZ", &own[..22]);
    for (replica, is_found) in [("1", false), ("0", true)] {
        let mut meta = meta.clone();
        meta["thanos"]["labels"] = serde_json::json!({"cluster": "rig", "replica": replica});
        meta["ulid"] = other.as_str().into();
        meta["compaction"]["sources"] = serde_json::json!([other]);
        bucket
            .put(&format!("{other}/meta.json"), meta.to_string().into_bytes())
            .await;
        let writers = ("bucket.writers", "fail", other.as_str());
        let wanted: Vec<_> = besides.into_iter().chain(is_found.then_some(writers)).collect();
        finds(&asking, &[], &wanted);
    }
    bucket.put(&format!("{own}/no-compact-mark.json"), b"{}".to_vec()).await;
    let alone = [&scene.flags()[..], &["--no-prometheus".to_owned()]].concat();
    finds(&alone, &[], &[("bucket.marks", "warn", &own)]);
    finds(&alone, &["--shipper.overlapping=mark"], &[]);
}

#[tokio::test]
async fn a_signal_ends_it_and_nothing_stays() {
    let (scene, store) = (Scene::new(), S3Server::start());
    let bucket = store.bucket("check");
    store.fault(Rule::on("PUT", "*/parts?*partNumber=2*", Fault::Hang));
    let flags = flags(&scene, &bucket.config());
    let dir = crate::rig::tools::temp_dir("signal");
    let mut command = std::process::Command::new(crate::rig::Sidecar::program());
    command
        .args(["check", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"])
        .args(&flags);
    let process = crate::rig::process::Process::spawn("narthex", &mut command, &dir.path().join("log"), None);
    crate::rig::wait_until(stage::PATIENCE, "the second part is sent", async || {
        (store.count(|seen| seen.query.contains("partNumber=2")) > 0).then_some(())
    })
    .await;
    store.heal();
    process.signal("TERM");
    assert_eq!(process.wait(stage::PATIENCE).await.code(), Some(4), "{}", process.log());
    assert!(bucket.list().await.is_empty());
    assert_aborted(&store);
}

#[test]
fn all_of_a_run_without_a_bucket_is_one_line_about_it() {
    let scene = Scene::new();
    let ran = run(&on_data(scene.data.path()), &["--no-prometheus"]);
    let Found { bad, good } = found(&ran);
    assert!(bad.is_empty(), "{bad:?}");
    let names: Vec<&str> = good.iter().map(|(check, _)| check.as_str()).collect();
    assert_eq!(names, ["data.directory", "bucket.config", "http.port", "grpc.port"]);
}
