//! STUB.
#![allow(dead_code)]
mod credentials;
mod transport;
