//! Which time ranges are answered from sealed blocks on disk, and which Prometheus must be asked about.
//!
//! What this module guarantees:
//!
//! - **Each millisecond of a request is answered once**: from disk or by Prometheus ([`Row::split`]).
//! - **What comes from disk is what Prometheus would answer.** A block counts only once Prometheus has shown that it has
//!   loaded it and that its head holds nothing of that time ([`Confirmed`]), and as long as nothing speaks against it
//!   ([`Reason`]). That there is nothing between two blocks is believed as long as no block has gone of those that
//!   Prometheus had loaded.
//! - **What is not known is asked of Prometheus.** A listing that is older or newer than what Prometheus has told, numbers that
//!   differ, and files that have changed all lead there.
//!
//! [`Looker`] lists the directory and holds what each heartbeat tells against it, and calls ask [`Sealed::cover`], which looks
//! again. The other files are pure. There, whoever lists the directory gives a [`Listing`], and with each heartbeat an
//! [`Evidence`] and [`OutOfOrder`]; the [`Row`] is then made anew. A row must not be made of a listing that is older than the last
//! one that [`Confirmed::heartbeat`] was given.
//!
//! A window for samples out of order that is opened or widened is seen with the next heartbeat, or as soon as a sample has come
//! by it if there was none.
//!
//! **Crash, retry, cancel.** Nothing is kept on disk. A new process knows nothing and asks Prometheus about everything until
//! the first heartbeat that fits a listing.

mod confirmed;
mod directory;
mod listing;
mod looker;
mod open_blocks;
mod out_of_order;
mod reason;
mod row;
mod service;
mod tables_cache;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use confirmed::{Confirmed, Evidence};
pub use listing::{BlockFacts, Listed, Listing};
pub use looker::Looker;
pub use open_blocks::OpenBlocks;
pub use out_of_order::{OutOfOrder, Wbl};
pub use reason::Reason;
pub use row::{Asked, Doubt, Row, Split};
pub use service::{Cover, Overview, Sealed};
