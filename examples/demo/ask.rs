//! Asks narthex over gRPC for what it has shipped, as Thanos Query does, and holds every sample against Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use narthex::{
    chunk::{STALE_NAN, xor},
    pb::thanos::{
        LabelMatcher, LabelNamesRequest, SeriesRequest,
        info::{InfoRequest, InfoResponse, info_client::InfoClient},
        label_matcher::Type,
        series_response::Result as Answer,
        store_client::StoreClient,
    },
};
use serde_json::Value;
use tonic::transport::Channel;
use url::Url;

use super::rig::{Prometheus, Sidecar, http};

/// What is asked for: a metric that Prometheus has of itself, with some series.
const METRIC: &str = "prometheus_http_requests_total";
/// The answer comes in batches of so many series, as Query wants it.
const BATCH: i64 = 64;

/// Names and values, sorted by name.
type Labels = BTreeMap<String, String>;
/// The samples of a series: the bits of values by their time in ms.
type Samples = BTreeMap<i64, u64>;

/// Asks for the samples from `min` to `max`, both in ms and inclusive, and prints what comes. Panics when Prometheus knows
/// something else.
pub(super) async fn ask(sidecar: &Sidecar, prometheus: &Prometheus, external: &[(String, String)], min: i64, max: i64) {
    let channel = Channel::from_shared(sidecar.grpc_url()).expect("it is an address");
    let channel = channel.connect().await.expect("narthex serves gRPC");
    info(channel.clone(), external).await;

    let mut store = StoreClient::new(channel);
    let found = names(&mut store, min, max).await;
    println!("         labels of {METRIC}: {}", found.join(", "));

    let series = series(&mut store, min, max).await;
    let samples: usize = series.values().map(Samples::len).sum();
    println!(
        "         {} series with {samples} samples, {} to {}:",
        series.len(),
        clock(min),
        clock(max)
    );
    for (labels, samples) in &series {
        let shown: Vec<String> = labels
            .iter()
            .skip(1)
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let last = samples
            .values()
            .next_back()
            .map_or(f64::NAN, |bits| f64::from_bits(*bits));
        println!(
            "           {{{}}}: {} samples, the last is {last}",
            shown.join(", "),
            samples.len()
        );
    }

    let (wanted, known) = theirs(prometheus, external, min, max).await;
    assert_eq!(found, known, "the labels, and those that Prometheus knows");
    assert!(!series.is_empty() && samples > 0, "there is nothing to be compared");
    assert_eq!(series, wanted, "the samples, and those that Prometheus knows");
    println!(
        "         Prometheus itself finds the same {} series and {samples} samples.",
        wanted.len()
    );
}

async fn info(channel: Channel, external: &[(String, String)]) {
    let InfoResponse {
        label_sets,
        component_type,
        ..
    } = InfoClient::new(channel)
        .info(InfoRequest {})
        .await
        .expect("narthex is ready")
        .into_inner();
    let sets: Vec<Vec<(String, String)>> = label_sets
        .into_iter()
        .map(|set| set.labels.into_iter().map(|label| (label.name, label.value)).collect())
        .collect();
    assert_eq!(sets, [external.to_vec()], "the external labels");
    println!("         a {component_type} with {{{}}}", super::pairs(&sets[0]));
}

fn matchers() -> Vec<LabelMatcher> {
    vec![LabelMatcher {
        r#type: Type::Eq.into(),
        name: "__name__".to_owned(),
        value: METRIC.to_owned(),
    }]
}

async fn names(store: &mut StoreClient<Channel>, min: i64, max: i64) -> Vec<String> {
    let request = LabelNamesRequest {
        start: min,
        end: max,
        matchers: matchers(),
        ..LabelNamesRequest::default()
    };
    store
        .label_names(request)
        .await
        .expect("narthex knows labels")
        .into_inner()
        .names
}

async fn series(store: &mut StoreClient<Channel>, min: i64, max: i64) -> BTreeMap<Labels, Samples> {
    let request = SeriesRequest {
        min_time: min,
        max_time: max,
        matchers: matchers(),
        response_batch_size: BATCH,
        ..SeriesRequest::default()
    };
    let mut stream = store.series(request).await.expect("narthex finds series").into_inner();
    let mut found: BTreeMap<Labels, Samples> = BTreeMap::new();
    while let Some(message) = stream.message().await.expect("the answer is whole") {
        let Some(Answer::Batch(batch)) = message.result else {
            panic!("batches were asked for: {message:?}")
        };
        for series in batch.series {
            let labels = series
                .labels
                .into_iter()
                .map(|label| (label.name, label.value))
                .collect();
            let samples = found.entry(labels).or_default();
            for chunk in series.chunks.into_iter().filter_map(|chunk| chunk.raw) {
                let decoded = xor::decode(&chunk.data).map(|sample| sample.expect("the chunk is whole"));
                // A chunk may reach beyond what was asked for; Prometheus does not show that a series ended.
                let wanted = decoded.filter(|(time, value)| (min..=max).contains(time) && value.to_bits() != STALE_NAN);
                samples.extend(wanted.map(|(time, value)| (time, value.to_bits())));
            }
        }
    }
    found.retain(|_, samples| !samples.is_empty());
    found
}

/// What Prometheus itself says: samples by series and the names of labels, with the external labels that only narthex adds.
async fn theirs(
    prometheus: &Prometheus,
    external: &[(String, String)],
    min: i64,
    max: i64,
) -> (BTreeMap<Labels, Samples>, Vec<String>) {
    // Whether the beginning of a range belongs to it depends on the version: a little more is asked for.
    let query = format!("{METRIC}[{}ms]", max - min + 1);
    let answer = get(
        prometheus,
        "/api/v1/query",
        &[("query", &query), ("time", &seconds(max))],
    )
    .await;
    let list = answer["data"]["result"].as_array().expect("a list of series");
    let mut found = BTreeMap::new();
    for series in list {
        let mut labels: Labels = serde_json::from_value(series["metric"].clone()).expect("labels");
        labels.extend(external.iter().cloned());
        let values: Vec<(f64, String)> = serde_json::from_value(series["values"].clone()).expect("samples");
        let samples = values.iter().map(|(time, value)| {
            let value: f64 = value.parse().expect("a number");
            ((time * 1000.0).round() as i64, value.to_bits())
        });
        let samples: Samples = samples.filter(|(time, _)| *time >= min).collect();
        if !samples.is_empty() {
            found.insert(labels, samples);
        }
    }
    let range = [("match[]", METRIC), ("start", &seconds(min)), ("end", &seconds(max))];
    let answer = get(prometheus, "/api/v1/labels", &range).await;
    let mut names: BTreeSet<String> = serde_json::from_value(answer["data"].clone()).expect("a list of names");
    names.extend(external.iter().map(|(name, _)| name.clone()));
    (found, names.into_iter().collect())
}

async fn get(prometheus: &Prometheus, path: &str, parameters: &[(&str, &str)]) -> Value {
    let mut url = Url::parse(&prometheus.url()).expect("it is an address");
    url.set_path(path);
    url.query_pairs_mut().extend_pairs(parameters);
    let (status, body) = http::get(url.as_str()).await.expect("Prometheus answers");
    assert!(status.is_success(), "{url}: {status}");
    serde_json::from_slice(&body).expect("the answer is JSON")
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// The time of the day.
fn clock(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).expect("a time of this age");
    time.strftime("%H:%M:%S%.3f").to_string()
}
