//! narthex: one small binary beside each Prometheus.
//!
//! It ships every sealed TSDB block to object storage, proven complete before it becomes visible, and answers the
//! StoreAPI for what Prometheus still holds, as a drop-in for the Thanos sidecar. This page is the map; a
//! module may import only those that its line names (`tests/it/house.rs` holds the code against this table).
//!
//! | module | what is in it | may import |
//! |---|---|---|
//! | [`cli`] | flags, their syntax and their checks; nothing below `cmd` knows clap | model |
//! | [`cmd`] | one file per subcommand: flags -> configuration -> build -> run | everything |
//! | [`preflight`] | what can be wrong before a sidecar runs: rules over what is found, and what is tried in the bucket | shipper, lineage, catalog, tsdb, prometheus, trust, objstore, model |
//! | [`backfill`] | blocks that exist already: found, checked, planned, sent, proven | audit, shipper, lineage, catalog, chunk, tsdb, objstore, model, threads, spans |
//! | [`restore`] | blocks of a bucket, and write-ahead logs, brought back to disk | wal, lineage, catalog, tsdb, objstore, model, threads |
//! | [`audit`] | what is wrong with the blocks of a bucket: not whole, overlapping, missing | lineage, catalog, tsdb, objstore, model, threads |
//! | [`lineage`] | whether a block is in the bucket: under its own name, or within other blocks | catalog, tsdb, objstore, model |
//! | [`catalog`] | the blocks of a bucket, by their `meta.json` | tsdb, objstore, model |
//! | [`shipper`] | plan, upload, verify, commit, ledger, watcher: how a block reaches the bucket | lineage, catalog, tsdb, objstore, model, threads, spans |
//! | [`wal`] | the write-ahead log of Prometheus in the bucket: sent as it grows, and what is there of it | shipper, tsdb, objstore, model, threads |
//! | [`storeapi`] | the StoreAPI over gRPC: how a query is answered, one file per service | sealed, tsdb, prometheus, chunk, ops, pb, model, threads, spans |
//! | [`prometheus`] | one Prometheus over HTTP: client, and the heartbeat that publishes snapshots | trust, pb, model, threads, spans |
//! | [`sealed`] | which ranges are answered from sealed blocks on disk | prometheus, tsdb, model, threads |
//! | [`chunk`] | the bytes of a chunk: encodings written, read and transcoded | nothing |
//! | [`tsdb`] | a block on disk: scan, strict names, `meta.json`, integrity, open descriptors, newer encodings rewritten | chunk, model |
//! | [`objstore`] | the bucket: its trait and errors by kind, configuration, S3, local directory | trust, model, threads |
//! | [`reloader`] | has Prometheus load its files when they change: watching, rendering, telling it | prometheus, model, threads |
//! | [`status`] | what an operator sees: the state of a sidecar as one value, as a page, as JSON, as text | model |
//! | [`ops`] | probes, HTTP and gRPC servers, metrics of the process, logging, signals and tasks | trust, model, pb, spans, threads |
//! | [`spans`] | what calls and blocks spend their time on, for a collector of traces | trust, model, threads |
//! | [`trust`] | whose TLS certificates are good, for clients that call us and servers that we call | nothing |
//! | [`threads`] | work that blocks: off the runtime, stopped when nobody waits, panics as values | nothing |
//! | [`model`] | labels, durations: pure values | nothing |
//! | [`pb`] | messages and services generated from `proto/` | nothing |

pub mod audit;
pub mod backfill;
pub mod catalog;
pub mod chunk;
pub mod cli;
pub mod cmd;
pub mod lineage;
pub mod model;
pub mod objstore;
pub mod ops;
pub mod pb;
pub mod preflight;
pub mod prometheus;
pub mod reloader;
pub mod restore;
pub mod sealed;
pub mod shipper;
pub mod spans;
pub mod status;
pub mod storeapi;
pub mod threads;
pub mod trust;
pub mod tsdb;
pub mod wal;
