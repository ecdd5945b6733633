//! A Prometheus with a block that others damage, two narthexes beside it, and what is in the block.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ops::RangeInclusive,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use fs_err as fs;
use narthex::pb::thanos::{LabelMatcher, Series, SeriesRequest, label_matcher::Type};

use super::super::{
    ask::{Floats, Got, Set, matcher},
    stage::{LIMIT, Stage, Written, labels, prometheus_of, start_ms, write},
};
use crate::{
    rig::{Leg, Prometheus},
    series_faults::scene::{Client, Outcome, read},
};

/// Time of a block, in ms.
pub(super) const BLOCK: i64 = 60_000;
/// Those that are sealed in the beginning.
const BLOCKS: i64 = 4;
/// Time of the samples of one request to write, in ms.
const AT_ONCE: i64 = 20_000;
/// The series that are there all the time, and the time between their samples, in ms.
const SMALL: (usize, i64) = (20, 5_000);
/// Those of the second block only.
const LARGE_STEP: i64 = 1_000;
const EXTERNAL: [(&str, &str); 2] = [("cluster", "eu"), ("replica", "a")];

/// What of all series a request is for.
pub(super) struct Asked {
    matcher: fn() -> LabelMatcher,
    name: Option<&'static str>,
}

/// The small series.
pub(super) const SOME: Asked = Asked {
    matcher: || matcher(Type::Eq, "__name__", "m"),
    name: Some("m"),
};
/// The large ones, which come last in a block.
pub(super) const LARGE: Asked = Asked {
    matcher: || matcher(Type::Eq, "__name__", "zlarge"),
    name: Some("zlarge"),
};
/// All, by the list of all series.
pub(super) const ALL: Asked = Asked {
    matcher: || matcher(Type::Eq, "missing", ""),
    name: None,
};
/// All, by several lists.
pub(super) const NAMED: Asked = Asked {
    matcher: || matcher(Type::Re, "__name__", "m|z.*"),
    name: None,
};

/// A series that Prometheus has not got from us.
pub(super) const EXTRA: Asked = Asked {
    matcher: || matcher(Type::Eq, "__name__", "extra"),
    name: Some("extra"),
};

fn value(series: usize, at: i64) -> f64 {
    // Of no pattern that makes chunks short.
    (at.wrapping_mul(0x9E37_79B9).wrapping_add(series as i64 * 7919) % 1_000_003) as f64 / 7.0
}

/// A Prometheus with a block that has large series, a narthex that reads its blocks, and one that does not.
pub(super) struct Scene {
    pub(super) prometheus: Prometheus,
    pub(super) disk: Stage,
    pub(super) alone: Stage,
    pub(super) start: i64,
    /// Up to where samples were written, in ms after the start.
    end: Cell<i64>,
    large: usize,
    text: String,
}

impl Scene {
    /// With so many large series, each with a label of so many bytes.
    pub(super) async fn start(leg: &Leg, large: usize, text: usize) -> Scene {
        let prometheus = prometheus_of(leg, &EXTERNAL, "1m", &[]).await;
        let beat = "--prometheus.get_config_interval=1s";
        // Little is read ahead of a client that reads slowly.
        let disk = Stage::start(&prometheus, &[beat, "--store.read-ahead=1MiB"]).await;
        let alone = Stage::start(&prometheus, &[beat, "--no-store.sealed-from-disk"]).await;
        let scene = Scene {
            prometheus,
            disk,
            alone,
            start: start_ms() / BLOCK * BLOCK,
            end: Cell::new(0),
            large,
            text: "text ".repeat(text / 5),
        };
        scene.write_until(BLOCKS * BLOCK + BLOCK / 2 + 1).await;
        scene.prometheus.wait_for_blocks(BLOCKS as usize - 1, LIMIT).await;
        scene
    }

    /// The labels of the series as they are stored.
    fn stored(&self) -> impl Iterator<Item = (usize, BTreeMap<String, String>)> {
        let small = (0..SMALL.0).map(|i| (i, labels(&[("__name__", "m"), ("i", &format!("{i:05}"))])));
        let text = ("text", &*self.text);
        let large = move |i| labels(&[("__name__", "zlarge"), ("i", &format!("{i:05}")), text]);
        small.chain((SMALL.0..SMALL.0 + self.large).map(move |i| (i, large(i))))
    }

    /// The samples of a series between two times after the start.
    fn samples(&self, series: usize, times: std::ops::Range<i64>) -> Vec<(i64, f64)> {
        let is_large = series >= SMALL.0;
        let step = if is_large { LARGE_STEP } else { SMALL.1 };
        let is_there = |at: &i64| times.contains(at) && (!is_large || (BLOCK..2 * BLOCK).contains(at));
        let all = (0..times.end).step_by(step as usize).filter(is_there);
        all.map(|at| (self.start + at, value(series, at))).collect()
    }

    async fn write_until(&self, end: i64) {
        while self.end.get() < end {
            let from = self.end.get();
            let to = end.min(from + AT_ONCE);
            let part = |(series, labels)| Written {
                labels,
                floats: self.samples(series, from..to),
                ..Written::default()
            };
            let all: Vec<Written> = self.stored().map(part).filter(|one| !one.floats.is_empty()).collect();
            write(&self.prometheus, &all).await;
            self.end.set(to);
        }
    }

    /// Has Prometheus seal one more block, so that it looks at all of its blocks again.
    pub(super) async fn reload(&self) {
        let name = "prometheus_tsdb_head_truncations_total";
        let truncations = self.prometheus.metric(name).await.unwrap();
        self.write_until(self.end.get() + BLOCK).await;
        let truncated = async || self.prometheus.metric(name).await.filter(|now| *now > truncations);
        self.disk.sidecar.wait_until(LIMIT, name, truncated).await;
    }

    /// The second block.
    pub(super) fn block(&self) -> PathBuf {
        let blocks = self.prometheus.blocks();
        let blocks = blocks.iter().map(|name| self.prometheus.data().join(name));
        let mut starts = blocks.map(|path| {
            let meta = fs::read(path.join("meta.json")).unwrap();
            let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
            (meta["minTime"].as_i64().unwrap(), path)
        });
        starts.find(|(start, _)| *start == self.start + BLOCK).unwrap().1
    }

    /// A request for all of the second block.
    pub(super) fn request(&self, asked: &Asked) -> SeriesRequest {
        self.request_for(asked, BLOCK..=2 * BLOCK - 1)
    }

    fn request_for(&self, asked: &Asked, times: RangeInclusive<i64>) -> SeriesRequest {
        SeriesRequest {
            min_time: self.start + times.start(),
            max_time: self.start + times.end(),
            matchers: vec![(asked.matcher)()],
            ..SeriesRequest::default()
        }
    }

    /// What is right.
    pub(super) fn wanted(&self, asked: &Asked) -> BTreeMap<Set, Floats> {
        let is_asked = |labels: &BTreeMap<String, String>| asked.name.is_none_or(|name| labels["__name__"] == name);
        let asked = self.stored().filter(|(_, labels)| is_asked(labels));
        let one = |(series, mut set): (usize, BTreeMap<String, String>)| {
            set.extend(labels(&EXTERNAL));
            let floats = self.samples(series, BLOCK..2 * BLOCK).into_iter();
            (
                set.into_iter().collect(),
                floats.map(|(at, value)| (at, value.to_bits())).collect(),
            )
        };
        asked.map(one).collect()
    }

    /// Asks the one that reads blocks; the answer must be right.
    pub(super) async fn assert_right(&self, asked: &Asked) {
        let got = self.disk.series(self.request(asked)).await;
        assert_eq!(differs(&got.floats(), true, &self.wanted(asked)), None);
    }

    /// Asks the one that reads blocks, of which one is damaged: what comes is right, or what Prometheus makes of the same damage,
    /// as it does not look at each checksum; and then it was Prometheus that was asked.
    pub(super) async fn assert_right_or_its(&self, asked: &Asked, what: &str) {
        let calls = self.calls_from_disk().await;
        let got = ask(&self.disk, self.request(asked)).await;
        let (is_whole, found) = (got.end.is_ok(), floats(got.series));
        let Some(wrong) = differs(&found, is_whole, &self.wanted(asked)) else {
            return;
        };
        let alone = ask(&self.alone, self.request(asked)).await;
        let is_its = differs(&found, is_whole, &floats(alone.series));
        assert_eq!(is_its, None, "{what}: {wrong}; Prometheus: {:?}", alone.end);
        assert_eq!(self.calls_from_disk().await, calls, "{what}: {wrong}");
    }

    /// So many calls are counted.
    async fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let metrics = self.disk.sidecar.metrics().await.unwrap();
        metrics.value(name, labels).unwrap_or_default()
    }

    pub(super) async fn calls_from_disk(&self) -> f64 {
        self.count("narthex_series_calls_total", &[("source", "disk")]).await
    }

    pub(super) async fn for_reason(&self, reason: &str) -> f64 {
        self.count("narthex_series_calls_to_prometheus_total", &[("reason", reason)])
            .await
    }

    /// Does something that asks until some of it was answered from disk only.
    pub(super) async fn until_from_disk(&self, mut ask: impl AsyncFnMut()) {
        let probe = async || {
            let calls = self.calls_from_disk().await;
            ask().await;
            (self.calls_from_disk().await > calls).then_some(())
        };
        self.disk.sidecar.wait_until(LIMIT, "an answer from disk", probe).await;
    }
}

impl Scene {
    /// Both give the same, whatever Prometheus does meanwhile.
    pub(super) async fn compare(&self, leg: &Leg) {
        for times in [
            BLOCK..=2 * BLOCK - 1,
            BLOCK..=2 * BLOCK,
            BLOCK + 7_000..=3 * BLOCK - 1,
            0..=i64::MAX / 2,
        ] {
            let request = self.request_for(&ALL, times);
            let before = self.alone.series(request.clone()).await.floats();
            let got = self.disk.series(request.clone()).await.floats();
            let after = self.alone.series(request.clone()).await.floats();
            let differ = [&before, &after].map(|right| differs(&got, true, right));
            assert!(differ.contains(&None), "{} {request:?}: {differ:?}", leg.version);
        }
    }

    /// What Prometheus holds of these series in the second block.
    pub(super) async fn alone(&self, asked: &Asked) -> usize {
        self.alone.series(self.request(asked)).await.series.len()
    }
}

/// What is wrong with what has come of the `right` answer: all of it, if it `is_whole`.
pub(super) fn differs(found: &BTreeMap<Set, Floats>, is_whole: bool, right: &BTreeMap<Set, Floats>) -> Option<String> {
    for (set, floats) in found {
        let Some(right) = right.get(set) else {
            return Some(format!("a series that is not there: {set:?}"));
        };
        if let Some(wrong) = floats.iter().find(|sample| !right.contains(sample)) {
            return Some(format!("a wrong sample of {set:?}: {wrong:?}"));
        }
    }
    let is_complete = !is_whole || found == right;
    (!is_complete).then(|| format!("{} series of {}, or not all of their samples", found.len(), right.len()))
}

pub(super) fn floats(series: Vec<Series>) -> BTreeMap<Set, Floats> {
    let messages = Vec::new();
    Got { messages, series }.floats()
}

/// Asks, and keeps what comes before an error.
pub(super) async fn ask(stage: &Stage, request: SeriesRequest) -> Outcome {
    match Client::connect(&stage.sidecar).await.request(request).await {
        Ok(stream) => read(stream).await,
        Err(status) => Outcome {
            series: Vec::new(),
            end: Err(status),
        },
    }
}

/// A byte of a block.
pub(super) struct Place {
    pub(super) what: &'static str,
    file: PathBuf,
    offset: u64,
}

impl Place {
    /// Changes the byte in place; the second time it is as it was.
    pub(super) fn flip(&self) {
        let file = fs::OpenOptions::new().read(true).write(true).open(&self.file).unwrap();
        let mut byte = [0];
        file.file().read_exact_at(&mut byte, self.offset).unwrap();
        file.file().write_all_at(&[byte[0] ^ 0x04], self.offset).unwrap();
    }
}

/// Bytes of all that an answer is made of.
pub(super) fn places(block: &Path) -> Vec<Place> {
    let (index, segment) = (block.join("index"), block.join("chunks/000001"));
    let bytes = fs::read(&index).unwrap();
    let end = bytes.len() as u64;
    // The table of contents: six offsets of 8 bytes, and a checksum.
    let (toc, _) = bytes[bytes.len() - 52..].as_chunks::<8>();
    let [symbols, series, label_indices, _, postings, table] = [0, 1, 2, 3, 4, 5].map(|at| u64::from_be_bytes(toc[at]));
    let series_end = [label_indices, postings, table]
        .into_iter()
        .filter(|at| *at > series)
        .min()
        .unwrap();
    let place = |what, file: &PathBuf, offset| Place {
        what,
        file: file.clone(),
        offset,
    };
    vec![
        place("the last series", &index, series_end - 24),
        place("the last chunk", &segment, fs::metadata(&segment).unwrap().len() - 20),
        place("the symbol of the last series", &index, last_symbol(&bytes)),
        place("the first series", &index, series + 20),
        place("the first chunk", &segment, 24),
        place("a symbol", &index, symbols + 12),
        // Behind its length and the count comes the first number.
        place("the list of all series", &index, postings + 11),
        place(
            "the last list of series",
            &index,
            postings_end(&bytes, postings, table) - 6,
        ),
        place("the postings table", &index, table + 4 + (end - 52 - table) / 2),
    ]
}

/// Where the lists that begin at `at` end.
fn postings_end(index: &[u8], mut at: u64, table: u64) -> u64 {
    loop {
        let len = u32::from_be_bytes(*index[at as usize..].first_chunk().unwrap());
        let end = at + 4 + u64::from(len) + 4;
        // Each begins at a multiple of 4, and other tables may follow.
        let next = end.next_multiple_of(4);
        let count = index.get(next as usize + 4..).and_then(|rest| rest.first_chunk());
        let len = index[next as usize..].first_chunk().map(|len| u32::from_be_bytes(*len));
        let fits = count
            .zip(len)
            .is_some_and(|(count, len)| len == (u32::from_be_bytes(*count) + 1) * 4);
        if next >= table || !fits {
            return end;
        }
        at = next;
    }
}

/// The last digit of the number that the last series has as a label.
fn last_symbol(index: &[u8]) -> u64 {
    let is_number = |text: &[u8]| text[0] == 5 && text[1..].iter().all(u8::is_ascii_digit);
    // Symbols are in order, each behind its length, and numbers are the first; no name of a metric is one.
    let numbers = index.windows(6).enumerate().filter(|(_, text)| is_number(text));
    // Those of the table of postings come later.
    let mut numbers = numbers.map(|(at, _)| at).peekable();
    let mut last = numbers.next().unwrap();
    while let Some(next) = numbers.next_if_eq(&(last + 6)) {
        last = next;
    }
    last as u64 + 5
}
