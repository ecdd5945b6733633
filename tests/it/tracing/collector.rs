//! A collector of spans, with the messages of OpenTelemetry's own crate: gRPC and HTTP on one port, with TLS or without.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
};

use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_ENCODING};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, body::Body, codec::CompressionEncoding};
use tower_service::Service as _;

/// A span as it came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) name: String,
    /// In hex, as are the others.
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty for the first one of a trace.
    pub(super) parent: String,
    pub(super) kind: i32,
    pub(super) error: Option<String>,
    pub(super) attributes: BTreeMap<String, String>,
    /// Those of whoever sent it.
    pub(super) resource: BTreeMap<String, String>,
    pub(super) headers: HeaderMap,
}

/// Listens on a port of its own until it is dropped.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    serving: AbortHandle,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    pub(super) async fn start(tls: Option<TlsAcceptor>) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink(Arc::clone(&received));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let (sink, tls) = (sink.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, sink).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, sink).await;
                            }
                        }
                    }
                });
            }
        });
        Collector {
            port,
            received,
            serving: serving.abort_handle(),
        }
    }

    /// What has come of these names, oldest first.
    pub(super) fn named(&self, name: &str) -> Vec<Received> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().filter(|span| span.name == name).cloned().collect()
    }

    /// What has come directly below a span.
    pub(super) fn below(&self, span: &Received) -> Vec<Received> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let below = |other: &&Received| other.trace == span.trace && other.parent == span.id;
        received.iter().filter(below).cloned().collect()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, sink: Sink) {
    let answer = service_fn(move |request| answer(request, sink.clone()));
    // A client that leaves in the middle is no concern of the test.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(request: Request<Incoming>, sink: Sink) -> Result<Response<Body>, Infallible> {
    if request.uri().path() != "/v1/traces" {
        let mut grpc = TraceServiceServer::new(sink).accept_compressed(CompressionEncoding::Gzip);
        return grpc.call(request).await;
    }
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if head
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| coding == "gzip")
    {
        let mut plain = Vec::new();
        GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    let mut response = Response::new(Body::empty());
    match ExportTraceServiceRequest::decode(body.as_slice()) {
        Ok(request) => {
            sink.take(request, &head.headers);
            let answer = ExportTraceServiceResponse::default().encode_to_vec();
            *response.body_mut() = Body::new(Full::from(answer));
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

#[derive(Clone, Debug)]
struct Sink(Arc<Mutex<Vec<Received>>>);

impl Sink {
    fn take(&self, request: ExportTraceServiceRequest, headers: &HeaderMap) {
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_one in request.resource_spans {
            let resource = attributes(of_one.resource.unwrap_or_default().attributes);
            for span in of_one.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let status = span.status.unwrap_or_default();
                received.push(Received {
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: span.kind,
                    error: (status.code == 2).then_some(status.message),
                    attributes: attributes(span.attributes),
                    resource: resource.clone(),
                    headers: headers.clone(),
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.take(request, &metadata.into_headers());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: KeyValue| Some((pair.key, text(pair.value?.value?)));
    pairs.into_iter().filter_map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
