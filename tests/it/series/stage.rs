//! A Prometheus that holds what a test has written to it, and a narthex beside it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use narthex::pb::{
    prometheus::{Histogram, Label, Sample, TimeSeries},
    thanos::{SeriesRequest, store_client::StoreClient},
};
use prost::Message;
use serde_json::Value;
use tonic::transport::Channel;

use super::ask::{self, Floats, Got, Set};
use crate::rig::{Leg, Prometheus, Sidecar, http, prometheus::Options};

pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Series in one request to write.
const AT_ONCE: usize = 5000;

/// What is written to Prometheus.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) floats: Vec<(i64, f64)>,
    pub(crate) histograms: Vec<Histogram>,
}

/// Prometheus' request to write, as far as it is used here.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

/// A set of labels.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A whole minute about half an hour ago, in ms: what is written behind it stays in the head.
pub(crate) fn start_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    (now / 60 - 30) * 60_000
}

/// Starts a Prometheus that can be written to.
pub(crate) async fn prometheus(leg: &Leg, external: &[(&str, &str)], args: &[&str]) -> Prometheus {
    prometheus_of(leg, external, "2h", args).await
}

/// As [`prometheus`], with blocks of this length.
pub(super) async fn prometheus_of(
    leg: &Leg,
    external: &[(&str, &str)],
    block: &'static str,
    args: &[&str],
) -> Prometheus {
    let mut all = vec![
        "--web.enable-remote-write-receiver".to_owned(),
        "--enable-feature=native-histograms".to_owned(),
    ];
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    let options = Options {
        block,
        external_labels: external
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        args: all,
        scrape: false,
        ..Options::default()
    };
    Prometheus::start(leg, options).await
}

/// Writes series to Prometheus.
pub(crate) async fn write(prometheus: &Prometheus, series: &[Written]) {
    for part in series.chunks(AT_ONCE) {
        let timeseries = part.iter().map(|series| TimeSeries {
            labels: series
                .labels
                .iter()
                .map(|(name, value)| Label {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            samples: series
                .floats
                .iter()
                .map(|&(timestamp, value)| Sample { value, timestamp })
                .collect(),
            histograms: series.histograms.clone(),
            ..Default::default()
        });
        let request = WriteRequest {
            timeseries: timeseries.collect(),
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap();
        let answer = http::client()
            .post(format!("{}/api/v1/write", prometheus.url()))
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(body)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap());
    }
}

/// A narthex that serves queries for a Prometheus.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) sidecar: Sidecar,
    store: StoreClient<Channel>,
}

impl Stage {
    /// Starts narthex without a bucket and waits until it answers.
    pub(super) async fn start(prometheus: &Prometheus, args: &[&str]) -> Stage {
        let mut all = vec![
            format!("--prometheus.url={}", prometheus.url()),
            format!("--tsdb.path={}", prometheus.data().display()),
        ];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let sidecar = Sidecar::start(all);
        sidecar.wait_ready(LIMIT).await;
        let address = sidecar.grpc_url();
        let connect = async || StoreClient::connect(address.clone()).await.ok();
        sidecar.wait_until(LIMIT, "the gRPC port is open", connect).await;
        let store = ask::store(&address).await;
        Stage { sidecar, store }
    }

    /// Asks for series, which must come.
    pub(super) async fn series(&self, request: SeriesRequest) -> Got {
        let got = self.try_series(request.clone()).await;
        let got = got.unwrap_or_else(|status| panic!("{request:?}: {status}\n{}", self.sidecar.log()));
        ask::assert_well_formed(&got);
        got
    }

    /// Asks for series.
    pub(super) async fn try_series(&self, request: SeriesRequest) -> Result<Got, tonic::Status> {
        ask::series(&mut self.store.clone(), request).await
    }
}

/// `data` of an answer of Prometheus' own API.
pub(crate) async fn api(prometheus: &Prometheus, path: &str, parameters: &[(&str, &str)]) -> Value {
    let base = format!("{}/api/v1/{path}", prometheus.url());
    let url = url::Url::parse_with_params(&base, parameters).unwrap();
    let answer = http::client().get(url).send().await.unwrap();
    let mut answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
    answer["data"].take()
}

/// The float samples that Prometheus' own engine finds for a selector, by stored label set. The ends must lie between
/// samples: versions differ in whether they belong to the range.
pub(super) async fn engine(prometheus: &Prometheus, selector: &str, from_ms: i64, to_ms: i64) -> BTreeMap<Set, Floats> {
    let query = format!("{selector}[{}ms]", to_ms - from_ms);
    let time = format!("{}.{:03}", to_ms / 1000, to_ms % 1000);
    let data = api(prometheus, "query", &[("query", &query), ("time", &time)]).await;
    let mut found = BTreeMap::new();
    for series in data["result"].as_array().unwrap() {
        let set: Set = series["metric"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect();
        let sample = |pair: &Value| {
            let time = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            let value: f64 = match pair[1].as_str().unwrap() {
                "+Inf" => f64::INFINITY,
                "-Inf" => f64::NEG_INFINITY,
                text => text.parse().unwrap(),
            };
            (time, value.to_bits())
        };
        let floats = series["values"]
            .as_array()
            .map(|values| values.iter().map(sample).collect());
        found.insert(set, floats.unwrap_or_default());
    }
    found
}

/// What the contract makes of stored series: external labels win, replica labels go, empty values are no labels.
pub(super) fn relabelled(
    stored: &BTreeMap<Set, Floats>,
    external: &[(&str, &str)],
    without: &[&str],
) -> BTreeMap<Set, Floats> {
    let mut wanted: BTreeMap<Set, Floats> = BTreeMap::new();
    for (set, floats) in stored {
        let mut set: BTreeMap<String, String> = set.iter().cloned().collect();
        set.extend(labels(external));
        set.retain(|name, value| !value.is_empty() && !without.contains(&name.as_str()));
        let list = wanted.entry(set.into_iter().collect()).or_default();
        list.extend(floats);
        list.sort_unstable();
    }
    wanted
}
