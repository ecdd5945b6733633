//! Unsigned numbers of one to ten bytes: seven bits in each, the lowest first, a set high bit saying that more follow.

use bytes::BufMut;

/// How long one of 64 bits is at most (bytes).
pub const LONGEST_UVARINT: usize = 10;

/// The number at the start of `bytes` and how many bytes it takes; `None` if it is cut off, or longer than 64 bits.
#[inline(always)]
pub fn uvarint(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes.first() {
        // Mostly.
        Some(&first) if first < 0x80 => Some((first.into(), 1)),
        _ => long(bytes),
    }
}

fn long(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(LONGEST_UVARINT) {
        // Of the tenth byte only one bit fits.
        if at == LONGEST_UVARINT - 1 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Appends `number`.
pub fn put_uvarint(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// How many bytes `number` takes.
pub fn uvarint_size(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_uvarint(&mut bytes, number);
            assert_eq!(uvarint(&bytes), Some((number, bytes.len())));
            assert_eq!(uvarint_size(number), bytes.len());
        }
    }

    #[test]
    fn numbers_of_every_length_are_read_and_longer_ones_refused() {
        for (bytes, want) in [
            (&[][..], None),
            (&[0], Some((0, 1))),
            (&[0x7f, 0xff], Some((127, 1))),
            (&[0x80], None),
            (&[0x80, 1], Some((128, 2))),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                Some((u64::MAX, 10)),
            ),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], None),
            (&[0x80; 10], None),
            (&[0x80; 11], None),
        ] {
            assert_eq!(uvarint(bytes), want, "{bytes:?}");
        }
    }
}
