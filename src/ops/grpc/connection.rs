//! One connection: its opening in time, its age, and its end.

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower_service::Service;
use tracing::debug;

use super::{STREAMS, Settings, call::Calls};

/// The longest list of headers, in bytes, as in grpc-go.
const HEADERS_MAX: u32 = 16 << 20;
/// What one call may hold ready to be sent, in bytes: enough to keep a fast line busy between two looks at the body.
const SEND_BUFFER: usize = 256 << 10;
/// What a client may send ahead of being read: on one call, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Calls that a client may take back before we have looked at them. More, and it means harm (rapid reset).
const TAKEN_BACK: usize = 1024;
/// The opening of HTTP/2 from a client: its fixed text and an empty frame of settings.
const OPENING: usize = 24 + 9;

/// What a connection and the server tell each other.
#[derive(Debug)]
pub(super) struct Usage {
    born: Instant,
    running: AtomicUsize,
    last_ms: AtomicU64,
}

impl Usage {
    /// A connection that was made when the server, born at `born`, accepted it now.
    pub(super) fn new(born: Instant) -> Self {
        let usage = Self {
            born,
            running: AtomicUsize::new(0),
            last_ms: AtomicU64::new(0),
        };
        usage.touch();
        usage
    }

    /// A call has begun.
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended, for whatever reason.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    /// Whether there is no call.
    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }

    /// When the last call ended, in ms on the server's own clock; before the first, when the connection was made.
    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let age = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(age, Ordering::Relaxed);
    }
}

/// Serves one connection until the client leaves, or until it is told to go away and its calls have ended.
pub(super) async fn converse<S>(
    stream: TcpStream,
    peer: SocketAddr,
    calls: Calls<S>,
    settings: Arc<Settings>,
    closing: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let opened_by = Instant::now() + settings.limits.handshake;
    // Small messages must not wait for the answer to the one before.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "a gRPC connection ended at once");
        return;
    }
    let stream = Opening::new(stream, opened_by);
    let connection = builder(&calls, &settings).serve_connection(TokioIo::new(stream), calls);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until_told(settings.max_connection_age, &closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Port scans, cut clients, dead ones: nobody's mistake here.
        debug!(%peer, error = &error as &dyn std::error::Error, "a gRPC connection ended early");
    }
}

fn builder<S: Clone>(calls: &Calls<S>, settings: &Settings) -> http2::Builder<super::deadline::Spawner> {
    let mut builder = http2::Builder::new(calls.spawner());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(settings.limits.ping_after)
        .keep_alive_timeout(settings.limits.ping_timeout)
        // Nobody reads it in gRPC.
        .auto_date_header(false);
    builder
}

/// Returns when the connection must be told to go away.
async fn until_told(max_age: Duration, closing: &CancellationToken) {
    let old = async {
        if max_age.is_zero() {
            pending().await
        } else {
            sleep(with_chance(max_age)).await
        }
    };
    tokio::select! {
        () = old => {}
        () = closing.cancelled() => {}
    }
}

/// `age` and up to 10 % more or less, so that connections made at once do not all end at once.
fn with_chance(age: Duration) -> Duration {
    age.mul_f64(rand::random_range(0.9..=1.1))
}

/// A stream whose reads fail with `TimedOut` when the opening of HTTP/2 is not in by its time.
#[derive(Debug)]
struct Opening<S> {
    stream: S,
    /// Until the opening is in: the bytes that came, and the end of its time.
    open: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Opening<S> {
    fn new(stream: S, by: Instant) -> Self {
        Self {
            stream,
            open: Some((0, Box::pin(sleep_until(by)))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((came, timer)) = &mut this.open else {
            return read;
        };
        *came += buf.filled().len() - before;
        if *came >= OPENING {
            this.open = None;
        } else if timer.as_mut().poll(cx).is_ready() {
            let late = "the client took too long over the opening of HTTP/2";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_drips_is_cut_and_one_that_is_in_is_left_alone() {
        let by = Instant::now() + Duration::from_secs(10);
        let (mut client, server) = duplex(64);
        let mut slow = Opening::new(server, by);
        client.write_all(&[0; OPENING - 1]).await.unwrap();
        let mut all = Vec::new();
        let late = slow.read_to_end(&mut all).await.unwrap_err();
        assert_eq!((late.kind(), all.len()), (io::ErrorKind::TimedOut, OPENING - 1));

        let (mut client, server) = duplex(64);
        let mut fast = Opening::new(server, Instant::now() + Duration::from_secs(10));
        client.write_all(&[0; OPENING]).await.unwrap();
        fast.read_exact(&mut [0; OPENING]).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        client.write_all(&[0]).await.unwrap();
        fast.read_exact(&mut [0]).await.unwrap();
    }

    #[test]
    fn the_age_of_a_connection_varies_by_a_tenth() {
        let ages: Vec<Duration> = (0..1000).map(|_| with_chance(Duration::from_secs(100))).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(
            *least >= Duration::from_secs(90) && *least < Duration::from_secs(92),
            "{least:?}"
        );
        assert!(
            *most <= Duration::from_secs(110) && *most > Duration::from_secs(108),
            "{most:?}"
        );
    }
}
