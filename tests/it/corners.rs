//! Rows of `docs/parity.md` that are nobody else's: what has no meaning for narthex and does nothing to it (signals,
//! variables and files that mean something to others), and the order of commits when an upload fails.

use fs_err as fs;

use crate::{
    bad_blocks::stage::{PATIENCE, Stage, args, copy, log_line, prometheus, seal, sound},
    rig::{BucketView, Fault, Rule, S3Server, Sidecar, tools::temp_dir},
};

#[tokio::test]
async fn surroundings_without_meaning_change_nothing() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    // Somebody else's lock, and neither wal/ nor chunks_head/.
    fs::write(data.path().join("lock"), "").unwrap();
    let flags = args(prometheus().await, data.path(), &bucket, &[]);
    let debug = ("DEBUG".to_owned(), "1".to_owned());
    let sidecar = Sidecar::start_in(flags, vec![debug]);
    sidecar.wait_ready(PATIENCE).await;
    for signal in ["HUP", "PIPE"] {
        sidecar.signal(signal);
    }
    let id = seal(&sound(0), data.path(), |_| {});
    let visible = async || (bucket.visible().await == [id.as_str()]).then_some(());
    sidecar.wait_until(PATIENCE, "the block is visible", visible).await;
    assert!(sidecar.ready().await);
    for said in ["level=error", "level=debug", "wal/", "/lock"] {
        assert_eq!(log_line(&sidecar, &[said]), None);
    }
    assert!(fs::metadata(data.path().join("lock")).unwrap().is_file());
    assert!(sidecar.stop().await.success());
}

#[tokio::test]
async fn a_quit_shows_the_running_calls_in_the_log_and_ends_nothing() {
    // Also where whoever runs the tests ignores the signal.
    let script = "ulimit -c 0; exec env --default-signal=QUIT \"$0\" \"$@\"";
    let under = ["sh", "-c", script].map(str::to_owned);
    let stage = Stage::open(temp_dir("data"), &under, &[]).await;
    stage.sidecar.wait_ready(PATIENCE).await;
    let watch = async || {
        let endpoint = tonic::transport::Channel::from_shared(stage.sidecar.grpc_url()).unwrap();
        let mut client = tonic::client::Grpc::new(endpoint.connect().await.ok()?);
        client.ready().await.ok()?;
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        client.server_streaming(tonic::Request::new(()), path, codec).await.ok()
    };
    let watching = stage.sidecar.wait_until(PATIENCE, "a call runs", watch).await;
    let (_, page) = crate::rig::http::get(&format!("{}/debug/calls", stage.sidecar.url()))
        .await
        .unwrap();
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(page.contains(" method=grpc.health.v1.Health/Watch "), "{page}");
    for times in 1..=2 {
        stage.sidecar.signal("QUIT");
        let told = async || {
            let log = stage.sidecar.log();
            let lists: Vec<&str> = log.split("running gRPC calls, oldest first").skip(1).collect();
            let call = "method=grpc.health.v1.Health/Watch peer=127.0.0.1:";
            (lists.len() == times && lists.iter().all(|list| list.contains(call))).then_some(())
        };
        let what = "the running calls are in the log";
        stage.sidecar.wait_until(PATIENCE, what, told).await;
    }
    drop(watching);
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_journal_is_written_to_or_missed_by_name() {
    let data = temp_dir("data");
    let sidecar = Sidecar::start(vec![
        "--log.format=journald".to_owned(),
        format!("--tsdb.path={}", data.path().display()),
    ]);
    if fs::metadata("/run/systemd/journal/socket").is_ok() {
        let answers = async || sidecar.metrics().await;
        sidecar.wait_until(PATIENCE, "metrics", answers).await;
        assert_eq!(sidecar.log(), "");
    } else {
        assert_eq!(sidecar.wait(PATIENCE).await.code(), Some(1));
        let log = sidecar.log();
        assert!(
            log.starts_with("narthex: error: ") && log.contains("journal") && log.contains("--log.format=logfmt"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_block_that_may_not_be_sent_delays_later_ones_unless_that_is_lifted() {
    for flags in [&[][..], &["--shipper.allow-out-of-order-uploads"]] {
        let (data, server) = (temp_dir("data"), S3Server::start());
        let bucket = server.bucket("order");
        let sidecar = Sidecar::start(args(prometheus().await, data.path(), &bucket, flags));
        let older = ulid::Ulid::generate().to_string();
        server.fault(Rule::on(
            "PUT",
            &format!("{older}/*"),
            Fault::Answer(403, "AccessDenied"),
        ));
        let half = data.path().join(format!("{older}.tmp-for-creation"));
        copy(&sound(0), &half, &older);
        fs::rename(half, data.path().join(&older)).unwrap();
        let younger = seal(&sound(1), data.path(), |_| {});
        for name in [
            "thanos_shipper_upload_failures_total",
            "thanos_shipper_dir_sync_failures_total",
        ] {
            let failures = async || (sidecar.metric(name).await? >= 3.0).then_some(());
            sidecar.wait_until(PATIENCE, name, failures).await;
        }
        let visible = async |blocks: &[&str]| (bucket.visible().await == blocks).then_some(());
        if flags.is_empty() {
            assert_eq!(bucket.visible().await, Vec::<String>::new());
            assert_eq!(sidecar.metric("thanos_shipper_uploads_total").await, Some(0.0));
        } else {
            let alone = async || visible(&[&younger]).await;
            sidecar
                .wait_until(PATIENCE, "the younger block is visible", alone)
                .await;
        }
        server.heal();
        let mut all = [older.as_str(), younger.as_str()];
        all.sort_unstable();
        let both = async || visible(&all).await;
        sidecar.wait_until(PATIENCE, "both blocks are visible", both).await;
    }
}

#[tokio::test]
async fn a_block_that_the_bucket_has_no_place_for_delays_no_other() {
    let stage = Stage::start(&[]).await;
    // An object in the place of the directory that the older block needs.
    let older = ulid::Ulid::generate().to_string();
    stage.bucket.put(&older, b"in the way".to_vec()).await;
    let half = stage.dir().join(format!("{older}.tmp-for-creation"));
    copy(&sound(0), &half, &older);
    fs::rename(half, stage.dir().join(&older)).unwrap();
    let younger = seal(&sound(1), stage.dir(), |_| {});
    stage.wait_for_ledger(&[&younger]).await;
    stage
        .wait_for_metric("narthex_quarantined_blocks", &[("reason", "refused")], |count| {
            count == 1.0
        })
        .await;
    assert_eq!(stage.bucket.visible().await, [younger.as_str()]);
    stage
        .wait_for_log(&[
            "level=error",
            "a block is left out",
            "reason=refused",
            &older,
            "has the object's name",
        ])
        .await;
    assert_eq!(stage.metric("narthex_unuploaded_blocks").await, 1.0);
}
