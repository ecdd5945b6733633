//! How much an answer brings of an object: what its head says must be exactly what was asked for.

use futures_util::{StreamExt as _, stream};

use super::words::tidy;
use crate::objstore::Reading;

/// What is said of an object that is another one than the one whose reading began.
pub(in crate::objstore) const REPLACED: &str = "the object was replaced while it was read";

/// The answer for an offset that the store calls beyond the end: right at the end there is nothing, and no error.
///
/// # Errors
/// It is beyond the end.
pub(in crate::objstore) fn nothing_left(offset: u64, size: Option<u64>) -> Result<Reading, String> {
    match size {
        Some(size) if size == offset => Ok(Reading {
            len: 0,
            pieces: stream::empty().boxed(),
        }),
        size => {
            let size = size.map_or("fewer".to_owned(), |size| size.to_string());
            Err(format!(
                "there is no byte {offset} to read on from: the object has {size} bytes"
            ))
        }
    }
}

/// The object's size, from an answer that must bring all of it from `at` on.
///
/// # Errors
/// What is wrong with what was announced.
pub(in crate::objstore) fn size(at: u64, length: Option<u64>, range: Option<&str>) -> Result<u64, String> {
    let Some(range) = range else {
        return match length {
            Some(size) if at == 0 => Ok(size),
            Some(_) => Err(format!(
                "the store was asked for the bytes from {at} on and sent the object from its start: it, or a proxy on \
                 the way, ignores Range"
            )),
            None => Err("the store does not tell how many bytes it sends".to_owned()),
        };
    };
    let wrong = || {
        format!(
            "the store was asked for the bytes from {at} on and announced {:?}",
            tidy(range)
        )
    };
    let (first, last, size) = parse_range(range).ok_or_else(wrong)?;
    if first != at || last.checked_add(1) != Some(size) || length.is_some_and(|length| length != size - at) {
        return Err(wrong());
    }
    Ok(size)
}

/// First, last and all, of `bytes 5-9/10`.
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last, size) = (number(first)?, number(last)?, number(size)?);
    (first <= last && last < size).then_some((first, last, size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_range_that_was_asked_for_will_do() {
        for (at, length, range, expected) in [
            (0, Some(10), None, Some(10)),
            (0, Some(0), None, Some(0)),
            (0, Some(10), Some("bytes 0-9/10"), Some(10)),
            (5, Some(5), Some("bytes 5-9/10"), Some(10)),
            (5, None, Some("bytes 5-9/10"), Some(10)),
            (5, Some(10), None, None),
            (0, None, None, None),
            (5, Some(5), Some("bytes 4-8/10"), None),
            (5, Some(4), Some("bytes 5-8/10"), None),
            (5, Some(4), Some("bytes 5-9/10"), None),
            (5, Some(5), Some("bytes 5-9/*"), None),
            (5, Some(5), Some("bytes */10"), None),
            (5, Some(5), Some("bytes 5-+9/10"), None),
            (5, Some(5), Some("5-9/10"), None),
            (
                5,
                Some(5),
                Some("bytes 5-18446744073709551615/18446744073709551616"),
                None,
            ),
        ] {
            let got = size(at, length, range);
            assert_eq!(
                got.as_ref().ok(),
                expected.as_ref(),
                "{at} {length:?} {range:?}: {got:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_answer_leads_to_a_size_before_the_offset(at in 0..20_u64, length: Option<u64>, range in "(bytes )?[0-9*-]{0,6}/[0-9*]{0,4}") {
            if let Ok(size) = size(at, length, Some(&range)) {
                prop_assert!(size > at);
            }
        }
    }
}
