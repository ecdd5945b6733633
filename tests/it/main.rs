//! The integration tests: one binary, so that the program is linked once. Each file beside this one is a module of it.

mod codegen;
mod ops;
mod peer;
mod rig;
mod rig_test;
