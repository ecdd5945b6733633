//! A label matcher, with the meaning that it has in Prometheus.

pub mod go_regex;
#[cfg(test)]
mod tests;

use std::fmt;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl Op {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A pattern that cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no regular expression in Go's syntax. Displayed exactly as Go's `regexp` package says it.
    #[error("error parsing regexp: {problem}")]
    Invalid {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Go takes it, but this program cannot match with it.
    #[error("the regular expression {:?} of a matcher is not supported here: {problem}", beginning(.pattern))]
    Unsupported {
        /// The pattern as it was given.
        pattern: String,
        /// Why not.
        problem: String,
    },
}

/// As much of a pattern as is shown.
fn beginning(pattern: &str) -> &str {
    &pattern[..pattern.floor_char_boundary(200)]
}

/// A condition on one label. A pattern is compiled only when it is matched here: most are Prometheus' business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// How it compares.
    pub op: Op,
    /// The label's name.
    pub name: String,
    /// The text or pattern that the label's value is held against.
    pub value: String,
}

impl Matcher {
    /// A matcher of these parts.
    pub fn new(op: Op, name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            op,
            name: name.into(),
            value: value.into(),
        }
    }

    /// Whether a label of this value passes; a missing label has the empty value.
    ///
    /// # Errors
    /// A pattern that is no regular expression in Go's syntax, or that this program cannot compile.
    pub fn matches(&self, value: &str) -> Result<bool, PatternError> {
        Ok(match self.op {
            Op::Equal => self.value == value,
            Op::NotEqual => self.value != value,
            Op::Regex => self.compile()?.is_match(value),
            Op::NotRegex => !self.compile()?.is_match(value),
        })
    }

    /// Whether it takes more than a look to find out anything about it: it has a pattern that is not plain text.
    pub fn needs_work(&self) -> bool {
        matches!(self.op, Op::Regex | Op::NotRegex) && !go_regex::is_literals(&self.value)
    }

    /// Whether Prometheus would take the matcher's pattern, found out without compiling it.
    ///
    /// # Errors
    /// A pattern that Go refuses. One that only this program cannot match with is no error: Prometheus may get it.
    pub fn check(&self) -> Result<(), PatternError> {
        if !self.needs_work() {
            return Ok(());
        }
        match go_regex::translate(&self.value) {
            Err(refusal @ go_regex::Refusal::Invalid(_)) => Err(self.refused(refusal)),
            Ok(_) | Err(go_regex::Refusal::Unsupported(_)) => Ok(()),
        }
    }

    /// The pattern made ready to be used many times.
    ///
    /// # Errors
    /// As for [`Self::matches`].
    pub fn compile(&self) -> Result<go_regex::Pattern, PatternError> {
        go_regex::Pattern::new(&self.value).map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: go_regex::Refusal) -> PatternError {
        let pattern = self.value.clone();
        match refusal {
            go_regex::Refusal::Invalid(problem) => PatternError::Invalid { pattern, problem },
            go_regex::Refusal::Unsupported(problem) => PatternError::Unsupported { pattern, problem },
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}
