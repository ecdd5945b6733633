//! `make demo`: a real Prometheus that seals a block every five seconds, a local directory as the bucket, and narthex
//! between them. Waits for five blocks, asks narthex for what is in them, compares that with what Prometheus says and every
//! byte in the bucket with its source, and cleans up. Exits with 1 when anything is not as it should be; then the files stay below `target/demo` until the next run. Another directory,
//! which must not exist yet, can be given as the argument.

#![allow(clippy::print_stdout, reason = "this is for somebody to read")]

#[path = "demo/ask.rs"]
mod ask;
#[path = "../tests/it/rig/mod.rs"]
mod rig;

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use fs_err as fs;
use rig::{BucketView, Keeper, Prometheus, Sidecar, Tools, assert_all_shipped, prometheus::Options, tools};

/// How many blocks to wait for.
const BLOCKS: usize = 5;

/// The longest that the blocks may take to come; usually it is 35 s.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    // Everything that can go wrong panics with what to look at, after the processes were ended.
    let run = || {
        tokio::runtime::Runtime::new()
            .expect("a runtime can be made")
            .block_on(demonstrate())
    };
    match std::panic::catch_unwind(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn demonstrate() {
    let start = Instant::now();
    let step = |text: &str| println!("\n[{:4.1} s] {text}", start.elapsed().as_secs_f64());
    let dir = directory();

    let leg = Tools::oldest();
    step(&format!(
        "Starting Prometheus {}. It scrapes itself each second and seals a block every 5 s.",
        leg.version
    ));
    let options = Options {
        data: Some(dir.join("prometheus")),
        ..Options::default()
    };
    let labels = options.external_labels.clone();
    let prometheus = Prometheus::start(&leg, options).await;
    println!(
        "         {}   data: {}   external labels: {}",
        prometheus.url(),
        shown(prometheus.data()),
        pairs(&labels)
    );

    let keeper = Keeper::watch(prometheus.data());
    // Made by us, as an operator does: narthex does not make what may be a mount point.
    fs::create_dir(dir.join("bucket")).expect("the directory for the demo can be written");
    let bucket = BucketView::dir(&dir.join("bucket"));
    let flags = Sidecar::flags(&prometheus, &bucket.config());
    step("Starting narthex beside it, with a local directory as the bucket:");
    println!("         {} sidecar", shown(&Sidecar::program()));
    flags
        .iter()
        .for_each(|flag| println!("           {}", flag.trim_end().replace('\n', "\n             ")));
    let sidecar = Sidecar::start(flags);
    sidecar.wait_ready(Duration::from_secs(60)).await;
    println!(
        "         ready; metrics at {}/metrics, StoreAPI at {}",
        sidecar.url(),
        sidecar.grpc_url()
    );

    step(&format!(
        "Waiting for {BLOCKS} blocks. The first takes 18 s: sealed after 13, then watched for 5."
    ));
    let mut shown_so_far = Vec::new();
    let arrived = async || {
        let visible = bucket.visible().await;
        for id in visible.iter().filter(|id| !shown_so_far.contains(*id)) {
            println!("[{:4.1} s]   {id} is in the bucket", start.elapsed().as_secs_f64());
        }
        shown_so_far = visible;
        (shown_so_far.len() >= BLOCKS).then_some(())
    };
    sidecar
        .wait_until(PATIENCE, format!("{BLOCKS} blocks in the bucket"), arrived)
        .await;

    step("Asking narthex for what it has just shipped, over gRPC, as Thanos Query does:");
    let (min, max) = covered(&dir, &shown_so_far);
    ask::ask(&sidecar, &prometheus, &labels, min, max).await;

    step("Stopping both with SIGTERM: first Prometheus, then narthex, which ships what is sealed before it ends.");
    let times = measured(&sidecar).await;
    assert!(
        prometheus.stop().await.success(),
        "Prometheus ended badly; its log:\n{}",
        prometheus.log()
    );
    let status = sidecar.stop().await;
    assert!(
        status.success(),
        "narthex ended with {status}; its log:\n{}",
        sidecar.log()
    );

    step("Comparing the bucket with the blocks that Prometheus sealed, byte by byte.");
    assert_all_shipped(&bucket, &keeper).await;
    let objects = bucket.list().await;
    let sealed = keeper.blocks();
    println!(
        "         {} blocks, {} bytes: all there, all the same.",
        sealed.len(),
        objects.values().sum::<u64>()
    );

    step("The bucket:");
    tree(&objects);
    step("The ledger, which tells Prometheus (from 3.9 on) what it may compact:");
    println!(
        "{}",
        fs::read_to_string(prometheus.data().join("thanos.shipper.json")).expect("narthex writes a ledger")
    );

    step("From the rename that seals a block to the rename that makes it visible in the bucket:");
    latencies(&dir, prometheus.data(), &sealed);
    println!("         as narthex counts it: {times}");

    drop((sidecar, prometheus, keeper));
    fs::remove_dir_all(&dir).expect("the target directory can be written");
    step("Done. Nothing runs any more; the files of this demonstration are removed.");
}

/// The first and the last ms that these blocks of the bucket cover.
fn covered(dir: &Path, blocks: &[String]) -> (i64, i64) {
    let time = |id: &String, key: &str| {
        let meta =
            fs::read_to_string(dir.join("bucket").join(id).join("meta.json")).expect("the block is in the bucket");
        let meta: serde_json::Value = serde_json::from_str(&meta).expect("it is JSON");
        meta[key].as_i64().expect("a block has a time")
    };
    let min = blocks.iter().map(|id| time(id, "minTime")).min();
    let max = blocks.iter().map(|id| time(id, "maxTime")).max();
    // The end of a block belongs to the next.
    min.zip(max).map(|(min, max)| (min, max - 1)).expect("there is a block")
}

/// A new directory for all files.
fn directory() -> PathBuf {
    let dir = std::env::args_os().nth(1).map_or_else(
        || {
            let dir = tools::target_dir().join("demo");
            // Of a run that was killed.
            let _ = fs::remove_dir_all(&dir);
            dir
        },
        PathBuf::from,
    );
    fs::create_dir(&dir).expect("the directory can be made, and is not there yet");
    fs::canonicalize(dir).expect("the directory was just made")
}

/// Without the directory that everything is in.
fn shown(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR"))
        .unwrap_or(path)
        .display()
        .to_string()
}

fn pairs(labels: &[(String, String)]) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    labels.join(", ")
}

/// The objects as a tree.
fn tree(objects: &BTreeMap<String, u64>) {
    let mut block = "";
    for (key, size) in objects {
        let (top, rest) = key.split_once('/').unwrap_or(("", key));
        if top != block {
            println!("         {top}/");
            block = top;
        }
        println!("           {rest:<20} {size:>8} bytes");
    }
}

/// Count and mean of the program's own histogram.
async fn measured(sidecar: &Sidecar) -> String {
    const NAME: &str = "narthex_seal_to_durable_seconds";
    let metrics = sidecar.metrics().await.expect("narthex serves metrics");
    let value = |part: &str| metrics.value(&format!("{NAME}_{part}"), &[]).unwrap_or(f64::NAN);
    format!(
        "{NAME}: {} blocks, mean {:.3} s",
        value("count"),
        value("sum") / value("count")
    )
}

/// What the file system says: the rename that seals a block changes the directory's ctime, the one that commits it changes
/// that of `meta.json` in the bucket.
fn latencies(dir: &Path, data: &Path, blocks: &[String]) {
    let changed = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some(metadata.ctime() as f64 + metadata.ctime_nsec() as f64 / 1e9)
    };
    let mut times: Vec<f64> = Vec::new();
    for id in blocks {
        let sealed = changed(&data.join(id));
        let visible = changed(&dir.join("bucket").join(id).join("meta.json"));
        times.extend(sealed.zip(visible).map(|(sealed, visible)| visible - sealed));
    }
    times.sort_by(f64::total_cmp);
    let (Some(&middle), Some(&last)) = (times.get(times.len() / 2), times.last()) else {
        return;
    };
    println!(
        "         as the file system shows it: p50 {middle:.3} s, max {last:.3} s, over {} blocks",
        times.len()
    );
}
