//! The services of the StoreAPI beside real Prometheus servers, asked by a real gRPC client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod api;
mod info;
mod label_calls;
mod large;
mod passed_on;
mod queue;
mod rules;
mod stage;
