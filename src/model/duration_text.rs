//! Durations as Go writes them.

/// A duration (ms) as Go writes it: `2h0m0s`, `1.5s`, `20ms`.
pub fn go_duration(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    let (whole, fraction) = (ms / 1000, ms % 1000);
    if whole == 0 && fraction > 0 {
        return format!("{sign}{fraction}ms");
    }
    let seconds = match fraction {
        0 => format!("{}s", whole % 60),
        _ => format!("{}s", format!("{}.{fraction:03}", whole % 60).trim_end_matches('0')),
    };
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Go's `Duration.String` has them.
    #[test]
    fn durations_are_those_of_go() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (-20, "-20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (1010, "1.01s"),
            (60_000, "1m0s"),
            (7_199_877, "1h59m59.877s"),
            (136_800_123, "38h0m0.123s"),
            (-28_800_000, "-8h0m0s"),
            (864_000_000, "240h0m0s"),
            (i64::MIN, "-2562047788015h12m55.808s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }
}
