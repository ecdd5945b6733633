//! Sends requests to one Prometheus, with current credentials and certificates.
//!
//! Files are checked before each request: passwords and tokens are read, and when a certificate file has changed new
//! connections are made with it. While a changed certificate file cannot be used, the previous connections stay in use;
//! a password or token file that cannot be read fails the request.

use std::{
    io::Read as _,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, HOST, USER_AGENT as USER_AGENT_NAME},
};
use http_body_util::Full;
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::{Position, Url};

use super::{
    connection::{self, ConnectionPool},
    error::{ErrorKind, SetupError},
    http_client::{Auth, HttpClientConfig, Source},
    response_body::ResponseBody,
};
use crate::{
    spans,
    threads::BlockingPool,
    trust::{self, FileError},
};

/// Largest password or token file, in bytes.
const SECRET_FILE: u64 = 64 << 10;

const USER_AGENT: &str = concat!("narthex/", env!("CARGO_PKG_VERSION"));

/// Sends requests to one Prometheus.
#[derive(Debug)]
pub(super) struct Transport {
    state: Arc<State>,
    /// Limits connections, if there is a limit.
    slots: Option<Arc<Semaphore>>,
    /// The `Host` header when the URL's host was replaced by `server_name`.
    host: Option<HeaderValue>,
}

/// The answer to a POST, whose head has come.
#[derive(Debug)]
pub(super) struct PostResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ResponseBody,
}

/// What a change of files changes.
#[derive(Debug)]
struct State {
    config: HttpClientConfig,
    target: Target,
    clients: Mutex<Clients>,
    /// One thread reads its files: where it hangs, no other one is taken.
    files: BlockingPool,
}

#[derive(Clone, Debug)]
struct Clients {
    client: reqwest::Client,
    /// For long answers; there is none through a proxy.
    pool: Option<Arc<ConnectionPool>>,
    stamps: Vec<Option<Stamp>>,
}

/// Where connections go.
#[derive(Clone, Debug)]
struct Target {
    secure: bool,
    /// Name or address and port, even if the URL has `server_name` in its place.
    address: (String, u16),
    /// `server_name` and the real host, if the URL has the former in place of the latter.
    behind_name: Option<(String, String)>,
}

/// Identifies a version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Transport {
    /// Prepares to talk to the server of `url`, which is changed to `tls_config.server_name`, if that is set: the
    /// name is then what is sent and verified in TLS, while the connection and the `Host` header keep the host.
    pub(super) fn new(url: &mut Url, config: &HttpClientConfig) -> Result<Self, SetupError> {
        let secure = url.scheme() == "https";
        let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = (
            bare(url.host_str().unwrap_or_default()),
            url.port_or_known_default().unwrap_or_default(),
        );
        let mut host = None;
        let mut behind_name = None;
        if let Some(name) = config.tls.server_name.as_ref().filter(|_| secure) {
            let real = url.host_str().unwrap_or_default().to_owned();
            host = Some(host_header(url, &real)?);
            replace_host(url, name, config)?;
            behind_name = Some((name.to_ascii_lowercase(), bare(&real)));
        }
        let target = Target {
            secure,
            address,
            behind_name,
        };
        let stamps = stamps(config);
        let client = build(config, &target)?;
        let pool = connection_pool(config, &target)?;
        let slots = config
            .transport
            .connections
            .map(|number| Arc::new(Semaphore::new(number)));
        let clients = Mutex::new(Clients { client, pool, stamps });
        let state = Arc::new(State {
            config: config.clone(),
            target,
            clients,
            files: BlockingPool::new(1),
        });
        Ok(Self { state, slots, host })
    }

    /// Waits for a permit to use a connection; to be held until the response is read.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed, so that an error cannot be.
        Arc::clone(self.slots.as_ref()?).acquire_owned().await.ok()
    }

    /// Sends a GET and waits for the answer's head.
    pub(super) async fn get(&self, url: Url) -> Result<reqwest::Response, ErrorKind> {
        self.request(Method::GET, url).await
    }

    /// Sends a request without a body and waits for the answer's head.
    pub(super) async fn request(&self, method: Method, url: Url) -> Result<reqwest::Response, ErrorKind> {
        let (Clients { client, .. }, auth) = self.current().await?;
        let has_credentials = has_credentials(&url);
        let mut request = client.request(method, url);
        let mut headers = HeaderMap::new();
        spans::inject(&mut headers);
        request = request.headers(headers);
        if let Some(host) = &self.host {
            request = request.header(HOST, host.clone());
        }
        // As in Go, credentials in the URL come first.
        if let Some(auth) = auth.filter(|_| !has_credentials) {
            request = request.header(AUTHORIZATION, auth);
        }
        self.head(async { request.send().await.map_err(|error| self.state.unsent(error)) })
            .await
    }

    /// Sends a POST and waits for the answer's head. The body comes over a connection that long answers are cheap on,
    /// unless a proxy is in between.
    pub(super) async fn post(&self, url: Url, mut headers: HeaderMap, body: Bytes) -> Result<PostResponse, ErrorKind> {
        let permit = self.slot().await;
        let (Clients { client, pool, .. }, auth) = self.current().await?;
        if let Some(auth) = basic(&url).or(auth) {
            headers.insert(AUTHORIZATION, auth);
        }
        spans::inject(&mut headers);
        let Some(pool) = pool else {
            let request = client.post(url).headers(headers).body(body);
            let send = async { request.send().await.map_err(|error| self.state.unsent(error)) };
            let response = self.head(send).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let pieces = response.bytes_stream().map_err(ErrorKind::from_body);
            let body = ResponseBody::proxied(Box::pin(pieces), permit);
            return Ok(PostResponse { status, headers, body });
        };
        headers.insert(USER_AGENT_NAME, HeaderValue::from_static(USER_AGENT));
        let host = match &self.host {
            Some(host) => host.clone(),
            None => host_header(&url, url.host_str().unwrap_or_default())?,
        };
        headers.insert(HOST, host);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let path = &url[Position::BeforePath..Position::AfterQuery];
        *request.uri_mut() = path
            .parse()
            .map_err(|_| SetupError::Url(format!("path {path:?} cannot be sent")))?;
        *request.headers_mut() = headers;
        let (head, body) = self.head(pool.send(request)).await?;
        Ok(PostResponse {
            status: head.status,
            headers: head.headers,
            body: ResponseBody::direct(body, permit),
        })
    }

    /// Waits for the head of an answer as long as the configuration allows.
    async fn head<T>(&self, answer: impl Future<Output = Result<T, ErrorKind>>) -> Result<T, ErrorKind> {
        match self.state.config.transport.response_header_timeout {
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .unwrap_or(Err(ErrorKind::Timeout(limit))),
            None => answer.await,
        }
    }

    /// The client and the credentials of now.
    async fn current(&self) -> Result<(Clients, Option<HeaderValue>), SetupError> {
        if !self.state.config.has_files() {
            return self.state.current();
        }
        let state = Arc::clone(&self.state);
        // A file may be on a slow or dead mount.
        let current = self.state.files.run(move || state.current()).await;
        current.map_err(|error| SetupError::Settings(format!("reading its files: {error}")))?
    }
}

impl State {
    fn current(&self) -> Result<(Clients, Option<HeaderValue>), SetupError> {
        let auth = header(&self.config.auth)?;
        let stamps = stamps(&self.config);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.stamps != stamps {
            let anew = build(&self.config, &self.target)
                .and_then(|client| Ok((client, connection_pool(&self.config, &self.target)?)));
            match anew {
                Ok((client, pool)) => {
                    tracing::info!("certificate files for Prometheus changed and were reloaded");
                    clients.client = client;
                    clients.pool = pool;
                }
                Err(error) => {
                    tracing::warn!(%error, "certificate files for Prometheus changed and cannot be used; keeping the \
                                            previous ones");
                }
            }
            clients.stamps = stamps;
        }
        Ok((clients.clone(), auth))
    }

    fn unsent(&self, error: reqwest::Error) -> ErrorKind {
        let limit = connect_timeout(&self.config, self.target.secure);
        // What a proxy sends proves nothing about the address of Prometheus.
        let secure = self.target.secure || self.config.proxy.is_some();
        ErrorKind::from_send(error, limit.unwrap_or_default(), secure)
    }
}

pub(super) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The credentials of a URL as a header; as in Go, they come before others.
fn basic(url: &Url) -> Option<HeaderValue> {
    if !has_credentials(url) {
        return None;
    }
    let plain = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let pair = format!(
        "{}:{}",
        plain(url.username()),
        plain(url.password().unwrap_or_default())
    );
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn stamps(config: &HttpClientConfig) -> Vec<Option<Stamp>> {
    let identity = config.tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
    let files: Vec<&PathBuf> = config.tls.ca_file.iter().chain(identity).collect();
    files.into_iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs_err::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
    })
}

fn host_header(url: &Url, host: &str) -> Result<HeaderValue, SetupError> {
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::from_str(&text).map_err(|_| SetupError::Url(format!("host {host:?} cannot be sent")))
}

fn replace_host(url: &mut Url, name: &str, config: &HttpClientConfig) -> Result<(), SetupError> {
    if config.proxy.is_some() {
        let text = "tls_config.server_name does not go together with proxy_url";
        return Err(SetupError::Settings(text.to_owned()));
    }
    let set = url.set_host(Some(name));
    match url.host() {
        Some(url::Host::Domain(_)) if set.is_ok() => Ok(()),
        _ => {
            let text = format!("tls_config.server_name: {name:?} is not a host name");
            Err(SetupError::Settings(text))
        }
    }
}

fn build(config: &HttpClientConfig, target: &Target) -> Result<reqwest::Client, SetupError> {
    let wrong = |error: reqwest::Error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        SetupError::Settings(cause)
    };
    let transport = &config.transport;
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .referer(false)
        // The environment's proxies are not for us.
        .no_proxy()
        .tls_backend_preconfigured(trust::client_config(&config.tls)?)
        .pool_max_idle_per_host(transport.idle_connections)
        .pool_idle_timeout(transport.idle_timeout);
    if let Some(limit) = connect_timeout(config, target.secure) {
        builder = builder.connect_timeout(limit);
    }
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.0.clone()).map_err(wrong)?);
    }
    if let Some((name, host)) = &target.behind_name {
        // A redirect would carry the wrong `Host` header.
        builder = builder.redirect(redirect::Policy::none()).dns_resolver(BehindName {
            name: name.clone(),
            host: host.clone(),
        });
    }
    builder.build().map_err(wrong)
}

/// The connections for long answers.
fn connection_pool(config: &HttpClientConfig, target: &Target) -> Result<Option<Arc<ConnectionPool>>, SetupError> {
    if config.proxy.is_some() {
        return Ok(None);
    }
    let (host, port) = target.address.clone();
    let tls = match target.secure {
        false => None,
        true => {
            let name = target.behind_name.as_ref().map_or(&host, |(name, _)| name).clone();
            let name = ServerName::try_from(name)
                .map_err(|error| SetupError::Url(format!("host {host:?} cannot be verified: {error}")))?;
            Some((Arc::new(trust::client_config(&config.tls)?), name))
        }
    };
    Ok(Some(Arc::new(ConnectionPool::new(connection::Target {
        host,
        port,
        tls,
        connect_timeout: connect_timeout(config, target.secure),
        idle_connections: config.transport.idle_connections,
        idle_timeout: config.transport.idle_timeout,
    }))))
}

/// One limit for connecting and TLS: there is none for each.
fn connect_timeout(config: &HttpClientConfig, secure: bool) -> Option<Duration> {
    let dial = config.transport.dial_timeout?;
    if !secure {
        return Some(dial);
    }
    Some(dial.saturating_add(config.transport.tls_handshake_timeout?))
}

/// Finds the addresses of `host` when asked for `name`.
struct BehindName {
    name: String,
    host: String,
}

impl Resolve for BehindName {
    fn resolve(&self, name: Name) -> Resolving {
        let host = if name.as_str() == self.name {
            self.host.clone()
        } else {
            name.as_str().to_owned()
        };
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The `Authorization` header of now.
fn header(auth: &Auth) -> Result<Option<HeaderValue>, SetupError> {
    let (text, source) = match auth {
        Auth::None => return Ok(None),
        Auth::Bearer(source) => (format!("Bearer {}", secret(source)?), source),
        Auth::Basic { username, password } => {
            let pair = format!("{username}:{}", secret(password)?);
            (format!("Basic {}", BASE64_STANDARD.encode(pair)), password)
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        let problem = "holds characters that cannot be sent".to_owned();
        match source {
            Source::File(key, path) => SetupError::File(FileError::Content {
                key,
                path: path.clone(),
                problem,
            }),
            Source::Inline(_) => SetupError::Settings(format!("bearer_token {problem}")),
        }
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The secret of now, without white space around it.
fn secret(source: &Source) -> Result<String, SetupError> {
    let (key, path) = match source {
        Source::Inline(secret) => return Ok(secret.reveal().to_owned()),
        Source::File(key, path) => (key, path),
    };
    let mut text = String::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(SECRET_FILE + 1).read_to_string(&mut text));
    read.map_err(|cause| FileError::Read { key, cause })?;
    if text.len() as u64 > SECRET_FILE {
        let problem = format!("larger than {SECRET_FILE} bytes");
        let path = path.clone();
        return Err(FileError::Content { key, path, problem }.into());
    }
    Ok(text.trim().to_owned())
}
