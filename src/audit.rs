//! What is wrong with the blocks of a bucket.
//!
//! Everything here only reads: nothing is written to the bucket, and nothing is kept from run to run, so that a crash or a
//! cancelled check costs only the time. An [`Issue`] is what an operator must do something about; that the
//! bucket could not be asked is an [`objstore::Error`](crate::objstore::Error) and says nothing about its blocks.

pub mod gaps;
pub mod integrity;
mod overlaps;

use std::fmt;

pub use self::overlaps::{MOST_OVERLAPS, Overlap, Span, among, overlaps};
use crate::tsdb::BlockId;

/// How far the time in a block's name may be from now for its upload to count as running (ms).
const MAY_RUN: u64 = 3_600_000;

/// What kind of thing is wrong with a block of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Its `meta.json` cannot be used.
    Meta,
    /// The store does not give an object.
    Unreadable,
    /// It has objects and no `meta.json`: an upload that was given up.
    Partial,
    /// An object is missing.
    Missing,
    /// An object has another size than `meta.json` says.
    Size,
    /// An object does not belong to the block.
    Extra,
    /// An object has other bytes than `meta.json` says.
    Checksum,
    /// The content of an object is damaged, or does not fit to that of others.
    Content,
    /// Its index has what Prometheus reads, and at which Thanos' compactor may stop.
    Index,
    /// It has chunks in an encoding that today's readers of the bucket refuse.
    Encoding,
    /// It holds times that another block of the same labels and resolution holds, too.
    Overlap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Meta => "meta",
            Self::Unreadable => "unreadable",
            Self::Partial => "partial",
            Self::Missing => "missing",
            Self::Size => "size",
            Self::Extra => "extra",
            Self::Checksum => "checksum",
            Self::Content => "content",
            Self::Index => "index",
            Self::Encoding => "encoding",
            Self::Overlap => "overlap",
        })
    }
}

/// Something that is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    /// Which block.
    pub block: BlockId,
    /// What kind of thing.
    pub kind: Kind,
    /// For the operator: which object, what is wrong with it, and what to do.
    pub detail: String,
}

impl Issue {
    /// An issue in words.
    pub fn new(block: BlockId, kind: Kind, detail: impl fmt::Display) -> Self {
        Self {
            block,
            kind,
            detail: detail.to_string(),
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:8}  {}", self.block, self.kind, self.detail)
    }
}

/// Whether an upload of the block `id` that has no `meta.json` yet may still be running at `now` (ms since 1970): its
/// name is younger than an hour. A block that was made long before it is sent seems given up.
pub fn may_run(id: BlockId, now: i64) -> bool {
    let now = u64::try_from(now).unwrap_or_default();
    id.timestamp_ms().abs_diff(now) < MAY_RUN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_may_run_for_an_hour() {
        let id = BlockId::parse("0000000001ZZZZZZZZZZZZZZZZ").unwrap();
        for (now, want) in [
            (1, true),
            (3_600_000, true),
            (3_600_001, false),
            (i64::MAX, false),
            (-5, true),
        ] {
            assert_eq!(may_run(id, now), want, "{now}");
        }
        // A clock that is far behind does not make an upload young for ever.
        let late = BlockId::parse("7ZZZZZZZZZZZZZZZZZZZZZZZZZ").unwrap();
        assert!(!may_run(late, 1_767_225_600_000));
    }
}
