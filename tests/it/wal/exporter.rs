//! An exporter whose every value is a function of the series and the time, and which remembers what it served.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};

/// Series whose samples come in order.
const PLAIN: u32 = 150;
/// Series whose samples come out of order, if there are any.
const LATE: u32 = 20;
/// Native histograms, if there are any.
const SHAPES: u32 = 10;
/// How much older than the scrape a sample is that comes out of order (ms), from scrape to scrape.
const LATENESS: [i64; 5] = [0, 1_500, 4_200, 700, 2_900];

/// The sorts of series, beside the plain ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sorts {
    /// Some whose samples come out of order.
    pub(super) late: bool,
    /// Native histograms.
    pub(super) shapes: bool,
}

/// A series that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) number: u32,
}

/// What was served: the times of the samples of each series.
type Served = BTreeMap<Series, BTreeSet<i64>>;

/// A running exporter; it ends when dropped.
#[derive(Debug)]
pub(super) struct Exporter {
    port: u16,
    served: Arc<Mutex<Served>>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts one.
    pub(super) async fn start(sorts: Sorts) -> Exporter {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
        let port = listener.local_addr().expect("a listener has an address").port();
        let served = Arc::new(Mutex::new(Served::new()));
        let front = Front {
            sorts,
            scrapes: Arc::default(),
            served: Arc::clone(&served),
        };
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let front = front.clone();
                tokio::spawn(async move {
                    let answer = move |request| std::future::ready(Ok::<_, Infallible>(front.answer(&request)));
                    let service = hyper::service::service_fn(answer);
                    let connection = hyper::server::conn::http1::Builder::new();
                    // An error is a Prometheus that was killed.
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Exporter { port, served, task }
    }

    /// The entry of `scrape_configs` for it.
    pub(super) fn job(&self, every: &str) -> String {
        format!(
            "  - job_name: truth\n    scrape_interval: {every}\n    scrape_timeout: {every}\n    static_configs:\n      \
             - targets: ['127.0.0.1:{}']\n",
            self.port
        )
    }

    /// Whether this sample was served.
    pub(super) fn has_served(&self, series: Series, time_ms: i64) -> bool {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.get(&series).is_some_and(|times| times.contains(&time_ms))
    }

    /// How often it was scraped.
    pub(super) fn scrapes(&self) -> usize {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let first = Series {
            name: "plain",
            number: 0,
        };
        served.get(&first).map_or(0, BTreeSet::len)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Series {
    /// The series of a metric that Prometheus tells of; `None` if it is none of ours.
    pub(super) fn of(name: &str, number: &str) -> Option<Series> {
        let name = ["plain", "late", "shape"].into_iter().find(|known| *known == name)?;
        Some(Series {
            name,
            number: number.parse().ok()?,
        })
    }

    /// The value of its sample at a time; of a histogram, its count.
    pub(super) fn value(self, time_ms: i64) -> u64 {
        (u64::from(self.number) * 7_919 + time_ms.unsigned_abs() * 31) % 1_000_003
    }
}

#[derive(Clone, Debug)]
struct Front {
    sorts: Sorts,
    /// How many there were, and when the last one was (ms since 1970).
    scrapes: Arc<Mutex<(usize, i64)>>,
    served: Arc<Mutex<Served>>,
}

impl Front {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let samples = self.next();
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        for (series, time_ms) in &samples {
            served.entry(*series).or_default().insert(*time_ms);
        }
        drop(served);
        match wants_protobuf(request.headers()) {
            true => answer(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                protobuf(&samples),
            ),
            false => answer("text/plain; version=0.0.4", text(&samples).into()),
        }
    }

    /// The samples of the next scrape. No two scrapes have the same time.
    fn next(&self) -> Vec<(Series, i64)> {
        let mut last = self.scrapes.lock().unwrap_or_else(PoisonError::into_inner);
        let number = last.0;
        *last = (number + 1, now_ms().max(last.1 + 1));
        let at_ms = last.1;
        let all = |name, count: u32| (0..count).map(move |number| Series { name, number });
        let mut samples: Vec<(Series, i64)> = all("plain", PLAIN).map(|series| (series, at_ms)).collect();
        if self.sorts.late {
            samples.extend(all("late", LATE).map(|series| {
                let lateness = LATENESS[(number + series.number as usize) % LATENESS.len()];
                (series, at_ms - lateness)
            }));
        }
        if self.sorts.shapes {
            samples.extend(all("shape", SHAPES).map(|series| (series, at_ms)));
        }
        samples
    }
}

fn answer(content_type: &str, body: Bytes) -> Response<Full<Bytes>> {
    let answer = Response::builder().header("content-type", content_type);
    answer.body(Full::new(body)).expect("the header is plain")
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get("accept").and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.trim_start().starts_with("application/vnd.google.protobuf"))
}

/// Histograms cannot be written so, and are left out.
fn text(samples: &[(Series, i64)]) -> String {
    let mut text = String::new();
    for (series, time_ms) in samples.iter().filter(|(series, _)| series.name != "shape") {
        let (Series { name, number }, value) = (series, series.value(*time_ms));
        writeln!(text, "{name}{{n=\"{number}\"}} {value} {time_ms}").expect("a string takes everything");
    }
    text
}

fn protobuf(samples: &[(Series, i64)]) -> Bytes {
    let mut families: BTreeMap<&str, Vec<Metric>> = BTreeMap::new();
    for (series, time_ms) in samples {
        families
            .entry(series.name)
            .or_default()
            .push(Metric::of(*series, *time_ms));
    }
    let mut body = Vec::new();
    for (name, metric) in families {
        let family = Family {
            name: name.to_owned(),
            kind: if name == "shape" { HISTOGRAM } else { GAUGE },
            metric,
        };
        family.encode_length_delimited(&mut body).expect("a vector grows");
    }
    body.into()
}

const GAUGE: i32 = 1;
const HISTOGRAM: i32 = 4;

/// `io.prometheus.client.MetricFamily`, as far as it is used here.
#[derive(Clone, PartialEq, prost::Message)]
struct Family {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Pair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
    #[prost(int64, tag = "6")]
    timestamp_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Gauge {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<Span>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl Metric {
    fn of(series: Series, time_ms: i64) -> Metric {
        let value = series.value(time_ms);
        let (mut gauge, mut histogram) = (None, None);
        if series.name == "shape" {
            // Two buckets beside the one around zero.
            let (first, second) = (value / 2, value - value / 2);
            let delta = i64::try_from(second).unwrap_or(0) - i64::try_from(first).unwrap_or(0);
            histogram = Some(Histogram {
                sample_count: value,
                sample_sum: value as f64 * 0.5,
                schema: 2,
                zero_threshold: 0.001,
                zero_count: 0,
                positive_span: vec![Span { offset: -2, length: 2 }],
                positive_delta: vec![i64::try_from(first).unwrap_or(0), delta],
            });
        } else {
            gauge = Some(Gauge { value: value as f64 });
        }
        Metric {
            label: vec![Pair {
                name: "n".to_owned(),
                value: series.number.to_string(),
            }],
            gauge,
            histogram,
            timestamp_ms: time_ms,
        }
    }
}

/// Now, in ms since 1970.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is after 1970").as_millis() as i64
}
