//! A Prometheus with short blocks and one large old block, a narthex beside it, and clients that read or do not.

use std::{
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use fs_err as fs;
use narthex::{
    chunk,
    pb::thanos::{LabelMatcher, Series, SeriesRequest, SeriesResponse, label_matcher::Type},
};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Streaming;

pub(super) use crate::series_faults::scene::{Client, LONG};
use crate::{
    rig::{Leg, Prometheus, Sidecar, blocks, prometheus::Options, tools::temp_dir, wait_until},
    series::stage::api,
    series_faults::scene::{self, Outcome},
};

/// Series of the large block.
pub(super) const SERIES: usize = 5000;
/// Bytes of one label of each.
const TEXT: usize = 8 << 10;
/// Bytes of an answer that holds them all, at least: a kernel keeps up to 4 MiB of what is sent and 32 MiB of what was
/// received, a client 64 KiB; and they fit into the 64 MiB of `--store.read-ahead`.
pub(super) const SIZE: usize = SERIES * TEXT;

/// When the samples of the large block were taken, in seconds: early in 2026.
const TAKEN: u64 = 1_767_225_600;

/// The gauge of remote reads that Prometheus has open; newer versions have given it another name.
const READS: [&str; 2] = [
    "prometheus_api_remote_read_queries",
    "prometheus_remote_read_handler_queries",
];

/// The name of all series of the large block.
const LARGE: &str = "large";

/// A narthex beside a Prometheus of its own.
pub(super) struct Scene {
    pub(super) prometheus: Prometheus,
    pub(super) sidecar: Sidecar,
    _data: TempDir,
}

impl Scene {
    /// One of this version that takes two remote reads at once, which is one from narthex, which has these flags.
    pub(super) async fn start(leg: &Leg, flags: &[&str]) -> Scene {
        Scene::sealing(leg, "2h", flags).await
    }

    /// As [`Scene::start`], where Prometheus seals a block each `block`. It waits for no client longer than a quarter of that.
    pub(super) async fn sealing(leg: &Leg, block: &'static str, flags: &[&str]) -> Scene {
        let data = temp_dir("guest");
        let large = blocks::of_text(&format!("large-{SERIES}x{TEXT}"), write);
        let large = large.join(&crate::rig::prometheus::sealed(&large)[0]);
        blocks::place_anew(&large, data.path());
        let options = Options {
            block,
            data: Some(data.path().to_owned()),
            args: vec![
                "--storage.tsdb.retention.time=3650d".to_owned(),
                "--storage.remote.read-concurrent-limit=2".to_owned(),
            ],
            ..Options::default()
        };
        let prometheus = Prometheus::start(leg, options).await;
        let scraped = async || {
            let up = api(&prometheus, "query", &[("query", "up")]).await;
            (!up["result"].as_array()?.is_empty()).then_some(())
        };
        wait_until(LONG, "Prometheus has scraped itself", scraped).await;
        let mut args = vec![
            format!("--prometheus.url={}", prometheus.url()),
            format!("--tsdb.path={}", prometheus.data().display()),
            // It is Prometheus that is read here, however soon it is known which blocks it has.
            "--no-store.sealed-from-disk".to_owned(),
        ];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let sidecar = Sidecar::start(args);
        sidecar.wait_ready(LONG).await;
        Scene {
            prometheus,
            sidecar,
            _data: data,
        }
    }

    /// A client that reads, and has a connection of its own.
    pub(super) async fn client(&self) -> Client {
        Client::connect(&self.sidecar).await
    }

    /// A call for all, by a client that has taken one message and from now on takes what [`take`] takes.
    pub(super) async fn slow(&self) -> Streaming<SeriesResponse> {
        let client = Client::narrow(&self.sidecar).await;
        let mut stream = client.request(everything()).await.unwrap();
        take(&mut stream).await;
        stream
    }

    /// All, read at once.
    pub(super) async fn fast(&self) -> Vec<Series> {
        whole(self.client().await.request(everything()).await.unwrap()).await
    }

    /// How often Prometheus has truncated its head.
    pub(super) async fn truncations(&self) -> f64 {
        let name = "prometheus_tsdb_head_truncations_total";
        let probe = async || self.prometheus.metric(name).await;
        self.sidecar.wait_until(LONG, name, probe).await
    }

    /// Waits until Prometheus has truncated its head so often.
    pub(super) async fn wait_for_truncations(&self, count: f64) {
        let probe = async || (self.truncations().await >= count).then_some(());
        let what = format!(
            "{count} truncations of the head of Prometheus {}",
            self.prometheus.version()
        );
        self.sidecar.wait_until(LONG, what, probe).await;
    }

    /// Waits until a metric of narthex suits.
    pub(super) async fn wait_for_metric(&self, name: &str, suits: impl Fn(f64) -> bool) {
        let mut last = None;
        let probe = async || {
            last = self.sidecar.metric(name).await;
            last.filter(|&value| suits(value))
        };
        self.sidecar.wait_until(LONG, name, probe).await;
    }

    /// Waits until Prometheus has no open remote read.
    pub(super) async fn wait_until_read(&self) {
        let open = async |name| self.prometheus.metric(name).await;
        let none = async || {
            let count = match open(READS[0]).await {
                Some(count) => count,
                None => open(READS[1]).await?,
            };
            (count == 0.0).then_some(())
        };
        self.sidecar
            .wait_until(LONG, "Prometheus has no open remote read", none)
            .await;
    }

    /// Waits until no call is open and none holds memory.
    pub(super) async fn wait_until_nothing_is_held(&self) {
        for name in [
            "thanos_store_server_pending_series_requests",
            "narthex_query_memory_bytes",
        ] {
            self.wait_for_metric(name, |value| value == 0.0).await;
        }
    }
}

/// A directory for what finds no room in memory.
pub(super) struct Spill {
    path: PathBuf,
    _dir: TempDir,
}

impl Spill {
    pub(super) fn new() -> Spill {
        let dir = temp_dir("spill");
        Spill {
            path: fs::canonicalize(dir.path()).unwrap(),
            _dir: dir,
        }
    }

    /// The flag that names it.
    pub(super) fn flag(&self) -> String {
        format!("--store.spill-dir={}", self.path.display())
    }

    /// How many names are in it.
    pub(super) fn names(&self) -> usize {
        fs::read_dir(&self.path).unwrap().count()
    }

    /// How many files narthex has open in it that have no name.
    pub(super) fn nameless(&self, scene: &Scene) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", scene.sidecar.id())).unwrap();
        // A file may be closed while this looks.
        let links = files.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links
            .filter(|link| link.starts_with(&self.path) && link.to_string_lossy().ends_with(" (deleted)"))
            .count()
    }

    /// Waits until narthex has closed all files in it.
    pub(super) async fn wait_until_closed(&self, scene: &Scene) {
        let closed = async || (self.nameless(scene) == 0).then_some(());
        scene.sidecar.wait_until(LONG, "the file is closed", closed).await;
    }
}

fn write(path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    let text = "text ".repeat(TEXT / 5 + 1);
    writeln!(out, "# TYPE {LARGE} gauge")?;
    for number in 0..SERIES {
        writeln!(
            out,
            "{LARGE}{{n=\"{number:05}\",text=\"{}\"}} {number} {TAKEN}",
            &text[..TEXT]
        )?;
    }
    writeln!(out, "# EOF")?;
    out.flush()
}

/// Asks for the large block, and after it for `up` of all times: its newest samples are in the head.
pub(super) fn everything() -> SeriesRequest {
    matching(&format!("{LARGE}|up"))
}

/// Asks for `up` only.
pub(super) fn little() -> SeriesRequest {
    matching("up")
}

fn matching(names: &str) -> SeriesRequest {
    SeriesRequest {
        min_time: 0,
        max_time: i64::MAX,
        matchers: vec![LabelMatcher {
            r#type: Type::Re.into(),
            name: "__name__".to_owned(),
            value: names.to_owned(),
        }],
        ..SeriesRequest::default()
    }
}

/// Reads one message.
pub(super) async fn take(stream: &mut Streaming<SeriesResponse>) {
    let message = timeout(LONG, stream.message()).await.expect("a message comes in time");
    assert!(message.unwrap().is_some(), "more is to come");
}

/// Reads the rest.
pub(super) async fn rest(stream: Streaming<SeriesResponse>) -> Outcome {
    scene::read(stream).await
}

/// Reads the rest, which must end well.
pub(super) async fn whole(stream: Streaming<SeriesResponse>) -> Vec<Series> {
    let outcome = rest(stream).await;
    outcome.end.as_ref().unwrap();
    outcome.assert_sorted("an answer");
    outcome.series
}

fn value<'a>(series: &'a Series, name: &str) -> &'a str {
    let label = series.labels.iter().find(|label| label.name == name);
    &label.expect("it carries this label").value
}

/// The series of the large block, and the times of all samples of `up`.
pub(super) fn parted(answer: &[Series]) -> (&[Series], Vec<i64>) {
    let end = answer.partition_point(|series| value(series, "__name__") == LARGE);
    let (large, up) = answer.split_at(end);
    let chunks = up.iter().flat_map(|series| &series.chunks);
    let samples = chunks.flat_map(|chunk| chunk::xor::decode(&chunk.raw.as_ref().unwrap().data));
    (large, samples.map(|sample| sample.unwrap().0).collect())
}

/// The rest of an answer of which `taken` messages were read is what a client that reads at once has got earlier; only
/// `up` has more samples by now.
pub(super) fn assert_same(rest: &[Series], taken: usize, earlier: &[Series]) {
    let ((large, up), (wanted, earlier)) = (parted(rest), parted(earlier));
    assert_eq!(wanted.len(), SERIES);
    assert!(large == &wanted[taken..], "{} series after {taken}", large.len());
    assert!(
        !earlier.is_empty() && earlier.iter().all(|time| up.contains(time)),
        "{earlier:?}, then {up:?}"
    );
}
