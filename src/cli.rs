//! The command line: flags, their syntax and their checks.
//!
//! [`parse`] turns a command line into a [`Command`] of typed values or into a text to print; it never exits or prints,
//! and does no I/O but reading the files of `@file` words. Flags that take YAML in a file are read by whoever builds
//! the configuration, through [`content()`]. Nobody outside needs to know that clap is at work inside.

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

mod argv;
mod check;
mod complete;
mod content;
mod flags;
mod table;
mod text;
mod value;

pub use content::{ContentError, Env, content, process_env};
pub use flags::*;
pub use table::flag_table;
pub use text::version;
pub use value::{Address, HashFunc, InlineYaml, LogFormat, LogLevel, ReloadMethod, TlsVersion, ValueError};

use argv::{Ask, Spec, Words};

/// Ship Prometheus' blocks to object storage, proven complete, and answer queries for what it holds
#[derive(Parser)]
#[command(
    name = "narthex",
    disable_help_flag = true,
    disable_help_subcommand = true,
    term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What a command line comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Run this.
    Run(Command),
    /// Print a text, which ends with a newline, and exit.
    Print {
        /// To stdout; else to stderr.
        to_stdout: bool,
        /// The text.
        text: String,
        /// The exit code: 0 for what was asked for, 1 for a line that has the wrong form or cannot be run with, 2 for a
        /// bad value.
        exit: u8,
    },
}

/// Reads a command line whose first word is the program's name.
///
/// What it prints where, and with which exit code, is as with Thanos:
///
/// | line | text | exit |
/// |---|---|---|
/// | `--help`, `-h`, `help`, `--version`, no command | to stderr | 0 |
/// | `--help-long`, `--help-man`, completion | to stdout | 0 |
/// | unknown flag, stray word, missing value, value for a switch, unreadable `@file` | one line to stderr | 1 |
/// | flags that cannot be run with | a line each to stderr | 1 |
/// | bad value, flag given twice | usage and a line to stderr | 2 |
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Outcome {
    let root = text::definition();
    let args: Vec<OsString> = args.into_iter().skip(1).collect();
    let words = argv::read(args.iter().cloned(), &Spec::new(&root));
    if let Some(ask) = &words.ask {
        return answer(ask, root);
    }
    if words.complete {
        return stdout(complete::candidates(&root, &words, &args));
    }
    if let Some(mistake) = &words.mistake {
        return refusal(mistake, words.command.as_deref());
    }
    if words.help {
        return stderr(text::help(root, words.command.as_deref()));
    }
    run(&words, root)
}

fn answer(ask: &Ask, root: clap::Command) -> Outcome {
    match ask {
        Ask::Version => stderr(version()),
        Ask::HelpLong => stdout(text::long_help(root)),
        Ask::HelpMan => stdout(text::manual(root)),
        Ask::BashScript => stdout(complete::BASH.to_owned()),
        Ask::ZshScript => stdout(complete::ZSH.to_owned()),
        Ask::HelpCommand(topics) => match topics.first() {
            Some(topic) if root.find_subcommand(topic).is_none() => refusal("help knows no such command", None),
            topic => stderr(text::help(root, topic.map(String::as_str))),
        },
    }
}

fn run(words: &Words, root: clap::Command) -> Outcome {
    if let (None, Some(flag)) = (&words.command, &words.homeless) {
        return refusal(&format!("--{flag} needs a command: narthex sidecar --{flag}=..."), None);
    }
    // Without a command the flags that every command has are still checked.
    let name = words.command.as_deref().unwrap_or("sidecar");
    if let Some(flag) = &words.repeated {
        return bad_value(name, &format!("--{flag} is given more than once"));
    }
    let parsed = Cli::command()
        .try_get_matches_from(words.for_clap(name))
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let command = match parsed {
        Ok(cli) => cli.command,
        Err(error) => return bad_value(name, &text::value_error(&error)),
    };
    if words.command.is_none() {
        return stderr(text::help(root, None));
    }
    let findings = match &command {
        Command::Sidecar(sidecar) => {
            if let Some(twice) = check::repeated_label(sidecar) {
                return bad_value(name, &format!("--label: {twice} is given more than once"));
            }
            check::sidecar(sidecar)
        }
        _ => Vec::new(),
    };
    if findings.is_empty() {
        return Outcome::Run(command);
    }
    let lines = findings
        .iter()
        .map(|line| format!("narthex: error: {line}\n"))
        .collect();
    Outcome::Print {
        to_stdout: false,
        text: lines,
        exit: 1,
    }
}

fn stderr(text: String) -> Outcome {
    Outcome::Print {
        to_stdout: false,
        text,
        exit: 0,
    }
}

fn stdout(text: String) -> Outcome {
    Outcome::Print {
        to_stdout: true,
        text,
        exit: 0,
    }
}

fn refusal(mistake: &str, command: Option<&str>) -> Outcome {
    let command = command.map(|command| format!(" {command}")).unwrap_or_default();
    let text = format!("narthex: error: {mistake}; see narthex{command} --help\n");
    Outcome::Print {
        to_stdout: false,
        text,
        exit: 1,
    }
}

fn bad_value(command: &str, message: &str) -> Outcome {
    let usage = format!("usage: narthex {command} [flags], see narthex {command} --help\n");
    Outcome::Print {
        to_stdout: false,
        text: format!("{usage}narthex: error: {message}\n"),
        exit: 2,
    }
}
