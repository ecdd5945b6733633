//! What these tests share: a Prometheus of each version with the same series, rules and targets, and our services before
//! it.

use std::{collections::BTreeMap, time::Duration};

use narthex::{
    model::duration::TimeOrDuration,
    ops::probe::{Condition, Probe},
    pb::thanos::{
        Label, LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse, SeriesRequest,
        SeriesResponse, ZLabelSet,
        exemplars_server::ExemplarsServer,
        info::info_server::InfoServer,
        metadata_server::MetadataServer,
        rules_server::RulesServer,
        status_server::StatusServer,
        store_server::{Store, StoreServer},
        targets_server::TargetsServer,
    },
    prometheus::{Client, HttpClientConfig, Peer, peer::Settings},
    storeapi::{
        Context, budget::Budget, exemplars::ExemplarsService, info::InfoService, label_calls::LabelCalls,
        metadata::MetadataService, rules::RulesService, status::StatusService, targets::TargetsService,
    },
    threads::Lane,
};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::{net::TcpListener, sync::OnceCell};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use crate::{
    peer::fake::{Answer, Fake},
    rig::{Prometheus, Tools, http, prometheus::Options, wait_until},
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
    _end: DropGuard,
}

impl Scene {
    /// Waits until Prometheus' labels are known.
    pub(super) async fn before(url: &str) -> Scene {
        let mut registry = Registry::default();
        let config = HttpClientConfig::default();
        let client = Client::new(&url.parse().unwrap(), &config, PATIENCE).unwrap();
        let settings = Settings {
            interval: Duration::from_secs(3600),
            extra_labels: narthex::model::Labels::default(),
            validation: None,
        };
        let peer = Peer::new(client.clone(), settings, &mut registry);
        let (mut snapshots, stored_names) = (peer.snapshots(), peer.stored_names());
        let token = CancellationToken::new();
        tokio::spawn(peer.run(token.clone()));
        let known = tokio::time::timeout(PATIENCE, snapshots.wait_for(|snapshot| snapshot.problem.is_none()));
        known.await.expect("it comes soon").expect("the heartbeat goes on");
        let probe = Probe::register("sidecar", &mut registry);
        let ready = probe.condition("test");
        ready.set(Ok(()));
        let context = Context {
            client,
            snapshots,
            probe,
            // The default of --min-time.
            min_time: TimeOrDuration::At(-62_167_219_200_000),
            stored_names,
            budget: Budget::new(256 << 20),
            lane: Lane::new(2),
            timeout: PATIENCE,
        };
        let channel = serve(context.clone(), token.clone()).await;
        Scene {
            channel,
            context,
            ready,
            _end: token.drop_guard(),
        }
    }
}

async fn serve(context: Context, token: CancellationToken) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_service(StoreServer::new(LabelsOnly(LabelCalls::new(context.clone()))))
        .add_service(InfoServer::new(InfoService::new(context.clone())))
        .add_service(RulesServer::new(RulesService::new(context.clone())))
        .add_service(TargetsServer::new(TargetsService::new(context.clone())))
        .add_service(MetadataServer::new(MetadataService::new(context.clone())))
        .add_service(ExemplarsServer::new(ExemplarsService::new(context.clone())))
        .add_service(StatusServer::new(StatusService::new(context)));
    let incoming = TcpIncoming::from(listener);
    tokio::spawn(async move { token.run_until_cancelled(server.serve_with_incoming(incoming)).await });
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// A store that has no series.
struct LabelsOnly(LabelCalls);

#[tonic::async_trait]
impl Store for LabelsOnly {
    type SeriesStream = Box<dyn Stream<Item = Result<SeriesResponse, Status>> + Send + Unpin>;

    async fn series(&self, _: Request<SeriesRequest>) -> Result<Response<Self::SeriesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn label_names(&self, request: Request<LabelNamesRequest>) -> Result<Response<LabelNamesResponse>, Status> {
        self.0.names(request.into_inner()).await.map(Response::new)
    }

    async fn label_values(
        &self,
        request: Request<LabelValuesRequest>,
    ) -> Result<Response<LabelValuesResponse>, Status> {
        self.0.values(request.into_inner()).await.map(Response::new)
    }
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
