//! Completion in shells: the scripts call the program with `--completion-bash` and offer what it prints.

use std::ffi::OsString;

use clap::Arg;

use super::{
    argv::{PrintRequest, Words, find, is_switch},
    text::HELP,
};

/// For bash: `eval "$(narthex --completion-script-bash)"`.
pub(super) const BASH: &str = r#"_narthex_complete() {
    local word=${COMP_WORDS[COMP_CWORD]}
    # bash takes the = of --flag=value for a word of its own.
    [[ $word == = ]] && word=
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" --completion-bash "${COMP_WORDS[@]:1:COMP_CWORD}")" -- "$word"))
}
complete -F _narthex_complete -o default narthex
"#;

/// For zsh: `eval "$(narthex --completion-script-zsh)"`.
pub(super) const ZSH: &str = r#"#compdef narthex
_narthex() {
    local -a candidates
    candidates=(${(f)"$("${words[1]}" --completion-bash "${(@)words[2,CURRENT]}")"})
    compadd -a candidates || _files
}
compdef _narthex narthex
"#;

/// How the last word may go on, one a line: values of a flag, flags, or commands.
pub(super) fn candidates(root: &clap::Command, words: &Words, args: &[OsString]) -> String {
    let mut given: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    given.retain(|word| word != "--completion-bash");
    // What bash makes of `--flag=value` or, if nothing stands behind it yet, of `--flag=`.
    if given.last().is_some_and(|last| last == "=") {
        given.push(String::new());
    }
    let last = given.pop().unwrap_or_default();
    let before = given.iter().rev().find(|word| *word != "=");
    let command = find(root, &words.command).unwrap_or(root);
    if let Some(PrintRequest::HelpCommand(topics)) = &words.request {
        return continued(&last, after_help(root, topics, &last));
    }
    if let Some(flag) = before.and_then(|word| flag(command, word)) {
        return continued(&last, values(flag));
    }
    if let Some((name, _)) = last.split_once('=').filter(|(name, _)| name.starts_with("--")) {
        let values = flag(command, name).map(values).unwrap_or_default();
        return continued(
            &last,
            values.into_iter().map(|value| format!("{name}={value}")).collect(),
        );
    }
    if last.starts_with('-') {
        return continued(&last, flags(command, last.starts_with("--no")));
    }
    let mut names: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    if words.command.is_empty() {
        names.push("help".to_owned());
    }
    continued(&last, names)
}

/// Those of `all` that begin as the last word does.
fn continued(last: &str, all: Vec<String>) -> String {
    all.iter()
        .filter(|word| word.starts_with(last))
        .map(|word| format!("{word}\n"))
        .collect()
}

/// The flag that a word names, if it takes a value.
fn flag<'a>(command: &'a clap::Command, word: &str) -> Option<&'a Arg> {
    let named = |arg: &&Arg| match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => arg.get_long() == Some(long),
        (None, Some(short)) => arg.get_short().is_some_and(|char| short.chars().eq([char])),
        (None, None) => false,
    };
    command.get_arguments().find(named).filter(|arg| !is_switch(arg))
}

fn values(flag: &Arg) -> Vec<String> {
    let values = flag.get_possible_values().into_iter();
    values.map(|value| value.get_name().to_owned()).collect()
}

/// The flags that are shown; with `off` also how switches are turned off, as for one that is on at first.
fn flags(command: &clap::Command, off: bool) -> Vec<String> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let both = shown.flat_map(|arg| {
        let long = arg.get_long().unwrap_or_default();
        let no = is_switch(arg) && arg.get_help_heading() != Some(HELP) && (off || arg.get_action().takes_values());
        [Some(format!("--{long}")), no.then(|| format!("--no-{long}"))]
    });
    both.flatten().collect()
}

/// The commands that `help` may be asked for next.
fn after_help(root: &clap::Command, topics: &[String], last: &str) -> Vec<String> {
    let path = match topics.split_last() {
        Some((topic, before)) if topic == last => before,
        _ => topics,
    };
    let group = find(root, path);
    let names = group.into_iter().flat_map(clap::Command::get_subcommands);
    names.map(|command| command.get_name().to_owned()).collect()
}
