//! A Prometheus that does nothing but keep its logs: a sample is its time, a number that grows. Segments, checkpoints and their
//! names are those of Prometheus' `tsdb/wlog`.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

use crate::tsdb::BlockId;

const PAGE: u64 = 32 * 1024;

pub(super) struct Prometheus {
    dir: PathBuf,
    /// The time of the next sample.
    next: u64,
    /// The samples that it has taken.
    taken: BTreeSet<u64>,
    /// Those of them that came late.
    late: BTreeSet<u64>,
    /// Those of the late ones that are in a block here, and in one of the bucket.
    late_sealed: BTreeSet<u64>,
    late_shipped: BTreeSet<u64>,
    /// Samples before this are in blocks.
    sealed: u64,
    segment: u64,
    wbl_segment: u64,
}

impl Prometheus {
    pub(super) fn start(dir: PathBuf, next: u64) -> Self {
        fs_err::create_dir_all(dir.join("wal")).unwrap();
        fs_err::create_dir_all(dir.join("wbl")).unwrap();
        let mut prometheus = Self {
            dir,
            next,
            taken: BTreeSet::new(),
            late: BTreeSet::new(),
            late_sealed: BTreeSet::new(),
            late_shipped: BTreeSet::new(),
            sealed: next,
            segment: 0,
            wbl_segment: 0,
        };
        prometheus.create("wal", 0);
        prometheus.create("wbl", 0);
        // What comes late is of a series that stands in the other log.
        prometheus.take(false);
        prometheus
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn taken(&self) -> &BTreeSet<u64> {
        &self.taken
    }

    /// Whether a sample is in no block of the bucket.
    pub(super) fn is_in_no_block(&self, sample: u64, shipped: u64) -> bool {
        match self.late.contains(&sample) {
            true => !self.late_shipped.contains(&sample),
            false => sample >= shipped,
        }
    }

    /// All blocks are in the bucket.
    pub(super) fn shipped(&mut self) {
        self.late_shipped.clone_from(&self.late_sealed);
    }

    /// The end of the last block.
    pub(super) fn sealed(&self) -> u64 {
        self.sealed
    }

    fn create(&self, log: &str, segment: u64) {
        fs_err::File::create(self.dir.join(log).join(format!("{segment:08}"))).unwrap();
    }

    /// Takes a sample; a late one goes to the other log.
    pub(super) fn take(&mut self, late: bool) {
        let (log, segment) = match late {
            true => ("wbl", self.wbl_segment),
            false => ("wal", self.segment),
        };
        append(&self.dir.join(log).join(format!("{segment:08}")), self.next);
        self.taken.insert(self.next);
        if late {
            self.late.insert(self.next);
        }
        self.next += 1;
    }

    pub(super) fn next_segment(&mut self) {
        self.segment += 1;
        self.create("wal", self.segment);
    }

    /// Seals a block of what the head holds but its newest samples, and cuts both logs; whether there was enough.
    pub(super) fn seal(&mut self) -> bool {
        let end = self.sealed + (self.next - self.sealed) * 2 / 3;
        if end <= self.sealed {
            return false;
        }
        self.sealed = end;
        let id = BlockId::new(end, 1);
        let dir = self.dir.join(id.to_string());
        fs_err::create_dir(&dir).unwrap();
        let meta = serde_json::json!({
            "ulid": id.to_string(), "minTime": 0, "maxTime": end, "version": 1,
            "stats": { "numSamples": 1 }, "compaction": { "level": 1, "sources": [id.to_string()] },
        });
        fs_err::write(dir.join("meta.json"), meta.to_string()).unwrap();
        self.cut_wal();
        self.cut_wbl();
        true
    }

    fn cut_wal(&mut self) {
        let wal = self.dir.join("wal");
        let (segments, checkpoint) = look(&wal);
        let (first, last) = (segments[0], *segments.last().unwrap());
        self.next_segment();
        let Some(last) = last.checked_sub(1) else { return };
        let last = first + last.saturating_sub(first) * 2 / 3;
        if last <= first {
            return;
        }
        let mut kept = BTreeSet::new();
        if let Some(number) = checkpoint {
            kept.extend(samples(&wal.join(format!("checkpoint.{number:08}/00000000"))));
        }
        for segment in segments.iter().filter(|segment| **segment <= last) {
            kept.extend(samples(&wal.join(format!("{segment:08}"))));
        }
        let name = wal.join(format!("checkpoint.{last:08}"));
        let unfinished = name.with_extension(format!("{last:08}.tmp"));
        fs_err::create_dir(&unfinished).unwrap();
        fs_err::File::create(unfinished.join("00000000")).unwrap();
        for sample in kept.range(self.sealed..) {
            append(&unfinished.join("00000000"), *sample);
        }
        fs_err::rename(unfinished, name).unwrap();
        for segment in segments.iter().filter(|segment| **segment <= last) {
            fs_err::remove_file(wal.join(format!("{segment:08}"))).unwrap();
        }
        if let Some(number) = checkpoint {
            fs_err::remove_dir_all(wal.join(format!("checkpoint.{number:08}"))).unwrap();
        }
    }

    /// All that came late is in a block.
    fn cut_wbl(&mut self) {
        let wbl = self.dir.join("wbl");
        let (segments, _) = look(&wbl);
        for segment in &segments {
            self.late_sealed.extend(samples(&wbl.join(format!("{segment:08}"))));
        }
        self.wbl_segment += 1;
        self.create("wbl", self.wbl_segment);
        for segment in segments {
            fs_err::remove_file(wbl.join(format!("{segment:08}"))).unwrap();
        }
    }
}

/// The segments of a log and its newest checkpoint.
fn look(dir: &Path) -> (Vec<u64>, Option<u64>) {
    let names = fs_err::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.collect();
    let checkpoints = names.iter().filter_map(|name| name.strip_prefix("checkpoint."));
    let checkpoint = checkpoints.map(|number| number.parse().unwrap()).max();
    let mut segments: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
    segments.sort_unstable();
    (segments, checkpoint)
}

/// Appends a record with a sample and as many bytes more as its time says.
fn append(segment: &Path, sample: u64) {
    let mut data = sample.to_be_bytes().to_vec();
    data.resize(8 + (sample % 1500) as usize, sample as u8);
    let mut record = vec![1];
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(crc32c::crc32c(&data).to_be_bytes());
    record.extend(data);
    let mut file = fs_err::OpenOptions::new().append(true).open(segment).unwrap();
    let len = file.metadata().unwrap().len();
    let left = PAGE - len % PAGE;
    if left < record.len() as u64 {
        file.write_all(&vec![0; left as usize]).unwrap();
    }
    file.write_all(&record).unwrap();
}

/// The samples of a segment; every byte of it must be that of a record.
fn samples(segment: &Path) -> BTreeSet<u64> {
    let bytes = fs_err::read(segment).unwrap();
    let (mut samples, mut at) = (BTreeSet::new(), 0);
    while at < bytes.len() {
        if bytes[at] == 0 {
            at = (at / PAGE as usize + 1) * PAGE as usize;
            continue;
        }
        let len = usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]));
        let data = &bytes[at + 7..at + 7 + len];
        let sample = u64::from_be_bytes(data[..8].try_into().unwrap());
        assert!(data[8..].iter().all(|byte| *byte == sample as u8) && data.len() == 8 + (sample % 1500) as usize);
        samples.insert(sample);
        at += 7 + len;
    }
    samples
}

/// What Prometheus has after it has replayed the logs of a directory: nothing of `wal` from before the end of its newest block.
pub(super) fn replay(dir: &Path, blocks_end: Option<u64>) -> BTreeSet<u64> {
    let blocks = crate::tsdb::scan(dir).unwrap().blocks;
    let newest = blocks.iter().map(|block| block.meta.max_time).max();
    assert_eq!(
        newest,
        blocks_end.map(|end| end as i64),
        "the block without samples ends there"
    );
    let wal = dir.join("wal");
    let (segments, checkpoint) = look(&wal);
    let first = checkpoint.map_or(0, |number| number + 1);
    let expected: Vec<u64> = (first..first + segments.len() as u64).collect();
    assert_eq!(segments, expected, "Prometheus opens one after the other");
    let mut all = BTreeSet::new();
    if let Some(number) = checkpoint {
        all.extend(samples(&wal.join(format!("checkpoint.{number:08}/00000000"))));
    }
    for segment in segments {
        all.extend(samples(&wal.join(format!("{segment:08}"))));
    }
    let mut all = all.split_off(&blocks_end.unwrap_or(0));
    if fs_err::metadata(dir.join("wbl")).is_ok() {
        for segment in look(&dir.join("wbl")).0 {
            all.extend(samples(&dir.join("wbl").join(format!("{segment:08}"))));
        }
    }
    all
}
