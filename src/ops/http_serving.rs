//! How one HTTP connection is served: with TLS or without, HTTP/1 or HTTP/2, and each request held to what
//! `--http.config` asks for.
//!
//! Dropping the future closes the connection at once. Nothing waits for ever: see [`Limits`].

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{TryFutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    http_connection::{Activity, HeadTimeout},
    http_progress::{Progress, Sliced, Times},
    stall::{self, WriteTimeout},
    web::Web,
};

/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Requests at once on one connection of HTTP/2: a scraper has one or two.
const STREAMS: u32 = 4;

/// What of an answer on HTTP/2 waits to be sent, in bytes, once the rest has been.
const SEND_BUFFER: usize = 16 * 1024;

/// What is said to a client that does not use TLS, as servers in Go do.
const NEEDS_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a request's head to its last, and for the handshake of TLS.
    pub head: Duration,
    /// How long an answer may make no progress.
    pub stall: Duration,
    /// How long the kernel lets sent bytes stay unacknowledged.
    pub unacknowledged: Duration,
    /// How long a connection may stay open without a request.
    pub idle: Duration,
    /// Connections at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            unacknowledged: stall::UNACKNOWLEDGED,
            // Longer than common scrape intervals, so that a scraper keeps its connection.
            idle: Duration::from_secs(150),
            connections: 512,
        }
    }
}

/// Gives the answer to a path with headers.
pub(super) type Answer = Arc<dyn Fn(&str, &HeaderMap) -> Response<Full<Bytes>> + Send + Sync>;

/// One connection, before anything was read from it.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) activity: Activity,
    pub(super) answer: Answer,
    /// What `--http.config` asks for, if it was given.
    pub(super) web: Option<Web>,
    pub(super) limits: Limits,
    /// Cancelled when the connection must come to its end.
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Serves until the client closes the connection, or until it is to come to its end and has no request under way.
    pub(super) async fn serve(self, stream: TcpStream) {
        let peer = self.peer;
        if let Err(error) = stall::prepare(&stream, self.limits.unacknowledged) {
            debug!(%peer, %error, "an HTTP connection closed before it was set up");
            return;
        }
        let ended = match self.web.clone().filter(Web::has_tls) {
            None => self.http1(stream).await,
            Some(web) => {
                let Some(stream) = self.secured(stream, &web).await else {
                    return;
                };
                match stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    true => self.http2(stream).await,
                    false => self.http1(stream).await,
                }
            }
        };
        if let Err(error) = ended {
            // Port scans, aborted clients, slow ones: no fault of this server.
            debug!(%peer, error = &error as &dyn std::error::Error, "an HTTP connection failed");
        }
    }

    /// The stream through TLS; `None` when its handshake failed.
    async fn secured(&self, mut stream: TcpStream, web: &Web) -> Option<TlsStream<WriteTimeout<TcpStream>>> {
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await.is_ok_and(|read| read == 1) && first[0].is_ascii_uppercase() {
                // It closes anyway: that it cannot be told so is no news.
                let _ = tell_and_close(&mut stream, NEEDS_TLS).await;
                return Err("the client does not use TLS: write https in its configuration".to_owned());
            }
            let tls = web.tls().await.ok_or_else(|| "TLS is switched off".to_owned())?;
            let stream = WriteTimeout::new(stream, self.limits.stall);
            let accepted = TlsAcceptor::from(tls).accept(stream).await;
            accepted.map_err(|error| error.to_string())
        };
        let problem = match timeout(self.limits.head, handshake).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(problem)) => problem,
            Err(_) => "it took too long".to_owned(),
        };
        if let Some(suppressed) = web.handshakes().check() {
            warn!(peer = %self.peer, problem, suppressed, "a TLS handshake with an HTTP client failed");
        }
        None
    }

    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) -> hyper::Result<()> {
        let Self { limits, closing, .. } = &self;
        let (limits, closing) = (*limits, closing.clone());
        let guarded = HeadTimeout::new(stream, self.activity.clone(), limits.head, limits.stall);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Runs from the moment a connection has nothing to do; the head's own limit is in `HeadTimeout`.
            .header_read_timeout(limits.idle)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(guarded), service_fn(self.service()));
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) -> hyper::Result<()> {
        let (limits, closing) = (self.limits, self.closing.clone());
        let progress = Arc::new(Progress::new(Times {
            head: limits.head,
            stall: limits.stall,
            idle: limits.idle,
        }));
        let service = self.service();
        let tracked = Arc::clone(&progress);
        let service = service_fn(move |request| {
            let request_open = Progress::begin(&tracked);
            service(request).map_ok(|answer| answer.map(|body| Sliced::new(body, request_open)))
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            // Far below the limit of the number.
            .max_header_list_size(HEAD_MAX as u32)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
            // Dropped, and so closed.
            () = progress.none() => return Ok(()),
        }
        tokio::select! {
            ended = connection => ended,
            () = progress.none() => Ok(()),
        }
    }

    fn service(self) -> impl Fn(Request<Incoming>) -> BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>> {
        let Self {
            peer,
            activity,
            answer,
            web,
            ..
        } = self;
        move |request| {
            activity.request();
            let Some(web) = web.clone() else {
                let answer = answer(request.uri().path(), request.headers());
                return Box::pin(std::future::ready(Ok(answer)));
            };
            let answer = Arc::clone(&answer);
            Box::pin(async move {
                let mut response = match web.refusal(request.headers(), peer.ip()).await {
                    None => answer(request.uri().path(), request.headers()),
                    Some((status, text)) => refusal(status, text),
                };
                web.complete(&mut response);
                Ok(response)
            })
        }
    }
}

/// Sends the last that there is to say, and reads on until the client has closed: what is unread when a connection closes
/// makes the kernel reset it, and the client may lose what was said. For as long as the caller allows.
async fn tell_and_close(stream: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    let mut left: usize = 16 * unread.len();
    while left > 0 {
        match stream.read(&mut unread).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
