//! What is asked of the disk all day long: the idle scan, the check of an index, `meta.json`; and the check of every byte
//! of a block, and its rewriting. Figures, no verdicts; run by `make bench`.

#[path = "../tests/it/rig/mod.rs"]
mod rig;

mod figures;
mod newer;

use std::{
    hint::black_box,
    io,
    sync::atomic::{AtomicBool, AtomicU64},
    time::SystemTime,
};

use criterion::{Criterion, Throughput};
use fs_err as fs;
use narthex::{
    model::Labels,
    tsdb::{
        BucketFile, Meta, Pinned, Scanner, Stamp,
        check::{
            self,
            full::{self, Options},
        },
        rewrite::{self, OutFile, Output, SEGMENT_LIMIT},
        scan,
    },
};
use rig::{
    blocks::{Spec, generate, place_anew},
    tools::temp_dir,
};

/// As many as a Prometheus of a fortnight's retention holds that may not compact.
const BLOCKS: usize = 200;

/// As many as make an index of some ten MB.
const SERIES: u64 = 100_000;

fn main() {
    let mut criterion = figures::criterion();
    scans(&mut criterion);
    checks(&mut criterion);
    full_checks(&mut criterion);
    rewriting(&mut criterion);
    metas(&mut criterion);
    criterion.final_summary();
}

/// The first scan reads every `meta.json`; the later ones, of which there is one each 30 s, only ask for their status.
fn scans(criterion: &mut Criterion) {
    let (block, data) = (generate(Spec::small(0)), temp_dir("bench"));
    for _ in 0..BLOCKS {
        place_anew(&block, data.path());
    }
    let mut group = criterion.benchmark_group("scan of 200 blocks");
    group.throughput(Throughput::Elements(BLOCKS as u64));
    group.bench_function("first", |bencher| {
        bencher.iter(|| {
            let scan = scan(data.path()).expect("the directory can be read");
            assert_eq!(scan.blocks.len(), BLOCKS);
            scan
        });
    });
    let mut scanner = Scanner::default();
    group.bench_function("idle", |bencher| {
        bencher.iter(|| {
            let scan = scanner.scan(data.path()).expect("the directory can be read");
            assert_eq!(scan.blocks.len(), BLOCKS);
            scan
        });
    });
    group.finish();
}

/// The check reads the index from end to end, and one chunk of each segment.
fn checks(criterion: &mut Criterion) {
    let spec = Spec {
        series: SERIES,
        samples: 4,
        step: 30,
        slot: 0,
    };
    let made = generate(spec);
    let data = made.parent().expect("a block is in a directory");
    let block = scan(data).expect("the directory can be read").blocks.remove(0);
    let pinned = Pinned::open(&block).expect("the block is there");
    let index = pinned.index().expect("the block has an index");
    let mut group = criterion.benchmark_group("check of a block of 100000 series");
    group.throughput(Throughput::Bytes(index.len));
    group.bench_function("quick", |bencher| {
        bencher.iter(|| check::quick(&pinned, check::Depth::Sample).expect("promtool makes whole blocks"));
    });
    group.finish();
}

/// The full check reads every byte; by one thread, so that the figure is one core's. The block is in the page cache.
fn full_checks(criterion: &mut Criterion) {
    let spec = Spec {
        series: SERIES / 5,
        samples: 240,
        step: 30,
        slot: 0,
    };
    let made = generate(spec);
    let data = made.parent().expect("a block is in a directory");
    let found = scan(data).expect("the directory can be read").blocks;
    let pinned = Pinned::open(&found[0]).expect("the block is there");
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut group = criterion.benchmark_group("full check of a block of 20000 series, one thread");
    group.throughput(Throughput::Bytes(pinned.files.iter().map(|file| file.len).sum()));
    for (name, sha256) in [("CRC-32C", false), ("and SHA-256", true)] {
        let options = Options {
            threads: 1,
            sha256,
            stop: &stop,
            read: &read,
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                full::blocks(&found, &options, |_, result| {
                    result.expect("promtool makes whole blocks");
                });
            });
        });
    }
    group.finish();
}

/// Where the rewritten bytes go: nowhere.
struct Nowhere;

impl Output for Nowhere {
    fn write(&mut self, _: OutFile, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn finish(&mut self, _: OutFile) -> io::Result<()> {
        Ok(())
    }
}

/// A block of XOR2 chunks becomes one of XOR chunks, on one thread; the block is in the page cache.
fn rewriting(criterion: &mut Criterion) {
    let data = temp_dir("bench");
    let made = newer::write(&data.path().join("01M8REWRYTE000000000000009"), SERIES / 5);
    let found = scan(data.path()).expect("the directory can be read").blocks;
    let pinned = Pinned::open(&found[0]).expect("the block is there");
    let per_sample = made.bytes as f64 / made.samples as f64;
    let mut group = criterion.benchmark_group(format!(
        "rewrite of a block of 20000 series, XOR2 with {per_sample:.2} bytes a sample"
    ));
    group.throughput(Throughput::Bytes(pinned.files.iter().map(|file| file.len).sum()));
    for (name, sha256) in [("CRC-32C", false), ("and SHA-256", true)] {
        let options = rewrite::Options {
            segment_limit: SEGMENT_LIMIT,
            sha256,
            stop: &AtomicBool::new(false),
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let done = rewrite::block(&pinned, &options, &mut Nowhere).expect("the block is whole");
                assert_eq!(done.samples, made.samples);
            });
        });
    }
    group.finish();
}

fn metas(criterion: &mut Criterion) {
    let text = fs::read(generate(Spec::small(0)).join("meta.json")).expect("the block has meta.json");
    let meta = Meta::parse(&text).expect("promtool writes good ones");
    let file = |name: &str| BucketFile {
        rel_path: name.to_owned(),
        size: Some(536_870_912),
        sha256: None,
    };
    let stamp = Stamp {
        labels: Labels::from_pairs([("cluster", "eu-1"), ("replica", "a")]),
        source: "sidecar".to_owned(),
        files: vec![file("chunks/000001"), file("index")],
        rewritten_from: None,
        upload_time: SystemTime::now(),
    };
    let mut group = criterion.benchmark_group("meta.json");
    group.bench_function("parse", |bencher| {
        bencher.iter(|| Meta::parse(black_box(&text)).expect("it was read before"));
    });
    group.bench_function("for the bucket", |bencher| {
        bencher.iter(|| meta.for_bucket(black_box(&stamp)));
    });
    group.finish();
}
