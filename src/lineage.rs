//! Whether a block is in the bucket: under its own name, or within other blocks.
//!
//! The sidecar, backfill, restore and the audit all ask here, so that they agree:
//!
//! - [`existing`]: what does the bucket have under a block's own name?
//! - [`Lineage::elsewhere`]: do other blocks of the bucket hold all of its data?
//! - [`check_objects`]: is a block of the bucket complete?
//!
//! **Guarantees.** Whatever counts as "in the bucket" was proven: by the `meta.json` of the block that has it and a listing
//! that shows every file of it with its size. A block that is marked for deletion is ignored, even if it is complete. When
//! in doubt the answer is that the data is not there: uploading a block once too often costs traffic only, since a
//! compactor drops a block whose sources are a subset of another's of the same labels and resolution.
//!
//! A committed block is never overwritten. It is compared with its own `meta.json`, not with the local block: that may
//! have changed since, as when a power loss left a segment longer than it was when it was uploaded.
//!
//! **One bad block does not affect the others.** What the store refuses of one block, and what cannot be parsed, is a
//! finding about that block. Errors are returned only if they concern the bucket as a whole.
//!
//! **Crash, retry, cancel.** Nothing is written anywhere; what is known is in memory and read anew by the next process.
//! Dropping a future drops its requests; what was read until then is kept.

mod completeness;
mod cover;
mod entry;
mod existing;
mod index;

pub use completeness::{BlockObjects, Fault, check_objects, count_objects, may_lie_beside};
pub use cover::Elsewhere;
pub use entry::Entry;
pub use existing::{Committed, Existing, existing, may_repair};
pub use index::Lineage;
