//! `docs/troubleshooting.md`: the messages by which an operator looks something up are those of the program.

use super::{divided, files, pages, spans};

/// The sources, with texts that are broken into several lines put together.
fn sources() -> String {
    let sources = files(".rs").into_iter().filter(|(path, _)| path.starts_with("src/"));
    let mut all = String::new();
    for line in sources.flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>()) {
        match line.strip_suffix('\\') {
            Some(start) => all.push_str(start.trim_start()),
            None => {
                all.push_str(line.trim_start());
                all.push('\n');
            }
        }
    }
    all
}

#[test]
fn messages_that_are_looked_up_are_those_of_the_program() {
    let (_, prose) = divided(&pages()["docs/troubleshooting.md"]);
    let first = prose
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let messages: Vec<String> = first.flat_map(spans).filter(|span| span.contains(' ')).collect();
    let sources = sources();
    // What differs from one time to the other is left out.
    let parts = messages.iter().flat_map(|message| message.split("..."));
    let missing: Vec<&str> = parts.map(str::trim).filter(|part| !sources.contains(part)).collect();
    assert!(messages.len() >= 15 && missing.is_empty(), "nobody says {missing:?}");
}
