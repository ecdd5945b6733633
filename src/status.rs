//! What an operator sees of a running sidecar: one value, as a page ([`page`]), as JSON, and as text ([`text`]).
//!
//! The JSON of `/api/v1/status` is [`Status`] as it is: keys are added over time, and [`VERSION`] changes when one changes its
//! meaning or goes. Times are ms since 1970, sizes bytes, durations seconds; what is not known is `None`. Whoever fills it leaves secrets out
//! ([`configuration`]). Everything here is pure: nothing is asked, nothing waits.

pub mod configuration;
pub mod page;
pub mod text;
pub mod times;

#[cfg(test)]
mod tests;
mod timeline;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::readable::time_to_the_second;

/// The version of the document.
pub const VERSION: u32 = 1;

/// The state of a sidecar at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The version of this document.
    pub version: u32,
    /// When it was made.
    pub time_ms: i64,
    /// The program.
    pub build: Build,
    /// Whether it answers queries and ships.
    pub readiness: Readiness,
    /// The Prometheus beside it.
    pub prometheus: Prometheus,
    /// Blocks on their way to the bucket.
    pub shipping: Shipping,
    /// The StoreAPI.
    pub queries: Queries,
    /// The last warnings and errors of the log, the latest first.
    pub messages: Vec<Message>,
    /// The flags in effect.
    pub flags: Vec<Flag>,
    /// The YAML that flags name, key by key.
    pub configuration: Vec<Configuration>,
}

/// The program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// The commit that it was built of.
    pub revision: String,
    /// When the process began.
    pub started_ms: i64,
}

/// Whether the sidecar is ready, as `/-/ready` tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    /// It is.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What is known of Prometheus since the last heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prometheus {
    /// Its address, without credentials.
    pub url: String,
    /// It answered the last heartbeat.
    pub up: bool,
    /// Its version.
    pub version: Option<String>,
    /// It runs in agent mode, and stores no blocks.
    pub agent: bool,
    /// The external labels, those of `--label` laid over them.
    pub labels: BTreeMap<String, String>,
    /// Those of its flags that matter here.
    pub flags: BTreeMap<String, String>,
    /// How long and how much it keeps, in words.
    pub retention: Option<String>,
    /// For how long it keeps blocks, if that is limited.
    pub retention_ms: Option<i64>,
    /// The oldest time that it still holds, if it holds anything and tells.
    pub lowest_time_ms: Option<i64>,
    /// The oldest time of its head, if that is not empty and it tells.
    pub head_min_time_ms: Option<i64>,
    /// It asks the ledger before it compacts.
    pub delays_compaction: bool,
}

/// Blocks on their way to the bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shipping {
    /// `on`, `not_configured` or `empty_configuration`, as in the metric `narthex_shipping`.
    pub state: String,
    /// The same in words.
    pub reason: String,
    /// The bucket.
    pub bucket: String,
    /// The data directory of Prometheus.
    pub dir: String,
    /// When the blocks were looked at.
    pub looked_at_ms: Option<i64>,
    /// What failed last, until something has worked.
    pub failure: Option<String>,
    /// All samples of local blocks before this time are in the bucket.
    pub durable_until_ms: Option<i64>,
    /// How many blocks are not.
    pub not_durable: usize,
    /// How many do not get there unless somebody acts, or are deleted by retention soon.
    pub need_attention: usize,
    /// What all blocks take on the disk.
    pub bytes: u64,
    /// What is held of blocks that Prometheus has deleted.
    pub held_bytes: u64,
    /// The blocks, oldest first: those that need somebody, those that are not durable, and the newest of the others.
    pub blocks: Vec<Block>,
    /// How many more there are.
    pub more_blocks: usize,
    /// How many of those are not durable.
    pub more_not_durable: usize,
    /// What is being sent.
    pub uploads: Vec<Upload>,
    /// The write-ahead log.
    pub wal: Wal,
}

/// How far the write-ahead log is in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wal {
    /// `on`, or `off` if it is not sent.
    pub state: String,
    /// The time between two rounds.
    pub interval_seconds: f64,
    /// The newest copy in the bucket.
    pub generation: String,
    /// What Prometheus had taken at this time is in the bucket, in blocks or in this copy.
    pub durable_ms: Option<i64>,
    /// Why the last round could not do all that is due.
    pub failure: Option<String>,
}

impl Wal {
    /// Whether it is sent.
    pub fn is_on(&self) -> bool {
        self.state == "on"
    }

    /// How far it is, in words.
    pub(crate) fn in_words(&self, now_ms: i64) -> String {
        let until = match self.durable_ms {
            Some(at) => format!("durable up to {}", times::ago(at, now_ms)),
            None => "not known to be durable".to_owned(),
        };
        match &self.failure {
            Some(failure) => format!("{until}: {failure}"),
            None => until,
        }
    }
}

/// One local block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// Its name.
    pub id: String,
    /// Its first sample; `None` if its `meta.json` cannot be read.
    pub min_time_ms: Option<i64>,
    /// Its end.
    pub max_time_ms: Option<i64>,
    /// How often it was compacted.
    pub level: Option<u64>,
    /// How many series it has.
    pub series: Option<u64>,
    /// How many samples it has.
    pub samples: Option<u64>,
    /// What it takes on the disk.
    pub bytes: Option<u64>,
    /// `durable`, `due`, `uploading`, `waiting`, `held_up`, `arriving`, `set_aside`, `not_shipped`, `merged` or `empty`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// What readers must know of its content: `plain`, `out_of_order`, ... as in `narthex_shipped_block_content_total`.
    pub content: Vec<String>,
    /// From the rename that sealed it to its commit.
    pub seal_to_durable_seconds: Option<f64>,
    /// When retention deletes it, if it is not durable.
    pub deletion_ms: Option<i64>,
    /// Less than a quarter of its time until then is left.
    pub near_deletion: bool,
    /// Prometheus has deleted it; its files are held open.
    pub held: bool,
}

/// A block that is being sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upload {
    /// The block.
    pub block: String,
    /// What it has.
    pub total_bytes: u64,
    /// What of that was sent.
    pub sent_bytes: u64,
    /// How fast, on average since it began.
    pub bytes_per_second: f64,
}

/// The StoreAPI.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queries {
    /// Nothing older is answered for, if there is a limit.
    pub min_time_ms: Option<i64>,
    /// Remote reads that Prometheus is asked for at once.
    pub slots: usize,
    /// How many of them are taken.
    pub remote_reads_running: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Age of the oldest remote read in progress.
    pub oldest_remote_read_seconds: Option<f64>,
    /// Calls that got no slot, since the start.
    pub shed: u64,
    /// Calls that ended because their client read nothing for too long.
    pub stalled: u64,
    /// Calls that ended because their client read too slowly.
    pub lagged: u64,
    /// Memory that calls have reserved.
    pub memory_bytes: u64,
    /// The limit of that.
    pub memory_limit_bytes: u64,
    /// The part of it that waits for slow clients.
    pub read_ahead_bytes: u64,
    /// What waits for them in files, if there is a directory for it.
    pub spilled_bytes: Option<u64>,
    /// The most series of a call; 0 is no limit.
    pub series_limit: u64,
    /// The most samples of a call; 0 is no limit.
    pub samples_limit: u64,
    /// What is read from sealed blocks.
    pub sealed: Sealed,
    /// How many calls of any kind run.
    pub calls_running: usize,
    /// The oldest of them.
    pub calls: Vec<Call>,
}

/// What queries read from sealed blocks on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sealed {
    /// `on`, `off` (`--no-store.sealed-from-disk`), `waiting` (not one block is known to be what Prometheus has loaded) or `paused` (the
    /// disk was too slow just now).
    pub state: String,
    /// How many blocks are read.
    pub blocks: usize,
    /// The end of the last of them: what follows is asked of Prometheus.
    pub until_ms: Option<i64>,
    /// What else is asked of Prometheus.
    pub doubts: Vec<Doubt>,
    /// What is kept of indices.
    pub tables_bytes: u64,
}

/// A range that Prometheus is asked about although it is sealed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Doubt {
    /// Its start; `None` if it has none.
    pub from_ms: Option<i64>,
    /// Its end, inclusive; `None` if it has none.
    pub to_ms: Option<i64>,
    /// Why, as in the metric `narthex_series_calls_to_prometheus_total`.
    pub reason: String,
}

/// A running call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// `package.Service/Method`.
    pub method: String,
    /// Who calls.
    pub peer: String,
    /// For how long it has been running.
    pub age_seconds: f64,
    /// What is left until its client gives up.
    pub deadline_in_seconds: Option<f64>,
    /// What its client has taken.
    pub sent_bytes: u64,
    /// For how long its client has taken nothing.
    pub client_idle_seconds: f64,
    /// Where it is, in a few words.
    pub stage: String,
}

/// A warning or an error of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// `error` or `warn`.
    pub level: String,
    /// What happened, and what to do.
    pub text: String,
    /// To what.
    pub fields: Vec<(String, String)>,
    /// How often.
    pub count: u64,
    /// When it was logged first.
    pub first_ms: i64,
    /// When it was logged last.
    pub last_ms: i64,
}

/// A flag and its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flag {
    /// Its name, without the dashes.
    pub name: String,
    /// Its value.
    pub value: String,
    /// It was given, and is not the default.
    pub given: bool,
}

/// The YAML of a flag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// The flag, with the file that it names.
    pub flag: String,
    /// The keys, with dots between those of several levels, and their values; secrets are left out.
    pub entries: Vec<(String, String)>,
}

impl Status {
    /// The document.
    ///
    /// # Errors
    /// None for a value of this type.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The first word that is to be said: whether data is safe.
    pub fn verdict(&self) -> Verdict {
        let shipping = &self.shipping;
        let is_moving = shipping.uploads.iter().any(|upload| upload.bytes_per_second > 0.0);
        let is_held_up = shipping.blocks.iter().any(|block| block.state == "held_up");
        match &*shipping.state {
            "on" => {}
            "empty_configuration" => return Verdict::Misconfigured,
            _ => return Verdict::Off,
        }
        match shipping.failure.is_some() && !is_moving || is_held_up {
            _ if shipping.need_attention > 0 => Verdict::AtRisk,
            true => Verdict::Failing,
            false if shipping.looked_at_ms.is_none() => Verdict::Starting,
            false if shipping.not_durable > 0 => Verdict::Busy,
            false if shipping.blocks.is_empty() => Verdict::NoBlocks,
            false => Verdict::Safe,
        }
    }

    /// The blocks: those first that need somebody, then those that are not durable, by when retention deletes them, then the newest.
    pub fn blocks_by_urgency(&self) -> Vec<&Block> {
        let mut blocks: Vec<&Block> = self.shipping.blocks.iter().rev().collect();
        blocks.sort_by_key(|block| {
            let needs_attention = block.near_deletion || tone_of(&block.state) == Tone::Bad;
            let deletion = block.deletion_ms.unwrap_or(i64::MAX);
            (
                !needs_attention,
                !block.is_open(),
                tone_of(&block.state) != Tone::Warning,
                deletion,
            )
        });
        blocks
    }
}

impl Sealed {
    /// It in one sentence.
    pub fn in_words(&self) -> String {
        match (&*self.state, self.until_ms) {
            ("on", Some(until)) => format!(
                "{} sealed blocks, up to {}; Prometheus is asked for the rest",
                self.blocks,
                time_to_the_second(until)
            ),
            ("off", _) => "nothing (--no-store.sealed-from-disk): Prometheus is asked for all".to_owned(),
            ("paused", _) => "nothing just now, the disk was too slow: Prometheus is asked for all".to_owned(),
            _ => "nothing yet: Prometheus is asked for all".to_owned(),
        }
    }
}

impl Block {
    /// Whether its samples are on the disk of Prometheus alone.
    pub fn is_open(&self) -> bool {
        !matches!(&*self.state, "durable" | "merged" | "empty")
    }
}

impl Shipping {
    /// Whether blocks are shipped.
    pub fn is_on(&self) -> bool {
        self.state == "on"
    }
}

/// Whether data is safe, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All sealed blocks are durable.
    Safe,
    /// Some are on their way.
    Busy,
    /// Nothing was looked at yet.
    Starting,
    /// There are no blocks.
    NoBlocks,
    /// Something fails, and is tried again.
    Failing,
    /// A block will not get to the bucket unless somebody acts, or is about to be deleted.
    AtRisk,
    /// Nothing is shipped, by mistake as it seems.
    Misconfigured,
    /// Nothing is shipped.
    Off,
}

impl Verdict {
    /// For a person.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Safe => "All sealed blocks are in the bucket",
            Self::Busy => "Blocks are on their way to the bucket",
            Self::Starting => "The blocks have not been looked at yet",
            Self::NoBlocks => "There are no sealed blocks yet",
            Self::Failing => "Shipping fails and is tried again",
            Self::AtRisk => "Blocks need your attention",
            Self::Misconfigured => "No blocks are shipped: the configuration is empty",
            Self::Off => "No blocks are shipped",
        }
    }

    /// How serious it is.
    pub fn tone(self) -> Tone {
        match self {
            Self::Safe => Tone::Good,
            Self::Busy | Self::Starting | Self::NoBlocks | Self::Off => Tone::Neutral,
            Self::Failing | Self::Misconfigured => Tone::Warning,
            Self::AtRisk => Tone::Bad,
        }
    }
}

/// How serious something is: its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Neither good nor bad.
    Neutral,
    /// To be watched.
    Warning,
    /// Somebody must act.
    Bad,
}

/// How serious the state of a block is.
pub fn tone_of(state: &str) -> Tone {
    match state {
        "durable" => Tone::Good,
        "set_aside" | "not_shipped" => Tone::Bad,
        "held_up" => Tone::Warning,
        _ => Tone::Neutral,
    }
}
