//! The HTTP server: `/metrics`, `/-/healthy`, `/-/ready`, `/debug/calls`, pages of the program, and 404 for the rest.
//!
//! - The port is bound by [`bind`], early; [`Server::serve`] answers on it.
//! - Any method is answered, as in Thanos; a request's body is not read: the connection of a long one is closed.
//! - Nobody can keep others out: a request's head must come within a limit, an answer must be read within another (also
//!   by the kernel: see the module `stall`), and when there are too many connections the one that was idle for longest
//!   makes room.
//! - On the token the probe turns not ready, the port closes, running answers get the grace period, and then the probe
//!   turns not healthy. Dropping the future of `serve` closes everything at once.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderValue, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap,
        HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    connections::{self, OpenConnections},
    exposition::{self, Format},
    grpc::Running,
    http_connection::Activity,
    http_serving::{Answer, Connection},
    listen::{self, BindError},
    probe::Probe,
    web::Web,
};

pub use super::http_serving::Limits;

/// Says why a probe fails; the body must stay as Thanos' is.
const REASON: HeaderName = HeaderName::from_static("x-narthex-reason");
/// Says whether blocks are shipped.
const SHIPPING: HeaderName = HeaderName::from_static("x-narthex-shipping");
/// The longest reason that goes into the header, in bytes.
const REASON_MAX: usize = 512;
/// An answer shorter than this is not worth being compressed.
const GZIP_FROM: usize = 1024;
/// The most running calls on the page that shows them.
const CALLS_MAX: usize = 10_000;

/// A bound port that does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the server tells its clients; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The state behind the probes.
    pub probe: Probe,
    /// The metrics; complete before the server starts.
    pub registry: Arc<Registry>,
    /// What is counted of this server's connections.
    pub connections: connections::Metrics,
    /// The gRPC calls that run, where there is such a server.
    pub running: Option<Running>,
    /// Whether blocks are shipped, and if not why, in one line: a header of `/-/ready`.
    pub shipping: String,
    /// What `--http.config` asks for, if it was given.
    pub web: Option<Web>,
    /// Pages of the program that is served here, by their paths.
    pub more: Option<MorePages>,
}

/// A page, made when it is asked for.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its kind.
    pub content_type: &'static str,
    /// What is in it.
    pub body: String,
}

/// Gives the page of a path, if there is one. It must not wait for anything.
#[derive(Clone)]
pub struct MorePages(Arc<FindPage>);

type FindPage = dyn Fn(&str) -> Option<Page> + Send + Sync;

impl MorePages {
    /// Those that `find` finds.
    pub fn new(find: impl Fn(&str) -> Option<Page> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }
}

impl std::fmt::Debug for MorePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MorePages")
    }
}

/// Binds `address` (`host:port`; an empty host means all addresses); the error names it and `flag`.
pub async fn bind(address: &str, flag: &'static str) -> Result<Server, BindError> {
    let (listener, address) = listen::listen(address, flag).await?;
    Ok(Server { listener, address })
}

impl Server {
    /// The address that is bound: with the real port where 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Turns the probe healthy and answers until `token` is cancelled, then for at most `grace` more (0 closes at once).
    pub async fn serve(self, pages: Pages, limits: Limits, token: CancellationToken, grace: Duration) {
        let Self { listener, address } = self;
        info!(%address, "serving HTTP");
        pages.probe.set_healthy(Ok(()));
        let probe = pages.probe.clone();
        let mut connections = OpenConnections::new("http", limits.connections, &pages.connections);
        let born = Instant::now();
        let web = pages.web.clone();
        let answer: Answer = Arc::new(move |path, headers| pages.answer(path, headers));
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                (stream, peer) = connections.next(&listener) => {
                    let activity = Activity::new(born);
                    let connection = Connection {
                        peer,
                        activity: activity.clone(),
                        answer: Arc::clone(&answer),
                        web: web.clone(),
                        limits,
                        closing: connections.closing(),
                    };
                    connections.spawn(Arc::new(activity), connection.serve(stream));
                }
            }
        }
        probe.shutdown();
        drop(listener);
        if !connections.drain(grace).await {
            warn!(
                grace_seconds = grace.as_secs_f64(),
                "closing HTTP connections that did not end within the grace period"
            );
        }
        probe.stopped();
    }
}

impl Pages {
    fn answer(&self, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match path {
            "/metrics" => self.metrics(headers),
            "/-/healthy" => verdict(self.probe.healthy()),
            "/-/ready" => {
                let mut response = verdict(self.probe.ready());
                response.headers_mut().insert(SHIPPING, header_text(&self.shipping));
                response
            }
            "/debug/calls" if let Some(running) = &self.running => plain(StatusCode::OK, running.dump(CALLS_MAX)),
            _ => match self.more.as_ref().and_then(|more| more.0(path)) {
                Some(page) => document(page, headers),
                None => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
            },
        }
    }

    /// `None` when a metric cannot be written.
    fn page(&self, format: Format) -> Option<Vec<u8>> {
        if format == Format::Protobuf {
            return prometheus_client::encoding::prometheus_protobuf::encode_to_vec(&self.registry).ok();
        }
        let mut openmetrics = String::new();
        prometheus_client::encoding::text::encode(&mut openmetrics, &self.registry).ok()?;
        Some(exposition::render(&openmetrics, format).into_bytes())
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let format = exposition::negotiate(joined(headers, ACCEPT).as_deref());
        let Some(body) = self.page(format) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n");
        };
        zipped(format.content_type(), body, headers)
    }
}

/// A page, which loads nothing and is not shown within another one.
fn document(page: Page, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = zipped(page.content_type, page.body.into_bytes(), headers);
    for (name, value) in [
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A good answer, compressed where that is worth it and the client takes it.
fn zipped(content_type: &'static str, body: Vec<u8>, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let takes_gzip = exposition::accepts_gzip(joined(headers, ACCEPT_ENCODING).as_deref());
    let zipped = (body.len() > GZIP_FROM && takes_gzip)
        .then(|| gzip(&body).ok())
        .flatten();
    let encoding = zipped.is_some().then_some(HeaderValue::from_static("gzip"));
    let mut response = Response::new(Full::new(Bytes::from(zipped.unwrap_or(body))));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if let Some(encoding) = encoding {
        response.headers_mut().insert(CONTENT_ENCODING, encoding);
    }
    response
}

fn verdict(state: Result<(), String>) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => plain(StatusCode::OK, "OK"),
        Err(reason) => {
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "NOT OK\n");
            response.headers_mut().insert(REASON, header_text(&reason));
            response
        }
    }
}

/// `text` as a header can carry it: one line of printable ASCII, cut at [`REASON_MAX`].
fn header_text(text: &str) -> HeaderValue {
    let clean: String = text
        .chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .take(REASON_MAX)
        .collect();
    HeaderValue::from_str(&clean).unwrap_or(HeaderValue::from_static("unknown"))
}

/// All headers of one name as one list.
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Fast rather than small: the page is short, and whoever scrapes is near.
fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_header_whatever_it_says() {
        assert_eq!(
            header_text("prometheus: connection refused"),
            "prometheus: connection refused"
        );
        assert_eq!(header_text("a\r\nSet-Cookie: b\u{fc}"), "a??Set-Cookie: b?");
        assert_eq!(header_text(&"x".repeat(5000)).len(), REASON_MAX);
    }
}
