//! Objects that are not what they were: nothing of such a block becomes visible, all others are restored.

use super::scene::{EU, Listed, Scene};

/// Changes an object of the bucket.
async fn change(scene: &Scene, key: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut body = scene.bucket.read(key).await.unwrap();
    edit(&mut body);
    scene.bucket.put(key, body).await;
}

/// Restores a good block and one whose object `name` was changed; the program says so in words that hold `said`.
async fn refused(scene: &Scene, listed: Listed, name: &str, edit: impl FnOnce(&mut Vec<u8>), said: &str) {
    let good = scene.ship(0, EU, listed, |_| {}).await;
    let bad = scene.ship(1, EU, listed, |_| {}).await;
    change(scene, &format!("{bad}/{name}"), edit).await;
    let ran = scene.restore(&[]);
    ran.assert(3, &["refused       1 block", &bad, said]);
    assert_eq!(scene.entries(), [good.as_str()], "{ran:?}");
    scene.assert_same(&good).await;
    // Mended, it comes with the next run.
    scene.ship(1, EU, listed, |_| {}).await;
    scene
        .restore(&[])
        .assert(0, &["restored      1 block", "there already 1 block"]);
    scene.assert_same(&bad).await;
}

fn flip(at: usize) -> impl FnOnce(&mut Vec<u8>) {
    move |body| {
        let at = at % body.len();
        body[at] ^= 0x10;
    }
}

#[tokio::test]
async fn a_flipped_byte_is_found_by_the_hash_and_without_one() {
    for at in [0, 9, 1000, 77_777] {
        for listed in [Listed::Hashed, Listed::Sized] {
            refused(&Scene::local(), listed, "chunks/000001", flip(at), "chunks/000001").await;
        }
        refused(&Scene::local(), Listed::Sized, "index", flip(at), "index").await;
    }
    let scene = Scene::s3().await;
    refused(&scene, Listed::Hashed, "index", flip(100), "index").await;
}

#[tokio::test]
async fn an_object_that_is_cut_off_or_missing_is_refused_before_it_is_fetched() {
    let cut = |body: &mut Vec<u8>| body.truncate(body.len() / 2);
    refused(&Scene::local(), Listed::Sized, "chunks/000001", cut, "by meta.json").await;
    refused(&Scene::local(), Listed::Not, "index", cut, "index").await;
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Sized, |_| {}).await;
    scene.bucket.delete(&format!("{id}/chunks/000001")).await;
    let said = "chunks/000001 is missing from the bucket";
    scene.restore(&["--dry-run"]).assert(3, &[said]);
    scene.restore(&[]).assert(3, &[said, "refused       1 block"]);
    assert_eq!(scene.entries(), [""; 0]);
}

#[tokio::test]
async fn a_block_whose_statistics_do_not_agree_is_refused() {
    let scene = Scene::local();
    let id = scene
        .ship(0, EU, Listed::Hashed, |meta| {
            meta["stats"]["numSamples"] = 23_999.into()
        })
        .await;
    scene.restore(&[]).assert(3, &[&id, "damaged in the bucket", "24000"]);
    assert_eq!(scene.entries(), [""; 0]);
}

#[tokio::test]
async fn tombstones_that_prometheus_would_not_start_with_are_refused() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Not, |_| {}).await;
    let key = format!("{id}/tombstones");
    // Those of a block in which nothing was deleted, with one byte changed.
    scene
        .bucket
        .put(&key, vec![0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 1])
        .await;
    let said = "damaged in the bucket: tombstones: it is damaged: wrong checksum";
    scene.restore(&[]).assert(3, &[&id, said]);
    assert_eq!(scene.entries(), [""; 0]);
    scene
        .bucket
        .put(&key, vec![0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0])
        .await;
    scene.restore(&[]).assert(0, &["restored      1 block"]);
    let same = scene.bucket.same(&key, &scene.to().join(&key)).await;
    same.unwrap();
}
