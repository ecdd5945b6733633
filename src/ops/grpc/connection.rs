//! One connection: its handshake, its age, and its end.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower_service::Service;
use tracing::debug;

use super::{
    call::Calls,
    settings::{STREAMS, Settings},
    stream::{Opening, Stream},
    tls::Failure,
};
use crate::ops::stall::{self, WriteTimeout};

/// The longest list of headers, in bytes, as in grpc-go.
const HEADERS_MAX: u32 = 16 << 20;
/// What one call may hold ready to be sent, in bytes: enough to keep a fast network busy between two polls of the body.
const SEND_BUFFER: usize = 256 << 10;
/// What a client may send ahead of being read: on one call, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Calls that a client may reset before they were accepted. More is an attack (rapid reset).
const TAKEN_BACK: usize = 1024;

/// Serves one connection until the client closes it, or until it was sent GOAWAY and its calls have ended.
pub(super) async fn serve_connection<S>(
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
    if let Err(error) = stall::prepare(&stream, settings.limits.unacknowledged) {
        debug!(%peer, %error, "a gRPC connection closed before it was set up");
        return;
    }
    // Below TLS: what counts is that the process of the client reads from its kernel.
    let stream = WriteTimeout::new(stream, settings.limits.stall);
    let Some(stream) = secured(stream, peer, &settings, opened_by).await else {
        return;
    };
    let stream = Opening::new(stream, opened_by);
    let connection = builder(&calls, &settings).serve_connection(TokioIo::new(stream), calls);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until_goaway(settings.max_connection_age, &closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Port scans, aborted clients, dead ones: no fault of this server.
        debug!(%peer, error = &error as &dyn std::error::Error, "a gRPC connection failed");
    }
}

/// The stream to talk on: through TLS if that is asked for; `None` when its handshake failed.
async fn secured(
    stream: WriteTimeout<TcpStream>,
    peer: SocketAddr,
    settings: &Settings,
    by: Instant,
) -> Option<Stream> {
    let Some(tls) = &settings.tls else {
        return Some(Stream::Plain(stream));
    };
    let handshake = async { TlsAcceptor::from(tls.config().await).accept(stream).await };
    let failure = match timeout_at(by, handshake).await {
        Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Failure::of(&error),
        Err(_) => Failure::too_slow(),
    };
    settings.metrics.handshake_failed(&failure);
    failure.log(peer, tls.log_limit(failure.reason));
    None
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
        // It has no use in gRPC.
        .auto_date_header(false);
    builder
}

/// Returns when the connection must be sent GOAWAY.
async fn until_goaway(max_age: Duration, closing: &CancellationToken) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
