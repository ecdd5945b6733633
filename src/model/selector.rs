//! A selector of label sets, as PromQL writes it: `{cluster="eu", replica=~"a|b"}`.
//!
//! Patterns are checked and compiled once, when the selector is made. Reading one is pure and never panics.

#[cfg(test)]
mod tests;

use super::{
    Labels,
    go_string::{self, Language, QuoteError},
    matcher::{Matcher, Op, PatternError, go_regex::Pattern},
};

/// Matchers that must all hold; without any of them every label set is selected.
#[derive(Clone, Debug, Default)]
pub struct Selector(Vec<Condition>);

/// A matcher, with its pattern made ready if it has one.
#[derive(Clone, Debug)]
struct Condition {
    matcher: Matcher,
    pattern: Option<Result<Pattern, PatternError>>,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        let matchers = self.0.iter().map(|condition| &condition.matcher);
        matchers.eq(other.0.iter().map(|condition| &condition.matcher))
    }
}

impl Eq for Selector {}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing was given.
    #[error("it is empty: write {{cluster=\"eu\"}}, or {{}} for everything")]
    Empty,
    /// Something else was expected.
    #[error("expected {what}, got {}", found(.got))]
    Expected {
        /// What was expected, and after what.
        what: String,
        /// What stands there, to the end of the text.
        got: String,
    },
    /// A string in quotes is broken.
    #[error("{} cannot be read: {why}", found(.quoted))]
    Quotes {
        /// The text from the quote on.
        quoted: String,
        /// What is wrong with it.
        why: QuoteError,
    },
    /// A label without a name.
    #[error("a label's name is not empty")]
    NoName,
    /// A pattern that cannot be used.
    #[error("{name}: {why}")]
    Pattern {
        /// The label that the pattern is for.
        name: String,
        /// What is wrong with it.
        why: PatternError,
    },
}

/// The beginning of what was found, on one line.
fn found(text: &str) -> String {
    match text {
        "" => "the end".to_owned(),
        text => go_string::beginning(text, 40),
    }
}

impl Selector {
    /// A selector of these matchers. A pattern that cannot be used is told by [`matches`](Self::matches).
    pub fn new(matchers: Vec<Matcher>) -> Self {
        let condition = |matcher: Matcher| Condition {
            pattern: match matcher.op {
                Op::Equal | Op::NotEqual => None,
                Op::Regex | Op::NotRegex => Some(matcher.compile()),
            },
            matcher,
        };
        Self(matchers.into_iter().map(condition).collect())
    }

    /// Reads a selector: matchers with commas between them, with or without braces around them. A value stands in
    /// quotes as in PromQL, which may be left out around one that is made of plain characters: shells eat quotes.
    ///
    /// # Errors
    /// What was expected where; or a pattern that cannot be used.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let inner = text.trim();
        if inner.is_empty() {
            return Err(SelectorError::Empty);
        }
        let braces = inner.starts_with('{');
        let mut reader = Reader {
            rest: inner.strip_prefix('{').unwrap_or(inner),
            braces,
        };
        let selector = Self::new(reader.matchers()?);
        for condition in &selector.0 {
            if let Some(Err(why)) = &condition.pattern {
                let name = condition.matcher.name.clone();
                return Err(SelectorError::Pattern { name, why: why.clone() });
            }
        }
        Ok(selector)
    }

    /// Whether `labels` are selected; a label that is missing has the empty value.
    ///
    /// # Errors
    /// A pattern that cannot be used; [`Selector::parse`] lets none of them through.
    pub fn matches(&self, labels: &Labels) -> Result<bool, PatternError> {
        for Condition { matcher, pattern } in &self.0 {
            let value = labels.get(&matcher.name).unwrap_or_default();
            let holds = match (pattern, matcher.op) {
                (None, _) => matcher.matches(value)?,
                (Some(Ok(pattern)), Op::NotRegex) => !pattern.is_match(value),
                (Some(Ok(pattern)), _) => pattern.is_match(value),
                (Some(Err(error)), _) => return Err(error.clone()),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether there is no matcher.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct Reader<'a> {
    rest: &'a str,
    /// An opening brace is behind us.
    braces: bool,
}

impl Reader<'_> {
    fn matchers(&mut self) -> Result<Vec<Matcher>, SelectorError> {
        let mut matchers = Vec::new();
        while !self.at_end()? {
            matchers.push(self.matcher()?);
            self.blanks();
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None if self.at_end()? => break,
                None => return Err(self.expected("a comma after a matcher".to_owned())),
            }
        }
        Ok(matchers)
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Whether nothing is left; what stands behind the closing brace is an error, and so is a brace that is missing.
    fn at_end(&mut self) -> Result<bool, SelectorError> {
        self.blanks();
        if !self.braces {
            return Ok(self.rest.is_empty());
        }
        if self.rest.is_empty() {
            return Err(self.expected("a closing brace".to_owned()));
        }
        match self.rest.strip_prefix('}') {
            Some("") => Ok(true),
            Some(after) => {
                self.rest = after;
                Err(self.expected("nothing after the closing brace".to_owned()))
            }
            None => Ok(false),
        }
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let name = self.name()?;
        self.blanks();
        let ops = [Op::Regex, Op::NotRegex, Op::NotEqual, Op::Equal];
        let found = ops
            .into_iter()
            .find_map(|op| Some((op, self.rest.strip_prefix(op.as_str())?)));
        let Some((op, rest)) = found else {
            return Err(self.expected(format!("=, !=, =~ or !~ after the label {name}")));
        };
        self.rest = rest;
        self.blanks();
        let value = self.value(&name, op)?;
        Ok(Matcher::new(op, name, value))
    }

    fn name(&mut self) -> Result<String, SelectorError> {
        if go_string::begins_quoted(self.rest) {
            return match self.quoted()? {
                name if name.is_empty() => Err(SelectorError::NoName),
                name => Ok(name),
            };
        }
        let part = |(i, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || (i > 0 && c.is_ascii_digit());
        let length = self.rest.char_indices().take_while(|at| part(*at)).count();
        if length == 0 {
            return Err(
                self.expected("the name of a label (in quotes if it has other signs than a-z, 0-9, _)".to_owned())
            );
        }
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(name.to_owned())
    }

    fn value(&mut self, name: &str, op: Op) -> Result<String, SelectorError> {
        if go_string::begins_quoted(self.rest) {
            return self.quoted();
        }
        let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}' | '"' | '\'' | '`');
        let length = self.rest.find(ends).unwrap_or(self.rest.len());
        // `==` and `=!` come from other languages.
        if length == 0 || self.rest.starts_with(['=', '~', '!']) {
            return Err(self.expected(format!("a value in quotes after {name}{}", op.as_str())));
        }
        let (value, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(value.to_owned())
    }

    fn quoted(&mut self) -> Result<String, SelectorError> {
        let (text, rest) =
            go_string::unquote_first(self.rest, Language::PromQl).map_err(|why| SelectorError::Quotes {
                quoted: self.rest.to_owned(),
                why,
            })?;
        self.rest = rest;
        Ok(text)
    }

    fn expected(&self, what: String) -> SelectorError {
        let got = self.rest.to_owned();
        SelectorError::Expected { what, got }
    }
}
