//! Reads what concerns us of Prometheus' configuration, the response of `/api/v1/status/config`, in memory that does not grow
//! with it: `global.external_labels`, a few settings below `storage.tsdb`, and whether `remote_read` has it answer with what others
//! have.
//!
//! The response holds Prometheus' whole configuration as one JSON string: sometimes megabytes, often with secrets. So
//! it is never held: while it arrives, the lines of these sections are kept and all others are dropped. Only they are
//! parsed as YAML, leniently, since their keys grow with each version of Prometheus: what is odd below `storage` is as if it
//! were not there.
//!
//! A line of block-style YAML that starts in the first column with `global:` is the top-level key and nothing else:
//! whatever belongs to another top-level key is indented, or starts with `-`. Prometheus always writes block style. A
//! short text of another style (flow style, quoted key) is parsed whole.

use std::{collections::BTreeMap, mem, ops::ControlFlow};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    error::ErrorKind,
    json::{Item, Node, Scanner, Sink},
};
use crate::model::{Labels, duration::parse_prometheus};

/// Largest answer that is read through, in bytes.
pub(super) const LIMIT: usize = 64 << 20;

/// The sections that are kept.
const WANTED: [&[u8]; 3] = [b"global:", b"storage:", b"remote_read:"];

/// Largest total of these sections, and largest remainder of the JSON around the configuration, in bytes.
const KEPT: usize = 1 << 20;

/// Largest text without a line of them that is parsed whole, in bytes.
const WHOLE: usize = 256 << 10;

/// Where the configuration is in the response.
const ROOT: &Node = &Node::Keys(&[("data", Node::Keys(&[("yaml", Node::Text)]))]);
const EXPECTED: &str = "an object with the configuration as text in data.yaml";

/// What concerns us of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The external labels. An empty value is the same as no label.
    pub labels: Labels,
    /// Settings of the storage.
    pub storage: StorageSettings,
}

/// Settings of Prometheus' storage, texts as they are written; `None` for what the configuration does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageSettings {
    /// `storage.tsdb.chunk_encoding.floats` (3.13 and later): `xor` or `xor2`.
    pub float_encoding: Option<String>,
    /// `storage.tsdb.retention` (3.11 and later).
    pub retention: Option<RetentionSettings>,
    /// `storage.tsdb.out_of_order_time_window` (ms): how much older than the newest sample one may be that is still taken. 0
    /// if it is not set; `None` until it was read, or where it cannot be made out.
    pub out_of_order_window_ms: Option<i64>,
    /// There is a `remote_read`: what Prometheus answers is not only its own, with `read_recent` whatever the time, else for times
    /// before some hours after the beginning of its oldest block. So it counts where it cannot be made out.
    pub reads_elsewhere: bool,
}

/// `storage.tsdb.retention`; what it does not say has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RetentionSettings {
    /// How long samples are kept, such as `15d`.
    pub time: Option<String>,
    /// How many bytes blocks may take, such as `512MB`.
    pub size: Option<String>,
    /// How many hundredths of the disk they may take.
    pub percentage: Option<String>,
}

/// The answer while it arrives.
#[derive(Debug)]
pub(super) struct Scan {
    scanner: Scanner,
    sections: Sections,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            scanner: Scanner::new(ROOT, KEPT),
            sections: Sections::default(),
        }
    }
}

impl Scan {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When what would have to be kept is larger than is plausible.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        self.scanner.push(bytes, &mut self.sections).map(drop)
    }

    /// The configuration, when the answer is complete. No section or no labels is an empty set of them.
    ///
    /// # Errors
    /// When the answer is not what Prometheus gives; never quotes it.
    pub(super) fn finish(self) -> Result<Configuration, ErrorKind> {
        #[derive(Deserialize)]
        struct Data {
            // Always empty; it is there to see that the answer has it.
            #[serde(rename = "yaml")]
            _yaml: String,
        }
        let around = self.scanner.finish(EXPECTED)?;
        super::answer::data::<Data>(&around, EXPECTED)?;
        parse(&self.sections.finish()?)
    }
}

impl Sink for Sections {
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

    fn text(&mut self, mut piece: &[u8]) -> Result<(), ErrorKind> {
        while let Some((&byte, rest)) = piece.split_first() {
            if self.skipping && !self.escaped {
                // Nearly all of a large configuration: only the end of the line matters.
                let Some(escape) = piece.iter().position(|byte| *byte == b'\\') else {
                    return Ok(());
                };
                (self.escaped, piece) = (true, &piece[escape + 1..]);
                continue;
            }
            let escaped = mem::take(&mut self.escaped);
            self.push(byte, escaped)?;
            self.escaped = byte == b'\\' && !escaped;
            piece = rest;
        }
        Ok(())
    }
}

/// The wanted sections while the configuration arrives, as they are in the JSON string: with escapes.
#[derive(Debug, Default)]
struct Sections {
    /// One of them was found.
    found: bool,
    /// The line that is being read belongs to one, as far as was seen.
    inside: bool,
    /// The line that is being read is of no interest.
    skipping: bool,
    /// The line that is being read.
    line: Vec<u8>,
    /// Until one is found: the whole text so far, as long as it is short. From then on the sections.
    kept: Vec<u8>,
    /// The text was too long to be kept whole.
    cut: bool,
    /// The next byte is escaped.
    escaped: bool,
}

impl Sections {
    fn push(&mut self, byte: u8, escaped: bool) -> Result<(), ErrorKind> {
        let ends = escaped && byte == b'n';
        if self.skipping {
            self.skipping = !ends;
            return Ok(());
        }
        if self.line.len() < KEPT {
            self.line.push(byte);
        } else if self.inside || begins_section(&self.line) {
            return Err(ErrorKind::TooLarge { limit: KEPT });
        }
        if self.inside && self.line.len() == 2 && !continues_section(&self.line) {
            self.inside = false;
        }
        if ends {
            return self.end_line();
        }
        if self.found && !self.inside && !may_begin_section(&self.line) {
            self.line.clear();
            self.skipping = true;
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ErrorKind> {
        if self.inside && !continues_section(&self.line) {
            self.inside = false;
        }
        if !self.inside && begins_section(&self.line) {
            self.inside = true;
            if !mem::replace(&mut self.found, true) {
                self.cut = false;
                self.kept.clear();
            }
        }
        let length = self.kept.len() + self.line.len();
        if self.inside && length > KEPT {
            return Err(ErrorKind::TooLarge { limit: KEPT });
        }
        if !self.found && (self.cut || length > WHOLE) {
            self.cut = true;
        } else if self.inside || !self.found {
            self.kept.extend_from_slice(&self.line);
        }
        self.line.clear();
        Ok(())
    }

    /// The sections, or the whole of a short text without one, or nothing; without the JSON's escapes.
    fn finish(mut self) -> Result<String, ErrorKind> {
        self.end_line()?;
        if self.cut {
            return Ok(String::new());
        }
        let json = [b"\"", &*self.kept, b"\""].concat();
        serde_json::from_slice(&json).map_err(|error| ErrorKind::from_json(&error, "text in data.yaml"))
    }
}

/// Whether a line is the first of a wanted section.
fn begins_section(line: &[u8]) -> bool {
    WANTED.iter().any(|wanted| line.starts_with(wanted))
}

/// Whether a line of which this is the beginning may still turn out to be that.
fn may_begin_section(line: &[u8]) -> bool {
    WANTED
        .iter()
        .any(|wanted| line.starts_with(wanted) || wanted.starts_with(line))
}

/// Whether a line, with its escapes, belongs to the top-level key above it.
fn continues_section(line: &[u8]) -> bool {
    // Prometheus does not indent the items of a list.
    let starts: [&[u8]; 4] = [b" ", b"- ", b"#", b"\\n"];
    line.is_empty() || starts.iter().any(|start| line.starts_with(start))
}

fn parse(yaml: &str) -> Result<Configuration, ErrorKind> {
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
    let config: Option<Config> = serde_saphyr::from_str_with_options(yaml, options())
        .map_err(|error| ErrorKind::NotUnderstood(format!("global.external_labels of its configuration: {error}")))?;
    let global = config.and_then(|config| config.global).unwrap_or_default();
    let labels = global.external_labels.unwrap_or_default();
    let labels = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    Ok(Configuration {
        labels: Labels::from_pairs(labels),
        storage: StorageSettings {
            out_of_order_window_ms: out_of_order_window(yaml),
            reads_elsewhere: reads_elsewhere(yaml),
            ..storage(yaml).unwrap_or_default()
        },
    })
}

/// `storage.tsdb`, as far as `T` knows it: `Some(None)` where there is none, `None` where it is not of that form.
fn tsdb<T: DeserializeOwned>(yaml: &str) -> Option<Option<T>> {
    #[derive(Deserialize)]
    struct Config<T> {
        storage: Option<Storage<T>>,
    }
    #[derive(Deserialize)]
    struct Storage<T> {
        tsdb: Option<T>,
    }
    let config: Option<Config<T>> = serde_saphyr::from_str_with_options(yaml, options()).ok()?;
    Some(config.and_then(|config| config.storage?.tsdb))
}

/// `storage.tsdb.out_of_order_time_window` (ms), read apart: that other settings are odd does not make it unknown, and what
/// is odd on the way to it does not make it 0.
fn out_of_order_window(yaml: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Tsdb {
        out_of_order_time_window: Option<String>,
    }
    match tsdb::<Tsdb>(yaml)?.and_then(|tsdb| tsdb.out_of_order_time_window) {
        None => Some(0),
        Some(window) => i64::try_from(parse_prometheus(&window).ok()?.as_millis()).ok(),
    }
}

/// Whether there is any `remote_read`.
fn reads_elsewhere(yaml: &str) -> bool {
    #[derive(Deserialize)]
    struct Config {
        remote_read: Option<Vec<serde::de::IgnoredAny>>,
    }
    match serde_saphyr::from_str_with_options::<Option<Config>>(yaml, options()) {
        Ok(config) => config.is_some_and(|config| config.remote_read.is_some_and(|servers| !servers.is_empty())),
        Err(_) => yaml.contains("remote_read"),
    }
}

/// The settings of the storage; `None` if they are not what is known here.
fn storage(yaml: &str) -> Option<StorageSettings> {
    #[derive(Deserialize)]
    struct Tsdb {
        chunk_encoding: Option<ChunkEncoding>,
        retention: Option<RetentionSettings>,
    }
    #[derive(Deserialize)]
    struct ChunkEncoding {
        floats: Option<String>,
    }
    let tsdb = tsdb::<Tsdb>(yaml)??;
    Some(StorageSettings {
        float_encoding: tsdb.chunk_encoding.and_then(|encoding| encoding.floats),
        retention: tsdb.retention,
        ..StorageSettings::default()
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // The text must not get into an error.
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    }
}

#[cfg(test)]
mod tests;
