//! What commands print: tables, times, sizes, JSON.

use std::io::{self, Write};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;

use crate::model::Labels;
pub(super) use crate::model::duration_text::go_duration;

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

/// A moment (ms since 1970) as RFC 3339 in UTC; one that no calendar has as its number.
pub(super) fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_string(),
        Err(_) => ms.to_string(),
    }
}

/// A moment (ms since 1970) to the second, as Thanos' tables have it.
pub(super) fn time_to_the_second(ms: i64) -> String {
    time(ms.div_euclid(1000).saturating_mul(1000))
}

/// A number with a comma before every three digits.
pub(super) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A text of others without what would break a line or play tricks with a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char.is_control() {
            true => out.extend(char.escape_default()),
            false => out.push(char),
        }
    }
    out
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

/// A number of bytes with three digits or so.
pub(super) fn byte_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
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
    fn sizes_and_times_are_short() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(byte_size(bytes), text);
        }
        assert_eq!(time(1_767_236_400_000), "2026-01-01T03:00:00Z");
        assert_eq!(time(1_767_236_400_120), "2026-01-01T03:00:00.12Z");
        assert_eq!(time(i64::MIN), i64::MIN.to_string());
    }

    #[test]
    fn numbers_and_texts_are_readable() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_345_678_901, "12,345,678,901"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(with_commas(number), text);
        }
        assert_eq!(printable("a\u{1b}[31mb\nc\td é"), "a\\u{1b}[31mb\\nc\\td é");
        assert_eq!(labels(&Labels::from_pairs([("b", "2"), ("a", "1")])), "a=1,b=2");
        assert_eq!(time_to_the_second(-5), "1969-12-31T23:59:59Z");
        assert_eq!(time_to_the_second(1_767_225_601_501), "2026-01-01T00:00:01Z");
    }
}
