//! How short YAML (and so JSON) is read: without pictures of the text, and with what Go makes of empty values.

use serde::{Deserialize, Deserializer};

/// Reads one document; `None` where there is none. An error shows nothing of the text, which may hold secrets.
///
/// # Errors
/// It is no YAML, or not of this shape: the first mistake, with its line.
pub fn read<'a, T: Deserialize<'a>>(yaml: &'a str) -> Result<Option<T>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| error.to_string())
}

/// Empty is the same as absent, as in Go.
pub fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// For `deserialize_with`: a key without value is as one that is not there, as in Go.
///
/// # Errors
/// The value is not of this type.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
