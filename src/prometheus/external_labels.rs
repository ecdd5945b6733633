//! Reads `global.external_labels` from the response of `/api/v1/status/config`, in memory that does not grow with it.
//!
//! The response holds Prometheus' whole configuration as one JSON string: sometimes megabytes, often with secrets. So
//! it is never held: while it arrives, the lines of the `global` section are kept and all others are dropped. Only that
//! section is parsed as YAML, leniently, since its keys grow with each version of Prometheus.
//!
//! A line of block-style YAML that starts in the first column with `global:` is the top-level key and nothing else:
//! whatever belongs to another top-level key is indented, or starts with `-`. Prometheus always writes block style. A
//! short text of another style (flow style, quoted key) is parsed whole.

use std::{collections::BTreeMap, mem, ops::ControlFlow};

use serde::Deserialize;

use super::{
    error::ErrorKind,
    json::{Item, Node, Scanner, Sink},
};
use crate::model::Labels;

/// Largest answer that is read through, in bytes.
pub(super) const LIMIT: usize = 64 << 20;

/// Largest `global` section, and largest remainder of the JSON around the configuration, in bytes.
const KEPT: usize = 1 << 20;

/// Largest text without a `global:` line that is parsed whole, in bytes.
const WHOLE: usize = 256 << 10;

/// Where the configuration is in the response.
const ROOT: &Node = &Node::Keys(&[("data", Node::Keys(&[("yaml", Node::Text)]))]);
const EXPECTED: &str = "an object with the configuration as text in data.yaml";

/// The answer while it arrives.
#[derive(Debug)]
pub(super) struct Scan {
    scanner: Scanner,
    section: Section,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            scanner: Scanner::new(ROOT, KEPT),
            section: Section::default(),
        }
    }
}

impl Scan {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When what would have to be kept is larger than is plausible.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        self.scanner.push(bytes, &mut self.section).map(drop)
    }

    /// The labels, when the answer is complete. No section or no labels is an empty set.
    ///
    /// # Errors
    /// When the answer is not what Prometheus gives; never quotes it.
    pub(super) fn finish(self) -> Result<Labels, ErrorKind> {
        #[derive(Deserialize)]
        struct Data {
            // Always empty; it is there to see that the answer has it.
            #[serde(rename = "yaml")]
            _yaml: String,
        }
        let around = self.scanner.finish(EXPECTED)?;
        super::answer::data::<Data>(&around, EXPECTED)?;
        parse(&self.section.finish()?)
    }
}

impl Sink for Section {
    fn reserve(&mut self, _bytes: usize) -> bool {
        // What is kept is bounded by itself.
        true
    }

    fn item(&mut self, _item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind> {
        // There are none below ROOT.
        Ok(ControlFlow::Continue(()))
    }

    fn text_begins(&mut self) {
        *self = Self::default();
    }

    fn text(&mut self, piece: &[u8]) -> Result<(), ErrorKind> {
        for &byte in piece {
            let escaped = mem::take(&mut self.escaped);
            self.push(byte, escaped)?;
            self.escaped = byte == b'\\' && !escaped;
        }
        Ok(())
    }
}

/// The `global` section while the configuration arrives, as it is in the JSON string: with escapes.
#[derive(Debug, Default)]
struct Section {
    phase: Phase,
    /// The line that is being read.
    line: Vec<u8>,
    /// Before the section: the whole text so far, as long as it is short. From then on the section.
    kept: Vec<u8>,
    /// The text was too long to be kept whole.
    cut: bool,
    /// The next byte is escaped.
    escaped: bool,
}

/// Where in the configuration we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    Inside,
    After,
}

impl Section {
    fn push(&mut self, byte: u8, escaped: bool) -> Result<(), ErrorKind> {
        if self.phase == Phase::After {
            return Ok(());
        }
        if self.line.len() < KEPT {
            self.line.push(byte);
        } else if self.phase == Phase::Inside || self.line.starts_with(b"global:") {
            return Err(ErrorKind::TooLarge { limit: KEPT });
        }
        if self.phase == Phase::Inside && self.line.len() == 2 && !continues_section(&self.line) {
            self.phase = Phase::After;
            return Ok(());
        }
        if escaped && byte == b'n' {
            self.end_line()?;
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ErrorKind> {
        if self.phase == Phase::Before && self.line.starts_with(b"global:") {
            self.phase = Phase::Inside;
            self.cut = false;
            self.kept.clear();
        } else if self.phase == Phase::Inside && !continues_section(&self.line) {
            self.phase = Phase::After;
        }
        let length = self.kept.len() + self.line.len();
        match self.phase {
            Phase::Inside if length > KEPT => return Err(ErrorKind::TooLarge { limit: KEPT }),
            Phase::Before if self.cut || length > WHOLE => self.cut = true,
            Phase::Before | Phase::Inside => self.kept.extend_from_slice(&self.line),
            Phase::After => {}
        }
        self.line.clear();
        Ok(())
    }

    /// The section, or the whole of a short text without one, or nothing; without the JSON's escapes.
    fn finish(mut self) -> Result<String, ErrorKind> {
        self.end_line()?;
        if self.cut {
            return Ok(String::new());
        }
        let json = [b"\"", &*self.kept, b"\""].concat();
        serde_json::from_slice(&json).map_err(|error| ErrorKind::from_json(&error, "text in data.yaml"))
    }
}

/// Whether a line, with its escapes, belongs to the top-level key above it.
fn continues_section(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b" ") || line.starts_with(b"#") || line.starts_with(b"\\n")
}

/// The external labels of a configuration. An empty value is the same as no label.
fn parse(yaml: &str) -> Result<Labels, ErrorKind> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        global: Option<Global>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Global {
        // Plain numbers and booleans become the text that is there, as in Prometheus.
        external_labels: Option<BTreeMap<String, Option<String>>>,
    }
    let options = serde_saphyr::options! {
        // The text must not get into an error.
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let config: Option<Config> = serde_saphyr::from_str_with_options(yaml, options)
        .map_err(|error| ErrorKind::NotUnderstood(format!("global.external_labels of its configuration: {error}")))?;
    let global = config.and_then(|config| config.global).unwrap_or_default();
    let labels = global.external_labels.unwrap_or_default();
    let labels = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    Ok(Labels::from_pairs(labels))
}

#[cfg(test)]
mod tests;
