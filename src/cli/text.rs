//! Texts made from the definition of the flags: help, version, and errors of values.

use clap::{
    Arg, ArgAction, Args as _, CommandFactory as _,
    error::{ContextKind, ErrorKind},
};

use super::{
    Cli,
    argv::{commands, find, is_switch},
    examples,
    flags::Common,
};
use crate::model::build;

/// The heading of the flags that print something in place of running.
pub(super) const HELP: &str = "Help";

/// What is said below the flags of a command.
const NOTES: &str = "Flags may stand before or after the command, as --flag=value or --flag value. A switch --x is \
                     turned off with --no-x.\n@file stands for the lines of a file, one word each. Durations: 30s, \
                     5m, 1h30m.\nnarthex --help-long explains each flag in full.";
/// The same of a group of commands.
const GROUP_NOTES: &str = "narthex COMMAND --help lists the flags of a command; narthex --help-long explains them all.";

/// The definition as it is shown: with the common flags at the root, and everywhere the flags that only print.
pub(super) fn definition() -> clap::Command {
    let root = Cli::command();
    let about = root.get_about().cloned().unwrap_or_default();
    // Laying arguments over a command also lays their documentation over the command's.
    let root = Common::augment_args(root).about(about);
    shown(root, &[])
}

/// A command as it is shown, with all that are below it; `path` are the words that name it.
fn shown(command: clap::Command, path: &[String]) -> clap::Command {
    let below: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let words: String = path.iter().map(|word| format!(" {word}")).collect();
    let command = command.args(printing());
    if below.is_empty() {
        let command = command.override_usage(format!("narthex{words} [flags]"));
        return about_bucket(command, path);
    }
    let command = command
        .override_usage(format!("narthex{words} <command> [flags]"))
        .subcommand_value_name("command")
        .subcommand_help_heading("Commands");
    below.iter().fold(command, |command, name| {
        let path = [path, std::slice::from_ref(name)].concat();
        command.mut_subcommand(name, |inner| shown(inner, &path))
    })
}

/// The flags that describe the bucket, which mean more where nothing goes without one.
fn about_bucket(command: clap::Command, path: &[String]) -> clap::Command {
    if path.first().is_none_or(|name| name == "sidecar" || name == "check") {
        return command;
    }
    command.mut_args(|arg| {
        let help = match arg.get_id().as_str() {
            "objstore.config" => "The bucket, as YAML",
            "objstore.config-file" => "File that describes the bucket",
            _ => return arg,
        };
        let long = format!("{help}\n\n$(NAME) is replaced by the environment variable NAME, which must be set.");
        arg.help(help).long_help(long).help_heading("Bucket")
    })
}

/// The flags that only print; the lexer knows their names too.
fn printing() -> [Arg; 7] {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .help_heading(HELP)
            .action(ArgAction::SetTrue)
    };
    [
        flag("help", "Print this help").short('h'),
        flag("version", "Print the version"),
        flag("help-long", "Print the help of all commands, with hidden flags").hide(true),
        flag("help-man", "Print a manual page").hide(true),
        flag("completion-bash", "Print completions of the last word").hide(true),
        flag("completion-script-bash", "Print a completion script for bash").hide(true),
        flag("completion-script-zsh", "Print a completion script for zsh").hide(true),
    ]
}

/// The version as Prometheus' family of programs prints it; branch and revision come from `NARTHEX_BRANCH` and
/// `NARTHEX_REVISION` at build time.
pub fn version() -> String {
    let (version, branch, revision) = (build::VERSION, build::BRANCH, build::REVISION);
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("narthex, version {version} (branch: {branch}, revision: {revision})\n  platform:       {os}/{arch}\n")
}

/// The help of the command that these words name, or of the program.
pub(super) fn help(root: &clap::Command, path: &[String]) -> String {
    let command = find(root, path).unwrap_or(root);
    let mut command = rendered(command, path, NOTES);
    tidy(&command.render_help().to_string())
}

/// The full help of the program and of all its commands, hidden flags too.
pub(super) fn long_help(root: &clap::Command) -> String {
    let mut text = String::new();
    for (path, command) in commands(root) {
        let show = |arg: Arg| arg.hide(false);
        let mut command = rendered(command, &path, NOTES).mut_args(show);
        match path.is_empty() {
            true => text.push_str(&command.render_help().to_string()),
            false => {
                let help = command.render_long_help();
                text.push_str(&format!("\n\nnarthex {}\n\n{help}", path.join(" ")));
            }
        }
    }
    tidy(&text)
}

/// A command for clap to render: every switch without a value, exit codes and examples below the flags.
fn rendered(command: &clap::Command, path: &[String], notes: &'static str) -> clap::Command {
    // A value that may be left out would be shown, and must not be given.
    let plain = |arg: Arg| match is_switch(&arg) {
        true => arg.require_equals(false).num_args(0).action(ArgAction::SetTrue),
        false => arg,
    };
    let mut below = String::new();
    if let Some(codes) = examples::exit_codes(path) {
        below.push_str("Exit codes:\n");
        for (code, meaning) in codes {
            below.push_str(&format!("  {code}  {meaning}\n"));
        }
        below.push('\n');
    }
    let examples = examples::of(path);
    if !examples.is_empty() {
        below.push_str("Examples:\n");
        for example in examples {
            below.push_str(&format!(
                "  # {}\n  {}\n\n",
                example.what,
                example.line.replace('\n', "\n  ")
            ));
        }
    }
    below.push_str(match command.has_subcommands() {
        true => GROUP_NOTES,
        false => notes,
    });
    // What the program's own definition says of help and width does not reach a command that is taken out of it.
    command
        .clone()
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .term_width(100)
        .mut_args(plain)
        .after_help(below)
}

/// No blanks at the ends of lines, one newline at the end of the text.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// A flag with its value, as one writes it: `--[no-]x` or `--x=<value>`.
pub(super) fn signature(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    if arg.get_help_heading() == Some(HELP) {
        format!("{short}--{long}")
    } else if is_switch(arg) {
        format!("--[no-]{long}")
    } else {
        let value = arg
            .get_value_names()
            .and_then(<[_]>::first)
            .map_or("value", |name| name.as_str());
        format!("{short}--{long}=<{value}>")
    }
}

/// The default, unless it says nothing.
pub(super) fn shown_default(arg: &Arg) -> Option<String> {
    let default = arg
        .get_default_values()
        .first()
        .filter(|_| arg.get_action().takes_values())?;
    (!default.is_empty()).then(|| default.to_string_lossy().into_owned())
}

/// What is wrong with a value, in one line: the flag, and what was expected. The value itself is only repeated where it
/// cannot be a secret.
pub(super) fn value_error(error: &clap::Error) -> String {
    let text = |kind| error.get(kind).map(ToString::to_string);
    let flag = text(ContextKind::InvalidArg).unwrap_or_default();
    let flag = flag.split([' ', '=']).next().unwrap_or_default();
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let expected = text(ContextKind::ValidValue).map(|valid| {
        format!(
            "expected one of {valid}, got {:?}",
            text(ContextKind::InvalidValue).unwrap_or_default()
        )
    });
    let what = cause.or(expected).unwrap_or_else(|| match error.kind() {
        ErrorKind::InvalidUtf8 => "the value is not UTF-8".to_owned(),
        ErrorKind::MissingRequiredArgument => "this flag must be given".to_owned(),
        _ => "the value is not valid".to_owned(),
    });
    if flag.is_empty() {
        what
    } else {
        format!("{flag}: {what}")
    }
}
