//! A pattern that is compiled, and what can be said of it without.

use super::{Refusal, translate};

/// The most memory that a compiled pattern may take, in bytes.
const MAX_COMPILED: usize = 4 << 20;

/// A pattern made ready to be held against whole values.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// `a|b|c` without any other sign of the syntax.
    Literals(String),
    Compiled {
        regex: regex::Regex,
        /// What each text that matches begins with.
        prefix: Box<str>,
    },
}

impl Pattern {
    /// Reads and compiles a pattern in Go's syntax.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] if Go would refuse it; [`Refusal::Unsupported`] if it is too large or needs what the `regex`
    /// crate does not have.
    pub fn new(pattern: &str) -> Result<Self, Refusal> {
        if is_literals(pattern) {
            return Ok(Self(Kind::Literals(pattern.to_owned())));
        }
        let translated = translate(pattern)?;
        let compiled = regex::RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build()
            .map_err(|error| Refusal::Unsupported(short(&error)))?;
        Ok(Self(Kind::Compiled {
            regex: compiled,
            prefix: prefix(pattern).into(),
        }))
    }

    /// The only texts that match, if the pattern says them one by one.
    pub fn literals(&self) -> Option<impl Iterator<Item = &str>> {
        match &self.0 {
            Kind::Literals(literals) => Some(literals.split('|')),
            Kind::Compiled { .. } => None,
        }
    }

    /// What each text that matches begins with; empty if that is not easily seen.
    pub fn prefix(&self) -> &str {
        match &self.0 {
            Kind::Literals(_) => "",
            Kind::Compiled { prefix, .. } => prefix,
        }
    }

    /// Whether the pattern matches the whole of `value`.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.0 {
            Kind::Literals(literals) => literals.split('|').any(|literal| literal == value),
            Kind::Compiled { regex, .. } => regex.is_match(value),
        }
    }
}

/// The `regex` crate's own message quotes our translation over many lines, which helps nobody.
fn short(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("compiled it takes more than {limit} bytes"),
        other => {
            let text = other.to_string();
            text.lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        }
    }
}

/// Whether a pattern is plain text, or several with `|` between them.
pub(in crate::model::matcher) fn is_literals(pattern: &str) -> bool {
    // All of them have one byte, and bytes are faster than characters.
    !pattern.bytes().any(is_sign)
}

/// Whether a byte is a sign of the syntax; `|` is none here.
fn is_sign(byte: u8) -> bool {
    matches!(
        byte,
        b'\\' | b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'^' | b'$'
    )
}

/// The plain text that a pattern begins with; empty if it has alternatives anywhere.
fn prefix(pattern: &str) -> &str {
    if pattern.contains('|') {
        return "";
    }
    let end = pattern.bytes().position(is_sign).unwrap_or(pattern.len());
    let (plain, rest) = pattern.split_at(end);
    // What is repeated may be repeated no time.
    let last = match rest.starts_with(['*', '?', '{']) {
        true => plain.char_indices().next_back().map_or(0, |(at, _)| at),
        false => plain.len(),
    };
    &plain[..last]
}
