//! One value of the YAML text, and what is said when it is wrong.

use serde_saphyr::Spanned;

use super::ConfigError;

/// A text that can be absent or null, with its place.
pub(super) type Text = Option<Spanned<String>>;

/// The value and its line, when it is there and not empty.
pub(super) fn given(text: Text) -> Option<(String, u64)> {
    text.map(|text| (text.value, text.referenced.line()))
        .filter(|(value, _)| !value.is_empty())
}

pub(super) fn value(text: Text) -> Option<String> {
    given(text).map(|(value, _)| value)
}

pub(super) fn wrong<T>(key: &str, line: u64, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::new(format!("config.{key}"), problem).on_line(line))
}

pub(super) fn missing<T>(key: &str, problem: &str) -> Result<T, ConfigError> {
    wrong(key, 0, problem)
}
