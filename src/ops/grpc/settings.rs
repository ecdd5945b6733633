//! How the server is set up, and what its clients may cost.

use std::time::Duration;

use super::{log::CallLog, metrics::Metrics, running::Running, tls::Tls};
use crate::ops::{connections, stall};

/// The longest message of a request, in bytes: for `max_decoding_message_size` of the services, and for a compressed
/// message once it is decompressed.
pub const MESSAGE_MAX: usize = 16 << 20;

/// Calls at once on one connection: more than a client that means well has, and yet a bound.
pub const STREAMS: u32 = 1 << 20;

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the connection to the end of the TLS handshake and of HTTP/2's opening.
    pub handshake: Duration,
    /// How long a connection may be quiet before it is pinged.
    pub ping_after: Duration,
    /// How long the answer to a ping may take.
    pub ping_timeout: Duration,
    /// How long bytes may wait for a client of which it takes none.
    pub stall: Duration,
    /// How long the kernel lets sent bytes stay unacknowledged.
    pub unacknowledged: Duration,
    /// Connections at once.
    pub connections: usize,
    /// How long the calls of a connection may make no progress before it may be closed for a new one.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            // Thanos waits for two hours; until then the calls of a dead client would hold what they hold.
            ping_after: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
            // Flow control holds us back long before TCP does, so that not even pings are read any more: half a minute is
            // twice what a Thanos querier gives us to answer one.
            stall: Duration::from_secs(30),
            unacknowledged: stall::UNACKNOWLEDGED,
            connections: 4096,
            patience: Duration::from_secs(10),
        }
    }
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// With TLS, and how; without if `None`.
    pub tls: Option<Tls>,
    /// The age at which a connection is sent GOAWAY; zero means never.
    pub max_connection_age: Duration,
    /// What is counted, and for which methods.
    pub metrics: Metrics,
    /// What is counted of this server's connections.
    pub connections: connections::Metrics,
    /// Where the calls are shown that run.
    pub running: Running,
    /// Which calls are logged, if any.
    pub log: Option<CallLog>,
    /// What clients may cost.
    pub limits: Limits,
}
