//! The write-ahead log of Prometheus in the bucket: what its head holds survives the loss of the disk.
//!
//! Prometheus appends to the segments of `wal/` (and of `wbl/`, for samples that come out of order) and never changes what it
//! has written, so that a copy of their bytes up to any moment is a log that it can replay. [`Sender`] sends what was
//! appended since the last round, in order; `restore` brings it back. Objects, their names and the manifest: [`layout`].
//!
//! **Guarantees.** `narthex_wal_durable_timestamp_seconds` is the moment at which the last round began all of whose objects
//! were acknowledged by the store and then found there with their size: what Prometheus had taken before is in the bucket,
//! from the newest checkpoint on. Files are opened and read by position: nothing of Prometheus is locked, linked or kept from
//! being deleted but the segment that is being read. One round runs at a time; memory does not depend on what there is to
//! send. Nothing in the bucket is deleted or written over.
//!
//! **Crash.** Nothing is kept on disk. What the bucket holds of the newest generation is listed at the start and held against
//! the local log: if its last object has the bytes of the local segment, sending goes on behind it; if not, a new generation
//! begins. An object whose acknowledgement was lost is sent again, under a name of its own; both are good.
//!
//! **Retry.** A round that fails is tried again after a growing wait (1 s to 30 s); it takes up what came meanwhile.
//!
//! **Cancel.** After a signal rounds go on until Prometheus is gone, and one more follows; the caller bounds that. Dropping the
//! sender ends its requests; what was acknowledged counts.

pub mod chain;
mod checkpoint;
mod directory;
pub mod layout;
pub mod markers;
mod metrics;
mod put;
pub mod records;
mod resume;
mod round;
mod sender;
mod shown;
#[cfg(test)]
pub(crate) mod testing;

pub use metrics::Metrics;
pub use put::crc_of;
pub use resume::{generations, newest_manifest, pieces};
pub use sender::{Sender, Settings};
pub use shown::{Overview, Shown};
