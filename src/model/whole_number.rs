//! Whole numbers as YAML texts spell them.
//!
//! Helm and other Go templates write large numbers as floats: 134217728 becomes `1.34217728e+08`. Go's YAML reader takes
//! these where a whole number is wanted, and so does this one, but only what is whole: nothing is rounded and nothing is cut
//! off. Beside them it takes what YAML takes: a sign, `0x`, `0o`, `0b`, and `_` between digits. A decimal number does not
//! begin with a zero, since readers do not agree whether it is octal then.

use serde::{Deserialize, Deserializer};

/// Why a text is no whole number. The text itself is not shown: it may be a secret in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWhole {
    /// It is no number.
    #[error("must be a whole number")]
    NotANumber,
    /// It has a fraction.
    #[error("must be a whole number, this one has a fraction")]
    Fraction,
    /// It is beyond 64 bits.
    #[error("must be a whole number of at most 64 bits, this one is larger")]
    OutOfRange,
}

/// A value of a YAML text that is to be a whole number. It reads any scalar: what is wrong with it is the error of
/// [`WholeNumber::value`], so that whoever knows the key can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeNumber(Result<i64, NotWhole>);

impl WholeNumber {
    /// The number.
    ///
    /// # Errors
    /// Why it is none.
    pub fn value(&self) -> Result<i64, NotWhole> {
        self.0
    }
}

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(parse(&String::deserialize(deserializer)?)))
    }
}

/// Reads a whole number.
///
/// # Errors
/// The text is no number, has a fraction, or does not fit into 64 bits with a sign.
pub fn parse(text: &str) -> Result<i64, NotWhole> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let size = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => digits(&rest[2..], 16)?,
        [b'0', b'o' | b'O', ..] => digits(&rest[2..], 8)?,
        [b'0', b'b' | b'B', ..] => digits(&rest[2..], 2)?,
        [b'0', b'0'..=b'9' | b'_', ..] => return Err(NotWhole::NotANumber),
        _ if rest.contains(['.', 'e', 'E']) => float(rest)?,
        _ => digits(rest, 10)?,
    };
    i64::try_from(if negative { -size } else { size }).map_err(|_| NotWhole::OutOfRange)
}

/// Digits with `_` between them.
fn digits(text: &str, radix: u32) -> Result<i128, NotWhole> {
    let lone = |digits: &str| digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix));
    if text.split('_').any(lone) {
        return Err(NotWhole::NotANumber);
    }
    i128::from_str_radix(&text.replace('_', ""), radix).map_err(|_| NotWhole::OutOfRange)
}

/// A decimal fraction, with or without an exponent, if all of it is whole.
fn float(text: &str) -> Result<i128, NotWhole> {
    let is_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if !is_digits(whole)
        || !is_digits(fraction)
        || !is_digits(exponent_digits)
        || exponent_digits.is_empty()
        || (whole.is_empty() && fraction.is_empty())
    {
        return Err(NotWhole::NotANumber);
    }
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let zeros = all.len() - all.trim_end_matches('0').len();
    // Where the exponent does not fit into 64 bits, the number is too large or has a fraction by far.
    let exponent: i64 = exponent.parse().unwrap_or(match exponent.starts_with('-') {
        true => i64::MIN / 2,
        false => i64::MAX / 2,
    });
    let place = exponent.saturating_add(i64::try_from(zeros).unwrap_or(0)) - i64::try_from(fraction.len()).unwrap_or(0);
    if place < 0 {
        return Err(NotWhole::Fraction);
    }
    let scale = u32::try_from(place).ok().and_then(|place| 10_i128.checked_pow(place));
    let number = significant.parse::<i128>().ok();
    let scaled = scale.and_then(|scale| number?.checked_mul(scale));
    scaled.ok_or(NotWhole::OutOfRange)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_number_in_any_spelling_is_that_number() {
        for (text, expected) in [
            ("1.34217728e+08", 134_217_728),
            ("9e+10", 90_000_000_000),
            ("1E3", 1000),
            ("-1.5e1", -15),
            ("+1.0", 1),
            ("1.", 1),
            (".5e1", 5),
            ("100e-2", 1),
            ("0.0e999999999999999999999", 0),
            ("9.223372036854775807e18", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("67_108_864", 67_108_864),
            ("0x4000000", 67_108_864),
            ("0o17", 15),
            ("0b101", 5),
            ("0", 0),
            ("-0", 0),
            (" 7\n", 7),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_refused_with_the_reason() {
        use NotWhole::*;
        for (text, reason) in [
            ("1.5", Fraction),
            ("1.34217728e+07.5", NotANumber),
            ("134217728.5", Fraction),
            ("1e-1", Fraction),
            ("1e-99999999999999999999", Fraction),
            ("9223372036854775808", OutOfRange),
            ("1e19", OutOfRange),
            ("1e99999999999999999999", OutOfRange),
            ("999999999999999999999999999999999999999999", OutOfRange),
            ("64MB", NotANumber),
            ("", NotANumber),
            ("-", NotANumber),
            (".", NotANumber),
            ("e5", NotANumber),
            ("1e", NotANumber),
            ("1e+", NotANumber),
            ("0x", NotANumber),
            ("0x-1", NotANumber),
            ("--1", NotANumber),
            ("1__0", NotANumber),
            ("_1", NotANumber),
            ("010", NotANumber),
            (".inf", NotANumber),
            (".nan", NotANumber),
            ("true", NotANumber),
            ("\u{661}", NotANumber),
        ] {
            assert_eq!(parse(text), Err(reason), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn go_s_spelling_of_a_float_is_read_exactly(number in -(1_i64 << 53)..(1_i64 << 53)) {
            prop_assert_eq!(parse(&format!("{:e}", number as f64)), Ok(number));
            prop_assert_eq!(parse(&number.to_string()), Ok(number));
        }

        #[test]
        fn any_text_gives_a_number_or_an_error(text in "[-+0-9._exobEX ]{0,24}") {
            let _ = parse(&text);
        }
    }
}
