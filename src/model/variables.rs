//! `$(NAME)` in texts of configuration, replaced by what the environment has.
//!
//! A name is made of ASCII letters, digits and `_`; it may begin with a digit. What is put in is not looked through again,
//! and whatever else begins with `$` (`$NAME`, `${NAME}`) is left as it is: Prometheus uses it itself.

use std::collections::BTreeSet;

/// `text` with each `$(NAME)` replaced by what `lookup` gives for NAME. The text need not be UTF-8.
///
/// # Errors
/// The names that are not set, each once, sorted.
pub fn expand(text: &[u8], lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<u8>, BTreeSet<String>> {
    let mut out = Vec::with_capacity(text.len());
    let mut unset = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"$(") {
        let (before, reference) = rest.split_at(at);
        out.extend_from_slice(before);
        let length = reference[2..].iter().take_while(|byte| is_name(**byte)).count();
        let end = 2 + length;
        // Of ASCII only, so that it is a text.
        let name = std::str::from_utf8(&reference[2..end]).unwrap_or_default();
        if !name.is_empty() && reference[end..].starts_with(b")") {
            match lookup(name) {
                Some(value) => out.extend_from_slice(value.as_bytes()),
                None => {
                    unset.insert(name.to_owned());
                }
            }
            rest = &reference[end + 1..];
        } else {
            out.extend_from_slice(b"$(");
            rest = &reference[2..];
        }
    }
    out.extend_from_slice(rest);
    if unset.is_empty() { Ok(out) } else { Err(unset) }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "KEY" => "secret",
            "NESTED" => "$(KEY)",
            "EMPTY" => "",
            "1" => "one",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn replaces_names_in_parentheses_once() {
        let table = [
            ("a: $(KEY)", "a: secret"),
            ("$(KEY)$(KEY)", "secretsecret"),
            ("$(NESTED)", "$(KEY)"),
            ("[$(EMPTY)]", "[]"),
            ("$(1)", "one"),
            ("$KEY ${KEY} $() $(A-B) $(KEY $ $(", "$KEY ${KEY} $() $(A-B) $(KEY $ $("),
            ("$$(KEY)", "$secret"),
            ("$($(KEY))", "$(secret)"),
            ("ü$(KEY)ü", "üsecretü"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text.as_bytes(), env).unwrap(), expected.as_bytes(), "{text}");
        }
        assert_eq!(expand(b"\xff$(KEY)\xfe", env).unwrap(), b"\xffsecret\xfe");
    }

    #[test]
    fn every_name_that_is_not_set_is_told() {
        let unset = expand(b"$(B) $(KEY) $(A) $(B)", env).unwrap_err();
        assert_eq!(unset.into_iter().collect::<Vec<_>>(), ["A", "B"]);
    }
}
