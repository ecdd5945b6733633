//! The reader against a model that looks at every series, against every size and choice, and against damage.

mod choices;
mod corpus;
mod damage;
mod hand_made;
#[cfg(target_os = "linux")]
mod mapped;
mod odd_series;
mod random;
mod sizes;

use std::collections::BTreeMap;

use super::{chunks::PART, *};
use crate::{
    model::{LabelBytes, Matcher, ReadChunk, ReadSeries, matcher::Op},
    tsdb::{
        Reason,
        testing::{
            self,
            indexed::{Labels, MadeBlock, MadeChunk, MadeSeries},
        },
    },
};

/// All times.
const ALWAYS: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// A block that is open, and where its files are.
struct Opened {
    dir: tempfile::TempDir,
    block: OpenBlock,
}

impl Opened {
    fn wanted(&self, range: RangeInclusive<i64>) -> Wanted {
        let block = self.block.clone();
        Wanted { block, range }
    }
}

fn open_files(files: Pinned) -> Result<OpenBlock, Broken> {
    let tables = Tables::read(files.index().unwrap())?;
    assert!(tables.bytes() <= Tables::LARGEST);
    OpenBlock::new(files, Arc::new(tables))
}

fn open(made: &MadeBlock) -> Result<Opened, Broken> {
    let dir = tempfile::tempdir().unwrap();
    let block = open_files(made.pinned(dir.path()))?;
    Ok(Opened { dir, block })
}

fn open_series(series: &[MadeSeries]) -> Opened {
    open(&MadeBlock::of(series)).unwrap()
}

/// Reads to the end. After an error nothing more may come.
fn read(wanted: &[Wanted], matchers: &[Matcher], with_chunks: bool) -> Result<Vec<ReadSeries>, Broken> {
    let selector = Selector::new(matchers).unwrap();
    let reader = SeriesReader::new(wanted, &selector, with_chunks, &Progress::default());
    let mut reader = reader.map_err(|error| error.broken)?;
    let mut found = Vec::<ReadSeries>::new();
    loop {
        match reader.next_series() {
            // Only a long series comes in parts.
            Ok(Next::Series(series)) => match found.last_mut().filter(|last| bytes(last) >= PART) {
                Some(last) if last.labels == series.labels => last.chunks.extend(series.chunks),
                _ => found.push(series),
            },
            Ok(Next::Pause) => {}
            Ok(Next::End) => return Ok(found),
            Err(error) => {
                assert!(matches!(reader.next_series(), Ok(Next::End)));
                return Err(error.broken);
            }
        }
    }
}

fn bytes(series: &ReadSeries) -> usize {
    series.chunks.iter().map(|chunk| chunk.data.len()).sum()
}

fn matcher(name: &str, op: Op, value: &str) -> Matcher {
    Matcher::new(op, name, value)
}

fn read_chunk(chunk: &MadeChunk) -> ReadChunk {
    ReadChunk {
        min_ms: chunk.min_ms,
        max_ms: chunk.max_ms,
        encoding: chunk.encoding.into(),
        data: chunk.data.clone().into(),
    }
}

/// What is to be read of these blocks: no chunk may lie on a border of the range if chunks are wanted.
fn expected(
    blocks: &[&[MadeSeries]],
    range: &RangeInclusive<i64>,
    matchers: &[Matcher],
    with_chunks: bool,
) -> Vec<ReadSeries> {
    let mut verdicts = BTreeMap::new();
    let mut found = BTreeMap::<&Labels, Vec<ReadChunk>>::new();
    for series in blocks.iter().copied().flatten() {
        let passes = matchers.iter().enumerate().all(|(at, matcher)| {
            let label = series.labels.iter().find(|(name, _)| name == matcher.name.as_bytes());
            let value = label.map_or("", |(_, value)| std::str::from_utf8(value).unwrap());
            let verdict = verdicts.entry((at, value));
            *verdict.or_insert_with(|| matcher.matches(value).unwrap())
        });
        let reaches =
            |chunk: &&MadeChunk| !range.is_empty() && chunk.min_ms <= *range.end() && chunk.max_ms >= *range.start();
        let mut chunks = series.chunks.iter().filter(reaches).map(read_chunk).peekable();
        if passes && chunks.peek().is_some() {
            let known = found.entry(&series.labels).or_default();
            known.extend(chunks.filter(|_| with_chunks));
        }
    }
    let series = |(labels, chunks): (&Labels, _)| ReadSeries {
        labels: LabelBytes::from_sorted(labels.iter().map(|(name, value)| (&name[..], &value[..]))),
        chunks,
    };
    found.into_iter().map(series).collect()
}

/// A chunk of a few bytes, with samples from `min_ms` to `max_ms`.
fn chunk(min_ms: i64, max_ms: i64) -> MadeChunk {
    MadeChunk {
        min_ms,
        max_ms,
        encoding: 1,
        data: format!("{min_ms} to {max_ms}").into(),
        cut: false,
    }
}

/// That exactly what the matchers want of these series is read, with chunks and without.
fn assert_read(opened: &Opened, series: &[MadeSeries], matchers: &[Matcher]) {
    for with_chunks in [true, false] {
        let found = read(&[opened.wanted(ALWAYS)], matchers, with_chunks).unwrap();
        let want = expected(&[series], &ALWAYS, matchers, with_chunks);
        // Whole values would fill screens.
        assert!(found == want, "{matchers:?}: {} and {}", found.len(), want.len());
    }
}

#[test]
fn what_was_written_to_while_it_was_open_is_told_and_what_was_deleted_is_not() {
    let chunk = MadeChunk {
        max_ms: 1,
        encoding: 1,
        data: vec![0, 0],
        ..MadeChunk::default()
    };
    let series = [MadeSeries::new(&[("__name__", "m")], vec![chunk])];
    for name in ["index", "chunks/000001"] {
        let opened = open_series(&series);
        let path = opened.dir.path().join(name);
        fs_err::hard_link(&path, opened.dir.path().join("link")).unwrap();
        fs_err::remove_file(&path).unwrap();
        opened.block.check_unwritten().unwrap();
        let file = fs_err::OpenOptions::new()
            .append(true)
            .open(opened.dir.path().join("link"));
        std::io::Write::write_all(&mut file.unwrap(), b"x").unwrap();
        let error = opened.block.check_unwritten().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
