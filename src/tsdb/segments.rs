//! The names of chunk segments: six digits, from 1 on, in a directory of their own.

use super::stamp::CHUNKS;

/// The number that the name of a segment is, without its directory: `000001` is 1. `None` if it is the name of something
/// else.
pub(super) fn segment_number(name: &str) -> Option<u32> {
    let plain = name.len() == 6 && name.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| name.parse().ok()).flatten()
}

/// The number of the segment at this path, relative to the block: `chunks/000001` is 1.
pub fn segment_of_path(rel_path: &str) -> Option<u32> {
    rel_path.strip_prefix(CHUNKS).and_then(segment_number)
}

/// The path of the segment with this number, relative to the block.
pub fn segment_path(number: u64) -> String {
    format!("{CHUNKS}{number:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_are_a_segment_and_nothing_else_is() {
        for (path, number) in [("chunks/000001", 1), ("chunks/000000", 0), ("chunks/999999", 999_999)] {
            assert_eq!(
                (segment_of_path(path), segment_path(u64::from(number))),
                (Some(number), path.into())
            );
        }
        for name in ["", "1", "00001", "0000001", "00000a", "+00001", "000001.part", "00000١"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
        for path in ["000001", "chunks/chunks/000001", "/chunks/000001", "chunks"] {
            assert_eq!(segment_of_path(path), None, "{path}");
        }
    }
}
