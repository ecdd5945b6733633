//! Answers while blocks move: Prometheus seals, compacts and deletes them, and deletes series from them, and clients ask all the
//! time. What must be there is known from what Prometheus was given to scrape and what was deleted, not from another answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use narthex::pb::thanos::{LabelMatcher, SeriesRequest, label_matcher::Type};
use serde_json::Value;
use tonic::Status;

use super::{
    ask::{Got, assert_well_formed, floats, matcher, raw, set},
    random::Dice,
    stage::{Stage, engine},
};
use crate::{
    prometheus::fake::{Answer, Fake},
    rig::{Leg, Prometheus, Tools, http, prometheus::Options, wait::try_until},
};

/// How long it may take until enough has happened; of itself Prometheus needs about a minute.
const LIMIT: Duration = Duration::from_secs(270);
const SERIES: usize = 24;
const GROUPS: usize = 4;
/// Time of a block, in ms.
const BLOCK: i64 = 5_000;
/// In ms, as Prometheus is told below.
const RETENTION: i64 = 30_000;
/// What is so much younger than what Prometheus may delete is there (ms).
const MARGIN: i64 = 3_000;
const CLIENTS: u64 = 2;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The value of a series at a time.
fn value(series: usize, at: i64) -> f64 {
    (at % 1_000_000 * 32 + series as i64) as f64
}

/// Whether a series is there at a time: all but the first come and go.
fn is_there(series: usize, at: i64) -> bool {
    series == 0 || (at / 7_000 + series as i64) % 4 != 0
}

/// Some of the series.
#[derive(Clone, Copy, Debug)]
enum Which {
    All,
    One(usize),
    Group(usize),
    NotGroup(usize),
    /// Those whose numbers begin with a 1.
    Ones,
}

impl Which {
    fn any(dice: &mut Dice) -> Which {
        match dice.below(6) {
            0 => Which::One(dice.below(SERIES)),
            1 => Which::Group(dice.below(GROUPS)),
            2 => Which::NotGroup(dice.below(GROUPS)),
            3 => Which::Ones,
            _ => Which::All,
        }
    }

    fn takes(self, series: usize) -> bool {
        match self {
            Which::All => true,
            Which::One(one) => series == one,
            Which::Group(group) => series % GROUPS == group,
            Which::NotGroup(group) => series % GROUPS != group,
            Which::Ones => series.to_string().starts_with('1'),
        }
    }

    fn matcher(self) -> Option<LabelMatcher> {
        Some(match self {
            Which::All => return None,
            Which::One(one) => matcher(Type::Eq, "i", &one.to_string()),
            Which::Group(group) => matcher(Type::Eq, "group", &group.to_string()),
            Which::NotGroup(group) => matcher(Type::Neq, "group", &group.to_string()),
            Which::Ones => matcher(Type::Re, "i", "1.*"),
        })
    }

    fn selector(self) -> String {
        let condition = match self {
            Which::All => String::new(),
            Which::One(one) => format!("i=\"{one}\""),
            Which::Group(group) => format!("group=\"{group}\""),
            Which::NotGroup(group) => format!("group!=\"{group}\""),
            Which::Ones => "i=~\"1.*\"".to_owned(),
        };
        format!("moving{{{condition}}}")
    }
}

/// Series that Prometheus was told to delete.
#[derive(Clone, Debug)]
struct Delete {
    series: Which,
    times: RangeInclusive<i64>,
    /// It has said that it has.
    is_done: bool,
}

impl Delete {
    fn takes(&self, series: usize, at: i64) -> bool {
        self.series.takes(series) && self.times.contains(&at)
    }
}

/// What Prometheus was given, and what it was told.
#[derive(Debug, Default)]
struct World {
    /// Times at which it has scraped, whether it has taken the samples or not.
    served: BTreeSet<i64>,
    /// Those at which it has: it has shown one sample, and takes all of a scrape or none.
    taken: BTreeSet<i64>,
    deletes: Vec<Delete>,
    /// Prometheus 2.44 was the first to trim series without damage to what it knows of their deleted samples: of an older one
    /// nobody knows what is left of them.
    bends_deletes: bool,
}

/// What was known when a call was sent.
struct Before {
    taken: BTreeSet<i64>,
    deleted: Vec<Delete>,
}

impl World {
    /// A page to scrape, of this moment.
    fn page(&mut self) -> Vec<u8> {
        let now = now_ms();
        self.served.insert(now);
        let mut page = format!("# TYPE marker gauge\nmarker 1 {now}\n# TYPE moving gauge\n");
        for series in (0..SERIES).filter(|series| is_there(*series, now)) {
            let (group, value) = (series % GROUPS, value(series, now));
            page.push_str(&format!("moving{{group=\"{group}\",i=\"{series}\"}} {value} {now}\n"));
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{page}", page.len()).into_bytes()
    }

    fn before(&self) -> Before {
        Before {
            taken: self.taken.clone(),
            deleted: self.deletes.iter().filter(|delete| delete.is_done).cloned().collect(),
        }
    }

    /// Whether a series was touched by a delete that may have hit other samples.
    fn is_bent(&self, series: usize) -> bool {
        self.bends_deletes && self.deletes.iter().any(|delete| delete.series.takes(series))
    }

    /// Holds an answer that has just come against what must be there and what must not.
    fn assert_right(&self, version: &str, request: &SeriesRequest, asked: Which, before: &Before, got: &Got) {
        let ended = now_ms();
        let range = request.min_time..=request.max_time;
        let found = samples(got);
        for (&series, samples) in &found {
            assert!(asked.takes(series), "{series} was not asked for: {request:?}");
            for (&at, &found) in samples {
                let what = format!(
                    "{version}: {series} at {at}, {} ms ago: {request:?} {:?}",
                    ended - at,
                    self.deletes
                );
                assert!(
                    self.served.contains(&at) && is_there(series, at),
                    "{what}: never scraped"
                );
                assert_eq!(found, value(series, at), "{what}");
                if self.is_bent(series) {
                    continue;
                }
                assert!(range.contains(&at), "{what}: outside of the range");
                let deleted = before.deleted.iter().find(|delete| delete.takes(series, at));
                assert!(deleted.is_none(), "{what}: deleted by {deleted:?}");
            }
        }
        let held = ended - RETENTION + MARGIN..;
        for at in before.taken.iter().filter(|at| range.contains(at) && held.contains(at)) {
            for series in (0..SERIES).filter(|series| asked.takes(*series) && is_there(*series, *at)) {
                // Also those that were begun meanwhile.
                let may_be_deleted =
                    self.is_bent(series) || self.deletes.iter().any(|delete| delete.takes(series, *at));
                let is_found = found.get(&series).is_some_and(|samples| samples.contains_key(at));
                assert!(
                    is_found || may_be_deleted,
                    "{version}: {series} at {at}, {} ms ago, is missing: {request:?}: {:?}",
                    ended - at,
                    found.get(&series)
                );
            }
        }
    }
}

/// The samples of an answer by series and time: each once, those of a series in the order of time, and in chunks that do not
/// overlap.
fn samples(got: &Got) -> BTreeMap<usize, BTreeMap<i64, f64>> {
    let mut found: BTreeMap<usize, BTreeMap<i64, f64>> = BTreeMap::new();
    for series in &got.series {
        let labels: BTreeMap<String, String> = set(series).into_iter().collect();
        let label = |name: &str| labels.get(name).map_or("", String::as_str);
        let number: usize = label("i").parse().unwrap();
        let wanted = ["moving", "rig", "0", &(number % GROUPS).to_string()].map(str::to_owned);
        let names = ["__name__", "cluster", "replica", "group"];
        assert_eq!(names.map(|name| label(name).to_owned()), wanted, "{labels:?}");
        let list = found.entry(number).or_default();
        for (_, chunk) in raw(series) {
            assert_eq!(chunk.r#type, 0, "{labels:?}");
            // That the times of a chunk are those of its samples was looked at before.
            for (at, bits) in floats(chunk) {
                let last = list.last_key_value().map(|(last, _)| *last);
                assert!(last.is_none_or(|last| last < at), "{labels:?}: {at} behind {last:?}");
                list.insert(at, f64::from_bits(bits));
            }
        }
    }
    found
}

/// What has happened.
#[derive(Debug, Default)]
struct Events {
    blocks: BTreeSet<String>,
    sealed: usize,
    compacted: usize,
    /// Blocks without what was deleted.
    rewritten: usize,
    retentions: f64,
    deletes: usize,
    /// After so many sealed blocks something was done last.
    acted: usize,
    /// Calls from disk, and of both.
    calls: [f64; 2],
}

impl Events {
    fn are_enough(&self) -> bool {
        self.sealed >= 8
            && self.compacted >= 1
            && self.rewritten >= 1
            && self.retentions >= 1.0
            && self.deletes >= 4
            && self.calls.iter().all(|calls| *calls >= 50.0)
    }
}

/// A Prometheus that scrapes us, and a narthex beside it.
struct Scene {
    world: Arc<Mutex<World>>,
    prometheus: Prometheus,
    stage: Stage,
    _exporter: Fake,
}

impl Scene {
    async fn start(leg: &Leg) -> Scene {
        let world = World {
            bends_deletes: !leg.at_least(2, 44),
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let served = Arc::clone(&world);
        let exporter = Fake::start(move |_| Answer::Raw(served.lock().unwrap().page()));
        let options = Options {
            block: "5s",
            args: vec![
                "--storage.tsdb.max-block-duration=45s".to_owned(),
                format!("--storage.tsdb.retention.time={RETENTION}ms"),
            ],
            scrape: false,
            scrape_configs: format!(
                "  - job_name: moving\n    static_configs:\n      - targets: ['{}']\n",
                exporter.address
            ),
            ..Options::default()
        };
        let prometheus = Prometheus::start(leg, options).await;
        let stage = Stage::start(&prometheus, &["--prometheus.get_config_interval=1s"]).await;
        Scene {
            world,
            prometheus,
            stage,
            _exporter: exporter,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Asks again and again, for any time that Prometheus may hold.
    async fn ask(&self, seed: u64) -> Infallible {
        let mut dice = Dice(seed);
        loop {
            let asked = Which::any(&mut dice);
            let (one, other) = (time(&mut dice), time(&mut dice));
            let mut matchers = vec![matcher(Type::Eq, "__name__", "moving")];
            matchers.extend(asked.matcher());
            let request = SeriesRequest {
                min_time: one.min(other),
                max_time: one.max(other),
                matchers,
                ..SeriesRequest::default()
            };
            let before = self.world().before();
            let got = match self.stage.try_series(request.clone()).await {
                Ok(got) => got,
                Err(status) => {
                    self.assert_broken_off(&request, &status);
                    continue;
                }
            };
            assert_well_formed(&got);
            self.world()
                .assert_right(self.prometheus.version(), &request, asked, &before, &got);
        }
    }

    /// Prometheus itself has failed: up to this day it panics when the end of a request lies within what was deleted of a series
    /// that has more than one such range.
    fn assert_broken_off(&self, request: &SeriesRequest, status: &Status) {
        let is_known = self.prometheus.log().contains("tombstones.Intervals.Add");
        assert!(
            is_known && status.message().contains("/api/v1/read"),
            "{} {request:?}: {status}\n{}",
            self.prometheus.version(),
            self.stage.sidecar.log()
        );
    }

    /// Looks what Prometheus has done, and has it do something after each block that it has sealed.
    async fn go_on(&self, dice: &mut Dice, events: &mut Events) {
        let now = now_ms();
        let marks = engine(&self.prometheus, "marker", now - 10_000, now).await;
        let marks = marks.into_values().flatten().map(|(at, _)| at);
        self.world().taken.extend(marks);
        for name in self.prometheus.blocks() {
            // It may be gone.
            let meta = fs_err::read(self.prometheus.data().join(&name).join("meta.json"));
            let Ok(meta) = meta else { continue };
            if !events.blocks.insert(name) {
                continue;
            }
            let meta: Value = serde_json::from_slice(&meta).unwrap();
            match meta["compaction"]["parents"].as_array().map_or(0, Vec::len) {
                0 => events.sealed += 1,
                1 => events.rewritten += 1,
                _ => events.compacted += 1,
            }
        }
        let name = "prometheus_tsdb_time_retentions_total";
        events.retentions = self.prometheus.metric(name).await.unwrap_or_default();
        let metrics = self.stage.sidecar.metrics().await.unwrap();
        events.calls = ["disk", "both"].map(|source| {
            let calls = metrics.value("narthex_series_calls_total", &[("source", source)]);
            calls.unwrap_or_default()
        });
        if events.sealed > events.acted {
            events.acted = events.sealed;
            // Three blocks make a larger one, without what was deleted: not in step with that.
            match events.sealed % 4 {
                1 => self.post("clean_tombstones", &[]).await,
                // Of the head only.
                3 => self.delete(dice, 1_000..BLOCK / 2, events).await,
                _ => self.delete(dice, 6_000..RETENTION - MARGIN, events).await,
            }
        }
    }

    /// Deletes some series for some seconds that began `ago`, up to the newest samples.
    async fn delete(&self, dice: &mut Dice, ago: std::ops::Range<i64>, events: &mut Events) {
        let series = match dice.below(3) {
            0 => Which::Group(dice.below(GROUPS)),
            _ => Which::One(dice.below(SERIES)),
        };
        // What comes later would not be deleted.
        let newest = self.world().taken.last().copied().unwrap_or_default();
        let from = newest - ago.start - dice.below((ago.end - ago.start) as usize) as i64;
        let to = newest.min(from + 1_000 + dice.below(8_000) as i64);
        let delete = Delete {
            series,
            times: from..=to,
            is_done: false,
        };
        let at = {
            let mut world = self.world();
            world.deletes.push(delete);
            world.deletes.len() - 1
        };
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let (start, end) = (seconds(from), seconds(to));
        let parameters = [("match[]", series.selector()), ("start", start), ("end", end)];
        self.post("delete_series", &parameters).await;
        self.world().deletes[at].is_done = true;
        events.deletes += 1;
    }

    async fn post(&self, what: &str, parameters: &[(&str, String)]) {
        let base = format!("{}/api/v1/admin/tsdb/{what}", self.prometheus.url());
        let url = url::Url::parse_with_params(&base, parameters).unwrap();
        let answer = http::client().post(url).send().await.unwrap();
        let status = answer.status();
        assert!(
            status.is_success(),
            "{what}: {status}: {}",
            answer.text().await.unwrap()
        );
    }
}

/// A time that Prometheus may hold, at or near the border of a block, or later.
fn time(dice: &mut Dice) -> i64 {
    let at = now_ms() - dice.below(RETENTION as usize + 10_000) as i64;
    match dice.below(4) {
        0 => at / BLOCK * BLOCK + dice.below(3) as i64 - 1,
        1 if dice.below(3) == 0 => i64::MAX,
        _ => at,
    }
}

#[tokio::test]
async fn answers_are_right_while_blocks_come_change_and_go() {
    join_all(Tools::find().legs.iter().map(moving)).await;
}

async fn moving(leg: &Leg) {
    let scene = Scene::start(leg).await;
    let mut events = Events::default();
    let mut dice = Dice(7);
    let go_on = async {
        let enough = async || {
            scene.go_on(&mut dice, &mut events).await;
            events.are_enough().then_some(())
        };
        try_until(LIMIT, enough).await
    };
    let clients = join_all((0..CLIENTS).map(|seed| scene.ask(seed)));
    let enough = tokio::select! {
        enough = go_on => enough,
        _ = clients => None,
    };
    assert!(
        enough.is_some(),
        "{}: {events:?}\n{}",
        leg.version,
        scene.prometheus.log()
    );
    let metrics = scene.stage.sidecar.metrics().await.unwrap();
    for reason in ["head", "tombstones", "arriving"] {
        let calls = metrics.value("narthex_series_calls_to_prometheus_total", &[("reason", reason)]);
        assert!(calls.is_some_and(|calls| calls > 0.0), "{}: {reason}", leg.version);
    }
}
