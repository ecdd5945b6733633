//! What series are selected by: matchers, made ready to be held against many values.

use std::sync::Arc;

use crate::model::{
    Matcher,
    matcher::{Op, PatternError, go_regex::Pattern},
};

/// Matchers, all of which must hold. A label that a series does not have counts as empty.
#[derive(Clone, Debug)]
pub struct Selector {
    pub(super) conditions: Vec<Arc<Condition>>,
}

/// One matcher.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) name: Box<str>,
    pub(super) test: Test,
    /// Whether what the test finds is what is not wanted.
    pub(super) is_negative: bool,
    /// Whether a series without the label is selected.
    pub(super) takes_empty: bool,
}

/// What a value is held against.
#[derive(Debug)]
pub(super) enum Test {
    Equal(Box<str>),
    Pattern(Pattern),
}

impl Selector {
    /// Compiles the patterns of `matchers`.
    ///
    /// # Errors
    /// A pattern that cannot be used here.
    pub fn new(matchers: &[Matcher]) -> Result<Self, PatternError> {
        let conditions = matchers.iter().map(|matcher| Condition::new(matcher).map(Arc::new));
        Ok(Self {
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// Only those of its series that have the label `name`, or that do not have it.
    pub fn and_label(&self, name: &str, is_present: bool) -> Self {
        let condition = Condition {
            name: name.into(),
            test: Test::Equal("".into()),
            is_negative: is_present,
            takes_empty: !is_present,
        };
        let mut conditions = self.conditions.clone();
        conditions.push(Arc::new(condition));
        Self { conditions }
    }
}

impl Condition {
    fn new(matcher: &Matcher) -> Result<Self, PatternError> {
        let test = match matcher.op {
            Op::Equal | Op::NotEqual => Test::Equal(matcher.value.as_str().into()),
            Op::Regex | Op::NotRegex => Test::Pattern(matcher.compile()?),
        };
        let is_negative = matches!(matcher.op, Op::NotEqual | Op::NotRegex);
        let takes_empty = test.finds("") != is_negative;
        Ok(Self {
            name: matcher.name.as_str().into(),
            test,
            is_negative,
            takes_empty,
        })
    }

    /// Whether a label with this value passes.
    pub(super) fn takes(&self, value: &[u8]) -> bool {
        let found = match &self.test {
            Test::Equal(text) => text.as_bytes() == value,
            Test::Pattern(pattern) => match std::str::from_utf8(value) {
                Ok(text) => pattern.is_match(text),
                Err(_) => pattern.is_match(&as_go_reads(value)),
            },
        };
        found != self.is_negative
    }

    /// The texts of which the value must be one, if they are known.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        match &self.test {
            _ if self.is_negative => None,
            Test::Equal(text) => Some(vec![text]),
            Test::Pattern(pattern) => pattern.literals().map(Iterator::collect),
        }
    }

    /// What each value that passes begins with; empty if that is not known.
    pub(super) fn prefix(&self) -> &str {
        match &self.test {
            Test::Pattern(pattern) if !self.is_negative => pattern.prefix(),
            _ => "",
        }
    }
}

/// What Go's regular expressions see of bytes that are not UTF-8: each of these as one U+FFFD.
fn as_go_reads(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len() * 2);
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

impl Test {
    fn finds(&self, value: &str) -> bool {
        match self {
            Self::Equal(text) => **text == *value,
            Self::Pattern(pattern) => pattern.is_match(value),
        }
    }
}
