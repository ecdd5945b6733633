//! Requests to one Prometheus.
//!
//! Each call has one deadline that covers connecting, the head of the response and its body. Responses are bounded in
//! size. Dropping the future of a call drops the request.

mod reload;
mod storage;
mod stored;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::time::timeout_at;
use tracing::{Instrument as _, info_span};
use url::Url;

use super::{
    answer,
    api::RequestOptions,
    configuration::{self, Configuration, Scan},
    error::{Error, ErrorKind, SetupError},
    request_queue::{Kind, RequestQueues},
    transport::{PostResponse, Transport, has_credentials},
};
use crate::{model::url_text::without_secrets, spans};

pub use self::reload::LastReload;
pub use super::{http_client::HttpClientConfig, metrics_page::Storage};

/// How long [`Client::alive`] waits: it is asked while the process shuts down.
const ALIVE_DEADLINE: Duration = Duration::from_secs(2);

/// Longest address that can be asked, in bytes; HTTP libraries hold no longer ones.
const ADDRESS: usize = 65_000;

/// Whether Prometheus still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alive {
    /// It serves.
    Ready,
    /// It runs, or may: starting, stopping, slow, or something in between does not respond.
    NotReady,
    /// Nothing listens at its address: it has ended.
    Gone,
}

/// One Prometheus; a clone shares the connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.shown)
    }
}

struct Inner {
    /// What is asked, with credentials if the user gave them there; its path ends without a slash.
    base: Url,
    /// The base as it may be shown.
    shown: Url,
    transport: Transport,
    timeout: Duration,
    /// For requests of clients; the heartbeat does not wait with them.
    queues: RequestQueues,
}

impl Client {
    /// A client for the Prometheus at `url`, whose path is kept as a prefix. `timeout` is for each call as a whole. It
    /// does not connect.
    ///
    /// # Errors
    /// A URL that is not http(s), or files named by `http` that cannot be used.
    pub fn new(url: &Url, http: &HttpClientConfig, timeout: Duration) -> Result<Self, SetupError> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            let text = "expected an address that starts with http:// or https://, e.g. http://localhost:9090";
            return Err(SetupError::Url(text.to_owned()));
        }
        let mut base = url.clone();
        base.set_fragment(None);
        let prefix = base.path().trim_end_matches('/').to_owned();
        base.set_path(&prefix);
        let shown = without_secrets(&base);
        let transport = Transport::new(&mut base, http)?;
        let inner = Inner {
            base,
            shown,
            transport,
            timeout,
            queues: RequestQueues::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What of `url` and `http` has no effect, in words for the log.
    pub fn warnings(url: &Url, http: &HttpClientConfig) -> Vec<String> {
        let text = "--prometheus.url has a fragment (from # on), which is never sent to a server: remove it, or write %23 \
                    if the # belongs to the path or the password";
        let fragment = url.fragment().map(|_| text.to_owned());
        http.warnings().iter().cloned().chain(fragment).collect()
    }

    /// The address, without credentials.
    pub fn url(&self) -> &str {
        self.inner.shown.as_str()
    }

    /// Prometheus' flags by name; `None` if it does not report them (404).
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn flags(&self) -> Result<Option<BTreeMap<String, String>>, Error> {
        let ask = async |url| {
            let mut response = self.inner.transport.get(url).await?;
            match response.status().as_u16() {
                200 => {}
                404 => return Ok(None),
                _ => return Err(answer::refusal(response).await),
            }
            let body = answer::collect(&mut response, answer::SMALL).await?;
            answer::data(&body, "an object with the flags as texts in data").map(Some)
        };
        self.call("/api/v1/status/flags", self.inner.timeout, ask).await
    }

    /// Prometheus' version; `0` if it does not report one (404, 405).
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn build_version(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct BuildInfo {
            version: String,
        }
        let ask = async |url| {
            let mut response = self.inner.transport.get(url).await?;
            match response.status().as_u16() {
                200 => {}
                404 | 405 => return Ok("0".to_owned()),
                _ => return Err(answer::refusal(response).await),
            }
            let body = answer::collect(&mut response, answer::SMALL).await?;
            let info: BuildInfo = answer::data(&body, "an object with a text in data.version")?;
            Ok(info.version)
        };
        self.call("/api/v1/status/buildinfo", self.inner.timeout, ask).await
    }

    /// What concerns us of Prometheus' configuration; no external labels if it has none.
    ///
    /// # Errors
    /// See [`ErrorKind`]. The configuration may hold secrets: no part of it is in an error.
    pub async fn configuration(&self) -> Result<Configuration, Error> {
        let ask = async |url| {
            let mut response = self.inner.transport.get(url).await?;
            if response.status().as_u16() != 200 {
                return Err(answer::refusal(response).await);
            }
            let mut scan = Scan::default();
            answer::each_chunk(&mut response, configuration::LIMIT, |chunk| scan.push(chunk)).await?;
            scan.finish()
        };
        self.call("/api/v1/status/config", self.inner.timeout, ask).await
    }

    /// What `path` holds, as it is: of Prometheus, or of another server that is spoken to in the same way.
    ///
    /// # Errors
    /// See [`ErrorKind`]. The answer has more than `limit` bytes.
    pub async fn document(&self, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let ask = async |url| {
            let mut response = self.inner.transport.get(url).await?;
            if response.status().as_u16() != 200 {
                return Err(answer::refusal(response).await);
            }
            answer::collect(&mut response, limit).await
        };
        self.call(path, self.inner.timeout, ask).await
    }

    /// Whether Prometheus still runs; answers within 2 s.
    pub async fn alive(&self) -> Alive {
        let ask = async |url| {
            let response = self.inner.transport.get(url).await?;
            Ok(response.status().is_success())
        };
        let limit = self.inner.timeout.min(ALIVE_DEADLINE);
        match self.call("/-/ready", limit, ask).await {
            Ok(true) => Alive::Ready,
            Err(error) if error.is_refused() => Alive::Gone,
            Ok(false) | Err(_) => Alive::NotReady,
        }
    }

    /// Sends a POST to `path` and waits for the answer's head; without a deadline.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: http::HeaderMap,
        body: bytes::Bytes,
    ) -> Result<PostResponse, ErrorKind> {
        self.inner
            .transport
            .post(below(&self.inner.base, path), headers, body)
            .await
    }

    /// The address of `path` as it may be shown.
    pub(super) fn shown(&self, path: &str) -> String {
        below(&self.inner.shown, path).into()
    }

    /// Asks `path` with one deadline for everything.
    async fn call<T>(
        &self,
        path: &str,
        limit: Duration,
        ask: impl AsyncFnOnce(Url) -> Result<T, ErrorKind>,
    ) -> Result<T, Error> {
        let asked = async {
            let _slot = self.inner.transport.slot().await;
            ask(below(&self.inner.base, path)).await
        };
        let result = tokio::time::timeout(limit, asked).await;
        let result = result.unwrap_or(Err(ErrorKind::Timeout(limit)));
        result.map_err(|kind| self.error(path, kind))
    }

    /// Asks `path`, whose odd characters are percent-encoded, with parameters; hands the head of a good answer (2xx) to
    /// `read`. First it waits for a slot, and only then for a connection. An error names the address without the
    /// parameters, which can be long.
    pub(super) async fn query<T>(
        &self,
        (kind, path): (Kind, &str),
        parameters: &[(&str, String)],
        options: &RequestOptions,
        read: impl AsyncFnOnce(reqwest::Response) -> Result<T, ErrorKind>,
    ) -> Result<T, Error> {
        let asked = async {
            let mut url = below(&self.inner.base, path);
            if !parameters.is_empty() {
                url.query_pairs_mut().extend_pairs(parameters);
            }
            let (length, limit) = (url.as_str().len(), ADDRESS);
            if length > limit {
                return Err(ErrorKind::TooLong { length, limit });
            }
            options.report("waiting for a slot at Prometheus");
            let _permit = self.inner.queues.acquire(kind, options.deadline()).await?;
            let answered = async {
                options.report("waiting for a connection to Prometheus");
                let _slot = self.inner.transport.slot().await;
                options.report("waiting for Prometheus to answer");
                let response = self.inner.transport.get(url).await?;
                if !response.status().is_success() {
                    return Err(answer::refusal(response).await);
                }
                options.report("reading the answer of Prometheus");
                read(response).await
            };
            let answered = timeout_at(options.deadline(), answered).await;
            answered.unwrap_or(Err(ErrorKind::Timeout(options.limit())))
        };
        let span = info_span!(
            target: spans::TARGET, "query_prometheus", otel.kind = "client", http.request.method = "GET",
            url.path = path
        );
        let answered = asked.instrument(span.clone()).await;
        answered.map_err(|kind| {
            let error = self.error(path, kind);
            spans::fail(&span, &error);
            error
        })
    }

    fn error(&self, path: &str, kind: ErrorKind) -> Error {
        let (url, kind) = (self.shown(path), self.explain(kind));
        let method = "GET";
        Error { method, url, kind }
    }

    /// The kind of an error, with what only the client knows: whose credentials were sent.
    pub(super) fn explain(&self, kind: ErrorKind) -> ErrorKind {
        match has_credentials(&self.inner.base) {
            true => kind.with_url_credentials(),
            false => kind,
        }
    }

    /// Registers what is counted of the requests of clients.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.queues.register(registry);
    }
}

fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}
