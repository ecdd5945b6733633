//! A block on disk: which ones there are, what their `meta.json` says, whether they are whole, and their open files; and
//! what a block is without the encodings that not every reader knows ([`rewrite`]).
//!
//! What this module guarantees:
//!
//! - **Read only.** Nothing below a data directory is written, linked, locked or renamed, and no lock of Prometheus is
//!   looked at. A read-only mount is enough.
//! - **Only sealed blocks.** A directory counts as a block when its name is a ULID in its one canonical spelling (as
//!   Prometheus demands; Thanos' lenient test would take a backup folder of 26 letters). `<ULID>.tmp-for-creation`,
//!   `thanos/` and links to directories are not blocks.
//! - **One bad block harms no other.** What is wrong with a block comes back as a value ([`Corrupt`], [`Broken`]) with
//!   a [`Reason`] for the metric and a text for the operator; an [`std::io::Error`] is left for what stops all of them.
//! - **A block may vanish at any moment**, by Prometheus' retention or compaction. That is never an error: the scan does
//!   not list it, and [`Pinned::open`] says [`PinError::Vanished`]. Once it is pinned, the descriptors hold its bytes.
//! - **`meta.json` goes to the bucket as it is on disk**, number for number and with the keys that we do not know, plus
//!   the `thanos` section ([`Meta::for_bucket`]).
//!
//! - **What is kept of a block is small** ([`BlockMeta`]), however much its `meta.json` says and however many files it has.
//!
//! There is no state outside of [`Scanner`]'s cache, so a crash leaves nothing behind and a retry starts clean. All
//! calls block on the disk; async callers put them on a blocking thread. Dropping a caller cancels nothing: a call in
//! progress ends by itself, [`check::quick`] in the time that it takes to read the index once.

pub mod check;
pub mod content;
mod file_version;
mod id;
mod json;
mod listed;
mod meta;
mod pinned;
pub mod read;
pub mod rewrite;
mod rewritten_from;
mod scan;
mod segments;
mod stamp;
mod summary;
#[cfg(test)]
pub(crate) mod testing;
mod window;

pub use check::{Broken, Depth, Encodings, Reason};
pub use file_version::FileVersion;
pub use id::BlockId;
pub use meta::{BlockMeta, Meta, MetaError, Parents};
pub use pinned::{PinError, Pinned, PinnedFile, count_segments};
pub use rewritten_from::RewrittenFrom;
pub use scan::{Block, Corrupt, LARGEST_META, Scan, Scanner, read_meta, scan};
pub use segments::{segment_of_path, segment_path};
pub use stamp::{BucketFile, Stamp};
pub use summary::Summary;
