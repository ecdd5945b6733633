//! The write-ahead log on its way to a bucket and back: real Prometheus versions, the real program, an exporter of whose every
//! sample it is known what it must be, and a disk that is lost.
//!
//! What must survive is what Prometheus itself had answered before a time that `narthex_wal_durable_timestamp_seconds` then
//! reached. No test goes by the clock: everything is waited for, with a bound.

mod continued;
mod exporter;
mod ground_truth;
mod killed;
mod not_durable;
mod refusals;
mod scene;
mod second_life;
