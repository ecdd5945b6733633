//! The bytes of a chunk as Prometheus writes them: encodings that are written, read and transcoded here. Pure.

/// XXH64 with seed 0.
pub fn hash(data: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, data)
}

/// Stub.
pub fn for_storeapi(number: i32, _data: &[u8]) -> Result<(i32, Option<Vec<u8>>), String> {
    match number {
        1..=3 => Ok((number - 1, None)),
        _ => Err(format!("encoding {number}")),
    }
}
