//! Times, numbers, sizes and texts of others as people read them.

use jiff::Timestamp;

/// A moment (ms since 1970) as RFC 3339 in UTC; one that no calendar has as its number.
pub fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_string(),
        Err(_) => ms.to_string(),
    }
}

/// A moment (ms since 1970) to the second, as Thanos' tables have it.
pub fn time_to_the_second(ms: i64) -> String {
    time(ms.div_euclid(1000).saturating_mul(1000))
}

/// A number with a comma before every three digits.
pub fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A text of others without what would break a line or play tricks with a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char.is_control() {
            true => out.extend(char.escape_default()),
            false => out.push(char),
        }
    }
    out
}

/// A number of bytes with three digits or so.
pub fn byte_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_times_no_fractions_and_texts_no_controls() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_345_678_901, "12,345,678,901"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(with_commas(number), text);
        }
        assert_eq!(printable("a\u{1b}[31mb\nc\td é"), "a\\u{1b}[31mb\\nc\\td é");
        assert_eq!(time_to_the_second(-5), "1969-12-31T23:59:59Z");
        assert_eq!(time_to_the_second(1_767_225_601_501), "2026-01-01T00:00:01Z");
    }

    #[test]
    fn sizes_and_times_are_short() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(byte_size(bytes), text);
        }
        assert_eq!(time(1_767_236_400_000), "2026-01-01T03:00:00Z");
        assert_eq!(time(1_767_236_400_120), "2026-01-01T03:00:00.12Z");
        assert_eq!(time(i64::MIN), i64::MIN.to_string());
    }
}
