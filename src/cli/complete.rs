//! Completion in shells: the scripts call the program with `--completion-bash` and offer what it prints.

use std::ffi::OsString;

use super::argv::Words;

/// For bash: `eval "$(narthex --completion-script-bash)"`.
pub(super) const BASH: &str = r#"_narthex_complete() {
    local word=${COMP_WORDS[COMP_CWORD]}
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
    let last = args.last().filter(|word| *word != "--completion-bash");
    let last = last.map(|word| word.to_string_lossy()).unwrap_or_default();
    let before = args
        .iter()
        .rev()
        .nth(1)
        .map(|word| word.to_string_lossy())
        .unwrap_or_default();
    let command = words
        .command
        .as_deref()
        .and_then(|name| root.find_subcommand(name))
        .unwrap_or(root);
    let flag = command
        .get_arguments()
        .find(|arg| {
            before
                .strip_prefix("--")
                .is_some_and(|name| arg.get_long() == Some(name))
        })
        .filter(|arg| arg.get_action().takes_values());
    let all: Vec<String> = if let Some(flag) = flag {
        flag.get_possible_values()
            .iter()
            .map(|value| value.get_name().to_owned())
            .collect()
    } else if last.starts_with('-') {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown
            .filter_map(|arg| arg.get_long())
            .map(|long| format!("--{long}"))
            .collect()
    } else if words.command.is_none() {
        let commands = root.get_subcommands().map(|command| command.get_name().to_owned());
        commands.chain(["help".to_owned()]).collect()
    } else {
        Vec::new()
    };
    all.iter()
        .filter(|word| word.starts_with(&*last))
        .map(|word| format!("{word}\n"))
        .collect()
}
