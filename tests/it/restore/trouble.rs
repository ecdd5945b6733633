//! A bucket that fails half-way: what can heal is asked for again, what cannot harms no other block.

use super::scene::{EU, Listed, Scene};
use crate::rig::{Fault, Rule, S3Server, tools::temp_dir};

/// Three blocks on a server that follows a script.
async fn three() -> (S3Server, Scene, Vec<String>) {
    let server = S3Server::start();
    let bucket = server.bucket("restore");
    let dir = temp_dir("restore");
    let scene = Scene { bucket, dir };
    let mut ids = Vec::new();
    for slot in 0..3 {
        ids.push(scene.ship(slot, EU, Listed::Hashed, |_| {}).await);
    }
    ids.sort();
    (server, scene, ids)
}

async fn all_there(scene: &Scene, ids: &[String]) {
    assert_eq!(scene.entries(), ids);
    for id in ids {
        scene.assert_same(id).await;
    }
}

#[tokio::test]
async fn trouble_that_passes_is_waited_out() {
    let (server, scene, ids) = three().await;
    server.fault(Rule::on("GET", "*/chunks/000001*", Fault::CutAnswer(1000)).times(4));
    server.fault(Rule::on("GET", "*/index*", Fault::Answer(503, "SlowDown")).times(4));
    server.fault(
        Rule::on("GET", "*/meta.json*", Fault::Answer(500, "InternalError"))
            .skip(3)
            .times(2),
    );
    scene.restore(&[]).assert(0, &["restored      3 blocks"]);
    all_there(&scene, &ids).await;
}

#[tokio::test]
async fn trouble_with_one_object_leaves_the_other_blocks_alone() {
    let (server, scene, ids) = three().await;
    server.fault(Rule::on(
        "GET",
        &format!("{}/index*", ids[1]),
        Fault::Answer(404, "NoSuchKey"),
    ));
    // One at a time: the chunks are complete before the index is asked for.
    scene.restore(&["--concurrency=1"]).assert(
        1,
        &[
            "failed        1 block",
            "deleted meanwhile",
            "the bucket failed for 1 block",
            "run it again to continue",
        ],
    );
    scene.assert_same(&ids[0]).await;
    scene.assert_same(&ids[2]).await;
    let half = format!("{}.tmp-for-creation", ids[1]);
    assert_eq!(scene.entries(), [ids[0].as_str(), half.as_str(), ids[2].as_str()]);
    server.heal();
    let before = server.seen().len();
    scene
        .restore(&[])
        .assert(0, &["restored      1 block", "there already 2 blocks"]);
    // The chunks of the block that failed came all the same.
    let chunks = |seen: &crate::rig::fault::Seen| seen.method == "GET" && seen.key.contains("/chunks/");
    assert!(!server.seen()[before..].iter().any(chunks));
    all_there(&scene, &ids).await;
}

#[tokio::test]
async fn a_bucket_that_stays_sick_ends_it_in_the_end() {
    let (server, scene, ids) = three().await;
    server.fault(Rule::on(
        "GET",
        &format!("{}/index*", ids[0]),
        Fault::Answer(503, "SlowDown"),
    ));
    scene
        .restore(&[])
        .assert(1, &["failed        1 block", "restored      2 blocks", "SlowDown"]);
}

#[tokio::test]
async fn a_bucket_that_lets_nobody_in_stops_it_at_once() {
    let (server, scene, ids) = three().await;
    server.fault(Rule::on("GET", "*/index*", Fault::Answer(403, "InvalidAccessKeyId")));
    scene
        .restore(&[])
        .assert(1, &["restored 0 of 3 blocks", "InvalidAccessKeyId", "not done"]);
    assert!(scene.entries().iter().all(|name| !ids.contains(name)));
}

#[tokio::test]
async fn an_archived_block_is_named_and_the_other_blocks_are_restored() {
    let (server, scene, ids) = three().await;
    let chunks = format!("{}/chunks/*", ids[1]);
    server.fault(Rule::on("GET", &chunks, Fault::Answer(403, "InvalidObjectState")));
    let said = [
        "restored      2 blocks",
        "refused       1 block",
        ids[1].as_str(),
        "restore it from the archive",
    ];
    scene.restore(&[]).assert(3, &said);
    scene.assert_same(&ids[0]).await;
    scene.assert_same(&ids[2]).await;
    assert!(!scene.entries().contains(&ids[1]));
    server.heal();
    scene.restore(&[]).assert(0, &["restored      1 block"]);
    scene.assert_same(&ids[1]).await;
}

#[tokio::test]
async fn a_meta_that_the_store_refuses_is_named_and_the_other_blocks_are_restored() {
    let (server, scene, ids) = three().await;
    let meta = format!("{}/meta.json*", ids[1]);
    server.fault(Rule::on("GET", &meta, Fault::Answer(403, "AccessDenied")));
    scene
        .restore(&[])
        .assert(3, &["restored      2 blocks", ids[1].as_str(), "AccessDenied"]);
    scene.assert_same(&ids[0]).await;
    scene.assert_same(&ids[2]).await;
}
