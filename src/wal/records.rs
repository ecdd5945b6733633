//! The records of a log: where the last whole one ends.
//!
//! A segment has pages of 32 KiB. A record is cut into fragments that do not cross pages; each has a head of 7 bytes: its kind
//! (whole, first, middle, last), its length and the CRC32C of its bytes. The rest of a page may be zeros. The content of
//! records is not looked at. Source: Prometheus' `tsdb/docs/format/wal.md`.

use std::io::{self, Read};

/// The length of a page (bytes).
pub(super) const PAGE: usize = 32 * 1024;
/// The length of a fragment's head (bytes).
pub(super) const HEAD: usize = 7;

/// How far a segment can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where its last whole record ends (bytes).
    pub whole: u64,
    /// Its length (bytes).
    pub len: u64,
    /// Why it cannot be read beyond; `None` if all of it is good, or it ends within a record as one that grows may.
    pub damage: Option<String>,
}

impl Extent {
    /// Whether it ends within a record, or behind one without the zeros that fill a page.
    pub fn is_cut_off(&self) -> bool {
        self.damage.is_none() && self.whole < self.len && !self.len.is_multiple_of(PAGE as u64)
    }
}

/// Which part of a record a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    First,
    Middle,
    Last,
}

/// A part of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) kind: Kind,
    /// The bits that say how the record is compressed.
    pub(super) compression: u8,
    pub(super) data: &'a [u8],
    /// Where it ends in its page.
    end: usize,
}

/// Reads a segment to its end, a page at a time.
///
/// # Errors
/// It cannot be read.
pub fn extent(segment: &mut impl Read) -> io::Result<Extent> {
    let mut page = vec![0; PAGE];
    let mut found = Extent {
        whole: 0,
        len: 0,
        damage: None,
    };
    // Within a record that began and has not ended.
    let mut is_open = false;
    loop {
        let filled = fill(segment, &mut page)?;
        let start = found.len;
        found.len += filled as u64;
        if found.damage.is_none() {
            let read = fragments(&page[..filled], &mut is_open, |fragment| {
                if matches!(fragment.kind, Kind::Whole | Kind::Last) {
                    found.whole = start + fragment.end as u64;
                }
            });
            if let Err((at, why)) = read {
                found.damage = Some(format!("{why} at byte {}", start + at as u64));
            }
        }
        if filled < PAGE {
            return Ok(found);
        }
    }
}

/// Reads the fragments of a page that may be cut off, and passes on each that is whole. `is_open` says whether a record has begun
/// on an earlier page.
///
/// # Errors
/// What is wrong with the page, and where.
pub(super) fn fragments<'a>(
    page: &'a [u8],
    is_open: &mut bool,
    mut each: impl FnMut(Fragment<'a>),
) -> Result<(), (usize, &'static str)> {
    let mut at = 0;
    while at < page.len() {
        if page[at] == 0 {
            // To the end of the page.
            let is_padded = page[at..].iter().all(|byte| *byte == 0);
            return is_padded
                .then_some(())
                .ok_or((at, "there is something behind the last record of a page"));
        }
        let Some((head, rest)) = page[at..].split_first_chunk::<HEAD>() else {
            return cut_off(page.len(), at);
        };
        let [kind, len_high, len_low, crc @ ..] = *head;
        let compression = kind & 0b1111_1000;
        let kind = match kind & 7 {
            1 => Kind::Whole,
            2 => Kind::First,
            3 => Kind::Middle,
            4 => Kind::Last,
            _ => return Err((at, "there is no kind of record")),
        };
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let Some(data) = rest.get(..len) else {
            return cut_off(page.len(), at);
        };
        if crc32c::crc32c(data) != u32::from_be_bytes(crc) {
            return Err((at, "the checksum of a record is wrong"));
        }
        if *is_open != matches!(kind, Kind::Middle | Kind::Last) {
            return Err((at, "a part of a record is missing"));
        }
        *is_open = matches!(kind, Kind::First | Kind::Middle);
        at += HEAD + len;
        each(Fragment {
            kind,
            compression,
            data,
            end: at,
        });
    }
    Ok(())
}

/// A page that ends within a fragment: the last one may, as long as it grows.
fn cut_off(page: usize, at: usize) -> Result<(), (usize, &'static str)> {
    match page < PAGE {
        true => Ok(()),
        false => Err((at, "a record is longer than its page")),
    }
}

/// Reads until the page is full or there is no more; how many bytes there were.
pub(super) fn fill(from: &mut impl Read, page: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < page.len() {
        match from.read(&mut page[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A fragment, made by hand from the description of the format.
    fn fragment(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(crc32c::crc32c(data).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn of(bytes: &[u8]) -> Extent {
        extent(&mut &*bytes).unwrap()
    }

    /// Two records in the first page, one that crosses into the second, and its end there.
    fn segment() -> (Vec<u8>, Vec<u64>) {
        let mut bytes = fragment(1, b"one");
        let mut ends = vec![bytes.len() as u64];
        // Bit 3 says that the data is compressed with snappy, bit 4 with zstd.
        bytes.extend(fragment(1 | 8, &[7; 100]));
        ends.push(bytes.len() as u64);
        let rest = PAGE - bytes.len() - HEAD;
        bytes.extend(fragment(2 | 16, &vec![1; rest]));
        assert_eq!(bytes.len(), PAGE);
        bytes.extend(fragment(3, &vec![2; PAGE - HEAD]));
        bytes.extend(fragment(4, b"end"));
        ends.push(bytes.len() as u64);
        (bytes, ends)
    }

    #[test]
    fn wherever_a_segment_is_cut_the_records_before_are_whole() {
        let (bytes, ends) = segment();
        for cut in (0..300).chain(PAGE - 5..PAGE + 20).chain(2 * PAGE - 5..=bytes.len()) {
            let whole = ends.iter().copied().filter(|end| *end <= cut as u64).max().unwrap_or(0);
            let expected = Extent {
                whole,
                len: cut as u64,
                damage: None,
            };
            assert_eq!(of(&bytes[..cut]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn the_rest_of_a_page_is_zeros() {
        let (bytes, ends) = segment();
        let mut padded = bytes.clone();
        padded.resize(3 * PAGE, 0);
        assert_eq!(
            of(&padded),
            Extent {
                whole: ends[2],
                len: 3 * PAGE as u64,
                damage: None
            }
        );
        padded.extend(fragment(1, b"next"));
        assert_eq!(of(&padded).whole, padded.len() as u64);
        padded[bytes.len() + 50] = 1;
        let damaged = of(&padded);
        assert_eq!((damaged.whole, damaged.damage.is_some()), (ends[2], true));
    }

    #[test]
    fn damage_is_told_with_its_place_and_what_was_before_it_is_whole() {
        let (bytes, ends) = segment();
        for at in [
            ends[0] as usize,
            ends[0] as usize + 1,
            ends[0] as usize + 3,
            ends[0] as usize + 50,
        ] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20 | 4;
            let extent = of(&damaged);
            assert_eq!(extent.whole, ends[0], "byte {at}");
            assert!(
                extent.damage.unwrap().ends_with(&format!("at byte {}", ends[0])),
                "byte {at}"
            );
        }
        // A middle without a first, and a first within another.
        for kinds in [[1, 3], [2, 2], [2, 1], [1, 4]] {
            let bytes: Vec<u8> = kinds.iter().flat_map(|kind| fragment(*kind, b"x")).collect();
            assert!(of(&bytes).damage.is_some(), "{kinds:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes: Vec<u8>, repeat in 1_usize..200) {
            let bytes = bytes.repeat(repeat);
            let extent = of(&bytes);
            prop_assert_eq!(extent.len, bytes.len() as u64);
            prop_assert!(extent.whole <= extent.len);
        }
    }
}
