//! Blocks that vanish, arrive slowly, or change under our hands.

use std::{io::Write, path::Path, time::Duration};

use fs_err as fs;
use narthex::{
    model::Labels,
    objstore::{self, Limits},
    shipper::{self, Liveness, Overviews, Policy, PrometheusStatus, Settings, Shipper},
};
use prometheus_client::registry::Registry;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::stage::{PATIENCE, Stage, args, copy, edit_meta, listed, log_line, prometheus, seal, sound, wait_for_log};
use crate::rig::{
    BucketView, Fault, Metrics, Prometheus, Rule, S3Server, Sidecar, Tools, blocks, bucket, prometheus::Options,
    tools::temp_dir, wait_until,
};

/// Deletes a block as Prometheus does by its retention.
fn delete(data: &Path, id: &str) {
    let dying = data.join(format!("{id}.tmp-for-deletion"));
    fs::rename(data.join(id), &dying).unwrap();
    fs::remove_dir_all(dying).unwrap();
}

/// Deletes a block as Prometheus does after a reload that failed: file by file, in place.
fn delete_in_place(data: &Path, id: &str) {
    fs::remove_dir_all(data.join(id)).unwrap();
}

/// A block that goes after the first request with its chunks, of which the store has nothing yet, was sent.
async fn gone_on_its_way(go: fn(&Path, &str)) -> (S3Server, BucketView, Sidecar, String, [tempfile::TempDir; 2]) {
    let server = S3Server::start();
    let bucket = server.bucket("slow");
    let (data, kept) = (temp_dir("data"), temp_dir("kept"));
    let (_sparse, block) = blocks::sparse(12 << 20);
    let args = args(prometheus().await, data.path(), &bucket, &[]);
    let sidecar = Sidecar::start(args);
    let passed = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "a pass", passed).await;

    // The server has the head of the request and has read nothing of the body when the block goes.
    server.fault(Rule::on("PUT", "*/chunks/*", Fault::Hold));
    let id = seal(&block, data.path(), |dir| copy(dir, &kept.path().join("block"), "x"));
    edit_meta(&kept.path().join("block"), |meta| {
        meta["ulid"] = id.as_str().into();
        meta["compaction"]["sources"] = vec![id.as_str()].into();
    });
    let sending = async || {
        let seen = server.seen();
        seen.iter()
            .any(|seen| seen.method == "PUT" && seen.key.contains("/chunks/"))
            .then_some(())
    };
    sidecar
        .wait_until(PATIENCE, "the first request with chunks", sending)
        .await;
    assert!(bucket.list_below(&format!("{id}/chunks/")).await.is_empty());
    go(data.path(), &id);
    server.heal();
    (server, bucket, sidecar, id, [data, kept])
}

#[tokio::test]
async fn a_block_that_is_deleted_while_it_travels_arrives_whole() {
    let (_server, bucket, sidecar, id, [_data, kept]) = gone_on_its_way(delete).await;
    let visible = async || (bucket.visible().await == [id.as_str()]).then_some(());
    sidecar.wait_until(PATIENCE, "the block is visible", visible).await;
    bucket::check(&bucket, &id, &kept.path().join("block")).await.unwrap();
    let shipped = async || (sidecar.metric("thanos_shipper_uploads_total").await? == 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "the block is counted", shipped).await;
    for name in [
        "narthex_vanished_blocks_total",
        "narthex_withdrawn_blocks_total",
        "thanos_shipper_dir_sync_failures_total",
    ] {
        assert_eq!(sidecar.metric(name).await, Some(0.0), "{name}");
    }
}

#[tokio::test]
async fn a_block_that_prometheus_withdraws_during_its_upload_is_not_committed() {
    let (_server, bucket, sidecar, id, _dirs) = gone_on_its_way(delete_in_place).await;
    let withdrawn = async || (sidecar.metric("narthex_withdrawn_blocks_total").await? == 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "the block is withdrawn", withdrawn).await;
    let through = async || (sidecar.metric("narthex_unuploaded_blocks").await? == 0.0).then_some(());
    sidecar.wait_until(PATIENCE, "nothing waits", through).await;
    assert!(bucket.visible().await.is_empty(), "{id} is visible");
    for name in [
        "narthex_vanished_blocks_total",
        "thanos_shipper_corrupted_blocks_total",
        "thanos_shipper_uploads_total",
        "thanos_shipper_dir_sync_failures_total",
    ] {
        assert_eq!(sidecar.metric(name).await, Some(0.0), "{name}");
    }
}

#[tokio::test]
async fn a_block_that_is_deleted_before_its_turn_has_vanished_and_nothing_more() {
    let (data, server) = (temp_dir("data"), S3Server::start());
    let bucket = server.bucket("sick");
    // Nobody gets beyond the first request, which comes before or after the block is opened.
    server.fault(Rule::on("*", "*", Fault::Answer(403, "AccessDenied")));
    let sidecar = Sidecar::start(args(prometheus().await, data.path(), &bucket, &[]));
    let gone = seal(&sound(0), data.path(), |_| {});
    let waiting = async || (sidecar.metric("narthex_unuploaded_blocks").await? == 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "the block waits", waiting).await;
    // Not in the pass that labels begin: a scan that is faster than the watcher takes the block for one that was withdrawn.
    let failed = async || (sidecar.metric("thanos_shipper_dir_sync_failures_total").await? >= 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "its upload fails", failed).await;
    delete(data.path(), &gone);
    let next = seal(&sound(1), data.path(), |_| {});
    let vanished = async || (sidecar.metric("narthex_vanished_blocks_total").await? == 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "the block has vanished", vanished).await;
    wait_for_log(
        &sidecar,
        &["level=warn", "a block was deleted before it was durable", &gone],
    )
    .await;

    server.heal();
    let visible = async || (bucket.visible().await == [next.as_str()]).then_some(());
    sidecar.wait_until(PATIENCE, "the next block is visible", visible).await;
    let clean = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
    sidecar.wait_until(PATIENCE, "a clean pass", clean).await;
    assert!(
        bucket
            .list_below(&gone)
            .await
            .into_keys()
            .all(|key| !key.ends_with("meta.json"))
    );
    assert_eq!(sidecar.metric("narthex_vanished_blocks_total").await, Some(1.0));
    assert_eq!(sidecar.metric("thanos_shipper_corrupted_blocks_total").await, Some(0.0));
}

#[tokio::test]
async fn blocks_that_are_deleted_while_they_wait_for_labels_have_vanished() {
    let options = Options {
        scrape: false,
        external_labels: Vec::new(),
        ..Options::default()
    };
    let mut prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    let sidecar = Sidecar::start(args(&prometheus, data.path(), &bucket, &[]));
    let gone = seal(&sound(0), data.path(), |_| {});
    let kept = seal(&sound(1), data.path(), |_| {});
    let waiting = async || (sidecar.metric("narthex_unuploaded_blocks").await? == 2.0).then_some(());
    sidecar.wait_until(PATIENCE, "the blocks wait", waiting).await;
    delete(data.path(), &gone);
    prometheus.set_external_labels(&[("cluster", "late")]).await;
    let visible = async || (bucket.visible().await == [kept.as_str()]).then_some(());
    sidecar
        .wait_until(PATIENCE, "the other block is visible", visible)
        .await;
    assert_eq!(sidecar.metric("narthex_vanished_blocks_total").await, Some(1.0));
    wait_for_log(&sidecar, &["a block was deleted before it was durable", &gone]).await;
}

/// Writes a file in pieces, with a pause after each.
async fn write_slowly(from: &Path, to: &Path, pieces: usize) {
    let bytes = fs::read(from).unwrap();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let mut file = fs::File::create(to).unwrap();
    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
        file.write_all(piece).unwrap();
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_block_that_is_copied_in_slowly_is_never_visible_before_it_is_whole() {
    let stage = Stage::start(&[]).await;
    let (data, origin) = (stage.dir(), temp_dir("origin"));
    // Whichever file comes first or last.
    let orders = [
        ["meta.json", "chunks/000001", "index"],
        ["index", "meta.json", "chunks/000001"],
        ["chunks/000001", "index", "meta.json"],
    ];
    let mut copies = Vec::new();
    for order in orders {
        let id = ulid::Ulid::generate().to_string();
        let source = origin.path().join(&id);
        copy(&sound(1), &source, &id);
        fs::create_dir(data.join(&id)).unwrap();
        copies.push((id, source, order));
    }
    // Seen at once, so that the pass which it wakes meets the directories in every state.
    let hint = seal(&sound(0), data, |_| {});
    let write = async |(id, source, order): &(String, std::path::PathBuf, [&str; 3])| {
        for name in order {
            write_slowly(&source.join(name), &data.join(id).join(name), 4).await;
        }
        assert!(
            !stage.bucket.visible().await.contains(id),
            "{id} is visible, and was just written to"
        );
    };
    let [first, second, third] = [&copies[0], &copies[1], &copies[2]];
    tokio::join!(write(first), write(second), write(third));

    let ids: Vec<&str> = copies
        .iter()
        .map(|(id, ..)| id.as_str())
        .chain([hint.as_str()])
        .collect();
    stage.wait_for_ledger(&ids).await;
    stage.assert_shipped(&ids).await;
    for (id, ..) in &copies {
        assert_eq!(log_line(&stage.sidecar, &["level=error", id]), None);
        assert!(log_line(&stage.sidecar, &["level=info", "a block is being copied in", id]).is_some());
    }
    assert_eq!(stage.metric("thanos_shipper_corrupted_blocks_total").await, 0.0);
}

#[tokio::test]
async fn a_copied_block_that_changes_while_it_is_held_starts_over() {
    let stage = Stage::start(&[]).await;
    let mut shipped = Vec::new();
    // Again with another block where this machine was so busy that the block was committed before it could be changed.
    let (id, changed) = loop {
        let id = ulid::Ulid::generate().to_string();
        let segment = stage.dir().join(&id).join("chunks/000001");
        copy(&sound(1), &stage.dir().join(&id), &id);
        shipped.extend([seal(&sound(0), stage.dir(), |_| {}), id.clone()]);
        let carried = async || {
            let objects = stage.bucket.list_below(&format!("{id}/")).await;
            let there = |file: &str| objects.contains_key(&format!("{id}/{file}"));
            (there("chunks/000001") && there("index")).then_some(())
        };
        stage
            .sidecar
            .wait_until(PATIENCE, "the data is in the bucket, and held", carried)
            .await;
        // As long as before, and as sound as far as a quick look can tell (a byte of the header that means nothing): only the
        // time of change gives it away.
        let before = fs::read(&segment).unwrap();
        let mut changed = before.clone();
        changed[6] ^= 0xff;
        let write = |bytes: &[u8]| {
            let mut file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
            file.write_all(bytes).unwrap();
        };
        write(&changed);
        let noticed = async || {
            // Before the log: that the block changed is logged before it is shipped.
            let is_listed = listed(&stage.dir().join("thanos.shipper.json"))?.contains(&id);
            let line = log_line(&stage.sidecar, &["a block is being copied in", &id, "is being written"]);
            (is_listed || line.is_some()).then_some(line.is_some())
        };
        let what = "the change is noticed, or came too late";
        if stage.sidecar.wait_until(PATIENCE, what, noticed).await {
            break (id, changed);
        }
        assert!(
            shipped.len() < 10,
            "five blocks were committed as they were before the change"
        );
        write(&before);
    };
    let shipped: Vec<&str> = shipped.iter().map(String::as_str).collect();
    stage.wait_for_ledger(&shipped).await;
    assert!(
        stage.bucket.read(&format!("{id}/chunks/000001")).await.unwrap() == changed,
        "the bucket has the block as it was before the change"
    );
    stage.assert_shipped(&shipped).await;
    assert_eq!(stage.metric("thanos_shipper_corrupted_blocks_total").await, 0.0);
}

#[tokio::test]
async fn a_block_that_is_mended_is_shipped_without_a_restart() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let bucket = BucketView::dir(store.path());
    // The shipper itself, so that nobody has to wait for the minute after which the program looks again.
    let mut registry = Registry::default();
    let limits = Limits {
        requests_at_once: 4,
        stall: PATIENCE,
        ..Limits::default()
    };
    let config = objstore::config::parse(&bucket.config()).unwrap();
    let opened = objstore::open(&config, &limits, &mut registry).await.unwrap();
    let settings = Settings {
        dir: data.path().to_owned(),
        ledger_name: "thanos.shipper.json".to_owned(),
        policy: Policy::default(),
        content: Default::default(),
        sha256: false,
        source: "sidecar".to_owned(),
        scan_interval: Duration::from_millis(200),
        hold_unshipped: 0,
        jitter: Duration::ZERO,
        look_again: Duration::from_secs(2),
        heartbeat: None,
        min_time: None,
        overviews: Overviews::default(),
    };
    let labels = Some(Labels::from_pairs([("cluster", "a")]));
    let (_origin, origins) = watch::channel(PrometheusStatus {
        labels,
        liveness: Liveness::Up,
        ..PrometheusStatus::default()
    });
    let metrics = shipper::Metrics::register(&mut registry);
    let page = || {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        Metrics::parse(&page)
    };
    let stop = CancellationToken::new();
    let shipping = Shipper::new(settings, opened, origins, metrics).run(stop.clone(), Duration::ZERO);
    let shipping = tokio::spawn(shipping);

    let (good, hidden) = (seal(&sound(0), data.path(), |_| {}), store.path().join("index"));
    let mended = seal(&sound(1), data.path(), |dir| {
        fs::rename(dir.join("index"), &hidden).unwrap()
    });
    let broken = async || (page().value("narthex_quarantined_blocks", &[("reason", "index")])? == 1.0).then_some(());
    wait_until(PATIENCE, "the block is broken", broken).await;
    fs::rename(hidden, data.path().join(&mended).join("index")).unwrap();
    let both = async || (bucket.visible().await.len() == 2).then_some(());
    wait_until(PATIENCE, "both blocks are visible", both).await;
    for id in [&good, &mended] {
        bucket::check(&bucket, id, &data.path().join(id)).await.unwrap();
    }
    let nothing = async || {
        page()
            .value("narthex_quarantined_blocks", &[])
            .is_none_or(|count| count == 0.0)
            .then_some(())
    };
    wait_until(PATIENCE, "nothing is quarantined any more", nothing).await;
    stop.cancel();
    let report = shipping.await.unwrap();
    assert!(report.not_durable.is_empty(), "{report:?}");
}
