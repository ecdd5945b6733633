//! Reading all of a block back from the bucket.
