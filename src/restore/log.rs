//! The write-ahead log of a Prometheus that is gone, brought back, so that a plain Prometheus replays it.
//!
//! What this module guarantees:
//!
//! - **What the new Prometheus seals does not overlap what is in the bucket.** A log reaches back behind the last sealed block.
//!   Replayed alone, those samples would be sealed again, under another name, and a compactor would stop. Prometheus drops
//!   samples before the end of the newest block in its directory, so that a block without samples is laid down which ends where
//!   the blocks of the bucket end, of exactly these labels. Nobody ships it: it is empty.
//! - **Nothing that is in no block is left out.** A checkpoint lacks what was in blocks when it was made, whether these had
//!   reached the bucket or not. So the newest checkpoint is taken that lacks only what the bucket has, with all segments
//!   behind it. What no checkpoint has is named.
//! - **Nothing half is visible.** Everything is built beside, held against the checksums in its names, and renamed, `wal` last. A
//!   last record that was cut off is taken away, as Prometheus would do with a message about a corruption. Crash, kill and
//!   full disk leave complete files, which the next run takes again after it has read them.
//! - **Nothing is overwritten**: a directory with a log, or with what belongs to one, is refused.

mod apply;
mod best;
mod choose;
mod empty_block;
mod files;
#[cfg(test)]
mod model_test;
mod survey;

pub use apply::{Applied, apply, has_log};
pub use best::Best;
pub use choose::{Choice, Found, InBlocks, Start, Unusable, choose};
pub use survey::{LogSurvey, NoLog, survey};
