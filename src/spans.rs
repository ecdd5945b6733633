//! Spans: what calls and blocks spend their time on, for a collector (`--tracing.config`).
//!
//! - Whoever does the work makes a span with the macros of the crate `tracing`, with [`TARGET`] as its target and the field
//!   names of OpenTelemetry. Without a collector nobody wants them: each costs one look at a flag.
//! - [`follow`] makes a call part of its caller's trace, [`inject`] carries the trace to Prometheus: W3C headers.
//! - [`Config`] reads Thanos' YAML, [`set_up`] takes spans from `tracing`; `queue` holds those that have ended, and `collector`
//!   sends them, by OTLP over gRPC or HTTP.
//!
//! **Guarantees.** Nothing waits for the collector. Some two thousand ended spans are held at most; what does not fit is
//! dropped and counted. A collector that cannot be reached, is slow, or refuses costs spans, a line in the log and a
//! connection every few seconds, nothing else.
//!
//! **Crash, cancel.** What is held is lost with the process. At its end it is sent, within [`queue::LAST_LIMIT`].

mod collector;
mod config;
mod queue;

use std::str::FromStr as _;

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator as _},
    trace::{TraceState, TracerProvider as _},
};
use opentelemetry_http::HeaderInjector;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::{Metadata, Span};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{
    filter::{FilterFn, Filtered, filter_fn},
    layer::Layer as _,
    registry::Registry,
};

pub use self::{
    config::{Config, ConfigError},
    queue::{Metrics, Sender},
};

/// The target of all spans.
pub const TARGET: &str = "span";

/// The header with what vendors say of a trace.
const TRACE_STATE: &str = "tracestate";

/// What we are called unless the configuration or the environment says otherwise.
const SERVICE_NAME: &str = "narthex";

/// Takes spans from `tracing`: those of [`TARGET`] and nothing else.
pub type Layer = Filtered<OpenTelemetryLayer<Registry, SdkTracer>, FilterFn<fn(&Metadata<'_>) -> bool>, Registry>;

/// What takes spans, and what sends those that have ended.
pub fn set_up(config: Config) -> (Layer, Sender) {
    let resource = resource(&config);
    let (queue, sender) = queue::new(config, resource.clone());
    let provider = SdkTracerProvider::builder()
        .with_sampler(sender.sampler())
        .with_resource(resource)
        .with_span_processor(queue)
        .build();
    let wanted: fn(&Metadata<'_>) -> bool = |metadata| metadata.is_span() && metadata.target() == TARGET;
    let layer = OpenTelemetryLayer::new(provider.tracer(SERVICE_NAME))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(wanted));
    (layer, sender)
}

/// Who we are: by the configuration, else by `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(config: &Config) -> Resource {
    let attributes = config.resource_attributes.iter();
    let attributes = attributes.map(|(key, value)| opentelemetry::KeyValue::new(key.clone(), value.clone()));
    let given = Resource::builder();
    let named = match &config.service_name {
        Some(name) => given.with_service_name(name.clone()),
        // What the environment does not name, the SDK calls an unknown service.
        None if is_named_by_the_environment() => given,
        None => given.with_service_name(SERVICE_NAME),
    };
    named.with_attributes(attributes).build()
}

fn is_named_by_the_environment() -> bool {
    let given = |name: &str| std::env::var(name).unwrap_or_default();
    !given("OTEL_SERVICE_NAME").is_empty() || given("OTEL_RESOURCE_ATTRIBUTES").contains("service.name=")
}

/// Makes `span` a part of the trace that a caller tells of in its headers, or the first one of a trace. To be called before
/// anything happens in the span.
pub fn follow(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent =
        TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &Caller::of(headers));
    // It fails for spans that are not for the collector.
    let _ = span.set_parent(parent);
}

/// Tells in `headers` which trace the current span is a part of, if there is one.
pub fn inject(headers: &mut HeaderMap) {
    let span = Span::current();
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(headers));
        if headers.get(TRACE_STATE).is_some_and(HeaderValue::is_empty) {
            headers.remove(TRACE_STATE);
        }
    }
}

/// What a caller tells of its trace: its state may be in several headers, and is nothing where it is malformed.
struct Caller<'a> {
    headers: &'a HeaderMap,
    state: String,
}

impl<'a> Caller<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let parts = headers.get_all(TRACE_STATE).iter();
        let parts: Vec<&str> = parts.filter_map(|part| part.to_str().ok()).collect();
        let state = parts.join(",");
        let good = TraceState::from_str(&state).is_ok();
        Self {
            headers,
            state: if good { state } else { String::new() },
        }
    }
}

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACE_STATE => Some(&self.state),
            _ => self.headers.get(key)?.to_str().ok(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Says in a span that what it stands for has failed, and why.
pub fn fail(span: &Span, error: &dyn std::fmt::Display) {
    if !span.is_disabled() {
        span.set_status(opentelemetry::trace::Status::error(error.to_string()));
    }
}

#[cfg(test)]
mod tests;
