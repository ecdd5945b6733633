//! A selector of label sets, as PromQL writes it: `{cluster="eu", replica=~"a|b"}`.

use super::{
    Labels,
    matcher::{Matcher, PatternError},
};

/// Matchers that must all hold; without any of them every label set is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Matcher>);

impl Selector {
    /// A selector of these matchers.
    pub fn new(matchers: Vec<Matcher>) -> Self {
        Self(matchers)
    }

    /// Whether `labels` are selected; a label that is missing has the empty value.
    ///
    /// # Errors
    /// A pattern that cannot be used; [`Selector::parse`] lets none of them through.
    pub fn matches(&self, labels: &Labels) -> Result<bool, PatternError> {
        for matcher in &self.0 {
            if !matcher.matches(labels.get(&matcher.name).unwrap_or_default())? {
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
