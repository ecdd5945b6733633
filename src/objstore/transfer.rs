//! What every store behind HTTP needs to move bytes.
//!
//! [`body`] and [`content`] are what a request sends, [`transport`] is HTTP and TLS below it, [`stall_timeout`] the watch over
//! each request; [`compare`] holds objects against files. The types of the AWS SDK stand for requests, answers and their bodies, also where no SDK is above: they can be
//! sent again, and stream both ways.

pub(super) mod body;
pub(super) mod compare;
pub(super) mod content;
mod limited_body;
pub(super) mod progress;
pub(super) mod range;
pub(super) mod stall_timeout;
pub(super) mod transport;
pub(super) mod words;
