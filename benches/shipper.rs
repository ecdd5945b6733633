//! The way to the bucket: the plan of a pass, one file sent, one block from found to listed in the ledger. Figures, no
//! verdicts; run by `make bench`.
//!
//! What is sent to S3 goes to a server in this process that throws it away, so that its figure is that of reading a file
//! twice, of its checksums and of a connection, with no disk behind. What goes into a directory waits for the disk.

#[path = "../tests/it/rig/mod.rs"]
mod rig;

mod drain;
mod figures;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, Throughput};
use fs_err as fs;
use narthex::{
    model::Labels,
    objstore::{self, Bucket, Limits, Source, config},
    shipper::{Facts, Ledger, Liveness, Metrics, Overviews, Policy, PrometheusStatus, QUIET, Settings, Shipper, plan},
    tsdb::{Block, BlockId, Meta},
};
use prometheus_client::registry::Registry;
use rig::{
    BucketView, S3Client,
    blocks::{Spec, generate, place},
    tools::temp_dir,
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// The size of what is sent; four parts.
const SIZE: usize = 64 << 20;

fn main() {
    let mut criterion = figures::criterion();
    // An error means that somebody in this process was faster, with the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    plans(&mut criterion);
    files(&mut criterion, &runtime);
    blocks(&mut criterion, &runtime);
    criterion.final_summary();
}

/// A thousand blocks, every second one of which the ledger lists.
fn plans(criterion: &mut Criterion) {
    let (dir, labels) = (temp_dir("bench"), labels());
    let (mut ledger, _) = Ledger::open(dir.path().join("thanos.shipper.json"), "file:///bucket", None);
    let blocks: Vec<Block> = (0..1000).map(block).collect();
    for block in blocks.iter().step_by(2) {
        ledger.record(block.id, &labels, block.meta.max_time);
    }
    let (facts, policy) = (Facts::default(), Policy::default());
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Elements(blocks.len() as u64));
    group.bench_function("1000 blocks", |bencher| {
        bencher.iter(|| plan(&blocks, &ledger, &facts, &policy));
    });
    group.finish();
}

fn block(number: u32) -> Block {
    let id = BlockId::parse(&format!("01K4ABCDEFGHJKMNPQRST{number:05}")).expect("it is a ULID");
    let meta = format!(
        r#"{{"ulid":"{id}","minTime":{number},"maxTime":{number},"stats":{{"numSamples":1}},"compaction":{{"level":1}},"version":1}}"#
    );
    Block {
        id,
        dir: Path::new("data").into(),
        meta: Meta::parse(meta.as_bytes()).expect("it has what a block needs").into(),
    }
}

fn labels() -> Labels {
    Labels::from_pairs([("cluster", "bench"), ("replica", "0")])
}

/// One file of 64 MiB, over and over under one key.
fn files(criterion: &mut Criterion, runtime: &Runtime) {
    let dir = temp_dir("bench");
    let path = dir.path().join("file");
    fs::write(&path, noise()).expect("the target directory can be written");
    let file = Arc::new(fs::File::open(&path).expect("it was just written").into_file());
    let source = Source::new(file, path, SIZE as u64);
    let host = runtime.block_on(drain::start());
    let view = BucketView::s3(S3Client::new(format!("http://{host}"), "bench"));
    let directory = BucketView::dir(&dir.path().join("bucket"));
    let mut group = criterion.benchmark_group("send 64 MiB");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Bytes(SIZE as u64));
    for (name, config) in [
        ("S3 with CRC32C, in parts", view.config()),
        ("S3 with CRC32C, whole", view.config_with("disable_multipart: true\n")),
        ("S3 with MD5, in parts", view.config_with("send_content_md5: true\n")),
        ("FILESYSTEM", directory.config()),
    ] {
        let bucket = open(runtime, &config);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let sent = runtime.block_on(bucket.put_file("01K4ABCDEFGHJKMNPQRSTVWXYZ/chunks/000001", &source));
                sent.expect("the bucket takes everything");
            });
        });
    }
    group.finish();
}

fn open(runtime: &Runtime, config: &str) -> Arc<dyn Bucket> {
    let config = config::parse(config).expect("the rig writes good configuration");
    runtime
        .block_on(objstore::open(&config, &Limits::default(), &mut Registry::default()))
        .expect("the bucket can be opened")
}

/// A block of 64 MiB that lies there when narthex starts: from its start to the ledger that lists it.
fn blocks(criterion: &mut Criterion, runtime: &Runtime) {
    let data = temp_dir("bench");
    let id = place(&generate(Spec::small(0)), data.path());
    // A segment that the index does not refer to; a block is whole with it, too.
    let mut segment = noise();
    segment[..8].copy_from_slice(&[0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0]);
    fs::write(data.path().join(&id).join("chunks/000002"), segment).expect("the target directory can be written");
    // A block that did not arrive by a rename is held until it was left alone for so long.
    std::thread::sleep(QUIET + Duration::from_secs(1));
    let mut group = criterion.benchmark_group("ship a block of 64 MiB");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("FILESYSTEM", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(ship(data.path(), &id))).sum());
    });
    group.finish();
}

/// Ships every block of a data directory into a bucket of its own; how long that took.
async fn ship(data: &Path, id: &str) -> Duration {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let (dir, mut registry) = (temp_dir("bench"), Registry::default());
    let config = config::parse(&BucketView::dir(dir.path()).config()).expect("the rig writes good configuration");
    let bucket = objstore::open(&config, &Limits::default(), &mut registry)
        .await
        .expect("a directory can be opened");
    let settings = Settings {
        dir: data.to_owned(),
        ledger_name: format!("{}.json", NUMBER.fetch_add(1, Ordering::Relaxed)),
        policy: Policy::default(),
        content: Default::default(),
        sha256: false,
        source: "sidecar".to_owned(),
        scan_interval: Duration::from_secs(30),
        hold_unshipped: 0,
        jitter: Duration::ZERO,
        look_again: Duration::from_secs(60),
        heartbeat: None,
        min_time: None,
        overviews: Overviews::default(),
    };
    let (_origin, origins) = watch::channel(PrometheusStatus {
        labels: Some(labels()),
        liveness: Liveness::Up,
        ..PrometheusStatus::default()
    });
    let (ledger, stop) = (data.join(&settings.ledger_name), CancellationToken::new());
    let start = Instant::now();
    let shipper = Shipper::new(settings, bucket, origins, Metrics::register(&mut registry));
    let shipper = tokio::spawn(shipper.run(stop.clone(), Duration::ZERO));
    listed(&ledger, id).await;
    let took = start.elapsed();
    stop.cancel();
    shipper.await.expect("the shipper does not panic");
    took
}

/// Waits until a ledger lists a block.
async fn listed(ledger: &PathBuf, id: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(ledger).is_ok_and(|text| text.contains(id)) {
        assert!(Instant::now() < end, "the block did not arrive within a minute");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes that no file system and no cache can make fewer of.
fn noise() -> Vec<u8> {
    // Any generator will do (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..SIZE / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}
