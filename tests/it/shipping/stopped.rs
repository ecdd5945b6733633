//! The end by a signal: what is sealed is shipped first, what cannot be is named, and nobody waits for longer than the
//! grace period.

use rand::{SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::scene::{PATIENCE, all_listed, all_quiet, all_visible, by_time, flags, listed, seal, watches};
use crate::{
    bad_blocks::stage::{prometheus, wait_for_log},
    rig::{
        BucketView, Fault, Keeper, Prometheus, Rule, S3Server, Sidecar, Tools, assert_all_shipped,
        bucket::check,
        fault::Seen,
        prometheus::{Options, sealed},
        tools::temp_dir,
        wait_until,
    },
};

/// In two parts of 5 MiB.
const SEGMENT: usize = 6 << 20;

/// A sidecar that is ready and watches an empty data directory, before a server whose faults are scripted.
struct Stage {
    data: TempDir,
    server: S3Server,
    bucket: BucketView,
    sidecar: Sidecar,
    rng: StdRng,
}

impl Stage {
    async fn start(name: &str, more: &[&str]) -> Stage {
        let (data, server) = (temp_dir(name), S3Server::start());
        let bucket = server.bucket(name);
        let mut flags = flags(
            prometheus().await,
            data.path(),
            &bucket.config_with("part_size: 5242880\n"),
        );
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        let sidecar = Sidecar::start(flags);
        watches(&sidecar).await;
        Stage {
            data,
            server,
            bucket,
            sidecar,
            rng: StdRng::seed_from_u64(1),
        }
    }

    fn seal(&mut self, slot: u64) -> String {
        seal(self.data.path(), slot, SEGMENT, &mut self.rng)
    }

    /// Waits until the server has met such a fault.
    async fn met(&self, fault: Fault) {
        let look = async || (self.server.count(|seen| seen.fault.as_ref() == Some(&fault)) > 0).then_some(());
        self.sidecar.wait_until(PATIENCE, format!("{fault:?}"), look).await;
    }

    async fn said(&self, words: &[&str]) {
        wait_for_log(&self.sidecar, words).await;
    }
}

#[tokio::test]
async fn a_signal_lets_what_is_sealed_arrive_first() {
    let mut stage = Stage::start("finish", &[]).await;
    stage.server.fault(Rule::on("PUT", "*", Fault::Hold));
    let mut blocks: Vec<String> = (0..3).map(|slot| stage.seal(slot)).collect();
    stage.met(Fault::Hold).await;
    stage.sidecar.signal("TERM");
    // Not ready any more, but its metrics can be read to the end.
    stage
        .sidecar
        .wait_until(PATIENCE, "not ready", async || {
            (!stage.sidecar.ready().await).then_some(())
        })
        .await;
    assert!(stage.sidecar.metric("thanos_shipper_uploads_total").await.is_some());
    stage.server.heal();
    let status = stage.sidecar.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", stage.sidecar.log());
    stage.said(&["every sealed block is durable"]).await;
    assert_eq!(listed(stage.data.path()), blocks);
    blocks.sort();
    assert_eq!(stage.bucket.visible().await, blocks);
    for id in &blocks {
        check(&stage.bucket, id, &stage.data.path().join(id)).await.unwrap();
    }
}

#[tokio::test]
async fn the_grace_period_ends_and_what_is_not_durable_is_named() {
    let mut stage = Stage::start("grace", &["--shipper.grace-period=1s"]).await;
    let first = stage.seal(0);
    all_visible(&stage.sidecar, &stage.bucket, std::slice::from_ref(&first)).await;
    stage.server.fault(Rule::on("PUT", "*partNumber=2*", Fault::Hang));
    let (stuck, behind) = (stage.seal(1), stage.seal(2));
    let hangs = |seen: &Seen| seen.fault == Some(Fault::Hang) && seen.key.starts_with(&stuck);
    let look = async || (stage.server.count(hangs) > 0).then_some(());
    stage.sidecar.wait_until(PATIENCE, "the first one hangs", look).await;
    let status = stage.sidecar.stop().await;
    assert_eq!(status.code(), Some(0), "{}", stage.sidecar.log());
    stage.said(&["grace period", "--shipper.grace-period"]).await;
    for id in [&stuck, &behind] {
        stage.said(&["level=error", "not durable", id]).await;
    }
    assert_eq!(listed(stage.data.path()), std::slice::from_ref(&first));
    assert_eq!(stage.bucket.visible().await, std::slice::from_ref(&first));
    let aborts =
        |seen: &Seen| seen.method == "DELETE" && seen.query.contains("uploadId=") && seen.key.starts_with(&stuck);
    assert!(stage.server.count(aborts) > 0, "the open upload is not aborted");

    stage.server.heal();
    stage.sidecar.start_again();
    all_listed(&stage.sidecar, stage.data.path()).await;
    for id in [&first, &stuck, &behind] {
        check(&stage.bucket, id, &stage.data.path().join(id)).await.unwrap();
    }
}

#[tokio::test]
async fn the_heartbeat_goes_on_until_the_shipper_is_through() {
    let mut stage = Stage::start("heartbeat", &["--prometheus.get_config_interval=100ms"]).await;
    stage.server.fault(Rule::on("PUT", "*", Fault::Hang));
    stage.seal(0);
    stage.met(Fault::Hang).await;
    stage.sidecar.signal("TERM");
    stage.said(&["caught a signal"]).await;
    let last = async || {
        let name = "narthex_prometheus_last_heartbeat_timestamp_seconds";
        stage.sidecar.metric(name).await
    };
    // One may have been under way; the second one was not.
    for _ in 0..2 {
        let before = last().await.expect("its metrics can be read to the end");
        let later = async || last().await.filter(|last| *last > before);
        stage.sidecar.wait_until(PATIENCE, "another heartbeat", later).await;
    }
    stage.sidecar.kill9();
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut stage = Stage::start("second", &[]).await;
    stage.server.fault(Rule::on("PUT", "*", Fault::Hang));
    stage.seal(0);
    stage.met(Fault::Hang).await;
    stage.sidecar.signal("TERM");
    stage.said(&["caught a signal"]).await;
    stage.sidecar.signal("INT");
    // The grace period is four minutes.
    let status = stage.sidecar.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(1), "{}", stage.sidecar.log());
    assert_eq!(stage.bucket.visible().await, [""; 0]);
    assert_eq!(listed(stage.data.path()), [""; 0]);
}

#[tokio::test]
async fn blocks_that_are_sealed_while_both_stop_are_shipped() {
    let (dir, place) = (temp_dir("late"), temp_dir("late-bucket"));
    let options = Options {
        data: Some(dir.path().join("data")),
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let keeper = Keeper::watch(prometheus.data());
    let bucket = BucketView::dir(place.path());
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &bucket.config()));
    watches(&sidecar).await;
    prometheus.wait_for_blocks(1, PATIENCE).await;
    // The kubelet tells both containers of a pod at once.
    sidecar.signal("INT");
    wait_for_log(&sidecar, &["stopping: uploading the blocks that are already sealed"]).await;
    // Prometheus takes its time, and a block comes up in it.
    let late = seal(prometheus.data(), 0, 0, &mut StdRng::seed_from_u64(1));
    assert!(prometheus.stop().await.success());
    let status = sidecar.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", sidecar.log());
    let blocks = sealed(prometheus.data());
    assert!(blocks.contains(&late) && blocks.len() >= 2, "{blocks:?}");
    let kept = async || (keeper.blocks() == blocks).then_some(());
    wait_until(PATIENCE, "copies of all blocks", kept).await;
    assert_all_shipped(&bucket, &keeper).await;
    let mut ledger = listed(prometheus.data());
    ledger.sort();
    assert_eq!(ledger, blocks);
}

#[tokio::test]
async fn what_a_dead_prometheus_left_is_shipped_under_the_labels_of_the_last_commit() {
    let (dir, place) = (temp_dir("dead"), temp_dir("dead-bucket"));
    let options = Options {
        data: Some(dir.path().join("data")),
        scrape: false,
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    let (data, mut rng) = (prometheus.data(), StdRng::seed_from_u64(1));
    let bucket = BucketView::dir(place.path());
    let mut sidecar = Sidecar::start(Sidecar::flags(&prometheus, &bucket.config()));
    watches(&sidecar).await;
    seal(data, 0, 0, &mut rng);
    all_listed(&sidecar, data).await;
    prometheus.kill();
    assert!(sidecar.stop().await.success());

    let left = seal(data, 1, 0, &mut rng);
    all_quiet(data).await;
    sidecar.start_again();
    all_listed(&sidecar, data).await;
    assert_eq!(by_time(data).len(), 2);
    check(&bucket, &left, &data.join(&left)).await.unwrap();
    let meta = bucket.read_json(&format!("{left}/meta.json")).await;
    assert_eq!(
        meta["thanos"]["labels"],
        serde_json::json!({"cluster": "rig", "replica": "0"})
    );
    assert!(!sidecar.ready().await, "it is ready without a Prometheus");
    assert_eq!(sidecar.stop().await.code(), Some(0));
}
