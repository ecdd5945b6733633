//! Blocks held against those that Prometheus' own writers make of the same samples (`testdata/rewrite`).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::{
    chunk::{
        histogram::{self, Counts, Histogram, Kind, Span},
        xor,
    },
    model::uvarint::uvarint,
    tsdb::{Block, BlockId, Meta, check::full, testing},
};

mod damage;
mod shapes;

static GO: AtomicBool = AtomicBool::new(false);

pub(super) fn options(segment_limit: u64) -> Options<'static> {
    Options {
        segment_limit,
        sha256: false,
        stop: &GO,
    }
}

/// Keeps the files, and sees to it that they come in order.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) files: BTreeMap<OutFile, Vec<u8>>,
    finished: BTreeSet<OutFile>,
}

impl Output for Kept {
    fn write(&mut self, file: OutFile, bytes: &[u8]) -> io::Result<()> {
        assert!(!bytes.is_empty() && !self.finished.contains(&file));
        if let (OutFile::Segment(number), false) = (file, self.files.contains_key(&file)) {
            assert!(number == 1 || self.finished.contains(&OutFile::Segment(number - 1)));
        }
        self.files.entry(file).or_default().extend(bytes);
        Ok(())
    }

    fn finish(&mut self, file: OutFile) -> io::Result<()> {
        assert!(self.files.contains_key(&file) && !self.finished.contains(&file));
        self.finished.insert(file);
        Ok(())
    }
}

pub(super) fn at(dir: &Path) -> Block {
    let meta = Meta::parse(&fs_err::read(dir.join("meta.json")).unwrap()).unwrap();
    Block {
        id: BlockId::parse("01K4ABCDEFGHJKMNPQRSTVWXYZ").unwrap(),
        dir: dir.into(),
        meta: meta.into(),
    }
}

/// The new files of a block.
pub(super) fn rewritten(source: &Block, segment_limit: u64) -> Result<(Rewritten, BTreeMap<OutFile, Vec<u8>>), Error> {
    let mut kept = Kept::default();
    let done = block(&Pinned::open(source).unwrap(), &options(segment_limit), &mut kept)?;
    assert_eq!(kept.finished.last(), Some(&OutFile::Index));
    assert_eq!(kept.finished.len(), kept.files.len());
    Ok((done, kept.files))
}

/// A directory with the new files and the old `meta.json`.
pub(super) fn put_down(source: &Block, files: &BTreeMap<OutFile, Vec<u8>>) -> (tempfile::TempDir, Block) {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir(dir.path().join("chunks")).unwrap();
    for (file, bytes) in files {
        fs_err::write(dir.path().join(file.rel_path()), bytes).unwrap();
    }
    fs_err::copy(source.dir.join("meta.json"), dir.path().join("meta.json")).unwrap();
    let block = at(dir.path());
    (dir, block)
}

/// The files of a block as they are.
pub(super) fn files_of(block: &Block) -> BTreeMap<OutFile, Vec<u8>> {
    let pinned = Pinned::open(block).unwrap();
    let segments = (1..).map(OutFile::Segment).zip(pinned.segments());
    let all = segments.chain([(OutFile::Index, pinned.index().unwrap())]);
    all.map(|(file, pinned)| (file, fs_err::read(&pinned.path).unwrap()))
        .collect()
}

/// What the full check finds in a block, which must be whole.
pub(super) fn checked(block: &Block) -> full::Checked {
    let found = std::sync::Mutex::new(None);
    let options = full::Options {
        threads: 1,
        sha256: true,
        stop: &GO,
        read: &Default::default(),
    };
    full::blocks(std::slice::from_ref(block), &options, |_, result| {
        *found.lock().unwrap() = Some(result.unwrap().1);
    });
    found.into_inner().unwrap().unwrap()
}

#[derive(Deserialize)]
struct Samples {
    segment_limit: u64,
    series: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    labels: String,
    chunks: Vec<ReadChunk>,
}

#[derive(Deserialize)]
struct ReadChunk {
    encoding: u8,
    times: Vec<Value>,
    values: Vec<Value>,
    started: u64,
}

/// A list in which what comes more than once is `[it, how often]`.
fn unfolded(runs: &[Value]) -> Vec<Value> {
    let item = |run: &Value| match run.as_array() {
        Some(pair) => vec![pair[0].clone(); pair[1].as_u64().unwrap() as usize],
        None => vec![run.clone()],
    };
    runs.iter().flat_map(item).collect()
}

/// A block of `testdata/rewrite`, its twin, and its samples.
struct Case {
    source: Block,
    plain: Block,
    samples: Samples,
}

fn case(name: &str) -> Case {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rewrite")).join(name);
    Case {
        source: at(&dir.join("source")),
        plain: at(&dir.join("plain")),
        samples: serde_json::from_slice(&fs_err::read(dir.join("samples.json")).unwrap()).unwrap(),
    }
}

const CASES: [&str; 4] = ["floats", "histograms", "labels", "segments"];

#[test]
fn a_rewritten_block_is_the_one_that_prometheus_writes_with_the_old_encodings() {
    for name in CASES {
        let case = case(name);
        let (_, files) = rewritten(&case.source, case.samples.segment_limit).unwrap();
        let twin = files_of(&case.plain);
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            twin.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (file, bytes) in files {
            assert!(bytes == twin[&file], "{name}: {file:?} differs");
        }
    }
    assert!(files_of(&case("segments").plain).len() > 6);
    let longer = |name| files_of(&case(name).source)[&OutFile::Index] != files_of(&case(name).plain)[&OutFile::Index];
    assert!(longer("labels"), "no series moves");
}

#[test]
fn what_was_rewritten_is_counted() {
    for name in CASES {
        let Case { source, samples, .. } = case(name);
        let chunks = || samples.series.iter().flat_map(|series| &series.chunks);
        let mut from = BTreeMap::new();
        chunks().for_each(|chunk| *from.entry(chunk.encoding).or_default() += 1);
        let mut kept = Kept::default();
        let options = Options {
            sha256: true,
            ..options(samples.segment_limit)
        };
        let done = block(&Pinned::open(&source).unwrap(), &options, &mut kept).unwrap();
        assert_eq!(done.from, from, "{name}");
        assert_eq!(done.series, samples.series.len() as u64);
        assert_eq!(done.chunks, chunks().count() as u64);
        assert_eq!(
            done.samples,
            chunks().map(|chunk| unfolded(&chunk.times).len() as u64).sum::<u64>()
        );
        let started: u64 = chunks().map(|chunk| chunk.started).sum();
        assert_eq!(done.start_timestamps_dropped, started, "{name}");
        assert_eq!(started > 0, matches!(name, "floats" | "histograms"));
        // What the full check finds in the files is what was said of them.
        let (_dir, new) = put_down(&source, &kept.files);
        let checked = checked(&new);
        assert_eq!(checked.files, done.files, "{name}");
        assert_eq!(checked.facts.issues, []);
        assert!(checked.facts.encodings.keys().all(|byte| *byte <= 3));
        assert_eq!(
            (checked.facts.samples, checked.facts.chunks),
            (done.samples, done.chunks)
        );
        assert!(done.files.iter().all(|file| file.sha256.is_some()));
    }
}

/// The bits of a float in hexadecimal, without the zeros at the end.
fn bits(float: f64) -> String {
    format!("{:016x}", float.to_bits()).trim_end_matches('0').to_owned()
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(",")
}

/// A histogram as the generator writes it, without its layout if that is the `last`.
fn text(last: &mut String, histogram: &Histogram) -> String {
    let spans = |spans: &[Span]| list(spans, |span| format!("{}+{}", span.offset, span.length));
    let mut layout = format!(
        "{}|{}|{}|{}|{}",
        histogram.schema,
        bits(histogram.zero_threshold),
        spans(&histogram.positive_spans),
        spans(&histogram.negative_spans),
        list(&histogram.custom_values, |bound| bits(*bound))
    );
    match layout == *last {
        true => layout.clear(),
        false => last.clone_from(&layout),
    }
    let numbers = match &histogram.counts {
        Counts::Integer {
            count,
            zero,
            positive,
            negative,
        } => format!(
            "{count}|{zero}|{}|{}",
            list(positive, i64::to_string),
            list(negative, i64::to_string)
        ),
        Counts::Float {
            count,
            zero,
            positive,
            negative,
        } => {
            let side = |side: &[f64]| list(side, |bucket| bits(*bucket));
            format!("{}|{}|{}|{}", bits(*count), bits(*zero), side(positive), side(negative))
        }
    };
    format!("{layout}|{}|{numbers}", bits(histogram.sum))
}

/// The chunks of a segment, one after another: encodings and data.
pub(super) fn chunks_of(segment: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut chunks) = (&segment[8..], Vec::new());
    while let Some((len, head)) = uvarint(rest) {
        let (chunk, behind) = rest[head..].split_at(1 + len as usize);
        chunks.push((chunk[0], chunk[1..].to_vec()));
        rest = &behind[4..];
    }
    chunks
}

/// Times and values of a chunk.
fn samples_of(encoding: u8, data: &[u8]) -> Vec<(i64, String)> {
    let mut layout = String::new();
    let mut kind = |kind| {
        let samples = histogram::decode(data, kind).map(Result::unwrap);
        samples
            .map(|sample| (sample.timestamp_ms, text(&mut layout, &sample)))
            .collect()
    };
    match encoding {
        1 => xor::decode(data)
            .map(Result::unwrap)
            .map(|(time, value)| (time, bits(value)))
            .collect(),
        2 => kind(Kind::Integer),
        3 => kind(Kind::Float),
        other => panic!("encoding {other}"),
    }
}

#[test]
fn every_sample_is_there_bit_by_bit() {
    for name in CASES {
        let case = case(name);
        let (_, files) = rewritten(&case.source, case.samples.segment_limit).unwrap();
        let segments = files.iter().filter(|(file, _)| **file != OutFile::Index);
        let mut chunks = segments.flat_map(|(_, segment)| chunks_of(segment));
        for series in &case.samples.series {
            for read in &series.chunks {
                let (encoding, data) = chunks.next().unwrap();
                let mut time = 0;
                let times = unfolded(&read.times).into_iter().map(|distance| {
                    time += distance.as_i64().unwrap();
                    time
                });
                let values = unfolded(&read.values);
                let due = times.zip(values.iter().map(|value| value.as_str().unwrap().to_owned()));
                let labels = &series.labels;
                assert_eq!(samples_of(encoding, &data), due.collect::<Vec<_>>(), "{name} {labels}");
            }
        }
        assert_eq!(chunks.next(), None, "{name}");
    }
}

#[test]
fn what_was_rewritten_stays_as_it_is() {
    for name in CASES {
        let case = case(name);
        let limit = case.samples.segment_limit;
        let (before, files) = rewritten(&case.source, limit).unwrap();
        let (_dir, new) = put_down(&case.source, &files);
        let (after, again) = rewritten(&new, limit).unwrap();
        assert!(again == files, "{name}");
        assert_eq!(after.files, before.files, "{name}");
        assert_eq!(after.start_timestamps_dropped, 0);
    }
    // With label indices and a table of them, as Prometheus wrote them for years.
    let (_dir, real) = testing::real_block();
    let (done, files) = rewritten(&real, SEGMENT_LIMIT).unwrap();
    assert!(files == files_of(&real));
    assert_eq!((done.from, done.samples), (BTreeMap::from([(1, 12)]), 1440));
}
