//! What is written about the flags is what the program has.

use std::path::Path;

use narthex::cli::flag_table;

use super::printed;

/// Compares `text` with a checked-in file, or writes it there if UPDATE=1 is set.
#[track_caller]
fn checked_in(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs_err::write(&path, text).expect("writing the checked-in file");
    }
    let stored = fs_err::read_to_string(&path).expect("reading the checked-in file");
    assert_eq!(
        stored,
        text,
        "{} is out of date: run the test with UPDATE=1",
        path.display()
    );
}

#[test]
fn the_help_is_the_checked_in_one() {
    checked_in("testdata/cli/help.txt", &printed(&["sidecar", "--help"], false, 0));
}

#[test]
fn the_documented_flags_are_the_parsed_ones() {
    let path = "docs/flags.md";
    let page = fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (head, rest) = page.split_once("<!-- flags -->\n").expect("the start marker");
    let (_, tail) = rest.split_once("<!-- /flags -->").expect("the end marker");
    checked_in(
        path,
        &format!("{head}<!-- flags -->\n{}<!-- /flags -->{tail}", flag_table()),
    );
}

#[test]
fn every_flag_has_a_row_in_the_parity_table_and_every_row_a_flag() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parity-flags.md");
    let page = fs_err::read_to_string(path).unwrap();
    let flags = names(&flag_table());
    assert!(
        flags.contains(&"shipper.ignore-unequal-block-size".to_owned()),
        "{flags:?}"
    );
    let (_, page) = page.split_once("## Flags").expect("a section of flags");
    assert_eq!(flags, names(page), "the flags, and the rows of docs/parity-flags.md");
}

/// The flags that a table has rows for, in the order of the alphabet.
fn names(markdown: &str) -> Vec<String> {
    let cells = markdown
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let flags = cells.filter_map(|cell| cell.trim_start_matches("-h, ").strip_prefix("--"));
    let mut names: Vec<String> = flags
        .filter_map(|flag| flag.split('=').next())
        .map(|flag| flag.replace("[no-]", ""))
        .collect();
    names.sort();
    names
}
