//! Many heavy calls at once on a real Prometheus, most of which are cancelled somewhere.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fs_err as fs;
use narthex::pb::thanos::{LabelMatcher, SeriesRequest, label_matcher::Type};
use tokio::time::timeout;

use super::scene::{Client, LONG, Outcome, read, wait_for_pending};
use crate::rig::{
    Prometheus, Sidecar, Tools,
    blocks::{self, Spec},
    http,
    limit::turn,
    prometheus::Options,
    tools::temp_dir,
};

const CALLS: usize = 200;

const DATA: Spec = Spec {
    series: 2000,
    samples: 120,
    step: 60,
    slot: 0,
};

/// What many calls may take beyond one, in bytes, also when the program is built without optimization: nine run at once.
const MEMORY: u64 = 24 << 20;

/// Connections to Prometheus that may wait for their next use: for remote reads, of which nine run at once, and as many
/// again that were made while dropped ones were still being closed; for heartbeats a few.
const IDLE: usize = 16 + 4;

fn request() -> SeriesRequest {
    SeriesRequest {
        min_time: 0,
        max_time: i64::MAX,
        matchers: vec![LabelMatcher {
            r#type: Type::Re.into(),
            name: "__name__".to_owned(),
            value: "rig_.+".to_owned(),
        }],
        response_batch_size: 64,
        ..SeriesRequest::default()
    }
}

async fn whole(client: &Client) -> Outcome {
    let outcome = read(client.request(request()).await.unwrap()).await;
    outcome.end.as_ref().unwrap();
    outcome.assert_sorted("a whole call");
    // In order and different, so that none is there twice for one that is missing.
    assert!(outcome.series.windows(2).all(|pair| pair[0].labels != pair[1].labels));
    assert_eq!(outcome.series.len() as u64, DATA.series);
    outcome
}

/// A call that ends as chance has it.
async fn any(client: Client) {
    match rand::random_range(0..3) {
        0 => {
            whole(&client).await;
        }
        1 => {
            let mut stream = client.request(request()).await.unwrap();
            for _ in 0..rand::random_range(0..DATA.series / 64) {
                assert!(stream.message().await.unwrap().is_some());
            }
        }
        _ => {
            // Whether it still waits by then or reads already, or is done.
            let limit = Duration::from_millis(rand::random_range(0..3000));
            let _ = timeout(limit, whole(&client)).await;
        }
    }
}

/// The gauge of running and waiting remote reads; newer versions of Prometheus have given it another name.
const GAUGES: [&str; 2] = [
    "prometheus_api_remote_read_queries ",
    "prometheus_remote_read_handler_queries ",
];

/// Looks at the remote reads that Prometheus runs until it is told to stop; gives the most.
async fn most_reads(metrics: String, stop: Arc<AtomicBool>) -> u64 {
    let (client, mut most) = (http::client(), 0);
    while !stop.load(Ordering::SeqCst) {
        let page = client.get(&metrics).send().await.unwrap().text().await.unwrap();
        let value = |line: &str| {
            GAUGES
                .iter()
                .find_map(|gauge| Some(line.strip_prefix(gauge)?.to_owned()))
        };
        let reads = page
            .lines()
            .find_map(value)
            .expect("Prometheus counts its remote reads");
        most = most.max(reads.parse::<f64>().unwrap() as u64);
    }
    most
}

/// How many connections of this process to this port are established.
fn established(process: u32, port: u16) -> usize {
    let sockets = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let socket = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    let own: BTreeSet<String> = sockets
        .filter_map(socket)
        .map(|link| link.display().to_string())
        .collect();
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let remote = format!(":{port:04X}");
    let counts = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&remote) && fields[3] == "01" && own.contains(&format!("socket:[{}]", fields[9]))
    };
    table.lines().skip(1).filter(counts).count()
}

/// 200 calls beside a Prometheus that takes `limit` at once, with these flags.
async fn storm(limit: u64, flags: &[&str]) {
    let _turn = turn().await;
    let data = temp_dir("heavy");
    blocks::place(&blocks::generate(DATA), data.path());
    let options = Options {
        block: "2h",
        data: Some(data.path().to_owned()),
        args: flags.iter().map(|&flag| flag.to_owned()).collect(),
        scrape: false,
        ..Options::default()
    };
    let prometheus = Prometheus::start(&Tools::oldest(), options).await;
    // Clients of a busy machine lag: what is read ahead for them is not what is looked at here.
    let mut args = vec![format!("--prometheus.url={}", prometheus.url())];
    args.extend(["--store.read-ahead=0", "--store.max-client-lag=1h"].map(str::to_owned));
    let sidecar = Sidecar::start(args);
    sidecar.wait_ready(LONG).await;
    let clients = [
        Client::connect(&sidecar).await,
        Client::connect(&sidecar).await,
        Client::connect(&sidecar).await,
    ];
    let first = whole(&clients[0]).await;
    let (files, memory) = (sidecar.open_files(), sidecar.peak_memory());

    let stop = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(most_reads(format!("{}/metrics", prometheus.url()), Arc::clone(&stop)));
    let calls: Vec<_> = (0..CALLS)
        .map(|at| tokio::spawn(any(clients[at % clients.len()].clone())))
        .collect();
    for call in calls {
        timeout(2 * LONG, call).await.expect("no call hangs").unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let most = watch.await.unwrap();
    assert!(
        (1..limit).contains(&most),
        "{most} remote reads at once, and Prometheus takes {limit}"
    );

    wait_for_pending(&sidecar, 0).await;
    let peak = sidecar.peak_memory();
    assert!(
        peak.saturating_sub(memory) < MEMORY,
        "{memory} bytes after one call, {peak} after {CALLS}"
    );
    let port = prometheus.url().rsplit(':').next().unwrap().parse().unwrap();
    let few = async || (established(sidecar.id(), port) <= IDLE && sidecar.open_files() <= files + IDLE).then_some(());
    sidecar
        .wait_until(LONG, "connections and files are given back", few)
        .await;
    assert_eq!(whole(&clients[0]).await.series, first.series);
}

#[tokio::test]
async fn two_hundred_calls_with_cancels_keep_to_the_limit_of_prometheus_and_leave_nothing() {
    storm(10, &[]).await;
}

#[tokio::test]
async fn two_hundred_calls_with_cancels_keep_to_a_low_limit_too() {
    storm(4, &["--storage.remote.read-concurrent-limit=4"]).await;
}
