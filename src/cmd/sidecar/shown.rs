//! What the status page of the sidecar shows, gathered from all its parts when somebody asks: nothing is kept, nothing waits.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    cli,
    model::{Labels, Retention, build, readable::byte_size},
    ops::{
        grpc::{CallView, Running},
        http::{MorePages, Page},
        probe::Probe,
        recent::{self, Recent},
    },
    prometheus::heartbeat::Snapshot,
    sealed::{self, Sealed},
    shipper::{self, BlockOverview, BlockState, Overviews},
    status::{
        self, Block, Build, Call, Configuration, Doubt, Flag, Message, Prometheus, Queries, Readiness, Shipping,
        Status, Upload, VERSION, configuration::entries, page::page, times::duration,
    },
    storeapi::{min_time::MinTime, series::Series},
    wal,
};

/// The most running calls that are shown.
const CALLS_SHOWN: usize = 50;
/// The most ranges that are shown which Prometheus is asked about.
const DOUBTS_SHOWN: usize = 20;
/// The flags of Prometheus that matter here.
const PROMETHEUS_FLAGS: [&str; 8] = [
    "storage.tsdb.path",
    "storage.tsdb.min-block-duration",
    "storage.tsdb.max-block-duration",
    "storage.tsdb.delay-compact-file.path",
    "storage.remote.read-concurrent-limit",
    "web.enable-lifecycle",
    "web.route-prefix",
    "enable-feature",
];

/// The flag of a pair that a text came from, with the name of the file.
pub(super) fn named(flag: &str, file: Option<&Path>) -> String {
    match cli::named(file) {
        Some(file) => format!("--{flag}-file={}", file.display()),
        None => format!("--{flag}"),
    }
}

/// Where all that is shown comes from.
pub(super) struct Sources {
    pub(super) flags: Vec<cli::Setting>,
    pub(super) configuration: Vec<Configuration>,
    pub(super) started_ms: i64,
    pub(super) probe: Probe,
    pub(super) url: String,
    pub(super) snapshots: watch::Receiver<Snapshot>,
    /// Whether blocks are shipped, as the metric has it and in words.
    pub(super) shipping: (&'static str, String),
    pub(super) bucket: String,
    pub(super) dir: String,
    pub(super) overviews: Overviews,
    /// The write-ahead log, and how often it is sent, if it is.
    pub(super) wal: Option<(wal::Shown, Duration)>,
    pub(super) min_time: MinTime,
    pub(super) series: Series,
    pub(super) sealed: Option<Sealed>,
    pub(super) running: Running,
    pub(super) recent: Recent,
}

impl Sources {
    /// The pages: `/` and `/api/v1/status`.
    pub(super) fn pages(self) -> MorePages {
        MorePages::new(move |path| match path {
            "/" => Some(Page {
                content_type: "text/html; charset=utf-8",
                body: page(&self.status()),
            }),
            "/api/v1/status" => Some(Page {
                content_type: "application/json",
                body: self.status().to_json().ok()?,
            }),
            _ => None,
        })
    }

    fn status(&self) -> Status {
        let snapshot = self.snapshots.borrow().clone();
        Status {
            version: VERSION,
            time_ms: Timestamp::now().as_millisecond(),
            build: Build {
                version: build::VERSION.to_owned(),
                revision: build::REVISION.to_owned(),
                started_ms: self.started_ms,
            },
            readiness: readiness(self.probe.ready()),
            prometheus: prometheus(&self.url, &snapshot),
            shipping: self.shipping(),
            queries: self.queries(),
            messages: self.recent.messages().into_iter().map(message).collect(),
            flags: self.flags.iter().map(flag).collect(),
            configuration: self.configuration.clone(),
        }
    }

    fn shipping(&self) -> Shipping {
        let overview = self.overviews.newest();
        let uploads = self.overviews.under_way().uploads();
        let block = |block: &BlockOverview| {
            let is_sent = uploads.iter().any(|upload| upload.id == block.id);
            self::block(block, is_sent)
        };
        Shipping {
            state: self.shipping.0.to_owned(),
            reason: self.shipping.1.clone(),
            bucket: self.bucket.clone(),
            dir: self.dir.clone(),
            looked_at_ms: Some(overview.at_ms).filter(|at| *at > 0),
            failure: overview.failure.clone(),
            durable_until_ms: overview.durable_until_ms,
            not_durable: overview.not_durable,
            need_attention: overview.need_attention,
            bytes: overview.bytes,
            held_bytes: overview.held_bytes,
            blocks: overview.blocks.iter().map(block).collect(),
            more_blocks: overview.more.0,
            more_not_durable: overview.more.1,
            uploads: uploads.iter().map(upload).collect(),
            wal: self.wal.as_ref().map_or_else(wal_off, wal),
        }
    }

    fn queries(&self) -> Queries {
        let load = self.series.load();
        let (calls_running, calls) = self.running.calls(CALLS_SHOWN);
        let limit = self.min_time.limit_ms();
        Queries {
            min_time_ms: (limit > MinTime::EVERYTHING.limit_ms()).then_some(limit),
            slots: load.slots,
            remote_reads_running: load.running,
            waiting: load.waiting,
            oldest_remote_read_seconds: load.oldest.map(|age| age.as_secs_f64()),
            shed: load.shed,
            stalled: load.stalled,
            lagged: load.lagged,
            memory_bytes: load.memory_bytes as u64,
            memory_limit_bytes: load.memory_limit_bytes as u64,
            read_ahead_bytes: load.read_ahead_bytes as u64,
            spilled_bytes: load.spilled_bytes,
            series_limit: load.limits.series,
            samples_limit: load.limits.samples,
            sealed: self
                .sealed
                .as_ref()
                .map_or_else(sealed_off, |sealed| self::sealed(&sealed.overview())),
            calls_running,
            calls: calls.into_iter().map(call).collect(),
        }
    }
}

/// The write-ahead log is not sent.
fn wal_off() -> status::Wal {
    status::Wal {
        state: "off".to_owned(),
        ..status::Wal::default()
    }
}

fn wal((shown, interval): &(wal::Shown, Duration)) -> status::Wal {
    let overview = shown.newest();
    status::Wal {
        state: "on".to_owned(),
        interval_seconds: interval.as_secs_f64(),
        generation: overview.generation,
        durable_ms: overview.durable_ms,
        failure: overview.failure,
    }
}

/// Nothing is read from blocks.
fn sealed_off() -> status::Sealed {
    let state = "off".to_owned();
    status::Sealed {
        state,
        ..status::Sealed::default()
    }
}

fn sealed(overview: &sealed::Overview) -> status::Sealed {
    let row = overview.row.as_ref();
    let blocks = row.map_or(&[][..], sealed::Row::blocks);
    let doubts = row.map_or(&[][..], sealed::Row::doubts);
    let doubts = doubts.iter().filter(|doubt| doubt.reason != sealed::Reason::Head);
    let bound = |time: i64, open: i64| Some(time).filter(|time| *time != open);
    let state = match overview.is_paused {
        true => "paused",
        false if blocks.is_empty() => "waiting",
        false => "on",
    };
    status::Sealed {
        state: state.to_owned(),
        blocks: blocks.len(),
        until_ms: blocks.last().map(|(_, range)| range.end().saturating_add(1)),
        doubts: doubts
            .take(DOUBTS_SHOWN)
            .map(|doubt| Doubt {
                from_ms: bound(*doubt.range.start(), i64::MIN),
                to_ms: bound(*doubt.range.end(), i64::MAX),
                reason: doubt.reason.as_str().to_owned(),
            })
            .collect(),
        tables_bytes: overview.tables_bytes as u64,
    }
}

fn readiness(ready: Result<(), String>) -> Readiness {
    Readiness {
        ready: ready.is_ok(),
        reason: ready.err(),
    }
}

fn prometheus(url: &str, snapshot: &Snapshot) -> Prometheus {
    let pairs = |labels: &Labels| {
        let pairs = labels
            .iter()
            .map(|label| (label.name.to_string(), label.value.to_string()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let flags = PROMETHEUS_FLAGS.iter().filter_map(|name| {
        let value = snapshot.flags.get(*name).filter(|value| !value.is_empty())?;
        Some(((*name).to_owned(), value.clone()))
    });
    let retention = snapshot.retention();
    Prometheus {
        url: url.to_owned(),
        up: snapshot.up,
        version: Some(snapshot.version.clone()).filter(|version| !version.is_empty()),
        agent: snapshot.is_agent(),
        labels: pairs(&snapshot.labels),
        flags: flags.collect(),
        retention: retention.map(in_words),
        retention_ms: retention.and_then(|retention| retention.time_ms),
        lowest_time_ms: snapshot.known_lowest_time_ms(),
        head_min_time_ms: snapshot.head_min_time_ms.filter(|time| *time < i64::MAX),
        delays_compaction: snapshot.delays_compaction(),
    }
}

/// What limits how long blocks are kept.
fn in_words(retention: Retention) -> String {
    let disk = |millionths: u32| format!("{} % of the disk", f64::from(millionths) / 10_000.0);
    let limits = [
        retention.time_ms.map(duration),
        retention.disk_millionths.map(disk).or(retention.bytes.map(byte_size)),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    match limits.is_empty() {
        true => "without limit".to_owned(),
        false => limits.join(", "),
    }
}

fn block(block: &BlockOverview, is_sent: bool) -> Block {
    let meta = block.meta.as_deref();
    let state = match (block.state, is_sent) {
        (BlockState::Due, true) => "uploading",
        (state, _) => state.as_str(),
    };
    Block {
        id: block.id.to_string(),
        min_time_ms: meta.map(|meta| meta.min_time),
        max_time_ms: meta.map(|meta| meta.max_time),
        level: meta.map(|meta| meta.level),
        series: meta.map(|meta| meta.num_series),
        samples: meta.map(|meta| meta.num_samples),
        bytes: block.bytes,
        state: state.to_owned(),
        reason: block.why.clone(),
        content: block.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        seal_to_durable_seconds: block.seal_to_durable.map(|took| took.as_secs_f64()),
        deletion_ms: block.deletion_ms,
        near_deletion: block.near_deletion,
        held: block.held,
    }
}

fn upload(upload: &shipper::Upload) -> Upload {
    let seconds = upload.took.as_secs_f64();
    Upload {
        block: upload.id.to_string(),
        total_bytes: upload.total,
        sent_bytes: upload.sent,
        bytes_per_second: if seconds > 0.0 {
            upload.sent_now as f64 / seconds
        } else {
            0.0
        },
    }
}

fn call(call: CallView) -> Call {
    Call {
        method: call.method,
        peer: call.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        age_seconds: call.age.as_secs_f64(),
        deadline_in_seconds: call.deadline_in.map(|left| left.as_secs_f64()),
        sent_bytes: call.sent_bytes,
        client_idle_seconds: call.client_idle_for.as_secs_f64(),
        stage: call.stage.to_owned(),
    }
}

fn message(message: recent::Message) -> Message {
    let fields = message.fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    Message {
        level: message.level.to_owned(),
        text: message.text,
        fields: fields.collect(),
        count: message.count,
        first_ms: message.first_ms,
        last_ms: message.last_ms,
    }
}

fn flag(setting: &cli::Setting) -> Flag {
    Flag {
        name: setting.flag.clone(),
        value: setting.value.clone(),
        given: setting.given,
    }
}

/// What may be shown of the YAML that flags name; nothing of a text that is empty.
pub(super) fn configuration<'a>(texts: impl IntoIterator<Item = (String, &'a str)>) -> Vec<Configuration> {
    let configurations = texts.into_iter().map(|(flag, yaml)| Configuration {
        flag,
        entries: entries(yaml),
    });
    configurations.filter(|one| !one.entries.is_empty()).collect()
}
