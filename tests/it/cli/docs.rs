//! What is written about the flags is what the program has.

use std::{collections::BTreeSet, path::Path};

use narthex::cli::{command_names, command_section, flag_table};

use super::{printed, refused};

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

/// A page of the repository.
fn page(path: &str) -> String {
    fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Compares what stands between two markers of a page with `text`, or writes it there.
#[track_caller]
pub(crate) fn between_markers(path: &str, marker: &str, text: &str) {
    let page = page(path);
    let (start, end) = (format!("<!-- {marker} -->\n"), format!("<!-- /{marker} -->"));
    let (head, rest) = page.split_once(&start).expect("the start marker");
    let (_, tail) = rest.split_once(&end).expect("the end marker");
    checked_in(path, &format!("{head}{start}{text}{end}{tail}"));
}

#[test]
fn the_help_of_every_command_is_the_checked_in_one() {
    checked_in("testdata/cli/help.txt", &printed(&["sidecar", "--help"], false, 0));
    checked_in("testdata/cli/narthex.txt", &printed(&["--help"], false, 0));
    for group in ["bucket", "tools bucket"] {
        let words: Vec<&str> = group.split(' ').chain(["--help"]).collect();
        let path = format!("testdata/cli/{}.txt", group.replace(' ', "-"));
        checked_in(&path, &printed(&words, false, 0));
    }
    for command in command_names().iter().filter(|name| *name != "sidecar") {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let path = format!("testdata/cli/{}.txt", command.replace(' ', "-"));
        checked_in(&path, &printed(&words, false, 0));
    }
}

#[test]
fn the_documented_flags_are_the_parsed_ones() {
    between_markers("docs/flags.md", "flags", &flag_table("sidecar"));
}

#[test]
fn the_page_of_commands_is_made_from_their_definition() {
    let commands = command_names();
    let others = commands.iter().filter(|name| *name != "sidecar");
    let sections: Vec<String> = others.map(|name| command_section(name)).collect();
    assert!(sections.len() >= 7, "{commands:?}");
    between_markers("docs/commands.md", "commands", &sections.join("\n"));
}

#[test]
fn every_flag_has_a_row_in_the_parity_table_and_every_row_a_flag() {
    let flags = names(&flag_table("sidecar"));
    assert!(
        flags.contains(&"shipper.ignore-unequal-block-size".to_owned()),
        "{flags:?}"
    );
    let page = page("docs/parity.md");
    let (_, page) = page.split_once("## Flags").expect("a section of flags");
    let (page, _) = page.split_once("\n## ").expect("another section");
    assert_eq!(flags, names(page), "the flags, and the rows of docs/parity.md");
}

/// Each command that Thanos has, too, has a part of its own in the section of bucket tools: a row for each of its flags
/// but those of every command. Rows of flags that only Thanos has say so, and the program does not know them.
#[test]
fn every_flag_of_the_bucket_tools_has_a_row_and_every_row_a_flag_or_a_reason() {
    let page = page("docs/parity.md");
    for command in command_names().iter().filter(|name| *name != "sidecar") {
        let heading = format!("\n### `{command}`\n");
        let (_, part) = page
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no part {heading:?}"));
        let part = part.split("\n#").next().unwrap();
        let flags: BTreeSet<String> = names(&command_section(command)).into_iter().collect();
        let rows: BTreeSet<String> = names(part).into_iter().collect();
        let without: Vec<_> = flags.difference(&rows).collect();
        assert!(without.is_empty(), "{command}: no rows for {without:?}");
        for foreign in rows.difference(&flags) {
            let start = [format!("| `--{foreign}"), format!("| `--[no-]{foreign}")];
            let row = part
                .lines()
                .find(|line| start.iter().any(|start| line.starts_with(start)));
            let row = row.expect("the row");
            assert!(
                row.contains("| not yet |") || row.contains("| different on purpose |"),
                "{command}: {row}"
            );
            let flag = format!("--{foreign}");
            let words: Vec<&str> = command.split(' ').chain([flag.as_str()]).collect();
            assert!(
                refused(&words).contains(&format!("unknown flag {flag}")),
                "{command} {flag}"
            );
        }
    }
}

/// The flags that a table has rows for, in the order of the alphabet.
fn names(markdown: &str) -> Vec<String> {
    let cells = markdown
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // A short form may stand before the long one.
    let flags = cells.filter_map(|cell| cell.rsplit(", ").next()?.strip_prefix("--"));
    let mut names: Vec<String> = flags
        .filter_map(|flag| flag.split('=').next())
        .map(|flag| flag.replace("[no-]", ""))
        .collect();
    names.sort();
    names
}
