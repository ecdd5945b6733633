//! Sender and restore against a model of Prometheus: random histories of samples, seals, truncations, faults of the store, deaths
//! and new lives; after each the disk is lost, and what the sender had called durable must be there.

mod prometheus;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::prometheus::Prometheus;
use super::{apply, survey};
use crate::{
    model::Labels,
    objstore::{
        self, Bucket, ErrorKind, Limits, Op,
        config::parse,
        layers::{Fault, Faulty},
    },
    restore::Target,
    tsdb::BlockId,
    wal::{
        Sender,
        testing::{Blocks, sender},
    },
};

/// A call that hangs is cut off after this time, as by a kill.
const CUT: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
enum Step {
    /// Prometheus takes so many samples, some of them out of order.
    Take(u8, bool),
    /// It seals what it has and cuts its log.
    Seal,
    /// It begins a new segment.
    NextSegment,
    /// What it has sealed last reaches the bucket.
    Ship,
    /// The sender runs a round.
    Round,
    /// It does so, and a call fails.
    Faulty(Op, u8, Fault),
    /// It is killed and starts again.
    Restart,
    /// Prometheus begins anew with an empty directory.
    Wipe,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::Fail(ErrorKind::Network)),
        Just(Fault::FailAfter(ErrorKind::Server)),
        Just(Fault::Hang),
        Just(Fault::Lose),
        Just(Fault::Truncate),
    ];
    let op = prop_oneof![3 => Just(Op::Upload), 1 => Just(Op::Get), 1 => Just(Op::Iter)];
    prop_oneof![
        8 => (1..40_u8, any::<bool>()).prop_map(|(count, late)| Step::Take(count, late)),
        4 => Just(Step::Seal),
        1 => Just(Step::NextSegment),
        3 => Just(Step::Ship),
        8 => Just(Step::Round),
        5 => (op, 1..5_u8, fault).prop_map(|(op, call, fault)| Step::Faulty(op, call, fault)),
        2 => Just(Step::Restart),
        1 => Just(Step::Wipe),
    ]
}

struct World {
    root: tempfile::TempDir,
    bucket: Arc<Faulty>,
    labels: Labels,
    prometheus: Prometheus,
    sender: Sender,
    blocks: Blocks,
    /// What Prometheus had taken when the last round began that was done, in this life.
    durable: BTreeSet<u64>,
    /// When the oldest block was sealed that is not in the bucket.
    open: Option<u64>,
    /// The end of what the bucket has in blocks.
    shipped: u64,
    lives: u32,
}

impl World {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir(root.path().join("bucket")).unwrap();
        let yaml = format!(
            "{{type: FILESYSTEM, config: {{directory: {}}}}}",
            root.path().join("bucket").display()
        );
        let config = parse(&yaml).unwrap();
        let bucket = objstore::open(&config, &Limits::default(), &mut Registry::default())
            .await
            .unwrap();
        let bucket = Faulty::new(bucket);
        let labels = Labels::from_pairs([("replica", "a")]);
        let prometheus = Prometheus::start(root.path().join("life-0"), 1);
        let blocks = Blocks::default();
        let store = Arc::clone(&bucket) as Arc<dyn Bucket>;
        let sender = sender(prometheus.dir(), store, &labels, &blocks);
        Self {
            root,
            bucket,
            labels,
            prometheus,
            sender,
            blocks,
            durable: BTreeSet::new(),
            open: None,
            shipped: 0,
            lives: 1,
        }
    }

    async fn apply(&mut self, step: &Step) {
        match step {
            Step::Take(count, late) => (0..*count).for_each(|_| self.prometheus.take(*late)),
            Step::Seal => {
                if self.prometheus.seal() {
                    self.open.get_or_insert_with(now_ms);
                }
            }
            Step::NextSegment => self.prometheus.next_segment(),
            Step::Ship => self.ship(),
            Step::Round => self.round().await,
            Step::Faulty(op, call, fault) => {
                // Blocks are not the matter here.
                self.bucket
                    .on(*op, "narthex-wal", u32::from(*call)..=u32::from(*call), *fault);
                self.round().await;
                self.bucket.heal();
            }
            Step::Restart => self.restart(),
            Step::Wipe => {
                let dir = self.root.path().join(format!("life-{}", self.lives));
                self.lives += 1;
                self.prometheus = Prometheus::start(dir, self.prometheus.next());
                self.durable.clear();
                self.open = None;
                self.restart();
            }
        }
    }

    fn restart(&mut self) {
        let bucket = Arc::clone(&self.bucket) as Arc<dyn Bucket>;
        self.sender = sender(self.prometheus.dir(), bucket, &self.labels, &self.blocks);
    }

    async fn round(&mut self) {
        self.blocks.set_durable(self.shipped as i64, self.open);
        let taken = self.prometheus.taken().clone();
        match timeout(CUT * 50, self.sender.round_once()).await {
            Ok(true) => self.durable = taken,
            Ok(false) => {}
            Err(_) => self.restart(),
        }
    }

    /// Puts the `meta.json` of a block into the bucket that has all up to the last seal.
    fn ship(&mut self) {
        let end = self.prometheus.sealed();
        if self.open.take().is_none() {
            return;
        }
        self.shipped = end;
        self.prometheus.shipped();
        let id = BlockId::new(end, 0);
        let dir = self.root.path().join("bucket").join(id.to_string());
        fs_err::create_dir_all(&dir).unwrap();
        let meta = serde_json::json!({
            "ulid": id.to_string(), "minTime": 0, "maxTime": end, "version": 1,
            "stats": { "numSamples": 1, "numSeries": 1, "numChunks": 1 },
            "compaction": { "level": 1, "sources": [id.to_string()] },
            "thanos": { "labels": { "replica": "a" }, "downsample": { "resolution": 0 }, "source": "sidecar" },
        });
        fs_err::write(dir.join("meta.json"), meta.to_string()).unwrap();
    }

    /// The disk is lost.
    async fn lose(&mut self) {
        let bucket = &*self.bucket;
        let survey = survey(bucket, &[]).await.unwrap();
        let Ok(survey) = survey else {
            assert_eq!(self.durable, BTreeSet::new());
            return;
        };
        assert_eq!(survey.blocks.end_ms, (self.shipped > 0).then_some(self.shipped as i64));
        let is_in_no_block = |sample: &u64| self.prometheus.is_in_no_block(*sample, self.shipped);
        let must: BTreeSet<u64> = self.durable.iter().copied().filter(is_in_no_block).collect();
        let best = survey.best(bucket, None).await.unwrap();
        let Some((choice, _)) = best.chosen else {
            assert_eq!(must, BTreeSet::new(), "no copy of the log is of use");
            return;
        };
        let to = self.root.path().join("restored");
        let target = Target::open(&to).unwrap();
        let applied = apply(bucket, &target, &choice, 2, &CancellationToken::new()).await;
        assert!(applied.stopped.is_none() && applied.wrong.is_none(), "{applied:?}");
        assert_eq!(applied.damaged, Vec::<String>::new());
        let restored = prometheus::replay(&to, choice.blocks_end_ms.map(|end| end as u64));
        let lacks: Vec<&u64> = must.difference(&restored).collect();
        assert!(
            lacks.is_empty(),
            "{lacks:?} are durable and were not restored by {choice:?}"
        );
    }
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

fn run_history(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        for step in steps {
            world.apply(step).await;
        }
        world.lose().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32))
    })]

    /// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose how many histories, and which.
    #[test]
    fn what_was_durable_is_there_when_the_disk_is_lost(steps in proptest::collection::vec(step(), 1..40)) {
        run_history(&steps);
    }
}
