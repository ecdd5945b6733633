//! `docs/decisions/`: each page has the same parts, and the index lists all of them by their titles.

use std::collections::BTreeMap;

use super::pages;

const PARTS: [&str; 4] = ["## Context", "## Decision", "## Rejected", "## What follows"];

/// The pages of decisions by their file names.
fn decisions() -> BTreeMap<String, String> {
    let below = |(path, text): (String, String)| {
        let name = path.strip_prefix("docs/decisions/")?.to_owned();
        (name != "README.md").then_some((name, text))
    };
    pages().into_iter().filter_map(below).collect()
}

#[test]
fn each_decision_says_what_was_rejected_and_why() {
    let decisions = decisions();
    assert!(decisions.len() > 10, "{:?}", decisions.keys());
    for (at, (name, page)) in decisions.iter().enumerate() {
        let number = format!("{:04}", at + 1);
        assert!(name.starts_with(&format!("{number}-")), "{name} is not number {number}");
        assert!(page.starts_with(&format!("# {number}. ")), "{name} has another title");
        let parts: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(parts, PARTS, "{name}");
        let rejected = page.split("## Rejected").nth(1).unwrap_or_default();
        let rejected = rejected.split("## ").next().unwrap_or_default();
        assert!(
            rejected.lines().any(|line| line.starts_with("- **")),
            "{name} rejects nothing: then it is no decision"
        );
    }
}

#[test]
fn the_index_lists_each_decision_by_its_title() {
    let index = &pages()["docs/decisions/README.md"];
    let listed: Vec<&str> = index.lines().filter(|line| line.starts_with("| [")).collect();
    let expected: Vec<String> = decisions()
        .iter()
        .map(|(name, page)| {
            let title = page.lines().next().unwrap_or_default().trim_start_matches("# ");
            let (number, title) = title.split_once(". ").expect("a number and a title");
            format!("| [{number}]({name}) | {title} |")
        })
        .collect();
    assert_eq!(listed, expected);
}
