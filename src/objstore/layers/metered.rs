//! Counts and times what is done with a bucket, under the names of Thanos.
//!
//! A call that is dropped (shutdown) counts as an operation, not as a failure, and its time is not observed. A reading
//! lasts from the call to its last piece; one that its reader gives up counts like a dropped call. An upload of bytes that
//! are made meanwhile lasts as long as both take. An object
//! that is not found is an answer, not a failure. Clean-up of our own uploads is not counted: nothing is deleted.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tokio::time::Instant;

use crate::objstore::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, NameFilter, Object, Pieces, Placed, Reading, Source,
};

/// Every value of the label `operation`; all of them are shown from the start.
const OPERATIONS: [&str; 7] = ["iter", "get", "get_range", "exists", "upload", "delete", "attributes"];

/// Those that move an object's bytes.
const TRANSFERS: [&str; 3] = ["get", "get_range", "upload"];

const DURATIONS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(DURATIONS)
    }
}

#[derive(Clone, Debug)]
struct Sizes;

impl MetricConstructor<Histogram> for Sizes {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(32_768.0, 2.0, 16))
    }
}

#[derive(Debug)]
struct Metrics {
    operations: Family<Operation, Counter>,
    failures: Family<Operation, Counter>,
    fetched: Family<Operation, Counter>,
    transferred: Family<Operation, Histogram, Sizes>,
    durations: Family<Operation, Histogram, Durations>,
    last_upload: Gauge<f64, AtomicU64>,
}

impl Metrics {
    fn register(registry: &mut Registry, bucket: &str) -> Self {
        let metrics = Self {
            operations: Family::default(),
            failures: Family::default(),
            fetched: Family::default(),
            transferred: Family::new_with_constructor(Sizes),
            durations: Family::new_with_constructor(Durations),
            last_upload: Gauge::default(),
        };
        for operation in OPERATIONS.map(|operation| Operation { operation }) {
            drop(metrics.operations.get_or_create(&operation));
            drop(metrics.failures.get_or_create(&operation));
            drop(metrics.durations.get_or_create(&operation));
        }
        for operation in TRANSFERS.map(|operation| Operation { operation }) {
            drop(metrics.fetched.get_or_create(&operation));
            drop(metrics.transferred.get_or_create(&operation));
        }
        let registry = registry
            .sub_registry_with_prefix("thanos_objstore_bucket")
            .sub_registry_with_label(("bucket".into(), bucket.to_owned().into()));
        let (operations, failures) = (metrics.operations.clone(), metrics.failures.clone());
        registry.register("operations", "Operations begun on the bucket", operations);
        registry.register("operation_failures", "Operations on the bucket that failed", failures);
        let fetched = metrics.fetched.clone();
        registry.register(
            "operation_fetched_bytes",
            "Bytes read from objects of the bucket",
            fetched,
        );
        let transferred = metrics.transferred.clone();
        registry.register(
            "operation_transferred_bytes",
            "Sizes of the objects read and sent",
            transferred,
        );
        let durations = metrics.durations.clone();
        registry.register(
            "operation_duration_seconds",
            "Seconds that operations on the bucket took",
            durations,
        );
        let last_upload = metrics.last_upload.clone();
        registry.register(
            "last_successful_upload_time",
            "When an object was last sent, in Unix seconds",
            last_upload,
        );
        metrics
    }

    fn begin(&self, operation: &'static str) -> Instant {
        self.operations.get_or_create(&Operation { operation }).inc();
        Instant::now()
    }

    fn end(&self, operation: &'static str, start: Instant, error: Option<&Error>) {
        let operation = Operation { operation };
        let kind = error.map(|error| error.kind);
        if kind != Some(ErrorKind::Local) {
            let took = start.elapsed().as_secs_f64();
            self.durations.get_or_create(&operation).observe(took);
        }
        if kind.is_some_and(|kind| kind != ErrorKind::NotFound) {
            self.failures.get_or_create(&operation).inc();
        }
    }
}

/// A reading with metrics: it is one operation from the call to its last piece.
struct Meter {
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    metrics: Arc<Metrics>,
    start: Instant,
    fetched: u64,
}

impl Meter {
    async fn next(mut self) -> Option<(Result<Bytes, Error>, Option<Self>)> {
        let piece = self.pieces.next().await;
        let get_range = Operation { operation: "get_range" };
        match piece {
            Some(Ok(piece)) => {
                self.fetched += piece.len() as u64;
                self.metrics
                    .fetched
                    .get_or_create(&get_range)
                    .inc_by(piece.len() as u64);
                Some((Ok(piece), Some(self)))
            }
            Some(Err(error)) => {
                self.metrics.end("get_range", self.start, Some(&error));
                Some((Err(error), None))
            }
            None => {
                self.metrics.end("get_range", self.start, None);
                self.metrics
                    .transferred
                    .get_or_create(&get_range)
                    .observe(self.fetched as f64);
                None
            }
        }
    }
}

/// A bucket with metrics.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Bucket>,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// Puts the metrics around a bucket and registers them with its name as the label `bucket`.
    pub fn new(inner: Arc<dyn Bucket>, registry: &mut Registry) -> Self {
        let metrics = Arc::new(Metrics::register(registry, inner.name()));
        Self { inner, metrics }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = self.metrics.begin(operation);
        let result = work.await;
        self.metrics.end(operation, start, result.as_ref().err());
        result
    }

    fn fetched(&self, operation: &'static str, len: u64) {
        let operation = Operation { operation };
        self.metrics.fetched.get_or_create(&operation).inc_by(len);
        self.metrics.transferred.get_or_create(&operation).observe(len as f64);
    }

    fn sent(&self, len: u64) {
        self.metrics
            .transferred
            .get_or_create(&Operation { operation: "upload" })
            .observe(len as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.last_upload.set(now.as_secs_f64());
    }
}

#[async_trait]
impl Bucket for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> &str {
        self.inner.identity()
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        self.measure("upload", self.inner.put_file(key, source)).await?;
        self.sent(source.len);
        Ok(())
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        let len = body.len() as u64;
        self.measure("upload", self.inner.put_bytes(key, body)).await?;
        self.sent(len);
        Ok(())
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        let len = body.len() as u64;
        let placed = self.measure("upload", self.inner.put_new(key, body)).await?;
        if placed == Placed::Created {
            self.sent(len);
        }
        Ok(placed)
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        let put = self.inner.put_stream(key, pieces, at_most);
        let len = self.measure("upload", put).await?;
        self.sent(len);
        Ok(len)
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        self.measure("exists", self.inner.stat(key)).await
    }

    async fn incarnation(&self) -> Result<Option<String>, Error> {
        self.inner.incarnation().await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let bytes = self.measure("get", self.inner.get(key, limit)).await?;
        self.fetched("get", bytes.len() as u64);
        Ok(bytes)
    }

    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        let bytes = self.measure("get_range", self.inner.read_start(key, len)).await?;
        self.fetched("get_range", bytes.len() as u64);
        Ok(bytes)
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        let start = self.metrics.begin("get_range");
        match self.inner.read(key, offset).await {
            Ok(reading) => {
                let meter = Meter {
                    pieces: reading.pieces,
                    metrics: Arc::clone(&self.metrics),
                    start,
                    fetched: 0,
                };
                let pieces = stream::unfold(Some(meter), |meter| async { meter?.next().await });
                Ok(Reading {
                    len: reading.len,
                    pieces: pieces.boxed(),
                })
            }
            Err(error) => {
                self.metrics.end("get_range", start, Some(&error));
                Err(error)
            }
        }
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.measure("attributes", self.inner.compare(key, source)).await
    }

    fn requests_for(&self, len: u64) -> u64 {
        self.inner.requests_for(len)
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        self.measure("iter", self.inner.list(dir)).await
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        self.measure("iter", self.inner.list_top(after, wanted)).await
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        self.inner.abort_stale(dir).await
    }

    async fn clears_unfinished_uploads(&self) -> Option<bool> {
        self.inner.clears_unfinished_uploads().await
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        self.measure("delete", self.inner.remove(canary)).await
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }
}

#[cfg(test)]
mod tests;
