//! Commits whose answer is lost, false or a refusal: what the bucket says when it is read back decides.

use super::{Case, PATIENCE, Sick, seal, sound};
use crate::rig::{Fault, Rule, fault::Seen};

/// How often a block's `meta.json` was sent.
fn commits(sick: &Sick, id: &str) -> usize {
    let key = format!("{id}/meta.json");
    sick.server.count(|seen| seen.method == "PUT" && seen.key == key)
}

#[tokio::test]
async fn a_commit_that_was_carried_out_is_not_sent_again() {
    let sick = Sick::start("max_retries: 1\n").await;
    let mut shipped: Vec<String> = Vec::new();
    for fault in [
        Fault::LoseAnswer,
        Fault::DoneBut(500, "InternalError"),
        Fault::DoneBut(503, "SlowDown"),
    ] {
        sick.server.fault(Rule::on("PUT", "*/meta.json*", fault));
        let id = seal(&sound(shipped.len() as u64), sick.stage.dir(), |_| {});
        let key = format!("{id}/meta.json");
        let told = [
            "level=info",
            "the commit failed, but the bucket has it",
            &key,
            "cannot upload s3://",
        ];
        sick.stage.wait_for_log(&told).await;
        shipped.push(id);
        let ids: Vec<&str> = shipped.iter().map(String::as_str).collect();
        sick.arrive(&ids).await;
        sick.server.heal();
    }
    for id in &shipped {
        assert_eq!(commits(&sick, id), 1, "{id}");
    }
    // The store failed, and no block did.
    let failed = [("operation", "upload")];
    let name = "thanos_objstore_bucket_operation_failures_total";
    assert_eq!(sick.stage.metrics().await.value(name, &failed), Some(3.0));
    for name in [
        "thanos_shipper_upload_failures_total",
        "thanos_shipper_dir_sync_failures_total",
    ] {
        assert_eq!(sick.stage.metric(name).await, 0.0, "{name}");
    }
}

#[tokio::test]
async fn a_commit_that_was_not_carried_out_is_sent_again() {
    let put = |fault, said| Case::put("*/meta.json*", fault, said);
    let cases = [
        put(Fault::CutBody(10), &["cannot upload", "/meta.json: no answer"]),
        put(
            Fault::Answer(500, "InternalError"),
            &["cannot upload", "/meta.json: the store answered 500 InternalError"],
        ),
        put(
            Fault::Answer(403, "AccessDenied"),
            &["/meta.json: the store answered 403 AccessDenied", "s3:PutObject"],
        ),
    ];
    Sick::start("max_retries: 1\n")
        .await
        .falls_ill_and_recovers(&cases)
        .await;
}

/// The block is visible, and whole; that narthex cannot know, and must not claim.
#[tokio::test]
async fn a_commit_that_cannot_be_read_back_is_settled_later() {
    let sick = Sick::start("max_retries: 1\n").await;
    sick.server.fault(Rule::on("PUT", "*/meta.json*", Fault::LoseAnswer));
    sick.server.fault(Rule::on("GET", "*/meta.json*", Fault::CutAnswer(10)));
    let id = seal(&sound(0), sick.stage.dir(), |_| {});
    let told = [
        "level=warn",
        "upload failed, retrying",
        "cannot upload s3://",
        &id,
        "/meta.json: no answer",
    ];
    sick.stage.wait_for_log(&told).await;
    sick.stage.wait_for_ledger(&[]).await;
    assert_eq!(sick.stage.bucket.visible().await, [id.as_str()]);
    sick.stage.assert_same(&id, &sick.stage.dir().join(&id)).await;
    // The reader of the next pass fails, too, and the log names what it cannot read.
    let told = [
        "level=warn",
        "cannot read s3://",
        &id,
        "/meta.json: the answer broke off",
    ];
    sick.stage.wait_for_log(&told).await;
    let get = [("operation", "get")];
    sick.stage
        .wait_for_metric("thanos_objstore_bucket_operation_failures_total", &get, |count| {
            count >= 2.0
        })
        .await;
    sick.stage.wait_for_ledger(&[]).await;

    sick.server.heal();
    sick.arrive(&[&id]).await;
    assert_eq!(commits(&sick, &id), 1);
    let whole = |seen: &Seen| seen.method == "GET" && seen.key.ends_with("/meta.json") && seen.fault.is_none();
    let read = async || (sick.server.count(whole) > 0).then_some(());
    sick.stage.sidecar.wait_until(PATIENCE, "it was read", read).await;
}
