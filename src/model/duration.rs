//! STUB of the time syntaxes: enough to build and test the flags against.

use std::{fmt, time::Duration};

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationError(String);

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DurationError {}

fn bad(text: &str) -> DurationError {
    DurationError(format!("{text:?} is no duration, expected one like 30s or 1h30m"))
}

/// Nanoseconds of a text in the Go+ syntax.
pub fn parse_go(text: &str) -> Result<i64, DurationError> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let units = [
        ("ns", 1e0),
        ("us", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
        ("d", 8.64e13),
        ("w", 6.048e14),
    ];
    Ok((sign * sum(rest, &units).ok_or_else(|| bad(text))?) as i64)
}

/// A text in the Prometheus syntax.
pub fn parse_prometheus(text: &str) -> Result<Duration, DurationError> {
    let units = [
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
        ("d", 8.64e13),
        ("w", 6.048e14),
        ("y", 3.1536e16),
    ];
    if text.contains('.') {
        return Err(bad(text));
    }
    Ok(Duration::from_nanos(sum(text, &units).ok_or_else(|| bad(text))? as u64))
}

fn sum(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        sum += number * units.iter().find(|(unit, _)| *unit == &rest[..end])?.1;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// A point in time, fixed or relative to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOrDuration {
    /// Milliseconds since 1970.
    At(i64),
    /// Milliseconds from now.
    FromNow(i64),
}

impl TimeOrDuration {
    /// RFC 3339, or an optional minus and a Prometheus duration.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(at.as_millisecond()));
        }
        let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let length = parse_prometheus(rest).map_err(|_| bad(text))?;
        Ok(Self::FromNow(sign * length.as_millis() as i64))
    }

    /// Milliseconds since 1970.
    pub fn resolve(self, now_ms: i64) -> i64 {
        match self {
            Self::At(at) => at,
            Self::FromNow(ms) => now_ms + ms,
        }
    }
}
