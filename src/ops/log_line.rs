//! One line of the log as text: logfmt or JSON, with the keys `ts`, `caller`, `level` and `msg`, then the fields.
//!
//! A value cannot end the line, start another field or reach the terminal: what is not plain is quoted and escaped. A
//! field that has the name of a key of the line, or of a field before it, does not appear twice: the inner one wins.

use std::fmt::Write as _;

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Text, also of whatever has no form of its own in JSON.
    Text(String),
    /// A number or a truth value, already in a form that both formats share.
    Plain(String),
}

impl Value {
    /// The value as it is read.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Plain(text) => text,
        }
    }
}

/// The fields of an event or a span in the order in which they were given.
pub(super) type Fields = Vec<(&'static str, Value)>;

/// A level as the log spells it.
pub(super) fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    }
}

/// A line to be written.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// RFC 3339, UTC.
    pub(super) ts: String,
    /// `file:line`.
    pub(super) caller: String,
    pub(super) level: &'static str,
    /// The value of the hidden flag `--debug.name`.
    pub(super) name: Option<&'a str>,
    pub(super) msg: &'a str,
    /// The fields of the event, then of the spans around it, inner ones first.
    pub(super) fields: Vec<&'a (&'static str, Value)>,
}

impl Line<'_> {
    /// The line as logfmt, with its end.
    pub(super) fn logfmt(&self) -> String {
        let mut out = String::with_capacity(160);
        self.each(|key, value| {
            if !out.is_empty() {
                out.push(' ');
            }
            out.extend(key.chars().map(|c| {
                if c.is_control() || " =\"\u{fffd}".contains(c) {
                    '_'
                } else {
                    c
                }
            }));
            out.push('=');
            let text = match value {
                Shown::Text(text) | Shown::Plain(text) => text,
            };
            if text == "null" || text.chars().any(needs_quotes) {
                quote(&mut out, text)
            } else {
                out.push_str(text)
            }
        });
        out.push('\n');
        out
    }

    /// The line as a JSON object, with its end.
    pub(super) fn json(&self) -> String {
        let mut out = String::with_capacity(200);
        self.each(|key, value| {
            out.push(if out.is_empty() { '{' } else { ',' });
            quote(&mut out, key);
            out.push(':');
            match value {
                Shown::Text(text) => quote(&mut out, text),
                Shown::Plain(text) => out.push_str(text),
            }
        });
        out.push_str("}\n");
        out
    }

    fn each(&self, mut show: impl FnMut(&str, Shown<'_>)) {
        let mut seen = vec!["ts", "caller", "level", "name", "msg"];
        let name = self.name.map(|name| ("name", name));
        let head = [("ts", &*self.ts), ("caller", &self.caller), ("level", self.level)];
        for (key, text) in head.into_iter().chain(name).chain([("msg", self.msg)]) {
            show(key, Shown::Text(text));
        }
        for (key, value) in &self.fields {
            if seen.contains(key) {
                continue;
            }
            seen.push(key);
            show(
                key,
                match value {
                    Value::Text(text) => Shown::Text(text),
                    Value::Plain(text) => Shown::Plain(text),
                },
            );
        }
    }
}

#[derive(Clone, Copy)]
enum Shown<'a> {
    Text(&'a str),
    Plain(&'a str),
}

fn needs_quotes(c: char) -> bool {
    c == ' ' || c == '=' || c == '"' || must_escape(c) || c == '\u{fffd}'
}

/// Control characters of both ranges, and the two separators that some readers take for the end of a line.
fn must_escape(c: char) -> bool {
    c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

/// Writes `text` as a JSON string, which is also how logfmt quotes.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if must_escape(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a=\"b\" \\ c\nlevel=error\u{1b}[31m\u{9b}\u{2028}\u{7f}";

    fn line<'a>(msg: &'a str, name: Option<&'a str>, fields: &'a Fields) -> Line<'a> {
        Line {
            ts: "2026-01-02T03:04:05.678Z".to_owned(),
            caller: "shipper/run.rs:42".to_owned(),
            level: "info",
            name,
            msg,
            fields: fields.iter().collect(),
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn logfmt_quotes_only_what_needs_it() {
        let fields = vec![
            ("block", text("01HX")),
            ("bytes", Value::Plain("12".to_owned())),
            ("empty", text("")),
            ("null", text("null")),
            ("reason", text("no such file")),
            ("path", text("C:\\data")),
        ];
        assert_eq!(
            line("uploaded block", None, &fields).logfmt(),
            "ts=2026-01-02T03:04:05.678Z caller=shipper/run.rs:42 level=info msg=\"uploaded block\" block=01HX bytes=12 \
             empty= null=\"null\" reason=\"no such file\" path=C:\\data\n"
        );
    }

    #[test]
    fn json_has_the_same_keys_and_keeps_numbers() {
        let fields = vec![("bytes", Value::Plain("12".to_owned())), ("block", text("01HX"))];
        assert_eq!(
            line("uploaded", Some("a b"), &fields).json(),
            "{\"ts\":\"2026-01-02T03:04:05.678Z\",\"caller\":\"shipper/run.rs:42\",\"level\":\"info\",\"name\":\"a b\",\
             \"msg\":\"uploaded\",\"bytes\":12,\"block\":\"01HX\"}\n"
        );
    }

    #[test]
    fn no_text_can_end_the_line_or_forge_a_field() {
        let fields = vec![("err", text(NASTY)), ("a b=\"\n", text("x"))];
        let logfmt = line(NASTY, None, &fields).logfmt();
        let escaped = r#""a=\"b\" \\ c\nlevel=error\u001b[31m\u009b\u2028\u007f""#;
        assert_eq!(
            logfmt,
            format!(
                "ts=2026-01-02T03:04:05.678Z caller=shipper/run.rs:42 level=info msg={escaped} err={escaped} a_b___=x\n"
            )
        );
        let json = line(NASTY, None, &fields).json();
        assert_eq!(json.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&parsed["msg"], &parsed["err"], &parsed["a b=\"\n"]),
            (&NASTY.into(), &NASTY.into(), &"x".into())
        );
    }

    #[test]
    fn a_key_appears_once_and_the_inner_field_wins() {
        let fields = vec![
            ("block", text("inner")),
            ("level", text("forged")),
            ("block", text("outer")),
        ];
        assert!(
            line("m", None, &fields)
                .logfmt()
                .ends_with(" level=info msg=m block=inner\n")
        );
        let json = line("m", None, &fields).json();
        assert!(
            json.ends_with("\"level\":\"info\",\"msg\":\"m\",\"block\":\"inner\"}\n"),
            "{json}"
        );
    }
}
