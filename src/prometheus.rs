//! One Prometheus over HTTP: what it is (labels, version, flags), whether it runs, and whether its flags fit.
//!
//! - [`client`] sends requests: each has one deadline, a response of bounded size, and an error that says what to do.
//! - `configuration` finds labels and settings of the storage in a configuration that may be large and secret.
//! - [`api`] is the part of Prometheus' JSON API that the StoreAPI needs; `request_queue` limits its requests.
//! - `json` finds the parts of a JSON response while it arrives.
//! - [`remote_read`] reads series: one request, answered with a stream of frames.
//! - `connection` and `transport` are the connections below both; [`http_client`] reads the YAML of
//!   `--prometheus.http-client`: credentials, TLS, proxy, connection pool.
//! - [`checks`] compares Prometheus' flags with ours; pure.
//! - `retention` makes out how long Prometheus keeps blocks; pure.
//! - [`heartbeat`] asks Prometheus at an interval and publishes a [`Snapshot`] through a watch channel.
//!
//! **Guarantees.** No trouble of Prometheus ends this process or blocks it: each call ends after its deadline, memory
//! is bounded whatever is answered, and the last labels that were read stay known. Secrets are neither logged nor part
//! of an error: of Prometheus' configuration only the sections `global` and `storage` are ever kept. Nothing is written anywhere, so
//! that a crash leaves nothing behind; a dropped call (cancelled, or past its deadline) drops its connection with it.

pub mod api;
pub mod checks;
pub mod client;
pub mod heartbeat;
pub mod http_client;
pub mod remote_read;
pub mod stored_names;
pub mod version;

mod answer;
mod configuration;
mod connection;
mod error;
mod json;
mod metrics_page;
mod request_queue;
mod response_body;
mod retention;
mod secret;
mod transport;

pub use client::{Alive, Client, LastReload, Storage};
pub use configuration::{Configuration, RetentionSettings, StorageSettings};
pub use error::{Error, ErrorKind, SetupError, Shed};
pub use heartbeat::{Heartbeat, Snapshot};
pub use http_client::HttpClientConfig;
