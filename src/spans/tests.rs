use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::trace::SpanData;
use tracing::{Instrument as _, info, info_span};
use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

use super::*;

/// A caller's header, from the W3C's recommendation.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// The spans that `work` ends with.
fn spans_of(sampler: &str, work: impl FnOnce()) -> Vec<SpanData> {
    let yaml = format!("type: OTLP\nconfig: {{client_type: grpc, sampler_type: {sampler}}}");
    let config = Config::parse(&yaml, |_| None).unwrap().unwrap();
    let (layer, mut sender) = set_up(config);
    tracing::subscriber::with_default(Registry::default().with(layer), work);
    std::iter::from_fn(|| sender.next_ended()).collect()
}

fn headers(parent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", parent.parse().unwrap());
    headers
}

fn call(parent: &str) -> Span {
    let span =
        info_span!(target: TARGET, parent: None, "call", otel.name = "/thanos.Store/Series", otel.kind = "server");
    follow(&span, &headers(parent));
    span
}

#[test]
fn a_call_is_part_of_its_callers_trace_and_carries_it_on() {
    let mut carried = HeaderMap::new();
    let spans = spans_of("''", || {
        let call = call(PARENT);
        call.in_scope(|| {
            let query = info_span!(target: TARGET, "query_prometheus", otel.kind = "client");
            query.in_scope(|| inject(&mut carried));
            fail(&query, &"HTTP 503");
        });
    });
    let [query, call] = &spans[..] else { panic!("{spans:?}") };
    let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    assert_eq!(call.span_context.trace_id(), trace);
    assert_eq!(call.parent_span_id, SpanId::from_hex("00f067aa0ba902b7").unwrap());
    assert_eq!(
        (call.name.as_ref(), &call.span_kind),
        ("/thanos.Store/Series", &SpanKind::Server)
    );
    assert_eq!(call.status, Status::Unset);
    assert_eq!(query.span_context.trace_id(), trace);
    assert_eq!(query.parent_span_id, call.span_context.span_id());
    assert_eq!(
        (query.name.as_ref(), &query.span_kind),
        ("query_prometheus", &SpanKind::Client)
    );
    assert_eq!(query.status, Status::error("HTTP 503"));
    let wanted = format!("00-{trace}-{}-01", query.span_context.span_id());
    assert_eq!(carried["traceparent"], wanted);
}

#[test]
fn what_the_caller_does_not_keep_is_not_kept_and_carried_on_all_the_same() {
    let mut carried = HeaderMap::new();
    let spans = spans_of("''", || call(UNSAMPLED).in_scope(|| inject(&mut carried)));
    assert!(spans.is_empty(), "{spans:?}");
    let carried = carried["traceparent"].to_str().unwrap();
    assert!(
        carried.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && carried.ends_with("-00"),
        "{carried}"
    );
    let always = spans_of("alwayssample", || drop(call(UNSAMPLED)));
    assert_eq!(always.len(), 1);
    let never = spans_of("neversample", || drop(call(PARENT)));
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn a_call_without_a_caller_begins_a_trace_of_its_own() {
    for parent in [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    ] {
        let spans = spans_of("''", || {
            let outer = info_span!(target: TARGET, "outer");
            outer.in_scope(|| drop(call(parent)));
        });
        let [call, outer] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(call.parent_span_id, SpanId::INVALID, "{parent}");
        assert_ne!(call.span_context.trace_id(), outer.span_context.trace_id(), "{parent}");
    }
}

#[test]
fn without_a_collector_there_are_no_spans_and_nothing_is_carried() {
    let mut carried = HeaderMap::new();
    let log_only = Registry::default()
        .with(tracing_subscriber::filter::Targets::new().with_target("narthex", tracing::Level::TRACE));
    tracing::subscriber::with_default(log_only, || {
        let call = call(PARENT);
        assert!(call.is_disabled());
        call.in_scope(|| inject(&mut carried));
        fail(&call, &"nobody hears it");
    });
    assert!(carried.is_empty(), "{carried:?}");
}

#[test]
fn neither_lines_of_the_log_nor_spans_of_others_are_sent() {
    let spans = spans_of("''", || {
        let span = info_span!(target: TARGET, "ship_block", block = "01HX");
        let _in_span = span.enter();
        info!("a line of the log");
        let _other = info_span!("of another target").entered();
    });
    let [one] = &spans[..] else { panic!("{spans:?}") };
    assert!(one.events.is_empty(), "{one:?}");
    let attributes: Vec<(&str, String)> = one
        .attributes
        .iter()
        .map(|pair| (pair.key.as_str(), pair.value.to_string()))
        .collect();
    assert_eq!(attributes, [("block", "01HX".to_owned())]);
}

#[tokio::test]
async fn stages_of_a_block_are_below_it_also_in_other_tasks() {
    let yaml = "type: OTLP\nconfig: {client_type: grpc}";
    let (layer, mut sender) = set_up(Config::parse(yaml, |_| None).unwrap().unwrap());
    let _here = tracing::subscriber::set_default(Registry::default().with(layer));
    let block = info_span!(target: TARGET, parent: None, "ship_block");
    let upload = info_span!(target: TARGET, parent: &block, "upload");
    let send = async {
        let send = info_span!(target: TARGET, "send");
        tokio::time::sleep(Duration::from_millis(1)).instrument(send).await;
    };
    tokio::spawn(send.instrument(upload)).await.unwrap();
    drop(block);
    let spans: Vec<SpanData> = std::iter::from_fn(|| sender.next_ended()).collect();
    let [send, upload, block] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(send.parent_span_id, upload.span_context.span_id());
    assert_eq!(upload.parent_span_id, block.span_context.span_id());
    assert_eq!(block.parent_span_id, SpanId::INVALID);
}
