//! What slow clients do to Prometheus, and to those that ask beside them: nothing.
//!
//! Real Prometheus versions with blocks of seconds, the real program, and gRPC clients that do not read. That a head was
//! truncated is waited for, with a bound; no test goes by the clock. An answer has [`scene::SIZE`] bytes, more than all
//! sockets between Prometheus and the client hold: without narthex reading ahead, Prometheus waits for the client.

mod ended;
mod lag;
mod pinned;
mod scene;
mod slots;
mod two_queriers;
