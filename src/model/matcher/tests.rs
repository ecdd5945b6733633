//! Matchers held against what Go says (`testdata/regex`), and the limits.

use std::{collections::BTreeSet, path::Path};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// What `testdata/regex/generate.go` writes.
#[derive(Deserialize)]
struct Vectors {
    inputs: Vec<String>,
    patterns: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    pattern: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    matches: BTreeSet<String>,
}

/// Patterns that Go takes, and that we cannot match with.
const UNSUPPORTED: &[&str] = &[];

fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/regex/vectors.json");
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// `None` if it is as Go has it.
fn difference(vector: &Vector, inputs: &[String], unsupported: &mut BTreeSet<String>) -> Option<String> {
    let Vector {
        pattern,
        error,
        matches,
    } = vector;
    let matcher = Matcher::new(Op::Regex, "a", pattern);
    let ours = matcher.check().err().map(|error| error.to_string()).unwrap_or_default();
    if ours != *error {
        return Some(format!("{pattern:?}: we say {ours:?}, Go says {error:?}"));
    }
    if !ours.is_empty() {
        return None;
    }
    match matcher.compile() {
        Ok(compiled) => {
            let ours: BTreeSet<String> = inputs
                .iter()
                .filter(|input| compiled.is_match(input))
                .cloned()
                .collect();
            let differ: Vec<_> = ours.symmetric_difference(matches).collect();
            (!differ.is_empty()).then(|| format!("{pattern:?}: differs on {differ:?}"))
        }
        Err(PatternError::Unsupported { .. }) => {
            unsupported.insert(pattern.clone());
            None
        }
        Err(error) => Some(format!("{pattern:?} was checked, but {error}")),
    }
}

#[test]
fn patterns_match_as_in_go() {
    let Vectors { inputs, patterns } = vectors();
    assert!(patterns.len() > 1000 && inputs.len() > 50);
    let mut unsupported = BTreeSet::new();
    let wrong: Vec<String> = patterns
        .iter()
        .filter_map(|vector| difference(vector, &inputs, &mut unsupported))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} patterns differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let listed: BTreeSet<String> = UNSUPPORTED.iter().map(|&pattern| pattern.to_owned()).collect();
    assert_eq!(unsupported, listed);
}

fn refusal(pattern: &str) -> String {
    let matcher = Matcher::new(Op::Regex, "a", pattern);
    assert_eq!(matcher.check(), Ok(()), "Prometheus may get it");
    match matcher.matches("a") {
        Err(error @ PatternError::Unsupported { .. }) => error.to_string(),
        other => panic!("{pattern:.40}: {other:?}"),
    }
}

#[test]
fn what_would_cost_too_much_is_not_compiled() {
    for (pattern, problem) in [
        (format!("{}.", "a".repeat(200_000)), "it is longer than 131072 bytes"),
        (r"\pL{1000}".to_owned(), "compiled it takes more than 4194304 bytes"),
        (r"\pL".repeat(65), r"it has more than 64 classes such as \pL"),
        ("(".repeat(900) + &")".repeat(900), "nest"),
        (
            format!("a*{}", r"\Q\E*".repeat(65)),
            "it repeats repetitions more than 64 times",
        ),
        (r"\x{D800}".to_owned(), "surrogate"),
    ] {
        let text = refusal(&pattern);
        assert!(text.contains(problem), "{text:.300}");
    }
}

#[test]
fn plain_alternations_know_no_limit() {
    let names: Vec<String> = (0..50_000).map(|n| format!("pod-{n}")).collect();
    let matcher = Matcher::new(Op::Regex, "pod", names.join("|"));
    assert_eq!(matcher.matches("pod-49999"), Ok(true));
    assert_eq!(matcher.matches("pod-50000"), Ok(false));
    assert_eq!(matcher.matches(""), Ok(false));
    assert_eq!(Matcher::new(Op::NotRegex, "pod", "a|").matches(""), Ok(false));
}

#[test]
fn scripts_of_several_words_are_known() {
    for name in ["Old_Italic", "SignWriting", "Phags_Pa"] {
        let matcher = Matcher::new(Op::Regex, "a", format!(r"\p{{{name}}}"));
        assert_eq!(matcher.matches("a"), Ok(false), "{name}");
    }
    assert_eq!(
        Matcher::new(Op::Regex, "a", r"\p{Old_Italic}").matches("\u{10300}"),
        Ok(true)
    );
}

#[test]
fn every_operator_compares() {
    for (op, value, expected) in [
        (Op::Equal, "b", [false, true]),
        (Op::NotEqual, "b", [true, false]),
        (Op::Regex, "b.?", [false, true]),
        (Op::NotRegex, "b.?", [true, false]),
    ] {
        let matcher = Matcher::new(op, "a", value);
        assert_eq!([matcher.matches("").unwrap(), matcher.matches("b").unwrap()], expected);
    }
    assert_eq!(Matcher::new(Op::Equal, "a", "(").check(), Ok(()));
    assert!(matches!(
        Matcher::new(Op::NotRegex, "a", "(").matches(""),
        Err(PatternError::Invalid { pattern, .. }) if pattern == "("
    ));
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(pattern in r"([a-c\[\]{}()|*+?.^$\\QEpPx0-9:,<>&~éΣ-]|\PC){0,24}", input in "[a-c]{0,4}") {
        match go_regex::Pattern::new(&pattern) {
            Ok(compiled) => { compiled.is_match(&input); }
            // Whatever the translation writes is good syntax.
            Err(go_regex::Refusal::Unsupported(problem)) => prop_assert!(
                problem.contains("surrogate") || problem.contains("compiled"), "{pattern:?}: {problem}"
            ),
            Err(go_regex::Refusal::Invalid(_)) => {}
        }
    }

    #[test]
    fn a_quoted_text_matches_itself(text in "\\PC{0,12}") {
        prop_assume!(!text.contains("\\E"));
        let pattern = go_regex::Pattern::new(&format!(r"\Q{text}\E")).unwrap();
        prop_assert!(pattern.is_match(&text));
        let longer = format!("{text}x");
        prop_assert!(!pattern.is_match(&longer));
    }
}
