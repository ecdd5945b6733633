//! Texts made from the definition of the flags: help, manual page, version, and errors of values.

use clap::{Arg, ArgAction, Args as _, CommandFactory as _, error::ContextKind};

use super::{Cli, flags::Common};

/// The heading of the flags that print something in place of running.
const HELP: &str = "Help";

/// The definition as it is shown: with the common flags at the root, and everywhere the flags that only print.
pub(super) fn definition() -> clap::Command {
    let root = Cli::command();
    let about = root.get_about().cloned().unwrap_or_default();
    // Laying arguments over a command also lays their documentation over the command's.
    let root = Common::augment_args(root).about(about).args(printing());
    let names: Vec<String> = root
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let root = root
        .override_usage("narthex <command> [flags]")
        .subcommand_value_name("command");
    names
        .iter()
        .fold(root.subcommand_help_heading("Commands"), |root, name| {
            root.mut_subcommand(name, |command| {
                let command = command.override_usage(format!("narthex {name} [flags]"));
                command.args(printing()).after_help(
                "Flags may stand before or after the command, as --flag=value or --flag value. A switch --x is turned \
                 off with --no-x.\n@file stands for the lines of a file, one word each. Durations: 30s, 5m, 1h30m.",
            )
            })
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
        flag("completion-bash", "Print how the last word may go on").hide(true),
        flag("completion-script-bash", "Print a completion script for bash").hide(true),
        flag("completion-script-zsh", "Print a completion script for zsh").hide(true),
    ]
}

/// The version as Prometheus' family of programs prints it; branch and revision come from `NARTHEX_BRANCH` and
/// `NARTHEX_REVISION` at build time.
pub fn version() -> String {
    let branch = option_env!("NARTHEX_BRANCH").unwrap_or("unknown");
    let revision = option_env!("NARTHEX_REVISION").unwrap_or("unknown");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let version = env!("CARGO_PKG_VERSION");
    format!("narthex, version {version} (branch: {branch}, revision: {revision})\n  platform:       {os}/{arch}\n")
}

/// The help of `command`, or of the program.
pub(super) fn help(mut root: clap::Command, command: Option<&str>) -> String {
    root.build();
    let text = match command.and_then(|name| root.find_subcommand_mut(name)) {
        Some(command) => command.render_help(),
        None => root.render_help(),
    };
    tidy(&text.to_string())
}

/// The full help of the program and of all its commands, hidden flags too.
pub(super) fn long_help(root: clap::Command) -> String {
    let mut root = unhide(root);
    root.build();
    let mut text = root.render_help().to_string();
    for command in root.get_subcommands_mut() {
        let help = command.render_long_help();
        text.push_str(&format!("\n\nnarthex {}\n\n{help}", command.get_name()));
    }
    tidy(&text)
}

fn unhide(root: clap::Command) -> clap::Command {
    let show = |arg: Arg| arg.hide(false);
    let names: Vec<String> = root
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let root = root.mut_args(show);
    names.iter().fold(root, |root, name| {
        root.mut_subcommand(name, |command| command.mut_args(show))
    })
}

/// No blanks at the ends of lines, one newline at the end of the text.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// A manual page, as input for man.
pub(super) fn manual(root: clap::Command) -> String {
    let about = root.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = format!(
        ".TH NARTHEX 1 \"\" \"narthex {}\"\n.SH NAME\nnarthex \\- {}\n.SH SYNOPSIS\n.B narthex\n\
         .RI \" command \" [ flags ]\n",
        env!("CARGO_PKG_VERSION"),
        roff(&about)
    );
    for command in root.get_subcommands() {
        let about = command
            .get_long_about()
            .or(command.get_about())
            .map(ToString::to_string)
            .unwrap_or_default();
        page.push_str(&format!(".SH narthex {}\n{}\n", roff(command.get_name()), roff(&about)));
        let mut heading = None;
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if heading != arg.get_help_heading() {
                heading = arg.get_help_heading();
                page.push_str(&format!(".SS {}\n", roff(heading.unwrap_or_default())));
            }
            let help = arg
                .get_long_help()
                .or(arg.get_help())
                .map(ToString::to_string)
                .unwrap_or_default();
            page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(&signature(arg)), roff(&help)));
            if let Some(default) = shown_default(arg) {
                page.push_str(&format!(".br\nDefault: {}.\n", roff(&default)));
            }
        }
    }
    page
}

/// Text as roff takes it: no macro at the start of a line, no lost dash or backslash.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = escaped.lines().map(|line| match line {
        "" => ".sp".to_owned(),
        line if line.starts_with(['.', '\'']) => format!("\\&{line}"),
        line => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A flag with its value, as one writes it: `--[no-]x` or `--x=<value>`.
pub(super) fn signature(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    if arg.get_help_heading() == Some(HELP) {
        format!("{short}--{long}")
    } else if !arg.get_action().takes_values() {
        format!("--[no-]{long}")
    } else {
        let value = arg
            .get_value_names()
            .and_then(<[_]>::first)
            .map_or("value", |name| name.as_str());
        format!("--{long}=<{value}>")
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
        clap::error::ErrorKind::InvalidUtf8 => "the value is not UTF-8".to_owned(),
        _ => "the value is not valid".to_owned(),
    });
    if flag.is_empty() {
        what
    } else {
        format!("{flag}: {what}")
    }
}
