//! The way to the collector: the exporters of OpenTelemetry, over connections whose TLS is ours.
//!
//! An exporter keeps one connection, which it makes when there is something to send. Each request has a limit
//! (`config.timeout`), as has connecting ([`CONNECT_LIMIT`]); what the collector cannot take now is tried again, within a
//! limit for all tries. Proxies of the environment are not used.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tonic::{metadata::MetadataMap, transport::Endpoint};
use tower_service::Service;
use url::Url;

use super::config::{Config, Protocol};
use crate::{model::error_text::with_causes, trust};

/// For the name, the connection and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What is read of an answer, in bytes: a collector says "fine", or why not.
const ANSWER_LIMIT: usize = 64 << 10;

/// For all tries of a batch, unless the configuration says so (Go's default).
const TRIES_LIMIT: Duration = Duration::from_secs(60);

/// How long a batch may take, with all its tries.
pub(super) fn limit(config: &Config) -> Duration {
    tries_limit(config) + config.timeout
}

fn tries_limit(config: &Config) -> Duration {
    config.retry.total.unwrap_or(TRIES_LIMIT)
}

/// What TLS needs, if the collector is spoken to with it; reads the files.
///
/// # Errors
/// A file that cannot be used, with its key.
pub(super) fn tls(config: &Config) -> Result<Option<rustls::ClientConfig>, String> {
    if config.url.scheme() != "https" {
        return Ok(None);
    }
    let mut made = trust::client_config(&config.tls).map_err(|error| format!("config.{error}"))?;
    made.alpn_protocols = match config.protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http => vec![b"http/1.1".to_vec()],
    };
    Ok(Some(made))
}

/// An exporter; to be called within a runtime. It does not connect yet.
///
/// # Errors
/// A host that cannot be verified.
pub(super) fn exporter(
    config: &Config,
    tls: Option<rustls::ClientConfig>,
    resource: &Resource,
    cause: &Cause,
) -> Result<SpanExporter, String> {
    let connector = Connector::new(config, tls)?;
    let exporter = match config.protocol {
        Protocol::Grpc => grpc(config, connector),
        Protocol::Http => http(config, connector, cause.clone()),
    };
    let mut exporter = exporter?;
    exporter.set_resource(resource);
    Ok(exporter)
}

fn retry(config: &Config) -> RetryPolicy {
    let mut policy = RetryPolicy::recommended();
    if let Some(initial) = config.retry.initial {
        policy = policy.with_initial_delay(initial);
    }
    if let Some(longest) = config.retry.longest {
        policy = policy.with_max_delay(longest);
    }
    match config.retry.total {
        // The time ends it.
        Some(_) => policy.with_max_retries(usize::MAX),
        None => policy,
    }
}

fn unusable(error: ExporterBuildError) -> String {
    format!("its exporter cannot be made: {error}")
}

fn grpc(config: &Config, connector: Connector) -> Result<SpanExporter, String> {
    let endpoint = Endpoint::from_shared(config.url.to_string());
    let endpoint = endpoint.map_err(|error| format!("its address cannot be used: {error}"))?;
    let channel = endpoint.timeout(config.timeout).connect_with_connector_lazy(connector);
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_metadata(MetadataMap::from_headers(config.headers.clone()))
        .with_timeout(tries_limit(config))
        .with_retry_policy(retry(config));
    if config.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    builder.build().map_err(unusable)
}

fn http(config: &Config, connector: Connector, cause: Cause) -> Result<SpanExporter, String> {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(1)
        .build(connector);
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = config
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)));
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(Http {
            client,
            timeout: config.timeout,
            cause,
        })
        .with_endpoint(config.url.as_str())
        .with_headers(headers.collect())
        .with_timeout(tries_limit(config))
        .with_retry_policy(retry(config));
    if config.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    builder.build().map_err(unusable)
}

/// Why the last request failed: the exporter says no more than that it did.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause(Arc<Mutex<Option<String>>>);

impl Cause {
    /// Takes it.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: &dyn std::error::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(with_causes(error));
    }
}

/// Sends one request, and reads its answer.
#[derive(Debug)]
struct Http {
    client: Client<Connector, Full<Bytes>>,
    timeout: Duration,
    cause: Cause,
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let answer = self.client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let sent = match timeout(self.timeout, exchange).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("it did not answer within {:?}", self.timeout).into()),
        };
        sent.inspect_err(|error| self.cause.set(error.as_ref()))
    }
}

/// Connects to the collector, whatever address it is asked for.
#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({}:{})", self.host, self.port)
    }
}

impl Connector {
    fn new(config: &Config, tls: Option<rustls::ClientConfig>) -> Result<Self, String> {
        let (host, port) = address(&config.url);
        let name = config.tls.server_name.clone().unwrap_or_else(|| host.clone());
        let tls = match tls {
            None => None,
            Some(tls) => {
                let verified = ServerName::try_from(name.clone());
                let verified = verified.map_err(|error| format!("{name:?} cannot be verified: {error}"))?;
                Some((TlsConnector::from(Arc::new(tls)), verified))
            }
        };
        Ok(Self { host, port, tls })
    }

    async fn connect(self) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Stream(TokioIo::new(match self.tls {
            None => Either::Left(stream),
            Some((tls, name)) => Either::Right(Box::new(tls.connect(name, stream).await?)),
        })))
    }
}

/// Host and port of an address that has both.
fn address(url: &Url) -> (String, u16) {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    (host, url.port_or_known_default().unwrap_or_default())
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connect = self.clone().connect();
        Box::pin(async move {
            let late = || {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {CONNECT_LIMIT:?}"),
                )
            };
            timeout(CONNECT_LIMIT, connect).await.map_err(|_| late())?
        })
    }
}

/// A connection to the collector.
#[derive(Debug)]
struct Stream(TokioIo<Either<TcpStream, Box<TlsStream<TcpStream>>>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
