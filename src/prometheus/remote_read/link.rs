//! The connections over which long answers come: HTTP/1.1 by hyper, driven by whoever reads the answer.
//!
//! A connection belongs to one call at a time and is polled within that call's own task: a long answer costs no hop
//! between tasks. A call that is dropped closes its connection at once, and Prometheus sees that. A connection whose
//! answer was read to its end waits for the next call; one that the server has closed meanwhile is thrown away, and the
//! call starts afresh.

mod dial;

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
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::tide::Tide;
use crate::prometheus::error::ErrorKind;

/// The most that is read at once, in bytes.
const READ_AT_ONCE: usize = 128 << 10;
/// How often connections that wait are looked at.
const SWEEP: Duration = Duration::from_secs(30);

const ENDED: &str = "the connection has ended";

type Wire = TokioIo<Either<Tide, TlsStream<Tide>>>;

/// Where connections go and how they are made.
#[derive(Debug)]
pub(in crate::prometheus) struct Target {
    /// A name or an address, without brackets.
    pub(in crate::prometheus) host: String,
    pub(in crate::prometheus) port: u16,
    /// The TLS configuration and the name that the certificate must have.
    pub(in crate::prometheus) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// For address, connection and TLS together.
    pub(in crate::prometheus) connect_timeout: Option<Duration>,
    /// Connections that may wait.
    pub(in crate::prometheus) idle_connections: usize,
    /// How long one may wait.
    pub(in crate::prometheus) idle_timeout: Option<Duration>,
}

/// All connections to one server.
#[derive(Debug)]
pub(in crate::prometheus) struct Link {
    target: Target,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    lines: Vec<(Line, Instant)>,
    /// Somebody looks after those that wait.
    swept: bool,
}

/// One connection.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<Wire, Full<Bytes>>,
}

/// Why a connection brought no answer.
enum Lost {
    /// It had ended before the question was written.
    Unasked(String),
    /// The question may have been read.
    Asked(String),
}

/// The body of an answer.
#[derive(Debug)]
pub(in crate::prometheus) struct Body {
    incoming: Incoming,
    /// `None` once it is at its end.
    line: Option<Line>,
    link: Arc<Link>,
}

impl Link {
    pub(in crate::prometheus) fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::default(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(in crate::prometheus) async fn send(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Body), ErrorKind> {
        while let Some(line) = self.take() {
            match self.converse(line, request.clone()).await {
                Ok(answer) => return Ok(answer),
                // The server had closed it.
                Err(Lost::Unasked(_)) => {}
                // It closes it now, most likely: once more, over a connection that is fresh.
                Err(Lost::Asked(_)) => break,
            }
        }
        let line = self.connect().await?;
        self.converse(line, request)
            .await
            .map_err(|(Lost::Asked(why) | Lost::Unasked(why))| ErrorKind::Unreachable(why))
    }

    /// Sends a request over a connection, and waits for the head of the answer.
    async fn converse(self: &Arc<Self>, mut line: Line, request: Request<Full<Bytes>>) -> Result<(Parts, Body), Lost> {
        // An end in good order, as of a connection that the server closed while it waited, is one, too: nobody would
        // answer any more, and hyper takes the question all the same.
        let ended = |ended: hyper::Result<()>| ended.map_or_else(|error| innermost(&error), |()| ENDED.to_owned());
        let failed = |error: hyper::Error| innermost(&error);
        std::future::poll_fn(|cx| match Pin::new(&mut line.connection).poll(cx) {
            Poll::Ready(end) => Poll::Ready(Err(ended(end))),
            Poll::Pending => line.sender.poll_ready(cx).map_err(failed),
        })
        .await
        .map_err(Lost::Unasked)?;
        let mut answer = std::pin::pin!(line.sender.send_request(request));
        let connection = &mut line.connection;
        let response = std::future::poll_fn(|cx| {
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(response.map_err(failed));
            }
            let end = Pin::new(&mut *connection).poll(cx);
            // It may just have brought the answer, also as the last thing that it did.
            match (answer.as_mut().poll(cx), end) {
                (Poll::Ready(response), _) => Poll::Ready(response.map_err(failed)),
                (Poll::Pending, Poll::Ready(end)) => Poll::Ready(Err(ended(end))),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await
        .map_err(Lost::Asked)?;
        let (parts, incoming) = response.into_parts();
        let link = Arc::clone(self);
        let line = Some(line);
        Ok((parts, Body { incoming, line, link }))
    }

    async fn connect(&self) -> Result<Line, ErrorKind> {
        let Some(limit) = self.target.connect_timeout else {
            return self.connect_at_leisure().await;
        };
        let connected = tokio::time::timeout(limit, self.connect_at_leisure()).await;
        connected.unwrap_or(Err(ErrorKind::Timeout(limit)))
    }

    async fn connect_at_leisure(&self) -> Result<Line, ErrorKind> {
        let failed = |error: io::Error| ErrorKind::Unreachable(error.to_string());
        let stream = dial::dial(&self.target.host, self.target.port).await?;
        // Without it a question could wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let tide = Tide::new(stream);
        let wire = match &self.target.tls {
            None => Either::Left(tide),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Either::Right(connector.connect(name.clone(), tide).await.map_err(failed)?)
            }
        };
        let made = Builder::new()
            .max_buf_size(READ_AT_ONCE)
            .handshake(TokioIo::new(wire))
            .await;
        let (sender, connection) = made.map_err(|error| ErrorKind::Unreachable(innermost(&error)))?;
        Ok(Line { sender, connection })
    }

    fn take(&self) -> Option<Line> {
        let mut idle = self.lock();
        idle.forget_old(self.target.idle_timeout);
        idle.lines.pop().map(|(line, _)| line)
    }

    fn park(self: &Arc<Self>, line: Line) {
        let mut idle = self.lock();
        if line.sender.is_closed() || idle.lines.len() >= self.target.idle_connections {
            return;
        }
        idle.lines.push((line, Instant::now()));
        if !idle.swept && self.target.idle_timeout.is_some() {
            idle.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn forget_old(&mut self, limit: Option<Duration>) {
        if let Some(limit) = limit {
            self.lines.retain(|(_, since)| since.elapsed() < limit);
        }
    }
}

/// Closes connections that wait for too long, until none waits.
async fn sweep(link: Weak<Link>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(link) = link.upgrade() else { return };
        let mut idle = link.lock();
        idle.forget_old(link.target.idle_timeout);
        if idle.lines.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

impl Body {
    /// The next piece of the body; `None` at its end, as HTTP tells it.
    pub(in crate::prometheus) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        loop {
            if let Poll::Ready(piece) = self.poll_incoming(cx) {
                return Poll::Ready(piece);
            }
            let Some(line) = &mut self.line else {
                return Poll::Ready(Some(Err(ErrorKind::Cut(ENDED.to_owned()))));
            };
            let ended = Pin::new(&mut line.connection).poll(cx);
            if ended.is_ready() {
                // What it has brought before it ended is in `incoming`.
                self.line = None;
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
                    // Trailers tell nothing.
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    self.line = None;
                    Some(Err(ErrorKind::Cut(innermost(&error))))
                }
                None => {
                    self.at_end(cx);
                    None
                }
            });
        }
    }

    /// Gives the connection to whoever comes next.
    fn at_end(&mut self, cx: &mut Context<'_>) {
        if let Some(mut line) = self.line.take()
            && Pin::new(&mut line.connection).poll(cx).is_pending()
        {
            self.link.park(line);
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
