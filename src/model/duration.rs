//! The time syntaxes of Thanos' flags and files.
//!
//! | syntax | examples | where |
//! |---|---|---|
//! | Go with days and weeks | `1h30m`, `1.5h`, `-1d12h`, `500ms` | most flags |
//! | Prometheus | `1d`, `2h45m`, `1y` | `--http-grace-period`, `http_config` |
//! | a moment, or an offset from now | `2026-01-01T00:00:00Z`, `-2h`, `30d` | `--min-time` |
//!
//! Each is read as Thanos reads it, with its limits: Go counts nanoseconds in 64 bits, some 292 years. An offset
//! without a minus lies in the future, as in Thanos. The one difference: the hour of a time has two digits, as RFC 3339
//! has it, where Go is content with one.

use std::time::Duration;

use jiff::civil;

/// A text that is no duration or moment: what is wrong with it, and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DurationError(String);

const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_PER_HOUR: i64 = 3600 * NANOS_PER_SECOND;
const MILLIS_PER_DAY: i64 = 24 * 3600 * 1000;

/// A duration's unit and how long it is (ns). The micro sign has two code points, and Go takes both.
const GO_UNITS: [(&str, i64); 10] = [
    ("ns", 1),
    ("us", 1000),
    ("\u{b5}s", 1000),
    ("\u{3bc}s", 1000),
    ("ms", NANOS_PER_MILLI),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", NANOS_PER_HOUR),
    ("d", 24 * NANOS_PER_HOUR),
    ("w", 7 * 24 * NANOS_PER_HOUR),
];

/// A duration's unit and how long it is (ms), in the order in which they must come.
const PROMETHEUS_UNITS: [(&str, i64); 7] = [
    ("y", 365 * MILLIS_PER_DAY),
    ("w", 7 * MILLIS_PER_DAY),
    ("d", MILLIS_PER_DAY),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a duration in Go's syntax, with `d` and `w` beside Go's own units; the result is in ns and may be negative.
pub fn parse_go(text: &str) -> Result<i64, DurationError> {
    let wrong = |why: &str| {
        let syntax = "expected a duration such as 1h30m, 1.5h or -2d (units: ns, us, ms, s, m, h, d, w)";
        DurationError(format!("{text:?} is not a duration: {why}; {syntax}"))
    };
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong("it is empty"));
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (whole, fraction, after) = decimal(rest).ok_or_else(|| wrong("a number is missing"))?;
        let len = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(len);
        let unit = GO_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos);
        let unit = unit.ok_or_else(|| {
            wrong(if len == 0 {
                "a unit is missing"
            } else {
                "a unit is unknown"
            })
        })?;
        let part = whole_nanos(whole, unit).and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, unit)));
        let sum = part.and_then(|part| total.checked_add(part));
        total = sum.ok_or_else(|| wrong("it is longer than 292 years"))?;
        rest = after;
    }
    Ok(if negative { -total } else { total })
}

/// The digits before and behind the point at the start of `text`, and what follows. `None` if there is no digit.
fn decimal(text: &str) -> Option<(&str, &str, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    (!whole.is_empty() || !fraction.is_empty()).then_some((whole, fraction, rest))
}

fn whole_nanos(digits: &str, unit: i64) -> Option<i64> {
    let number: i64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    number.checked_mul(unit)
}

/// What is less than a nanosecond is cut off. Computed in floating point, as Go does, to come to the same result.
fn fraction_nanos(digits: &str, unit: i64) -> i64 {
    let (mut fraction, mut scale) = (0_i64, 1.0_f64);
    for digit in digits.bytes().map(|byte| i64::from(byte - b'0')) {
        // Digits beyond 63 bits are too small to count.
        let Some(longer) = fraction.checked_mul(10).and_then(|f| f.checked_add(digit)) else {
            break;
        };
        fraction = longer;
        scale *= 10.0;
    }
    (fraction as f64 * (unit as f64 / scale)) as i64
}

/// Reads a duration in Prometheus' syntax: whole numbers, the units in falling order, each at most once, no sign.
pub fn parse_prometheus(text: &str) -> Result<Duration, DurationError> {
    prometheus_millis(text).map(|millis| Duration::from_millis(millis.unsigned_abs()))
}

fn prometheus_millis(text: &str) -> Result<i64, DurationError> {
    let wrong = |why: &str| {
        let syntax = "expected a duration such as 30d, 2h45m or 1m30s (units, in this order: y, w, d, h, m, s, ms)";
        DurationError(format!("{text:?} is not a duration: {why}; {syntax}"))
    };
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    let mut units = PROMETHEUS_UNITS.iter();
    let (mut rest, mut total) = (text, 0_i64);
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let (unit, after) = after.split_at(after.bytes().take_while(u8::is_ascii_lowercase).count());
        if digits.is_empty() {
            return Err(wrong("a whole number is missing"));
        }
        // What was passed over does not come again, which keeps the order.
        let (_, millis) = units
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| wrong("a unit is missing, unknown or out of order"))?;
        let part = digits
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(*millis));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= i64::MAX / NANOS_PER_MILLI)
            .ok_or_else(|| wrong("it is longer than 292 years"))?;
        rest = after;
    }
    Ok(total)
}

/// A moment, or an offset from whenever it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOrDuration {
    /// A moment (ms since 1970).
    At(i64),
    /// So much after now (ms); before now if it is negative.
    FromNow(i64),
}

impl TimeOrDuration {
    /// Reads RFC 3339, or a duration in Prometheus' syntax that may have a minus before it.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        if let Some(millis) = rfc3339_millis(text) {
            return Ok(Self::At(millis));
        }
        let (sign, duration) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let millis = prometheus_millis(duration).map_err(|_| {
            let syntax = "expected RFC 3339 such as 2026-01-01T00:00:00Z, or an offset from now such as -2h or -30d";
            DurationError(format!("{text:?} is neither a time nor a duration; {syntax}"))
        })?;
        Ok(Self::FromNow(sign * millis))
    }

    /// The moment (ms since 1970) that this is at `now_ms`.
    pub fn resolve(self, now_ms: i64) -> i64 {
        match self {
            Self::At(millis) => millis,
            Self::FromNow(millis) => now_ms.saturating_add(millis),
        }
    }
}

/// The moment (ms since 1970, rounded down) that `text` names, in any year from 0 to 9999: the flags' own defaults are
/// the two ends of that range, which a `jiff::Timestamp` cannot hold.
fn rfc3339_millis(text: &str) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let bytes = date_time.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = |(byte, form): (&u8, &u8)| {
        if *form == b'd' {
            byte.is_ascii_digit()
        } else {
            byte == form
        }
    };
    if !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| date_time[range].parse::<i16>().ok();
    let small = |range| number(range).and_then(|n| i8::try_from(n).ok());
    let local = civil::DateTime::new(
        number(0..4)?,
        small(5..7)?,
        small(8..10)?,
        small(11..13)?,
        small(14..16)?,
        small(17..19)?,
        0,
    )
    .ok()?;
    let (fraction, zone) = match rest.strip_prefix(['.', ',']) {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("0", rest),
    };
    let milli: String = fraction.chars().chain("00".chars()).take(3).collect();
    let milli: i64 = if fraction.is_empty() {
        return None;
    } else {
        milli.parse().ok()?
    };
    let since = local.duration_since(civil::date(1970, 1, 1).at(0, 0, 0, 0)).as_secs();
    Some((since - offset_seconds(zone)?) * 1000 + milli)
}

/// How far ahead of UTC the zone `Z` or `+01:00` is (s).
fn offset_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |digits: &str, greatest: i64| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|number| plain && *number <= greatest)
    };
    // Go takes the ends of both ranges, too.
    Some(sign * (two(hours, 24)? * 3600 + two(minutes, 60)? * 60))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: i64 = NANOS_PER_SECOND;
    const H: i64 = NANOS_PER_HOUR;
    const D: i64 = 24 * H;

    /// The results are those of the parser that Thanos' flags use.
    #[test]
    fn reads_go_durations() {
        for (text, want) in [
            ("0", 0),
            ("-0", 0),
            ("+0", 0),
            ("0s", 0),
            ("1s", S),
            ("+1s", S),
            ("-1s", -S),
            ("1.5h", 3 * H / 2),
            ("-1.5h", -3 * H / 2),
            ("1h30m", 3 * H / 2),
            ("1ms1s", 1_001_000_000),
            ("1h1h", 2 * H),
            ("-1d", -D),
            ("1w2d", 9 * D),
            ("2d1w", 9 * D),
            ("0.5w", 7 * D / 2),
            (".5s", S / 2),
            ("5.s", 5 * S),
            ("100ns", 100),
            ("100us", 100_000),
            ("100\u{b5}s", 100_000),
            ("100\u{3bc}s", 100_000),
            ("1.9ns", 1),
            ("9007199254.740993ms", 9_007_199_254_740_993),
            ("39h9m14.425s", 140_954_425_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.9223372036854775808h", 3_320_413_933_267),
            ("0.92233720368547758079999h", 3_320_413_933_267),
            ("9223372036854775807ns", i64::MAX),
            ("2562047h47m16.854775807s", i64::MAX),
            ("-2562047h47m16.854775807s", -i64::MAX),
            ("106751d", 106_751 * D),
            ("15250w", 106_750 * D),
        ] {
            assert_eq!(parse_go(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "", "-", "+", "1", "-1", "00", "1.", ".s", "-.s", "s", "1y", "1S", "1h 30m", " 1s", "1s ", "--1s", "+-1s",
            "1e3s", "0x1s", "1h30", "1hm", "1mss", "1\u{b5}", "1,5s", "1s\0",
        ] {
            let error = parse_go(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a duration: ")), "{error}");
        }
        for text in [
            "9223372036854775808ns",
            "-9223372036854775808ns",
            "2562047h47m16.854775808s",
            "-2562047h47m16.854775808s",
            "106752d",
            "15250.5w",
            "3000000h",
            "106751d24h",
            "99999999999999999999s",
        ] {
            assert!(
                parse_go(text).unwrap_err().0.contains("longer than 292 years"),
                "{text}"
            );
        }
    }

    #[test]
    fn reads_prometheus_durations() {
        for (text, millis) in [
            ("0", 0),
            ("0y", 0),
            ("2m", 120_000),
            ("1d", 86_400_000),
            ("2h45m", 9_900_000),
            ("1w2d", 777_600_000),
            ("1s1ms", 1001),
            ("1y1w1d1h1m1s1ms", 32_230_861_001),
            ("292y24w", 9_223_027_200_000),
            ("9223372036854ms", 9_223_372_036_854),
            ("106751d23h47m16s854ms", 9_223_372_036_854),
        ] {
            assert_eq!(parse_prometheus(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "-1d",
            "+1d",
            "1",
            "00",
            "1.5h",
            ".5s",
            "1us",
            "1ns",
            "2d1w",
            "1ms1s",
            "1m1m",
            "1h 1m",
            " 1s",
            "1S",
            "d",
            "1hm",
            "1mss",
            "1h1",
            "293y",
            "292y30w",
            "9223372036855ms",
            "106751d23h47m16s855ms",
            "99999999999999999999s",
        ] {
            parse_prometheus(text).unwrap_err();
        }
    }

    #[test]
    fn reads_times_and_offsets() {
        use TimeOrDuration::{At, FromNow};
        for (text, want) in [
            ("2026-01-01T00:00:00Z", At(1_767_225_600_000)),
            ("2026-01-01T00:00:00.5Z", At(1_767_225_600_500)),
            ("2026-01-01T00:00:00.1239Z", At(1_767_225_600_123)),
            ("2026-01-01T00:00:00,5Z", At(1_767_225_600_500)),
            ("2026-01-01T00:00:00+01:00", At(1_767_222_000_000)),
            ("2026-01-01T00:00:00-23:59", At(1_767_311_940_000)),
            ("2024-02-29T00:00:00Z", At(1_709_164_800_000)),
            ("1969-12-31T23:59:59.9999Z", At(-1)),
            ("0000-01-01T00:00:00Z", At(-62_167_219_200_000)),
            ("9999-12-31T23:59:59Z", At(253_402_300_799_000)),
            ("9999-12-31T23:59:59.999999999Z", At(253_402_300_799_999)),
            ("-1d", FromNow(-86_400_000)),
            ("2h45m", FromNow(9_900_000)),
            ("-0", FromNow(0)),
            ("292y", FromNow(9_208_512_000_000)),
        ] {
            assert_eq!(TimeOrDuration::parse(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "-",
            "+1d",
            "--1h",
            "- 1h",
            "1.5h",
            "now",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01t00:00:00z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00Zx",
            "-2026-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:0é0Z",
        ] {
            let error = TimeOrDuration::parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} is neither a time nor a duration")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_offset_counts_from_now() {
        let resolve = |text, now| TimeOrDuration::parse(text).unwrap().resolve(now);
        assert_eq!(resolve("-1d", 86_400_001), 1);
        assert_eq!(resolve("1s", 5), 1005);
        assert_eq!(resolve("1970-01-01T00:00:01Z", 5), 1000);
        assert_eq!(resolve("-292y", i64::MIN + 1), i64::MIN);
    }

    proptest! {
        #[test]
        fn never_panic(text in "[-+]?([0-9.]{0,21}(ns|us|µs|ms|s|m|h|d|w|y|é)?){0,4}", any in ".{0,30}") {
            for text in [text, any] {
                let go = parse_go(&text);
                let _ = TimeOrDuration::parse(&text);
                // Where both syntaxes fit, they agree.
                if let (Ok(prometheus), Ok(go)) = (parse_prometheus(&text), go) {
                    prop_assert_eq!(prometheus.as_nanos(), go as u128);
                }
            }
        }

        #[test]
        fn whole_durations_come_back(nanos in -i64::MAX..i64::MAX) {
            prop_assert_eq!(parse_go(&format!("{nanos}ns")), Ok(nanos));
            let text = format!("{}{}s{}ns", if nanos < 0 { "-" } else { "" }, nanos.abs() / S, nanos.abs() % S);
            prop_assert_eq!(parse_go(&text), Ok(nanos));
        }
    }
}
