//! `narthex check` through the program itself: a good set-up has neither a warning nor a failure, and each planted mistake is
//! found by its name, and no other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod bucket;
mod data;
mod docs;
mod files;
mod good;
mod prometheus;
mod scene;
