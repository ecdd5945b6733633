//! How long Prometheus keeps its blocks: a pure value.

/// By what Prometheus deletes blocks; what is `None` has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// A block goes once it ends so much before the end of the newest one (ms).
    pub time_ms: Option<i64>,
    /// How much the head and the blocks may take, in bytes: the oldest blocks beyond that go.
    pub bytes: Option<u64>,
    /// The same as a part of the file system's size, in millionths. It goes before [`Retention::bytes`].
    pub disk_millionths: Option<u32>,
}
