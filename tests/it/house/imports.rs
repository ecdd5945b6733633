//! What a file names by paths: those that begin at a root, such as `crate::`, with groups in braces.

/// A module, or something in it, by its path.
pub(super) type Module = Vec<String>;

/// A text without its lines of comment.
pub(super) fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The word that a text begins with, and what follows it.
fn word(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|char: char| !char.is_alphanumeric() && char != '_')
            .unwrap_or(text.len()),
    )
}

/// Collects the paths of what begins here, as `a::{b, c::d}`, and returns what follows.
fn tree<'a>(mut text: &'a str, mut path: Module, found: &mut Vec<Module>) -> &'a str {
    loop {
        text = text.trim_start();
        if let Some(mut group) = text.strip_prefix('{') {
            loop {
                group = tree(group, path.clone(), found).trim_start();
                match group.strip_prefix(',') {
                    Some(rest) if !rest.trim_start().starts_with('}') => group = rest,
                    rest => return rest.unwrap_or(group).trim_start().trim_start_matches('}'),
                }
            }
        }
        let (name, rest) = word(text);
        if !name.is_empty() {
            path.push(name.to_owned());
        }
        match rest.strip_prefix("::") {
            Some(more) if !name.is_empty() => text = more,
            _ => {
                found.push(path);
                // A new name given by `as` is none of ours.
                let end = rest.find([',', '}', ';', '\n', '(', ')', ' ']).unwrap_or(rest.len());
                let rest = &rest[end..];
                return match rest.trim_start().strip_prefix("as ") {
                    Some(renamed) => word(renamed.trim_start()).1,
                    None => rest,
                };
            }
        }
    }
}

/// Every path that begins with `root`, such as `crate::`, which is its first part.
pub(super) fn paths(code: &str, root: &str) -> Vec<Module> {
    // What lies within a group that was read already, as in `super::{super::a}`, is no start.
    let (mut found, mut end) = (Vec::new(), 0);
    for (at, _) in code.match_indices(root) {
        let inner = code[..at]
            .chars()
            .next_back()
            .is_some_and(|char| char.is_alphanumeric() || matches!(char, '_' | ':' | '$'));
        if !inner && at >= end {
            end = code.len() - tree(&code[at..], Vec::new(), &mut found).len();
        }
    }
    found
}
