//! Blocks of a bucket, brought back to disk, so that a plain Prometheus opens them.
//!
//! What this module guarantees:
//!
//! - **Nothing half is visible.** A block is built in `<ULID>.tmp-for-creation`, the name that Prometheus itself builds
//!   blocks under and that it removes when it starts. It gets its final name by a rename, after every byte of it was read
//!   back from disk, checked, held against the bucket and flushed.
//! - **Nothing is overwritten or deleted** that bears the final name of a block. A block that is there already counts
//!   if it is the one in the bucket, and is refused otherwise.
//! - **Crash, kill, full disk:** a file is written as `<name>.part` and renamed when it is complete. The next run takes
//!   complete files again, fetches what was in flight once more, and proves both.
//! - **Cancel:** requests are dropped, complete files stay; reads of the disk stop within a MiB.
//! - **Memory:** one batch of bytes for each request, and one block in the check.

mod apply;
mod block;
mod download;
mod files;
pub mod log;
mod occupied;
pub mod plan;
mod survey;
mod target;
mod tombstones;

pub use apply::{Applied, Stop, apply};
pub use block::Outcome;
pub use survey::{Survey, Wanted, list_objects, survey};
pub use target::{Target, TargetError};
