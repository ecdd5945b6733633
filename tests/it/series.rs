//! Store.Series over real Prometheus versions, held against what Prometheus itself answers and what was written.

mod ask;
mod auto_min_time;
mod labelled;
mod large;
mod random;
mod special;
pub(crate) mod stage;
