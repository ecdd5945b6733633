//! `narthex bucket ls | inspect | verify | gaps`, through the program itself, on buckets made by hand: what is printed,
//! and the exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod closed;
mod full;
mod gaps;
mod lists;
mod stage;
mod verify;
