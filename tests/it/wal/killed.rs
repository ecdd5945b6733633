//! A restore that is killed again and again ends as one that was left alone.

use std::{path::Path, time::Duration};

use fs_err as fs;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    exporter::Sorts,
    scene::{Kind, PATIENCE, Samples, Scene, assert_there, files},
};
use crate::rig::{
    Fault, Rule, S3Server, Tools,
    one_shot::{self, narthex},
    tools::temp_dir,
    wait::random_moment,
};

/// Kills that have met it at work, in all.
const KILLS: usize = 12;
/// Kills of one directory; then it may end.
const EACH: usize = 3;

/// A log with a checkpoint, out of order as well, whose Prometheus is gone; what it had taken in order.
async fn lost(server: &S3Server) -> (Scene, Samples) {
    let sorts = Sorts {
        late: true,
        ..Sorts::default()
    };
    let kind = Kind {
        sorts,
        ..Kind::default()
    };
    let scene = Scene::start(&Tools::newest(), kind, temp_dir("wal"), server.bucket("wal")).await;
    let checkpoint = async || {
        let sent = scene.sidecar.metric("narthex_wal_checkpoints_total").await;
        sent.filter(|sent| *sent >= 1.0)
    };
    scene.sidecar.wait_until(PATIENCE, "a checkpoint", checkpoint).await;
    let mut expected = scene.durable().await;
    // This is about files; what becomes of samples out of order is told by the ground truth.
    expected.retain(|series, _| series.name == "plain");
    scene.lose(true);
    // So that most of a life is spent with fetching.
    for pattern in ["narthex-wal/*", "*/chunks/*"] {
        server.fault(Rule::on("GET", pattern, Fault::Delay(Duration::from_millis(15))));
    }
    (scene, expected)
}

fn words(scene: &Scene, to: &Path) -> [String; 5] {
    let config = format!("--objstore.config={}", scene.bucket.config());
    let to = format!("--to={}", to.display());
    ["restore", "--wal", "--min-time=-1d", &config, &to].map(str::to_owned)
}

fn run(scene: &Scene, to: &Path) {
    narthex(&words(scene, to).each_ref().map(String::as_str)).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_again_and_again_ends_as_one_that_was_not() {
    let server = S3Server::start();
    let (scene, expected) = lost(&server).await;
    let gets = || server.count(|seen| seen.method == "GET" && !seen.key.is_empty());
    let (whole, before) = (scene.other("whole"), gets());
    run(&scene, &whole);
    let (undisturbed, due) = (files(&whole), gets() - before);

    let seed: u64 = rand::random();
    let mut moments = StdRng::seed_from_u64(seed);
    let (mut hits, mut halves, mut round) = (0, 0, 0);
    while hits < KILLS {
        round += 1;
        let to = scene.other(&format!("round-{round}"));
        let is_complete = || fs::metadata(to.join("wal")).is_ok();
        for _ in 0..EACH {
            let (log, words) = (temp_dir("log"), words(&scene, &to));
            let process = one_shot::start(&words.each_ref().map(String::as_str), &log.path().join("log"));
            random_moment(&mut moments, due, async || gets(), || process.exited().is_some()).await;
            hits += usize::from(!process.kill().success());
            halves += usize::from(!is_complete() && fs::metadata(to.join("narthex-wal.tmp")).is_ok());
            // It is refused from now on.
            if is_complete() {
                break;
            }
        }
        if !is_complete() {
            run(&scene, &to);
        }
        let mut there = files(&to);
        // What was not put away any more is no part of the data.
        there.retain(|name, _| !name.starts_with("/narthex-wal.tmp"));
        let other = there.keys().filter(|name| undisturbed.get(*name) != there.get(*name));
        let other: Vec<&String> = other.collect();
        let is_same = other.is_empty() && there.len() == undisturbed.len();
        assert!(is_same, "seed {seed}, round {round}: {other:?}");
    }
    assert!(halves > 2, "only {halves} of {hits} kills left something half done");
    let found = scene.replayed(&scene.other("round-1")).await;
    assert_there(&expected, &found, &scene.exporter, &format!("seed {seed}"));
}
