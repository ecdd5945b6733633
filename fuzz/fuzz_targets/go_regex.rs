//! Any text as a pattern in Go's syntax: refused, or translated into what the `regex` crate takes for good syntax.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::model::matcher::go_regex::{Pattern, Refusal, translate};

fuzz_target!(|texts: (&str, &str)| {
    let (pattern, value) = texts;
    match Pattern::new(pattern) {
        Ok(compiled) => {
            compiled.is_match(value);
        }
        Err(Refusal::Unsupported(problem)) => {
            let ours = translate(pattern).is_err();
            assert!(
                ours || problem.contains("compiled") || problem.contains("nest"),
                "{pattern:?}: {problem}"
            );
        }
        Err(Refusal::Invalid(_)) => assert!(translate(pattern).is_err()),
    }
});
