//! The disk is lost at a moment by chance: what was durable comes back, each sample once, and nothing else.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    exporter::Sorts,
    scene::{Kind, Scene, assert_there, blocks_end, count},
};
use crate::rig::{Leg, S3Server, Tools, tools::temp_dir};

const PLAIN: Sorts = Sorts {
    late: false,
    shapes: false,
};

async fn oldest(kind: Kind) {
    lost_and_restored(Scene::local(&Tools::oldest(), kind).await).await;
}

async fn newest(kind: Kind) {
    lost_and_restored(Scene::local(&Tools::newest(), kind).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_oldest_version_comes_back_without_compression() {
    let args = &["--no-storage.tsdb.wal-compression"];
    oldest(Kind {
        args,
        ..Kind::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_newest_version_comes_back_from_an_s3_server() {
    let (server, dir, leg) = (S3Server::start(), temp_dir("wal"), Tools::newest());
    let args = &["--storage.tsdb.wal-compression"];
    let kind = Kind {
        args,
        ..Kind::default()
    };
    let scene = Scene::start(&leg, kind, dir, server.bucket("wal")).await;
    lost_and_restored(scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_out_of_order_come_back_to_the_oldest_version() {
    let args = &["--storage.tsdb.wal-compression"];
    let sorts = Sorts { late: true, ..PLAIN };
    oldest(Kind {
        args,
        sorts,
        ..Kind::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_out_of_order_come_back_to_the_newest_version() {
    let args = &["--no-storage.tsdb.wal-compression"];
    let sorts = Sorts { late: true, ..PLAIN };
    newest(Kind {
        args,
        sorts,
        ..Kind::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_histograms_come_back_to_the_oldest_version() {
    let sorts = Sorts { shapes: true, ..PLAIN };
    oldest(Kind {
        sorts,
        ..Kind::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_histograms_come_back_to_the_newest_version_also_with_the_stronger_compression() {
    let args = &["--storage.tsdb.wal-compression-type=zstd"];
    let sorts = Sorts { shapes: true, ..PLAIN };
    newest(Kind {
        args,
        sorts,
        ..Kind::default()
    })
    .await;
}

async fn lost_and_restored(scene: Scene) {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let Leg { version, .. } = &scene.leg;
    let what = format!("{version}, seed {seed}");
    scene.wait_for_shipped(2).await;
    scene.wait_for_scrapes(random.random_range(1..=25)).await;
    let expected = scene.durable().await;
    scene.lose(random.random());

    let end = blocks_end(&scene.bucket).await;
    let times = || expected.values().flatten().map(|(time, _)| *time);
    assert!(times().any(|time| time < end), "{what}: no sample is in a block");
    assert!(times().any(|time| time >= end), "{what}: no sample is in the log only");

    let to = scene.other("restored");
    scene.restore(&to, &["--min-time=-1d"]).assert(0, &["reaches to"]);
    let found = scene.replayed(&to).await;
    assert_there(&expected, &found, &scene.exporter, &what);
    assert!(count(&found) >= count(&expected), "{what}");
    let sorts = scene.kind.sorts;
    for (name, is_served) in [("plain", true), ("late", sorts.late), ("shape", sorts.shapes)] {
        let is_there = found.keys().any(|series| series.name == name);
        assert_eq!(is_there, is_served, "{what}: {name}");
    }
}
