//! When Prometheus' retention deletes local blocks that are not durable: it asks nobody whether a block was shipped.
//!
//! **By time** a block goes once it ends so much before the end of the newest block, so not before that time has passed since
//! its end. **By size** it goes once the head, it, and all that end no earlier take more than they may. When that will be is
//! estimated: as if the disk went on filling as it did in the last day of blocks. (Prometheus looks each minute, and when it has
//! sealed or compacted a block.)
//!
//! The size of each block is read from the disk once; that of the head while a size is a limit and a block is not listed in the
//! ledger. What cannot be read counts as nothing. Nothing is kept on disk; a restart warns again.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;

use super::{Shipper, durability::Report, durability_metrics::View, ledger::now_ms};
use crate::{
    model::{Retention, duration_text::go_duration},
    threads::blocking,
    tsdb::{Block, BlockId, Scan},
};

/// The most blocks that are named in the metric: those that go first.
const NAMED: usize = 20;

/// From which blocks it is estimated how fast the disk fills: those that end within so much (ms) before the end of the newest.
const RECENT_MS: i64 = 24 * 60 * 60 * 1000;

/// Directories of Prometheus' head, which counts as well.
const HEAD: [&str; 3] = ["wal", "wbl", "chunks_head"];

/// Directories below a block or the head of which the files count: `chunks`, and checkpoints within `wal`.
const DEPTH: usize = 1;

/// When retention deletes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deletion {
    /// In ms since 1970; in the past: at any moment.
    pub(super) at_ms: i64,
    /// `time` or `size`.
    pub(super) limit: &'static str,
}

impl Deletion {
    /// What is left until then.
    pub(super) fn left(self, now_ms: i64) -> Duration {
        Duration::from_secs(u64::try_from(self.at_ms.saturating_sub(now_ms)).unwrap_or(0) / 1000)
    }

    /// The same for a message, to the minute.
    pub(super) fn left_in_words(self, now_ms: i64) -> String {
        let minutes = self.left(now_ms).as_secs() / 60;
        go_duration(i64::try_from(minutes).unwrap_or(i64::MAX).saturating_mul(60_000))
    }

    /// Whether less than a quarter is left of the time on the disk of a block that was made then (ms since 1970).
    fn is_near(self, made_ms: i64, now_ms: i64) -> bool {
        let (left, whole) = (self.at_ms.saturating_sub(now_ms), self.at_ms.saturating_sub(made_ms));
        left <= 0 || left < whole / 4
    }
}

/// What is known of the disk.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// What each block takes, in bytes.
    blocks: HashMap<BlockId, u64>,
    /// What the head takes, in bytes.
    head: u64,
    /// What both may take, in bytes; `None` without a limit.
    limit: Option<u64>,
}

/// When retention deletes what is not durable, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// How long Prometheus keeps blocks, as known when the disk was measured.
    kept: Retention,
    disk: Disk,
    deletions: HashMap<BlockId, Deletion>,
    /// The blocks of which it was logged that little time is left.
    logged: HashSet<BlockId>,
}

impl Forecast {
    /// When retention deletes a block that is not durable, as of the last pass.
    pub(super) fn deletion(&self, id: BlockId) -> Option<Deletion> {
        self.deletions.get(&id).copied()
    }

    /// Whether a block is not durable, and less than a quarter is left of its time until retention deletes it.
    pub(super) fn is_near_deletion(&self, id: BlockId) -> bool {
        self.logged.contains(&id)
    }

    /// What a block takes on the disk, in bytes, if it was measured.
    pub(super) fn bytes(&self, id: BlockId) -> Option<u64> {
        self.disk.blocks.get(&id).copied()
    }
}

/// What all local blocks say together: computed once for all that are judged, of which there may be thousands.
#[derive(Debug)]
struct Local {
    /// The end of the newest block (ms since 1970).
    newest: i64,
    /// What the head, and all blocks that end no earlier than this (ms since 1970), take, in bytes.
    taken: HashMap<i64, u64>,
    /// By how much the disk has filled in the last day of blocks, in bytes, and in which time (ms).
    grown: (u64, i64),
}

impl Local {
    /// `None` without a block.
    fn new(blocks: &[&Block], disk: &Disk) -> Option<Self> {
        let bytes = |block: &Block| disk.blocks.get(&block.id).copied().unwrap_or(0);
        let mut blocks = blocks.to_vec();
        blocks.sort_unstable_by_key(|block| Reverse(block.meta.max_time));
        let newest = blocks.first()?.meta.max_time;
        let (mut taken, mut sum) = (HashMap::new(), disk.head);
        for block in &blocks {
            sum = sum.saturating_add(bytes(block));
            taken.insert(block.meta.max_time, sum);
        }
        let recent = blocks
            .iter()
            .filter(|block| newest.saturating_sub(block.meta.max_time) < RECENT_MS);
        let (grown, since) = recent.fold((0_u64, newest), |(sum, since), block| {
            (sum.saturating_add(bytes(block)), since.min(block.meta.min_time))
        });
        Some(Self {
            newest,
            taken,
            grown: (grown, newest.saturating_sub(since).max(1)),
        })
    }

    /// When one of the blocks goes that ends then (ms since 1970).
    fn deletion(&self, end: i64, time_ms: Option<i64>, limit: Option<u64>, now_ms: i64) -> Option<Deletion> {
        let by_time = time_ms.map(|kept| {
            let at_ms = match self.newest.saturating_sub(end) >= kept {
                true => now_ms.min(end.saturating_add(kept)),
                false => end.saturating_add(kept),
            };
            Deletion { at_ms, limit: "time" }
        });
        let by_size = limit.and_then(|limit| {
            let room = limit.checked_sub(self.taken.get(&end).copied().unwrap_or(0));
            let (grown, took_ms) = self.grown;
            let at_ms = match (room, grown) {
                (None, _) => now_ms,
                (Some(_), 0) => return None,
                (Some(room), grown) => now_ms.saturating_add((room as f64 / grown as f64 * took_ms as f64) as i64),
            };
            Some(Deletion { at_ms, limit: "size" })
        });
        by_time.into_iter().chain(by_size).min_by_key(|deletion| deletion.at_ms)
    }
}

/// What the files in a directory take, and those in directories so deep below it, in bytes; what cannot be read is left out.
fn bytes_below(dir: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => bytes_below(&entry.path(), depth - 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

/// How many bytes blocks and head may take in this directory.
fn limit_of_disk(dir: &Path, retention: Retention) -> Option<u64> {
    let part = retention.disk_millionths.and_then(|millionths| {
        let disk = rustix::fs::statvfs(dir).ok()?;
        let whole = u128::from(disk.f_blocks) * u128::from(disk.f_frsize);
        u64::try_from(whole * u128::from(millionths) / 1_000_000).ok()
    });
    part.or(retention.bytes)
}

/// What blocks take, in bytes; those that are not known are measured.
fn measure_blocks(known: &HashMap<BlockId, u64>, blocks: Vec<(BlockId, PathBuf)>) -> HashMap<BlockId, u64> {
    let bytes = |(id, dir): (BlockId, PathBuf)| {
        let known = known.get(&id).copied();
        (id, known.unwrap_or_else(|| bytes_below(&dir, DEPTH)))
    };
    blocks.into_iter().map(bytes).collect()
}

/// What the head takes, and what it may take with the blocks.
fn measure_head(dir: &Path, retention: Retention) -> (u64, Option<u64>) {
    let head = HEAD.iter().map(|name| bytes_below(&dir.join(name), DEPTH)).sum();
    (head, limit_of_disk(dir, retention))
}

impl Shipper {
    /// Reads from the disk what is needed to tell when retention deletes blocks by size, if it does.
    pub(super) async fn measure_disk(&mut self, scan: &Scan) {
        let retention = self.prometheus.borrow().retention.unwrap_or_default();
        self.retention.kept = retention;
        let by_size = retention.bytes.is_some() || retention.disk_millionths.is_some();
        let all_listed = scan.blocks.iter().all(|block| self.ledger.contains(block.id));
        let mut measured = (0, None);
        if by_size && !all_listed {
            self.measure_blocks(scan).await;
            let dir = self.settings.dir.clone();
            // Without an answer nothing is known of the disk, as before.
            measured = blocking(move || measure_head(&dir, retention))
                .await
                .unwrap_or_default();
        }
        (self.retention.disk.head, self.retention.disk.limit) = measured;
    }

    /// Reads from the disk what those blocks take of which that is not known.
    pub(super) async fn measure_blocks(&mut self, scan: &Scan) {
        let known = std::mem::take(&mut self.retention.disk.blocks);
        if known.len() == scan.blocks.len() && scan.blocks.iter().all(|block| known.contains_key(&block.id)) {
            self.retention.disk.blocks = known;
            return;
        }
        let blocks = scan.blocks.iter().map(|block| (block.id, block.dir.to_path_buf()));
        let blocks = blocks.collect();
        let measured = blocking(move || measure_blocks(&known, blocks)).await;
        self.retention.disk.blocks = measured.unwrap_or_default();
    }

    /// Sets the metrics to when retention deletes what is not durable, and logs which blocks have little time left.
    pub(super) fn report_retention(&mut self, view: View<'_>, report: &Report) {
        let local = view.decisions.iter().map(|decision| &decision.block);
        let local: Vec<&Block> = local.filter(|block| !self.held.is_deleted(block.id)).collect();
        let open: HashSet<BlockId> = report.open.iter().map(|open| open.id).collect();
        let (now, Forecast { kept, disk, .. }) = (now_ms(), &self.retention);
        let together = Local::new(&local, disk);
        let open = local.iter().filter(|block| open.contains(&block.id));
        let deletions = open.filter_map(|block| {
            let deletion = together
                .as_ref()?
                .deletion(block.meta.max_time, kept.time_ms, disk.limit, now);
            Some((block.id, deletion?))
        });
        let deletions: HashMap<BlockId, Deletion> = deletions.collect();
        let made = |id: BlockId| i64::try_from(id.timestamp_ms()).unwrap_or(i64::MAX);
        let near = deletions
            .iter()
            .filter(|(id, deletion)| deletion.is_near(made(**id), now));
        let near: HashSet<BlockId> = near.map(|(id, _)| *id).collect();
        for id in near.difference(&self.retention.logged) {
            let Deletion { at_ms, limit } = deletions[id];
            let left = Deletion { at_ms, limit }.left_in_words(now);
            let why = self.pending.get(id).map_or("", |pending| &pending.why);
            tracing::warn!(block = %id, left, limit, why, "Prometheus' retention deletes this block soon, and it is not in the bucket: more than three quarters of its time are over. Mend what keeps it, or raise the retention until it is shipped");
        }
        self.metrics
            .near_deletion
            .set(i64::try_from(near.len()).unwrap_or(i64::MAX));
        let mut first: Vec<_> = deletions.iter().collect();
        first.sort_unstable_by_key(|(id, deletion)| (deletion.at_ms, **id));
        let first = first.into_iter().take(NAMED);
        let named = first.map(|(id, deletion)| (*id, deletion.limit, deletion.at_ms as f64 / 1000.0));
        self.metrics.set_deletions(named.collect());
        self.retention.logged = near;
        self.retention.deletions = deletions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::testing::{block, numbered};

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 100 * HOUR;

    /// Blocks of two hours, the newest of which ends `end` hours after 1970.
    fn blocks(count: i64, end: i64) -> Vec<Block> {
        let range = |n: i64| ((end - 2 * n - 2) * HOUR, (end - 2 * n) * HOUR);
        (0..count).map(|n| block(n as u32, range(n), &[n as u32])).collect()
    }

    fn disk(blocks: &[Block], bytes: u64, head: u64, limit: u64) -> Disk {
        Disk {
            blocks: blocks.iter().map(|block| (block.id, bytes)).collect(),
            head,
            limit: Some(limit),
        }
    }

    fn deletion(block: &Block, local: &[&Block], time_ms: Option<i64>, disk: &Disk, now_ms: i64) -> Option<Deletion> {
        Local::new(local, disk)?.deletion(block.meta.max_time, time_ms, disk.limit, now_ms)
    }

    fn hours(found: Option<Deletion>) -> Option<(i64, &'static str)> {
        found.map(|deletion| (deletion.at_ms / HOUR, deletion.limit))
    }

    #[test]
    fn by_time_a_block_goes_so_much_after_its_end() {
        let local = blocks(4, 98);
        let local: Vec<&Block> = local.iter().collect();
        let none = Disk::default();
        let at = |n: usize, kept: i64| hours(deletion(local[n], &local, Some(kept * HOUR), &none, NOW));
        assert_eq!(at(0, 24), Some((122, "time")));
        assert_eq!(at(3, 24), Some((116, "time")));
        // It ended as long before the newest as blocks are kept, or longer.
        assert_eq!((at(3, 6), at(3, 5)), (Some((98, "time")), Some((97, "time"))));
        assert_eq!(deletion(local[0], &local, None, &none, NOW), None);
    }

    #[test]
    fn a_block_of_the_future_takes_the_older_ones_with_it() {
        let mut local = blocks(2, 98);
        local.push(block(9, (400 * HOUR, 402 * HOUR), &[9]));
        let local: Vec<&Block> = local.iter().collect();
        let at = |n: usize| hours(deletion(local[n], &local, Some(24 * HOUR), &Disk::default(), NOW));
        assert_eq!((at(0), at(1)), (Some((100, "time")), Some((100, "time"))));
    }

    #[test]
    fn by_size_a_block_goes_when_it_and_all_newer_ones_and_the_head_do_not_fit() {
        let all = blocks(4, 98);
        let local: Vec<&Block> = all.iter().collect();
        // 100 bytes in two hours.
        let at = |n: usize, head, limit| {
            let disk = disk(&all, 100, head, limit);
            hours(deletion(local[n], &local, None, &disk, NOW))
        };
        assert_eq!(at(3, 0, 500), Some((102, "size")));
        assert_eq!(at(3, 50, 500), Some((101, "size")));
        assert_eq!(at(0, 0, 500), Some((108, "size")));
        assert_eq!(at(3, 0, 400), Some((100, "size")), "one byte more");
        assert_eq!(at(3, 0, 399), Some((100, "size")), "it goes at once");
        assert_eq!(at(0, 0, 399), Some((105, "size")));
        assert_eq!(at(0, 500, 399), Some((100, "size")));
        let empty = disk(&all, 0, 0, 10);
        assert_eq!(deletion(local[0], &local, None, &empty, NOW), None);
        // Whichever comes first.
        let disk = disk(&all, 100, 0, 500);
        let both = |kept: i64| hours(deletion(local[3], &local, Some(kept * HOUR), &disk, NOW));
        assert_eq!((both(9), both(24)), (Some((101, "time")), Some((102, "size"))));
    }

    #[test]
    fn what_grew_more_than_a_day_before_the_newest_block_tells_nothing_of_today() {
        let mut all = blocks(12, 98);
        all.push(block(50, (0, 10 * HOUR), &[50]));
        let local: Vec<&Block> = all.iter().collect();
        let mut disk = disk(&all, 100, 0, 1_600);
        disk.blocks.insert(numbered(50), 300);
        assert_eq!(
            hours(deletion(local[12], &local, None, &disk, NOW)),
            Some((102, "size"))
        );
    }

    #[test]
    fn the_last_quarter_of_its_time_is_near() {
        let at = |at_ms| Deletion { at_ms, limit: "time" };
        assert!(!at(200).is_near(100, 174));
        assert!(!at(200).is_near(100, 175));
        assert!(at(200).is_near(100, 176));
        assert!(at(200).is_near(300, 250));
        assert!(at(200).is_near(300, 200));
        assert!(!at(200).is_near(300, 199));
        assert_eq!(at(9_500).left(2_000), Duration::from_secs(7));
        assert_eq!(at(9_500).left(20_000), Duration::ZERO);
    }

    #[test]
    fn a_part_of_the_disk_goes_before_a_number_of_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let limits = |bytes, disk_millionths| Retention {
            bytes,
            disk_millionths,
            ..Retention::default()
        };
        let (whole, half) = (limits(Some(1), Some(1_000_000)), limits(None, Some(500_000)));
        let whole = limit_of_disk(dir.path(), whole).unwrap();
        assert!(whole > 1 << 20, "{whole}");
        assert_eq!(limit_of_disk(dir.path(), half), Some(whole / 2));
        assert_eq!(limit_of_disk(dir.path(), limits(Some(7), None)), Some(7));
        let gone = dir.path().join("gone");
        assert_eq!(limit_of_disk(&gone, limits(Some(7), Some(1))), Some(7));
    }

    #[test]
    fn what_a_block_and_the_head_take_is_read_once_and_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let block = dir.path().join("block");
        for (file, bytes) in [
            ("block/index", 10),
            ("block/chunks/000001", 100),
            ("wal/00000001", 1_000),
            ("wal/checkpoint.00000000/00000000", 10_000),
            ("chunks_head/000001", 100_000),
            ("other/file", 1_000_000),
        ] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, vec![0; bytes]).unwrap();
        }
        let retention = Retention {
            bytes: Some(5),
            ..Retention::default()
        };
        let list = || vec![(numbered(1), block.clone())];
        let first = measure_blocks(&HashMap::new(), list());
        assert_eq!(first[&numbered(1)], 110);
        assert_eq!(measure_head(dir.path(), retention), (111_000, Some(5)));
        fs::write(block.join("index"), "longer than it was").unwrap();
        fs::write(dir.path().join("wal/00000002"), "x").unwrap();
        assert_eq!(measure_blocks(&first, list())[&numbered(1)], 110);
        assert_eq!(measure_head(dir.path(), retention).0, 111_001);
    }
}
