//! What a program has printed.

use std::path::Path;

use fs_err as fs;

/// The last lines of a log.
pub(crate) fn tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
