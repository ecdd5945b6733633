//! A data directory with real files, a looker, and heartbeats by hand: who answers what, while files come, go and change.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{testing::id, *};
use crate::{
    prometheus::Snapshot,
    tsdb::{
        self, Broken, Reason as Fault,
        read::ReadError,
        testing::{Shape, write_block},
    },
};

/// A directory with the blocks 1 (0..1000) and 2 (1000..2000), all loaded, beside an empty head.
struct Rig {
    data: tempfile::TempDir,
    sealed: Sealed,
    looker: Looker,
    snapshots: watch::Sender<Snapshot>,
}

impl Rig {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let sealed = Sealed::new(data.path().to_owned(), 100);
        let snapshots = watch::Sender::new(Snapshot::unknown("http://prometheus"));
        let answered = watch::Sender::new(None).subscribe();
        let looker = Looker::new(
            sealed.clone(),
            snapshots.subscribe(),
            answered,
            Arc::<Notify>::default(),
        );
        let rig = Self {
            data,
            sealed,
            looker,
            snapshots,
        };
        rig.write(1, 0..1000);
        rig.write(2, 1000..2000);
        rig
    }

    /// As [`Self::new`], with both blocks known to be loaded.
    async fn confirmed() -> Self {
        let mut rig = Self::new().await;
        rig.look().await;
        rig.beat(2, 0);
        rig.look().await;
        assert_eq!(rig.cover(0..=1999).await, (vec![(1, 0..=999), (2, 1000..=1999)], None));
        rig
    }

    fn block(&self, number: u64) -> PathBuf {
        self.data.path().join(id(number).to_string())
    }

    fn write(&self, number: u64, range: std::ops::Range<i64>) {
        let block = write_block(self.data.path(), &id(number).to_string(), Shape::default());
        let meta = serde_json::json!({
            "ulid": block.id.to_string(), "minTime": range.start, "maxTime": range.end, "version": 1,
            "compaction": {"level": 1},
        });
        fs_err::write(block.dir.join("meta.json"), meta.to_string()).unwrap();
    }

    /// Prometheus tells that it has loaded so many blocks, from this second on, with the bytes of all files that are there.
    fn beat(&self, blocks: u64, lowest_seconds: i64) {
        let mut bytes = 0;
        for block in tsdb::scan(self.data.path()).unwrap().blocks {
            bytes += tsdb::Pinned::open(&block).unwrap().bytes();
            for name in ["meta.json", "tombstones"] {
                bytes += fs_err::metadata(block.dir.join(name)).map_or(0, |status| status.len());
            }
        }
        self.snapshots.send_modify(|snapshot| {
            snapshot.up = true;
            snapshot.settings.out_of_order_window_ms = Some(0);
            snapshot.storage_asked_at = Some(Instant::now());
            snapshot.blocks_loaded = Some(blocks);
            snapshot.blocks_bytes = Some(bytes);
            // 0 stands for a Prometheus that does not tell.
            snapshot.lowest_time_ms = if lowest_seconds == 0 { 1 } else { lowest_seconds * 1000 };
            snapshot.head_min_time_ms = Some(i64::MAX);
            snapshot.head_max_time_ms = Some(i64::MIN);
        });
    }

    /// Has the directory looked at until it has settled.
    async fn look(&mut self) {
        let inner = Arc::clone(self.sealed.inner());
        while !self.looker.look(&inner).await {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Which blocks answer what of a request, and what Prometheus is asked for, with the reasons.
    async fn cover(&self, range: std::ops::RangeInclusive<i64>) -> Covered {
        let cover = self.sealed.cover(*range.start(), *range.end()).await;
        let blocks = cover.before.wanted().iter().chain(cover.after.wanted());
        let number = |wanted: &tsdb::read::Wanted| (1..9).find(|number| id(*number) == wanted.block.id()).unwrap();
        let blocks = blocks.map(|wanted| (number(wanted), wanted.range.clone())).collect();
        let asked = cover
            .prometheus
            .map(|asked| (asked.range, asked.reasons.into_iter().collect()));
        (blocks, asked)
    }
}

type Range = std::ops::RangeInclusive<i64>;
type Covered = (Vec<(u64, Range)>, Option<(Range, Vec<Reason>)>);

/// Prometheus alone answers.
fn all(range: Range, reason: Reason) -> Covered {
    (Vec::new(), Some((range, vec![reason])))
}

#[tokio::test]
async fn blocks_are_read_once_prometheus_has_shown_that_it_has_them() {
    let mut rig = Rig::new().await;
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Unknown));
    // What it told before the directory was listed proves nothing.
    rig.beat(2, 0);
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Unknown));
    rig.beat(2, 0);
    rig.look().await;
    assert_eq!(rig.cover(-5..=10).await, (vec![(1, 0..=10)], None));
    let head = Some((2000..=3000, vec![Reason::Head]));
    assert_eq!(
        rig.cover(500..=3000).await,
        (vec![(1, 500..=999), (2, 1000..=1999)], head)
    );
    assert_eq!(rig.cover(2000..=3000).await, all(2000..=3000, Reason::Head));
    // Another Prometheus has other blocks.
    rig.beat(3, 0);
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Differs));
}

#[tokio::test]
async fn what_changes_between_two_looks_is_seen_by_the_call() {
    // A block comes.
    let mut rig = Rig::confirmed().await;
    rig.write(3, 2000..3000);
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Arriving));
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, (vec![(1, 0..=10)], None));
    let arriving = Some((2000..=2500, vec![Reason::Head, Reason::Arriving]));
    assert_eq!(
        rig.cover(900..=2500).await,
        (vec![(1, 900..=999), (2, 1000..=1999)], arriving)
    );
    rig.beat(3, 0);
    rig.look().await;
    assert_eq!(rig.cover(2500..=2600).await, (vec![(3, 2500..=2600)], None));
    // One goes.
    fs_err::remove_dir_all(rig.block(1)).unwrap();
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Differs));
    rig.look().await;
    let gone = Some((0..=999, vec![Reason::Differs]));
    assert_eq!(
        rig.cover(0..=2500).await,
        (vec![(2, 1000..=1999), (3, 2000..=2500)], gone)
    );
    rig.beat(2, 1);
    rig.look().await;
    assert_eq!(rig.cover(0..=1010).await, (vec![(2, 1000..=1010)], None));
}

#[tokio::test]
async fn a_deletion_counts_from_the_call_on_that_comes_after_it() {
    let mut rig = Rig::confirmed().await;
    fs_err::write(rig.block(1).join("tombstones"), [0; 9]).unwrap();
    assert_eq!(
        rig.cover(0..=10).await,
        all(0..=10, Reason::Arriving),
        "the file was not there"
    );
    rig.look().await;
    rig.beat(2, 0);
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, (vec![(1, 0..=10)], None), "it holds nothing");
    // The data directory itself does not change by that.
    fs_err::write(rig.block(1).join("tombstones"), [0; 30]).unwrap();
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Arriving));
    rig.look().await;
    let deleted = Some((0..=999, vec![Reason::Tombstones]));
    assert_eq!(rig.cover(0..=1500).await, (vec![(2, 1000..=1500)], deleted));
}

#[tokio::test]
async fn a_log_of_samples_out_of_order_counts_as_soon_as_it_is_there() {
    let rig = Rig::confirmed().await;
    let log = rig.data.path().join("wbl");
    fs_err::create_dir(&log).unwrap();
    fs_err::write(log.join("00000000"), "").unwrap();
    assert_eq!(
        rig.cover(0..=10).await,
        all(0..=10, Reason::Arriving),
        "the directory has changed"
    );
    let mut rig = rig;
    rig.look().await;
    rig.beat(2, 0);
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, (vec![(1, 0..=10)], None), "an empty log");
    fs_err::write(log.join("00000000"), "sample").unwrap();
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::OutOfOrder));
}

#[tokio::test]
async fn a_damaged_block_is_asked_of_prometheus_until_its_files_are_others() {
    let mut rig = Rig::confirmed().await;
    rig.sealed.report(&ReadError {
        block: id(2),
        broken: Broken {
            reason: Fault::Index,
            detail: "a byte is wrong".to_owned(),
        },
    });
    rig.look().await;
    let damaged = Some((1000..=1999, vec![Reason::Head, Reason::Damaged]));
    assert_eq!(rig.cover(0..=1999).await, (vec![(1, 0..=999)], damaged));
    // An index that cannot be opened is found by the call that opens it.
    let index = rig.block(1).join("index");
    let mut bytes = fs_err::read(&index).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&index, bytes).unwrap();
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Arriving));
    rig.look().await;
    // Prometheus has loaded it, as far as can be seen.
    rig.beat(2, 0);
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Damaged));
    rig.look().await;
    let both = Some((0..=1999, vec![Reason::Head, Reason::Damaged]));
    assert_eq!(rig.cover(0..=1999).await, (vec![], both));
}

#[tokio::test]
async fn a_disk_that_makes_no_progress_is_left_alone_for_a_while() {
    tokio::time::pause();
    let rig = Rig::confirmed().await;
    rig.sealed.stalled();
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Slow));
    assert!(rig.sealed.overview().is_paused);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(rig.cover(0..=10).await, (vec![(1, 0..=10)], None));
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_not_the_end() {
    let mut rig = Rig::confirmed().await;
    let away = rig.data.path().with_extension("away");
    fs_err::rename(rig.data.path(), &away).unwrap();
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Differs));
    rig.look().await;
    assert_eq!(rig.cover(0..=10).await, all(0..=10, Reason::Unknown));
    fs_err::rename(&away, rig.data.path()).unwrap();
    rig.look().await;
    assert_eq!(
        rig.cover(0..=10).await,
        (vec![(1, 0..=10)], None),
        "the same files as before"
    );
}
