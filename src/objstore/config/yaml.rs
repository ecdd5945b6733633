//! The one place that knows the YAML library.

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use super::ConfigError;

/// Reads the first document of a text. Keys that occur twice are errors; what the target type does not name is the
/// type's own decision. A text without documents gives what an empty mapping gives.
///
/// The library's own picture of the faulty lines is switched off: the lines beside a mistake may hold secrets.
pub(super) fn first_document<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let mut bytes = text.as_bytes();
    let first = serde_saphyr::read_with_options(&mut bytes, options).next();
    let parsed = match first {
        Some(parsed) => parsed,
        None => serde_saphyr::from_str("{}"),
    };
    parsed.map_err(|error| explain(&error, text))
}

fn explain(error: &Error, text: &str) -> ConfigError {
    let location = error
        .location()
        .map(|at| (at.line(), at.column()))
        .filter(|at| at.0 > 0);
    let (key, problem) = match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => (name(field), unknown(expected)),
        Error::DuplicateMappingKey { key, .. } => (
            key.as_deref().map(name).unwrap_or_default(),
            "this key occurs twice".to_owned(),
        ),
        _ => (
            location.and_then(|at| key_at(text, at)).unwrap_or_default(),
            plain(error),
        ),
    };
    let found = ConfigError::new(key, problem);
    match location {
        Some((line, _)) => found.on_line(line),
        None => found,
    }
}

fn unknown(expected: &[&str]) -> String {
    format!("unknown key; known here are: {}", expected.join(", "))
}

/// What was expected, or the library's message; the location that it may append is said by us in front.
fn plain(error: &Error) -> String {
    let expected = match error.without_snippet() {
        Error::InvalidScalar { ty, .. } | Error::Unexpected { expected: ty, .. } => *ty,
        _ => "",
    };
    match expected {
        "boolean" | "bool" => return "must be true or false".to_owned(),
        "string scalar" => return "must be a text or a number, not a list or a mapping".to_owned(),
        "mapping start" => return "must be a mapping (keys with values)".to_owned(),
        _ => {}
    }
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// A key as it may be shown: without what follows a colon (a forgotten space glues a value to its key).
fn name(key: &str) -> String {
    key.split([':', ' ', '\n']).next().unwrap_or_default().to_owned()
}

/// The key whose value starts at a line and a column, both counted from 1.
fn key_at(text: &str, (line, column): (u64, u64)) -> Option<String> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let width = usize::try_from(column).ok()?.saturating_sub(1);
    let line = text.lines().nth(index)?;
    let before: String = line.chars().take(width).collect();
    let (head, _) = before.rsplit_once(':')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let key = head.trim_end_matches(['"', '\'', ' ']).rsplit(|c| !is_name(c)).next()?;
    (!key.is_empty()).then(|| key.to_owned())
}
