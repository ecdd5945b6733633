//! What the documentation says of each command, made from the definition that parses it.

use std::fmt::Write as _;

use clap::Arg;

use super::{
    argv::{commands, find, is_switch},
    examples,
    text::{HELP, definition, shown_default, signature},
};

/// Every command that can be run, by its words: `sidecar`, `bucket ls`.
pub fn command_names() -> Vec<String> {
    let root = definition();
    let leaves = commands(&root)
        .into_iter()
        .filter(|(_, command)| !command.has_subcommands());
    leaves.map(|(path, _)| path.join(" ")).collect()
}

/// The flags of a command as Markdown: flag, default and meaning, the hidden ones in a table of their own. Empty for one
/// that is not there.
pub fn flag_table(command: &str) -> String {
    let root = definition();
    let path: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let Some(command) = find(&root, &path) else {
        return String::new();
    };
    let (hidden, shown): (Vec<&Arg>, Vec<&Arg>) = command.get_arguments().partition(|arg| arg.is_hide_set());
    let mut text = String::from("| Flag | Default | Meaning |\n|---|---|---|\n");
    let mut heading = None;
    for arg in shown {
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            let _ = writeln!(text, "| **{}** | | |", heading.unwrap_or_default());
        }
        row(&mut text, arg);
    }
    text.push_str("\nAccepted too, but not shown by `--help`:\n\n| Flag | Default | Meaning |\n|---|---|---|\n");
    for arg in hidden {
        row(&mut text, arg);
    }
    text
}

/// What the page of commands says of one, as Markdown: what it is for, examples, exit codes, and the flags that are not
/// those of every command.
pub fn command_section(command: &str) -> String {
    let root = definition();
    let path: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let Some(definition) = find(&root, &path) else {
        return String::new();
    };
    let about = definition.get_long_about().or(definition.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let mut text = format!("## narthex {command}\n\n{}\n\n```\n", markdown(&about));
    for example in examples::of(&path) {
        let _ = writeln!(text, "# {}\n{}", example.what, example.line);
    }
    text.push_str("```\n\n");
    if let Some(codes) = examples::exit_codes(&path) {
        text.push_str("| Exit code | Meaning |\n|---|---|\n");
        for (code, meaning) in codes {
            let _ = writeln!(text, "| {code} | {meaning} |");
        }
    }
    text.push_str("\n| Flag | Default | Meaning |\n|---|---|---|\n");
    let common = |arg: &Arg| {
        arg.get_help_heading() == Some(HELP) || root.get_arguments().any(|one| one.get_id() == arg.get_id())
    };
    // What runs and what checks it have their flags in common, which are listed once.
    let sidecar = find(&root, &["sidecar".to_owned()]).filter(|_| command == "check");
    let of_sidecar =
        |arg: &Arg| sidecar.is_some_and(|sidecar| sidecar.get_arguments().any(|one| one.get_id() == arg.get_id()));
    for arg in definition
        .get_arguments()
        .filter(|arg| !common(arg) && !of_sidecar(arg))
    {
        row(&mut text, arg);
    }
    if sidecar.is_some() {
        text.push_str("\nAll [flags of the sidecar](flags.md) are taken, too.\n");
    }
    text
}

/// Prose with its flags and angle brackets as code, so that nothing of it is taken for a sign of Markdown.
fn markdown(text: &str) -> String {
    let word = |word: &str| {
        let flag = word.trim_end_matches(['.', ',', ';', ':', ')']);
        match flag.strip_prefix("--") {
            Some(_) => format!("`{flag}`{}", &word[flag.len()..]),
            None => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn row(text: &mut String, arg: &Arg) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = shown_default(arg)
        .map(|default| format!("`{default}`"))
        .unwrap_or_default();
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let values = match values.is_empty() || is_switch(arg) {
        true => String::new(),
        false => format!(": {}", values.join(", ")),
    };
    let _ = writeln!(
        text,
        "| `{}` | {default} | {}{values} |",
        signature(arg),
        help.replace('|', "\\|")
    );
}
