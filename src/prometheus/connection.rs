//! A pool of HTTP/1.1 connections for long responses, driven by the task that reads the response.
//!
//! A connection belongs to one call at a time and is polled within the task of that call, so that a long response needs
//! no hop between tasks. Dropping a call closes its connection at once, which Prometheus notices. A connection whose
//! response was read to its end returns to the pool. If the server has closed it meanwhile, the request is sent over a
//! new one.

mod dial;
mod low_water_mark;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, response::Parts};
use http_body::Body as _;
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use self::low_water_mark::LowWaterStream;
use super::error::ErrorKind;

/// The most that is read at once, in bytes.
const READ_AT_ONCE: usize = 128 << 10;
/// How often connections that wait are looked at.
const SWEEP: Duration = Duration::from_secs(30);

const ENDED: &str = "the connection has ended";

type Wire = TokioIo<Either<LowWaterStream, TlsStream<LowWaterStream>>>;

/// Where connections go and how they are made.
#[derive(Debug)]
pub(super) struct Target {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The TLS configuration and the name that the certificate must have.
    pub(super) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// For address, connection and TLS together.
    pub(super) connect_timeout: Option<Duration>,
    /// Connections that may wait.
    pub(super) idle_connections: usize,
    /// How long one may wait.
    pub(super) idle_timeout: Option<Duration>,
}

/// All connections to one server.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    target: Target,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<(Connection, Instant)>,
    /// A task closes those that are idle for too long.
    is_swept: bool,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves bytes when it is polled.
    driver: http1::Connection<Wire, Full<Bytes>>,
}

/// Why a connection brought no answer.
enum SendFailure {
    /// It had ended before the request was written.
    BeforeRequest(ErrorKind),
    /// The request may have been read.
    AfterRequest(ErrorKind),
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    incoming: Incoming,
    /// `None` once it is at its end.
    connection: Option<Connection>,
    pool: Arc<ConnectionPool>,
}

impl ConnectionPool {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::default(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(self: &Arc<Self>, request: Request<Full<Bytes>>) -> Result<(Parts, Body), ErrorKind> {
        while let Some(connection) = self.take_idle() {
            match self.exchange(connection, request.clone()).await {
                Ok(answer) => return Ok(answer),
                // The server had closed it.
                Err(SendFailure::BeforeRequest(_)) => {}
                // It closes it now, most likely: once more, over a connection that is fresh.
                Err(SendFailure::AfterRequest(_)) => break,
            }
        }
        let connection = self.connect().await?;
        self.exchange(connection, request)
            .await
            .map_err(|(SendFailure::AfterRequest(kind) | SendFailure::BeforeRequest(kind))| kind)
    }

    /// Sends a request over a connection, and waits for the head of the answer.
    async fn exchange(
        self: &Arc<Self>,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Body), SendFailure> {
        // A clean end, as of a connection that the server closed while it was idle, is a failure, too: nobody would
        // respond any more, and hyper accepts the request all the same.
        let secure = self.target.tls.is_some();
        let failed = |error: hyper::Error| ErrorKind::from_http(&error, secure);
        let ended = |ended: hyper::Result<()>| ended.map_or_else(failed, |()| ErrorKind::Unreachable(ENDED.to_owned()));
        std::future::poll_fn(|cx| match Pin::new(&mut connection.driver).poll(cx) {
            Poll::Ready(end) => Poll::Ready(Err(ended(end))),
            Poll::Pending => connection.sender.poll_ready(cx).map_err(failed),
        })
        .await
        .map_err(SendFailure::BeforeRequest)?;
        let mut answer = std::pin::pin!(connection.sender.send_request(request));
        let driver = &mut connection.driver;
        let response = std::future::poll_fn(|cx| {
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(response.map_err(failed));
            }
            let end = Pin::new(&mut *driver).poll(cx);
            // It may just have brought the answer, also as the last thing that it did.
            match (answer.as_mut().poll(cx), end) {
                (Poll::Ready(response), _) => Poll::Ready(response.map_err(failed)),
                (Poll::Pending, Poll::Ready(end)) => Poll::Ready(Err(ended(end))),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await
        .map_err(SendFailure::AfterRequest)?;
        let (parts, incoming) = response.into_parts();
        let pool = Arc::clone(self);
        let connection = Some(connection);
        Ok((
            parts,
            Body {
                incoming,
                connection,
                pool,
            },
        ))
    }

    async fn connect(&self) -> Result<Connection, ErrorKind> {
        let Some(limit) = self.target.connect_timeout else {
            return self.connect_without_limit().await;
        };
        let connected = tokio::time::timeout(limit, self.connect_without_limit()).await;
        connected.unwrap_or(Err(ErrorKind::Timeout(limit)))
    }

    async fn connect_without_limit(&self) -> Result<Connection, ErrorKind> {
        let failed = |error: io::Error| ErrorKind::from_handshake(&error);
        let stream = dial::dial(&self.target.host, self.target.port).await?;
        // Without it a request could wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let stream = LowWaterStream::new(stream);
        let wire = match &self.target.tls {
            None => Either::Left(stream),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Either::Right(connector.connect(name.clone(), stream).await.map_err(failed)?)
            }
        };
        let made = Builder::new()
            .max_buf_size(READ_AT_ONCE)
            .handshake(TokioIo::new(wire))
            .await;
        let (sender, driver) = made.map_err(|error| ErrorKind::Unreachable(innermost(&error)))?;
        Ok(Connection { sender, driver })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.lock();
        idle.close_expired(self.target.idle_timeout);
        idle.connections.pop().map(|(connection, _)| connection)
    }

    fn keep_idle(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.lock();
        if connection.sender.is_closed() || idle.connections.len() >= self.target.idle_connections {
            return;
        }
        idle.connections.push((connection, Instant::now()));
        if !idle.is_swept && self.target.idle_timeout.is_some() {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn close_expired(&mut self, limit: Option<Duration>) {
        if let Some(limit) = limit {
            self.connections.retain(|(_, since)| since.elapsed() < limit);
        }
    }
}

/// Closes connections that wait for too long, until none waits.
async fn sweep(pool: Weak<ConnectionPool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.lock();
        idle.close_expired(pool.target.idle_timeout);
        if idle.connections.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}

impl Body {
    /// The next piece of the body; `None` at its end, as HTTP marks it.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        loop {
            if let Poll::Ready(piece) = self.poll_incoming(cx) {
                return Poll::Ready(piece);
            }
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(Some(Err(ErrorKind::Cut(ENDED.to_owned()))));
            };
            let ended = Pin::new(&mut connection.driver).poll(cx);
            if ended.is_ready() {
                // What it has brought before it ended is in `incoming`.
                self.connection = None;
                continue;
            }
            return self.poll_incoming(cx);
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if piece.is_empty() => continue,
                    Ok(piece) => Some(Ok(piece)),
                    // Trailers are of no use.
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    self.connection = None;
                    Some(Err(ErrorKind::Cut(innermost(&error))))
                }
                None => {
                    self.at_end(cx);
                    None
                }
            });
        }
    }

    /// Returns the connection to the pool.
    fn at_end(&mut self, cx: &mut Context<'_>) {
        if let Some(mut connection) = self.connection.take()
            && Pin::new(&mut connection.driver).poll(cx).is_pending()
        {
            self.pool.keep_idle(connection);
        }
    }
}

/// The cause below hyper's own general words.
fn innermost(error: &hyper::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |&source| source.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests;
