//! The HTTP server, asked by real clients: what a scraper, a kubelet and a bad guest see of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may end the test")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use narthex::ops::{
    connections,
    http::{self, Limits, Pages},
    probe::Probe,
    process,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, prometheus_protobuf::prometheus_data_model::MetricFamily},
    registry::Registry,
};
use reqwest::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::rig::{Metrics, StoppedClient, wait_until};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

struct Rig {
    address: std::net::SocketAddr,
    probe: Probe,
    token: CancellationToken,
    served: JoinHandle<()>,
    registry: Arc<Registry>,
}

impl Rig {
    async fn start(limits: Limits, grace: Duration, collectors: Vec<Box<dyn Collector>>) -> Self {
        super::rig::limit::begin();
        let mut registry = Registry::default();
        let probe = Probe::register("sidecar", &mut registry);
        process::register(&mut registry);
        for collector in collectors {
            registry.register_collector(collector);
        }
        let connections = connections::Metrics::register(&mut registry);
        let registry = Arc::new(registry);
        let server = http::bind("127.0.0.1:0", "--http-address").await.unwrap();
        let address = server.local_address();
        let token = CancellationToken::new();
        let pages = Pages {
            probe: probe.clone(),
            registry: Arc::clone(&registry),
            connections,
            running: None,
            shipping: "off: this is a test".to_owned(),
            web: None,
            more: None,
        };
        let served = tokio::spawn(server.serve(pages, limits, token.clone(), grace));
        Self {
            address,
            probe,
            token,
            served,
            registry,
        }
    }

    async fn plain() -> Self {
        Self::start(Limits::default(), LONG, Vec::new()).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A metric of the connections of this server.
    fn connections(&self, name: &str) -> f64 {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let labels = [("server", "http")];
        let name = format!("narthex_connections_{name}");
        Metrics::parse(&page).value(&name, &labels).unwrap()
    }

    /// Stops the server and waits until it has stopped.
    async fn stop(self) {
        self.token.cancel();
        timeout(SOON, self.served).await.unwrap().unwrap();
    }
}

fn client() -> reqwest::Client {
    // Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .timeout(SOON)
        .build()
        .unwrap()
}

/// Sends `head` and reads until the server closes.
async fn exchange(stream: &mut TcpStream, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    timeout(SOON, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn probes_answer_any_method_with_the_bodies_of_thanos() {
    let rig = Rig::plain().await;
    let client = client();
    let prometheus = rig.probe.condition("prometheus");
    prometheus.set(Err("connection refused\r\nX-Evil: 1".to_owned()));
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = client
            .request(method.clone(), rig.url("/-/healthy"))
            .body("ignored")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.unwrap(), "OK");
        let answer = client.request(method, rig.url("/-/ready?x=1")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            answer.headers()["x-narthex-reason"],
            "prometheus: connection refused??X-Evil: 1"
        );
        assert!(!answer.headers().contains_key("x-evil"));
        assert_eq!(answer.text().await.unwrap(), "NOT OK\n");
    }
    prometheus.set(Ok(()));
    let answer = client.get(rig.url("/-/ready")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("x-narthex-reason"));
    assert_eq!(answer.text().await.unwrap(), "OK");
    let answer = client.head(rig.url("/-/ready")).send().await.unwrap();
    assert_eq!(
        (answer.status(), answer.text().await.unwrap().as_str()),
        (StatusCode::OK, "")
    );
    rig.stop().await;
}

#[tokio::test]
async fn all_other_paths_are_unknown() {
    let rig = Rig::plain().await;
    for path in [
        "/",
        "/-/reload",
        "/api/v1/query",
        "/metrics/",
        "/debug/pprof/",
        "/debug/pprof/cmdline",
        "/debug/pprof/profile",
        "/debug/fgprof",
        "/debug/calls",
        "/-/ready/x",
    ] {
        let answer = client().get(rig.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_form_and_the_coding_that_are_asked_for() {
    let rig = Rig::plain().await;
    let client = client();
    let get = async |accept: Option<&str>, coding: Option<&str>| {
        let mut request = client.get(rig.url("/metrics"));
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        if let Some(coding) = coding {
            request = request.header("accept-encoding", coding);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let zipped = answer
            .headers()
            .get("content-encoding")
            .is_some_and(|coding| coding == "gzip");
        (kind, zipped, answer.bytes().await.unwrap())
    };
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    let (kind, zipped, body) = get(Some("application/openmetrics-text;version=1.0.0,*/*;q=0.1"), None).await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!((kind.as_str(), zipped), (openmetrics, false));
    assert!(
        body.ends_with("\n# EOF\n") && body.contains("# TYPE process_cpu_seconds counter\n"),
        "{body}"
    );

    for accept in [None, Some("*/*"), Some("text/plain")] {
        let (kind, zipped, body) = get(accept, Some("identity")).await;
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!((kind.as_str(), zipped), (text, false));
        assert!(
            !body.contains("# EOF") && body.contains("# TYPE process_cpu_seconds_total counter\n"),
            "{body}"
        );
        assert!(
            body.contains("thanos_status{component=\"sidecar\",check=\"healthy\"} 1\n"),
            "{body}"
        );
        assert!(
            body.contains("thanos_status{component=\"sidecar\",check=\"ready\"} 0\n"),
            "{body}"
        );
    }

    let (kind, _, text_page) = get(None, None).await;
    assert_eq!(kind, text);
    let asked =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,*/*;q=0.1";
    let (kind, zipped, body) = get(Some(asked), None).await;
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    assert_eq!((kind.as_str(), zipped), (protobuf, false));
    assert_eq!(families(body), text_families(&text_page));

    let (kind, zipped, body) = get(None, Some("deflate, gzip")).await;
    assert_eq!((kind.as_str(), zipped), (text, true));
    assert_eq!(body[..2], [0x1f, 0x8b]);
    rig.stop().await;
}

/// The families of a page in protobuf, by name, with how many series each has.
fn families(mut page: bytes::Bytes) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    while !page.is_empty() {
        let family: MetricFamily = prost::Message::decode_length_delimited(&mut page).unwrap();
        found.insert(family.name, family.metric.len());
    }
    found
}

/// The same of a page in text.
fn text_families(page: &[u8]) -> BTreeMap<String, usize> {
    let (mut found, mut last) = (BTreeMap::new(), String::new());
    for line in std::str::from_utf8(page).unwrap().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            last = rest.split(' ').next().unwrap().to_owned();
            found.insert(last.clone(), 0);
        } else if !line.starts_with('#') {
            *found.get_mut(&last).unwrap() += 1;
        }
    }
    found
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_and_a_quiet_connection_lives_on() {
    let limits = Limits {
        head: Duration::from_millis(200),
        ..Limits::default()
    };
    let rig = Rig::start(limits, LONG, Vec::new()).await;
    let mut quiet = rig.raw().await;
    // Before the connection is there: from then on the server counts.
    let begun = Instant::now();
    let mut slow = rig.raw().await;
    let mut text = String::new();
    slow.write_all(b"GET /-/healthy HTTP/1.1\r\nhost:").await.unwrap();
    timeout(SOON, slow.read_to_string(&mut text)).await.unwrap().ok();
    assert_eq!(text, "");
    assert!(begun.elapsed() >= limits.head);
    let answer = exchange(
        &mut quiet,
        "GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"),
        "{answer}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_between_requests_and_closed_when_idle_for_too_long() {
    let limits = Limits {
        head: Duration::from_millis(50),
        // So long that a busy machine does not take a pause for it.
        idle: Duration::from_secs(3),
        ..Limits::default()
    };
    let rig = Rig::start(limits, LONG, Vec::new()).await;
    let mut stream = rig.raw().await;
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        stream
            .write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let n = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..n].ends_with(b"OK"));
        sleep(limits.head * 2).await;
    }
    let n = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap_or(0);
    assert_eq!(n, 0, "the server closes the connection");
    rig.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_and_harm_nobody() {
    let rig = Rig::plain().await;
    let mut stream = rig.raw().await;
    let answer = exchange(&mut stream, "this is no HTTP\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let mut stream = rig.raw().await;
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut text = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut text)).await.unwrap();
    assert!(!text.starts_with(b"HTTP/1.1 200"));
    let mut stream = rig.raw().await;
    let head = "POST /-/healthy HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\nonly this";
    let answer = exchange(&mut stream, head).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    rig.stop().await;
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let limits = Limits {
        connections: 64,
        ..Limits::default()
    };
    let rig = Rig::start(limits, LONG, Vec::new()).await;
    let mut idle = Vec::new();
    process::raise_open_files().unwrap();
    for _ in 0..600 {
        idle.push(rig.raw().await);
    }
    let begun = Instant::now();
    let answer = client().get(rig.url("/-/healthy")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "OK");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    let page = client()
        .get(rig.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let fds = page
        .lines()
        .find_map(|line| line.strip_prefix("process_open_fds "))
        .unwrap();
    // Those of the client above may be closed already.
    assert!((62.0..=64.0).contains(&rig.connections("open")));
    assert!(rig.connections("evicted_total") >= 536.0);
    assert_eq!(rig.connections("refused_total"), 0.0);
    assert!(
        fds.parse::<f64>().unwrap() > 600.0,
        "our own ends are counted too: {fds}"
    );
    let begun = Instant::now();
    rig.stop().await;
    assert!(
        begun.elapsed() < LONG / 2,
        "idle connections need no grace period: {:?}",
        begun.elapsed()
    );
}

/// A page too long for the buffers of a connection.
#[derive(Debug)]
struct Long;

impl Collector for Long {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric, metrics::gauge::ConstGauge};
        let gauge = ConstGauge::new(1_i64);
        let help = "x".repeat(32 << 20);
        gauge.encode(encoder.encode_descriptor("long", &help, None, gauge.metric_type())?)
    }
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";

/// Asks for a page and reads the beginning of the answer, so that the rest of it is under way.
async fn begin_scrape(rig: &Rig) -> TcpStream {
    let mut stream = rig.raw().await;
    stream.write_all(SCRAPE.as_bytes()).await.unwrap();
    let mut begin = [0; 15];
    timeout(SOON, stream.read_exact(&mut begin)).await.unwrap().unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test]
async fn a_stop_lets_a_running_scrape_finish() {
    let rig = Rig::start(Limits::default(), LONG, vec![Box::new(Long)]).await;
    let mut scrape = begin_scrape(&rig).await;
    rig.token.cancel();
    while TcpStream::connect(rig.address).await.is_ok() {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.probe.ready(), Err("shutting down".to_owned()));
    assert_eq!(rig.probe.healthy(), Ok(()), "healthy until it has stopped");
    assert!(!rig.served.is_finished());
    let mut rest = Vec::new();
    timeout(SOON, scrape.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.len() > 32 << 20);
    assert!(rest.ends_with(b"\nlong 1\n"));
    let probe = rig.probe.clone();
    rig.stop().await;
    assert!(probe.healthy().is_err());
}

#[tokio::test]
async fn a_stop_without_grace_cuts_a_running_scrape() {
    let rig = Rig::start(Limits::default(), Duration::ZERO, vec![Box::new(Long)]).await;
    let mut scrape = begin_scrape(&rig).await;
    let begun = Instant::now();
    rig.stop().await;
    assert!(begun.elapsed() < LONG / 2);
    let mut rest = Vec::new();
    let _ = timeout(SOON, scrape.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() < 32 << 20);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let limits = Limits {
        stall: Duration::from_millis(200),
        ..Limits::default()
    };
    let rig = Rig::start(limits, LONG, vec![Box::new(Long)]).await;
    let mut scrape = begin_scrape(&rig).await;
    wait_until(SOON, "the connection is closed", async || {
        (rig.connections("open") == 0.0).then_some(())
    })
    .await;
    let mut rest = Vec::new();
    let _ = timeout(SOON, scrape.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() < 32 << 20);
    rig.stop().await;
}

#[tokio::test]
async fn a_stopped_scraper_is_cut() {
    let limits = Limits {
        stall: Duration::from_millis(500),
        unacknowledged: Duration::from_secs(3600),
        ..Limits::default()
    };
    let rig = Rig::start(limits, LONG, vec![Box::new(Long)]).await;
    let scraper = StoppedClient::start(rig.address, SCRAPE.as_bytes());
    wait_until(SOON, "the scraper is stopped", async || {
        scraper.is_stopped().then_some(())
    })
    .await;
    wait_until(SOON, "its connection is closed", async || {
        (rig.connections("open") == 0.0).then_some(())
    })
    .await;
    rig.stop().await;
}
