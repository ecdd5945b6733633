//! Comparison of Prometheus' versions, for features that depend on them.

/// Whether `version` is at least `major.minor.0`. A pre-release comes before its release. What is no semantic version,
/// such as the `0` of a server that does not report one, is never enough.
pub fn at_least(version: &str, major: u64, minor: u64) -> bool {
    parse(version).is_some_and(|(have, pre)| have > (major, minor, 0) || have == (major, minor, 0) && !pre)
}

/// Major, minor and patch, and whether it is a pre-release.
fn parse(version: &str) -> Option<((u64, u64, u64), bool)> {
    let (version, build) = split(version, '+');
    let (core, pre) = split(version, '-');
    if !build.is_none_or(identifiers) || !pre.is_none_or(identifiers) {
        return None;
    }
    let mut numbers = core.split('.').map(number);
    let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers
        .next()
        .is_none()
        .then_some(((major, minor, patch), pre.is_some()))
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn identifiers(text: &str) -> bool {
    let good = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    text.split('.').all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_as_semantic_versions_do() {
        for (version, want) in [
            ("2.24.0", true),
            ("2.24.1-rc.1", true),
            ("2.42.0+ds", true),
            ("3.0.0-beta.0", true),
            ("10.0.0", true),
            ("2.24.0-rc.0", false),
            ("2.24.0-rc.0+ds", false),
            ("2.23.9", false),
            ("1.99.0", false),
            ("0", false),
            ("", false),
            ("2.24", false),
            ("2.024.0", false),
            ("2.42.0.1", false),
            ("2.42.0-", false),
            ("2.42.0+", false),
            ("+2.42.0", false),
            ("v2.42.0", false),
        ] {
            assert_eq!(at_least(version, 2, 24), want, "{version}");
        }
    }
}
