//! kill -9 at random moments: never a visible block that is not whole, at most what was in flight is sent again, and in the
//! end everything is as after an undisturbed run.

use std::{cell::Cell, path::Path, time::Duration};

use rand::{SeedableRng, rngs::StdRng};

use super::scene::{LABEL, backfill, blocks_of, is_all_there, words};
use crate::rig::{
    BucketView, Fault, Rule, S3Server, Weed, bucket::check, one_shot, process::Process, tools::temp_dir,
    wait::random_moment,
};

/// Requests with a body that run at once, unless --concurrency says something else.
const AT_ONCE: usize = 4;
/// Objects of one small block: segment, index, `meta.json`.
const OBJECTS: usize = 3;
/// Blocks of each round.
const BLOCKS: u64 = 4;
/// Kills of each round; then it may end.
const KILLS: usize = 5;

/// Waits for some moment in the life of a backfill.
async fn some_moment(process: &Process, bucket: &BucketView, moments: &mut StdRng) {
    let objects = async || bucket.list().await.len();
    let left = BLOCKS as usize * OBJECTS - objects().await;
    random_moment(moments, left, objects, || process.exited().is_some()).await;
}

/// Starts a backfill and kills it at some moment; whether it was still at work.
async fn killed(dir: &Path, bucket: &BucketView, moments: &mut StdRng) -> bool {
    let log = temp_dir("log");
    let process = one_shot::start(&words(dir, &bucket.config(), &[LABEL]), &log.path().join("log"));
    some_moment(&process, bucket, moments).await;
    !process.kill().success()
}

async fn visible_is_whole(bucket: &BucketView, dir: &Path) {
    for id in bucket.visible().await {
        check(bucket, &id, &dir.join(&id))
            .await
            .unwrap_or_else(|wrong| panic!("{id} is visible, but: {wrong}"));
    }
}

/// Kills it until `kills` hit it at work, each round in a bucket of its own, and looks at what is left each time.
/// Returns how many of them left something half done.
async fn rounds(
    kills: usize,
    mut bucket: impl AsyncFnMut(usize) -> BucketView,
    after_round: impl AsyncFn(&BucketView, usize),
) -> usize {
    let dir = blocks_of(BLOCKS);
    let mut moments = StdRng::from_rng(&mut rand::rng());
    let (mut hits, mut halves, mut round) = (0, 0, 0);
    while hits < kills {
        round += 1;
        let bucket = bucket(round).await;
        let mut hit = 0;
        for _ in 0..KILLS {
            hit += usize::from(killed(dir.path(), &bucket, &mut moments).await);
            visible_is_whole(&bucket, dir.path()).await;
            let (objects, visible) = (bucket.list().await.len(), bucket.visible().await.len());
            halves += usize::from(objects != visible * OBJECTS);
        }
        backfill(dir.path(), &bucket, &[]).ended(0);
        is_all_there(&bucket, dir.path()).await;
        after_round(&bucket, hit).await;
        hits += hit;
    }
    halves
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_forty_times_at_most_what_was_in_flight_is_sent_again() {
    let server = S3Server::start();
    // So that most of a life is spent sending, also on a busy machine.
    server.fault(Rule::on("PUT", "*", Fault::Delay(Duration::from_millis(30))));
    let puts = || server.count(|seen| seen.method == "PUT");
    let before = Cell::new(0);
    let halves = rounds(
        40,
        async |round| {
            before.set(puts());
            server.bucket(&format!("round-{round}"))
        },
        async |_, hit| {
            let (sent, due) = (puts() - before.get(), BLOCKS as usize * OBJECTS);
            assert!(
                sent <= due + hit * AT_ONCE,
                "{sent} objects were sent for {due}, with {hit} kills"
            );
        },
    )
    .await;
    assert!(
        halves > 3,
        "only {halves} kills left a block half sent: the moments show nothing"
    );
}

/// SIGTERM leaves no less behind than SIGKILL may: nothing half that is visible, and no upload in parts.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_random_moments_it_says_so_and_cleans_up() {
    let (dir, weed) = (blocks_of(BLOCKS), Weed::shared().await);
    let mut moments = StdRng::from_rng(&mut rand::rng());
    let mut cut = 0;
    while cut < 10 {
        let (bucket, log) = (weed.bucket("stopped").await, temp_dir("log"));
        let process = one_shot::start(&words(dir.path(), &bucket.config(), &[LABEL]), &log.path().join("log"));
        some_moment(&process, &bucket, &mut moments).await;
        process.signal("TERM");
        let ended = process.wait(Duration::from_secs(60)).await;
        match ended.code() {
            // It was through.
            Some(0) => {}
            Some(4) => {
                assert!(process.log().contains("\"outcome\": \"cut\""), "{}", process.log());
                cut += 1;
            }
            // Before it listened for signals.
            None => {}
            Some(other) => panic!("exit code {other}; its log:\n{}", process.log()),
        }
        visible_is_whole(&bucket, dir.path()).await;
        assert_eq!(bucket.open_uploads().await, [""; 0], "multipart uploads are left open");
        backfill(dir.path(), &bucket, &[]).ended(0);
        is_all_there(&bucket, dir.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_the_way_to_a_real_store_it_ends_as_if_undisturbed() {
    let weed = Weed::shared().await;
    // What a killed process left of a multipart upload stays open: it is younger than a day.
    rounds(15, async |_| weed.bucket("killed").await, async |_, _| {}).await;
}
