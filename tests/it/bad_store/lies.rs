//! Stores that acknowledge what they do not keep, and objects that somebody else wrote or cut: the listing before the
//! commit finds them out, and what is wrong is sent again.

use fs_err as fs;

use super::{Case, Sick, seal, sound};
use crate::rig::{Fault, Rule, blocks};

#[tokio::test]
async fn what_was_acknowledged_and_is_not_there_does_not_count() {
    let lie = |pattern, said| Case {
        rule: Rule::on("PUT", pattern, Fault::Swallow),
        operation: None,
        said,
    };
    let cases = [
        lie(
            "*/index*",
            &["acknowledged every object of s3://", "(index is missing)", "sent again"],
        ),
        lie(
            "*/chunks/000001*",
            &["acknowledged every object of s3://", "(chunks/000001 is missing)"],
        ),
        // Without it nobody sees the block, and it is not in the ledger either.
        lie(
            "*/meta.json*",
            &["acknowledged every object of s3://", "(meta.json is missing)"],
        ),
    ];
    Sick::start("").await.falls_ill_and_recovers(&cases).await;
}

#[tokio::test]
async fn an_object_of_another_size_is_told_and_replaced() {
    let sick = Sick::start("").await;
    sick.server.fault(Rule::on("PUT", "*/index*", Fault::Swallow));
    let id = seal(&sound(0), sick.stage.dir(), |dir| {
        // Which the store keeps while it says that it takes ours.
        sick.put_other(dir, "index");
    });
    sick.fails(&[&id, "(index has 5 bytes instead of "], &[]).await;
    sick.server.heal();
    sick.arrive(&[&id]).await;
}

#[tokio::test]
async fn an_object_that_is_cut_before_it_is_listed_is_sent_again_and_the_others_are_not() {
    let sick = Sick::start("max_retries: 1\n").await;
    let listing = Rule::on("GET", "*list-type=2*", Fault::Answer(503, "SlowDown"));
    sick.server.fault(listing);
    let id = seal(&sound(0), sick.stage.dir(), |_| {});
    sick.fails(&[&id, "cannot list", "503 SlowDown"], &[]).await;
    let cut = fs::OpenOptions::new()
        .write(true)
        .open(sick.server.file("sick", &format!("{id}/index")))
        .unwrap();
    cut.set_len(10).unwrap();
    sick.server.heal();
    sick.arrive(&[&id]).await;
    for (name, count) in [("index", 2), ("chunks/000001", 1), ("meta.json", 1)] {
        let key = format!("{id}/{name}");
        let puts = sick.server.count(|seen| seen.method == "PUT" && seen.key == key);
        assert_eq!(puts, count, "{key}");
    }
}

#[tokio::test]
async fn a_part_that_was_acknowledged_and_is_not_there_does_not_count() {
    // The server acknowledges no CRC32C of parts, and does not need to with MD5.
    let sick = Sick::start("max_retries: 1\npart_size: 5242880\nsend_content_md5: true\n").await;
    let part = Rule::on("PUT", "*/chunks/000002?*partNumber=2*", Fault::Swallow);
    sick.server.fault(part);
    let (_sparse, block) = blocks::sparse(12 << 20);
    let id = seal(&block, sick.stage.dir(), |_| {});
    sick.fails(&["cannot upload", &id, "/chunks/000002: the store answered 500"], &[])
        .await;
    assert!(sick.server.count(|seen| seen.fault == Some(Fault::Swallow)) > 0);
    sick.server.heal();
    sick.arrive(&[&id]).await;
}

#[tokio::test]
async fn an_object_that_is_not_of_the_block_is_not_made_visible_with_it() {
    let sick = Sick::start("").await;
    let id = seal(&sound(0), sick.stage.dir(), |dir| {
        sick.put_other(dir, "chunks/000007");
    });
    let place = format!("s3://{}/sick/{id}", sick.server.host());
    let told = [
        "level=error",
        "a block is left out",
        &id,
        "chunks/000007",
        &place,
        "move it away",
    ];
    sick.stage.wait_for_log(&told).await;
    let reason = [("reason", "foreign_object")];
    sick.stage
        .wait_for_metric("narthex_quarantined_blocks", &reason, |count| count == 1.0)
        .await;
    // It holds nobody up.
    let next = seal(&sound(1), sick.stage.dir(), |_| {});
    sick.stage.wait_for_ledger(&[&next]).await;
    assert_eq!(sick.stage.bucket.visible().await, [next.as_str()]);
    sick.stage.assert_same(&next, &sick.stage.dir().join(&next)).await;
    let kept = sick.stage.bucket.read(&format!("{id}/chunks/000007")).await;
    assert_eq!(kept.unwrap(), b"other", "nothing in the bucket is deleted");
}

#[tokio::test]
async fn a_visible_block_that_was_damaged_in_the_bucket_is_made_whole_before_it_counts() {
    let mut sick = Sick::start("").await;
    let id = seal(&sound(0), sick.stage.dir(), |_| {});
    sick.arrive(&[&id]).await;
    sick.stage.sidecar.kill9();
    let ledger = sick.stage.dir().join("thanos.shipper.json");
    let index = sick.server.file("sick", &format!("{id}/index"));
    fs::remove_file(&ledger).unwrap();
    fs::remove_file(&index).unwrap();
    // First the bucket does not even say what is there.
    sick.server
        .fault(Rule::on("GET", "*list-type=2*", Fault::Answer(403, "AccessDenied")));
    let commits = || {
        sick.server
            .count(|seen| seen.method == "PUT" && seen.key.ends_with("/meta.json"))
    };
    let before = commits();
    sick.stage.sidecar.start_again();
    let told = [
        "level=warn",
        "upload failed, retrying",
        "cannot list s3://",
        "403 AccessDenied",
        "s3:ListBucket",
    ];
    sick.stage.wait_for_log(&told).await;
    assert!(
        !index.try_exists().unwrap(),
        "nothing is sent before it is known what is there"
    );
    sick.stage.wait_for_ledger(&[]).await;
    sick.stage
        .wait_for_metric("thanos_shipper_dir_sync_failures_total", &[], |count| count >= 1.0)
        .await;

    sick.server.heal();
    sick.stage.wait_for_ledger(&[&id]).await;
    sick.stage.assert_shipped(&[&id]).await;
    assert_eq!(commits(), before, "it was visible already");
}
