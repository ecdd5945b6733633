//! Labels on the command line: `name=value`, with or without quotes around the value.

use super::{ValueError, error};
use crate::model::{
    Label,
    go_string::{self, Language, QuoteError},
};

/// `name=value` or `name="value"`; inside quotes a backslash keeps the next character (`\n` and `\t` as usual).
pub(in crate::cli) fn label(text: &str) -> Result<Label, ValueError> {
    let (name, value) = halves(text)?;
    let legal = |(i, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || (i > 0 && c.is_ascii_digit());
    if name.is_empty() || !name.chars().enumerate().all(legal) {
        return error(format!(
            "{name:?} is no label name, expected letters, digits and _, not starting with a digit"
        ));
    }
    let value = if value.starts_with('"') {
        unquote(value)?
    } else {
        value.to_owned()
    };
    made(name, &value)
}

/// A label that blocks get in the bucket: `name=value`, or the value as Go quotes strings, which is how Thanos wants it.
/// The name may be any text, as in Prometheus 3, but for names that begin with `__`: those are Prometheus' own.
pub(in crate::cli) fn external_label(text: &str) -> Result<Label, ValueError> {
    let (name, value) = halves(text)?;
    if name.is_empty() {
        return error(format!("{text:?} has no name before the =, expected name=value"));
    }
    if name.trim() != name || name.contains(char::is_control) {
        return error(format!(
            "the label name {name:?} has a blank at an end, or a sign that cannot be seen"
        ));
    }
    if name.starts_with("__") {
        return error(format!(
            "{name} cannot be an external label: names with __ are Prometheus' own"
        ));
    }
    if !go_string::begins_quoted(value) {
        return made(name, value);
    }
    match go_string::unquote(value, Language::Go) {
        Ok(text) => made(name, &text),
        Err(QuoteError::NotOneCharacter) => error(format!(
            "the value {value} of label {name}: in Go's quoting single quotes hold exactly one character; write \
             {name}=\"...\", or {name}=... without quotes"
        )),
        Err(why) => error(format!(
            "the value {value} of label {name}: {why}; write {name}=\"...\" with \\\" for a quote within, or \
             {name}=`...`, or {name}=... without quotes"
        )),
    }
}

fn halves(text: &str) -> Result<(&str, &str), ValueError> {
    text.split_once('=')
        .ok_or_else(|| ValueError(format!("{text:?} has no =, expected name=value")))
}

fn made(name: &str, value: &str) -> Result<Label, ValueError> {
    if value.is_empty() {
        return error(format!(
            "label {name} has an empty value, which is the same as no label: give a value or drop it"
        ));
    }
    Ok(Label {
        name: name.into(),
        value: value.into(),
    })
}

/// The sidecar's own way with quotes, more lenient than Go's.
fn unquote(quoted: &str) -> Result<String, ValueError> {
    let unclosed = || ValueError(format!("{quoted} does not end with the quote that it starts with"));
    let mut value = String::new();
    let mut chars = quoted.chars().skip(1);
    loop {
        match chars.next().ok_or_else(unclosed)? {
            '"' => break,
            '\\' => value.push(match chars.next().ok_or_else(unclosed)? {
                'n' => '\n',
                't' => '\t',
                plain => plain,
            }),
            plain => value.push(plain),
        }
    }
    match chars.next() {
        None => Ok(value),
        Some(_) => error(format!("{quoted} goes on after its closing quote")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_may_be_quoted() {
        let table = [
            ("cluster=eu", "eu"),
            ("cluster=\"eu\"", "eu"),
            (r#"cluster="a\"b\\c""#, r#"a"b\c"#),
            ("cluster=a=b", "a=b"),
            ("cluster=it's", "it's"),
        ];
        for (text, value) in table {
            assert_eq!(&*label(text).unwrap().value, value, "{text}");
        }
        for text in [
            "cluster", "=x", "1a=x", "a-b=x", "a=", "a=\"", "a=\"x\"y", "a=\"x\\", "a=\"\"",
        ] {
            assert!(label(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quotes_around_the_value_of_an_external_label_are_those_of_go_and_may_be_left_out() {
        for (text, name, value) in [
            ("cluster=eu", "cluster", "eu"),
            (r#"cluster="eu""#, "cluster", "eu"),
            ("cluster=`eu`", "cluster", "eu"),
            ("cluster='e'", "cluster", "e"),
            (r#"cluster="a\t\x41\u00fc\"b\\""#, "cluster", "a\tAü\"b\\"),
            ("cluster=`a\\n`", "cluster", "a\\n"),
            ("cluster=a=b", "cluster", "a=b"),
            ("cluster=it's \"so\"", "cluster", "it's \"so\""),
            ("cluster= eu", "cluster", " eu"),
            ("my.label=x", "my.label", "x"),
            ("größe=x", "größe", "x"),
            ("1a=x", "1a", "x"),
            ("_x=y", "_x", "y"),
        ] {
            let label = external_label(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((&*label.name, &*label.value), (name, value), "{text}");
        }
    }

    #[test]
    fn external_labels_that_cannot_be_are_told() {
        for (text, part) in [
            ("", "has no ="),
            ("cluster", "\"cluster\" has no =, expected name=value"),
            ("=eu", "has no name before the ="),
            ("\"cluster\"", "has no ="),
            ("cluster =eu", "has a blank at an end"),
            (" cluster=eu", "has a blank at an end"),
            ("clu\nster=eu", "or a sign that cannot be seen"),
            ("__name__=up", "__name__ cannot be an external label"),
            ("cluster=", "label cluster has an empty value"),
            ("cluster=\"\"", "label cluster has an empty value"),
            ("cluster=``", "label cluster has an empty value"),
            ("cluster=\"eu", "is not closed; write cluster=\"...\""),
            ("cluster=\"eu\"x", "it goes on after its closing \""),
            ("cluster=\"e\\q\"", "\\q is no escape"),
            (
                "cluster='eu'",
                "single quotes hold exactly one character; write cluster=\"...\"",
            ),
            ("cluster=''", "single quotes hold exactly one character"),
            ("cluster='eu", "the ' that it begins with is not closed"),
            ("cluster=\"\\xff\"", "do not give UTF-8"),
        ] {
            let error = external_label(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z_]{0,3}=?[\"'`]?(\\\\|\\PC){0,8}[\"'`]?") {
            let _ = (label(&text), external_label(&text));
        }
    }
}
