//! The integration tests: one binary, so that the program is linked once. Each file beside this one is a module of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backfill;
mod bad_blocks;
mod bad_config;
mod bad_data_dir;
mod bad_store;
mod bucket_commands;
mod check;
mod cli;
mod codegen;
mod corners;
mod demo;
mod deploy;
mod docs;
mod every_flag;
mod full_check;
mod fuzz;
mod grpc;
mod guest;
mod house;
mod licenses;
mod objstore;
mod ops;
mod prometheus;
mod reloader;
mod restore;
mod rewritten;
mod rig;
mod rig_test;
mod series;
mod series_faults;
mod shipping;
mod status;
mod storeapi;
mod tracing;
mod trust;
mod wal;
mod web;
