//! A condition that each series is held against.

use std::sync::Arc;

use super::{
    super::check::{Broken, index::bad},
    index::IndexReader,
    selector::{Condition, Test},
    symbols::Symbols,
};

/// So many verdicts about values are kept.
const KEPT: usize = 256;

/// A condition, by the numbers of symbols.
#[derive(Debug)]
pub(super) struct Filter {
    name: Option<u32>,
    takes_empty: bool,
    verdict: Verdict,
}

/// What decides about a value.
#[derive(Debug)]
enum Verdict {
    /// It is the symbol, or it is not.
    Symbol { wanted: Option<u32>, is_negative: bool },
    /// The test, whose results are kept by the numbers of values.
    Test {
        condition: Arc<Condition>,
        kept: Box<[Option<(u32, bool)>]>,
    },
}

impl Filter {
    /// The condition for an index in whose postings table its label is.
    ///
    /// # Errors
    /// The label is not among the symbols, or they cannot be read.
    pub(super) fn new(index: &mut IndexReader, condition: &Arc<Condition>) -> Result<Self, Broken> {
        let verdict = match &condition.test {
            Test::Equal(text) => Verdict::Symbol {
                wanted: index.symbols.find(text.as_bytes())?,
                is_negative: condition.is_negative,
            },
            Test::Pattern(_) => Verdict::Test {
                condition: Arc::clone(condition),
                kept: vec![None; KEPT].into(),
            },
        };
        let name = index.tables.name(condition.name.as_bytes());
        let name = name.and_then(|(name, _)| name.symbol);
        // The empty name stands for the list of all series.
        if name.is_none() && !condition.name.is_empty() {
            return Err(bad(format_args!(
                "index is damaged: the label {} of its postings table is not among its symbols",
                condition.name
            )));
        }
        Ok(Self {
            name,
            takes_empty: condition.takes_empty,
            verdict,
        })
    }

    /// Whether a series of these labels passes.
    pub(super) fn takes(&mut self, labels: &[(u32, u32)], symbols: &mut Symbols) -> Result<bool, Broken> {
        let value = labels
            .iter()
            .find(|(name, _)| Some(*name) == self.name)
            .map(|(_, value)| *value);
        let Some(value) = value else {
            return Ok(self.takes_empty);
        };
        match &mut self.verdict {
            Verdict::Symbol { wanted, is_negative } => Ok((*wanted == Some(value)) != *is_negative),
            Verdict::Test { condition, kept } => {
                let slot = &mut kept[value as usize % KEPT];
                if let Some((_, verdict)) = slot.filter(|(known, _)| *known == value) {
                    return Ok(verdict);
                }
                let verdict = condition.takes(symbols.get(value)?);
                *slot = Some((value, verdict));
                Ok(verdict)
            }
        }
    }
}
