//! STUB.
#![allow(dead_code)]
mod client;
mod credentials;
mod transport;
