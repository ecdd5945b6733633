//! Why Prometheus is asked about a time range.

/// Why a time range is not answered from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It lies behind the last block that can be used.
    Head,
    /// Two blocks hold it, and Prometheus merges what they say.
    Overlap,
    /// A block holds it that Prometheus has not been seen to have loaded, or that has changed since.
    Arriving,
    /// Something of it was deleted.
    Tombstones,
    /// Its block cannot be read, or is not to be trusted.
    Damaged,
    /// Its block has an index of a format that is not read.
    IndexVersion,
    /// Its block reaches into the time that Prometheus' head holds as well.
    OverlapsHead,
    /// Samples of that time may lie in Prometheus' head that came out of order.
    OutOfOrder,
    /// The directory does not hold what Prometheus has loaded.
    Differs,
    /// Prometheus has not told what it has loaded, or the directory could not be listed.
    Unknown,
    /// The disk takes too long, or there is no memory for reading blocks now.
    Slow,
    /// A matcher has a pattern that only Prometheus can match with.
    Pattern,
    /// The server behind --prometheus.url is none, or gives series in no order.
    Server,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Head,
        Self::Overlap,
        Self::Arriving,
        Self::Tombstones,
        Self::Damaged,
        Self::IndexVersion,
        Self::OverlapsHead,
        Self::OutOfOrder,
        Self::Differs,
        Self::Unknown,
        Self::Slow,
        Self::Pattern,
        Self::Server,
    ];

    /// Its name as the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Overlap => "overlap",
            Self::Arriving => "arriving",
            Self::Tombstones => "tombstones",
            Self::Damaged => "damaged",
            Self::IndexVersion => "index_version",
            Self::OverlapsHead => "overlaps_head",
            Self::OutOfOrder => "out_of_order",
            Self::Differs => "differs",
            Self::Unknown => "unknown",
            Self::Slow => "slow",
            Self::Pattern => "pattern",
            Self::Server => "server",
        }
    }
}
