//! What can be put around a bucket: metrics, and faults for tests.

mod faulty;
mod metered;

pub use faulty::{Fault, Faulty};
pub use metered::Metered;
