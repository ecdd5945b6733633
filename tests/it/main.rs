//! The integration tests: one binary, so that the program is linked once. Each file beside this one is a module of it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod cli;
mod codegen;
mod house;
mod objstore;
mod ops;
mod rig;
mod rig_test;
