//! A block on its way through a pass: planned, looked up, uploaded, committed. A pure value; nothing of it outlives the pass.

use super::{quiet_period::QuietPeriod, upload::UploadRequest};

/// A block that is to be shipped in this pass.
#[derive(Clone, Debug)]
pub(super) struct DueBlock {
    pub(super) request: UploadRequest,
    /// How long it had been left alone before it was opened; `None` if that could not be found out.
    pub(super) quiet: Option<QuietPeriod>,
    /// When the pass began, Prometheus might still have withdrawn the block.
    pub(super) was_young: bool,
}
