//! What these tests share: a Prometheus of each version with the same series, rules and targets, and our services before
//! it.

use std::{collections::BTreeMap, time::Duration};

use narthex::{
    ops::{
        grpc,
        probe::{Condition, Probe},
    },
    pb::{
        FILE_DESCRIPTOR_SET,
        thanos::{Label, ZLabelSet},
    },
    prometheus::{Client, Heartbeat, HttpClientConfig, heartbeat::Settings},
    storeapi::{
        self, Context,
        budget::Budget,
        min_time::MinTime,
        patterns::Patterns,
        series::{Series, SlowClients, limits::Limits, read_ahead::memory::Memory},
    },
    threads::BlockingPool,
};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    prometheus::fake::{Answer, Fake},
    rig::{Metrics, Prometheus, Tools, http, prometheus::Options, wait_until},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What is scraped. Some labels have the names of external ones.
const PAGE: &str = r#"# HELP rig_plain What it is for.
# TYPE rig_plain gauge
rig_plain{zone="z1"} 1
rig_plain{zone="z2"} 1
# TYPE rig_stored gauge
rig_stored{cluster="stored",replica="s1",zone="z3"} 1
rig_stored{cluster="stored",replica="s2",zone="z3"} 1
# TYPE rig_odd gauge
rig_odd{text="a\"b\\c\nd é �"} 1
# HELP rig_seconds How long.
# TYPE rig_seconds histogram
# UNIT rig_seconds seconds
rig_seconds_bucket{le="1.0"} 1 # {trace_id="abc",cluster="other"} 0.5
rig_seconds_bucket{le="+Inf"} 2 # {trace_id="def"} 7.25
rig_seconds_sum 7.75
rig_seconds_count 2
"#;

/// What only Prometheus 3 understands.
const PAGE_3: &str = "# TYPE \"rig.utf8\" gauge\n{\"rig.utf8\",\"a/b\"=\"slash\",\"dotted.name\"=\"dot\"} 1\n";

const RULES: &str = r#"groups:
- name: busy
  interval: 1s
  limit: 50
  rules:
  - record: rig:plain:sum
    expr: sum(rig_plain)
    labels: {cluster: stored, team: a}
  - alert: Firing
    expr: rig_plain == 1
    labels: {severity: page}
    annotations: {text: "{{ $value }} of {{ $labels.zone }}"}
  - alert: Pending
    expr: sum(rig_plain) == 2
    for: 1h
    keep_firing_for: 5m
    labels: {cluster: alerts}
  - alert: Inactive
    expr: rig_plain == 3
  - record: rig:broken
    expr: rig_plain * on() group_left() rig_plain
- name: idle
  interval: 10d
  rules:
  - record: rig:never
    expr: vector(1)
"#;

/// One Prometheus.
pub(super) struct Stage {
    pub(super) prometheus: Prometheus,
    _target: Fake,
}

/// One of each version; the same for all tests.
pub(super) async fn stages() -> &'static [Stage] {
    static SHARED: OnceCell<Vec<Stage>> = OnceCell::const_new();
    let start = || async {
        let mut stages = Vec::new();
        for leg in Tools::find().legs {
            let is_3 = leg.version.starts_with('3');
            let page = format!("{PAGE}{}# EOF\n", if is_3 { PAGE_3 } else { "" });
            let target = Fake::start(move |_| Answer::Raw(openmetrics(&page)));
            let scrape_configs = format!(
                "  - job_name: rig\n    static_configs:\n      - targets: ['{}']\n        labels: {{cluster: found}}\n      \
                 - targets: ['dropped:1']\n    relabel_configs:\n      - source_labels: [__address__]\n        regex: \
                 'dropped.*'\n        action: drop\n      - regex: cluster\n        action: labeldrop\n    honor_labels: \
                 true\n",
                target.address
            );
            let options = Options {
                block: "2h",
                // Of its own, series would come at any time.
                scrape: false,
                args: vec!["--enable-feature=exemplar-storage".to_owned()],
                scrape_configs,
                rules: RULES.to_owned(),
                ..Options::default()
            };
            let prometheus = Prometheus::start(&leg, options).await;
            stages.push(Stage {
                prometheus,
                _target: target,
            });
        }
        for stage in &stages {
            stage.wait().await;
        }
        stages
    };
    SHARED.get_or_init(start).await
}

fn openmetrics(page: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8; \
                escaping=allow-utf-8\r\nConnection: close\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{page}", page.len()).into_bytes()
}

impl Stage {
    /// Whether label names may be any text.
    pub(super) fn is_3(&self) -> bool {
        self.prometheus.version().starts_with('3')
    }

    /// Waits until all that the tests look at is there.
    async fn wait(&self) {
        let pending = "/api/v1/query?query=ALERTS{alertname=\"Pending\"}";
        let there = async || {
            let found = self.data(pending).await;
            (!found["result"].as_array()?.is_empty()).then_some(())
        };
        wait_until(PATIENCE, "alerts", there).await;
    }

    /// The `data` of what Prometheus itself answers.
    pub(super) async fn data(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.prometheus.url());
        let (status, body) = http::get(&url).await.unwrap();
        assert!(status.is_success(), "{path}: {status} {body:?}");
        serde_json::from_slice::<Value>(&body).unwrap()["data"].take()
    }

    /// Our services before it.
    pub(super) async fn scene(&self) -> Scene {
        Scene::before(&self.prometheus.url()).await
    }
}

/// Our services before one Prometheus, and a client that asks them.
pub(super) struct Scene {
    pub(super) channel: Channel,
    pub(super) context: Context,
    pub(super) ready: Condition,
    registry: Registry,
    _end: DropGuard,
}

impl Scene {
    /// Waits until Prometheus' labels are known.
    pub(super) async fn before(url: &str) -> Scene {
        Scene::with(url, HttpClientConfig::default()).await
    }

    /// Likewise, with these settings for the connections to Prometheus.
    pub(super) async fn with(url: &str, config: HttpClientConfig) -> Scene {
        let mut registry = Registry::default();
        let client = Client::new(&url.parse().unwrap(), &config, PATIENCE).unwrap();
        let settings = Settings {
            interval: Duration::from_secs(3600),
            extra_labels: narthex::model::Labels::default(),
            validation: None,
        };
        let peer = Heartbeat::new(client.clone(), settings, &mut registry);
        let mut snapshots = peer.snapshots();
        let stored_names = peer.stored_names();
        let token = CancellationToken::new();
        tokio::spawn(peer.run(token.clone()));
        let known = tokio::time::timeout(PATIENCE, snapshots.wait_for(|snapshot| snapshot.problem.is_none()));
        known.await.expect("it comes soon").expect("the heartbeat goes on");
        let probe = Probe::register("sidecar", &mut registry);
        let ready = probe.condition("test");
        ready.set(Ok(()));
        client.register_metrics(&mut registry);
        let pool = BlockingPool::new(2);
        let context = Context {
            sealed: None,
            client,
            snapshots,
            probe,
            // The default of --min-time.
            min_time: MinTime::EVERYTHING,
            stored_names,
            budget: Budget::new(256 << 20),
            patterns: Patterns::new(pool.clone()),
            pool,
            timeout: Duration::from_secs(120),
        };
        let channel = serve(context.clone(), &mut registry, token.clone()).await;
        Scene {
            channel,
            context,
            ready,
            registry,
            _end: token.drop_guard(),
        }
    }

    /// The same services, of which some things are otherwise.
    pub(super) async fn but(&self, change: impl FnOnce(&mut Context)) -> Scene {
        let mut context = self.context.clone();
        change(&mut context);
        let (mut registry, token) = (Registry::default(), CancellationToken::new());
        context.client.register_metrics(&mut registry);
        let channel = serve(context.clone(), &mut registry, token.clone()).await;
        Scene {
            channel,
            context,
            ready: self.ready.clone(),
            registry,
            _end: token.drop_guard(),
        }
    }

    /// What is counted of one kind of request: waiting, running, shed.
    pub(super) fn requests(&self, kind: &str) -> (f64, f64, f64) {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let metrics = Metrics::parse(&page);
        let value = |name: &str| {
            metrics
                .value(&format!("narthex_prometheus_api_requests_{name}"), &[("kind", kind)])
                .unwrap()
        };
        (value("waiting"), value("running"), value("shed_total"))
    }
}

/// Serves as the program does.
async fn serve(context: Context, registry: &mut Registry, token: CancellationToken) -> Channel {
    let limits = Limits { series: 0, samples: 0 };
    let slow = SlowClients {
        memory: Memory::new(context.budget.clone(), 64 << 20),
        spill_dir: None,
        patience: PATIENCE,
    };
    let series = Series::new(context.clone(), limits, slow, registry);
    let routes = storeapi::routes(&context, series, grpc::MESSAGE_MAX);
    let methods = grpc::methods(FILE_DESCRIPTOR_SET).unwrap();
    let settings = grpc::Settings {
        tls: None,
        max_connection_age: Duration::ZERO,
        metrics: grpc::Metrics::register(registry, methods),
        log: None,
        limits: grpc::Limits::default(),
        connections: narthex::ops::connections::Metrics::register(registry),
        running: grpc::Running::register(registry),
    };
    let bound = grpc::bind("127.0.0.1:0", "--grpc-address").await.unwrap();
    let address = bound.local_address();
    let server = bound.listen().unwrap();
    tokio::spawn(server.serve(routes.prepare(), settings, token, Duration::ZERO));
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// All messages of an answer.
pub(super) async fn all<T>(answer: Result<Response<Streaming<T>>, Status>) -> Result<Vec<T>, Status> {
    let mut stream = answer?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

/// Asks Prometheus and us until what Prometheus says is the same before and after: its answer and ours.
pub(super) async fn steady<T>(mut theirs: impl AsyncFnMut() -> Value, mut ours: impl AsyncFnMut() -> T) -> (Value, T) {
    wait_until(PATIENCE, "an answer that stays", async || {
        let before = theirs().await;
        let found = ours().await;
        (theirs().await == before).then_some((before, found))
    })
    .await
}

/// The labels of a JSON object, with `over` laid over them, as a message has them.
pub(super) fn labels(object: &Value, over: &[(&str, &str)]) -> Option<ZLabelSet> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut map: BTreeMap<String, String> = object
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    map.extend(
        over.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let labels = map.into_iter().map(|(name, value)| Label { name, value }).collect();
    Some(ZLabelSet { labels })
}

/// The external labels of the rig.
pub(super) const EXTERNAL: [(&str, &str); 2] = [("cluster", "rig"), ("replica", "0")];
