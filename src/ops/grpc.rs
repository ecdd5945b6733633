//! The gRPC server: HTTP/2 connections, TLS, and one layer around every call. It knows no service of its own but health
//! and reflection; whoever starts it brings the services.
//!
//! - [`bind`] reserves the port; connections are refused until [`Bound::listen`], and answered by [`Server::serve`].
//! - A connection has no limit on its calls that an honest client can meet ([`STREAMS`]), headers of up to 16 MiB as in
//!   grpc-go, and is pinged when it was quiet for [`Limits::ping_after`], so that a dead client is found. Pings of clients
//!   are always answered, however many come.
//! - A connection that does not finish TLS and the opening of HTTP/2 within [`Limits::handshake`] is dropped. When there
//!   are [`Limits::connections`], the one without calls that was of no use for longest makes room; if all have calls, the
//!   new one is closed.
//! - A connection older than [`Settings::max_connection_age`] (each with up to 10 % more or less, by chance) is told to go
//!   away; its running calls may finish, however long they take.
//! - On the token the port closes, all connections are told to go away, and what still runs after the grace period is
//!   cut. Dropping the future of `serve` cuts all connections at once.
//! - What is done around each call (compression, deadline, panics, metrics, log) is told in the module `call`.
//! - A message of a request may be as long as the service that decodes it allows, which is tonic's 4 MiB unless
//!   [`MESSAGE_MAX`] is set at it with `max_decoding_message_size`, as it should be.
//!
//! Everything is spawned on the runtime in which `serve` is polled; on a current-thread runtime one thread does it all.

use std::{collections::HashMap, convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower_service::Service;
use tracing::{debug, info, warn};

use super::listen::{self, BindError, Reserved};

use self::{
    call::Calls,
    connection::{Usage, converse},
};
pub use self::{
    health::health,
    log::{CallLog, CallLogError},
    metrics::{Kind, Method, Metrics, methods},
    reflection::{ReflectionError, reflection},
    running::Caller,
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
mod stream;
mod tls;

/// The longest message of a request, in bytes: for `max_decoding_message_size` of the services, and for a compressed
/// message once it is decompressed.
pub const MESSAGE_MAX: usize = 64 << 20;

/// Calls at once on one connection: more than a client that means well has, and yet a bound.
pub const STREAMS: u32 = 1 << 20;

/// How long to wait after the kernel refused us a connection, as when there are no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the connection to the end of the TLS handshake and of HTTP/2's opening.
    pub handshake: Duration,
    /// How long a connection may be quiet before it is pinged.
    pub ping_after: Duration,
    /// How long the answer to a ping may take.
    pub ping_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            // Thanos waits for two hours; until then the calls of a dead client would hold what they hold.
            ping_after: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
            connections: 4096,
        }
    }
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// With TLS, and how; without if `None`.
    pub tls: Option<Tls>,
    /// When a connection is told to go away; zero means never.
    pub max_connection_age: Duration,
    /// What is counted, and for which methods.
    pub metrics: Metrics,
    /// Which calls are logged, if any.
    pub log: Option<CallLog>,
    /// What clients may cost.
    pub limits: Limits,
}

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
        let mut connections = Connections::new(service, settings);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                Some(ended) = connections.tasks.join_next_with_id() => connections.forget(ended),
                accepted = listener.accept() => connections.accepted(accepted).await,
            }
        }
        drop(listener);
        if !connections.drain(grace).await {
            warn!(
                grace_seconds = grace.as_secs_f64(),
                "cutting gRPC calls that did not end within the grace period"
            );
        }
    }
}

/// The connections that are open.
struct Connections<S> {
    service: S,
    settings: Arc<Settings>,
    born: Instant,
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<Usage>)>,
    closing: CancellationToken,
}

impl<S> Connections<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    fn new(service: S, settings: Settings) -> Self {
        Self {
            service,
            settings: Arc::new(settings),
            born: Instant::now(),
            tasks: JoinSet::new(),
            open: HashMap::new(),
            closing: CancellationToken::new(),
        }
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => self.take(stream, peer),
            Err(error) => {
                warn!(%error, "cannot accept a gRPC connection; trying again");
                self.evict();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.open.len() >= self.settings.limits.connections && !self.evict() {
            debug!(%peer, "closing a new gRPC connection: there are too many, and all have calls");
            return;
        }
        let usage = Arc::new(Usage::new(self.born));
        let calls = Calls::new(
            self.service.clone(),
            Arc::clone(&self.settings),
            Arc::clone(&usage),
            peer,
        );
        let connection = converse(stream, peer, calls, Arc::clone(&self.settings), self.closing.clone());
        let handle = self.tasks.spawn(connection);
        self.open.insert(handle.id(), (handle, usage));
    }

    /// Closes the connection without calls that was of no use for longest; whether there was one.
    fn evict(&mut self) -> bool {
        let oldest = self
            .open
            .iter()
            .filter(|(_, (_, usage))| usage.is_idle())
            .min_by_key(|(_, (_, usage))| usage.last_ms())
            .map(|(id, _)| *id);
        let Some((handle, _)) = oldest.and_then(|id| self.open.remove(&id)) else {
            return false;
        };
        handle.abort();
        true
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    warn!(%error, "a gRPC connection panicked");
                }
                error.id()
            }
        };
        self.open.remove(&id);
    }

    /// Tells all connections to go away and waits for their calls; whether they ended within `grace`.
    async fn drain(&mut self, grace: Duration) -> bool {
        self.closing.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let ended = timeout(grace, all).await.is_ok();
        // Waits for the drops, which wake the calls: they end when they find their connection gone.
        self.tasks.shutdown().await;
        ended
    }
}
