//! From Prometheus to the bucket, with the real program: every block arrives, whole, whatever happens on the way.

mod encodings;
mod killed;
mod memory;
mod metrics;
mod replicas;
mod retention;
mod scene;
mod spread;
mod stopped;
mod versions;
mod withdrawn;
