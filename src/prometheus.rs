//! One Prometheus over HTTP: what it is (labels, version, flags), whether it is there, and whether its flags fit.
//!
//! - [`api`] are the questions of the StoreAPI in Prometheus' JSON API; `turns` are their queues.
//! - `json` finds the parts of an answer while it arrives.
//! - [`client`] asks: one request, one deadline, an answer of bounded size, an error that says what to do.
//! - [`http_client`] reads the YAML of `--prometheus.http-client`: credentials, TLS, proxy, connection pool.
//! - [`checks`] compares Prometheus' flags with ours; pure.
//! - [`remote_read`] is the way of series: one question, a stream of frames.
//! - [`peer`] is the heartbeat: it asks again and again and publishes a [`Snapshot`] through a watch channel.
//!
//! **Guarantees.** No trouble of Prometheus ends this process or blocks it: each call ends after its deadline, memory is
//! bounded whatever is answered, and the last labels that were read stay known. Secrets are neither logged nor part of
//! an error: of Prometheus' configuration only the `global` section is ever kept. Nothing is written anywhere, so that
//! a crash leaves nothing behind; a dropped call (cancelled, or past its deadline) drops its connection with it.

pub mod api;
pub mod checks;
pub mod client;
pub mod heartbeat;
pub mod http_client;
pub mod remote_read;
pub mod stored_names;
pub mod version;

mod answer;
mod connection;
mod error;
mod external_labels;
mod json;
mod metrics_page;
mod request_queue;
mod response_body;
mod secret;
mod tls;
mod transport;

pub use client::{Alive, Client, Storage};
pub use error::{Error, ErrorKind, SetupError, Shed};
pub use heartbeat::{Heartbeat, Snapshot};
pub use http_client::HttpClientConfig;
