//! Strings in quotes, as Go and as PromQL write them.
//!
//! Both know double quotes with escapes, and backticks without any. Single quotes hold exactly one character in Go, and
//! a string with escapes in PromQL. Everything here is pure, and never panics whatever it is given.

/// Whose strings they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Go's source code, and Thanos' flags for labels.
    Go,
    /// PromQL.
    PromQl,
}

/// Why a string in quotes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// It does not begin with a quote.
    #[error("it does not begin with a quote")]
    NoQuote,
    /// The quote that it begins with does not come again.
    #[error("the {0} that it begins with is not closed")]
    Open(char),
    /// There is something behind the closing quote.
    #[error("it goes on after its closing {0}")]
    Longer(char),
    /// A line ends within it.
    #[error("a line ends inside the quotes: write \\n")]
    NewLine,
    /// A backslash before something else than an escape.
    #[error("{0} is no escape: there are \\n \\t \\r \\a \\b \\f \\v \\\\ \\{1} \\xNN \\NNN \\uNNNN \\UNNNNNNNN")]
    Escape(String, char),
    /// The bytes of its escapes are no text.
    #[error("its escapes do not give UTF-8")]
    NotUtf8,
    /// Single quotes in Go around something else than one character.
    #[error("single quotes hold exactly one character: use double quotes")]
    NotOneCharacter,
}

/// The first characters of a text, at most so many, without what would break a line.
pub(super) fn beginning(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for char in text.chars().take(most) {
        match char.is_control() {
            true => shown.extend(char.escape_debug()),
            false => shown.push(char),
        }
    }
    if text.chars().nth(most).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Whether a text begins as a string in quotes does.
pub fn begins_quoted(text: &str) -> bool {
    text.starts_with(['"', '\'', '`'])
}

/// The text that a string in quotes stands for, when `quoted` is nothing else.
///
/// # Errors
/// Whatever makes it no such string.
pub fn unquote(quoted: &str, language: Language) -> Result<String, QuoteError> {
    match unquote_first(quoted, language)? {
        (text, "") => Ok(text),
        _ => Err(QuoteError::Longer(quoted.chars().next().unwrap_or('"'))),
    }
}

/// Reads the string in quotes at the beginning of `text`; also gives what follows it.
///
/// # Errors
/// When there is no whole one.
pub fn unquote_first(text: &str, language: Language) -> Result<(String, &str), QuoteError> {
    let mut chars = text.chars();
    let quote = match chars.next() {
        Some('`') => return raw(chars.as_str(), language),
        Some(quote @ ('"' | '\'')) => quote,
        _ => return Err(QuoteError::NoQuote),
    };
    let mut bytes = Vec::new();
    let mut characters = 0;
    loop {
        match chars.next().ok_or(QuoteError::Open(quote))? {
            '\n' => return Err(QuoteError::NewLine),
            '\\' => {
                let (escaped, rest) = escape(chars.as_str(), quote)?;
                match escaped {
                    Escaped::Byte(byte) => bytes.push(byte),
                    Escaped::Char(char) => push(&mut bytes, char),
                }
                chars = rest.chars();
            }
            end if end == quote => break,
            plain => push(&mut bytes, plain),
        }
        characters += 1;
    }
    if language == Language::Go && quote == '\'' && characters != 1 {
        return Err(QuoteError::NotOneCharacter);
    }
    let value = String::from_utf8(bytes).map_err(|_| QuoteError::NotUtf8)?;
    Ok((value, chars.as_str()))
}

/// A string between backticks, whose first one is behind us.
fn raw(text: &str, language: Language) -> Result<(String, &str), QuoteError> {
    let (value, rest) = text.split_once('`').ok_or(QuoteError::Open('`'))?;
    let value = match language {
        // Go's sources may come from Windows.
        Language::Go => value.replace('\r', ""),
        Language::PromQl => value.to_owned(),
    };
    Ok((value, rest))
}

enum Escaped {
    /// `\xNN` and `\NNN` stand for a byte, which need not be a character.
    Byte(u8),
    Char(char),
}

fn push(bytes: &mut Vec<u8>, char: char) {
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What an escape stands for, whose backslash is behind us; also gives what follows it.
fn escape(text: &str, quote: char) -> Result<(Escaped, &str), QuoteError> {
    let kind = text.chars().next().ok_or(QuoteError::Open(quote))?;
    let after = &text[kind.len_utf8()..];
    let plain = |char| Ok((Escaped::Char(char), after));
    let digits = |text: &'_ str, count: usize, radix: u32| {
        let digits = text.get(..count)?;
        let good = digits.chars().all(|digit| digit.is_digit(radix));
        u32::from_str_radix(digits, radix).ok().filter(|_| good)
    };
    let wrong = |count: usize| {
        let shown: String = text.chars().take(count).collect();
        QuoteError::Escape(format!("\\{}", beginning(&shown, count)), quote)
    };
    match kind {
        'a' => plain('\x07'),
        'b' => plain('\x08'),
        'f' => plain('\x0c'),
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'v' => plain('\x0b'),
        '\\' => plain('\\'),
        same if same == quote => plain(quote),
        'x' => {
            let byte = digits(after, 2, 16).and_then(|byte| u8::try_from(byte).ok());
            Ok((Escaped::Byte(byte.ok_or_else(|| wrong(3))?), &after[2..]))
        }
        '0'..='7' => {
            let byte = digits(text, 3, 8).and_then(|byte| u8::try_from(byte).ok());
            Ok((Escaped::Byte(byte.ok_or_else(|| wrong(3))?), &text[3..]))
        }
        'u' | 'U' => {
            let count = if kind == 'u' { 4 } else { 8 };
            let char = digits(after, count, 16).and_then(char::from_u32);
            Ok((Escaped::Char(char.ok_or_else(|| wrong(count + 1))?), &after[count..]))
        }
        _ => Err(wrong(1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_read_as_go_reads_them() {
        let table = [
            (r#""""#, ""),
            (r#""eu""#, "eu"),
            (r#""a\a\b\f\n\r\t\v\\\"b""#, "a\x07\x08\x0c\n\r\t\x0b\\\"b"),
            (r#""\x41\101\u00fc\U0001F600""#, "AAü😀"),
            (r#""\xc3\xbc""#, "ü"),
            (r#""it's `so`""#, "it's `so`"),
            ("`a\\n\"'\nb`", "a\\n\"'\nb"),
            ("`a\r\nb`", "a\nb"),
            ("'x'", "x"),
            ("'ü'", "ü"),
            (r"'\''", "'"),
            (r"'\n'", "\n"),
            (r#"'"'"#, "\""),
        ];
        for (quoted, text) in table {
            assert_eq!(unquote(quoted, Language::Go).as_deref(), Ok(text), "{quoted}");
        }
    }

    #[test]
    fn promql_has_strings_in_single_quotes() {
        let table = [
            ("''", ""),
            (r"'it\'s \x41'", "it's A"),
            (r#"'"'"#, "\""),
            (r#""'""#, "'"),
            ("`a\r\nb`", "a\r\nb"),
        ];
        for (quoted, text) in table {
            assert_eq!(unquote(quoted, Language::PromQl).as_deref(), Ok(text), "{quoted}");
        }
    }

    #[test]
    fn broken_strings_are_told() {
        let table = [
            ("", "does not begin with a quote"),
            ("eu", "does not begin with a quote"),
            ("\"", "the \" that it begins with is not closed"),
            (r#""eu\""#, "not closed"),
            (r#""eu\"#, "not closed"),
            ("`eu", "the ` that it begins with is not closed"),
            ("\"eu\"x", "it goes on after its closing \""),
            ("``x", "it goes on after its closing `"),
            ("\"a\nb\"", "a line ends inside the quotes"),
            (r#""\q""#, r"\q is no escape"),
            (r#""\'""#, r"\' is no escape"),
            (r#""\x4""#, r#"\x4" is no escape"#),
            (r#""\x+1""#, r"\x+1 is no escape"),
            (r#""\400""#, r"\400 is no escape"),
            (r#""\08""#, r#"\08" is no escape"#),
            (r#""\ud800""#, r"\ud800 is no escape"),
            (r#""\U00110000""#, r"\U00110000 is no escape"),
            (r#""\xüü""#, r"\xüü is no escape"),
            (r#""\xff""#, "do not give UTF-8"),
            ("''", "exactly one character"),
            ("'eu'", "exactly one character"),
            (r"'\xff'", "do not give UTF-8"),
        ];
        for (quoted, part) in table {
            let error = unquote(quoted, Language::Go).unwrap_err().to_string();
            assert!(error.contains(part), "{quoted}: {error}");
        }
    }

    #[test]
    fn what_follows_is_given_back() {
        let (value, rest) = unquote_first(r#""a", b='c'"#, Language::PromQl).unwrap();
        assert_eq!((value.as_str(), rest), ("a", ", b='c'"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\"'`]?\\PC{0,3}([\\\\\"'`xuU0-9a-f\n]|\\PC){0,12}") {
            for language in [Language::Go, Language::PromQl] {
                let _ = unquote(&text, language);
            }
        }

        #[test]
        fn what_is_quoted_comes_back(text in any::<String>()) {
            let mut quoted = String::from("\"");
            for (i, char) in text.chars().enumerate() {
                match (char, i % 3) {
                    ('"' | '\\', _) => quoted.extend(['\\', char]),
                    ('\n', _) => quoted.push_str("\\n"),
                    (char, 1) => quoted.push_str(&format!("\\U{:08x}", u32::from(char))),
                    (char, 2) => {
                        let mut bytes = [0; 4];
                        let bytes = char.encode_utf8(&mut bytes).bytes();
                        quoted.extend(bytes.map(|byte| format!("\\{byte:03o}")));
                    }
                    (char, _) => quoted.push(char),
                }
            }
            quoted.push('"');
            prop_assert_eq!(unquote(&quoted, Language::Go).unwrap(), text.clone());
            prop_assert_eq!(unquote(&quoted, Language::PromQl).unwrap(), text);
        }
    }
}
