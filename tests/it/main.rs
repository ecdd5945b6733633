//! The one integration binary: every test against real programs is a module of it.

#[cfg(test)]
mod objstore;
