//! What commands show to people: tables, times, sizes.

use std::io::{self, Write};

use jiff::Timestamp;

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

/// A number of bytes with three digits or so.
pub(super) fn size(bytes: u64) -> String {
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
            assert_eq!(size(bytes), text);
        }
        assert_eq!(time(1_767_236_400_000), "2026-01-01T03:00:00Z");
        assert_eq!(time(1_767_236_400_120), "2026-01-01T03:00:00.12Z");
        assert_eq!(time(i64::MIN), i64::MIN.to_string());
    }
}
