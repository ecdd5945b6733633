//! The gRPC server: HTTP/2 connections, TLS, and one layer around every call. It knows no service of its own but health
//! and reflection; whoever starts it brings the services.
//!
//! - [`bind`] reserves the port; connections are refused until [`Bound::listen`], and answered by [`Server::serve`].
//! - A connection has no limit on its calls that an honest client can meet ([`STREAMS`]), headers of up to 16 MiB as in
//!   grpc-go, and is pinged when it was quiet for [`Limits::ping_after`], so that a dead client is found. Pings of
//!   clients are always answered, however many come.
//! - A client that stops reading while bytes for it wait is given up after [`Limits::stall`], with all its calls.
//! - A connection that does not finish TLS and the opening of HTTP/2 within [`Limits::handshake`] is dropped. When
//!   there are [`Limits::connections`], one makes room: of those without calls the one that was of no use for longest,
//!   else of those whose calls made no progress for [`Limits::patience`] the one that made none for longest; if there
//!   is none, the new one is closed.
//! - A connection older than [`Settings::max_connection_age`] (each with up to 10 % more or less, by chance) is told to
//!   go away; its running calls may finish, however long they take.
//! - On the token the port closes, all connections are told to go away, and what still runs after the grace period is
//!   cut. Dropping the future of `serve` cuts all connections at once.
//! - What is done around each call (compression, deadline, panics, metrics, log) is told in the module `call`.
//! - A message of a request may be as long as the service that decodes it allows, which is tonic's 4 MiB unless
//!   [`MESSAGE_MAX`] is set at it with `max_decoding_message_size`, as it should be.
//!
//! Everything is spawned on the runtime in which `serve` is polled; on a current-thread runtime one thread does it all.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower_service::Service;
use tracing::{info, warn};

use super::{
    connections::OpenConnections,
    listen::{self, BindError, Reserved},
};

use self::{call::Calls, connection::serve_connection, usage::Usage};
pub use self::{
    health::health,
    log::{CallLog, CallLogError},
    metrics::{Kind, Method, Metrics, methods},
    reflection::{ReflectionError, reflection},
    running::{CallView, Caller, Running},
    settings::{Limits, MESSAGE_MAX, STREAMS, Settings},
    tls::{Tls, TlsError, TlsFlags, TlsVersion},
};

mod call;
mod codec;
mod connection;
mod deadline;
mod health;
mod log;
mod messages;
mod metrics;
mod reflection;
mod request;
mod running;
mod settings;
mod span;
mod stream;
mod tls;
mod usage;

/// A port that is ours and refuses connections.
#[derive(Debug)]
pub struct Bound(Reserved);

/// A port that takes connections, and does not answer on them yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// Reserves `address` (`host:port`; an empty host means all addresses); the error names it and `flag`.
///
/// # Errors
/// The address cannot be resolved, or the port is taken or not allowed.
pub async fn bind(address: &str, flag: &'static str) -> Result<Bound, BindError> {
    Ok(Bound(listen::reserve(address, flag).await?))
}

impl Bound {
    /// The address that is reserved: with the real port where 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.0.local_address()
    }

    /// Opens the port, on the runtime that [`Server::serve`] is to be polled in.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub fn listen(self) -> Result<Server, BindError> {
        let address = self.local_address();
        let listener = self.0.listen()?;
        Ok(Server { listener, address })
    }
}

impl Server {
    /// Serves until `token` is cancelled, then for at most `grace` more (zero cuts all calls at once).
    ///
    /// `service` is cloned for every call and must always be ready, as `tonic::service::Routes` is.
    pub async fn serve<S>(self, service: S, settings: Settings, token: CancellationToken, grace: Duration)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let Self { listener, address } = self;
        info!(%address, "serving gRPC");
        let settings = Arc::new(settings);
        let limits = settings.limits;
        let mut connections = OpenConnections::new("grpc", limits.connections, &settings.connections);
        let born = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                (stream, peer) = connections.next(&listener) => {
                    let usage = Arc::new(Usage::new(born, limits.patience));
                    let calls = Calls::new(service.clone(), Arc::clone(&settings), Arc::clone(&usage), peer);
                    let closing = connections.closing();
                    connections.spawn(usage, serve_connection(stream, peer, calls, Arc::clone(&settings), closing));
                }
            }
        }
        drop(listener);
        if !connections.drain(grace).await {
            warn!(
                grace_seconds = grace.as_secs_f64(),
                "aborting gRPC calls that did not end within the grace period"
            );
        }
    }
}
