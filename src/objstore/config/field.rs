//! One value of the YAML text, and what is said when it is wrong.

use serde_saphyr::Spanned;

use super::ConfigError;
use crate::model::whole_number;

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

/// The whole number that a text is, with its line, when it is there.
pub(super) fn whole(key: &str, text: Text) -> Result<Option<(i64, u64)>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let line = text.referenced.line();
    match whole_number::parse(&text.value) {
        Ok(number) => Ok(Some((number, line))),
        Err(problem) => wrong(key, line, problem.to_string()),
    }
}

pub(super) fn wrong<T>(key: &str, line: u64, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::new(format!("config.{key}"), problem).on_line(line))
}

pub(super) fn missing<T>(key: &str, problem: &str) -> Result<T, ConfigError> {
    wrong(key, 0, problem)
}

/// `max_retries`: how often a request is tried in all; 0 is the default.
pub(super) fn attempts(retries: Text, warnings: &mut Vec<String>) -> Result<u32, ConfigError> {
    let retries = whole("max_retries", retries)?.map_or(0, |(retries, _)| retries);
    if retries < 0 {
        warnings.push("config.max_retries is negative and counts as 0, that is 10 attempts".into());
    }
    Ok(match u32::try_from(retries) {
        Ok(0) => 10,
        Ok(attempts) => attempts,
        Err(_) if retries < 0 => 10,
        Err(_) => u32::MAX,
    })
}
