//! From which time on queries have to be answered here, by what the bucket has.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    model::ServedFrom,
    shipper::{AutoMinTime, PrometheusStatus, Shipper},
};

const HOUR: Duration = Duration::from_secs(3600);
const MARGIN: i64 = 3_600_000;
/// A time that is far enough after the first blocks for their proof to matter.
const LATE: i64 = 10_000_000;
/// A margin before the end of the block of that time.
const ALL_BUT_LATE: i64 = LATE + 10 - MARGIN;

/// A data directory with two old blocks and a late one, all of which the bucket has for years.
struct Scene {
    world: World,
    shipper: Shipper,
    served: watch::Receiver<Option<ServedFrom>>,
    names: [String; 3],
}

impl Scene {
    async fn new() -> Self {
        let mut world = World::new().await;
        let (served_from, served) = watch::channel(None);
        world.min_time = Some(AutoMinTime {
            margin: HOUR,
            served_from,
        });
        let mut shipper = world.shipper();
        let names = [name(1), name(2), name(3)];
        for (name, min) in names.iter().zip([1000, 2000, LATE]) {
            world.seal(&mut shipper, &Made::new(name, min));
        }
        assert_eq!(shipper.pass().await, Outcome::Clean);
        let scene = Self {
            world,
            shipper,
            served,
            names,
        };
        scene.names.iter().for_each(|name| scene.backdate(name));
        scene
    }

    /// Lets the bucket have a block for years, by its `meta.json`.
    fn backdate(&self, name: &str) {
        let path = self.world.store.path().join(name).join("meta.json");
        let mut meta: serde_json::Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        meta["thanos"]["upload_time"] = "2020-01-01T00:00:00Z".into();
        fs_err::write(path, meta.to_string()).unwrap();
    }

    /// Rests for so long, with a pass and, where it is time, a look each ten minutes.
    async fn after(&mut self, mut time: Duration) -> Option<i64> {
        loop {
            self.shipper.pass().await;
            self.look().await;
            let step = time.min(Duration::from_secs(600));
            if step.is_zero() {
                return self.served();
            }
            sleep(step).await;
            time -= step;
        }
    }

    async fn look(&mut self) {
        let stop = CancellationToken::new();
        // What Prometheus has told since the last one comes first.
        while self.shipper.look_at_bucket(&stop, Duration::from_secs(30)).await {}
    }

    /// What those who answer queries know.
    fn served(&self) -> Option<i64> {
        let known = *self.served.borrow();
        known.and_then(|known| known.at(Instant::now()))
    }

    fn remove_from_bucket(&self, name: &str) {
        fs_err::remove_dir_all(self.world.store.path().join(name)).unwrap();
    }

    /// The requests of the next look.
    async fn requests(&mut self) -> Vec<(Op, String)> {
        let before = self.world.bucket.calls().len();
        self.after(Duration::from_secs(600)).await;
        self.world.bucket.calls().split_off(before)
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_served_until_the_bucket_was_looked_at_also_after_a_restart() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.served(), None);
    scene.look().await;
    assert_eq!(scene.served(), Some(ALL_BUT_LATE));
    scene.shipper = scene.world.shipper();
    scene.shipper.pass().await;
    assert_eq!(scene.served(), None, "the ledger alone proves nothing of now");
    scene.look().await;
    assert_eq!(scene.served(), Some(ALL_BUT_LATE));
}

#[tokio::test(start_paused = true)]
async fn without_durable_blocks_everything_is_served() {
    let mut scene = Scene::new().await;
    for name in scene.names.clone() {
        scene.world.retire(&mut scene.shipper, &name);
    }
    assert_eq!(scene.after(Duration::ZERO).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_the_bucket_loses_is_served_again() {
    for (case, time) in [
        ("removed", Duration::from_secs(600)),
        ("without its meta.json", Duration::from_secs(600)),
        ("marked", HOUR),
        ("without its index", HOUR),
    ] {
        let mut scene = Scene::new().await;
        assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE), "{case}");
        let block = scene.names[1].clone();
        match case {
            "removed" => scene.remove_from_bucket(&block),
            "marked" => scene.world.mark(&block),
            "without its meta.json" => {
                fs_err::remove_file(scene.world.store.path().join(&block).join("meta.json")).unwrap();
            }
            _ => fs_err::remove_file(scene.world.store.path().join(&block).join("index")).unwrap(),
        }
        assert_eq!(scene.after(time).await, Some(2000 - MARGIN), "{case}");
        assert!(
            scene.world.listed().contains(&block),
            "the ledger is about what was, {case}"
        );
        // What nobody has any more on this disk need not be served.
        scene.world.retire(&mut scene.shipper, &block);
        assert_eq!(
            scene.after(Duration::from_secs(600)).await,
            Some(ALL_BUT_LATE),
            "{case}"
        );
    }
}

/// A Store Gateway has to find it anew, however long ago it was sent.
#[tokio::test(start_paused = true)]
async fn what_comes_back_to_the_bucket_is_served_until_the_margin_is_over() {
    for marked in [false, true] {
        let mut scene = Scene::new().await;
        assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
        let block = scene.names[1].clone();
        let (place, away) = (
            scene.world.store.path().join(&block),
            scene.world.data.path().join("away"),
        );
        match marked {
            true => scene.world.mark(&block),
            false => fs_err::rename(&place, &away).unwrap(),
        }
        assert_eq!(scene.after(HOUR).await, Some(2000 - MARGIN));
        match marked {
            true => fs_err::remove_file(place.join("deletion-mark.json")).unwrap(),
            false => fs_err::rename(&away, &place).unwrap(),
        }
        assert_eq!(scene.after(HOUR / 2).await, Some(2000), "marked: {marked}");
        assert_eq!(scene.after(2 * HOUR).await, Some(ALL_BUT_LATE), "marked: {marked}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_block_needs_no_proof() {
    let mut scene = Scene::new().await;
    let late = scene.names[2].clone();
    scene.remove_from_bucket(&late);
    assert_eq!(
        scene.after(Duration::ZERO).await,
        Some(ALL_BUT_LATE),
        "it is served anyway"
    );
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_sent_a_moment_ago_is_served_until_the_margin_is_over() {
    let mut scene = Scene::new().await;
    let block = scene.names[1].clone();
    let path = scene.world.store.path().join(&block).join("meta.json");
    let meta = fs_err::read_to_string(&path).unwrap();
    let now = jiff::Timestamp::now().to_string();
    fs_err::write(&path, meta.replace("2020-01-01T00:00:00Z", &now)).unwrap();
    assert_eq!(scene.after(Duration::ZERO).await, Some(2000));
    scene.backdate(&block);
    assert_eq!(scene.after(HOUR).await, Some(ALL_BUT_LATE));
}

#[tokio::test(start_paused = true)]
async fn what_a_compactor_merges_stays_proven_while_the_old_blocks_stand_and_then_by_the_age_of_the_new_one() {
    let mut scene = Scene::new().await;
    let (a, b) = (scene.names[0].clone(), scene.names[1].clone());
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    let mut merged = compacted(9, 1000, &[&a, &b]);
    merged.range.1 = 2010;
    scene.world.put_block(&merged, "a");
    scene.world.mark(&a);
    scene.world.mark(&b);
    assert_eq!(
        scene.after(HOUR).await,
        Some(ALL_BUT_LATE),
        "a Store Gateway reads the old ones"
    );
    // The merged block does not say when it was sent, and was seen just now.
    scene.remove_from_bucket(&a);
    assert_eq!(scene.after(Duration::from_secs(600)).await, Some(1000));
    scene.remove_from_bucket(&b);
    scene.backdate(&merged.name);
    assert_eq!(scene.after(HOUR).await, Some(ALL_BUT_LATE));
    // A new process has not seen the old ones.
    scene.shipper = scene.world.shipper();
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    scene.world.mark(&merged.name);
    assert_eq!(scene.after(HOUR).await, Some(1000 - MARGIN), "its retention is over");
}

#[tokio::test(start_paused = true)]
async fn merged_without_marks_it_counts_once_the_new_block_is_old_enough() {
    let mut scene = Scene::new().await;
    let (a, b) = (scene.names[0].clone(), scene.names[1].clone());
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    let mut merged = compacted(9, 1000, &[&a, &b]);
    merged.range.1 = 2010;
    scene.world.merge(&merged, "a");
    assert_eq!(scene.after(Duration::from_secs(600)).await, Some(1000));
    scene.backdate(&merged.name);
    assert_eq!(scene.after(HOUR).await, Some(ALL_BUT_LATE));
}

#[tokio::test(start_paused = true)]
async fn a_block_that_prometheus_compacted_is_proven_by_its_sources() {
    let mut scene = Scene::new().await;
    let (a, b) = (scene.names[0].clone(), scene.names[1].clone());
    let mut merged = compacted(9, 1000, &[&a, &b]);
    merged.range.1 = 2010;
    scene.world.seal(&mut scene.shipper, &merged);
    scene.world.retire(&mut scene.shipper, &a);
    scene.world.retire(&mut scene.shipper, &b);
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    scene.remove_from_bucket(&b);
    assert_eq!(scene.after(Duration::from_secs(600)).await, Some(1000 - MARGIN));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_out_of_reach_is_trusted_for_half_an_hour() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    scene.world.bucket.on(Op::Iter, "", .., Fault::Fail(ErrorKind::Network));
    scene.world.bucket.on(Op::Get, "", .., Fault::Fail(ErrorKind::Network));
    assert_eq!(scene.after(Duration::from_secs(1799)).await, Some(ALL_BUT_LATE));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.served(), None, "also if the shipper does nothing at all");
    assert_eq!(scene.after(HOUR).await, None);
    scene.world.bucket.heal();
    assert_eq!(scene.after(Duration::from_secs(120)).await, Some(ALL_BUT_LATE));
}

#[tokio::test(start_paused = true)]
async fn an_open_block_is_served_at_once_with_a_margin_before_it() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    let old = Made::new(&name(4), 1500);
    scene
        .world
        .bucket
        .on(Op::Upload, "meta.json", 1..=1, Fault::Fail(ErrorKind::Server));
    scene.world.seal(&mut scene.shipper, &old);
    assert_eq!(scene.shipper.pass().await, Outcome::Failed);
    assert_eq!(scene.served(), Some(1500 - MARGIN));
    assert_eq!(scene.shipper.pass().await, Outcome::Clean);
    assert_eq!(scene.served(), Some(1500 - MARGIN), "it was not looked for yet");
    scene.backdate(&old.name);
    assert_eq!(scene.after(Duration::from_secs(600)).await, Some(ALL_BUT_LATE));
}

#[tokio::test(start_paused = true)]
async fn while_a_block_or_the_directory_cannot_be_read_everything_is_served() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    let bad = scene.world.data.path().join(name(4));
    fs_err::create_dir(&bad).unwrap();
    fs_err::write(bad.join("meta.json"), "{").unwrap();
    scene.shipper.pass().await;
    assert_eq!(scene.served(), None);
    fs_err::remove_dir_all(bad).unwrap();
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
    let (data, away) = (
        scene.world.data.path().to_owned(),
        scene.world.store.path().join("away"),
    );
    fs_err::create_dir(&away).unwrap();
    for entry in fs_err::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        fs_err::rename(entry.path(), away.join(entry.file_name())).unwrap();
    }
    fs_err::remove_dir(&data).unwrap();
    assert_eq!(scene.shipper.pass().await, Outcome::Failed);
    assert_eq!(scene.served(), None);
    fs_err::rename(away, data).unwrap();
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE));
}

#[tokio::test(start_paused = true)]
async fn a_block_under_other_labels_is_served() {
    let mut scene = Scene::new().await;
    scene.world.label("b");
    assert_eq!(
        scene.after(Duration::ZERO).await,
        Some(1000 - MARGIN),
        "a querier takes it for another series"
    );
}

#[tokio::test(start_paused = true)]
async fn what_prometheus_says_of_its_head_holds_it() {
    let mut scene = Scene::new().await;
    let tell = |scene: &Scene, window, head| {
        scene.world.prometheus.send_modify(|prometheus| {
            prometheus.out_of_order_window_ms = window;
            prometheus.head_min_time_ms = head;
        });
    };
    tell(&scene, None, None);
    scene.shipper = scene.world.shipper();
    assert_eq!(
        scene.after(Duration::ZERO).await,
        None,
        "nobody knows how old a sample may be"
    );
    tell(&scene, Some(1000), None);
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE - 1000));
    // What came before the change may still be in the head.
    tell(&scene, Some(0), Some(LATE + 10));
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE - 1000));
    tell(&scene, Some(0), Some(LATE));
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE - 1010));
}

#[tokio::test(start_paused = true)]
async fn a_window_for_old_samples_counts_after_it_was_narrowed_also_after_a_restart() {
    let mut scene = Scene::new().await;
    let tell = |scene: &Scene, window| {
        let told = |prometheus: &mut PrometheusStatus| prometheus.out_of_order_window_ms = Some(window);
        scene.world.prometheus.send_modify(told);
    };
    tell(&scene, 1000);
    assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE - 1000));
    tell(&scene, 0);
    for _ in 0..2 {
        scene.shipper = scene.world.shipper();
        assert_eq!(scene.after(Duration::ZERO).await, Some(ALL_BUT_LATE - 1000));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_does_not_change_costs_a_listing_and_a_request_for_each_block() {
    let mut scene = Scene::new().await;
    scene.after(Duration::ZERO).await;
    let listing = (Op::Iter, String::new());
    let metas = scene.names[..2]
        .iter()
        .map(|name| (Op::Get, format!("{name}/meta.json")));
    let quick: Vec<_> = [listing.clone()].into_iter().chain(metas).collect();
    assert_eq!(scene.requests().await, quick);
    scene.after(Duration::from_secs(2400)).await;
    let mut block = Vec::new();
    for name in &scene.names[..2] {
        block.extend([(Op::Get, format!("{name}/meta.json")), (Op::Iter, name.clone())]);
    }
    // Once an hour their files and marks, too.
    assert_eq!(scene.requests().await, [vec![listing], block].concat());
    assert_eq!(scene.requests().await, quick);
    // What comes after a block that is lost makes no difference: it is not looked into.
    let first = scene.names[0].clone();
    scene.remove_from_bucket(&first);
    scene.after(HOUR).await;
    let requests = scene.requests().await;
    let others = requests.iter().filter(|(op, key)| *op == Op::Iter && !key.is_empty());
    assert_eq!(others.count(), 0, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_never_keeps_a_block_waiting() {
    let mut scene = Scene::new().await;
    scene.world.bucket.on(Op::Iter, "", 1..=1, Fault::Hang);
    let stop = CancellationToken::new();
    let begun = Instant::now();
    // Nothing is urgent, and yet a look does not last for ever.
    assert!(!scene.shipper.look_at_bucket(&stop, Duration::from_secs(30)).await);
    assert_eq!(begun.elapsed(), Duration::from_secs(120));
    sleep(Duration::from_secs(120)).await;
    // A commit waits.
    scene.world.bucket.on(Op::Iter, "", 1..=2, Fault::Hang);
    let begun = Instant::now();
    assert!(scene.shipper.look_at_bucket(&stop, Duration::from_secs(5)).await);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    // Somebody has news.
    scene
        .world
        .prometheus
        .send_modify(|prometheus| prometheus.delays_compaction = true);
    assert!(scene.shipper.look_at_bucket(&stop, Duration::from_secs(30)).await);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    scene.world.bucket.heal();
    assert_eq!(
        scene.after(Duration::ZERO).await,
        Some(ALL_BUT_LATE),
        "it goes on later"
    );
}
