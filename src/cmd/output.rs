//! What commands print: tables, times, sizes, JSON.

use std::io::{self, Write};

use anyhow::Context;
use serde_json::Value;

use crate::model::Labels;
pub(super) use crate::model::{
    duration_text::go_duration,
    readable::{byte_size, printable, time, time_to_the_second, with_commas},
};

/// A table of columns with a title each; rows of as many cells.
#[derive(Clone, Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    numbers: Vec<bool>,
}

impl Table {
    /// An empty table. A title that begins with `>` belongs to a column of numbers, which is set to the right.
    pub(super) fn new(titles: &[&str]) -> Self {
        let numbers = titles.iter().map(|title| title.starts_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_owned());
        Self {
            rows: vec![titles.collect()],
            numbers,
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    /// The rows, a line each, in columns that are as wide as they must be; the last column is not padded.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.numbers.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), number) in row.iter().zip(&widths).zip(&self.numbers) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let padded = match number {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                };
                line.push_str(&padded);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A label set as Thanos shows it: `a=1,b=2`.
pub(super) fn labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|label| format!("{}={}", label.name, label.value))
        .collect();
    pairs.join(",")
}

/// A label set as a JSON object.
pub(super) fn labels_json(labels: &Labels) -> Value {
    let pairs = labels
        .iter()
        .map(|label| (label.name.to_string(), Value::from(&*label.value)));
    Value::Object(pairs.collect())
}

/// So many of something: `1 block`, `2 blocks`.
pub(super) fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", with_commas(number)),
    }
}

/// A JSON document as it is printed.
///
/// # Errors
/// None for the documents of this house.
pub(super) fn json(document: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(document).context("the result cannot be written as JSON")? + "\n")
}

/// Writes `text` to stdout. A reader that has gone away, as `head` does, is no failure.
///
/// # Errors
/// When stdout cannot be written to for another reason.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to stdout"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut table = Table::new(&["BLOCK", ">SIZE", "WHY"]);
        table.row(vec!["a".into(), "12".into(), String::new()]);
        table.row(vec!["länger".into(), "1234567".into(), "x y".into()]);
        assert_eq!(
            table.to_string(),
            "BLOCK      SIZE  WHY\na            12\nlänger  1234567  x y\n"
        );
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(labels(&Labels::from_pairs([("b", "2"), ("a", "1")])), "a=1,b=2");
    }
}
