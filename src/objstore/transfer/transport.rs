//! The HTTP transport below the SDK: HTTP/1.1 on hyper, TLS by rustls.
//!
//! Bodies stream both ways, with back pressure and without a copy; a body of known length keeps its `Content-Length`.
//! It speaks to hyper directly, not through reqwest, which is built on the same pool: reqwest has one limit for dialling
//! and the TLS handshake together, and no way to ask for another server name than the host's.
//!
//! Limits: dialling 30 s; the TLS handshake and the head of the answer as configured, the latter counted from when the
//! request's body has been taken in full, so that it cuts no long upload. A body that stops moving is not its business:
//! whoever owns the request watches that. Dropping a call closes its connection.
//!
//! A cause that another try cannot heal (a certificate that is not trusted, a refusal by TLS alert, an answer that is
//! not HTTP) is reported such that the SDK does not retry.

mod connect;
mod failure;
#[cfg(test)]
pub(in crate::objstore) mod testing;
mod tls;

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::{
    connect::Connector,
    failure::{TimedOut, connector_error},
    tls::Tls,
};
pub(in crate::objstore) use self::{
    connect::Proxies,
    failure::{causes, is_only_a_wrapper, no_answer, not_connected, not_http},
};
use crate::objstore::config::{ConfigError, HttpConfig};

/// How long dialling may take, unless the SDK asks for less (metadata services: one second).
pub(in crate::objstore) const DIAL: Duration = Duration::from_secs(30);

/// How long the head of an answer may take where the configuration does not say.
const HEAD: Duration = Duration::from_secs(120);

type Pool = Client<Connector, RequestBody>;

/// An HTTP client for the SDK.
#[derive(Clone, Debug)]
pub(in crate::objstore) struct Transport(Arc<Shared>);

struct Shared {
    http: HttpConfig,
    trace: bool,
    tls: Arc<Tls>,
    proxies: Arc<Proxies>,
    /// One pool for each limit on dialling that was asked for: one or two.
    pools: Mutex<Vec<(Duration, Pool)>>,
    /// With `max_conns_per_host`: by host and port.
    permits: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Opens nothing and reads nothing yet.
    pub(in crate::objstore) fn new(http: &HttpConfig, trace: bool, proxies: Proxies) -> Self {
        Self(Arc::new(Shared {
            tls: Arc::new(Tls::new(http)),
            http: http.clone(),
            trace,
            proxies: Arc::new(proxies),
            pools: Mutex::default(),
            permits: Mutex::default(),
        }))
    }

    /// Sends requests, below no SDK.
    pub(in crate::objstore) fn connector(&self) -> impl HttpConnector + use<> {
        Caller {
            transport: self.clone(),
            pool: self.0.pool(DIAL),
            patience: None,
        }
    }

    /// Reads the certificates and keys that a handshake will need, so that a mistake shows before the first one.
    pub(in crate::objstore) async fn check_tls(&self) -> Result<(), ConfigError> {
        self.0.tls.config().await.map(|_| ())
    }
}

impl Shared {
    fn pool(&self, dial: Duration) -> Pool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = pools.iter().find(|(limit, _)| *limit == dial) {
            return pool.clone();
        }
        let handshake = some(self.http.tls_handshake_timeout);
        let connector = Connector::new(dial, handshake, Arc::clone(&self.tls), Arc::clone(&self.proxies));
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(some(self.http.idle_conn_timeout))
            .pool_max_idle_per_host(self.http.max_idle_per_host)
            .build(connector);
        pools.push((dial, pool.clone()));
        pool
    }

    /// Waits until one more request may run on this host.
    async fn permit(&self, limit: NonZeroUsize, host: &str) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS)));
            Arc::clone(permits.entry(host.to_owned()).or_insert_with(fresh))
        };
        semaphore.acquire_owned().await.ok()
    }

    async fn call(&self, pool: Pool, mut request: Request<SdkBody>) -> Result<HttpResponse, ConnectorError> {
        let permit = match self.http.max_conns_per_host {
            Some(limit) => {
                self.permit(limit, request.uri().authority().map_or("", |host| host.as_str()))
                    .await
            }
            None => None,
        };
        if let Some(auth) = self.proxies.header_for(request.uri()) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, auth);
        }
        let label = self.trace.then(|| format!("{} {}", request.method(), request.uri()));
        if let Some(label) = &label {
            tracing::debug!(headers = ?Redacted(request.headers()), "S3 request: {label}");
        }
        let (taken, all_taken) = oneshot::channel();
        let request = request.map(|body| RequestBody { body, _taken: taken });
        let exchange = pool.request(request);
        tokio::pin!(exchange);
        let limit = self.http.response_header_timeout.unwrap_or(HEAD);
        let answer = tokio::select! {
            answer = &mut exchange => answer.map_err(|error| {
                let dialling = error.is_connect();
                connector_error(Box::new(error), dialling)
            }),
            () = answer_timeout(all_taken, limit) => {
                Err(connector_error(Box::new(TimedOut::answer_after_body(limit)), false))
            }
        };
        if let Some(label) = &label {
            match &answer {
                Ok(answer) => {
                    let (status, headers) = (answer.status().as_u16(), Redacted(answer.headers()));
                    tracing::debug!(status, ?headers, "S3 answer: {label}");
                }
                Err(error) => tracing::debug!(?error, "S3 request failed: {label}"),
            }
        }
        let answer = answer?.map(|body| SdkBody::from_body_1_x(ResponseBody { body, _permit: permit }));
        HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Ends `limit` after the sender is gone; never without a limit.
async fn answer_timeout(all_taken: oneshot::Receiver<()>, limit: Duration) {
    // The sender lives in the body; that it goes is the message.
    let _ = all_taken.await;
    match some(limit) {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Zero stands for "no limit".
fn some(limit: Duration) -> Option<Duration> {
    (!limit.is_zero()).then_some(limit)
}

impl HttpClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Caller {
            transport: self.clone(),
            pool: self.0.pool(settings.connect_timeout().unwrap_or(DIAL)),
            patience: settings.read_timeout(),
        })
    }
}

/// The transport with the limits that one SDK client asks for.
#[derive(Debug)]
struct Caller {
    transport: Transport,
    pool: Pool,
    /// The longest time until the answer's head, all in all.
    patience: Option<Duration>,
}

impl HttpConnector for Caller {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (shared, pool, patience) = (Arc::clone(&self.transport.0), self.pool.clone(), self.patience);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let call = shared.call(pool, request);
            match patience {
                None => call.await,
                Some(patience) => tokio::time::timeout(patience, call)
                    .await
                    .unwrap_or_else(|_| Err(connector_error(Box::new(TimedOut::answer(patience)), false))),
            }
        })
    }
}

/// A request's body. hyper drops it when it has taken all of it, and that is how we know.
struct RequestBody {
    body: SdkBody,
    _taken: oneshot::Sender<()>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = aws_smithy_runtime_api::box_error::BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

/// An answer's body; the connection counts as busy until it is read or dropped.
struct ResponseBody {
    body: Incoming,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Headers for the log: nothing that lets its reader act in our name or decrypt.
struct Redacted<'a>(&'a HeaderMap);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name: &str| {
            matches!(
                name,
                "authorization" | "proxy-authorization" | "cookie" | "set-cookie" | "x-amz-security-token"
            ) || name.contains("server-side-encryption-customer-key")
                || name.contains("token")
        };
        let shown = self.0.iter().map(|(name, value)| {
            (
                name,
                if secret(name.as_str()) {
                    "<redacted>".into()
                } else {
                    String::from_utf8_lossy(value.as_bytes())
                },
            )
        });
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests;
