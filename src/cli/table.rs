//! The table of flags in the documentation, made from the definition that parses them.

use std::fmt::Write as _;

use clap::Arg;

use super::text::{definition, shown_default, signature};

/// The flags of `narthex sidecar` as Markdown: flag, default and meaning, the hidden ones in a table of their own.
pub fn flag_table() -> String {
    let root = definition();
    let sidecar = root.get_subcommands().find(|command| command.get_name() == "sidecar");
    let args: Vec<&Arg> = sidecar
        .into_iter()
        .flat_map(|command| command.get_arguments())
        .collect();
    let (hidden, shown): (Vec<&Arg>, Vec<&Arg>) = args.into_iter().partition(|arg| arg.is_hide_set());
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
    let values = match values.is_empty() || !arg.get_action().takes_values() {
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
