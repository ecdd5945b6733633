//! The integration tests: one binary, so that the house is linked once.

mod ops;
