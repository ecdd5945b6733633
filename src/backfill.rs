//! Blocks that exist already, on their way to a bucket: plan, apply, verify.
