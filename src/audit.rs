//! What is wrong with the blocks of a bucket.
