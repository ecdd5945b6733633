//! Numbers of bytes: `1048576`, `1.5GiB`, `50MB/s`.

use super::{ValueError, error};

/// The units, and how many bytes each has.
const UNITS: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// More digits behind the point than any unit can tell apart.
const DIGITS: usize = 18;

/// A number of bytes, with or without a unit, and with or without `/s` behind it: it may be a rate. What is above 0 is
/// never read as 0, which means that there is no limit.
pub(in crate::cli) fn size(text: &str) -> Result<u64, ValueError> {
    let hint = "expected a number of bytes such as 1048576, 50MiB, 1.5GiB or 100MB";
    let trimmed = text.trim();
    let amount = trimmed.strip_suffix("/s").unwrap_or(trimmed).trim_end();
    let digits = amount
        .find(|char: char| !char.is_ascii_digit() && char != '.')
        .unwrap_or(amount.len());
    let (number, unit) = amount.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !plain(whole) || !plain(fraction) {
        return error(format!("{hint}, got {text:?}"));
    }
    let unit = unit.trim_start();
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let units = "B, KiB, MiB, GiB, TiB, KB, MB, GB and TB";
        return error(format!("{unit:?} in {text:?} is no unit: there are {units}"));
    };
    let too_much = || ValueError(format!("{text:?} is more than {} bytes", u64::MAX));
    let whole: u128 = whole.parse().map_err(|_| too_much())?;
    // Digits only, and no more than fit.
    let fraction = &fraction[..fraction.len().min(DIGITS)];
    let part = fraction.parse::<u128>().unwrap_or(0) * u128::from(*factor) / 10_u128.pow(fraction.len() as u32);
    let bytes = whole.checked_mul(u128::from(*factor)).ok_or_else(too_much)? + part;
    match u64::try_from(bytes) {
        Ok(0) if number.bytes().any(|digit| matches!(digit, b'1'..=b'9')) => {
            error(format!("{text:?} is less than a byte; 0 means no limit"))
        }
        bytes => bytes.map_err(|_| too_much()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("0B", 0),
            ("0.0 MiB/s", 0),
            ("1048576", 1 << 20),
            ("1B", 1),
            ("1KiB", 1024),
            ("1KB", 1000),
            ("1kB", 1000),
            ("50MiB", 50 << 20),
            ("50 MiB", 50 << 20),
            ("50MiB/s", 50 << 20),
            ("50MB/s", 50_000_000),
            ("1.5GiB", 1536 << 20),
            ("0.5KiB", 512),
            ("2.25TB", 2_250_000_000_000),
            ("1TiB", 1 << 40),
            ("3GB", 3_000_000_000),
            ("0.9999999999999999999999KB", 999),
            (" 7 ", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told() {
        for (text, part) in [
            ("", "expected a number of bytes such as"),
            ("MiB", "expected a number of bytes"),
            ("-1", "expected a number of bytes"),
            ("+1", "expected a number of bytes"),
            ("1.", "expected a number of bytes"),
            (".5GiB", "expected a number of bytes"),
            ("1.2.3", "expected a number of bytes"),
            ("1,5GiB", "\",5GiB\" in \"1,5GiB\" is no unit"),
            ("50M", "\"M\" in \"50M\" is no unit"),
            ("50Mbit", "is no unit: there are B, KiB"),
            ("50mib", "is no unit"),
            ("50/s/s", "is no unit"),
            ("1e6", "is no unit"),
            ("18446744073709551616", "is more than 18446744073709551615 bytes"),
            ("16777216TiB", "is more than"),
            ("999999999999999999999999999999999999999999", "is more than"),
            ("0.1B", "is less than a byte"),
            ("0.0001KiB", "is less than a byte"),
        ] {
            let error = size(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.]{0,45}(B|KiB|TB|/s|\\PC){0,3}") {
            let _ = size(&text);
        }
    }
}
