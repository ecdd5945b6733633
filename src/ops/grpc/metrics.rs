//! The metrics of calls, with the names and labels that Thanos has.
//!
//! Only the methods that are given at the start are counted, each from zero: an unknown path makes no series, and
//! health checks and reflection do not drown the rest. The counters of a method are found once per call, by its path.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, NativeHistogramConfig},
    },
    registry::Registry,
};
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use super::tls::Failure;

/// Upper bounds of `grpc_server_handling_seconds`, in seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];

/// The names of the codes, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The name of a code, as Go writes it.
pub(super) fn code_name(code: Code) -> &'static str {
    CODES[code as usize]
}

/// Which side of a call sends many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither.
    Unary,
    /// The client.
    ClientStream,
    /// The server.
    ServerStream,
    /// Both.
    BidiStream,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ClientStream => "client_stream",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A method of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// The service's full name, such as `thanos.Store`.
    pub service: String,
    /// The method's name in it, such as `Series`.
    pub method: String,
    /// Which side sends many messages.
    pub kind: Kind,
}

/// All methods of an encoded `FileDescriptorSet` but gRPC's own (health).
///
/// # Errors
/// `descriptors` is no such set.
pub fn methods(descriptors: &[u8]) -> Result<Vec<Method>, prost::DecodeError> {
    let mut found = Vec::new();
    for file in FileDescriptorSet::decode(descriptors)?.file {
        if file.package().starts_with("grpc.") {
            continue;
        }
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            found.extend(service.method.iter().map(|method| described(&name, method)));
        }
    }
    Ok(found)
}

fn described(service: &str, method: &MethodDescriptorProto) -> Method {
    Method {
        service: service.to_owned(),
        method: method.name().to_owned(),
        kind: match (method.client_streaming(), method.server_streaming()) {
            (false, false) => Kind::Unary,
            (true, false) => Kind::ClientStream,
            (false, true) => Kind::ServerStream,
            (true, true) => Kind::BidiStream,
        },
    }
}

/// The metrics of all calls; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    panics: Counter,
    compressed_bytes: Gauge,
    handshake_failures: [Counter; Failure::REASONS.len()],
    methods: HashMap<String, Arc<Counted>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandledLabels {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
    grpc_code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// One method and its counters.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) method: Method,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) sent_bytes: Counter,
    started: Counter,
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

impl Counted {
    /// A call has begun.
    pub(super) fn begin(&self) {
        self.started.inc();
    }

    /// A call has ended.
    pub(super) fn end(&self, code: Code, took: Duration) {
        self.handled[code as usize].inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

impl Metrics {
    /// Registers the metrics of calls of `methods`, all zero.
    pub fn register(registry: &mut Registry, methods: impl IntoIterator<Item = Method>) -> Self {
        let (started, received, sent, sent_bytes) = (by_method(), by_method(), by_method(), by_method());
        let handled = Family::<HandledLabels, Counter>::default();
        let seconds = Family::<MethodLabels, Histogram, fn() -> Histogram>::new_with_constructor(handling_seconds);
        let panics = Counter::default();
        let compressed_bytes = Gauge::default();
        registry.register(
            "narthex_grpc_compressed_request_bytes",
            "Bytes buffered of compressed requests that have not arrived completely",
            compressed_bytes.clone(),
        );
        let failures = Family::<ReasonLabel, Counter>::default();
        let handshake_failures =
            Failure::REASONS.map(|reason| failures.get_or_create_owned(&ReasonLabel { reason: reason.name() }));
        registry.register(
            "narthex_tls_handshake_failures",
            "Failed TLS handshakes with gRPC clients, by reason",
            failures,
        );
        let counted = |method: Method| {
            let labels = MethodLabels {
                grpc_type: method.kind.name(),
                grpc_service: method.service.clone(),
                grpc_method: method.method.clone(),
            };
            let counted = Counted {
                received: received.get_or_create(&labels).clone(),
                sent: sent.get_or_create(&labels).clone(),
                sent_bytes: sent_bytes.get_or_create(&labels).clone(),
                started: started.get_or_create(&labels).clone(),
                handled: CODES.map(|code| handled.get_or_create(&with_code(&labels, code)).clone()),
                seconds: seconds.get_or_create(&labels).clone(),
                method,
            };
            let path = format!("/{}/{}", counted.method.service, counted.method.method);
            (path, Arc::new(counted))
        };
        let methods = methods.into_iter().map(counted).collect();
        registry.register(
            "narthex_grpc_sent_bytes",
            "Bytes of messages sent, after compression if there is any",
            sent_bytes.clone(),
        );
        let grpc = registry.sub_registry_with_prefix("grpc");
        grpc.register(
            "req_panics_recovered",
            "Panics in gRPC calls, each of which failed its call",
            panics.clone(),
        );
        let server = grpc.sub_registry_with_prefix("server");
        server.register("started", "gRPC calls started", started.clone());
        server.register("handled", "gRPC calls completed, by status code", handled.clone());
        server.register("msg_received", "Messages received from gRPC clients", received.clone());
        server.register("msg_sent", "Messages sent to gRPC clients", sent.clone());
        server.register(
            "handling_seconds",
            "Duration of gRPC calls, in seconds",
            seconds.clone(),
        );
        Self(Arc::new(Inner {
            panics,
            compressed_bytes,
            handshake_failures,
            methods,
        }))
    }

    /// The method that answers at `path`, if it is one that is counted.
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Counted>> {
        self.0.methods.get(path)
    }

    /// Bytes of compressed requests that have not come whole.
    pub(super) fn compressed_bytes(&self) -> &Gauge {
        &self.0.compressed_bytes
    }

    pub(super) fn panicked(&self) {
        self.0.panics.inc();
    }

    pub(super) fn handshake_failed(&self, failure: &Failure) {
        self.0.handshake_failures[failure.reason as usize].inc();
    }
}

/// Both classic and native, each of the latter's buckets at most a tenth wider than the one before, as in Thanos.
fn handling_seconds() -> Histogram {
    Histogram::new_classic_and_native(SECONDS, NativeHistogramConfig::new(1.1).max_buckets(256))
}

fn by_method() -> Family<MethodLabels, Counter> {
    Family::default()
}

fn with_code(labels: &MethodLabels, grpc_code: &'static str) -> HandledLabels {
    HandledLabels {
        grpc_type: labels.grpc_type,
        grpc_service: labels.grpc_service.clone(),
        grpc_method: labels.grpc_method.clone(),
        grpc_code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_there_from_the_start() {
        let mut registry = Registry::default();
        let found = methods(crate::pb::FILE_DESCRIPTOR_SET).unwrap();
        assert_eq!(found.len(), 9);
        let metrics = Metrics::register(&mut registry, found);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series = r#"{grpc_type="server_stream",grpc_service="thanos.Store",grpc_method="Series"}"#;
        for name in [
            "started_total",
            "msg_received_total",
            "msg_sent_total",
            "handling_seconds_count",
        ] {
            assert!(text.contains(&format!("grpc_server_{name}{series} 0\n")), "{text}");
        }
        let info = r#"{grpc_type="unary",grpc_service="thanos.info.Info",grpc_method="Info",grpc_code="#;
        for code in CODES {
            assert!(
                text.contains(&format!("grpc_server_handled_total{info}\"{code}\"}} 0\n")),
                "{text}"
            );
        }
        assert!(text.contains("grpc_req_panics_recovered_total 0\n"), "{text}");
        assert!(!text.contains("Health"), "{text}");
        assert!(metrics.find("/thanos.Store/Series").is_some());
        assert!(metrics.find("/thanos.Store/Info").is_none());
    }

    #[test]
    fn how_long_calls_took_is_a_native_histogram_too() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, methods(crate::pb::FILE_DESCRIPTOR_SET).unwrap());
        let info = metrics.find("/thanos.info.Info/Info").unwrap();
        for millis in [2, 2, 500] {
            info.end(Code::Ok, Duration::from_millis(millis));
        }
        let families = prometheus_client::encoding::prometheus_protobuf::encode(&registry).unwrap();
        let family = families
            .iter()
            .find(|is| is.name == "grpc_server_handling_seconds")
            .unwrap();
        let busy = |metric: &&_| {
            let metric: &prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::Metric = metric;
            metric.label.iter().any(|label| label.value == "thanos.info.Info")
        };
        let histogram = family.metric.iter().find(busy).unwrap().histogram.as_ref().unwrap();
        // Each bucket ends at 2^(1/8) times the one before: the largest step that is not above 1.1.
        assert_eq!((histogram.sample_count, histogram.schema), (3, 3));
        assert_eq!(
            (histogram.positive_span.len(), &histogram.positive_delta[..]),
            (2, &[2, -1][..])
        );
        assert_eq!(
            histogram.bucket.len(),
            SECONDS.len() + 1,
            "the classic one, and infinity"
        );
    }

    #[test]
    fn codes_have_the_names_of_go() {
        assert_eq!(code_name(Code::Ok), "OK");
        assert_eq!(code_name(Code::Cancelled), "Canceled");
        assert_eq!(code_name(Code::Unauthenticated), "Unauthenticated");
        assert_eq!(code_name(Code::DataLoss), "DataLoss");
    }
}
