//! `narthex backfill`: plan, apply, verify, against real stores, with blocks that promtool made.

mod bad_blocks;
mod killed;
mod labels;
mod round_trip;
mod scene;
mod taken;
