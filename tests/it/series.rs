//! Store.Series over real Prometheus versions, held against what Prometheus itself answers and what was written.

mod ask;
mod auto_min_time;
mod labelled;
mod large;
mod random;
mod sealed;
mod sealed_damage;
mod sealed_moving;
mod special;
pub(crate) mod stage;
