//! Series calls that go wrong: an answer is whole or an error, nothing hangs, nothing leaks.
//!
//! The real program runs beside a scripted Prometheus, where a real one cannot be made to fail as wanted, and beside a
//! real one under load. What needs minutes by the clock (limits of patience) is tested with the code, where the clock can
//! be turned: `remote_read/tests.rs` and `series/body/tests.rs`.

mod answers;
mod cuts;
mod endless;
mod fake;
mod frames;
mod heavy;
mod other_forms;
mod queue;
mod requests;
pub(crate) mod scene;
