//! The open connections of a port: accepted, counted, evicted, and drained; the same for HTTP and gRPC.
//!
//! - Nobody can keep others out: at the limit, the connection that was unused for longest is closed for a new one
//!   ([`Usage`] decides which may be closed); only if none may, the new one is closed.
//! - When the kernel cannot accept a connection for want of descriptors or memory, one is closed, too.
//! - All this is counted, and logged at most every 30 s, since strangers can cause it.
//!
//! Dropping [`OpenConnections`] closes all connections at once.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::log_limit::LogLimit;

/// Open files that are not for clients, in a process that may have many: for Prometheus, the store, blocks and the rest.
const RESERVE: usize = 256;

/// Connections at once that `open_files` have room for, of at most these many: of gRPC, and of HTTP, which is asked for probes and
/// must not be starved by the other.
pub fn within(open_files: Option<u64>, grpc: usize, http: usize) -> (usize, usize) {
    let files = usize::try_from(open_files.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let free = files - RESERVE.min(files / 2);
    let for_http = http.min(free / 8).max(1);
    let for_grpc = grpc.min(free - free / 8).max(1);
    if for_grpc < grpc {
        warn!(
            open_files = files,
            grpc = for_grpc,
            http = for_http,
            "the open file limit allows few connections; raise it (LimitNOFILE of systemd, ulimit -n) if more clients \
             connect"
        );
    }
    (for_grpc, for_http)
}

/// How long to wait after the kernel refused us a connection, as when there are no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is counted of connections, by server; clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    open: Family<Server, Gauge>,
    refused: Family<Server, Counter>,
    evicted: Family<Server, Counter>,
    accept_errors: Family<Server, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    server: &'static str,
}

impl Metrics {
    /// Registers the metrics, all zero, for both servers.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Family::default(),
            refused: Family::default(),
            evicted: Family::default(),
            accept_errors: Family::default(),
        };
        for server in ["http", "grpc"] {
            ServerMetrics::new(&metrics, server);
        }
        registry.register("narthex_connections_open", "Open connections", metrics.open.clone());
        registry.register(
            "narthex_connections_refused",
            "New connections that were closed because the limit was reached and every connection was in use",
            metrics.refused.clone(),
        );
        registry.register(
            "narthex_connections_evicted",
            "Connections that were closed to make room for new ones",
            metrics.evicted.clone(),
        );
        registry.register(
            "narthex_connection_accept_errors",
            "Connections that could not be accepted",
            metrics.accept_errors.clone(),
        );
        metrics
    }
}

/// The metrics of one server.
#[derive(Debug)]
struct ServerMetrics {
    open: Gauge,
    refused: Counter,
    evicted: Counter,
    accept_errors: Counter,
}

impl ServerMetrics {
    fn new(metrics: &Metrics, server: &'static str) -> Self {
        let server = Server { server };
        Self {
            open: metrics.open.get_or_create_owned(&server),
            refused: metrics.refused.get_or_create_owned(&server),
            evicted: metrics.evicted.get_or_create_owned(&server),
            accept_errors: metrics.accept_errors.get_or_create_owned(&server),
        }
    }
}

/// Which of the connections that may be closed for a new one goes first: the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether somebody waits for an answer on it.
    pub(super) busy: bool,
    /// When it was last of use, in ms on a clock that all connections of the port share.
    pub(super) last_ms: u64,
}

/// What a connection and its server share.
pub(super) trait Usage: Send + Sync + 'static {
    /// `None` for a connection that may not be closed for a new one.
    fn rank(&self) -> Option<Rank>;
}

/// The connections of a port that are open.
#[derive(Debug)]
pub(super) struct OpenConnections<U> {
    server: &'static str,
    limit: usize,
    counted: ServerMetrics,
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<U>)>,
    closing: CancellationToken,
    refusals: LogLimit,
    evictions: LogLimit,
    errors: LogLimit,
}

impl<U: Usage> OpenConnections<U> {
    /// None yet, of at most `limit` of the port of `server` (`http`, `grpc`).
    pub(super) fn new(server: &'static str, limit: usize, metrics: &Metrics) -> Self {
        Self {
            server,
            limit,
            counted: ServerMetrics::new(metrics, server),
            tasks: JoinSet::new(),
            open: HashMap::new(),
            closing: CancellationToken::new(),
            refusals: LogLimit::default(),
            evictions: LogLimit::default(),
            errors: LogLimit::default(),
        }
    }

    /// Cancelled when all connections must come to their end.
    pub(super) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// The next connection for which there is room. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id() => self.forget(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) if self.has_room(peer) => return (stream, peer),
                    Ok(_) => {}
                    Err(error) => self.not_accepted(&error).await,
                },
            }
        }
    }

    /// Runs a connection.
    pub(super) fn spawn(&mut self, usage: Arc<U>, connection: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(connection);
        self.open.insert(handle.id(), (handle, usage));
        self.update_gauge();
    }

    /// Tells all connections to come to their end and waits for them; whether they did within `grace`. Those that did not
    /// are cut.
    pub(super) async fn drain(&mut self, grace: Duration) -> bool {
        self.closing.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let ended = timeout(grace, all).await.is_ok();
        // Waits for the drops, which wake the calls: they end when they find their connection gone.
        self.tasks.shutdown().await;
        self.open.clear();
        self.update_gauge();
        ended
    }

    fn has_room(&mut self, peer: SocketAddr) -> bool {
        if self.open.len() < self.limit || self.evict() {
            return true;
        }
        self.counted.refused.inc();
        if let Some(suppressed) = self.refusals.check() {
            warn!(
                server = self.server, %peer, limit = self.limit, suppressed,
                "closing a new connection: the limit is reached and every connection is in use; look for clients that \
                 open a connection for each call"
            );
        }
        false
    }

    /// Closes the connection that was of least use; whether one may be.
    fn evict(&mut self) -> bool {
        let ranked = self.open.iter();
        let least = ranked
            .filter_map(|(id, (_, usage))| Some((usage.rank()?, *id)))
            .min_by_key(|(rank, _)| *rank);
        let Some((rank, (handle, _))) = least.and_then(|(rank, id)| Some((rank, self.open.remove(&id)?))) else {
            return false;
        };
        handle.abort();
        self.counted.evicted.inc();
        self.update_gauge();
        if let Some(suppressed) = self.evictions.check() {
            let why = match rank.busy {
                true => "its calls make no progress",
                false => "it is idle",
            };
            warn!(
                server = self.server,
                limit = self.limit,
                why,
                suppressed,
                "closing a connection to make room for a new one: the limit is reached; look for clients that open \
                 one for each call, or raise the open file limit if that is the one"
            );
        }
        true
    }

    async fn not_accepted(&mut self, error: &io::Error) {
        self.counted.accept_errors.inc();
        if let Some(suppressed) = self.errors.check() {
            warn!(server = self.server, %error, suppressed, "cannot accept a connection, retrying");
        }
        // A client that has left by itself needs nothing; any other error means that something is scarce which connections hold.
        if !matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            self.evict();
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    warn!(server = self.server, %error, "a connection panicked: this is a bug in narthex");
                } else {
                    debug!(server = self.server, "a connection was closed to make room");
                }
                error.id()
            }
        };
        self.open.remove(&id);
        self.update_gauge();
    }

    fn update_gauge(&self) {
        // Far below the limit of the number.
        self.counted.open.set(self.open.len() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Is(Option<Rank>);

    impl Usage for Is {
        fn rank(&self) -> Option<Rank> {
            self.0
        }
    }

    fn idle(last_ms: u64) -> Is {
        Is(Some(Rank { busy: false, last_ms }))
    }

    fn stuck(last_ms: u64) -> Is {
        Is(Some(Rank { busy: true, last_ms }))
    }

    fn value(registry: &Registry, line: &str) -> bool {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
        page.lines().any(|found| found == line)
    }

    #[tokio::test]
    async fn the_idlest_goes_first_then_who_makes_no_progress_and_then_nobody() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        assert!(value(&registry, "narthex_connections_refused_total{server=\"http\"} 0"));
        let mut open = OpenConnections::new("grpc", 5, &metrics);
        let peer = "127.0.0.1:1".parse().unwrap();
        for usage in [Is(None), stuck(10), idle(30), stuck(5), idle(20)] {
            assert!(open.has_room(peer));
            open.spawn(Arc::new(usage), std::future::pending());
        }
        for left in [
            [None, Some(10), Some(30), Some(5)],
            [None, Some(10), Some(5), None],
            [None, Some(10), None, None],
            [None; 4],
        ] {
            assert!(open.has_room(peer));
            let mut still: Vec<Option<u64>> = open
                .open
                .values()
                .map(|(_, is)| is.0.map(|rank| rank.last_ms))
                .collect();
            let mut wanted = left.to_vec();
            still.sort();
            wanted.sort();
            assert_eq!(still, wanted);
            open.spawn(Arc::new(Is(None)), std::future::pending());
        }
        assert!(!open.has_room(peer));
        for line in [
            "narthex_connections_open{server=\"grpc\"} 5",
            "narthex_connections_evicted_total{server=\"grpc\"} 4",
            "narthex_connections_refused_total{server=\"grpc\"} 1",
            "narthex_connections_open{server=\"http\"} 0",
        ] {
            assert!(value(&registry, line), "{line}");
        }
        assert!(!open.drain(Duration::ZERO).await);
        assert!(value(&registry, "narthex_connections_open{server=\"grpc\"} 0"));
    }

    #[test]
    fn clients_leave_files_for_the_rest_and_grpc_some_for_probes() {
        assert_eq!(within(None, 4096, 512), (4096, 512));
        assert_eq!(within(Some(1_048_576), 4096, 512), (4096, 512));
        assert_eq!(within(Some(1024), 4096, 512), (672, 96));
        assert_eq!(within(Some(64), 4096, 512), (28, 4));
        assert_eq!(within(Some(0), 4096, 512), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn want_of_descriptors_makes_room_and_a_client_that_left_does_not() {
        let mut registry = Registry::default();
        let mut open = OpenConnections::new("http", 5, &Metrics::register(&mut registry));
        open.spawn(Arc::new(idle(1)), std::future::pending());
        open.not_accepted(&io::ErrorKind::ConnectionAborted.into()).await;
        assert_eq!(open.open.len(), 1);
        // EMFILE.
        open.not_accepted(&io::Error::from_raw_os_error(24)).await;
        assert_eq!(open.open.len(), 0);
        let line = "narthex_connection_accept_errors_total{server=\"http\"} 2";
        assert!(value(&registry, line));
    }
}
