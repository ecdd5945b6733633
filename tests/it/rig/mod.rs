//! What the tests and the demonstration stand on: real programs on free ports of 127.0.0.1, and eyes on the bucket that
//! share no code with the program under test.
//!
//! Whatever is started here ends with the value that stands for it, with a panic, and with the process, even when that
//! is killed: see [`process::Process`]. Nothing waits without a bound, and what did not come in time is told together
//! with the end of the log of the program that should have done it; a test that takes too long ends the run: see [`limit`].

#![allow(dead_code, reason = "each binary that includes the rig uses a part of it")]
#![allow(unused_imports, reason = "each binary that includes the rig uses a part of it")]
#![allow(clippy::print_stderr, reason = "logs of the programs are shown when a test fails")]

pub(crate) mod blocks;
pub(crate) mod browser;
pub(crate) mod bucket;
pub(crate) mod cloud;
pub(crate) mod fault;
pub(crate) mod http;
pub(crate) mod keeper;
pub(crate) mod limit;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod one_shot;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod s3_client;
pub(crate) mod s3_server;
pub(crate) mod sidecar;
pub(crate) mod stopped;
pub(crate) mod tools;
pub(crate) mod wait;
pub(crate) mod weed;

pub(crate) use self::{
    browser::Browser,
    bucket::{BucketView, assert_all_shipped, assert_whole},
    cloud::{Emulator, Kind},
    fault::{Fault, Rule},
    keeper::Keeper,
    metrics::Metrics,
    prometheus::Prometheus,
    s3_client::S3Client,
    s3_server::S3Server,
    sidecar::Sidecar,
    stopped::StoppedClient,
    tools::{Leg, Tools},
    wait::wait_until,
    weed::Weed,
};
