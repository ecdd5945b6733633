//! `--tracing.config`: spans of the real program, at a collector, and what becomes of everything else when there is none.

mod collector;

use std::{path::Path, sync::Arc, time::Duration};

use fs_err as fs;
use narthex::pb::thanos::{LabelMatcher, LabelNamesRequest, SeriesRequest, label_matcher, store_client::StoreClient};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, transport::Channel};

use self::collector::{Collector, Received};
use crate::{
    bad_blocks::stage::{seal, sound, wait_for_log},
    rig::{BucketView, Prometheus, Sidecar, Tools, prometheus::Options, tools::temp_dir, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A caller's header, from the W3C's recommendation.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// OpenTelemetry's numbers.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn tracing(kind: &str, port: u16, more: &str) -> String {
    format!("--tracing.config={{type: OTLP, config: {{client_type: {kind}, endpoint: 'localhost:{port}'{more}}}}}")
}

async fn prometheus(options: Options) -> Prometheus {
    let leg = Tools::newest();
    Prometheus::start(&leg, options).await
}

async fn store(sidecar: &Sidecar) -> StoreClient<Channel> {
    let address = sidecar.grpc_url();
    let connect = async || StoreClient::connect(address.clone()).await.ok();
    wait_until(PATIENCE, "the gRPC port", connect).await
}

/// All series of Prometheus' own that are `up`.
fn series() -> SeriesRequest {
    SeriesRequest {
        min_time: 0,
        max_time: i64::MAX,
        matchers: vec![LabelMatcher {
            r#type: label_matcher::Type::Eq.into(),
            name: "__name__".to_owned(),
            value: "up".to_owned(),
        }],
        ..SeriesRequest::default()
    }
}

fn called<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{CALLER}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    request
}

/// Reads a whole answer; how many messages it had.
async fn read(store: &mut StoreClient<Channel>, request: Request<SeriesRequest>) -> usize {
    let mut answer = store.series(request).await.unwrap().into_inner();
    let mut messages = 0;
    while answer.message().await.unwrap().is_some() {
        messages += 1;
    }
    messages
}

/// Reads series once Prometheus has scraped some.
async fn read_some(store: &mut StoreClient<Channel>) {
    let some = async || (read(store, called(series())).await > 0).then_some(());
    wait_until(PATIENCE, "series", some).await;
}

async fn first(collector: &Collector, name: &str, wanted: impl Fn(&Received) -> bool) -> Received {
    let found = async || collector.named(name).into_iter().find(&wanted);
    wait_until(PATIENCE, format_args!("a span {name}"), found).await
}

#[tokio::test]
async fn a_query_is_one_trace_from_its_caller_into_prometheus() {
    let collector = Collector::start(None).await;
    let prometheus = prometheus(Options {
        block: "2h",
        tracing: Some(format!("127.0.0.1:{}", collector.port)),
        ..Options::default()
    })
    .await;
    let mut args = vec![format!("--prometheus.url={}", prometheus.url())];
    args.push(tracing("grpc", collector.port, ", insecure: true, compression: gzip"));
    let sidecar = Sidecar::start(args);
    sidecar.wait_ready(PATIENCE).await;
    let mut store = store(&sidecar).await;
    read_some(&mut store).await;
    store.label_names(called(LabelNamesRequest::default())).await.unwrap();
    let refused = store.label_names(called(LabelNamesRequest {
        matchers: vec![LabelMatcher {
            r#type: label_matcher::Type::Re.into(),
            name: "a".to_owned(),
            value: "(".to_owned(),
        }],
        ..LabelNamesRequest::default()
    }));
    assert_eq!(refused.await.unwrap_err().code(), Code::InvalidArgument);

    for (method, asked) in [("Series", "/api/v1/read"), ("LabelNames", "/api/v1/labels")] {
        let is_fine = |span: &Received| span.error.is_none();
        let call = first(&collector, &format!("/thanos.Store/{method}"), is_fine).await;
        assert_eq!(
            (call.trace.as_str(), call.parent.as_str(), call.kind),
            (TRACE, CALLER, SERVER)
        );
        assert_eq!(call.attributes["rpc.grpc.status_code"], "0");
        assert_eq!(call.attributes["client.address"], "127.0.0.1");
        assert_eq!(call.resource["service.name"], "narthex");
        let query = async || collector.below(&call).into_iter().find(|span| span.kind == CLIENT);
        let query = wait_until(PATIENCE, format_args!("what {method} asks of Prometheus"), query).await;
        assert_eq!(
            (query.name.as_str(), query.attributes["url.path"].as_str()),
            ("query_prometheus", asked)
        );
        // Prometheus' own span of the request, sent by itself.
        let its = async || {
            collector
                .below(&query)
                .into_iter()
                .find(|span| span.resource["service.name"] == "prometheus")
        };
        wait_until(PATIENCE, format_args!("what Prometheus did for {method}"), its).await;
    }
    let failed = first(&collector, "/thanos.Store/LabelNames", |span| span.error.is_some()).await;
    assert_eq!(failed.attributes["rpc.grpc.status_code"], "3");
    assert!(failed.error.unwrap().starts_with("InvalidArgument: "));
    assert!(sidecar.metric("narthex_tracing_spans_sent_total").await.unwrap() >= 5.0);
    // The heartbeat's requests belong to no call.
    assert!(
        collector
            .named("query_prometheus")
            .iter()
            .all(|span| !span.parent.is_empty())
    );
}

#[tokio::test]
async fn reading_sealed_blocks_is_a_span_of_its_call() {
    let collector = Collector::start(None).await;
    let prometheus = prometheus(Options::default()).await;
    prometheus.wait_for_blocks(1, PATIENCE).await;
    let sidecar = Sidecar::start(vec![
        format!("--prometheus.url={}", prometheus.url()),
        format!("--tsdb.path={}", prometheus.data().display()),
        "--prometheus.get_config_interval=1s".to_owned(),
        tracing("grpc", collector.port, ", insecure: true"),
    ]);
    sidecar.wait_ready(PATIENCE).await;
    let store = store(&sidecar).await;
    let found = async || {
        read(&mut store.clone(), called(series())).await;
        collector.named("read_sealed_blocks").into_iter().next()
    };
    let reading = wait_until(PATIENCE, "blocks that are read", found).await;
    assert!(reading.error.is_none(), "{reading:?}");
    assert!(reading.attributes["blocks"].parse::<u64>().unwrap() >= 1, "{reading:?}");
    let is_parent = |call: &Received| collector.below(call).iter().any(|span| span.name == reading.name);
    first(&collector, "/thanos.Store/Series", is_parent).await;
}

#[tokio::test]
async fn each_block_on_its_way_is_a_trace() {
    let collector = Collector::start(None).await;
    let prometheus = prometheus(Options::default()).await;
    let dir = temp_dir("bucket");
    let bucket = BucketView::dir(dir.path());
    let mut args = Sidecar::flags(&prometheus, &bucket.config());
    args.push(tracing(
        "http",
        collector.port,
        ", insecure: true, sampler_type: alwayssample",
    ));
    let sidecar = Sidecar::start(args);
    sidecar.wait_ready(PATIENCE).await;
    let names = |span: &Received| -> Vec<String> {
        let mut names: Vec<String> = collector.below(span).into_iter().map(|span| span.name).collect();
        names.sort_unstable();
        names
    };
    // Spans end, and come, one after another; the block's own is the last.
    let sent = first(&collector, "upload", |span| names(span) == ["check", "prove", "send"]).await;
    let shipped = first(&collector, "ship_block", |span| {
        names(span).contains(&"commit".to_owned())
    })
    .await;
    assert_eq!(names(&shipped), ["commit", "upload", "wait_at_gate"]);
    assert_eq!(shipped.parent, "");
    let block = shipped.attributes["block"].clone();
    assert!(prometheus.blocks().contains(&block), "{block}");
    let first_try = first(&collector, "ship_block", |span| span.trace == sent.trace).await;
    assert!(prometheus.blocks().contains(&first_try.attributes["block"]));
    assert!(dir.path().join(&block).join("meta.json").is_file());
}

/// A certificate for localhost that signs itself; its PEM is also what trusts it.
fn tls(dir: &Path) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("ca.crt"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn tls_headers_and_resources_reach_the_collector_and_a_file_that_comes_late_is_read() {
    let dir = temp_dir("tls");
    let collector = Collector::start(Some(tls(dir.path()))).await;
    let (there, late) = (dir.path().join("ca.crt"), dir.path().join("late.crt"));
    let prometheus = prometheus(Options {
        block: "2h",
        ..Options::default()
    })
    .await;
    for kind in ["grpc", "http"] {
        let _ = fs::remove_file(&late);
        let more = format!(
            ", compression: gzip, service_name: mine-{kind}, resource_attributes: {{cluster: eu1}}, headers: {{x-token: \
             secret}}, tls_config: {{ca_file: {}}}",
            late.display()
        );
        let sidecar = Sidecar::start(vec![
            format!("--prometheus.url={}", prometheus.url()),
            tracing(kind, collector.port, &more),
        ]);
        sidecar.wait_ready(PATIENCE).await;
        wait_for_log(
            &sidecar,
            &[
                "level=warn",
                "spans do not reach the collector",
                "config.tls_config.ca_file",
            ],
        )
        .await;
        fs::copy(&there, &late).unwrap();
        let mut store = store(&sidecar).await;
        read_some(&mut store).await;
        let name = format!("mine-{kind}");
        let call = first(&collector, "/thanos.Store/Series", |span| {
            span.resource["service.name"] == name
        })
        .await;
        assert_eq!(call.resource["cluster"], "eu1");
        assert_eq!(call.headers["x-token"], "secret");
        wait_for_log(&sidecar, &["level=info", "the collector takes spans again"]).await;
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_changes_nothing_else() {
    // It accepts connections, by its backlog, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let prometheus = prometheus(Options {
        block: "2h",
        ..Options::default()
    })
    .await;
    let dir = temp_dir("bucket");
    let bucket = BucketView::dir(dir.path());
    let mut args = Sidecar::flags(&prometheus, &bucket.config());
    let short = ", insecure: true, timeout: 1s, retry_config: {retry_enabled: true, retry_max_elapsed_time: 1s}";
    args.push(tracing("grpc", port, short));
    let sidecar = Sidecar::start(args);
    sidecar.wait_ready(PATIENCE).await;
    let mut store = store(&sidecar).await;
    read_some(&mut store).await;
    wait_for_log(&sidecar, &["level=warn", "spans do not reach the collector"]).await;
    let dropped = async || {
        sidecar
            .metric("narthex_tracing_spans_dropped_total")
            .await
            .filter(|dropped| *dropped > 0.0)
    };
    wait_until(PATIENCE, "spans that are dropped", dropped).await;
    assert_eq!(sidecar.metric("narthex_tracing_spans_sent_total").await, Some(0.0));
    read_some(&mut store).await;
    let block = seal(&sound(0), prometheus.data(), |_| {});
    let visible = async || (bucket.visible().await == [block.as_str()]).then_some(());
    sidecar.wait_until(PATIENCE, "the block", visible).await;
    assert!(sidecar.stop().await.success());
}
