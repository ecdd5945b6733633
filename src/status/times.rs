//! How long ago and how long from now, as people say it.

use crate::model::duration_text::go_duration;

/// A time in ms as its two largest units: `2h5m`, `3d4h`, `12s`.
pub fn duration(ms: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let seconds = ms / 1000;
    let two = |large: i64, unit: &str, small: i64, smaller: &str| match seconds % large / small {
        0 => format!("{}{unit}", seconds / large),
        rest => format!("{}{unit}{rest}{smaller}", seconds / large),
    };
    match seconds {
        ..0 => format!("-{}", duration(ms.saturating_neg())),
        0 => go_duration(ms),
        1..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => two(MINUTE, "m", 1, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "m"),
        _ => two(DAY, "d", HOUR, "h"),
    }
}

/// How long ago something was.
pub fn ago(ms: i64, now_ms: i64) -> String {
    match now_ms.saturating_sub(ms) {
        ..0 => span_of(ms, now_ms),
        0..1000 => "now".to_owned(),
        past => format!("{} ago", duration(past)),
    }
}

/// How far in the future something is.
pub fn span_of(ms: i64, now_ms: i64) -> String {
    match ms.saturating_sub(now_ms) {
        ..=0 => "at any moment".to_owned(),
        left => format!("in {}", duration(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_at_most() {
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (59_999, "59s"),
            (60_000, "1m"),
            (125_000, "2m5s"),
            (7_500_000, "2h5m"),
            (7_200_000, "2h"),
            (90_000_000, "1d1h"),
            (-7_200_000, "-2h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(duration(i64::MAX), "106751991167d7h");
        assert!(duration(i64::MIN).starts_with('-'));
    }

    #[test]
    fn what_was_and_what_is_to_be_read_differently() {
        assert_eq!(ago(1_000, 121_000), "2m ago");
        assert_eq!(
            (ago(5_000, 5_000), ago(9_000, 5_000)),
            ("now".to_owned(), "in 4s".to_owned())
        );
        assert_eq!(span_of(4_000, 5_000), "at any moment");
    }
}
