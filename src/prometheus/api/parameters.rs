//! How times, selectors and label names are written into a URL.

use std::fmt::Write as _;

use crate::{model::Matcher, prometheus::version::at_least};

/// The largest time that Prometheus understands, in ms: one that is larger overflows there and selects nothing.
const LATEST: i64 = (i64::MAX / 1000 - 62_135_596_801) * 1000;

/// A time in ms as Prometheus reads it: seconds in plain decimals. One beyond what it can read becomes the last one that
/// it can, so that an open end stays open.
pub(super) fn time(ms: i64) -> String {
    seconds(ms.clamp(-LATEST, LATEST))
}

fn seconds(ms: i64) -> String {
    // As Go computes it, so that the same text comes out.
    let whole = ms.div_euclid(1000) as f64;
    let fraction = (ms.rem_euclid(1000) * 1_000_000) as f64 / 1e9;
    (whole + fraction).to_string()
}

/// The matchers as one PromQL selector, in their order.
pub(super) fn selector(matchers: &[Matcher]) -> String {
    let mut text = "{".to_owned();
    for (i, matcher) in matchers.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        if is_classic(&matcher.name) {
            text.push_str(&matcher.name);
        } else {
            quote(&mut text, &matcher.name);
        }
        text.push_str(matcher.op.as_str());
        quote(&mut text, &matcher.value);
    }
    text.push('}');
    text
}

/// Writes a string as Go and PromQL read it.
fn quote(to: &mut String, text: &str) {
    to.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => to.extend(['\\', char]),
            '\u{7}' => to.push_str("\\a"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\u{b}' => to.push_str("\\v"),
            '\0'..='\u{1f}' | '\u{7f}' => escape(to, format_args!("\\x{:02x}", char as u32)),
            // Prometheus takes a plain U+FFFD for a byte that is no text.
            '\u{80}'..='\u{9f}' | '\u{fffd}' => escape(to, format_args!("\\u{:04x}", char as u32)),
            char => to.push(char),
        }
    }
    to.push('"');
}

fn escape(to: &mut String, escaped: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = to.write_fmt(escaped);
}

/// Whether every version of Prometheus takes `name` as a label's name, without quotes.
fn is_classic(name: &str) -> bool {
    let good = |(at, byte): (usize, u8)| byte == b'_' || byte.is_ascii_alphabetic() || at > 0 && byte.is_ascii_digit();
    !name.is_empty() && name.bytes().enumerate().all(good)
}

/// A label's name as part of a path for Prometheus 3, which takes any name in its escaped form.
pub(super) fn escaped_name(name: &str) -> String {
    if is_classic(name) && !name.starts_with("U__") {
        return name.to_owned();
    }
    let mut text = "U__".to_owned();
    for (at, char) in name.chars().enumerate() {
        match char {
            '_' => text.push_str("__"),
            char if char.is_ascii_alphabetic() || at > 0 && char.is_ascii_digit() => text.push(char),
            char => escape(&mut text, format_args!("_{:x}_", char as u32)),
        }
    }
    text
}

/// A label's name as part of a path for a Prometheus of this `version`; `None` where no way of writing it is known.
pub(in crate::prometheus) fn label_in_path(name: &str, version: &str) -> Option<String> {
    if at_least(version, 3, 0) {
        return Some(escaped_name(name));
    }
    is_classic(name).then(|| name.to_owned())
}

/// Percent-encodes one element of a path.
pub(super) fn path_element(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(byte.into()),
            byte => escape(&mut path, format_args!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matcher::Op;

    #[test]
    fn writes_times_as_go_does() {
        for (ms, want) in [
            (0, "0"),
            (1_700_000_000_000, "1700000000"),
            (1_700_000_000_123, "1700000000.123"),
            (-1500, "-1.5"),
            (-62_167_219_200_000, "-62167219200"),
            (i64::MAX, "9223372036854776"),
            (i64::MIN, "-9223372036854776"),
        ] {
            assert_eq!(seconds(ms), want);
        }
        assert_eq!(time(-1500), "-1.5");
        assert_eq!(time(i64::MAX), "9223309901257974");
        assert_eq!(time(i64::MIN), "-9223309901257974");
    }

    #[test]
    fn writes_selectors_as_go_does() {
        let matchers = [
            Matcher::new(Op::Equal, "__name__", "up"),
            Matcher::new(Op::NotRegex, "job", "n\\d\"\n\r\t\u{7}\u{8}\u{b}\u{c}\0\u{1f}\u{7f}"),
            Matcher::new(Op::NotEqual, "a.b\"", "\u{85}é\u{fffd}😀"),
            Matcher::new(Op::Regex, "0", ""),
        ];
        assert_eq!(
            selector(&matchers),
            r#"{__name__="up", job!~"n\\d\"\n\r\t\a\b\v\f\x00\x1f\x7f", "a.b\""!="\u0085é\ufffd😀", "0"=~""}"#
        );
        assert_eq!(selector(&[]), "{}");
    }

    #[test]
    fn writes_names_into_a_path() {
        for (name, want) in [
            ("job", "job"),
            ("__name__", "__name__"),
            ("a/b", "U__a_2f_b"),
            ("a.b_c", "U__a_2e_b__c"),
            ("0a0", "U___30_a0"),
            ("é😀", "U___e9__1f600_"),
            ("U__a", "U__U____a"),
        ] {
            assert_eq!(escaped_name(name), want);
        }
        assert_eq!(path_element("a/b c%é~.-_"), "a%2Fb%20c%25%C3%A9~.-_");
        for (name, version, want) in [
            ("job", "2.42.0+ds", Some("job")),
            ("U__a", "2.42.0+ds", Some("U__a")),
            ("a.b", "2.53.3", None),
            ("", "2.53.3", None),
            ("a.b", "0", None),
            ("a.b", "3.5.3", Some("U__a_2e_b")),
            ("U__a", "3.5.3", Some("U__U____a")),
        ] {
            assert_eq!(label_in_path(name, version).as_deref(), want, "{name} {version}");
        }
    }
}
