//! A label matcher, with the meaning that it has in Prometheus.

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
#[error("the regular expression {pattern:?} of a matcher cannot be used: {problem}")]
pub struct PatternError {
    /// The pattern as it was given.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
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

    fn compile(&self) -> Result<regex::Regex, PatternError> {
        regex::Regex::new(&format!("^(?s:{})$", self.value)).map_err(|error| PatternError {
            pattern: self.value.clone(),
            problem: error.to_string(),
        })
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}
