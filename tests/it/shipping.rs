//! From Prometheus to the bucket, with the real program: every block arrives, whole, whatever happens on the way.

mod killed;
mod ledger;
mod metrics;
mod replicas;
mod scene;
mod stopped;
mod together;
mod versions;
