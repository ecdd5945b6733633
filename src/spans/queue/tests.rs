use std::time::SystemTime;

use opentelemetry::{
    InstrumentationScope,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use prometheus_client::encoding::text::encode;

use super::*;

fn span(sampled: bool) -> SpanData {
    let flags = if sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NOT_SAMPLED
    };
    let (trace, id) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
    SpanData {
        span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "test".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

/// A queue whose collector is at a port that nobody is given.
fn queue() -> (Queue, Sender, Registry) {
    let yaml = "type: OTLP\nconfig: {client_type: grpc, endpoint: '127.0.0.1:1', insecure: true}";
    let config = Config::parse(yaml, |_| None).unwrap().unwrap();
    let (queue, sender) = new(config, Resource::builder_empty().build());
    let mut registry = Registry::default();
    sender.metrics().register(&mut registry);
    (queue, sender, registry)
}

fn counted(registry: &Registry, name: &str) -> u64 {
    let mut page = String::new();
    encode(&mut page, registry).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}: {page}")).parse().unwrap()
}

const DROPPED_FULL: &str = "narthex_tracing_spans_dropped_total{reason=\"queue_full\"}";
const DROPPED_REFUSED: &str = "narthex_tracing_spans_dropped_total{reason=\"not_accepted\"}";

#[test]
fn the_queue_has_a_bound_and_what_does_not_fit_is_counted() {
    let (queue, _sender, registry) = queue();
    queue.on_end(span(false));
    for _ in 0..QUEUE + 7 {
        queue.on_end(span(true));
    }
    assert_eq!(counted(&registry, DROPPED_FULL), 7);
    assert_eq!(counted(&registry, DROPPED_REFUSED), 0);
}

#[tokio::test(start_paused = true)]
async fn batches_are_cut_by_number_and_by_time() {
    let (queue, mut sender, _registry) = queue();
    let stop = CancellationToken::new();
    for _ in 0..BATCH + 3 {
        queue.on_end(span(true));
    }
    let begun = Instant::now();
    assert_eq!(sender.batch(&stop).await.unwrap().len(), BATCH);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(sender.batch(&stop).await.unwrap().len(), 3);
    assert_eq!(begun.elapsed(), DELAY);
    for _ in 0..2 {
        queue.on_end(span(true));
    }
    stop.cancel();
    assert_eq!(sender.batch(&stop).await.unwrap().len(), 2);
    assert!(sender.batch(&stop).await.is_none());
    assert_eq!(begun.elapsed(), DELAY);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_not_there_costs_the_batch_and_nothing_else() {
    let (queue, sender, registry) = queue();
    let running = sender.start();
    for _ in 0..5 {
        queue.on_end(span(true));
    }
    while counted(&registry, DROPPED_REFUSED) < 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    queue.on_end(span(true));
    let stopped = Instant::now();
    running.finish().await;
    assert!(stopped.elapsed() <= LAST_LIMIT);
    assert_eq!(counted(&registry, "narthex_tracing_spans_sent_total"), 0);
}
