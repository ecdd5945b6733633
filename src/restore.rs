//! Blocks of a bucket, brought back to disk.
