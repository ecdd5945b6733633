//! What every subcommand needs to run as a process: probes, an HTTP and a gRPC server, process metrics, logging,
//! signals and tasks.
//!
//! Guaranteed here:
//! - readiness and liveness answer with the exact bodies that Thanos answers with, and give the reason in a header and
//!   in the log ([`probe`]);
//! - the port is bound before anything else starts, and no client, slow, idle or stopped, can keep others from the
//!   probes ([`http`], [`connections`]);
//! - calls are counted, logged, compressed, held to their deadline and isolated from each other in one place, whatever
//!   their service ([`grpc`]);
//! - a log line is one line, whatever the text in it ([`telemetry`]);
//! - the first task that ends stops all, each within its own grace period, and a second signal ends the process at once
//!   ([`supervisor`]).
//!
//! Nothing here is kept on disk, so a crash costs nothing but the connections that are open. Nothing here polls: an
//! idle process sleeps until a connection, a signal or a task wakes it.

pub mod connections;
pub mod grpc;
pub mod http;
pub mod listen;
pub mod probe;
pub mod process;
pub mod recent;
pub mod supervisor;
pub mod telemetry;
pub mod web;

mod exposition;
mod file_check;
mod http_connection;
mod http_progress;
mod http_serving;
mod log_fields;
mod log_limit;
mod log_line;
mod stall;
mod tls_names;
