//! A store that refuses, fails, is away, breaks off or lies: the log says what failed, where, why and what helps; nothing
//! becomes visible before it is whole; and when the store is well again all arrives, in order, without a restart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod commit;
mod credentials;
mod lies;
mod sick;

use self::sick::{Case, Sick};
use crate::{
    bad_blocks::stage::{PATIENCE, listed, log_line, seal, sound},
    rig::{Fault, Rule, blocks, fault::Seen},
};

#[tokio::test]
async fn a_refusal_is_explained_and_heals_without_a_restart() {
    let put = |fault, said| Case::put("*/index*", fault, said);
    let cases = [
        put(
            Fault::Answer(403, "AccessDenied"),
            &[
                "cannot upload",
                "/index: the store answered 403 AccessDenied",
                "s3:PutObject",
            ],
        ),
        // Everything is sent and nothing can be proven.
        Case::list(
            Fault::Answer(403, "AccessDenied"),
            &[
                "cannot list",
                "the store answered 403 AccessDenied",
                "s3:ListBucket on the bucket",
            ],
        ),
        put(
            Fault::Elsewhere(301, "PermanentRedirect", "eu-west-1"),
            &["301 PermanentRedirect", "lives in region", "eu-west-1", "set `region`"],
        ),
        put(
            Fault::Elsewhere(400, "AuthorizationHeaderMalformed", "eu-west-1"),
            &[
                "400 AuthorizationHeaderMalformed",
                "lives in region",
                "eu-west-1",
                "set `region`",
            ],
        ),
        put(
            Fault::Answer(403, "RequestTimeTooSkewed"),
            &["403 RequestTimeTooSkewed", "this host says", "the store says", "(NTP)"],
        ),
    ];
    Sick::start("").await.falls_ill_and_recovers(&cases).await;
}

#[tokio::test]
async fn a_failure_is_explained_and_tried_again() {
    let put = |fault, said| Case::put("*/chunks/000001*", fault, said);
    let cases = [
        put(
            Fault::Answer(500, "InternalError"),
            &["cannot upload", "/chunks/000001: the store answered 500 InternalError"],
        ),
        put(
            Fault::Answer(503, "SlowDown"),
            &["the store answered 503 SlowDown", "retried with growing waits"],
        ),
        put(Fault::CutBody(1000), &["cannot upload", "/chunks/000001: no answer"]),
        // The object is there, and nobody says so.
        put(Fault::LoseAnswer, &["cannot upload", "/chunks/000001: no answer"]),
        Case::list(Fault::CutAnswer(100), &["cannot list", "the answer (200) is cut"]),
        Case::list(
            Fault::Answer(500, "InternalError"),
            &["cannot list", "500 InternalError"],
        ),
    ];
    Sick::start("max_retries: 1\n")
        .await
        .falls_ill_and_recovers(&cases)
        .await;
}

#[tokio::test]
async fn a_short_outage_is_not_even_logged() {
    let sick = Sick::start("").await;
    for (method, pattern, fault) in [
        ("PUT", "*/chunks/000001*", Fault::CutBody(1000)),
        ("PUT", "*/index*", Fault::Answer(503, "SlowDown")),
        ("GET", "*list-type=2*", Fault::CutAnswer(100)),
        ("PUT", "*/meta.json*", Fault::LoseAnswer),
    ] {
        sick.server.fault(Rule::on(method, pattern, fault).times(1));
    }
    let id = seal(&sound(0), sick.stage.dir(), |_| {});
    sick.arrive(&[&id]).await;
    assert_eq!(sick.server.count(|seen| seen.fault.is_some()), 4);
    assert_eq!(log_line(&sick.stage.sidecar, &["upload failed, retrying"]), None);
    for name in [
        "thanos_shipper_upload_failures_total",
        "thanos_shipper_dir_sync_failures_total",
        "thanos_objstore_bucket_operation_failures_total",
    ] {
        assert_eq!(sick.stage.metric(name).await, 0.0, "{name}");
    }
}

#[tokio::test]
async fn a_store_that_was_away_gets_all_blocks_in_order() {
    let sick = Sick::start("max_retries: 1\n").await;
    let data = sick.stage.dir();
    sick.server.down();
    // Sealed the wrong way round, as a late block is.
    let second = seal(&sound(1), data, |_| {});
    let first = seal(&sound(0), data, |_| {});
    // Whichever request comes first, on a kept connection or on a new one: the trouble is the same, and said once.
    sick.fails(&["connection"], &[]).await;
    sick.stage
        .wait_for_metric("narthex_unuploaded_blocks", &[], |count| count == 2.0)
        .await;
    assert_eq!(sick.stage.metric("narthex_durable_until_timestamp_seconds").await, 0.0);
    assert_eq!(sick.stage.metric("thanos_shipper_uploads_total").await, 0.0);
    sick.server.up();
    sick.arrive(&[&first, &second]).await;
    assert_eq!(sick.committed(), [first, second]);
}

#[tokio::test]
async fn who_is_stopped_while_the_store_is_away_says_what_is_left_and_why() {
    let sick = Sick::start_as(|config| config, &["--shipper.grace-period=1s"]).await;
    sick.server.down();
    let ids = [0, 1].map(|slot| seal(&sound(slot), sick.stage.dir(), |_| {}));
    sick.fails(&["connection"], &[]).await;
    sick.stage
        .wait_for_metric("narthex_unuploaded_blocks", &[], |count| count == 2.0)
        .await;
    let exit = sick.stage.sidecar.stop().await;
    assert_eq!(exit.code(), Some(0), "{}", sick.stage.sidecar.log());
    for id in &ids {
        let told = ["level=error", "not durable", "only on the local disk", id];
        assert!(log_line(&sick.stage.sidecar, &told).is_some(), "{id}");
    }
    for told in [
        &["level=error", "uploads failed until the end", "connection"][..],
        &["level=error", "stopped before all blocks were uploaded", "blocks=2"][..],
    ] {
        assert!(log_line(&sick.stage.sidecar, told).is_some(), "{told:?}");
    }
    let ledger = sick.stage.dir().join("thanos.shipper.json");
    assert_eq!(listed(&ledger), Some(Vec::new()));
}

#[tokio::test]
async fn a_later_block_waits_for_one_that_the_store_refuses() {
    let sick = Sick::start("").await;
    let first = seal(&sound(0), sick.stage.dir(), |dir| {
        let id = dir.file_stem().unwrap().display();
        let fault = Fault::Answer(403, "AccessDenied");
        sick.server.fault(Rule::on("PUT", &format!("{id}/meta.json*"), fault));
    });
    sick.fails(&[&first, "/meta.json: the store answered 403 AccessDenied"], &[])
        .await;
    let second = seal(&sound(1), sick.stage.dir(), |_| {});
    let both = |count| count == 2.0;
    sick.stage.wait_for_metric("narthex_unuploaded_blocks", &[], both).await;
    let failures = "thanos_shipper_dir_sync_failures_total";
    let so_far = sick.stage.metric(failures).await;
    sick.stage.wait_for_metric(failures, &[], |count| count > so_far).await;
    assert_eq!(sick.committed(), [first.as_str()], "the later one was not tried");
    assert!(sick.stage.bucket.visible().await.is_empty());
    sick.server.heal();
    sick.arrive(&[&first, &second]).await;
    assert_eq!(sick.committed(), [first, second]);
}

#[tokio::test]
async fn a_region_that_nobody_configured_is_taken_from_the_store() {
    let signed = |seen: &Seen, region: &str| {
        let header = seen.headers["authorization"].to_str().unwrap();
        header.contains(&format!("/{region}/s3/"))
    };
    let sick = Sick::start_as(|config| config.replace("region: us-east-1", ""), &[]).await;
    let fault = Fault::Elsewhere(400, "AuthorizationHeaderMalformed", "eu-west-1");
    sick.server.fault(Rule::on("PUT", "*/index*", fault).times(1));
    let id = seal(&sound(0), sick.stage.dir(), |_| {});
    sick.arrive(&[&id]).await;
    let line = log_line(
        &sick.stage.sidecar,
        &["the store names the bucket's region", "eu-west-1"],
    );
    assert!(line.is_some(), "{}", sick.stage.sidecar.log());
    assert_eq!(sick.stage.metric("thanos_shipper_upload_failures_total").await, 0.0);
    let seen = sick.server.seen();
    let commit = seen.iter().find(|seen| seen.key == format!("{id}/meta.json")).unwrap();
    assert!(signed(commit, "eu-west-1"), "{:?}", commit.headers);
}

#[tokio::test]
async fn a_store_that_never_answers_is_given_up_after_the_configured_time() {
    let sick = Sick::start("max_retries: 1\nhttp_config:\n  response_header_timeout: 1s\n").await;
    sick.server.fault(Rule::on("PUT", "*/index*", Fault::Hang));
    let id = seal(&sound(0), sick.stage.dir(), |_| {});
    sick.fails(&["cannot upload", &id, "/index: no answer in time"], &[])
        .await;
    sick.server.heal();
    sick.arrive(&[&id]).await;
}

/// The one test that takes as long as a stall must: all ways of stalling at once.
#[tokio::test]
async fn a_body_or_an_answer_that_stalls_is_given_up_and_sent_once_more() {
    let sick = Sick::start("").await;
    for (pattern, fault) in [
        // Read to their ends, or nearly, as far as we can see, and no answer.
        ("*/index*", Fault::StallBody(u64::MAX)),
        ("*/chunks/000001*", Fault::StallBody(1000)),
        // More than the system buffers: it stops in the middle.
        ("*/chunks/000002*", Fault::StallBody(1000)),
    ] {
        sick.server.fault(Rule::on("PUT", pattern, fault).times(1));
    }
    let (_sparse, block) = blocks::sparse(12 << 20);
    let id = seal(&block, sick.stage.dir(), |_| {});
    let stalled = async || (sick.server.count(|seen| seen.fault.is_some()) == 3).then_some(());
    sick.stage
        .sidecar
        .wait_until(PATIENCE, "all three requests stall", stalled)
        .await;
    // Meanwhile it lives, and nothing is visible.
    assert!(sick.stage.sidecar.ready().await);
    assert!(sick.stage.bucket.list().await.is_empty());
    sick.arrive(&[&id]).await;
    for name in [
        "thanos_shipper_upload_failures_total",
        "thanos_shipper_dir_sync_failures_total",
    ] {
        assert_eq!(sick.stage.metric(name).await, 0.0, "{name}");
    }
}
