//! kill -9 at random moments, many times over: never a visible block with a missing or wrong object, never a bad ledger,
//! and everything is there in the end. (Multipart uploads of those that were killed stay open: they are younger than a day.)

use std::{collections::BTreeSet, path::Path};

use rand::{SeedableRng, rngs::StdRng};

use super::{
    encodings,
    scene::{LEDGER, LedgerWatch, PATIENCE, all_listed, all_quiet, flags, json, listed, seal},
};
use crate::{
    bad_blocks::stage::prometheus,
    rig::{
        self, BucketView, Emulator, Sidecar, Weed, bucket::check, limit::turn, prometheus::sealed, tools::temp_dir,
        wait::random_moment,
    },
};

/// The smallest part that S3 takes, in bytes: each block's larger segment is sent in two of them.
const PARTS: &str = "part_size: 5242880\n";
const SEGMENT: usize = (5 << 20) + 4096;

/// What lies in wait before the first kill; more is sealed when all of it has arrived. That is held as if it were copied in,
/// ten seconds for all of it.
const BACKLOG: usize = 45;
const MORE: usize = 10;

/// Which blocks are on their way.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// They are sent as they are: four objects each.
    AsTheyAre,
    /// They are rewritten: three objects or more each.
    Rewritten,
}

impl Kind {
    /// Seals the block with this number.
    fn seal(self, data: &Path, number: usize, bytes: &mut StdRng) {
        match self {
            Kind::AsTheyAre => drop(seal(data, number as u64, SEGMENT, bytes)),
            Kind::Rewritten => drop(encodings::seal(&encodings::source(number), data)),
        }
    }

    fn objects(self) -> usize {
        match self {
            Kind::AsTheyAre => 4,
            Kind::Rewritten => 3,
        }
    }

    /// Panics if not all of a visible block is there.
    async fn assert_whole(self, bucket: &BucketView, id: &str, data: &Path) {
        match self {
            Kind::AsTheyAre => check(bucket, id, &data.join(id))
                .await
                .unwrap_or_else(|wrong| panic!("{id} is visible, but: {wrong}")),
            Kind::Rewritten => encodings::assert_is_a_twin(bucket, id, &data.join(id)).await,
        }
    }

    /// What the bucket has of a block.
    fn keys(self, data: &Path, id: &str) -> Vec<String> {
        let segments = match self {
            Kind::AsTheyAre => data.join(id),
            Kind::Rewritten => encodings::plain_twin(&data.join(id)),
        };
        let segments = fs_err::read_dir(segments.join("chunks")).unwrap();
        let segments = segments.map(|segment| format!("chunks/{}", segment.unwrap().file_name().display()));
        let names = segments.chain(["index".to_owned(), "meta.json".to_owned()]);
        names.map(|name| format!("{id}/{name}")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_fifty_times_on_the_way_to_s3() {
    let bucket = Weed::shared().await.bucket("killed").await;
    let config = bucket.config_with(PARTS);
    kill_again_and_again(Kind::AsTheyAre, &bucket, &config, None, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_five_times_on_the_way_to_a_directory() {
    let dir = temp_dir("killed");
    let bucket = BucketView::dir(dir.path());
    kill_again_and_again(Kind::AsTheyAre, &bucket, &bucket.config(), Some(dir.path()), 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_ten_times_on_the_way_to_google() {
    let bucket = Emulator::shared(rig::Kind::Gcs).await.bucket("killed").await;
    let config = bucket.config();
    kill_again_and_again(Kind::AsTheyAre, &bucket, &config, None, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_ten_times_on_the_way_to_azure() {
    let bucket = Emulator::shared(rig::Kind::Azure).await.bucket("killed").await;
    let config = bucket.config();
    kill_again_and_again(Kind::AsTheyAre, &bucket, &config, None, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_thirty_times_while_blocks_are_rewritten() {
    let bucket = Weed::shared().await.bucket("killed").await;
    let config = bucket.config();
    kill_again_and_again(Kind::Rewritten, &bucket, &config, None, 30).await;
}

async fn kill_again_and_again(kind: Kind, bucket: &BucketView, config: &str, local: Option<&Path>, kills: usize) {
    // What is sent as it is waits for the store and for restarts more than it reckons.
    let _turn = match kind {
        Kind::AsTheyAre => None,
        Kind::Rewritten => Some(turn().await),
    };
    let (dir, mut bytes, mut moments) = (
        temp_dir("killed"),
        StdRng::seed_from_u64(1),
        StdRng::from_rng(&mut rand::rng()),
    );
    let data = dir.path();
    for slot in 0..BACKLOG {
        kind.seal(data, slot, &mut bytes);
    }
    all_quiet(data).await;
    let mut sidecar = Sidecar::start(flags(prometheus().await, data, config));
    first_life(&sidecar, data).await;
    let watch = LedgerWatch::start(data.join(LEDGER), local.map(Path::to_owned));
    let (mut whole, mut half, mut done) = (BTreeSet::new(), 0, 0);
    while done < kills {
        sidecar.start_again();
        if listed(data).len() == sealed(data).len() {
            let slots = sealed(data).len()..;
            for slot in slots.take(MORE) {
                kind.seal(data, slot, &mut bytes);
            }
        }
        let objects = async || {
            let labels = [("operation", "upload")];
            let metrics = sidecar.metrics().await;
            let sent = metrics.and_then(|metrics| metrics.value("thanos_objstore_bucket_operations_total", &labels));
            sent.unwrap_or_default() as usize
        };
        let through = || listed(data).len() == sealed(data).len();
        random_moment(&mut moments, kind.objects(), objects, through).await;
        sidecar.kill9();
        // Otherwise it lived too long to be seen at work.
        done += usize::from(!through());
        half += usize::from(holds_after_a_kill(kind, bucket, data, &mut whole).await);
    }
    // The moments were such that there was something to see.
    assert!(half >= kills / 5, "only {half} of {kills} kills left a block half sent");
    sidecar.start_again();
    all_listed(&sidecar, data).await;
    assert!(sidecar.stop().await.success());
    watch.end();
    everything_is_there(kind, bucket, data).await;
}

/// Lets it ship two blocks, then kills it.
async fn first_life(sidecar: &Sidecar, data: &Path) {
    let two = async || (data.join(LEDGER).is_file() && listed(data).len() >= 2).then_some(());
    sidecar.wait_until(PATIENCE, "two blocks in the ledger", two).await;
    sidecar.kill9();
}

/// What is visible is whole, and what the ledger lists is visible. Whether a block is there in part.
async fn holds_after_a_kill(kind: Kind, bucket: &BucketView, data: &Path, whole: &mut BTreeSet<String>) -> bool {
    let ledger = json(&data.join(LEDGER));
    assert_eq!(ledger["version"], 1);
    let keys = bucket.list().await;
    let visible: BTreeSet<String> = bucket.visible().await.into_iter().collect();
    for id in listed(data) {
        assert!(visible.contains(&id), "{id} is listed, but not visible");
    }
    for id in visible.difference(&whole.clone()) {
        kind.assert_whole(bucket, id, data).await;
        whole.insert(id.clone());
    }
    keys.keys()
        .any(|key| key.split_once('/').is_some_and(|(id, _)| !visible.contains(id)))
}

/// Every block is there as if nothing had happened, and nothing else is.
async fn everything_is_there(kind: Kind, bucket: &BucketView, data: &Path) {
    let blocks = sealed(data);
    assert_eq!(bucket.visible().await, blocks);
    for id in &blocks {
        kind.assert_whole(bucket, id, data).await;
    }
    let expected: BTreeSet<String> = blocks.iter().flat_map(|id| kind.keys(data, id)).collect();
    // Temporary files of those that were killed stay for a day, and are no objects.
    let object = |key: &String| !key.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
    let found: BTreeSet<String> = bucket.list().await.into_keys().filter(object).collect();
    assert_eq!(found, expected);
}
