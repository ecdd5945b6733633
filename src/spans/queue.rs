//! Spans that have ended, on their way to the collector: a queue with a bound, and the task that empties it.
//!
//! A batch is sent when [`BATCH`] spans wait, or [`DELAY`] after its first one ended. While one is on its way others wait in
//! the queue; what finds it full is dropped. A batch that the collector does not take, also when tried again, is dropped:
//! the next one is sent over a new connection, with the TLS files as they are then.

use std::{sync::Arc, time::Duration};

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, Span, SpanData, SpanExporter as _, SpanProcessor},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    collector::{self, Cause},
    config::Config,
};
use crate::threads::BlockingPool;

/// Spans that wait at most (the SDK's default).
const QUEUE: usize = 2048;

/// Spans that are sent at once, at most (the SDK's default).
const BATCH: usize = 512;

/// How long the first span of a batch waits for others (the SDK's default).
const DELAY: Duration = Duration::from_secs(5);

/// Reading the TLS files may take no longer.
const FILES_LIMIT: Duration = Duration::from_secs(10);

/// How long what is left may take at the end of the process, as in Thanos.
pub(super) const LAST_LIMIT: Duration = Duration::from_secs(5);

/// What is counted of spans; a clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    sent: Counter,
    dropped: Family<Dropped, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

/// The queue had no room.
const FULL: Dropped = Dropped { reason: "queue_full" };

/// The collector did not take them.
const REFUSED: Dropped = Dropped { reason: "not_accepted" };

impl Metrics {
    /// Registers them, at zero.
    pub fn register(&self, registry: &mut Registry) {
        for reason in [FULL, REFUSED] {
            drop(self.dropped.get_or_create(&reason));
        }
        registry.register(
            "narthex_tracing_spans_sent",
            "Spans that the collector of --tracing.config has taken",
            self.sent.clone(),
        );
        registry.register(
            "narthex_tracing_spans_dropped",
            "Spans that did not reach the collector of --tracing.config",
            self.dropped.clone(),
        );
    }
}

/// Takes spans as they end.
#[derive(Debug)]
pub(super) struct Queue {
    ended: mpsc::Sender<SpanData>,
    metrics: Metrics,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.ended.try_send(span) {
            self.metrics.dropped.get_or_create(&FULL).inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends spans to the collector.
#[derive(Debug)]
pub struct Sender {
    config: Arc<Config>,
    resource: Resource,
    ended: mpsc::Receiver<SpanData>,
    metrics: Metrics,
    /// Until something fails.
    exporter: Option<SpanExporter>,
    cause: Cause,
    /// One thread reads the TLS files: where it hangs, no other one is taken.
    files: BlockingPool,
    failing: bool,
}

/// A [`Sender`] at work.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// A queue, and what empties it.
pub(super) fn new(config: Config, resource: Resource) -> (Queue, Sender) {
    let (ended, receiver) = mpsc::channel(QUEUE);
    let metrics = Metrics::default();
    let sender = Sender {
        config: Arc::new(config),
        resource,
        ended: receiver,
        metrics: metrics.clone(),
        exporter: None,
        cause: Cause::default(),
        files: BlockingPool::new(1),
        failing: false,
    };
    (Queue { ended, metrics }, sender)
}

impl Sender {
    pub(super) fn sampler(&self) -> Sampler {
        self.config.sampler.clone()
    }

    /// What is counted.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The next span that has ended, if there is one.
    #[cfg(test)]
    pub(super) fn next_ended(&mut self) -> Option<SpanData> {
        self.ended.try_recv().ok()
    }

    /// Begins to send, on the runtime in which this is called.
    pub fn start(self) -> Running {
        for warning in self.config.warnings() {
            tracing::warn!(warning, "configuration of tracing (--tracing.config)");
        }
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(self.run(stop.clone())));
        Running { stop, task }
    }

    async fn run(mut self, stop: CancellationToken) {
        // Files that cannot be used are told of at the start, not with the first query.
        if let Err(problem) = self.connect().await {
            self.failed(&problem);
        }
        while let Some(batch) = self.batch(&stop).await {
            self.send(batch).await;
        }
    }

    /// The next spans to send; `None` when there are no more and `stop` is cancelled.
    async fn batch(&mut self, stop: &CancellationToken) -> Option<Vec<SpanData>> {
        let first = tokio::select! {
            biased;
            span = self.ended.recv() => span?,
            () = stop.cancelled() => return None,
        };
        let mut batch = vec![first];
        let until = Instant::now() + DELAY;
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                span = self.ended.recv() => batch.extend(span),
                () = stop.cancelled() => break,
                () = sleep_until(until) => break,
            }
        }
        Some(batch)
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        // At most BATCH.
        let number = batch.len() as u64;
        match self.try_send(batch).await {
            Ok(()) => {
                self.metrics.sent.inc_by(number);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(collector = %self.config.shown_url(), "the collector takes spans again");
                }
            }
            Err(problem) => {
                self.metrics.dropped.get_or_create(&REFUSED).inc_by(number);
                self.exporter = None;
                self.failed(&problem);
            }
        }
    }

    async fn try_send(&mut self, batch: Vec<SpanData>) -> Result<(), String> {
        self.connect().await?;
        let Some(exporter) = &self.exporter else { return Ok(()) };
        let limit = collector::limit(&self.config);
        let sent = timeout(limit, exporter.export(batch)).await;
        let sent = sent.map_err(|_| format!("it did not answer within {limit:?}"))?;
        sent.map_err(|error| match self.cause.take() {
            Some(cause) => format!("{error} ({cause})"),
            None => error.to_string(),
        })
    }

    /// Makes an exporter, if there is none. It connects with the first batch.
    async fn connect(&mut self) -> Result<(), String> {
        if self.exporter.is_some() {
            return Ok(());
        }
        let config = Arc::clone(&self.config);
        let read = self.files.run(move || collector::tls(&config));
        let read = timeout(FILES_LIMIT, read).await;
        let tls = read
            .map_err(|_| format!("reading the files of config.tls_config took more than {FILES_LIMIT:?}"))?
            .map_err(|lost| lost.to_string())??;
        self.exporter = Some(collector::exporter(&self.config, tls, &self.resource, &self.cause)?);
        Ok(())
    }

    /// Says once that spans are lost.
    fn failed(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                collector = %self.config.shown_url(), problem,
                "spans do not reach the collector of --tracing.config and are lost; newer ones are sent to it all the same, and \
                 nothing else is affected"
            );
        }
    }
}

impl Running {
    /// Sends what is left, for a limited time.
    pub async fn finish(self) {
        self.stop.cancel();
        // Both that it is late and that it panicked lose spans, and nothing else.
        let _ = timeout(LAST_LIMIT, self.task).await;
    }
}

#[cfg(test)]
mod tests;
