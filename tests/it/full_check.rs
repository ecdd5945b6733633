//! The full check of blocks that promtool and Prometheus made, of every version: they are whole, hold what was put into
//! them, and no byte of them can be another.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use fs_err as fs;
use narthex::{
    pb::prometheus::{
        BucketSpan, Histogram,
        histogram::{Count, ZeroCount},
    },
    tsdb::{
        Block, Broken, Reason,
        check::full::{self, Checked, Facts, Options},
        scan,
    },
};

use crate::{
    bad_blocks::stage::{Stage, seal},
    rig::{
        Leg, Tools,
        blocks::{Spec, generate},
        http,
        prometheus::sealed,
        tools::temp_dir,
    },
    series::stage::{Written, labels, prometheus, start_ms, write},
};

static GO: AtomicBool = AtomicBool::new(false);
static READ: AtomicU64 = AtomicU64::new(0);

const OPTIONS: Options<'_> = Options {
    threads: 2,
    sha256: false,
    stop: &GO,
    read: &READ,
};

/// The blocks of a directory, by time, and what was found in each; all must be whole.
fn check(dir: &Path) -> Vec<(Block, Checked)> {
    let found = scan(dir).unwrap();
    assert!(found.corrupt.is_empty(), "{:?}", found.corrupt);
    let results = Mutex::new(BTreeMap::new());
    full::blocks(&found.blocks, &OPTIONS, |i, result| {
        let (_, checked) = result.unwrap_or_else(|error| panic!("{}: {error}", found.blocks[i].id));
        results.lock().unwrap().insert(i, checked);
    });
    let results = results.into_inner().unwrap();
    assert_eq!(results.len(), found.blocks.len());
    found.blocks.into_iter().zip(results.into_values()).collect()
}

/// Blocks that promtool makes of a text in the OpenMetrics format.
fn make(leg: &Leg, text: &str, out: &Path) {
    let source = out.with_extension("text");
    fs::write(&source, text).unwrap();
    let done = Command::new(&leg.promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics", "-q"])
        .args([&source, out])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What `promtool tsdb list` says of each block: samples, chunks and series.
fn listed(leg: &Leg, dir: &Path) -> BTreeMap<String, [u64; 3]> {
    let done = Command::new(&leg.promtool)
        .args(["tsdb", "list"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| fields[i].parse().unwrap();
        (fields[0].to_owned(), [number(4), number(5), number(6)])
    };
    text.lines().skip(1).map(row).collect()
}

#[test]
fn blocks_of_every_promtool_are_whole_and_hold_what_was_put_in() {
    const START: u64 = 1_767_225_600;
    // Ten hours, every minute; a gauge, a counter with many labels, and a series that is there for one sample only.
    let mut text = "# TYPE wide counter\n".to_owned();
    for n in 0..40 {
        for minute in 0..600 {
            let (value, time) = (minute * (n + 1), START + minute * 60);
            writeln!(
                text,
                "wide_total{{a=\"{}\",b=\"é{n}\",c=\"\",d=\"{}\"}} {value} {time}",
                n % 3,
                n % 7
            )
            .unwrap();
        }
    }
    text += "# TYPE odd gauge\n";
    for minute in 0..600 {
        writeln!(
            text,
            "odd {}.{} {}",
            minute * 37 % 101,
            minute % 10,
            START + minute * 60
        )
        .unwrap();
    }
    writeln!(text, "odd{{once=\"yes\"}} NaN {}\n# EOF", START + 7).unwrap();
    for leg in Tools::find().legs {
        let dir = temp_dir("full-check");
        let out = dir.path().join("out");
        make(&leg, &text, &out);
        let checked = check(&out);
        assert_eq!(checked.len(), 5, "blocks of two hours");
        let listed = listed(&leg, &out);
        let mut samples = 0;
        for (i, (block, Checked { facts, files })) in checked.into_iter().enumerate() {
            let once = u64::from(i == 0);
            // 120 samples of each in a block.
            assert_eq!(
                (facts.series, facts.samples),
                (41 + once, 41 * 120 + once),
                "{}",
                leg.version
            );
            assert_eq!(
                listed[&block.id.to_string()],
                [facts.samples, facts.chunks, facts.series],
                "{}",
                leg.version
            );
            assert_eq!(facts.encodings, BTreeMap::from([(1, facts.chunks)]));
            let start = 1000 * (START as i64 + i as i64 * 7200);
            assert_eq!(facts.times, Some((start, start + 119 * 60_000)));
            let names: Vec<&str> = files.iter().map(|file| file.rel_path.as_str()).collect();
            assert_eq!(names, ["chunks/000001", "index"]);
            samples += facts.samples;
        }
        assert_eq!(samples, 41 * 600 + 1);
    }
}

#[test]
fn a_larger_block_is_whole() {
    let spec = Spec::small(0);
    let made = generate(spec);
    let found = check(made.parent().unwrap());
    let facts = &found[0].1.facts;
    assert_eq!(
        (facts.series, facts.samples),
        (spec.series, spec.series * spec.samples),
        "{facts:?}"
    );
}

/// What the passes say of a block whose index and only segment are in memory.
fn passes(block: &Block, index: &[u8], segment: &[u8]) -> Result<Facts, Broken> {
    let toc = &index[index.len().saturating_sub(full::TOC as usize)..];
    let range = (block.meta.min_time, block.meta.max_time);
    let (index, _) = full::index(index.len() as u64, toc, range, index, &OPTIONS).unwrap()?;
    let (segment, _) = full::segment("chunks/000001", segment.len() as u64, segment, &OPTIONS).unwrap()?;
    full::agree(&block.meta, &index, &[segment])
}

#[test]
fn no_byte_of_a_block_of_any_promtool_can_be_another() {
    let mut text = "# TYPE owl gauge\n".to_owned();
    for (n, time) in (0..3).flat_map(|n| (0..150).map(move |i| (n, 1_767_225_600_u64 + i * 15))) {
        writeln!(text, "owl{{forest=\"f{n}\"}} {} {time}", (time * 7 + n) % 31).unwrap();
    }
    text += "# EOF\n";
    for leg in Tools::find().legs {
        let dir = temp_dir("full-check");
        let out = dir.path().join("out");
        make(&leg, &text, &out);
        let block = scan(&out).unwrap().blocks.remove(0);
        let mut index = fs::read(block.dir.join("index")).unwrap();
        let mut segment = fs::read(block.dir.join("chunks/000001")).unwrap();
        assert_eq!(passes(&block, &index, &segment).unwrap().samples, 450);
        for at in 0..index.len() {
            for flip in [0xff, 1, 0x20] {
                index[at] ^= flip;
                let broken = passes(&block, &index, &segment).unwrap_err();
                assert_eq!(broken.reason, Reason::Index, "byte {at}: {broken}");
                index[at] ^= flip;
            }
            passes(&block, &index[..at], &segment).unwrap_err();
        }
        for at in 0..segment.len() {
            for flip in [0xff, 1, 0x20] {
                segment[at] ^= flip;
                passes(&block, &index, &segment).unwrap_err();
                segment[at] ^= flip;
            }
            passes(&block, &index, &segment[..at]).unwrap_err();
        }
        passes(&block, &index, &segment).unwrap();
    }
}

fn histogram(timestamp: i64, at: i64, float: bool) -> Histogram {
    let base = Histogram {
        sum: at as f64 * 1.5,
        schema: 2,
        zero_threshold: 0.001,
        positive_spans: vec![BucketSpan { offset: -2, length: 2 }],
        timestamp,
        ..Default::default()
    };
    match float {
        true => Histogram {
            count: Some(Count::CountFloat(3.0 * at as f64 + 1.0)),
            zero_count: Some(ZeroCount::ZeroCountFloat(1.0)),
            positive_counts: vec![at as f64, 2.0 * at as f64],
            ..base
        },
        false => Histogram {
            count: Some(Count::CountInt(3 * at as u64 + 1)),
            zero_count: Some(ZeroCount::ZeroCountInt(1)),
            positive_deltas: vec![at, at],
            ..base
        },
    }
}

/// A snapshot of the head is a block like any other, and can hold all kinds of chunks.
#[tokio::test]
async fn a_snapshot_with_histograms_is_whole() {
    for leg in Tools::find().legs {
        let start = start_ms();
        let prometheus = prometheus(&leg, &[], &[]).await;
        let mut all: Vec<Written> = [("whole", false), ("float", true)]
            .map(|(name, float)| Written {
                labels: labels(&[("__name__", name)]),
                histograms: (0..200).map(|at| histogram(start + at * 5000, at, float)).collect(),
                ..Default::default()
            })
            .into();
        // All floats stay in the head: two hours are cut only after three.
        all.extend((0..50).map(|n| Written {
            labels: labels(&[("__name__", "floats"), ("n", &n.to_string())]),
            floats: (0..300).map(|at| (start + at * 5000, (at * n) as f64)).collect(),
            ..Default::default()
        }));
        write(&prometheus, &all).await;
        let answer = http::client()
            .post(format!("{}/api/v1/admin/tsdb/snapshot", prometheus.url()))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let snapshots = prometheus.data().join("snapshots");
        let snapshot = fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
        let checked = check(&snapshot);
        assert_eq!(checked.len(), 1);
        let facts = &checked[0].1.facts;
        assert_eq!(
            (facts.series, facts.samples),
            (52, 400 + 50 * 300),
            "{}: {facts:?}",
            leg.version
        );
        let encodings: Vec<u8> = facts.encodings.keys().copied().collect();
        assert_eq!(encodings, [1, 2, 3], "{}", leg.version);
        assert_eq!(facts.times, Some((start, start + 299 * 5000)));
    }
}

/// A sealed block of the local Prometheus is the only copy of its samples: what a backfill would refuse is shipped.
#[tokio::test]
async fn a_sealed_block_with_index_issues_is_shipped_as_it_is() {
    let stage = Stage::start(&[]).await;
    let source = format!("{}/testdata/index_issues", env!("CARGO_MANIFEST_DIR"));
    let mut ids = Vec::new();
    for entry in fs::read_dir(source).unwrap() {
        let dir = entry.unwrap().path();
        for id in sealed(&dir) {
            ids.push(seal(&dir.join(id), stage.dir(), |_| {}));
        }
    }
    assert_eq!(ids.len(), 9);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    stage.wait_for_ledger(&ids).await;
    stage.assert_shipped(&ids).await;
}
